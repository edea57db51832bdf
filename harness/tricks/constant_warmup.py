"""Constant warm-up: a low, constant learning rate for the first epochs, then the full one at once.

Paper: goyal2017accurate, arXiv:1706.02677, Sec. 2.2 and Table 1
Equation: lr(t) = lr for t < epochs;   after that the schedule, from its peak
Acts on: recipe (warmup_epochs, warmup_lr, warmup_shape)
Defaults: epochs = 5.0 (the paper); lr = 0.1 (the rate that is right for the paper's small batch of 256)
Differs: nothing known. Warm-up counts within recipe.epochs, so that training is not longer with it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


@dataclass(frozen=True, kw_only=True)
class ConstantWarmup(Trick):
    """Set the recipe's warm-up to a constant rate."""

    name: ClassVar[str] = "constant_warmup"
    conflicts: ClassVar[tuple[str, ...]] = ("warmup",)
    epochs: float = 5.0
    lr: float = 0.1

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"constant_warmup: epochs must be a number > 0, got {self.epochs!r}")
        require(self.lr > 0, f"constant_warmup: lr must be a number > 0, got {self.lr!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        require(
            self.epochs < recipe.epochs,
            f"constant_warmup: {self.epochs:g} epochs of warm-up do not fit into {recipe.epochs:g} epochs of"
            " training",
        )
        return dataclasses.replace(
            recipe, warmup_epochs=self.epochs, warmup_lr=self.lr, warmup_shape="constant"
        )
