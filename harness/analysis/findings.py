"""What the analysis found: plain data, every number with its n; the report is written from this alone.

Accuracies are in percent and effects in percentage points (pp); those of any other metric are in the metric's
own units. All intervals are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.intervals import Floats
from harness.spec import ACCURACIES, DIVERGED, FINISHED
from harness.study.plan import Claim, PaperValue

if TYPE_CHECKING:
    import pandas as pd


# The frame of records, one row per run, as plain outcomes: arm -> seed -> what came of it.


METRICS = (*ACCURACIES, "loss", "train_loss")
LARGEST = 1e60  # of a metric: beyond it, squares of variances overflow
_PREFERRED = (FINISHED, DIVERGED)  # where an arm and a seed have two records


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run. Metrics that are absent, or no number that can be reckoned with, are left out."""

    status: str
    metrics: Mapping[str, float]
    predictions: bytes | None = None  # one bit per test image (numpy.packbits)
    test_images: int = 0
    reason: str | None = None  # why it failed, where the record says so


Outcomes = Mapping[str, Mapping[int, Outcome]]


def read_outcomes(records: pd.DataFrame, more_metrics: Iterable[str] = ()) -> Outcomes:
    """Every run's outcome, whatever the order of the rows; the best where an arm and a seed have two.

    `more_metrics`: columns of plugins' metrics, to be read beside `METRICS`.
    """
    # A frame made of no records has no columns.
    if records.empty:
        return {}
    names = tuple(name for name in dict.fromkeys((*METRICS, *more_metrics)) if name in records)
    out: dict[str, dict[int, Outcome]] = {str(arm): {} for arm in records["arm_id"].unique()}
    runs = zip(records["arm_id"].tolist(), records["seed"].tolist(), strict=True)
    for (arm, seed), outcome in zip(runs, _all_outcomes(records, names), strict=True):
        of_arm = out[str(arm)]
        known = of_arm.setdefault(int(seed), outcome)
        if known is not outcome and _rank(outcome) < _rank(known):
            of_arm[int(seed)] = outcome
    return out


def matrix(outcomes: Outcomes, arms: Sequence[str], seeds: Sequence[int], metric: str) -> Floats:
    """The metric of every finished run, (A, S); NaN where there is none."""
    values = np.full((len(arms), len(seeds)), np.nan)
    for a, arm in enumerate(arms):
        for s, seed in enumerate(seeds):
            outcome = outcomes.get(arm, {}).get(seed)
            if outcome is not None and outcome.status == FINISHED:
                values[a, s] = outcome.metrics.get(metric, math.nan)
    return values


def lacks_value(outcome: Outcome | None, metric: str) -> bool:
    """Whether the run finished without a finite value of the metric; it has not diverged."""
    return outcome is not None and outcome.status == FINISHED and metric not in outcome.metrics


def is_lost(outcome: Outcome | None, metric: str) -> bool:
    """A diverged run, or one that finished without a finite value: an outcome either way, and no number."""
    return lacks_value(outcome, metric) or (outcome is not None and outcome.status == DIVERGED)


def _rank(outcome: Outcome) -> tuple[int, str, tuple[tuple[str, float], ...]]:
    order = _PREFERRED.index(outcome.status) if outcome.status in _PREFERRED else len(_PREFERRED)
    return order, outcome.status, tuple(sorted(outcome.metrics.items()))


def _all_outcomes(records: pd.DataFrame, names: Sequence[str]) -> Iterator[Outcome]:
    """Of every record, read by columns: of 100,000, a mapping for each would take a second."""
    nothing = [None] * len(records)
    columns = (usable(name, records[name]) for name in names)
    metrics = zip(*columns, strict=True) if names else repeat((), len(records))
    others = (
        records[name].tolist() if name in records else nothing
        for name in ("predictions", "test_images", "reason")
    )
    rows = zip(records["status"].tolist(), metrics, *others, strict=True)
    for status, values, predictions, test_images, reason in rows:
        yield Outcome(
            status=str(status),
            metrics={name: value for name, value in zip(names, values, strict=True) if value is not None},
            predictions=predictions if isinstance(predictions, bytes) else None,
            test_images=int(test_images) if test_images is not None and _is_finite(test_images) else 0,
            reason=reason if isinstance(reason, str) and reason else None,
        )


def usable(metric: str, column: pd.Series[Any]) -> list[float | None]:
    """The values that a run can have (`can_be`), None in place of any other."""
    values: list[Any] = column.tolist()
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
        least, most = (0.0, 100.0) if metric in ACCURACIES else (-LARGEST, LARGEST)
        if column.between(least, most).all():
            return values
    return [float(value) if can_be(metric, value) else None for value in values]


def can_be(metric: str, value: Any) -> bool:
    """Whether a run can have this value: finite, small enough to be squared, and an accuracy a percentage."""
    if not _is_finite(value) or abs(value) > LARGEST:
        return False
    return metric not in ACCURACIES or 0.0 <= value <= 100.0


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_) and math.isfinite(value)


# How the total of a table splits over its tricks: plain data, in percentage points (or the metric's units).
#
# All intervals are two-sided 95 % intervals over re-training, before Holm's correction, unless named
# adjusted.


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """A contrast of arm means; None where there is no value, or no standard error above 0."""

    estimate: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrickCredit:
    """One trick in one column of the table."""

    trick: str
    column: str | None
    n: int  # seeds of the arm with fewest, of those that the credit needs
    first: Amount  # in the first place (alone), or in the given order: `CreditFinding.places`
    last: Amount  # in the last place (given all others), or in the reverse order
    credit: Amount  # Shapley value: the mean over all orders
    half_gap: Amount  # (last - first) / 2; below 0: overlaps with other tricks, above 0: needs them
    forward: Amount | None  # given the tricks before it in the file; None: these arms do not exist
    adjusted_low: float | None  # of the credit, Holm-adjusted
    adjusted_high: float | None
    p: float | None
    p_holm: float | None  # over all credits of the table
    df: float | None
    flagged: bool  # the variance guard gave an arm its own variance
    verdict: str  # a word of `findings`
    qualifier: str
    more_seeds: int | None
    path_dependent: bool  # the interval of `half_gap` excludes 0
    contradiction: (
        bool  # helps as the first and hurts as the last, or the other way round, by the rows' verdicts
    )
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditTotal:
    """One column: what is split, and whether the arms show more than pairwise interactions."""

    column: str | None
    n: int
    none: float | None  # mean of the row without any of the tricks, percent; None: no such row, or no value
    every: float | None  # mean of the row with all of them
    total: Amount  # every minus none: the sum of the credits
    check: (
        Amount | None
    )  # the contrast that strays farthest from 0 among those that are 0 without interactions
    check_p: float | None  # of three and more tricks; its p, Holm-adjusted over them. None: cannot be told
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditFinding:
    """The credits of one table, or of an `add_one_in` and a `leave_one_out` table together."""

    design: str  # both_ends | both_ways | factorial | fractional: how the credits are computed
    tables: tuple[str, ...]  # keys of the tables whose rows were used
    places: tuple[str, str]  # what `TrickCredit.first` and `last` are
    credits: tuple[TrickCredit, ...]  # column by column, in the order of the file
    totals: tuple[CreditTotal, ...]  # one per column
    why_not: str = ""  # why there are no credits, where there are none


# Findings beside the verdicts: what the seeds could have seen, what accuracy costs, which images changed.


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


HELPS, HURTS = "helps", "hurts"
NO_DIFFERENCE = "no detectable difference"
UNDECIDED = "undecided"
NOT_EVALUABLE = "not evaluable"
CANNOT_TEST = "cannot be tested here"

GLYPHS = {
    HELPS: "▲", HURTS: "▼", NO_DIFFERENCE: "≈", UNDECIDED: "?", NOT_EVALUABLE: "—", CANNOT_TEST: "∅",
}  # fmt: skip

REPRODUCED, DIFFERS, COMPATIBLE = "reproduced", "differs", "compatible but imprecise"

YES, NO, NOT_SETTLED = "yes", "no", "not settled"  # answers to a claim of the paper by its sign alone
COMPARABLE = "same direction, comparable size"  # answers by size; the last ones are NOT_RUN and CANNOT_TEST
OTHER_SIZE = "same direction, other size"
SAME_DIRECTION = "same direction"  # no size to compare with: none is printed, or it is within the noise
OPPOSITE = "opposite"
NOT_OF_THAT_SIZE = "no effect of the paper's size"
NOT_RUN = "not run yet"  # too few of its runs are there, and some are still to come


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Declared before the first run."""

    metric: str = "top1"  # top1, top5, or a plugin's metric: any unit; more is better, or see below
    alpha: float = 0.05
    smallest_effect_pp: float = 0.2  # in the metric's own units where it is not an accuracy
    comparable_to_paper: bool = False  # True only where data and size are the paper's
    looks: tuple[int, ...] = ()  # seeds per arm at each look, the last is the budget; () or one: fixed design
    # Of results from elsewhere; a study of ours has the defaults, and its report does not name them.
    percent: bool = False  # a metric of another name than an accuracy's is in percent
    lower_is_better: bool = False
    seeds_shared: bool = True  # False: runs of two rows have nothing in common, each pair by Welch's test

    @property
    def in_percent(self) -> bool:
        """Whether the metric is a percentage, shown in percent and percentage points."""
        return self.percent or self.metric in ACCURACIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The accuracy of one arm over its seeds."""

    n: int  # seeds with a value
    diverged: int
    missing: int  # planned, not there (yet), failed, or finished without a finite value
    missing_reason: str | None  # e.g. "2 failed: out of memory", "3 not run yet"
    mean: float | None
    sd: float | None
    low: float | None  # 95 % t interval of the mean; None for n < 2
    high: float | None
    secondary: Mapping[str, float]  # other metrics, means over the same seeds: top5, loss, ...
    values: Mapping[int, float]  # seed -> metric
    without_value: int = 0  # of `missing`: finished, but the metric is NaN, infinite or no percentage

    @property
    def lost(self) -> int:
        """Runs with an outcome that gave no value."""
        return self.diverged + self.without_value


@dataclass(frozen=True, slots=True, kw_only=True)
class LookResult:
    """What one look at an adaptive design said about one contrast. None: no standard error at this look."""

    seeds: int  # per arm, at this look
    estimate: float | None
    low: float | None  # the repeated 95 % interval: valid at every look at once, before Holm's correction
    high: float | None
    boundary_low: float | None  # a difference below this, or above boundary_high, settles the contrast
    boundary_high: float | None
    verdict: str  # the word at this look


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One declared contrast: this row minus the row it is compared with."""

    versus: str
    n: int
    estimate: float | None
    low: float | None  # unadjusted 95 % interval over re-training, on this test set (T1)
    high: float | None
    adjusted_low: float | None  # Holm-adjusted
    adjusted_high: float | None
    p: float | None
    p_holm: float | None
    df: float | None
    flagged: bool  # the variance guard gave one of the two arms its own variance
    new_images_low: float | None  # 95 % interval over new test images too (T2); None without per-image bits
    new_images_high: float | None
    detectable: float | None  # minimum detectable effect at 80 % power with this n
    prob_better: float | None  # P(one run of this row beats one run of the other)
    verdict: str  # one of the words above
    qualifier: str  # e.g. "by at least 0.2 pp", "about 4 more seeds would settle it", or ""
    fragile: bool  # dropping one seed, or counting diverged runs as chance, changes the verdict
    differences: Mapping[int, float]  # seed -> paired difference
    paper: float | None  # the paper's own effect
    paper_status: str | None  # verified | memory
    gap: float | None  # ours minus the paper's effect
    gap_low: float | None
    gap_high: float | None
    agreement: str | None  # reproduced | differs | compatible but imprecise; None unless comparable
    more_seeds: int | None = None  # per arm, about how many would settle an undecided contrast
    prob_better_low: float | None = None  # 95 % interval of P(one run of this row beats one of the other)
    prob_better_high: float | None = None
    settled_at: int | None = None  # seeds at the look that ended this row; None: fixed design, or still open
    trace: tuple[LookResult, ...] = ()  # the looks that took place, until it was settled; (): fixed design
    exploratory: bool = False  # not declared before results were there


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFinding:
    """One cell of a table: what was measured, what was printed, what it means."""

    row: str
    column: str | None
    arm_id: str | None
    tricks: tuple[str, ...]
    paper: Mapping[str, PaperValue]
    note: str | None
    level: Level | None  # None: a quoted number, nothing was trained
    effect: Effect | None  # None: a reference row
    sentence: str  # the claim in words


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFinding:
    """One table, cells in reading order."""

    key: str
    title: str
    design: str
    columns: tuple[str | None, ...]
    cells: tuple[CellFinding, ...]
    note: str | None
    contrasts: int  # size of the Holm family
    pooled_sd: float | None  # residual sd of the block fit
    seed_correlation: float | None  # estimated share of the seed (block) in the variance
    paired_df_cost: int | None
    resolvable: Resolvable | None = None  # what other numbers of seeds could see
    credit: CreditFinding | None = None  # how the total splits over the tricks; None: another design


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSize:
    """A difference beside the paper's, on a scale on which sizes can be compared."""

    scale: str  # "log-odds" of accuracies, "log ratio" of steps, or "as measured"
    difference: float | None  # ours; None: no standard error
    low: float | None  # at the level that Holm's rule leaves to the claim
    high: float | None
    paper: float | None  # None: not printed
    paper_sd: float | None  # of the paper's difference
    ratio: float | None  # ours over the paper's; None: the paper's is within its noise, or not printed
    ratio_low: float | None  # Fieller's interval; None: unbounded
    ratio_high: float | None
    predicted: (
        bool | None
    )  # whether ours lies in the paper's prediction interval; None: not the paper's setting
    more_seeds: int | None  # per row, about how many would settle it


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFinding:
    """What the planned seeds say about one claim of the paper: paired differences, row minus versus.

    Units: percentage points for top1 and top5, the loss's own for losses. For `steps_to_target` every number
    is a ratio, steps of the row over steps of versus, and `estimate` is its geometric mean.
    """

    claim: Claim
    column: str | None  # where the row and the other one were found
    versus_column: str | None
    n: int  # seeds in which both runs have a value
    estimate: float | None
    low: float | None  # 95 % t interval of this claim alone; None for n < 2 and where no number can be given
    high: float | None
    p: float | None
    p_holm: float | None  # over all claims of the study
    answer: str  # yes | no | not settled, from the interval of this claim alone
    answer_holm: str  # the same after Holm's correction
    why: str  # what limits the answer: missing and diverged runs, no spread, one seed; "" for a plain answer
    differences: Mapping[int, float]  # seed -> difference (ratio for steps)
    never_reached: int  # runs, of both rows, that ended below the target accuracy
    paper: float | None  # the same difference (ratio) of the printed values
    paper_status: str | None
    size: ClaimSize | None = None  # None: answered by its sign alone, as before there were floors


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRow:
    """Optimizer steps until one row's runs reached the target accuracy."""

    row: str
    arm_id: str | None
    trained: bool  # False: quoted, or an evaluation of trained networks: there is no curve
    steps: Mapping[
        int, int | None
    ]  # seed -> first curve point at the target; None: ended, or diverged, below it
    diverged: int
    missing: int  # planned, not there (yet), or failed
    median: float | None  # None where no more than half of the runs reached it
    low: int | None  # over the runs that reached it
    high: int | None
    factor: float | None  # the reference row's median over this one: how many times fewer steps
    paper: PaperValue | None  # millions of steps
    paper_factor: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedPanel:
    """One column of a table with a target."""

    column: str | None
    target_top1: float | None  # percent, on the curve's images; None: not known yet
    rows: tuple[SpeedRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedFinding:
    """Steps to the target accuracy in one table."""

    table: str
    title: str
    target_row: str | None  # None: the target is a fixed accuracy
    reference: str | None  # the row that factors are measured from
    panels: tuple[SpeedPanel, ...]


# What was found of the conditions in `study.conditions`: plain data, for reports.


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorFinding:
    """What simple classifiers reach on the data of some arms, in percent; None: `problem` says why."""

    data: str
    resolution: int
    train_images: int | None
    chance: float | None  # share of the largest class of the test images
    guessing: float | None
    neighbours: float | None  # 5 nearest training images
    linear: float | None  # logistic regression
    value: float | None  # the best of the three
    problem: str | None
    arms: tuple[str, ...]  # arm_ids of the rows with these data


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCompetence:
    """Whether one arm of the tables can stand in a comparison."""

    arm_id: str
    top1: float | None  # mean over seeds, percent
    lower: float | None  # one-sided 95 % limit of that mean; None for fewer than 3 seeds
    floor: float | None  # None: there is none for its data
    updates: int | None  # of the weights in one training; None: not recorded
    may_fail: bool
    fault: str  # why it cannot; "": it can


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlFinding:
    """A table's control in one column: was the difference seen that is known to be there?"""

    table: str
    column: str | None
    row: str
    versus: str
    detected: bool
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Competence:
    """What the verdicts of a study rest on."""

    no_floor: str  # why no floor was measured for any row; "": see `floors`
    floors: tuple[FloorFinding, ...]
    arms: tuple[ArmCompetence, ...]
    controls: tuple[ControlFinding, ...]


# Everything.


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything a report says about results."""

    study: str
    size: str
    settings: Settings
    seeds: tuple[int, ...]
    tables: tuple[TableFinding, ...]
    claims: tuple[ClaimFinding, ...] = ()
    speed: tuple[SpeedFinding, ...] = ()
    budget: tuple[BudgetPoint, ...] = ()
    flips: tuple[RowFlips, ...] = ()
    competence: Competence | None = None  # None: of before it was asked for; verdicts are as they were then
