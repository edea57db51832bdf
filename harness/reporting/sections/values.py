"""The values of a table beside those that the paper printed, and how a level and its n are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from harness.analysis.findings import CellFinding, Effect, Level, Settings, TableFinding
from harness.analysis.units import metric_name
from harness.reporting.cells import NUMBER, SPREAD, Cell, Column, Row, Table
from harness.reporting.names import MEMORY_NOTE, cell_name, ordered, percent_suffix, short_name
from harness.reporting.numbers import DASH, MOST_DIGITS, Digits, digits_for, interval, number
from harness.reporting.sections.printed import (
    STD,
    STD_NOTE,
    extras_cell,
    extras_column,
    other_metric,
    paper_cell,
    paper_column_kind,
)


def values_table(
    table: TableFinding, settings: Settings, places: Mapping[str, str] = MappingProxyType({})
) -> Table:
    """Means with their spread and interval, the other accuracy, and everything that the paper printed.

    It stands below the leading table, or in its place (with its key) where nothing is compared.
    """
    cells = ordered(table)
    leads = not any(cell.effect for cell in cells)
    columns = _columns(settings, paper_column_kind(cells, settings))
    rows = [_cells(cell, settings, places if leads else {}) for cell in cells]
    if extras := extras_column(cells):
        columns.append(extras)
        rows = [[*row, extras_cell(cell)] for row, cell in zip(rows, cells, strict=True)]
    caption = "n: seeds with a value. sd: over these seeds; the 95 % CI is that of the mean."
    return Table(
        key=table.key if leads else f"{table.key}_values",
        title=table.title if leads else short_name(table.key),
        caption=caption if leads else f"Values, ours and the paper's. {caption}",
        columns=tuple(columns),
        rows=tuple(Row(tuple(row), cell.column or "") for row, cell in zip(rows, cells, strict=True)),
        notes=_notes(table, leads),
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


def n_cell(level: Level | None, effect: Effect | None = None) -> Cell:
    """Seeds with a value; below it runs that have none, and whether an adaptive study ended the row."""
    if level is None:
        return Cell("0", "(quoted)")
    said = [f"{level.diverged} diverged"] * bool(level.diverged)
    said += [f"{level.without_value} without a finite value"] * bool(level.without_value)
    absent = level.missing - level.without_value
    said += [f"{absent} missing"] * bool(absent)
    if effect is not None and effect.settled_at is not None:
        said.append("settled" if effect.settled_at >= level.n else f"settled at {effect.settled_at}")
    return Cell(str(level.n), ", ".join(said))


def spread_cell(level: Level | None, settings: Settings, *, with_interval: bool = False) -> Cell:
    """Mean and sd, and on demand the interval of the mean; or why there is none."""
    if level is None:
        return Cell(DASH, "(quoted)")
    if level.mean is None:
        return Cell(DASH, f"({level.missing_reason or 'no run has ended with a value'})")
    digits = level_digits(level, settings)
    mean = number(level.mean, digits)
    if level.sd is None:
        return Cell(mean, "(1 seed: no sd)")
    said = interval(level.low, level.high, digits) if with_interval else ""
    return Cell(f"{mean} ± {number(level.sd, digits)}", said)


def row_notes(table: TableFinding) -> list[str]:
    """What the study says of single rows, and why runs of a row with a value are missing."""
    notes = []
    for cell in table.cells:
        reason = cell.level.missing_reason if cell.level and cell.level.mean is not None else None
        notes += [f"{cell_name(cell)}: {text}" for text in (cell.note, reason) if text]
    return notes


def _columns(settings: Settings, paper_kind: str) -> list[Column]:
    metric, other = settings.metric, other_metric(settings.metric)
    return [
        Column(title="Row"),
        Column(title="n", kind=NUMBER, detail_title="remarks"),
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


def _cells(cell: CellFinding, settings: Settings, places: Mapping[str, str]) -> list[Cell]:
    return [
        Cell(cell.row, places.get(cell.arm_id or "", "")),
        n_cell(cell.level),
        spread_cell(cell.level, settings, with_interval=True),
        _secondary_cell(cell.level, settings),
        paper_cell(cell, settings),
    ]


def _secondary_cell(level: Level | None, settings: Settings) -> Cell:
    metric = other_metric(settings.metric)
    if level is None:
        return Cell(DASH, "(quoted)")
    if metric not in level.secondary:
        return Cell(DASH, "(no value)" if level.mean is None else "(not measured)")
    digits = level_digits(level, settings) if settings.in_percent else MOST_DIGITS
    return Cell(number(level.secondary[metric], digits))


def _notes(table: TableFinding, leads: bool) -> tuple[str, ...]:
    notes = [table.note] if table.note and leads else []
    if {value.status for cell in table.cells for value in cell.paper.values()} - {"verified"}:
        notes.append(MEMORY_NOTE)
    if any(STD in cell.paper for cell in table.cells):
        notes.append(STD_NOTE)
    return tuple(dict.fromkeys([*notes, *(row_notes(table) if leads else [])]))
