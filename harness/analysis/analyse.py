"""A whole study: records in, findings out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.analysis.claims import Records, answer_claims, read_curves, speed_of
from harness.analysis.competence import Judge, competence_of, with_competence
from harness.analysis.contrasts import by_column, contrasts_of, noise, reference_of
from harness.analysis.credit import with_credit
from harness.analysis.effects import Side, empty_effect, measured, same_run
from harness.analysis.findings import (
    NOT_EVALUABLE,
    UNDECIDED,
    CellFinding,
    Competence,
    Effect,
    Findings,
    Outcomes,
    Settings,
    TableFinding,
    read_outcomes,
)
from harness.analysis.fit import roots_of
from harness.analysis.looks import Name, Tested, tests_of, with_looks
from harness.analysis.precision import budget_of, flips_of, resolvable
from harness.analysis.sizes import with_sizes
from harness.analysis.verdicts import level_of, not_evaluable, paper_effect, sentence_for
from harness.spec import ACCURACIES
from harness.study.part import PlanPart
from harness.study.plan import Cell, Plan, PlanTable

if TYPE_CHECKING:
    import pandas as pd


# Records in, findings out: the only function of this package that a report needs.


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
    return Findings(
        study=study, size=size, settings=settings, seeds=tuple(seeds),
        tables=with_credit(tables, found, settings),
    )  # fmt: skip


def decide_table(
    table: PlanTable,
    outcomes: Outcomes,
    settings: Settings,
    seeds: tuple[int, ...],
    roots: Mapping[str, frozenset[str]] = MappingProxyType({}),
    planned: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> TableFinding:
    """One table.

    Args:
        roots: arm_id -> the trained arms whose networks it evaluates (by default, its own).
        planned: arm_id -> its own planned seeds, where they are fewer than `seeds`: it was stopped early.
    """
    columns = by_column(table)
    contrasts = contrasts_of(table, roots)
    tests = tests_of(contrasts, outcomes, seeds, settings)
    sides = {
        arm: Side(
            level=level_of(outcomes.get(arm, {}), planned.get(arm, seeds), settings.metric),
            runs=outcomes.get(arm, {}),
        )
        for arm in contrasts.arms
    }
    spread = noise(tests.values, contrasts.relations, seeds_shared=settings.seeds_shared)
    measured_at = [(each.comparison.estimate, each.comparison.seeds) for each in tests.rows.values()]
    return TableFinding(
        key=table.key,
        title=table.title,
        design=table.design,
        columns=table.columns,
        cells=tuple(_cell(cell, columns, tests.rows, sides, settings) for cell in table.cells),
        note=table.note,
        contrasts=len(contrasts.names),
        pooled_sd=spread.pooled_sd,
        seed_correlation=spread.seed_correlation,
        paired_df_cost=spread.paired_df_cost,
        resolvable=resolvable(measured_at, len(contrasts.names), settings),
    )


def _cell(
    cell: Cell,
    columns: Mapping[str | None, Mapping[str, Cell]],
    tests: Mapping[Name, Tested],
    sides: Mapping[str, Side],
    settings: Settings,
) -> CellFinding:
    level = None if cell.arm_id is None else sides[cell.arm_id].level
    effect = _effect(cell, columns, tests, sides, settings)
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
    tests: Mapping[Name, Tested],
    sides: Mapping[str, Side],
    settings: Settings,
) -> Effect | None:
    if cell.arm_id is None or cell.versus is None:
        return None
    paper = paper_effect(cell, columns[cell.column], settings.metric)
    reference = reference_of(cell, columns)
    if reference is None or reference.arm_id is None:
        why = "is not in this column" if reference is None else "is a quoted number, not trained here"
        return empty_effect(cell.versus, not_evaluable(f"{cell.versus} {why}"), paper)
    if reference.arm_id == cell.arm_id:
        return same_run(cell.versus, sides[cell.arm_id], paper)
    tested = tests[cell.arm_id, reference.arm_id]
    both = [_read(sides[arm], tested, settings) for arm in (cell.arm_id, reference.arm_id)]
    effect = measured(tested.comparison, (both[0], both[1]), paper, settings, cell.versus)
    if tested.waiting and effect.verdict != NOT_EVALUABLE:
        effect = dataclasses.replace(
            effect, verdict=UNDECIDED, qualifier=tested.waiting, p=None, p_holm=None, more_seeds=None
        )
    return dataclasses.replace(
        effect,
        fragile=tested.fragile and effect.verdict != NOT_EVALUABLE,
        settled_at=tested.settled_at,
        trace=tested.trace,
    )


def _read(side: Side, tested: Tested, settings: Settings) -> Side:
    """An arm with the seeds that its contrast was tested on."""
    if tested.comparison.stage.is_fixed:
        return side
    return Side(level=level_of(side.runs, tested.seeds, settings.metric), runs=side.runs)


def check(settings: Settings) -> None:
    """Refuse settings that no verdict could follow from.

    Raises:
        ValueError: as for `decide`.
    """
    if settings.metric in LESS_IS_BETTER and not settings.lower_is_better:
        valid = ", ".join(ACCURACIES)
        raise ValueError(
            f"less {settings.metric} is better; the metric of a study must grow. Valid: {valid}, a plugin's"
        )
    if not 0.0 < settings.alpha < 1.0:
        raise ValueError(f"alpha is {settings.alpha}; it must lie between 0 and 1")
    if not settings.smallest_effect_pp > 0.0:
        raise ValueError(f"smallest_effect is {settings.smallest_effect_pp}; it must be above 0 pp")


# A whole study: its tables, the paper's claims and the steps to a target accuracy.


def analyse(
    plan: Plan,
    records: pd.DataFrame,
    curves: pd.DataFrame,
    settings: Settings,
    floors: Mapping[str, Any] | None = None,
) -> Findings:
    """What the runs of a plan show. Only runs of the planned seeds are read as a row's own.

    Args:
        records: as for `decide`, with `train_loss` and a column for each metric of a plugin.
        curves: one row per curve point: arm_id, seed, step (optimizer steps), epoch, val_top1 (percent).
        floors: what simple classifiers reach (`ReportInput.floors`). None: nothing is asked of the arms, and
            claims are answered by their sign, as in reports of before there were floors.
    Raises:
        ValueError: as for `decide`.
    """
    settings = with_looks(settings, plan.looks)
    check(settings)
    outcomes = read_outcomes(records, [settings.metric, *_further_metrics(plan)])
    evidence = _evidence(plan, outcomes, curves, settings)
    seeds, planned, roots = evidence.seeds, evidence.planned, roots_of(plan.arms)
    speeds = (speed_of(table, evidence) for table in plan.tables)
    tables = tuple(decide_table(table, outcomes, settings, seeds, roots, planned) for table in plan.tables)
    tables = with_credit(plan.tables, tables, settings, roots)
    found = Findings(
        study=plan.study,
        size=plan.size,
        settings=settings,
        seeds=tuple(plan.seeds),
        tables=tables,
        claims=answer_claims(plan.claims, plan.tables, evidence),
        speed=tuple(speed for speed in speeds if speed is not None),
        budget=budget_of(tables, plan.arms, records[records["seed"].isin(seeds)]),
        flips=flips_of(plan.tables, outcomes, seeds),
    )
    if floors is None:
        return found
    return _with_conditions(found, Judge.of(plan, records, outcomes, settings, floors), evidence)


def _further_metrics(plan: Plan) -> list[str]:
    """Of plugins, of a script, and of a file of results."""
    of_file = plan.header["metrics"] if plan.header.get("results") or plan.scripts else ()
    return list(
        dict.fromkeys([*(name for arm in plan.arms.values() for name in arm.recipe.metrics), *of_file])
    )


def _evidence(plan: Plan, outcomes: Outcomes, curves: pd.DataFrame, settings: Settings) -> Records:
    return Records(
        outcomes=outcomes,
        curves=read_curves(curves, outcomes),
        seeds=tuple(sorted(plan.seeds)),
        planned={
            arm_id: tuple(sorted(plan.seeds_of(arm_id))) for arm_id in (*plan.arm_seeds, *plan.own_seeds)
        },
        observers=frozenset(arm_id for arm_id, arm in plan.arms.items() if arm.observes),
        looks=settings.looks,
    )


def _with_conditions(found: Findings, judge: Judge, evidence: Records) -> Findings:
    """What cannot be tested is said to be so; claims are answered by size."""
    tables = with_competence(found.tables, judge)
    return dataclasses.replace(
        found,
        tables=tables,
        claims=with_sizes(found.claims, judge, evidence, found.settings),
        competence=competence_of(tables, judge),
    )


# What of the findings a report of a part shows. Its numbers are those of the whole study.


def findings_of_part(found: Findings, part: PlanPart) -> Findings:
    """The findings of the part's cells, in families and fits of the whole plan.

    A row that is there only because others are compared with it shows its mean and no effect of its own.
    Credits and steps to a target are those of whole tables, and of others left out.
    """
    shown = {(table.key, cell.row, cell.column) for table in part.plan.tables for cell in table.cells}
    whole = {
        table.key
        for table in part.whole.tables
        if all((table.key, cell.row, cell.column) in part.cells for cell in table.cells)
    }
    tables = tuple(
        _table_of_part(planned, table, part, found.settings)
        for planned, table in zip(part.whole.tables, found.tables, strict=True)
    )
    arms = part.plan.all_arms
    return dataclasses.replace(
        found,
        tables=tuple(_without_credit(table, whole) for table in tables if table.cells),
        claims=tuple(
            each
            for each in found.claims
            if (each.claim.table, each.claim.row, each.column) in shown
            and (each.claim.table, each.claim.versus, each.versus_column) in shown
        ),
        speed=tuple(each for each in found.speed if each.table in whole),
        budget=tuple(point for point in found.budget if point.arm_id in arms),
        flips=tuple(each for each in found.flips if (each.table, each.row, each.column) in part.cells),
        competence=None if found.competence is None else _competence_of_part(found.competence, part),
    )


def _table_of_part(
    planned: PlanTable, found: TableFinding, part: PlanPart, settings: Settings
) -> TableFinding:
    kept = {each.key: each for each in part.plan.tables}.get(found.key)
    names = {(cell.row, cell.column) for cell in kept.cells} if kept else set()
    cells = []
    for cell, own in zip(planned.cells, found.cells, strict=True):
        if (found.key, cell.row, cell.column) in part.cells:
            cells.append(own)
        elif (cell.row, cell.column) in names:
            sentence = sentence_for(cell, own.level, None, settings)
            cells.append(dataclasses.replace(own, effect=None, sentence=sentence))
    return dataclasses.replace(found, cells=tuple(cells), columns=kept.columns if kept else ())


def _without_credit(table: TableFinding, whole: set[str]) -> TableFinding:
    """A table whose credit would rest on rows that are not of the part has none."""
    if table.credit is None or whole.issuperset(table.credit.tables):
        return table
    return dataclasses.replace(table, credit=None)


def _competence_of_part(found: Competence, part: PlanPart) -> Competence:
    arms, tables = part.plan.arms, {table.key for table in part.plan.tables}
    floors = (
        dataclasses.replace(floor, arms=tuple(arm for arm in floor.arms if arm in arms))
        for floor in found.floors
    )
    return dataclasses.replace(
        found,
        floors=tuple(floor for floor in floors if floor.arms),
        arms=tuple(arm for arm in found.arms if arm.arm_id in arms),
        controls=tuple(control for control in found.controls if control.table in tables),
    )
