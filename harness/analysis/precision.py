"""What a study, or a published table, could have seen; what accuracy costs; which images changed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.analysis import intervals
from harness.analysis.findings import (
    BudgetPoint,
    Level,
    Outcome,
    Outcomes,
    Resolvable,
    RowFlips,
    Settings,
    TableFinding,
)
from harness.analysis.intervals import Estimate
from harness.spec import FINISHED, Arm
from harness.study.declaration import ALPHA
from harness.study.plan import Cell, PlanTable

if TYPE_CHECKING:
    from pandas import DataFrame


# What this study could have seen: the effect resolved with 80 % power, by the number of seeds per arm.


FEWEST = 2
SHOWN = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300, 500, 700, 1000)


def resolvable(
    measured: Iterable[tuple[Estimate | None, int]], contrasts: int, settings: Settings
) -> Resolvable | None:
    """The curve of one table. `measured`: each comparison's estimate, and its seeds per arm.

    At n seeds a comparison has the standard error sd sqrt(2 / n) and df_per_seed (n - 1) degrees of freedom,
    sd and df_per_seed being the medians over the table: in a complete table of A arms the pooled sd of the
    block fit and A - 1. The effect is `power.detectable_effect` at alpha / contrasts.
    Returns: None where no comparison of two or more seeds has a standard error.
    """
    known = [(estimate, n) for estimate, n in measured if estimate is not None and n >= FEWEST]
    if not known or contrasts < 1:
        return None
    sd = float(np.median([float(estimate.se) * math.sqrt(n / 2) for estimate, n in known]))
    df_per_seed = float(np.median([float(estimate.df) / (n - 1) for estimate, n in known]))
    level = settings.alpha / contrasts
    now = max(n for _, n in known)

    def effect(seeds: int) -> float:
        return effect_at(seeds, sd, df_per_seed, level)

    needed = _fewest(effect, settings.smallest_effect_pp)
    seeds = sorted({*SHOWN, now})
    return Resolvable(
        level=level,
        sd=sd,
        df_per_seed=df_per_seed,
        seeds_now=now,
        effect_now=effect(now),
        seeds_needed=needed,
        seeds=tuple(seeds),
        effects=tuple(effect(n) for n in seeds),
    )


def effect_at(seeds: int, sd: float, df_per_seed: float, level: float) -> float:
    """The effect that `seeds` >= 2 runs per arm find with 80 % power at a two-sided `level`."""
    se, df = sd * math.sqrt(2 / seeds), df_per_seed * (seeds - 1)
    found = intervals.detectable_effect(
        Estimate(value=np.asarray(0.0), se=np.asarray(se), df=np.asarray(df)), level
    )
    assert found is not None  # the standard error is above 0
    return found


def _fewest(effect: Callable[[int], float], size: float) -> int | None:
    """The smallest number of seeds whose effect is at most `size`; the effect falls with the seeds."""
    if not effect(intervals.MOST_SEEDS) <= size:
        return None
    low, high = FEWEST - 1, intervals.MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if effect(middle) <= size else (middle, high)
    return high


# What accuracy costs: every trained arm's mean metric and mean training time, and which are worth it.
#
# An arm is dominated where another one of its group is at least as good and at least as cheap, and better
# in one of the two (Pareto). Means decide; the intervals are there for the reader.


TIME, ENERGY = "train_time_s", "energy_j"


def budget_of(
    tables: Sequence[TableFinding], arms: Mapping[str, Arm], records: DataFrame
) -> tuple[BudgetPoint, ...]:
    """One point per trained arm of the tables with a mean and a measured time, in the tables' order.

    Arms that only evaluate trained networks have none: what they cost is not training.
    """
    levels: dict[str, Level] = {
        cell.arm_id: cell.level
        for table in tables
        for cell in table.cells
        if cell.arm_id and cell.level and cell.level.mean is not None
    }
    times, energies, devices = (_by_arm(records, name) for name in (TIME, ENERGY, "device"))
    points = []
    for arm_id, level in levels.items():
        arm = arms.get(arm_id)
        chain = [] if arm is None or arm.observes else _chain(arm_id, arms)
        if arm is None or not chain or any(not times.get(each) for each in chain):
            continue
        used = sorted({str(device) for each in chain for device in devices.get(each, [])})
        group = f"{_data(arm)} on {' and '.join(used) or 'an unknown device'}"
        measured = [times[each] for each in chain], [energies.get(each, []) for each in chain]
        points.append(_point(arm_id, level, group, *measured))
    return _with_fronts(points)


def front(costs: Sequence[float], values: Sequence[float]) -> NDArray[np.bool_]:
    """Which points no other one dominates, (N,); equal points are both on the front."""
    cost, value = np.asarray(costs, dtype=float), np.asarray(values, dtype=float)
    no_worse = (cost[None, :] <= cost[:, None]) & (value[None, :] >= value[:, None])
    better = (cost[None, :] < cost[:, None]) | (value[None, :] > value[:, None])
    return np.logical_not((no_worse & better).any(axis=1))


def _with_fronts(points: Sequence[BudgetPoint]) -> tuple[BudgetPoint, ...]:
    out = list(points)
    for group in {point.group for point in points}:
        places = [k for k, point in enumerate(points) if point.group == group]
        best = front([points[k].time_s for k in places], [points[k].value for k in places])
        for k, on_front in zip(places, best, strict=True):
            out[k] = replace(points[k], on_front=bool(on_front))
    return tuple(out)


def _point(
    arm_id: str, level: Level, group: str, times: list[list[float]], energies: list[list[float]]
) -> BudgetPoint:
    assert level.mean is not None
    total = sum(float(np.mean(each)) for each in times)
    width = _width([intervals.mean(each) for each in times]) if all(len(each) > 1 for each in times) else None
    measured = all(len(energy) == len(time) for energy, time in zip(energies, times, strict=True))
    return BudgetPoint(
        arm_id=arm_id,
        group=group,
        n=len(times[0]),
        value=level.mean,
        low=level.low,
        high=level.high,
        time_s=total,
        time_low_s=None if width is None else max(total - width, 0.0),
        time_high_s=None if width is None else total + width,
        energy_j=sum(float(np.mean(each)) for each in energies) if measured else None,
        on_front=False,
    )


def _width(parts: Sequence[Estimate]) -> float:
    """Half the 95 % interval of a sum of independent means."""
    variances = np.asarray([float(part.se) ** 2 for part in parts])
    df = intervals.satterthwaite(variances, np.asarray([float(part.df) for part in parts]))
    whole = Estimate(value=np.asarray(0.0), se=np.sqrt(variances.sum()), df=df)
    return float(intervals.half_width(whole, 0.05))


def _chain(arm_id: str, arms: Mapping[str, Arm]) -> list[str]:
    """The arm and every arm that must be trained for it: teachers, and what trainings start from."""
    arm = arms.get(arm_id)
    before = [] if arm is None else [other for other in (arm.teacher, arm.source) if other]
    return list(dict.fromkeys([arm_id, *(each for other in before for each in _chain(other, arms))]))


def _by_arm(records: DataFrame, name: str) -> dict[str, list[float]]:
    """Arm -> the values of a column over its finished runs; numbers that are absent are left out."""
    if name not in records:
        return {}
    done = records[(records["status"] == FINISHED) & records[name].notna()].sort_values("seed")
    return {str(arm): frame.tolist() for arm, frame in done.groupby("arm_id")[name]}


def _data(arm: Arm) -> str:
    data = arm.recipe.data
    part = data.args.get("part", "all")
    return data.name if part == "all" else f"{data.name} (part {part})"


# Which test images a row gains and loses against its reference, from the per-image bits of the runs.
#
# Exploratory: nothing is tested. Two runs of one recipe answer many images differently too, and that number
# (churn) stands beside the others.


@dataclass(frozen=True, slots=True)
class Correct:
    """How many of the `runs` runs of an arm have each test image right, (N,)."""

    counts: NDArray[np.int64]
    runs: int


def flips_of(tables: Sequence[PlanTable], outcomes: Outcomes, seeds: Sequence[int]) -> tuple[RowFlips, ...]:
    """One entry per row with a reference, where both have bits of the same number of test images."""
    known: dict[str, Correct | None] = {}

    def correct(arm_id: str) -> Correct | None:
        if arm_id not in known:
            runs = outcomes.get(arm_id, {})
            known[arm_id] = correct_of([runs[seed] for seed in seeds if seed in runs])
        return known[arm_id]

    found = []
    for table in tables:
        cells = {(cell.row, cell.column): cell for cell in table.cells}
        for cell in table.cells:
            reference = cells.get((cell.versus or "", cell.column))
            if not reference or not cell.arm_id or not reference.arm_id or cell.arm_id == reference.arm_id:
                continue
            row, versus = correct(cell.arm_id), correct(reference.arm_id)
            if row and versus and row.counts.size == versus.counts.size:
                found.append(_flips(table.key, cell, row, versus))
    return tuple(found)


def correct_of(runs: Sequence[Outcome]) -> Correct | None:
    """Counts over the finished runs with bits; runs with another number of test images are left out."""
    packed = [run for run in runs if run.status == FINISHED and run.predictions is not None]
    bits = [
        found
        for run in packed
        if (found := intervals.unpack(run.predictions or b"", run.test_images)) is not None
    ]
    if not bits:
        return None
    size = Counter(each.size for each in bits).most_common(1)[0][0]
    same = [each for each in bits if each.size == size]
    return Correct(np.stack(same).sum(axis=0, dtype=np.int64), len(same))


def gained_and_lost(row: Correct, versus: Correct) -> tuple[float, float]:
    """Images per pair of runs: sum_i k_i (R - l_i) / (S R), and the reverse.

    k_i of S runs of the row and l_i of R runs of the reference have image i right. The difference of the two
    is sum_i (k_i / S - l_i / R), the difference of the mean accuracies in images.
    """
    pairs = row.runs * versus.runs
    gained = int((row.counts * (versus.runs - versus.counts)).sum())
    lost = int(((row.runs - row.counts) * versus.counts).sum())
    return gained / pairs, lost / pairs


def churn_of(arm: Correct) -> float | None:
    """Images that one run has right and another run of the same arm wrong, mean over ordered pairs."""
    if arm.runs < 2:
        return None
    return int((arm.counts * (arm.runs - arm.counts)).sum()) / (arm.runs * (arm.runs - 1))


def _flips(table: str, cell: Cell, row: Correct, versus: Correct) -> RowFlips:
    gained, lost = gained_and_lost(row, versus)
    assert cell.versus is not None
    return RowFlips(
        table=table,
        row=cell.row,
        column=cell.column,
        versus=cell.versus,
        images=int(row.counts.size),
        runs=row.runs,
        versus_runs=versus.runs,
        gained=gained,
        lost=lost,
        churn=churn_of(versus),
    )


# What a published table could and could not have detected.
#
# Each row is compared with the one it names: improvement, 95 % t interval, Holm's correction over the
# table. The variance of a row is what the table states (sd; or the sd that a standard error or an interval
# implies) or what is assumed for it. Where neither is there, nothing can be said, and that is said.


BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no detectable difference"
NOT_SETTLED, CANNOT_TELL = "not settled", "cannot be told"
NO_SPREAD = 1e-9  # in the table's units; less than any digit that is printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The seed-to-seed standard deviation of one row, and how well it is known."""

    sd: float
    df: int
    assumed: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssumedSd:
    """The standard deviation over seeds where the table has none, from elsewhere."""

    value: float
    runs: int  # that it was estimated from
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedRow:
    """One row as printed."""

    label: str
    value: float
    plus_minus: float | None = None
    runs: int | None = None  # None: not stated
    spread: str = "unknown"  # one of SPREADS
    versus: str | None = None  # label of the row it is compared with
    status: str = "verified"  # verified | memory


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedTable:
    """A published table. `test_images` and percentages let the noise of the test set be computed."""

    title: str
    rows: tuple[PrintedRow, ...]
    source: str = ""
    metric: str = "top-1 accuracy, percent"
    better: str = "higher"
    test_images: int | None = None
    assume_sd: AssumedSd | None = None
    smallest_effect: float | None = None
    note: str = ""

    @property
    def in_percent(self) -> bool:
        return "percent" in self.metric or "%" in self.metric


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedRow:
    """One comparison of the table, in the units of its metric; positive is better."""

    label: str
    versus: str
    improvement: float
    runs: int
    versus_runs: int
    low: float | None  # 95 % interval over re-training; None where no variance is known
    high: float | None
    p_holm: float | None
    detectable: float | None  # the true effect it would have found with 80 % power, at Holm's first level
    images_width: (
        float | None
    )  # half of the 95 % interval over test images if the two nets erred independently
    word: str
    why: str
    status: str  # memory where either number is


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The whole table."""

    table: PrintedTable
    rows: tuple[AuditedRow, ...]
    seeds_for_smallest: int | None  # per row, to find the smallest effect of interest; None: unknown


def audit(table: PrintedTable) -> Audit:
    """Judge every comparison of the table."""
    by_label = {row.label: row for row in table.rows}
    pairs = [(row, by_label[row.versus]) for row in table.rows if row.versus is not None]
    estimates = [_estimate(row, versus, table) for row, versus in pairs]
    family = len(pairs)
    raw = [1.0 if estimate is None else float(intervals.p_value(estimate)) for estimate in estimates]
    adjusted = intervals.holm(raw, ALPHA).p if raw else np.empty(0)
    rows = [
        _row(row, versus, estimate, float(p), table)
        for (row, versus), estimate, p in zip(pairs, estimates, adjusted, strict=True)
    ]
    return Audit(table=table, rows=tuple(rows), seeds_for_smallest=_seeds_for_smallest(table, family))


def spread_of(row: PrintedRow, assumed: AssumedSd | None) -> Spread | None:
    """sd as printed; se sqrt(n); a 95 % interval's half over t_{.975, n-1} times sqrt(n).

    A plus-minus of unknown kind is read as a standard error, which implies the largest variance of the usual
    readings. A spread printed for one run, or for an unstated number, says nothing about re-training; nor
    does a spread of 0, which was rounded away.
    """
    runs = row.runs or 1
    if row.plus_minus is not None and runs >= 2 and row.plus_minus > NO_SPREAD:
        factor = {"sd": 1.0, "se": math.sqrt(runs), "unknown": math.sqrt(runs)}.get(row.spread)
        if factor is None:
            factor = math.sqrt(runs) / float(intervals.quantile(0.975, runs - 1))
        note = "its ± is of unknown kind and read as a standard error" if row.spread == "unknown" else ""
        return Spread(sd=row.plus_minus * factor, df=runs - 1, assumed=False, note=note)
    if assumed is None:
        return None
    return Spread(sd=assumed.value, df=assumed.runs - 1, assumed=True)


def _estimate(row: PrintedRow, versus: PrintedRow, table: PrintedTable) -> Estimate | None:
    """Welch's comparison; two assumed standard deviations are one estimate, not two."""
    one, other = spread_of(row, table.assume_sd), spread_of(versus, table.assume_sd)
    if one is None or other is None:
        return None
    sign = 1.0 if table.better == "higher" else -1.0
    parts = np.array([one.sd**2 / (row.runs or 1), other.sd**2 / (versus.runs or 1)])
    df = np.array([one.df, other.df], dtype=float)
    if one.assumed and other.assumed:
        parts, df = parts.sum(keepdims=True), df[:1]
    return Estimate(
        value=np.asarray(sign * (row.value - versus.value)),
        se=np.asarray(math.sqrt(parts.sum())),
        df=intervals.satterthwaite(parts, df),
    )


def _row(
    row: PrintedRow, versus: PrintedRow, estimate: Estimate | None, p_holm: float, table: PrintedTable
) -> AuditedRow:
    sign = 1.0 if table.better == "higher" else -1.0
    improvement = sign * (row.value - versus.value)
    width = None if estimate is None else float(intervals.half_width(estimate, ALPHA))
    comparisons = sum(each.versus is not None for each in table.rows)
    word, why = _word(improvement, estimate, p_holm, table)
    return AuditedRow(
        label=row.label,
        versus=versus.label,
        improvement=improvement,
        runs=row.runs or 1,
        versus_runs=versus.runs or 1,
        low=None if width is None else improvement - width,
        high=None if width is None else improvement + width,
        p_holm=None if estimate is None else p_holm,
        detectable=None if estimate is None else intervals.detectable_effect(estimate, ALPHA / comparisons),
        images_width=_images_width(row, versus, table),
        word=word,
        why="; ".join(filter(None, [why, *_remarks(row, versus, table)])),
        status="memory" if "memory" in (row.status, versus.status) else "verified",
    )


def _word(
    improvement: float, estimate: Estimate | None, p_holm: float, table: PrintedTable
) -> tuple[str, str]:
    if estimate is None:
        return CANNOT_TELL, "no spread over runs is stated and none is assumed"
    if p_holm < ALPHA:
        return (BETTER if improvement > 0 else WORSE), ""
    if table.smallest_effect is not None and bool(intervals.is_equivalent(estimate, table.smallest_effect)):
        return NO_DIFFERENCE, f"smaller than {table.smallest_effect:g}"
    return NOT_SETTLED, ""


def _remarks(row: PrintedRow, versus: PrintedRow, table: PrintedTable) -> list[str]:
    remarks = []
    if row.runs is None or versus.runs is None:
        remarks.append("the number of runs is not stated and counted as 1")
    spreads = [spread_of(each, table.assume_sd) for each in (row, versus)]
    if any(spread is not None and spread.assumed for spread in spreads):
        remarks.append("with the assumed spread")
    remarks += sorted({spread.note for spread in spreads if spread is not None and spread.note})
    for each in (row, versus):
        if each.plus_minus is not None and each.plus_minus <= NO_SPREAD:
            remarks.append(f"the ± of '{each.label}' is 0: a spread that was rounded away, or none")
        elif each.plus_minus is not None and (each.runs or 1) < 2:
            remarks.append(f"the ± of '{each.label}' cannot be over re-training: one run, or none stated")
    return remarks


def _images_width(row: PrintedRow, versus: PrintedRow, table: PrintedTable) -> float | None:
    """1.96 sqrt((p q + p' q') / N) in percentage points: an upper bound, for two networks err together."""
    if table.test_images is None or not table.in_percent:
        return None
    shares = [each.value / 100.0 for each in (row, versus)]
    if not all(0.0 <= share <= 1.0 for share in shares):
        return None
    variance = sum(share * (1.0 - share) for share in shares) / table.test_images
    return 100.0 * float(special.ndtri(0.975)) * math.sqrt(variance)


def _seeds_for_smallest(table: PrintedTable, family: int) -> int | None:
    """Runs per row of median spread to find the smallest effect with 80 % power at Holm's first level."""
    known = [spread for row in table.rows if (spread := spread_of(row, table.assume_sd))]
    if not known or table.smallest_effect is None or not family:
        return None
    sd = float(np.median([spread.sd for spread in known]))  # one collapsed row is not the rule
    for runs in range(2, intervals.MOST_SEEDS):
        df = 2.0 * (runs - 1)
        t = float(
            intervals.quantile(1.0 - ALPHA / family / 2.0, df) + intervals.quantile(intervals.POWER, df)
        )
        if t * sd * math.sqrt(2.0 / runs) <= table.smallest_effect:
            return max(3, runs)
    return None
