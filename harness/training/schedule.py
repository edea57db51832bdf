"""The learning rate of every step, as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.study.problems import unknown
from harness.study.spec import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The numbers that the learning rate depends on. Times are in optimizer steps."""

    kind: str  # constant | step | cosine
    lr_peak: float
    total_steps: int
    warmup_steps: int = 0
    milestone_steps: tuple[int, ...] = ()
    decay: float = 0.1


def make_schedule(recipe: Recipe, *, steps_per_epoch: int) -> Schedule:
    """The recipe's epochs in steps of this data set, each rounded to the nearest step.

    Raises:
        ValueError: the recipe names a schedule that does not exist.
    """
    if recipe.schedule not in AFTER_WARMUP:
        raise ValueError(unknown("schedule", recipe.schedule, AFTER_WARMUP))
    return Schedule(
        kind=recipe.schedule,
        lr_peak=recipe.lr,
        total_steps=count_steps(recipe.epochs, steps_per_epoch),
        warmup_steps=round(recipe.warmup_epochs * steps_per_epoch),
        milestone_steps=tuple(round(epoch * steps_per_epoch) for epoch in recipe.milestones),
        decay=recipe.decay,
    )


def count_steps(epochs: float, steps_per_epoch: int) -> int:
    """The length of a training in steps. Epochs may be fractional; at least one step is made.

    >>> count_steps(1.5, 10)
    15
    """
    return max(1, round(epochs * steps_per_epoch))


def lr_at(step: int, schedule: Schedule) -> float:
    """The learning rate of a step; the first step is 0.

    During warm-up it rises linearly from 0: lr_peak * step / warmup_steps (Goyal et al. 2017, Sec. 2.2;
    He et al. 2019, Sec. 3.1, whose published logs start at 0).
    """
    if step < schedule.warmup_steps:
        return schedule.lr_peak * step / schedule.warmup_steps
    return AFTER_WARMUP[schedule.kind](step, schedule)


def _constant(step: int, schedule: Schedule) -> float:
    return schedule.lr_peak


def _step(step: int, schedule: Schedule) -> float:
    """Multiply by `decay` at each milestone, counted from the start of training, warm-up included."""
    passed = sum(step >= milestone for milestone in schedule.milestone_steps)
    return schedule.lr_peak * schedule.decay**passed


def _cosine(step: int, schedule: Schedule) -> float:
    """lr_t = 0.5 (1 + cos(pi t / T)) lr_peak, where t and T leave warm-up out (He et al. 2019, Eq. (1))."""
    t = step - schedule.warmup_steps
    length = max(1, schedule.total_steps - schedule.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * t / length)) * schedule.lr_peak


AFTER_WARMUP: Mapping[str, Callable[[int, Schedule], float]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
}
