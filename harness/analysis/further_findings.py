"""Findings beside the verdicts: what the seeds could have seen, what accuracy costs, which images changed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolvable:
    """The true effect that one comparison of a table would find with 80 % power, by seeds per arm."""

    level: float  # two-sided: alpha over the number of comparisons, the strictest that Holm's rule may ask
    sd: float  # of one run, as the median comparison sees it: standard error x sqrt(n / 2)
    df_per_seed: float  # degrees of freedom of the median comparison over n - 1
    seeds_now: int  # of the comparison with most
    effect_now: float
    seeds_needed: int | None  # fewest that resolve the smallest effect of interest; None: above 10,000
    seeds: tuple[int, ...]  # ascending, from 2
    effects: tuple[float, ...]  # one for each of `seeds`, in the units of the metric


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPoint:
    """What one trained arm of the tables reaches, and what a run of it costs.

    A teacher's run, and the run that a training starts from, are part of the cost.
    """

    arm_id: str
    group: str  # data set (with its part) and device: only inside one can times and accuracies be compared
    n: int  # runs of the arm with a measured time
    value: float  # mean metric
    low: float | None  # its 95 % interval
    high: float | None
    time_s: float  # mean training time per run
    time_low_s: float | None
    time_high_s: float | None
    energy_j: float | None  # mean per run; None where not measured
    on_front: bool  # no other arm of its group is at least as good in both means, and better in one


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFlips:
    """Test images that a row answers otherwise than its reference: means over all pairs of their runs."""

    table: str
    row: str
    column: str | None
    versus: str
    images: int
    runs: int  # of the row with per-image bits
    versus_runs: int
    gained: float  # images correct in a run of the row and wrong in one of the reference
    lost: float  # the reverse; gained - lost = the difference of the mean top-1, times images / 100
    churn: (
        float | None
    )  # images that one run of the reference has over another: the flips of mere re-training
