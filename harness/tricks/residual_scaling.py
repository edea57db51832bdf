"""Residual scaling: the residuals are made smaller before they are added.

Paper: szegedy2017inception, arXiv:1602.07261, Sec. 3.3: factors of 0.1 to 0.3 where a network has more than
    1,000 filters
Equation: y = relu(x + scale * F(x)) in place of y = relu(x + F(x))
Acts on: recipe (model arguments scale_a, scale_b, scale_c)
Defaults: scale = 0.1, the lower end of the paper's range
Differs: the released code scales by 0.17, 0.10 and 0.20 at the three grid sizes, and those are the defaults
    of the networks here; this trick gives all three one factor, so scale = 1 is a network without scaling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require, with_model_args


@dataclass(frozen=True, kw_only=True)
class ResidualScaling(Trick):
    """Set the model arguments `scale_a`, `scale_b` and `scale_c`."""

    name: ClassVar[str] = "residual_scaling"
    conflicts: ClassVar[tuple[str, ...]] = ("no_residual",)
    scale: float = 0.1

    def __post_init__(self) -> None:
        require(
            0 < self.scale <= 1, f"residual_scaling: scale must be a number in (0, 1], got {self.scale!r}"
        )

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(
            recipe,
            "residual_scaling needs residual blocks",
            scale_a=self.scale,
            scale_b=self.scale,
            scale_c=self.scale,
        )
