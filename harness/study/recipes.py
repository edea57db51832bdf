"""Named training recipes of papers, in the paper's own units. A study's `baseline` names one.

Every value's source is written beside it; the marks `verified` and `memory` are those of
docs/reference/papers.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.study.spec import AugmentSpec

# He et al. 2019, arXiv:1812.01187, Sec. 2.1 "Training procedure" (verified unless said otherwise).
# Evaluation (Sec. 2.1): shorter side to 256, centre crop of 224, so 224 / 256 = 0.875 of the side.
# Differs: the paper's text says Xavier initialisation, the authors' code uses He's (MSRAPrelu); the code is
# followed here. The text says hue, saturation and brightness, as here; the code changes contrast instead of
# hue.
_BAG_OF_TRICKS_BASELINE: Mapping[str, Any] = {
    "augment": AugmentSpec(
        crop_area=(0.08, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        flip=0.5,
        jitter=0.4,
        pca_noise=0.1,
    ),
    "epochs": 120.0,
    "batch_size": 256,
    "optimizer": "sgd",
    "optimizer_args": {"momentum": 0.9, "nesterov": True},  # 0.9: memory (authors' code and logs)
    "lr": 0.1,
    "weight_decay": 1e-4,  # memory (authors' code and logs)
    "schedule": "step",
    "milestones": (30.0, 60.0, 90.0),
    "decay": 0.1,
    "warmup_epochs": 0.0,
    "precision": "fp32",
    "initialisation": "he_fan_out",
    "eval_crop": 0.875,
    "read_out": "last_epoch",
}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "bag_of_tricks_baseline": _BAG_OF_TRICKS_BASELINE,
}
"""Name -> every field of `Recipe` but `model` and `data`."""
