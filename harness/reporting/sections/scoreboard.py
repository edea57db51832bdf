"""The scoreboard: every effect of a study on one axis, beside the paper's, with its verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

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
)
from harness.analysis.verdicts import metric_name, size_text
from harness.reporting import document as doc
from harness.reporting.sections.tables import effect_digits
from harness.study import conditions

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
    for column in table.columns:
        cells = [cell for cell in table.cells if cell.column == column and cell.effect is not None]
        if cells:
            title = name if column is None else f"{doc.short_name(table.key)}, {column}"
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
        ends = f"{doc.number(parts[0].low, 0)} and {doc.number(parts[0].high, 0)}"
        words.append(f"The axis is cut at {ends}: {doc.count(beyond, 'row')} beyond it (arrows).")
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
            paper = "" if line.paper is None else f" (paper {doc.signed(line.paper)})"
            parts.append(f"{line.label} {line.effect} {line.says}{paper};")
    return f"Effects by row, {board.unit}. " + " ".join(parts).rstrip(";") + "."


def only(board: doc.Board, panels: Sequence[doc.ScorePanel]) -> doc.Board:
    """The same axis with other panels."""
    return replace(board, panels=tuple(panels))


def _line(cell: CellFinding, effect: Effect, settings: Settings) -> doc.ScoreLine:
    digits = effect_digits(effect, settings)
    text = doc.DASH
    if effect.estimate is not None:
        within = doc.interval(effect.low, effect.high, digits)
        text = f"{doc.signed(effect.estimate, digits)} {within}".strip()
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
