"""Gradual warm-up: the learning rate rises linearly from 0 to its peak over the first epochs.

Paper: he2019bag, arXiv:1812.01187, Sec. 3.1 (memory); goyal2017accurate, arXiv:1706.02677, Sec. 2.2
    (memory)
Equation: lr(s) = s / m * lr_peak for step s = 0, 1, ..., m - 1, with m the number of warm-up steps
Acts on: recipe (warmup_epochs)
Defaults: epochs = 5.0 as in both papers, out of 120 (he2019bag) or 90 (goyal2017accurate) epochs of
    training
Differs: warm-up counts within recipe.epochs, so that training is not longer with it. goyal2017accurate
    starts from the learning rate of one worker (memory), he2019bag and this trick from 0.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


def warmup_lr(step: int, *, warmup_steps: int, lr_peak: float) -> float:
    """The learning rate at `step` (0-based) of the warm-up.

    The training loop has its own schedule function; this is the equation it must agree with.

    >>> [warmup_lr(step, warmup_steps=4, lr_peak=0.4) for step in (0, 1, 2)]
    [0.0, 0.1, 0.2]
    """
    return step / warmup_steps * lr_peak


@dataclass(frozen=True, kw_only=True)
class Warmup(Trick):
    """Set `recipe.warmup_epochs`; the schedule applies it per step."""

    name: ClassVar[str] = "warmup"
    epochs: float = 5.0

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"warmup: epochs must be a number > 0, got {self.epochs!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        require(
            self.epochs < recipe.epochs,
            f"warmup: {self.epochs:g} epochs of warm-up do not fit into {recipe.epochs:g} epochs of training",
        )
        return dataclasses.replace(recipe, warmup_epochs=float(self.epochs))
