"""Gradual warm-up: the learning rate rises linearly to its peak over the first epochs.

Paper: he2019bag, arXiv:1812.01187, Sec. 3.1; goyal2017accurate, arXiv:1706.02677, Sec. 2.2
Equation: he2019bag (start_lr = 0): lr(i) = i / m * lr_peak for batch i = 1, 2, ..., m, with m the number of
    warm-up steps; goyal2017accurate: lr(i) = start_lr + (i - 1) / m * (lr_peak - start_lr)
Acts on: recipe (warmup_epochs, warmup_lr, warmup_shape)
Defaults: epochs = 5.0 as in both papers, out of 120 (he2019bag) or 90 (goyal2017accurate) epochs of
    training; start_lr = 0.0 (he2019bag; goyal2017accurate starts at the rate of its small batch, 0.1)
Differs: warm-up counts within recipe.epochs, so that training is not longer with it. At which batch
    goyal2017accurate reaches the peak is not said; here it is the first one after the warm-up.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


def warmup_lr(step: int, *, warmup_steps: int, lr_peak: float, start_lr: float = 0.0) -> float:
    """The learning rate at `step` (0-based) of the warm-up.

    The training loop has its own schedule function; this is the equation it must agree with.

    >>> [warmup_lr(step, warmup_steps=4, lr_peak=0.4) for step in (0, 1, 3)]
    [0.1, 0.2, 0.4]
    >>> warmup_lr(2, warmup_steps=4, lr_peak=3.5, start_lr=0.5)
    2.0
    """
    if start_lr == 0:
        return (step + 1) / warmup_steps * lr_peak
    return start_lr + step / warmup_steps * (lr_peak - start_lr)


@dataclass(frozen=True, kw_only=True)
class Warmup(Trick):
    """Set the recipe's warm-up to a linear one; the schedule applies it per step."""

    name: ClassVar[str] = "warmup"
    conflicts: ClassVar[tuple[str, ...]] = ("constant_warmup",)
    epochs: float = 5.0
    start_lr: float = 0.0

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"warmup: epochs must be a number > 0, got {self.epochs!r}")
        require(self.start_lr >= 0, f"warmup: start_lr must be a number >= 0, got {self.start_lr!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        require(
            self.epochs < recipe.epochs,
            f"warmup: {self.epochs:g} epochs of warm-up do not fit into {recipe.epochs:g} epochs of training",
        )
        shape = "proportional" if self.start_lr == 0 else "linear"
        return dataclasses.replace(
            recipe, warmup_epochs=self.epochs, warmup_lr=self.start_lr, warmup_shape=shape
        )
