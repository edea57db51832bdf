"""The tables of the study: what was measured, what it means, and what the paper printed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from harness.analysis.findings import CellFinding, Effect, Level, Settings, TableFinding
from harness.analysis.units import metric_name, size_text
from harness.reporting.cells import NUMBER, SPREAD, TEXT, Cell, Column, Row, Table
from harness.reporting.names import (
    MEMORY_NOTE,
    cell_name,
    effect_suffix,
    mark,
    ordered,
    percent_suffix,
    verdict_text,
)
from harness.reporting.numbers import DASH, MOST_DIGITS, Digits, digits_for, interval, number, signed
from harness.reporting.sections.printed import (
    STD,
    STD_NOTE,
    extras_cell,
    extras_column,
    other_metric,
    paper_cell,
    paper_column_kind,
)

ABOVE = "the row above"


def main_table(
    table: TableFinding, settings: Settings, places: Mapping[str, str] = MappingProxyType({})
) -> Table:
    """One row per cell of the paper's table, stacked by column group.

    The columns about effects are there where the table compares anything. `places`: arm_id -> what to say of
    rows on other data, or at another resolution, than most.
    """
    cells = ordered(table)
    compared = any(cell.effect for cell in cells)
    versus = _versus_rule(cells) if compared else None
    named = compared and versus is None
    columns = [*_level_columns(settings, paper_column_kind(cells, settings))]
    rows = [_level_cells(cell, settings, places) for cell in cells]
    if compared:
        columns += _effect_columns(settings, named)
        rows = [row + _effect_cells(cell, settings, named) for row, cell in zip(rows, cells, strict=True)]
    if extras := extras_column(cells):
        columns.append(extras)
        rows = [[*row, extras_cell(cell)] for row, cell in zip(rows, cells, strict=True)]
    return Table(
        key=table.key,
        title=table.title,
        caption=_caption(settings, versus, compared),
        columns=tuple(columns),
        rows=tuple(Row(tuple(row), cell.column or "") for row, cell in zip(rows, cells, strict=True)),
        notes=_notes(table),
    )


def level_digits(level: Level, settings: Settings) -> Digits:
    """Decimals of a mean, from its standard error sd / sqrt(n)."""
    if not settings.in_percent:
        return None
    return digits_for(None if level.sd is None or level.n == 0 else level.sd / math.sqrt(level.n))


def effect_digits(effect: Effect, settings: Settings) -> Digits:
    """Decimals of an effect: a quarter of the 95 % interval's width stands for its standard error."""
    if not settings.in_percent:
        return None
    if effect.low is None or effect.high is None:
        return digits_for(None)
    return digits_for((effect.high - effect.low) / 4)


def effect_cell(effect: Effect | None, settings: Settings) -> Cell:
    """The estimate with its 95 % interval, or why there is none."""
    if effect is None:
        return Cell(DASH, "(reference)")
    if effect.estimate is None:
        return Cell(DASH, f"({effect.qualifier or effect.verdict})")
    digits = effect_digits(effect, settings)
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


def _level_columns(settings: Settings, paper_kind: str) -> list[Column]:
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
        Column(
            title=f"Paper {metric_name(metric)}", kind=paper_kind, detail_title=f"paper {metric_name(other)}"
        ),
    ]


def _effect_columns(settings: Settings, with_versus: bool) -> list[Column]:
    columns = [Column(title=f"Effect{effect_suffix(settings)}", kind=SPREAD, detail_title="95 % CI")]
    if with_versus:
        columns.append(Column(title="Compared with", kind=TEXT))
    columns += [
        Column(title="Verdict", kind=TEXT, detail_title="qualifier"),
        Column(title="Paper effect", kind=NUMBER),
    ]
    if settings.comparable_to_paper:
        columns.append(Column(title="Effect minus paper's, pp", kind=SPREAD, detail_title="95 % CI"))
    return columns


def _level_cells(cell: CellFinding, settings: Settings, places: Mapping[str, str]) -> list[Cell]:
    return [
        Cell(cell.row, places.get(cell.arm_id or "", "")),
        _n_cell(cell.level),
        _level_cell(cell.level, settings),
        _secondary_cell(cell.level, settings),
        paper_cell(cell, settings),
    ]


def _effect_cells(cell: CellFinding, settings: Settings, with_versus: bool) -> list[Cell]:
    effect = cell.effect
    cells = [effect_cell(effect, settings) if cell.level is not None else Cell(DASH, "(quoted)")]
    if with_versus:
        cells.append(Cell(effect.versus if effect else DASH))
    cells += [_verdict_cell(effect), _paper_effect_cell(effect)]
    if settings.comparable_to_paper:
        cells.append(_gap_cell(effect, settings))
    return cells


def _n_cell(level: Level | None) -> Cell:
    if level is None:
        return Cell("0", "(quoted)")
    left_out = [f"{level.diverged} diverged"] * bool(level.diverged)
    left_out += [f"{level.missing} missing"] * bool(level.missing)
    return Cell(str(level.n), ", ".join(left_out))


def _level_cell(level: Level | None, settings: Settings) -> Cell:
    if level is None:
        return Cell(DASH, "(quoted number, nothing trained)")
    if level.mean is None:
        return Cell(DASH, f"({level.missing_reason or 'no run has ended with a value'})")
    digits = level_digits(level, settings)
    mean = number(level.mean, digits)
    if level.sd is None:
        return Cell(mean, "(1 seed: no sd, no interval)")
    return Cell(f"{mean} ± {number(level.sd, digits)} sd", interval(level.low, level.high, digits))


def _secondary_cell(level: Level | None, settings: Settings) -> Cell:
    metric = other_metric(settings.metric)
    if level is None or metric not in level.secondary:
        return Cell(DASH)
    digits = level_digits(level, settings) if settings.in_percent else MOST_DIGITS
    return Cell(number(level.secondary[metric], digits))


def _verdict_cell(effect: Effect | None) -> Cell:
    if effect is None:
        return Cell(DASH)
    details = [effect.qualifier] * bool(effect.qualifier) + ["fragile"] * effect.fragile
    return Cell(verdict_text(effect), "; ".join(details), effect.verdict)


def _paper_effect_cell(effect: Effect | None) -> Cell:
    if effect is None or effect.paper is None:
        return Cell(DASH)
    return Cell(signed(effect.paper) + mark(effect.paper_status))


def _gap_cell(effect: Effect | None, settings: Settings) -> Cell:
    if effect is None or effect.gap is None:
        return Cell(DASH)
    digits = effect_digits(effect, settings)
    details = [interval(effect.gap_low, effect.gap_high, digits), effect.agreement or ""]
    return Cell(signed(effect.gap, digits), " ".join(filter(None, details)))


def _caption(settings: Settings, versus: str | None, compared: bool) -> str:
    text = "n: seeds with a value."
    if not compared:
        return text
    unit = "percentage points (pp) of" if settings.in_percent else "units of"
    of = f"this row minus {versus}" if versus else "this row minus the row named under “Compared with”"
    return (
        f"{text} Effect: {of}, in {unit} {metric_name(settings.metric)}; its 95 % interval is over "
        f"re-training. Smallest effect of interest: {size_text(settings.smallest_effect_pp, settings)}."
    )


def _notes(table: TableFinding) -> tuple[str, ...]:
    notes = [table.note] if table.note else []
    statuses = {value.status for cell in table.cells for value in cell.paper.values()}
    if statuses - {"verified"}:
        notes.append(MEMORY_NOTE)
    if any(STD in cell.paper for cell in table.cells):
        notes.append(STD_NOTE)
    for cell in table.cells:
        reason = cell.level.missing_reason if cell.level and cell.level.mean is not None else None
        notes += [f"{cell_name(cell)}: {text}" for text in (cell.note, reason) if text]
    return tuple(dict.fromkeys(notes))
