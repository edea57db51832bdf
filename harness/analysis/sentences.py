"""The claim of one cell in one plain sentence, with n wherever there is a number."""

from __future__ import annotations

from harness.analysis.findings import (
    HELPS,
    HURTS,
    NOT_EVALUABLE,
    UNDECIDED,
    Effect,
    Level,
    Settings,
)
from harness.analysis.levels import no_value, why_no_value
from harness.analysis.units import effect_text, interval_text, level_text
from harness.study.plan import Cell

SAME_RUN = "the same run"
FRAGILE = " Fragile."  # the method box says what that means


def sentence_for(cell: Cell, level: Level | None, effect: Effect | None, settings: Settings) -> str:
    """What this cell shows, for a reader who sees nothing else."""
    name = cell.row if cell.column is None else f"{cell.row} ({cell.column})"
    if level is None:
        return f"{name}: quoted, not trained here."
    if effect is None:
        return _reference(name, level, settings)
    if effect.verdict == NOT_EVALUABLE:
        return _not_evaluable(name, effect, settings)
    if effect.qualifier == SAME_RUN:
        why = f"{name} is the same run as {effect.versus} at this size"
        return (
            f"{why}: no detectable difference by construction, {seeds(effect.n)}{_paper(effect, settings)}."
        )
    lost = _lost(level, settings)
    claim = f"{_verb(name, effect)}: {_numbers(effect, settings)}{lost}{_paper(effect, settings)}"
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
    return f"{name}: {value}, {seeds(level.n)}{lost}."


def _not_evaluable(name: str, effect: Effect, settings: Settings) -> str:
    seen = ""
    if effect.estimate is not None:
        seen = f"; observed {effect_text(effect.estimate, settings)}, {seeds(effect.n)}"
    why = f"{effect.qualifier}{seen}{_paper(effect, settings)}"
    return f"{name} is not evaluable against {effect.versus}: {why}."


def _verb(name: str, effect: Effect) -> str:
    if effect.verdict in (HELPS, HURTS):
        return " ".join(filter(None, (name, effect.verdict, effect.qualifier)))
    return f"{name} {'is' if effect.verdict == UNDECIDED else 'makes'} {effect.verdict}"


def _numbers(effect: Effect, settings: Settings) -> str:
    assert effect.estimate is not None
    parts = [effect_text(effect.estimate, settings)]
    if effect.low is not None and effect.high is not None and effect.p is not None:
        parts.append(interval_text(effect.low, effect.high, settings))
    relation = "over" if effect.verdict == HELPS else "against"
    return f"{' '.join(parts)} {relation} {effect.versus}, {seeds(effect.n)}"


def _paper(effect: Effect, settings: Settings) -> str:
    if effect.paper is None:
        return ""
    source = "the paper, from memory" if effect.paper_status == "memory" else "the paper"
    number = f"{effect.paper:+.2f}" if settings.in_percent else f"{effect.paper:+.4g}"
    return f" ({source}: {number})"


def seeds(n: int) -> str:
    """For example "1 seed", "3 seeds"."""
    return f"{n} seed" if n == 1 else f"{n} seeds"
