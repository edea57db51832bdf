"""Sigmoid units: the logistic function in place of ReLU.

Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.2 and Fig. 3: BN-x5-Sigmoid 69.8 %, Inception with
    sigmoid and without batch normalisation never better than chance
Equation: f(x) = 1 / (1 + exp(-x)) in place of f(x) = max(0, x)
Acts on: recipe (model argument activation)
Defaults: no options
Differs: nothing known. Initial weights stay those of the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class Sigmoid(Trick):
    """Set the model argument `activation` to "sigmoid"."""

    name: ClassVar[str] = "sigmoid"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "sigmoid replaces the nonlinearity", activation="sigmoid")
