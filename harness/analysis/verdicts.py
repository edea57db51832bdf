"""From numbers to a verdict word and a sentence. The words and their rules are fixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harness.analysis import intervals
from harness.analysis.findings import (
    CANNOT_TEST,
    COMPATIBLE,
    DIFFERS,
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    REPRODUCED,
    UNDECIDED,
    Effect,
    Level,
    Outcome,
    Settings,
    TrickCredit,
    is_lost,
    lacks_value,
)
from harness.analysis.intervals import Estimate, noncentrality
from harness.errors import counted
from harness.spec import DIVERGED, FINISHED
from harness.study.plan import Cell, PaperValue

# How an amount is written: accuracies in percent and percentage points, any other metric as it is.


METRIC_NAMES = {"top1": "top-1", "top5": "top-5"}


def metric_name(metric: str) -> str:
    """`top1` -> `top-1`; other metrics keep their name.

    >>> metric_name("top5"), metric_name("macro_f1")
    ('top-5', 'macro f1')
    """
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def level_text(value: float, settings: Settings) -> str:
    """A mean with its metric, for example "70.10 % top-1" or "macro f1 0.7123"."""
    name = metric_name(settings.metric)
    return f"{plain_text(value, settings)} % {name}" if settings.in_percent else f"{name} {value:.4g}"


def effect_text(value: float, settings: Settings) -> str:
    """A difference with its sign and unit, for example "+0.31 pp" or "+0.0123"."""
    return f"{value:+.2f} pp" if settings.in_percent else f"{value:+.4g}"


def size_text(value: float, settings: Settings) -> str:
    """A declared size without a sign, for example "0.2 pp"."""
    return f"{value:g} pp" if settings.in_percent else f"{value:g}"


def plain_text(value: float, settings: Settings) -> str:
    """A number without a unit: two decimals of a percentage, else four significant digits."""
    return f"{value:.2f}" if settings.in_percent else f"{value:.4g}"


def interval_text(low: float, high: float, settings: Settings) -> str:
    """For example "[0.12, 0.50]"."""
    return f"[{plain_text(low, settings)}, {plain_text(high, settings)}]"


# From numbers to a verdict word. The words and their rules are fixed (delta: smallest effect of interest).
#
# helps                      the Holm-adjusted interval lies above 0 hurts                      it lies
# below 0 no detectable difference   neither, and the unadjusted 90 % interval lies inside (-delta, +delta)
# (TOST, 5 %) undecided                  none of these, or fewer than 3 seeds not evaluable              a
# single seed, no spread between seeds, too many diverged runs, nothing there


EQUIVALENCE_ALPHA = 0.05  # of each one-sided test
FEWEST_SEEDS = 3  # for any word but undecided: two seeds give a variance with 1 or 2 degrees of freedom


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word and what is said after it."""

    word: str
    qualifier: str = ""
    more_seeds: int | None = None  # per arm, where that many would settle it


def judge(
    estimate: Estimate, level: float, seeds: int, settings: Settings, equivalence: float = EQUIVALENCE_ALPHA
) -> Verdict:
    """The verdict on one contrast.

    Args:
        estimate: in percentage points, with a standard error above 0.
        level: the alpha that Holm's rule leaves to this contrast; at a look, the nominal level of that alpha.
        seeds: per arm (of the arm with fewer), at least 2.
        equivalence: the level of each of the two one-sided tests.
    """
    word = word_for(estimate, level, settings, equivalence)
    if seeds < FEWEST_SEEDS:
        open_verdict = _undecided(estimate, level, seeds, settings)
        why = f"{seeds} seeds: a verdict needs at least {FEWEST_SEEDS}; {open_verdict.qualifier}"
        return Verdict(UNDECIDED, why, open_verdict.more_seeds)
    if word == UNDECIDED:
        return _undecided(estimate, level, seeds, settings)
    if word == NO_DIFFERENCE:
        return Verdict(word, _how_small(estimate, level, settings))
    return Verdict(word, _how_large(estimate, level, settings))


def word_for(
    estimate: Estimate, level: float, settings: Settings, equivalence: float = EQUIVALENCE_ALPHA
) -> str:
    """The word alone, whatever the number of seeds."""
    width = float(intervals.half_width(estimate, level))
    above, below = (HURTS, HELPS) if settings.lower_is_better else (HELPS, HURTS)
    if estimate.value - width > 0:
        return above
    if estimate.value + width < 0:
        return below
    delta = settings.smallest_effect_pp
    return NO_DIFFERENCE if intervals.is_equivalent(estimate, delta, equivalence) else UNDECIDED


def not_evaluable(reason: str) -> Verdict:
    """No verdict can be given, and why."""
    return Verdict(NOT_EVALUABLE, reason)


def too_many_diverged(diverged: int, ended: int) -> bool:
    """More than one training failure in up to 10 seeds, one more per further 10 (as in MLPerf)."""
    return diverged > max(1, ended // 10)


def _how_large(estimate: Estimate, level: float, settings: Settings) -> str:
    width, size = float(intervals.half_width(estimate, level)), abs(float(estimate.value))
    delta = settings.smallest_effect_pp
    if size - width > delta:
        return f"by at least {size_text(delta, settings)}"
    return f"but by less than {size_text(delta, settings)}" if size + width < delta else ""


def _how_small(estimate: Estimate, level: float, settings: Settings) -> str:
    text = f"smaller than {size_text(settings.smallest_effect_pp, settings)} either way"
    seen = intervals.detectable_effect(estimate, level)
    if seen is None:
        return text
    found = f"{seen:.2f} pp" if settings.in_percent else f"{seen:.4g}"
    return f"{text}; an effect of {found} would be found with 80 % power"


def _undecided(estimate: Estimate, level: float, seeds: int, settings: Settings) -> Verdict:
    wanted = intervals.seeds_to_resolve(estimate, seeds, settings.smallest_effect_pp, level)
    if wanted is None:
        return Verdict(UNDECIDED, f"more than {intervals.MOST_SEEDS:,} seeds would be needed to settle it")
    more = max(wanted - seeds, 1)
    text = f"about {counted(more, 'more seed')} would settle it"
    return Verdict(UNDECIDED, text, more)


# The accuracy of one arm over its seeds, and what is missing.


def level_of(runs: Mapping[int, Outcome], seeds: Sequence[int], metric: str) -> Level:
    """Mean, sd and 95 % t interval from the arm's own runs; counts of what is not there, with the reason."""
    values = {
        seed: runs[seed].metrics[metric]
        for seed in seeds
        if seed in runs and runs[seed].status == FINISHED and metric in runs[seed].metrics
    }
    n, found = len(values), np.array(list(values.values()))
    # Of a row whose runs are all there, nobody looks through them for what is missing.
    lacking = seeds if n < len(seeds) else ()
    diverged = sum(seed in runs and runs[seed].status == DIVERGED for seed in lacking)
    average = float(np.mean(found)) if n else None
    sd = low = high = None
    if n > 1:
        estimate = intervals.mean(found)
        width = float(intervals.half_width(estimate, 0.05))
        sd = float(np.std(found, ddof=1))
        low, high = float(estimate.value) - width, float(estimate.value) + width
    return Level(
        n=n,
        diverged=diverged,
        missing=len(seeds) - n - diverged,
        missing_reason=_missing_reason(runs, lacking, metric),
        mean=average,
        sd=sd,
        low=low,
        high=high,
        secondary=_secondary(runs, values, metric),
        values=values,
        without_value=sum(lacks_value(runs.get(seed), metric) for seed in lacking),
    )


def why_no_value(level: Level) -> str:
    """Why an arm has no value at all, in a few words."""
    parts = [f"{level.diverged} diverged"] if level.diverged else []
    return "; ".join(parts + ([level.missing_reason] if level.missing_reason else [])) or "no runs planned"


def why_too_few(level: Level, metric: str) -> str:
    """Why so many runs of an arm gave no number that nothing can be said of it; "" where they are few."""
    ended = level.n + level.lost
    if not too_many_diverged(level.lost, ended):
        return ""
    parts = [f"{level.diverged} of {ended} runs diverged"] if level.diverged else []
    if level.without_value:
        parts.append(f"{level.without_value} of {ended} runs have {no_value(metric)}")
    return ", ".join(parts)


def no_value(metric: str) -> str:
    """What is wrong with a run that finished without one."""
    return f"no finite value of {metric}"


def _secondary(runs: Mapping[int, Outcome], values: Mapping[int, float], metric: str) -> dict[str, float]:
    """Means of the other metrics over the same seeds; left out where a seed lacks one."""
    names = dict.fromkeys(name for seed in values for name in runs[seed].metrics)
    return {
        name: float(np.mean([runs[seed].metrics[name] for seed in values]))
        for name in names
        if name != metric and all(name in runs[seed].metrics for seed in values)
    }


def _missing_reason(runs: Mapping[int, Outcome], seeds: Sequence[int], metric: str) -> str | None:
    """For example "1 failed: out of memory; 2 not run yet"."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        run = runs.get(seed)
        if run is None:
            counts["not run yet"] += 1
        elif lacks_value(run, metric):
            counts[f"with {no_value(metric)}"] += 1
        elif not is_lost(run, metric) and run.status != FINISHED:
            counts[f"{run.status}: {run.reason}" if run.reason else run.status] += 1
    return "; ".join(f"{count} {what}" for what, count in sorted(counts.items())) or None


# The claim of one cell in one plain sentence, with n wherever there is a number.


SAME_RUN = "the same run"
FRAGILE = " Fragile."  # the method box says what that means


def sentence_for(cell: Cell, level: Level | None, effect: Effect | None, settings: Settings) -> str:
    """What this cell shows, for a reader who sees nothing else."""
    name = cell.row if cell.column is None else f"{cell.row} ({cell.column})"
    if level is None:
        return f"{name}: quoted, not trained here."
    if effect is None:
        return _reference(name, level, settings)
    if effect.verdict in (NOT_EVALUABLE, CANNOT_TEST):
        return _not_evaluable(name, effect, settings)
    if effect.qualifier == SAME_RUN:
        why = f"{name} is the same run as {effect.versus} at this size"
        n = counted(effect.n, "seed")
        return f"{why}: no detectable difference by construction, {n}{_paper(effect, settings)}."
    lost = _lost(level, settings)
    claim = f"{verb(name, effect)}: {_numbers(effect, settings)}{lost}{_paper(effect, settings)}"
    if effect.verdict not in (HELPS, HURTS) and effect.qualifier:
        claim += f"; {effect.qualifier}"
    return f"{claim}.{FRAGILE if effect.fragile else ''}"


def _lost(level: Level, settings: Settings) -> str:
    parts = [f", {level.diverged} diverged"] * bool(level.diverged)
    parts += [f", {level.without_value} with {no_value(settings.metric)}"] * bool(level.without_value)
    return "".join(parts)


def _reference(name: str, level: Level, settings: Settings) -> str:
    if level.mean is None:
        return f"{name}: no value ({why_no_value(level)})."
    interval = (
        "" if level.low is None or level.high is None else interval_text(level.low, level.high, settings)
    )
    lost = _lost(level, settings)
    value = " ".join(filter(None, (level_text(level.mean, settings), interval)))
    return f"{name}: {value}, {counted(level.n, 'seed')}{lost}."


def _not_evaluable(name: str, effect: Effect, settings: Settings) -> str:
    seen = ""
    if effect.estimate is not None:
        seen = f"; observed {effect_text(effect.estimate, settings)}, {counted(effect.n, 'seed')}"
    why = f"{effect.qualifier}{seen}{_paper(effect, settings)}"
    if effect.verdict == CANNOT_TEST:
        return f"{name} {CANNOT_TEST} against {effect.versus}: {why}."
    return f"{name} is not evaluable against {effect.versus}: {why}."


def verb(name: str, effect: Effect | TrickCredit) -> str:
    """What the verdict says of the name."""
    if effect.verdict in (HELPS, HURTS):
        return " ".join(filter(None, (name, effect.verdict, effect.qualifier)))
    return f"{name} {'is' if effect.verdict == UNDECIDED else 'makes'} {effect.verdict}"


def _numbers(effect: Effect, settings: Settings) -> str:
    assert effect.estimate is not None
    parts = [effect_text(effect.estimate, settings)]
    if effect.low is not None and effect.high is not None and effect.p is not None:
        parts.append(interval_text(effect.low, effect.high, settings))
    relation = "over" if effect.verdict == HELPS else "against"
    return f"{' '.join(parts)} {relation} {effect.versus}, {counted(effect.n, 'seed')}"


def _paper(effect: Effect, settings: Settings) -> str:
    if effect.paper is None:
        return ""
    source = "the paper, from memory" if effect.paper_status == "memory" else "the paper"
    number = f"{effect.paper:+.2f}" if settings.in_percent else f"{effect.paper:+.4g}"
    return f" ({source}: {number})"


# The paper's own effect of a row, and how ours compares with it.


MEMORY, VERIFIED = "memory", "verified"
PAPER_RUNS = 1  # runs behind a printed number; papers that average more than one say so rarely


@dataclass(frozen=True, slots=True)
class PaperEffect:
    """A difference of two printed numbers, in percentage points."""

    value: float
    status: str  # memory if either number is


@dataclass(frozen=True, slots=True)
class Gap:
    """Ours minus the paper's, with a 95 % interval, in percentage points."""

    value: float
    low: float
    high: float
    agreement: str


def paper_effect(cell: Cell, column: Mapping[str, Cell], metric: str) -> PaperEffect | None:
    """The cell's printed value minus that of the row it is measured from; `column` maps labels to cells."""
    reference = column.get(cell.paper_versus or cell.versus or "")
    ours: PaperValue | None = cell.paper.get(metric)
    other = reference.paper.get(metric) if reference else None
    if ours is None or other is None:
        return None
    status = MEMORY if MEMORY in (ours.status, other.status) else VERIFIED
    return PaperEffect(ours.value - other.value, status)


def gap_to_paper(
    estimate: Estimate, seeds: int, paper: PaperEffect, settings: Settings, alpha: float = 0.05
) -> Gap:
    """D - D_p with half-width t sqrt(v (2 / S + 2 / n_p)): the paper's runs are taken to vary as ours do.

    reproduced where the interval lies inside plus or minus twice the smallest effect, differs where it
    excludes 0, otherwise compatible but imprecise. `seeds` is the number per arm behind the estimate; a
    printed number is taken to be one run. The interval has level 1 - `alpha`.
    """
    wider = np.sqrt(1.0 + seeds / PAPER_RUNS)  # se^2 is 2 v / S
    width = float(intervals.half_width(estimate, alpha) * wider)
    value = float(estimate.value) - paper.value
    low, high = value - width, value + width
    margin = 2.0 * settings.smallest_effect_pp
    if -margin < low and high < margin:
        agreement = REPRODUCED
    else:
        agreement = DIFFERS if low > 0 or high < 0 else COMPATIBLE
    return Gap(value, low, high, agreement)


# How often one run of this row beats one run of the other.


DEPENDABLE = 0.75  # Bouthillier et al. 2021, sec. 4: the least P(A > B) that is worth a recommendation


def probability_better(values: ArrayLike, versus: ArrayLike) -> float:
    """P(A > B) = U / (n_A n_B), the Mann-Whitney statistic over all pairs of runs; ties count one half.

    The comparison that Bouthillier et al. 2021 (arXiv:2103.03098) recommend. Both arguments need at least
    one value.
    """
    one, other = np.asarray(values, dtype=float), np.sort(np.asarray(versus, dtype=float))
    wins, ties_too = (np.searchsorted(other, one, side).sum() for side in ("left", "right"))
    return float((wins + ties_too) / 2 / (one.size * other.size))


def better_interval(
    estimate: Estimate | None, one_run_sd: float | None, alpha: float = 0.05
) -> tuple[float, float] | None:
    """The 1 - alpha interval of P(A > B) for one normal run of each, from the same seed.

    P = Phi(theta), theta = effect / sd of the difference of two runs (McGraw and Wong, Psychological Bulletin
    111, 1992). D / se is noncentral t with noncentrality theta one_run_sd / se (theta sqrt(S) in a complete
    table); its interval is found by turning the distribution function round (Steiger and Fouladi, in Harlow
    et al., What if there were no significance tests?, 1997).

    Args:
        estimate: the contrast with its standard error and degrees of freedom.
        one_run_sd: sqrt(v_arm + v_versus); None where the two arms evaluate the same networks.
    Returns:
        Both ends in [0, 1]; None without a standard error.
    """
    if estimate is None or one_run_sd is None or not estimate.se > 0.0:
        return None
    t, df, scale = float(estimate.value / estimate.se), float(estimate.df), float(estimate.se) / one_run_sd
    low, high = (noncentrality(p, df, t) for p in (1.0 - alpha / 2.0, alpha / 2.0))
    return float(special.ndtr(low * scale)), float(special.ndtr(high * scale))


def dependably_better(effect: Effect) -> bool:
    """At least 3 of 4 runs win, and chance is excluded (Bouthillier et al. 2021)."""
    if effect.prob_better is None or effect.prob_better_low is None:
        return False
    return effect.prob_better >= DEPENDABLE and effect.prob_better_low > 0.5
