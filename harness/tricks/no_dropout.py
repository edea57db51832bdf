"""No dropout: the layer before the classifier drops nothing.

Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1: batch normalisation makes dropout unnecessary
Equation: p = 0, so that dropout is the identity
Acts on: recipe (model argument dropout)
Defaults: no options
Differs: nothing known; the paper's Inception drops 40 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class NoDropout(Trick):
    """Set the model argument `dropout` to 0."""

    name: ClassVar[str] = "no_dropout"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "no_dropout takes dropout away", dropout=0.0)
