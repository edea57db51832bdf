"""Beside the paper: the scoreboard of every effect, and tables in the paper's own shape."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, stdev
from typing import TYPE_CHECKING

from harness.analysis.findings import (
    CANNOT_TEST,
    GLYPHS,
    NO_DIFFERENCE,
    UNDECIDED,
    CellFinding,
    Effect,
    Findings,
    Settings,
    TableFinding,
    can_be,
)
from harness.analysis.verdicts import metric_name, size_text
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.sections.tables import effect_digits, level_digits, other_metric
from harness.spec import ACCURACIES, FINISHED
from harness.study import conditions

if TYPE_CHECKING:
    from pandas import DataFrame


KEY = "scoreboard"
LINES_OF_A_PAGE = 72  # rows and titles of one figure: what stands on a first page beside the answer
MOST_PAGES = 4
FAR = 4.0  # times the typical reach, from which on a row would stretch the axis for all others
CONTINUED = " (continued)"
FRAGILE, EXPLORATORY = "*", "‡"
_BRIEF = {NO_DIFFERENCE: "no difference"}


def boards(findings: Findings) -> list[doc.Board]:
    """The scoreboard in parts that fit on a page each; none where nothing is compared."""
    panels = [panel for table in findings.tables for panel in panels_of(table, findings.settings)]
    if not panels:
        return []
    low, high = axis([line for panel in panels for line in panel.lines], findings.settings)
    unit = "pp" if findings.settings.in_percent else metric_name(findings.settings.metric)
    band = findings.settings.smallest_effect_pp
    return [
        doc.Board(panels=tuple(part), low=low, high=high, band=band, unit=unit)
        for part in pages(panels)[:MOST_PAGES]
    ]


def is_scoreboard(key: str) -> bool:
    """Whether a figure is (a part of) the scoreboard."""
    return re.fullmatch(rf"{KEY}(_\d+)?", key) is not None


def panels_of(table: TableFinding, settings: Settings) -> list[doc.ScorePanel]:
    """The effects of a table, those of each of its columns under their own title."""
    panels: list[doc.ScorePanel] = []
    name = doc.table_name(table)
    # "Table 4" is known from the paper; a key that only the study's file has says nothing to a reader.
    short = name if name == table.title else doc.short_name(table.key)
    for column in table.columns:
        cells = [cell for cell in table.cells if cell.column == column and cell.effect is not None]
        if cells:
            title = name if column is None else f"{short}, {column}"
            lines = tuple(_line(cell, cell.effect, settings) for cell in cells if cell.effect is not None)
            panels.append(doc.ScorePanel(title, lines))
    return panels


def pages(panels: Sequence[doc.ScorePanel]) -> list[list[doc.ScorePanel]]:
    """Parts of at most `LINES_OF_A_PAGE` rows and titles; a table that is longer is cut."""
    parts: list[list[doc.ScorePanel]] = [[]]
    room = LINES_OF_A_PAGE
    for panel in panels:
        lines, title = panel.lines, panel.title
        while lines:
            if room < min(len(lines), 4) + 1:
                parts.append([])
                room = LINES_OF_A_PAGE
            here, lines = lines[: room - 1], lines[room - 1 :]
            parts[-1].append(doc.ScorePanel(title, here))
            room -= len(here) + 1
            title = panel.title + CONTINUED
    return [part for part in parts if part]


def axis(lines: Sequence[doc.ScoreLine], settings: Settings) -> tuple[float, float]:
    """From where to where the effects are drawn: without rows that would stretch it for all others."""
    values = [_values(line) for line in lines]
    reaches = [max(map(abs, each)) for each in values if each]
    most = FAR * max(median(reaches), settings.smallest_effect_pp) if reaches else 1.0
    kept = [value for each in values for value in each if abs(value) <= most]
    delta = settings.smallest_effect_pp
    low, high = min([*kept, -1.2 * delta]), max([*kept, 1.2 * delta])
    margin = 0.03 * (high - low) or 1.0
    return low - margin, high + margin


def caption(findings: Findings, parts: Sequence[doc.Board]) -> str:
    """How to read it, where the axis was cut, and what has no room on it."""
    settings, lines = findings.settings, [line for part in parts for line in part.lines()]
    delta = size_text(settings.smallest_effect_pp, settings)
    unit = "percentage points" if settings.in_percent else "its own units"
    words = [
        f"Effect of every row on {metric_name(settings.metric)}, in {unit}: dot and 95 % interval; thin "
        "line: the interval after Holm's correction, which decides the verdict."
    ]
    if any(line.paper is not None for line in lines):
        words.append("Hollow diamond: the paper's effect, in its own setting.")
    words.append(f"Grey band: ±{delta}, the smallest effect of interest.")
    if any(line.verdict == CANNOT_TEST for line in lines):
        words.append("Grey rows (∅) cannot be tested here; the reason stands beside them.")
    words += _marks([line.says for line in lines])
    beyond = sum(any(map(parts[0].is_beyond, _values(line))) for line in lines)
    if beyond:
        ends = f"{num.number(parts[0].low, 0)} and {num.number(parts[0].high, 0)}"
        words.append(f"The axis is cut at {ends}: {num.count(beyond, 'row')} beyond it (arrows).")
    total = sum(cell.effect is not None for table in findings.tables for cell in table.cells)
    if total > len(lines):
        words.append(f"The first {len(lines):,} of {total:,} rows; the tables have all of them.")
    return " ".join(words)


def _marks(says: Sequence[str]) -> list[str]:
    """What the signs beside words mean, where they occur."""
    more = re.search(r"\(\+([\d,]+)\)", " ".join(says))
    seeds = "seed" if more and more[1] == "1" else "seeds"
    meanings = {
        "(+": f"{more[0]}: about {more[1]} more {seeds} would settle the row." if more else "",
        FRAGILE: f"{FRAGILE}: fragile, see the method.",
        EXPLORATORY: f"{EXPLORATORY}: exploratory, not declared before results were there.",
    }
    return [text for sign, text in meanings.items() if any(sign in each for each in says)]


def alt(board: doc.Board) -> str:
    """Every row of it in words."""
    parts = []
    for panel in board.panels:
        parts.append(f"{panel.title}:")
        for line in panel.lines:
            paper = "" if line.paper is None else f" (paper {num.signed(line.paper)})"
            parts.append(f"{line.label} {line.effect} {line.says}{paper};")
    return f"Effects by row, {board.unit}. " + " ".join(parts).rstrip(";") + "."


def only(board: doc.Board, panels: Sequence[doc.ScorePanel]) -> doc.Board:
    """The same axis with other panels."""
    return replace(board, panels=tuple(panels))


def _line(cell: CellFinding, effect: Effect, settings: Settings) -> doc.ScoreLine:
    digits = effect_digits(effect, settings)
    text = num.DASH
    if effect.estimate is not None:
        within = num.interval(effect.low, effect.high, digits)
        text = f"{num.signed(effect.estimate, digits)} {within}".strip()
    return doc.ScoreLine(
        label=cell.row,
        effect=text,
        says=_says(effect),
        verdict=effect.verdict,
        estimate=effect.estimate,
        low=effect.low,
        high=effect.high,
        paper=effect.paper,
        target=doc.arm_target(cell.arm_id),
        adjusted=_pair(effect.adjusted_low, effect.adjusted_high),
    )


def _pair(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)


def _says(effect: Effect) -> str:
    """Glyph, word, and what limits it in as few words as there is room for."""
    glyph, word = GLYPHS[effect.verdict], effect.verdict
    if word == CANNOT_TEST:
        return f"{glyph} {conditions.in_short(effect.qualifier) or 'cannot be tested'}"
    more = f" (+{effect.more_seeds:,})" if word == UNDECIDED and effect.more_seeds else ""
    marks = FRAGILE * effect.fragile + EXPLORATORY * effect.exploratory
    return f"{glyph} {_BRIEF.get(word, word)}{marks}{more}"


def _values(line: doc.ScoreLine) -> list[float]:
    return [value for value in (line.estimate, line.low, line.high, line.paper) if value is not None]


# Tables in the paper's own shape: networks side by side, ours with its sd beside the printed value.


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
    values = _values_of(table, settings, records)
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


def _values_of(table: TableFinding, settings: Settings, records: DataFrame) -> Values:
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
        return doc.TextCell(num.DASH, "(no such row)")
    printed = doc.paper_text(cell.paper.get(metric))
    paper = f"({printed})" if printed else ""
    if cell.level is None:
        return doc.TextCell(num.DASH, paper or "(none)")
    ours, tone = _ours(cell, metric, settings, values), ""
    if ours is None:
        reason = "(no value)" if cell.level.lost or cell.level.mean is not None else "(not run)"
        ours, paper = num.DASH, paper or reason
    if metric == settings.metric and cell.effect is not None:
        ours, tone = f"{ours} {GLYPHS[cell.effect.verdict]}", cell.effect.verdict
    return doc.TextCell(ours, paper, tone, cell.level.mean if metric == settings.metric else None,
                        doc.arm_target(cell.arm_id))  # fmt: skip


def _ours(cell: CellFinding, metric: str, settings: Settings, values: Values) -> str | None:
    """Mean ± sd; None where there is no value."""
    level = cell.level
    assert level is not None
    digits = level_digits(level, settings) if settings.in_percent else num.MOST_DIGITS
    mean, sd = level.secondary.get(metric), None
    if metric == settings.metric:
        mean, sd, digits = level.mean, level.sd, level_digits(level, settings)
    elif len(found := values.get((cell.arm_id or "", metric), ())) == level.n > 1:
        sd = stdev(found)
    if mean is None:
        return None
    return num.number(mean, digits) + ("" if sd is None else f" ± {num.number(sd, digits)}")


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
