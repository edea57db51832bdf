"""The leading table of each table of the study: what was measured, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.analysis.findings import CellFinding, Effect, Settings, TableFinding
from harness.analysis.units import metric_name, size_text
from harness.reporting.cells import NUMBER, SPREAD, TEXT, Cell, Column, Row, Table
from harness.reporting.names import (
    MEMORY_NOTE,
    effect_suffix,
    mark,
    ordered,
    percent_suffix,
    verdict_text,
)
from harness.reporting.numbers import DASH, interval, signed
from harness.reporting.sections.values import effect_digits as effect_digits
from harness.reporting.sections.values import level_digits as level_digits
from harness.reporting.sections.values import (
    n_cell,
    row_notes,
    spread_cell,
    values_table,
)

ABOVE = "the row above"


def main_table(
    table: TableFinding, settings: Settings, places: Mapping[str, str] = MappingProxyType({})
) -> Table:
    """One row per cell of the paper's table, stacked by column group; narrow enough for a printed page.

    What the paper printed, and what else is known of a row, is in the tables of `values.py` and `details.py`;
    where nothing is compared, this is the table of values. `places`: arm_id -> what to say of rows on other
    data, or at another resolution, than most.
    """
    cells = ordered(table)
    if not any(cell.effect for cell in cells):
        return values_table(table, settings, places)
    versus = _versus_rule(cells)
    columns = [
        Column(title="Row", detail_title="" if versus else "compared with"),
        Column(title="n", kind=NUMBER, detail_title="remarks"),
        Column(
            title=f"{metric_name(settings.metric)}{percent_suffix(settings.metric)}: mean ± sd", kind=SPREAD
        ),
        *_effect_columns(settings),
    ]
    rows = tuple(_row(cell, settings, places, versus) for cell in cells)
    return Table(
        key=table.key,
        title=table.title,
        caption=_caption(settings, versus),
        columns=tuple(columns),
        rows=rows,
        notes=_notes(table),
    )


def _row(cell: CellFinding, settings: Settings, places: Mapping[str, str], versus: str | None) -> Row:
    effect = cell.effect
    said = [places.get(cell.arm_id or "", "")]
    said += [f"minus {effect.versus}"] if effect and versus is None else []
    cells = [
        Cell(cell.row, "; ".join(filter(None, said))),
        n_cell(cell.level, effect),
        spread_cell(cell.level, settings),
        effect_cell(effect, settings) if cell.level is not None else Cell(DASH, "(quoted)"),
        _verdict_cell(cell),
        _paper_effect_cell(cell),
    ]
    if settings.comparable_to_paper:
        cells.append(_gap_cell(effect, settings))
    return Row(tuple(cells), cell.column or "")


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


def _effect_columns(settings: Settings) -> list[Column]:
    columns = [
        Column(title=f"Effect{effect_suffix(settings)}", kind=SPREAD, detail_title="95 % CI"),
        Column(title="Verdict", kind=TEXT, detail_title="qualifier"),
        Column(title="Paper effect", kind=NUMBER),
    ]
    if settings.comparable_to_paper:
        columns.append(Column(title="Effect minus paper's, pp", kind=SPREAD, detail_title="95 % CI"))
    return columns


def _verdict_cell(cell: CellFinding) -> Cell:
    effect = cell.effect
    if effect is None:
        return Cell(DASH, "(quoted)" if cell.level is None else "(reference)")
    details = [effect.qualifier] * bool(effect.qualifier) + ["fragile"] * effect.fragile
    details += ["exploratory"] * effect.exploratory
    return Cell(verdict_text(effect), "; ".join(details), effect.verdict)


def _paper_effect_cell(cell: CellFinding) -> Cell:
    effect = cell.effect
    if effect is None:
        return Cell(DASH, "(quoted)" if cell.level is None else "(reference)")
    if effect.paper is None:
        return Cell(DASH, "(none)")
    return Cell(signed(effect.paper) + mark(effect.paper_status))


def _gap_cell(effect: Effect | None, settings: Settings) -> Cell:
    if effect is None or effect.gap is None:
        return Cell(DASH, "(reference)" if effect is None else "(none)")
    digits = effect_digits(effect, settings)
    details = [interval(effect.gap_low, effect.gap_high, digits), effect.agreement or ""]
    return Cell(signed(effect.gap, digits), " ".join(filter(None, details)))


def _caption(settings: Settings, versus: str | None) -> str:
    unit = "percentage points (pp) of" if settings.in_percent else "units of"
    of = f"this row minus {versus}" if versus else "this row minus the row named under its label"
    return (
        f"n: seeds with a value. sd: over these seeds. Effect: {of}, in {unit} "
        f"{metric_name(settings.metric)}; its 95 % CI is over re-training. "
        f"Smallest effect of interest: {size_text(settings.smallest_effect_pp, settings)}."
    )


def _notes(table: TableFinding) -> tuple[str, ...]:
    notes = [table.note] if table.note else []
    if any(mark(cell.effect.paper_status) for cell in table.cells if cell.effect):
        notes.append(MEMORY_NOTE)
    return tuple(dict.fromkeys([*notes, *row_notes(table)]))
