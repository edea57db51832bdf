"""No residual connections: the blocks of an Inception-ResNet lose their shortcuts.

Paper: szegedy2017inception, arXiv:1602.07261, Secs. 2 and 5: training with residual connections is faster;
    networks without them reach a similar accuracy
Equation: y = relu(F(x)) in place of y = relu(x + scale * F(x))
Acts on: recipe (model argument residual)
Defaults: no options
Differs: the paper compares Inception-ResNets with Inception-v3 and -v4 of similar cost; taking the shortcuts
    out of the same network changes nothing else, parameters and multiply-adds included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class NoResidual(Trick):
    """Set the model argument `residual` to false."""

    name: ClassVar[str] = "no_residual"
    conflicts: ClassVar[tuple[str, ...]] = ("residual_scaling",)

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(
            recipe, "no_residual needs residual blocks of an Inception-ResNet", residual=False
        )
