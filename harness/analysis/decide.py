"""Records in, findings out: the only function of this package that a report needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.comparisons import Comparison, Pair, compare, noise
from harness.analysis.effects import Side, empty_effect, measured, same_run
from harness.analysis.findings import (
    ACCURACIES,
    NOT_EVALUABLE,
    CellFinding,
    Effect,
    Findings,
    Settings,
    TableFinding,
)
from harness.analysis.intervals import Floats
from harness.analysis.levels import level_of
from harness.analysis.outcomes import Outcomes, has_diverged, matrix, read_outcomes
from harness.analysis.paper import paper_effect
from harness.analysis.robustness import NOTHING_LEARNT_PCT, fragile_pairs
from harness.analysis.sentences import sentence_for
from harness.analysis.sharing import Columns, Relations, roots_where_shared
from harness.analysis.verdicts import not_evaluable
from harness.study.plan import Cell, PlanTable

if TYPE_CHECKING:
    import pandas as pd

LESS_IS_BETTER = ("loss", "train_loss")


def decide(
    tables: Sequence[PlanTable],
    records: pd.DataFrame,
    settings: Settings,
    *,
    study: str,
    size: str,
    seeds: tuple[int, ...],
) -> Findings:
    """What the runs of a study show: levels, effects, intervals, verdicts, one sentence per cell.

    Each column of a table is one fit over its distinct arms; the table is one Holm family: its distinct
    declared contrasts on the primary metric, whether or not their runs are there yet.

    Args:
        records: one row per run: arm_id, seed, status, top1 and top5 in percent, loss, predictions (packed
            bits or None), test_images; `reason` of a failure where known; the metric where it is a plugin's.
            Rows of unplanned seeds are not read.
        seeds: the planned seeds, the same for every arm.
    Raises:
        ValueError: less of the metric is better, or alpha or the smallest effect is out of range.
    """
    check(settings)
    outcomes = read_outcomes(records, [settings.metric])
    found = tuple(decide_table(table, outcomes, settings, tuple(sorted(seeds))) for table in tables)
    return Findings(study=study, size=size, settings=settings, seeds=tuple(seeds), tables=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contrasts:
    """Every tested contrast of one table, by (arm_id, arm_id of the reference)."""

    comparisons: Mapping[tuple[str, str], Comparison]
    fragile: Mapping[tuple[str, str], bool]


def decide_table(
    table: PlanTable,
    outcomes: Outcomes,
    settings: Settings,
    seeds: tuple[int, ...],
    roots: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> TableFinding:
    """One table. `roots`: arm_id -> the trained arms whose networks it evaluates (by default, its own)."""
    arms = list(dict.fromkeys(cell.arm_id for cell in table.cells if cell.arm_id is not None))
    columns: dict[str | None, dict[str, Cell]] = {}
    for cell in table.cells:
        columns.setdefault(cell.column, {})[cell.row] = cell
    names = [
        (cell.arm_id, reference.arm_id)
        for cell in table.cells
        if (reference := _reference(cell, columns)) and cell.arm_id and reference.arm_id
    ]
    names = [pair for pair in dict.fromkeys(names) if pair[0] != pair[1]]
    values = matrix(outcomes, arms, seeds, settings.metric)
    shared = Relations(roots_where_shared(arms, roots), _columns_of(table, arms))
    contrasts = _contrasts(
        names, arms, (values, _failures(outcomes, arms, seeds, values, settings)), settings, shared
    )
    sides = {
        arm: Side(level=level_of(outcomes.get(arm, {}), seeds, settings.metric), runs=outcomes.get(arm, {}))
        for arm in arms
    }
    spread = noise(values, shared)
    return TableFinding(
        key=table.key,
        title=table.title,
        design=table.design,
        columns=table.columns,
        cells=tuple(_cell(cell, columns, contrasts, sides, settings) for cell in table.cells),
        note=table.note,
        contrasts=len(names),
        pooled_sd=spread.pooled_sd,
        seed_correlation=spread.seed_correlation,
        paired_df_cost=spread.paired_df_cost,
    )


def _columns_of(table: PlanTable, arms: Sequence[str]) -> Columns | None:
    """Which columns show each arm; None where the table has one."""
    if len(table.columns) < 2:
        return None
    return [frozenset(cell.column for cell in table.cells if cell.arm_id == arm) for arm in arms]


def _contrasts(
    names: Sequence[tuple[str, str]],
    arms: Sequence[str],
    values_and_failures: tuple[Floats, Floats],
    settings: Settings,
    relations: Relations,
) -> _Contrasts:
    values, failures = values_and_failures
    pairs: list[Pair] = [(arms.index(arm), arms.index(versus)) for arm, versus in names]
    comparisons = compare(values, pairs, settings, relations=relations)
    words = [comparison.word for comparison in comparisons]
    fragile = fragile_pairs(values, failures, pairs, words, settings, relations)
    return _Contrasts(
        comparisons=dict(zip(names, comparisons, strict=True)),
        fragile=dict(zip(names, fragile, strict=True)),
    )


def _cell(
    cell: Cell,
    columns: Mapping[str | None, Mapping[str, Cell]],
    contrasts: _Contrasts,
    sides: Mapping[str, Side],
    settings: Settings,
) -> CellFinding:
    level = None if cell.arm_id is None else sides[cell.arm_id].level
    effect = _effect(cell, columns, contrasts, sides, settings)
    return CellFinding(
        row=cell.row,
        column=cell.column,
        arm_id=cell.arm_id,
        tricks=cell.tricks,
        paper=cell.paper,
        note=cell.note,
        level=level,
        effect=effect,
        sentence=sentence_for(cell, level, effect, settings),
    )


def _effect(
    cell: Cell,
    columns: Mapping[str | None, Mapping[str, Cell]],
    contrasts: _Contrasts,
    sides: Mapping[str, Side],
    settings: Settings,
) -> Effect | None:
    if cell.arm_id is None or cell.versus is None:
        return None
    paper = paper_effect(cell, columns[cell.column], settings.metric)
    reference = _reference(cell, columns)
    if reference is None or reference.arm_id is None:
        why = "is not in this column" if reference is None else "is a quoted number, not trained here"
        return empty_effect(cell.versus, not_evaluable(f"{cell.versus} {why}"), paper)
    if reference.arm_id == cell.arm_id:
        return same_run(cell.versus, sides[cell.arm_id], paper)
    pair = (cell.arm_id, reference.arm_id)
    effect = measured(
        contrasts.comparisons[pair], (sides[pair[0]], sides[pair[1]]), paper, settings, cell.versus
    )
    fragile = contrasts.fragile[pair] and effect.verdict != NOT_EVALUABLE
    return dataclasses.replace(effect, fragile=fragile)


def _reference(cell: Cell, columns: Mapping[str | None, Mapping[str, Cell]]) -> Cell | None:
    return columns[cell.column].get(cell.versus) if cell.versus is not None else None


def _failures(
    outcomes: Outcomes, arms: Sequence[str], seeds: Sequence[int], values: Floats, settings: Settings
) -> Floats:
    """What diverged runs count as in the sensitivity check, (A, S); NaN for all others.

    The zero of another metric than an accuracy may be good: there, the worst value of the table is taken.
    """
    out = np.full(values.shape, np.nan)
    metric, worst = settings.metric, NOTHING_LEARNT_PCT
    if not settings.in_percent and np.isfinite(values).any():
        worst = float(np.nanmin(values))
    for a, arm in enumerate(arms):
        for s, seed in enumerate(seeds):
            run = outcomes.get(arm, {}).get(seed)
            if run is not None and has_diverged(run, metric):
                out[a, s] = run.metrics.get(metric, worst)
    return out


def check(settings: Settings) -> None:
    """Refuse settings that no verdict could follow from.

    Raises:
        ValueError: as for `decide`.
    """
    if settings.metric in LESS_IS_BETTER:
        valid = ", ".join(ACCURACIES)
        raise ValueError(
            f"less {settings.metric} is better; the metric of a study must grow. Valid: {valid}, a plugin's"
        )
    if not 0.0 < settings.alpha < 1.0:
        raise ValueError(f"alpha is {settings.alpha}; it must lie between 0 and 1")
    if not settings.smallest_effect_pp > 0.0:
        raise ValueError(f"smallest_effect is {settings.smallest_effect_pp}; it must be above 0 pp")
