"""Exponential decay: the learning rate is multiplied by a factor every few epochs, in stairs.

Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 8: x 0.94 every 2 epochs; szegedy2015going,
    arXiv:1409.4842, Sec. 6: x 0.96 every 8 epochs
Equation: lr(t) = lr_peak * factor ^ floor(t / every), with t in epochs from the start of training
Acts on: recipe (schedule, decay, decay_every, milestones)
Defaults: factor = 0.94 and every = 2.0 (szegedy2016rethinking; szegedy2017inception has the same)
Differs: nothing known. It clears the milestones of the step schedule, so that two recipes which differ only
    in numbers that are no longer used are one arm.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


def exponential_lr(epoch: float, *, lr_peak: float, factor: float, every: float) -> float:
    """The learning rate after `epoch` epochs.

    The training loop has its own schedule function; this is the equation it must agree with.

    >>> [round(exponential_lr(epoch, lr_peak=0.045, factor=0.94, every=2.0), 6) for epoch in (0, 1.9, 2, 99)]
    [0.045, 0.045, 0.0423, 0.00217]
    """
    return lr_peak * factor ** (epoch // every)


@dataclass(frozen=True, kw_only=True)
class ExponentialDecay(Trick):
    """Set `recipe.schedule` to "exponential"."""

    name: ClassVar[str] = "exponential_decay"
    conflicts: ClassVar[tuple[str, ...]] = ("cosine", "step_decay", "faster_decay")
    factor: float = 0.94
    every: float = 2.0

    def __post_init__(self) -> None:
        require(
            0 < self.factor < 1, f"exponential_decay: factor must be a number in (0, 1), got {self.factor!r}"
        )
        require(self.every > 0, f"exponential_decay: every must be a number > 0, got {self.every!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(
            recipe, schedule="exponential", decay=self.factor, decay_every=self.every, milestones=()
        )
