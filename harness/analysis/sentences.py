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
from harness.analysis.levels import why_no_value
from harness.study.plan import Cell

SAME_RUN = "the same run"
FRAGILE = " Fragile."  # the method box says what that means
METRIC_NAMES = {"top1": "top-1", "top5": "top-5"}


def sentence_for(cell: Cell, level: Level | None, effect: Effect | None, settings: Settings) -> str:
    """What this cell shows, for a reader who sees nothing else."""
    name = cell.row if cell.column is None else f"{cell.row} ({cell.column})"
    if level is None:
        return f"{name}: quoted, not trained here."
    if effect is None:
        return _reference(name, level, settings)
    if effect.verdict == NOT_EVALUABLE:
        return _not_evaluable(name, effect)
    if effect.qualifier == SAME_RUN:
        why = f"{name} is the same run as {effect.versus} at this size"
        return f"{why}: no detectable difference by construction, {seeds(effect.n)}{_paper(effect)}."
    diverged = f", {level.diverged} diverged" if level.diverged else ""
    claim = f"{_verb(name, effect)}: {_numbers(effect)}{diverged}{_paper(effect)}"
    if effect.verdict not in (HELPS, HURTS) and effect.qualifier:
        claim += f"; {effect.qualifier}"
    return f"{claim}.{FRAGILE if effect.fragile else ''}"


def _reference(name: str, level: Level, settings: Settings) -> str:
    if level.mean is None:
        return f"{name}: no value ({why_no_value(level)})."
    interval = "" if level.low is None else f" [{level.low:.2f}, {level.high:.2f}]"
    diverged = f", {level.diverged} diverged" if level.diverged else ""
    metric = METRIC_NAMES.get(settings.metric, settings.metric)
    return f"{name}: {level.mean:.2f} % {metric}{interval}, {seeds(level.n)}{diverged}."


def _not_evaluable(name: str, effect: Effect) -> str:
    seen = "" if effect.estimate is None else f"; observed {effect.estimate:+.2f} pp, {seeds(effect.n)}"
    return f"{name} is not evaluable against {effect.versus}: {effect.qualifier}{seen}{_paper(effect)}."


def _verb(name: str, effect: Effect) -> str:
    if effect.verdict in (HELPS, HURTS):
        return " ".join(filter(None, (name, effect.verdict, effect.qualifier)))
    return f"{name} {'is' if effect.verdict == UNDECIDED else 'makes'} {effect.verdict}"


def _numbers(effect: Effect) -> str:
    interval = "" if effect.p is None else f" [{effect.low:.2f}, {effect.high:.2f}]"
    relation = "over" if effect.verdict == HELPS else "against"
    return f"{effect.estimate:+.2f} pp{interval} {relation} {effect.versus}, {seeds(effect.n)}"


def _paper(effect: Effect) -> str:
    if effect.paper is None:
        return ""
    source = "the paper, from memory" if effect.paper_status == "memory" else "the paper"
    return f" ({source}: {effect.paper:+.2f})"


def seeds(n: int) -> str:
    """For example "1 seed", "3 seeds"."""
    return f"{n} seed" if n == 1 else f"{n} seeds"
