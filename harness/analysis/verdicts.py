"""From numbers to a verdict word. The words and their rules are fixed (delta: smallest effect of interest).

helps                      the Holm-adjusted interval lies above 0
hurts                      it lies below 0
no detectable difference   neither, and the unadjusted 90 % interval lies inside (-delta, +delta) (TOST, 5 %)
undecided                  none of these, or fewer than 3 seeds
not evaluable              a single seed, no spread between seeds, too many diverged runs, nothing there
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.equivalence import is_equivalent
from harness.analysis.findings import HELPS, HURTS, NO_DIFFERENCE, NOT_EVALUABLE, UNDECIDED, Settings
from harness.analysis.intervals import Estimate, half_width
from harness.analysis.power import MOST_SEEDS, detectable_effect, seeds_to_resolve
from harness.analysis.units import size_text

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
    word = word_for(estimate, level, settings.smallest_effect_pp, equivalence)
    if seeds < FEWEST_SEEDS:
        open_verdict = _undecided(estimate, level, seeds, settings)
        why = f"{seeds} seeds: a verdict needs at least {FEWEST_SEEDS}; {open_verdict.qualifier}"
        return Verdict(UNDECIDED, why, open_verdict.more_seeds)
    if word == UNDECIDED:
        return _undecided(estimate, level, seeds, settings)
    if word == NO_DIFFERENCE:
        return Verdict(word, _how_small(estimate, level, settings))
    return Verdict(word, _how_large(estimate, level, settings))


def word_for(estimate: Estimate, level: float, delta: float, equivalence: float = EQUIVALENCE_ALPHA) -> str:
    """The word alone, whatever the number of seeds."""
    width = float(half_width(estimate, level))
    if estimate.value - width > 0:
        return HELPS
    if estimate.value + width < 0:
        return HURTS
    return NO_DIFFERENCE if is_equivalent(estimate, delta, equivalence) else UNDECIDED


def not_evaluable(reason: str) -> Verdict:
    """No verdict can be given, and why."""
    return Verdict(NOT_EVALUABLE, reason)


def too_many_diverged(diverged: int, ended: int) -> bool:
    """More than one training failure in up to 10 seeds, one more per further 10 (as in MLPerf)."""
    return diverged > max(1, ended // 10)


def _how_large(estimate: Estimate, level: float, settings: Settings) -> str:
    width, size = float(half_width(estimate, level)), abs(float(estimate.value))
    delta = settings.smallest_effect_pp
    if size - width > delta:
        return f"by at least {size_text(delta, settings)}"
    return f"but by less than {size_text(delta, settings)}" if size + width < delta else ""


def _how_small(estimate: Estimate, level: float, settings: Settings) -> str:
    text = f"smaller than {size_text(settings.smallest_effect_pp, settings)} either way"
    seen = detectable_effect(estimate, level)
    if seen is None:
        return text
    found = f"{seen:.2f} pp" if settings.in_percent else f"{seen:.4g}"
    return f"{text}; an effect of {found} would be found with 80 % power"


def _undecided(estimate: Estimate, level: float, seeds: int, settings: Settings) -> Verdict:
    wanted = seeds_to_resolve(estimate, seeds, settings.smallest_effect_pp, level)
    if wanted is None:
        return Verdict(UNDECIDED, f"more than {MOST_SEEDS:,} seeds would be needed to settle it")
    more = max(wanted - seeds, 1)
    text = f"about {more} more {'seed' if more == 1 else 'seeds'} would settle it"
    return Verdict(UNDECIDED, text, more)
