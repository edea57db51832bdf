"""Tables in the paper's own shape: networks side by side, ours with its sd beside the printed value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import TYPE_CHECKING

from harness.analysis.findings import GLYPHS, CellFinding, Settings, TableFinding, can_be
from harness.analysis.verdicts import metric_name, size_text
from harness.reporting import document as doc
from harness.reporting.sections.tables import level_digits, other_metric
from harness.spec import ACCURACIES, FINISHED

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_CHARS, LABEL_CHARS = 108, 18  # of a page's width in a table's type; of labels, which wrap
FEWEST_CHARS = 15  # what a cell such as "78.17 ± 1.05 ?" needs


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a table has beside its rows: columns, and which metrics are shown in each."""

    columns: tuple[str | None, ...]
    metrics: tuple[str, ...]


def paper_tables(table: TableFinding, settings: Settings, records: DataFrame) -> list[doc.TextTable]:
    """One table; several below each other where it has more columns than fit on a page."""
    metrics = _metrics(table, settings)
    values = _values(table, settings, records)
    needed = FEWEST_CHARS
    for cell in table.cells:
        for name in metrics if cell.level else ():
            glyph = 2 * (name == settings.metric)
            needed = max(needed, len(_ours(cell, name, settings, values) or "") + glyph + 1)
    room = max(1, (MOST_CHARS - LABEL_CHARS) // (needed * len(metrics)))
    cuts = range(0, len(table.columns), room)
    shapes = [_Shape(table.columns[start : start + room], metrics) for start in cuts]
    return [_shaped(table, settings, (shape, values), part) for part, shape in enumerate(shapes)]


Values = Mapping[tuple[str, str], Sequence[float]]  # arm and metric -> one value a seed


def _values(table: TableFinding, settings: Settings, records: DataFrame) -> Values:
    """Of the other accuracy, whose spread the findings do not have; of the seeds that the findings count."""
    metric = other_metric(settings.metric)
    seeds = {cell.arm_id: set(cell.level.values) for cell in table.cells if cell.arm_id and cell.level}
    found: dict[tuple[str, str], dict[int, float]] = {}
    if metric in records:
        rows = records[["arm_id", "seed", "status", metric]].itertuples(index=False)
        for arm, seed, status, value in rows:
            if status == FINISHED and seed in seeds.get(arm, ()) and can_be(metric, value):
                found.setdefault((arm, metric), {})[seed] = value
    return {key: [values[seed] for seed in sorted(values)] for key, values in found.items()}


def _metrics(table: TableFinding, settings: Settings) -> tuple[str, ...]:
    """The study's metric, and the accuracies that the paper prints of the table, in the papers' order."""
    printed = {name for cell in table.cells for name in cell.paper}
    shown = [name for name in ACCURACIES if name in printed or name == settings.metric]
    return tuple(shown) if settings.metric in shown else (settings.metric, *shown)


def _shaped(table: TableFinding, settings: Settings, what: tuple[_Shape, Values], part: int) -> doc.TextTable:
    shape, values = what
    cells = {(cell.row, cell.column): cell for cell in table.cells}
    labels = list(dict.fromkeys(cell.row for cell in table.cells if cell.column in shape.columns))
    rows = []
    for label in labels:
        found = [cells.get((label, column)) for column in shape.columns]
        shown = [_cell(cell, name, settings, values) for cell in found for name in shape.metrics]
        target = next((doc.arm_target(cell.arm_id) for cell in found if cell and cell.arm_id), "")
        rows.append(doc.TextRow((doc.TextCell(label, target=target), *shown)))
    titles = [f"{metric_name(name)}{doc.percent_suffix(name)}" for name in shape.metrics]
    columns = [doc.TextColumn(title=title, kind=doc.SPREAD) for _ in shape.columns for title in titles]
    named = any(column is not None for column in shape.columns)
    spans = (("", 1), *((column or "", len(titles)) for column in shape.columns)) if named else ()
    return doc.TextTable(
        key=f"{table.key}_{part + 1}" if part else table.key,
        title=table.title + (" (continued)" if part else ""),
        caption=_caption(table, settings),
        columns=(doc.TextColumn(title="Row"), *columns),
        rows=tuple(rows),
        notes=_notes(table) if not part else (),
        spans=spans,
    )


def _cell(cell: CellFinding | None, metric: str, settings: Settings, values: Values) -> doc.TextCell:
    """For example "78.17 ± 1.05 ?" above "(77.91†)"."""
    if cell is None:
        return doc.TextCell(doc.DASH, "(no such row)")
    printed = doc.paper_text(cell.paper.get(metric))
    paper = f"({printed})" if printed else ""
    if cell.level is None:
        return doc.TextCell(doc.DASH, paper or "(none)")
    ours, tone = _ours(cell, metric, settings, values), ""
    if ours is None:
        reason = "(no value)" if cell.level.lost or cell.level.mean is not None else "(not run)"
        ours, paper = doc.DASH, paper or reason
    if metric == settings.metric and cell.effect is not None:
        ours, tone = f"{ours} {GLYPHS[cell.effect.verdict]}", cell.effect.verdict
    return doc.TextCell(ours, paper, tone, cell.level.mean if metric == settings.metric else None,
                        doc.arm_target(cell.arm_id))  # fmt: skip


def _ours(cell: CellFinding, metric: str, settings: Settings, values: Values) -> str | None:
    """Mean ± sd; None where there is no value."""
    level = cell.level
    assert level is not None
    digits = level_digits(level, settings) if settings.in_percent else doc.MOST_DIGITS
    mean, sd = level.secondary.get(metric), None
    if metric == settings.metric:
        mean, sd, digits = level.mean, level.sd, level_digits(level, settings)
    elif len(found := values.get((cell.arm_id or "", metric), ())) == level.n > 1:
        sd = stdev(found)
    if mean is None:
        return None
    return doc.number(mean, digits) + ("" if sd is None else f" ± {doc.number(sd, digits)}")


def _caption(table: TableFinding, settings: Settings) -> str:
    """What the cells hold, of how many seeds, and what the glyphs mean that occur."""
    words = dict.fromkeys(cell.effect.verdict for cell in table.cells if cell.effect)
    levels = [cell.level.n for cell in table.cells if cell.level is not None]
    n = Counter(levels).most_common(1)[0][0] if levels else 0
    legend = f"; {', '.join(f'{GLYPHS[word]} {word}' for word in words)}" if words else ""
    counted = f"n = {n}" if len(set(levels)) < 2 else f"n = {n} unless a note says otherwise"
    delta = size_text(settings.smallest_effect_pp, settings)
    least = f" Smallest effect of interest: {delta}." if words else ""
    printed = any(cell.paper for cell in table.cells)
    beside = " (the paper's value)" if printed else ""
    return f"Ours ± sd over seeds{beside}{legend}. {counted}.{least}"


def _notes(table: TableFinding) -> tuple[str, ...]:
    notes = [table.note] if table.note else []
    if any(doc.mark(value.status) for cell in table.cells for value in cell.paper.values()):
        notes.append(doc.MEMORY_NOTE)
    levels = [cell.level.n for cell in table.cells if cell.level is not None]
    usual = Counter(levels).most_common(1)[0][0] if levels else 0
    other: dict[int, list[str]] = {}
    for cell in table.cells:
        if cell.level is not None and cell.level.n != usual:
            other.setdefault(cell.level.n, []).append(doc.cell_name(cell))
    notes += [f"n = {n}: {', '.join(names)}." for n, names in sorted(other.items())]
    return tuple(notes)
