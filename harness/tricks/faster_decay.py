"""Faster decay: the learning rate falls as many times faster.

Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1: 6 times faster, as the network trains faster
Equation: exponential: decay_every' = decay_every / times;   step: milestone' = milestone / times
Acts on: recipe (decay_every, milestones)
Defaults: times = 6.0 (the paper: six times faster, not six drops)
Differs: nothing known for the exponential schedule, which is the paper's; for the step schedule it is our
    extension. A schedule without stairs is refused. exponential_decay and step_decay say themselves how fast
    they fall, so they exclude it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


@dataclass(frozen=True, kw_only=True)
class FasterDecay(Trick):
    """Divide `recipe.decay_every`, or the milestones where the schedule is "step"."""

    name: ClassVar[str] = "faster_decay"
    conflicts: ClassVar[tuple[str, ...]] = ("cosine", "exponential_decay", "step_decay")
    times: float = 6.0

    def __post_init__(self) -> None:
        require(self.times > 0, f"faster_decay: times must be a number > 0, got {self.times!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        if recipe.schedule == "step":
            sooner = tuple(milestone / self.times for milestone in recipe.milestones)
            return dataclasses.replace(recipe, milestones=sooner)
        require(
            recipe.schedule == "exponential",
            f"faster_decay needs the schedule 'exponential' or 'step': the recipe has '{recipe.schedule}'",
        )
        return dataclasses.replace(recipe, decay_every=recipe.decay_every / self.times)
