"""No local response normalisation: the layers that divide by their neighbours' activity are left out.

Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1: unnecessary with batch normalisation
Equation: y = x in place of y_c = x_c / (k + alpha / n * sum of x_j^2 over n neighbouring channels)^beta
Acts on: recipe (model argument lrn)
Defaults: no options
Differs: nothing known. Where the layers are in the baseline is not in the paper (here as in Caffe's
    GoogLeNet: around the first convolutions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class NoLrn(Trick):
    """Set the model argument `lrn` to false."""

    name: ClassVar[str] = "no_lrn"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "no_lrn takes response normalisation away", lrn=False)
