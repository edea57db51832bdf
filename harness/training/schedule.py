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

    kind: str  # constant | step | cosine | exponential
    lr_peak: float
    total_steps: int
    warmup_steps: int = 0
    warmup_lr: float = 0.0
    warmup_shape: str = "linear"  # linear | constant
    milestone_steps: tuple[int, ...] = ()
    decay: float = 0.1
    decay_steps: float = math.inf  # not rounded: of `exponential`, the time from one stair to the next


def make_schedule(recipe: Recipe, *, steps_per_epoch: int) -> Schedule:
    """The recipe's epochs in steps of this data set, each rounded to the nearest step.

    Raises:
        ValueError: the recipe names a schedule or a shape of warm-up that does not exist, or a stair of no
            length.
    """
    if recipe.schedule not in AFTER_WARMUP:
        raise ValueError(unknown("schedule", recipe.schedule, AFTER_WARMUP))
    if recipe.warmup_shape not in WARMUPS:
        raise ValueError(unknown("shape of warm-up", recipe.warmup_shape, WARMUPS))
    if recipe.schedule == "exponential" and recipe.decay_every <= 0:
        raise ValueError(f"decay_every must be a number of epochs above 0, got {recipe.decay_every!r}")
    return Schedule(
        kind=recipe.schedule,
        lr_peak=recipe.lr,
        total_steps=count_steps(recipe.epochs, steps_per_epoch),
        warmup_steps=round(recipe.warmup_epochs * steps_per_epoch),
        warmup_lr=recipe.warmup_lr,
        warmup_shape=recipe.warmup_shape,
        milestone_steps=tuple(round(epoch * steps_per_epoch) for epoch in recipe.milestones),
        decay=recipe.decay,
        decay_steps=recipe.decay_every * steps_per_epoch,
    )


def count_steps(epochs: float, steps_per_epoch: int) -> int:
    """The length of a training in steps. Epochs may be fractional; at least one step is made.

    >>> count_steps(1.5, 10)
    15
    """
    return max(1, round(epochs * steps_per_epoch))


def lr_at(step: int, schedule: Schedule) -> float:
    """The learning rate of a step; the first step is 0.

    >>> goyal = Schedule(kind="constant", lr_peak=3.2, total_steps=100, warmup_steps=50, warmup_lr=0.1)
    >>> [round(lr_at(step, goyal), 3) for step in (0, 10, 25, 50)]
    [0.1, 0.72, 1.65, 3.2]
    """
    if step < schedule.warmup_steps:
        return WARMUPS[schedule.warmup_shape](step, schedule)
    return AFTER_WARMUP[schedule.kind](step, schedule)


def _linear_warmup(step: int, schedule: Schedule) -> float:
    """From warmup_lr at step 0 to lr_peak after warm-up, by the same amount at each step.

    Goyal et al. 2017, Sec. 2.2, start at the rate of one worker; He et al. 2019, Sec. 3.1, whose published
    logs start at 0, at 0.
    """
    rise = schedule.lr_peak - schedule.warmup_lr
    return schedule.warmup_lr + rise * step / schedule.warmup_steps


def _constant_warmup(step: int, schedule: Schedule) -> float:
    """warmup_lr during warm-up, then at once what the schedule says (Goyal et al. 2017, Sec. 2.2)."""
    return schedule.warmup_lr


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


def _exponential(step: int, schedule: Schedule) -> float:
    """lr_peak decay^floor(t / T): a staircase with a stair every T = decay_steps, counted from the start of
    training, warm-up included (Szegedy et al. 2016, Sec. 8: 0.94 every 2 epochs; Szegedy et al. 2015, Sec. 6:
    0.96 every 8). A stair that ends between two steps ends at the nearer one.

    >>> inception = Schedule(kind="exponential", lr_peak=0.045, total_steps=99, decay=0.94, decay_steps=20)
    >>> [round(lr_at(step, inception), 6) for step in (0, 19, 20, 39, 40)]
    [0.045, 0.045, 0.0423, 0.0423, 0.039762]
    """
    stairs = math.floor((step + 0.5) / schedule.decay_steps)
    return schedule.lr_peak * schedule.decay**stairs


WARMUPS: Mapping[str, Callable[[int, Schedule], float]] = {
    "linear": _linear_warmup,
    "constant": _constant_warmup,
}
AFTER_WARMUP: Mapping[str, Callable[[int, Schedule], float]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
    "exponential": _exponential,
}
