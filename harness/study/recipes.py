"""Named training recipes of papers, in the paper's own units. A study's `baseline` names one.

Every value's source is written beside it in `harness/study/recipe_book/`; the marks `verified` and `memory`
are those of docs/reference/papers.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.study.recipe_book import inception, residual

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "bag_of_tricks_baseline": residual.BAG_OF_TRICKS_BASELINE,
    "goyal": residual.GOYAL,
    "mixup": residual.MIXUP,
    "resnet": residual.RESNET,
    "googlenet": inception.GOOGLENET,
    "batch_norm_inception": inception.BATCH_NORM_INCEPTION,
    "bn_mlp": inception.BN_MLP,
    "rethinking_inception": inception.RETHINKING_INCEPTION,
    "inception_v4": inception.INCEPTION_V4,
    "mobilenet": inception.MOBILENET,
}
"""Name -> every field of `Recipe` but `model` and `data`."""
