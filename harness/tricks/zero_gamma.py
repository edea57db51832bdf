"""Zero gamma: every residual block starts as the identity.

Paper: he2019bag, arXiv:1812.01187, Sec. 3.1; goyal2017accurate, arXiv:1706.02677, Sec. 5.1
Equation: gamma = 0 in the last batch normalisation of each residual block, so that x + block(x) = x at step
    0
Acts on: recipe (model argument zero_gamma)
Defaults: no options
Differs: nothing known. It exists for residual networks only: the authors' Inception-V3 and MobileNet logs
    have it switched off, and here it refuses a model without the argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class ZeroGamma(Trick):
    """Set the model argument `zero_gamma`."""

    name: ClassVar[str] = "zero_gamma"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "zero_gamma needs residual blocks", zero_gamma=True)
