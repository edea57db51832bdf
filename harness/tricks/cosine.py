"""Cosine decay: the learning rate follows half a cosine from its peak to 0.

Paper: he2019bag, arXiv:1812.01187, Sec. 5.1; from loshchilov2017sgdr, arXiv:1608.03983, Eq. (5)
    (memory)
Equation: lr(t) = 0.5 * (1 + cos(pi * t / T)) * lr_peak, with t and T counted in steps after the warm-up
Acts on: recipe (schedule, milestones)
Defaults: no options
Differs: nothing known; there are no restarts, as in he2019bag. It clears the milestones of the step
    schedule, so that two recipes which differ only in numbers that are no longer used are one arm.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick


def cosine_lr(step: int, *, total_steps: int, lr_peak: float) -> float:
    """The learning rate `step` steps after the warm-up, of `total_steps` (warm-up excluded).

    The training loop has its own schedule function; this is the equation it must agree with.

    >>> [round(cosine_lr(step, total_steps=4, lr_peak=0.4), 4) for step in range(5)]
    [0.4, 0.3414, 0.2, 0.0586, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * step / total_steps)) * lr_peak


@dataclass(frozen=True, kw_only=True)
class Cosine(Trick):
    """Set `recipe.schedule` to "cosine"."""

    name: ClassVar[str] = "cosine"
    conflicts: ClassVar[tuple[str, ...]] = ("exponential_decay", "step_decay", "faster_decay")

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(recipe, schedule="cosine", milestones=())
