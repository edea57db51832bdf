"""The paper's claims, answered by size as well as by sign, where the two rows can be compared at all.

Accuracies are compared as log-odds, l = ln(a / (100 - a)) with a clipped to [0.1, 99.9]: a point at 75 % is
not a point at 95 %. D is our difference of two rows, from the guarded block fit of their table (the noise is
that of all its rows), with the part of the test images added where their bits are there (T2). d_p is the
paper's, s_p its standard deviation, from what is printed, else .15 points for each of two runs (Goyal et al.
print .03 to .80 with a median of about .1, a later version of Bag of Tricks .04 to .13). Signs are turned so
that the direction that the paper expects is up. Intervals are at the level that Holm's rule over all claims
leaves to each. A claim that cannot be tested stays in that family, with p = 1: no choice made after the
results makes another one easier.

cannot be tested here             a condition of `study.conditions` does not hold, or fewer than 3 seeds have
                                  both runs and none is still to come
not run yet                       fewer than 3 seeds have both runs, and some are still to come
same direction, comparable size   D's interval lies above 0, and Fieller's of R = D / d_p meets [1/3, 3]
same direction, other size        it lies above 0, and R's does not meet [1/3, 3]
same direction                    it lies above 0 and there is no size: |d_p| <= 1.96 s_p, or none is printed
opposite                          it lies below -delta (of losses and steps: below 0)
no effect of the paper's size     it lies below max(d_p / 3, d_33), and is not opposite; d_33 = 1.51 s_p is
                                  what the paper's own experiment would have found with 33 % power
not settled                       everything else; where there is no size, and D's interval lies within delta
                                  either way, without a promise of seeds: there may be no direction to find

Sources: Fieller, J. R. Stat. Soc. B 16, 1954; Simonsohn, Psychological Science 26, 2015 (small telescopes);
Patil, Peng and Leek, Perspectives on Psychological Science 11, 2016 (prediction interval).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from harness.analysis import intervals
from harness.analysis.claims import ONE_SEED, STEPS_M, STEPS_TO_TARGET, Records, cells_of_claim, stage_of
from harness.analysis.competence import Judge
from harness.analysis.contrasts import Family, compare_family, contrasts_of
from harness.analysis.effects import Side, images_of
from harness.analysis.findings import (
    CANNOT_TEST,
    COMPARABLE,
    NO,
    NOT_OF_THAT_SIZE,
    NOT_RUN,
    NOT_SETTLED,
    OPPOSITE,
    OTHER_SIZE,
    SAME_DIRECTION,
    YES,
    ClaimFinding,
    ClaimSize,
    Settings,
    matrix,
)
from harness.analysis.fit import roots_of
from harness.analysis.intervals import Estimate, Floats, Stage
from harness.analysis.verdicts import FEWEST_SEEDS, level_of, size_text
from harness.errors import counted
from harness.spec import ACCURACIES
from harness.study.declaration import ALPHA
from harness.study.plan import Cell, PlanTable

CLIPPED = (0.1, 99.9)  # percent
PRINTED_SD = 0.15  # points, of one printed accuracy that has no standard deviation beside it
SMALLEST_RATIO, LARGEST_RATIO = 1 / 3, 3.0
WITHIN_NOISE = 1.96  # standard deviations of the paper's difference
THIRD_OF_POWER = 1.51  # the same: what 33 % power of a two-sided test at 5 % would have found
NO_SPREAD = 1e-9


def log_odds(percent: Floats) -> Floats:
    """ln(a / (100 - a)) of accuracies in percent, clipped.

    >>> log_odds(np.array([50.0, 100.0])).round(2)
    array([0.  , 6.91])
    """
    clipped = np.clip(percent, *CLIPPED)
    return np.asarray(np.log(clipped / (100.0 - clipped)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """The paper's difference on the scale of sizes, turned so that its expected direction is up."""

    value: float
    sd: float

    @property
    def has_size(self) -> bool:
        """Whether it is more than the noise of two trainings, and goes the way that the claim says."""
        return self.value > WITHIN_NOISE * self.sd

    @property
    def least(self) -> float:
        """Below this, an effect is none of the paper's size."""
        return max(self.value * SMALLEST_RATIO, THIRD_OF_POWER * self.sd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """One claim before Holm. Both estimates are turned so that the expected direction is up."""

    finding: ClaimFinding
    reason: str = ""  # why it cannot be tested; of one that waits, which runs are not there
    waits: bool = False  # for runs that are still to come
    plain: Estimate | None = None  # in points; of steps as log ratio, of losses as they are
    sized: Estimate | None = None  # on the scale of sizes
    printed: Printed | None = None
    stage: Stage = intervals.ONE_LOOK
    sign: int = 0  # of a claim of which only directions are known
    p: float | None = None


def with_sizes(
    found: Sequence[ClaimFinding], judge: Judge, evidence: Records, settings: Settings
) -> tuple[ClaimFinding, ...]:
    """The claims, answered by size. They are one Holm family."""
    tables = {table.key: table for table in judge.plan.tables}
    seen = [_see(each, tables.get(each.claim.table), judge, evidence) for each in found]
    if not seen:
        return ()
    family = intervals.holm([1.0 if each.p is None else each.p for each in seen], ALPHA)
    return tuple(
        answered(each, float(level), float(p), settings)
        for each, level, p in zip(seen, family.level, family.p, strict=True)
    )


def _see(finding: ClaimFinding, table: PlanTable | None, judge: Judge, evidence: Records) -> Weighed:
    row, versus = cells_of_claim(finding.claim, table)
    if table is None or row is None or versus is None or row.arm_id is None or versus.arm_id is None:
        return Weighed(finding=finding, reason=finding.why)
    measure = finding.claim.measure
    reason = judge.of_pair(row, versus, measure) or judge.of_numbers(
        row, versus, measure, finding.estimate, finding.paper
    )
    if reason:
        return Weighed(finding=finding, reason=reason)
    if finding.n < FEWEST_SEEDS:
        return Weighed(
            finding=finding, reason=_too_few(finding), waits=_waits(table, (row, versus), evidence)
        )
    up = 1.0 if finding.claim.expect == "higher" else -1.0
    printed = printed_of(row, versus, measure, up)
    stage = stage_of(finding.n, evidence.looks)
    if finding.never_reached:
        sign = {YES: 1, NO: -1}.get(finding.answer, 0)
        return Weighed(finding=finding, printed=printed, stage=stage, sign=sign, p=finding.p)
    plain, sized = _estimates(finding, table, (row, versus), judge, evidence)
    if plain is None or sized is None:
        return Weighed(finding=finding, printed=printed, stage=stage)
    p = float(intervals.repeated_p(intervals.p_value(plain), evidence.looks, stage.number))
    turned = [dataclasses.replace(each, value=up * each.value) for each in (plain, sized)]
    return Weighed(finding=finding, plain=turned[0], sized=turned[1], printed=printed, stage=stage, p=p)


def _too_few(finding: ClaimFinding) -> str:
    if not finding.n:
        return finding.why
    have = "1 seed has" if finding.n == 1 else f"{finding.n} seeds have"
    lacking = finding.why.removeprefix(ONE_SEED).removeprefix("; ")
    return "; ".join(filter(None, [f"{have} both runs, fewer than {FEWEST_SEEDS}", lacking]))


def _waits(table: PlanTable, cells: tuple[Cell, Cell], evidence: Records) -> bool:
    """Whether a planned run of the two rows, or of the row that sets the target, has not ended yet."""
    target = (table.target or {}).get("row")
    arms = [cell.arm_id for cell in (*cells, *(each for each in table.cells if each.row == target))]
    return any(
        seed not in evidence.outcomes.get(arm, {}) for arm in arms if arm for seed in evidence.seeds_of(arm)
    )


def _estimates(
    finding: ClaimFinding,
    table: PlanTable,
    cells: tuple[Cell, Cell],
    judge: Judge,
    evidence: Records,
) -> tuple[Estimate | None, Estimate | None]:
    """The difference as it is shown, and on the scale of sizes; None without a standard error above 0."""
    measure = finding.claim.measure
    if measure == STEPS_TO_TARGET:
        logs = [math.log(each) for each in finding.differences.values() if each > 0]
        found = intervals.mean(logs) if len(logs) > 1 else None
        return (found, found) if found is not None and found.se > NO_SPREAD else (None, None)
    plain = _fitted(table, cells, judge, evidence, measure, is_odds=False)
    if plain is None or measure not in ACCURACIES:
        return plain, plain
    sized = _fitted(table, cells, judge, evidence, measure, is_odds=True)
    return (None, None) if sized is None else _on_new_images(plain, sized, cells, judge, measure)


def _fitted(
    table: PlanTable,
    cells: tuple[Cell, Cell],
    judge: Judge,
    evidence: Records,
    measure: str,
    *,
    is_odds: bool,
) -> Estimate | None:
    """From the block fit over the rows of the table, with its guard."""
    contrasts = contrasts_of(table, roots_of(judge.plan.arms))
    values = matrix(evidence.outcomes, contrasts.arms, evidence.seeds, measure)
    for place, arm in enumerate(contrasts.arms):
        planned = evidence.seeds_of(arm)
        values[place, [seed not in planned for seed in evidence.seeds]] = np.nan
    pair = (contrasts.arms.index(cells[0].arm_id or ""), contrasts.arms.index(cells[1].arm_id or ""))
    if is_odds:
        values = np.where(np.isfinite(values), log_odds(values), np.nan)
    pairs = [*contrasts.pairs, *([pair] if pair not in contrasts.pairs else [])]
    family = Family(pairs=pairs, settings=judge.settings, relations=contrasts.relations)
    return compare_family(values, family)[pairs.index(pair)].estimate


def _on_new_images(
    plain: Estimate, sized: Estimate, cells: tuple[Cell, Cell], judge: Judge, measure: str
) -> tuple[Estimate, Estimate]:
    """Both with the variance over test images, where the bits of two seeds are there."""
    arms = [cell.arm_id or "" for cell in cells]
    sides = [
        Side(
            level=level_of(judge.outcomes.get(arm, {}), judge.plan.seeds_of(arm), measure),
            runs=judge.outcomes.get(arm, {}),
        )
        for arm in arms
    ]
    images = images_of((sides[0], sides[1]), dataclasses.replace(judge.settings, metric=measure))
    levels = [side.level.mean for side in sides if side.level.mean is not None]
    if images is None or not levels:
        return plain, sized
    wide = intervals.with_images(plain, images)
    more = max(float(wide.se) ** 2 - float(plain.se) ** 2, 0.0) * slope(sum(levels) / len(levels)) ** 2
    se = np.asarray(math.sqrt(float(sized.se) ** 2 + more))
    # More degrees of freedom must not shorten the interval: T2 asks for more than T1.
    df = np.minimum(wide.df, plain.df)
    return dataclasses.replace(wide, df=df), Estimate(value=sized.value, se=se, df=np.minimum(sized.df, df))


def slope(percent: float) -> float:
    """Log-odds per point of accuracy at a level."""
    level = min(max(percent, CLIPPED[0]), CLIPPED[1])
    return 100.0 / (level * (100.0 - level))


def printed_of(row: Cell, versus: Cell, measure: str, up: float) -> Printed | None:
    """The paper's difference; None where a number is not printed."""
    name = STEPS_M if measure == STEPS_TO_TARGET else measure
    ours, other = row.paper.get(name), versus.paper.get(name)
    if ours is None or other is None:
        return None
    if measure == STEPS_TO_TARGET:  # no paper prints a spread of these
        ratio = ours.value / other.value if other.value else 0.0
        return Printed(value=up * math.log(ratio), sd=0.0) if ratio > 0 else None
    if measure not in ACCURACIES:
        return Printed(value=up * (ours.value - other.value), sd=0.0)
    both = log_odds(np.array([ours.value, other.value]))
    sds = [
        (cell.paper["top1_std"].value if measure == "top1" and "top1_std" in cell.paper else PRINTED_SD)
        * slope(cell.paper[name].value)
        for cell in (row, versus)
    ]
    return Printed(value=up * float(both[0] - both[1]), sd=math.hypot(*sds))


# From the intervals to the answer.


def answered(seen: Weighed, level: float, p_holm: float, settings: Settings) -> ClaimFinding:
    """One claim at the level that Holm's rule leaves to it."""
    finding = seen.finding
    if seen.reason:
        return _with(seen, NOT_RUN if seen.waits else CANNOT_TEST, seen.reason, None)
    if seen.plain is None or seen.sized is None:
        sign = seen.sign if p_holm <= ALPHA else 0
        word = {1: SAME_DIRECTION, -1: OPPOSITE}.get(sign, NOT_SETTLED)
        return dataclasses.replace(_with(seen, word, finding.why, None), p_holm=p_holm if seen.p else None)
    nominal = seen.stage.nominal(level)
    word = word_for(seen.plain, seen.sized, seen.printed, nominal, _least(seen, settings))
    low, high = _shown(seen, nominal)
    is_small = word == NOT_SETTLED and _has_no_size(seen) and max(-low, high) < _least(seen, settings)
    more = _more_seeds(seen, nominal, settings) if word == NOT_SETTLED and not is_small else None
    why = _why(seen, word, more)
    if is_small:  # a direction of next to nothing: no number of seeds is known to settle it
        size = size_text(settings.smallest_effect_pp, settings)
        why = "; ".join(filter(None, [why, f"smaller than {size} either way"]))
    found = _with(seen, word, why, _size(seen, nominal, settings, more))
    return dataclasses.replace(found, low=low, high=high, p=seen.p, p_holm=p_holm)


def word_for(plain: Estimate, sized: Estimate, printed: Printed | None, level: float, delta: float) -> str:
    """The answer of a claim that can be tested; see the top of this file."""
    width, wide = float(intervals.half_width(plain, level)), float(intervals.half_width(sized, level))
    value = float(plain.value)
    if value - width > 0:
        if printed is None or not printed.has_size:
            return SAME_DIRECTION
        low, high = fieller(sized, printed, level)
        if low is None or high is None:
            return SAME_DIRECTION
        return COMPARABLE if low <= LARGEST_RATIO and high >= SMALLEST_RATIO else OTHER_SIZE
    if value + width < -delta:
        return OPPOSITE
    if printed is not None and printed.has_size and float(sized.value) + wide < printed.least:
        return NOT_OF_THAT_SIZE
    return NOT_SETTLED


def fieller(sized: Estimate, printed: Printed, level: float) -> tuple[float | None, float | None]:
    """The interval of ours over the paper's, both with their noise; (None, None): it has no bounds.

    All R with (D - R d_p)^2 <= t^2 se^2 + z^2 R^2 s_p^2: t with our degrees of freedom for our noise, z of
    the normal distribution for the paper's, which is taken as known.
    """
    t = float(intervals.quantile(1.0 - level / 2.0, sized.df))
    z = NormalDist().inv_cdf(1.0 - level / 2.0)
    a = printed.value**2 - (z * printed.sd) ** 2
    b = float(sized.value) * printed.value
    c = float(sized.value) ** 2 - (t * float(sized.se)) ** 2
    if a <= 0:
        return None, None
    root = math.sqrt(max(b * b - a * c, 0.0))
    return (b - root) / a, (b + root) / a


def _has_no_size(seen: Weighed) -> bool:
    return seen.printed is None or not seen.printed.has_size


def _least(seen: Weighed, settings: Settings) -> float:
    return settings.smallest_effect_pp if seen.finding.claim.measure in ACCURACIES else 0.0


def _more_seeds(seen: Weighed, level: float, settings: Settings) -> int | None:
    """Per row, until an effect of the paper's size (of the smallest of interest, if larger) is found."""
    if seen.plain is None or seen.sized is None or seen.finding.n < 2:
        return None
    estimate, effect = seen.plain, _least(seen, settings)
    if seen.printed is not None and seen.printed.has_size:
        estimate, effect = seen.sized, seen.printed.value
    if effect <= 0:
        return None
    wanted = intervals.seeds_to_resolve(estimate, seen.finding.n, effect, level)
    return None if wanted is None else max(wanted - seen.finding.n, 1)


def _why(seen: Weighed, word: str, more: int | None) -> str:
    parts = [seen.finding.why]
    if word == SAME_DIRECTION:
        own = "the paper prints no size"
        if seen.printed is not None:
            own = "the paper's own difference is within its noise"
        parts.append(own)
    if more is not None:
        parts.append(f"about {counted(more, 'more seed')} would settle it")
    return "; ".join(filter(None, parts))


def _size(seen: Weighed, level: float, settings: Settings, more: int | None) -> ClaimSize:
    assert seen.sized is not None
    printed, width = seen.printed, float(intervals.half_width(seen.sized, level))
    value = float(seen.sized.value)
    ratio = low = high = predicted = None
    if printed is not None and printed.has_size:
        ratio = value / printed.value
        low, high = fieller(seen.sized, printed, level)
    if printed is not None and settings.comparable_to_paper:
        spread = math.hypot(printed.sd, float(seen.sized.se))
        predicted = abs(value - printed.value) <= float(intervals.quantile(0.975, seen.sized.df)) * spread
    return ClaimSize(
        scale=_scale(seen.finding.claim.measure),
        difference=value,
        low=value - width,
        high=value + width,
        paper=None if printed is None else printed.value,
        paper_sd=None if printed is None else printed.sd,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        predicted=predicted,
        more_seeds=more,
    )


def _scale(measure: str) -> str:
    if measure in ACCURACIES:
        return "log-odds"
    return "log ratio" if measure == STEPS_TO_TARGET else "as measured"


def _shown(seen: Weighed, level: float) -> tuple[float, float]:
    """The interval as the claim shows it: row minus versus, steps as a ratio."""
    assert seen.plain is not None
    up = 1.0 if seen.finding.claim.expect == "higher" else -1.0
    value, width = up * float(seen.plain.value), float(intervals.half_width(seen.plain, level))
    if seen.finding.claim.measure == STEPS_TO_TARGET:
        return math.exp(value - width), math.exp(value + width)
    return value - width, value + width


def _with(seen: Weighed, word: str, why: str, size: ClaimSize | None) -> ClaimFinding:
    printed = seen.printed
    size = size or ClaimSize(
        scale=_scale(seen.finding.claim.measure),
        difference=None,
        low=None,
        high=None,
        paper=None if printed is None else printed.value,
        paper_sd=None if printed is None else printed.sd,
        ratio=None,
        ratio_low=None,
        ratio_high=None,
        predicted=None,
        more_seeds=None,
    )
    return dataclasses.replace(seen.finding, answer=word, answer_holm=word, why=why, size=size)
