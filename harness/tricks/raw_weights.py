"""Raw weights: the network is evaluated with the weights it ends with, not with their average.

Paper: szegedy2015going, arXiv:1409.4842, Sec. 6 and szegedy2016rethinking, arXiv:1512.00567, Sec. 8,
    which both evaluate an average of the weights; this is the row without it
Equation: evaluate w_N in place of a_N (see ema)
Acts on: recipe (eval_weights)
Defaults: no options
Differs: nothing known. It changes only how a trained network is evaluated, and costs no training: the row
    with the average and this one are the same run. Where no trick averages, both are the same number.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick


@dataclass(frozen=True, kw_only=True)
class RawWeights(Trick):
    """Set `recipe.eval_weights` to "raw"."""

    name: ClassVar[str] = "raw_weights"
    observes: ClassVar[bool] = True

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(recipe, eval_weights="raw")
