"""The tables of the study: what was measured, what it means, and what the paper printed."""

from __future__ import annotations

import math

from harness.analysis.findings import CellFinding, Effect, Level, Settings, TableFinding
from harness.reporting.cells import NUMBER, SPREAD, TEXT, Cell, Column, Row, Table
from harness.reporting.names import (
    MEMORY_NOTE,
    cell_name,
    mark,
    metric_name,
    ordered,
    paper_text,
    percent_suffix,
    verdict_text,
)
from harness.reporting.numbers import DASH, digits_for, interval, number, signed

ABOVE = "the row above"


def main_table(table: TableFinding, settings: Settings) -> Table:
    """One row per cell of the paper's table, stacked by column group.

    The columns about effects are there where the table compares anything.
    """
    cells = ordered(table)
    compared = any(cell.effect for cell in cells)
    versus = _versus_rule(cells) if compared else None
    named = compared and versus is None
    columns = [*_level_columns(settings)]
    rows = [_level_cells(cell, settings) for cell in cells]
    if compared:
        columns += _effect_columns(settings, named)
        rows = [row + _effect_cells(cell, settings, named) for row, cell in zip(rows, cells, strict=True)]
    return Table(
        key=table.key,
        title=table.title,
        caption=_caption(settings, versus, compared),
        columns=tuple(columns),
        rows=tuple(Row(tuple(row), cell.column or "") for row, cell in zip(rows, cells, strict=True)),
        notes=_notes(table),
    )


def other_metric(metric: str) -> str:
    """The accuracy that is shown beside the primary one."""
    return "top1" if metric == "top5" else "top5"


def level_digits(level: Level) -> int:
    """Decimals of a mean, from its standard error sd / sqrt(n)."""
    return digits_for(None if level.sd is None or level.n == 0 else level.sd / math.sqrt(level.n))


def effect_digits(effect: Effect) -> int:
    """Decimals of an effect: a quarter of the 95 % interval's width stands for its standard error."""
    if effect.low is None or effect.high is None:
        return digits_for(None)
    return digits_for((effect.high - effect.low) / 4)


def effect_cell(effect: Effect | None) -> Cell:
    """The estimate with its 95 % interval, or why there is none."""
    if effect is None:
        return Cell(DASH, "(reference)")
    if effect.estimate is None:
        return Cell(DASH, f"({effect.qualifier or effect.verdict})")
    digits = effect_digits(effect)
    return Cell(signed(effect.estimate, digits), interval(effect.low, effect.high, digits))


def _versus_rule(cells: list[CellFinding]) -> str | None:
    """What every effect is measured from, if one phrase says it for all rows."""
    pairs = [
        (above, cell)
        for above, cell in zip([None, *cells[:-1]], cells, strict=True)
        if cell.effect is not None
    ]
    if all(
        above and cell.effect and above.row == cell.effect.versus and above.column == cell.column
        for above, cell in pairs
    ):
        return ABOVE
    references = {cell.effect.versus for _, cell in pairs if cell.effect}
    return references.pop() if len(references) == 1 else None


def _level_columns(settings: Settings) -> list[Column]:
    metric, other = settings.metric, other_metric(settings.metric)
    return [
        Column(title="Row"),
        Column(title="n", kind=NUMBER, detail_title="not counted"),
        Column(
            title=f"{metric_name(metric)}{percent_suffix(metric)}: mean ± sd",
            kind=SPREAD,
            detail_title="95 % CI of the mean",
        ),
        Column(title=f"{metric_name(other)}{percent_suffix(other)}", kind=NUMBER),
        Column(title=f"Paper {metric_name(metric)}", kind=NUMBER, detail_title=f"paper {metric_name(other)}"),
    ]


def _effect_columns(settings: Settings, with_versus: bool) -> list[Column]:
    columns = [Column(title="Effect, pp", kind=SPREAD, detail_title="95 % CI")]
    if with_versus:
        columns.append(Column(title="Compared with", kind=TEXT))
    columns += [
        Column(title="Verdict", kind=TEXT, detail_title="qualifier"),
        Column(title="Paper effect", kind=NUMBER),
    ]
    if settings.comparable_to_paper:
        columns.append(Column(title="Effect minus paper's, pp", kind=SPREAD, detail_title="95 % CI"))
    return columns


def _level_cells(cell: CellFinding, settings: Settings) -> list[Cell]:
    return [
        Cell(cell.row),
        _n_cell(cell.level),
        _level_cell(cell.level),
        _secondary_cell(cell.level, other_metric(settings.metric)),
        _paper_cell(cell, settings.metric),
    ]


def _effect_cells(cell: CellFinding, settings: Settings, with_versus: bool) -> list[Cell]:
    effect = cell.effect
    cells = [effect_cell(effect) if cell.level is not None else Cell(DASH, "(quoted)")]
    if with_versus:
        cells.append(Cell(effect.versus if effect else DASH))
    cells += [_verdict_cell(effect), _paper_effect_cell(effect)]
    if settings.comparable_to_paper:
        cells.append(_gap_cell(effect))
    return cells


def _n_cell(level: Level | None) -> Cell:
    if level is None:
        return Cell("0", "(quoted)")
    left_out = [f"{level.diverged} diverged"] * bool(level.diverged)
    left_out += [f"{level.missing} missing"] * bool(level.missing)
    return Cell(str(level.n), ", ".join(left_out))


def _level_cell(level: Level | None) -> Cell:
    if level is None:
        return Cell(DASH, "(quoted number, nothing trained)")
    if level.mean is None:
        return Cell(DASH, f"({level.missing_reason or 'no run has ended with a value'})")
    digits = level_digits(level)
    mean = number(level.mean, digits)
    if level.sd is None:
        return Cell(mean, "(1 seed: no sd, no interval)")
    return Cell(f"{mean} ± {number(level.sd, digits)} sd", interval(level.low, level.high, digits))


def _secondary_cell(level: Level | None, metric: str) -> Cell:
    if level is None or metric not in level.secondary:
        return Cell(DASH)
    return Cell(number(level.secondary[metric], level_digits(level)))


def _verdict_cell(effect: Effect | None) -> Cell:
    if effect is None:
        return Cell(DASH)
    details = [effect.qualifier] * bool(effect.qualifier) + ["fragile"] * effect.fragile
    return Cell(verdict_text(effect), "; ".join(details), effect.verdict)


def _paper_cell(cell: CellFinding, metric: str) -> Cell:
    value = paper_text(cell.paper.get(metric))
    other = paper_text(cell.paper.get(other_metric(metric)))
    if not value:
        return Cell(DASH, "(none)")
    return Cell(value, f"({other})" if other else "")


def _paper_effect_cell(effect: Effect | None) -> Cell:
    if effect is None or effect.paper is None:
        return Cell(DASH)
    return Cell(signed(effect.paper) + mark(effect.paper_status))


def _gap_cell(effect: Effect | None) -> Cell:
    if effect is None or effect.gap is None:
        return Cell(DASH)
    digits = effect_digits(effect)
    details = [interval(effect.gap_low, effect.gap_high, digits), effect.agreement or ""]
    return Cell(signed(effect.gap, digits), " ".join(filter(None, details)))


def _caption(settings: Settings, versus: str | None, compared: bool) -> str:
    text = "n: seeds with a value."
    if not compared:
        return text
    of = f"this row minus {versus}" if versus else "this row minus the row named under “Compared with”"
    return (
        f"{text} Effect: {of}, in percentage points (pp) of {metric_name(settings.metric)}; its 95 % "
        f"interval is over re-training. Smallest effect of interest: {settings.smallest_effect_pp:g} pp."
    )


def _notes(table: TableFinding) -> tuple[str, ...]:
    notes = [table.note] if table.note else []
    statuses = {value.status for cell in table.cells for value in cell.paper.values()}
    if statuses - {"verified"}:
        notes.append(MEMORY_NOTE)
    for cell in table.cells:
        reason = cell.level.missing_reason if cell.level and cell.level.mean is not None else None
        notes += [f"{cell_name(cell)}: {text}" for text in (cell.note, reason) if text]
    return tuple(dict.fromkeys(notes))
