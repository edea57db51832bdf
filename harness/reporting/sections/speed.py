"""Steps to the target accuracy, for tables that name one."""

from __future__ import annotations

from harness.analysis.findings import SpeedFinding, SpeedPanel, SpeedRow
from harness.reporting.cells import NUMBER, SPREAD, Cell, Column, Row, Table
from harness.reporting.document import Block, FigureBlock, Paragraph, Section
from harness.reporting.inputs import ReportInput
from harness.reporting.names import MEMORY_NOTE, mark, short_name
from harness.reporting.numbers import DASH, missing, number

TITLE = "Steps to the target accuracy"


def speed_section(report: ReportInput, figures: dict[str, FigureBlock]) -> Section | None:
    """A paragraph, a table and a figure per table with a target. `figures`: table key -> picture."""
    if not report.findings.speed:
        return None
    blocks: list[Block] = []
    for speed in report.findings.speed:
        blocks += [Paragraph(_target(speed)), speed_table(speed, report)]
        if speed.table in figures:
            blocks.append(figures[speed.table])
    return Section(TITLE, tuple(blocks))


def speed_table(speed: SpeedFinding, report: ReportInput) -> Table:
    """One row per row of the study's table, stacked by column."""
    printed = any(row.paper for panel in speed.panels for row in panel.rows)
    columns = [
        Column(title="Row"),
        Column(title="Reached by", kind=SPREAD, detail_title="not counted"),
        Column(title="Steps: median", kind=NUMBER, detail_title="lowest to highest seed"),
        Column(title=f"Times fewer than {speed.reference}", kind=NUMBER),
    ]
    if printed:
        columns += [
            Column(title="Paper, million steps", kind=NUMBER),
            Column(title="Paper: times fewer", kind=NUMBER),
        ]
    batches = _batches(speed, report)
    rows = tuple(
        Row(_cells(row, batches)[: len(columns)], panel.column or "")
        for panel in speed.panels
        for row in panel.rows
    )
    memory = any(row.paper and mark(row.paper.status) for panel in speed.panels for row in panel.rows)
    return Table(
        key=f"{speed.table}_steps",
        title=f"{short_name(speed.table)}: {speed.title}",
        caption="Optimizer steps until the learning curve first reaches the target. A run that ended below "
        "it counts as slower than every other one; a median needs more than half of the runs to get there.",
        columns=tuple(columns),
        rows=rows,
        notes=(MEMORY_NOTE,) if memory else (),
    )


def _target(speed: SpeedFinding) -> str:
    levels = "; ".join(_level(panel) for panel in speed.panels)
    if speed.target_row is None:
        return f"{short_name(speed.table)}: the target is {levels}, a fixed accuracy."
    return (
        f"{short_name(speed.table)}: the target is {levels}: the mean accuracy with which "
        f"“{speed.target_row}” ends, or, where one of its runs never got there, the best value of that run. "
        "It is read from the learning curves (at most 1,000 test images, so it differs from the tables' "
        "values), and steps are known to the distance between two points of a curve."
    )


def _level(panel: SpeedPanel) -> str:
    level = "not known yet" if panel.target_top1 is None else f"{number(panel.target_top1)} % top-1"
    return level if panel.column is None else f"{panel.column} {level}"


def _batches(speed: SpeedFinding, report: ReportInput) -> dict[str, int]:
    """arm_id -> images per step, where rows of the table differ in it."""
    arms = [row.arm_id for panel in speed.panels for row in panel.rows if row.trained and row.arm_id]
    sizes = {arm: report.plan.arms[arm].recipe.batch_size for arm in arms if arm in report.plan.arms}
    return sizes if len(set(sizes.values())) > 1 else {}


def _cells(row: SpeedRow, batches: dict[str, int]) -> tuple[Cell, ...]:
    batch = batches.get(row.arm_id or "")
    name = Cell(row.row, f"{batch} images per step" if batch else "")
    paper = Cell(f"{row.paper.value:g}{mark(row.paper.status)}" if row.paper else missing("none"))
    paper_factor = Cell(missing("none") if row.paper_factor is None else _factor(row.paper_factor))
    if not row.trained:
        what = "(quoted)" if row.arm_id is None else "(trains nothing)"
        return name, *(Cell(DASH, what) for _ in range(3)), paper, paper_factor
    reached = sum(step is not None for step in row.steps.values())
    left_out = [f"{row.diverged} diverged"] * bool(row.diverged)
    left_out += [f"{row.missing} missing"] * bool(row.missing)
    return (
        name,
        Cell(f"{reached} of {len(row.steps)}", ", ".join(left_out)),
        Cell(missing("no median") if row.median is None else f"{row.median:,.0f}", _range(row)),
        Cell(missing("no median") if row.factor is None else _factor(row.factor)),
        paper,
        paper_factor,
    )


def _range(row: SpeedRow) -> str:
    if row.low is None or row.high is None:
        return "(never)" if row.steps else ""
    return f"{row.low:,} to {row.high:,}"


def _factor(value: float) -> str:
    return number(value, 1 if value >= 10 else 2)
