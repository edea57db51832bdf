"""Step decay: the learning rate is divided at fixed epochs.

Paper: he2016deep, arXiv:1512.03385, Sec. 3.4: divided by 10; he2019bag, arXiv:1812.01187, Sec. 2.1:
    every 30 epochs of 120
Equation: lr(t) = lr_peak * factor ^ floor(t / every), with t in epochs from the start of training
Acts on: recipe (schedule, milestones, decay)
Defaults: every = 30.0 (he2019bag) and factor = 0.1 (both papers)
Differs: he2016deep divides when the error plateaus, which depends on the run; here the epochs are fixed
    beforehand. The milestones are written for the epochs that the recipe has when this trick acts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require

MOST_MILESTONES = 1_000


def milestones(*, epochs: float, every: float) -> tuple[float, ...]:
    """The multiples of `every` that lie before the end of training.

    >>> milestones(epochs=120, every=30), milestones(epochs=90, every=40)
    ((30.0, 60.0, 90.0), (40.0, 80.0))
    """
    found: list[float] = []
    while (len(found) + 1) * every < epochs:
        found.append(float((len(found) + 1) * every))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class StepDecay(Trick):
    """Set `recipe.schedule` to "step", with a milestone at each multiple of `every` below the last epoch."""

    name: ClassVar[str] = "step_decay"
    conflicts: ClassVar[tuple[str, ...]] = ("cosine", "exponential_decay", "faster_decay")
    every: float = 30.0
    factor: float = 0.1

    def __post_init__(self) -> None:
        require(self.every > 0, f"step_decay: every must be a number > 0, got {self.every!r}")
        require(0 < self.factor < 1, f"step_decay: factor must be a number in (0, 1), got {self.factor!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        count = recipe.epochs / self.every
        require(count <= MOST_MILESTONES, f"step_decay: {count:.0f} milestones, more than {MOST_MILESTONES}")
        epochs = milestones(epochs=recipe.epochs, every=self.every)
        require(
            bool(epochs),
            f"step_decay: {self.every:g} epochs do not pass within {recipe.epochs:g} epochs of training",
        )
        return dataclasses.replace(recipe, schedule="step", milestones=epochs, decay=self.factor)
