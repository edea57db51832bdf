r"""How wide the columns of a LaTeX table are, so that it fits into \linewidth of an article."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.reporting.cells import NUMBER, TEXT, Cell, Column, Table

LINE_WIDTH_PT, PAGE_HEIGHT_PT = 345.0, 480.0  # of \documentclass{article}, less what a float keeps free
COLUMN_GAP_PT = 7.0  # twice \tabcolsep
FEWEST_LINES = 12  # of rows on a page, whatever the notes need
# of Computer Modern at 10 pt, in em: what is not listed here is a lower-case letter
_WIDTHS = (("0123456789", 0.5), ("−±+=×≈→", 0.78), (".,:;'il|", 0.28), ("()[]-ftrIj/ ", 0.4), ("—", 1.0),
           ("mwMW%▲▼", 0.83))  # fmt: skip
_EM = {character: em for characters, em in _WIDTHS for character in characters}
LOWER_EM, UPPER_EM = 0.53, 0.72
BOLD_EXTRA = 1.03  # safety: kerning and rounding
MOST_LINES = 4  # of one row, where another style can do better
LONGEST_DETAIL = 14  # characters of a remark inside a cell; longer ones become notes


@dataclass(frozen=True, slots=True)
class Style:
    """A type size, and whether intervals stand below their estimates."""

    size: str
    points: float  # of an em of Computer Modern at this size: small sizes are relatively wider
    line_pt: float
    stacked: bool


STYLES = (
    Style("small", 9.25, 11.0, False),
    Style("footnotesize", 8.5, 9.5, False),
    Style("footnotesize", 8.5, 9.5, True),
    Style("scriptsize", 8.0, 8.0, True),
)
NOTES = STYLES[1]


@dataclass(frozen=True, slots=True)
class Layout:
    """The first style in which the table fits, and the width of every column in points."""

    style: Style
    widths: tuple[float, ...]
    wraps: tuple[bool, ...]


def text_width(text: str, style: Style) -> float:
    """About how wide a text is set, in points."""
    em = sum(_EM.get(char, UPPER_EM if char.isupper() else LOWER_EM) for char in text)
    return em * style.points * BOLD_EXTRA


def is_interval(text: str) -> bool:
    """Whether a second line is (or starts with) an interval."""
    return text.startswith("[")


def in_cell(cell: Cell, column: Column, *, first: bool) -> str:
    """What of the second line is shown in the cell; the rest is a note, as are words below numbers."""
    short = first or is_interval(cell.detail) or len(cell.detail) <= LONGEST_DETAIL
    if column.kind == NUMBER and not re.match(r"\(.*\d|\[", cell.detail):
        return ""
    return cell.detail if short else ""


def lay_out(table: Table) -> Layout:
    """The first style in which the table fits and no row gets too tall; the last where it fits in none."""
    candidates = [_laid_out(table, style) for style in STYLES]
    fitting = [each for each in candidates if sum(each.widths) <= _room(table)] or candidates[-1:]
    tallest = [max(line_counts(table, each), default=1) for each in fitting]
    enough = max(min(tallest), MOST_LINES)
    return next(each for each, lines in zip(fitting, tallest, strict=True) if lines <= enough)


def _laid_out(table: Table, style: Style) -> Layout:
    widths = _widths(table, style)
    natural = [_natural(table, index, style) for index in range(len(table.columns))]
    return Layout(style, tuple(widths), tuple(w < n - 0.5 for w, n in zip(widths, natural, strict=True)))


def head_lines(column: Column, shown_detail: bool, width: float, style: Style) -> list[str]:
    """A column's title in lines that are no wider than the column, as far as words allow."""
    title = f"{column.title} ({column.detail_title})" if shown_detail else column.title
    lines: list[str] = []
    for word in re.split(r" (?!%|CI)", title):
        if lines and text_width(f"{lines[-1]} {word}", style) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def shows_detail(table: Table, index: int) -> bool:
    """Whether any cell of the column shows its second line in the cell, and the title should name it."""
    column = table.columns[index]
    details = (in_cell(row.cells[index], column, first=index == 0) for row in table.rows)
    return bool(column.detail_title) and any(text and not text.startswith("(") for text in details)


def _room(table: Table) -> float:
    return LINE_WIDTH_PT - COLUMN_GAP_PT * (len(table.columns) - 1)


def _widths(table: Table, style: Style) -> list[float]:
    """Numbers as wide as they are; texts share what is left, at least as wide as their longest word."""
    columns = range(len(table.columns))
    widths = [_natural(table, index, style) for index in columns]
    texts = [index for index in columns if table.columns[index].kind == TEXT]
    least = {index: _least(table, index, style) for index in texts}
    left = _room(table) - sum(width for index, width in enumerate(widths) if index not in least)
    shared = dict.fromkeys(texts, 0.0)
    free = set(texts)
    while free:  # a column that needs less than its share, or more for a word, leaves the sharing
        roots = {index: widths[index] ** 0.75 for index in free}
        shared |= {index: left * roots[index] / sum(roots.values()) for index in free}
        fixed = {i for i in free if shared[i] >= widths[i]} or {i for i in free if shared[i] < least[i]}
        if not fixed:
            break
        for index in fixed:
            shared[index] = min(widths[index], max(shared[index], least[index]))
            left -= shared[index]
        free -= fixed
    return [shared.get(index, width) for index, width in enumerate(widths)]


def _natural(table: Table, index: int, style: Style) -> float:
    column = table.columns[index]
    words = max(text_width(word, style) for word in re.split(r" (?!%|CI)", column.title))
    texts = (text for row in table.rows for text in _lines(row.cells[index], column, index, style.stacked))
    return max([words, *(text_width(text, style) for text in texts)])


def _lines(cell: Cell, column: Column, index: int, stacked: bool) -> Iterator[str]:
    detail = in_cell(cell, column, first=index == 0)
    mark = "a" * (detail != cell.detail)
    if stacked and column.kind != TEXT:
        yield from (cell.text + mark, detail)
    else:
        yield f"{cell.text} {detail}".strip() + mark


def _least(table: Table, index: int, style: Style) -> float:
    column = table.columns[index]
    texts = [
        column.title,
        *(f"{r.cells[index].text} {in_cell(r.cells[index], column, first=index == 0)}" for r in table.rows),
    ]
    words = (word for text in texts for word in re.split(r"(?<=[-/])|(?<![?▲▼≈≠✓✗—])\s", text) if word)
    return max((text_width(word, style) for word in words), default=0.0) + style.points / 2


def line_counts(table: Table, layout: Layout) -> Sequence[int]:
    """About how many lines each row needs."""
    counts = []
    for row in table.rows:
        needs = [1]
        for index, column in enumerate(table.columns):
            texts = list(_lines(row.cells[index], column, index, layout.style.stacked))
            if layout.wraps[index]:
                needs.append(-int(-1.15 * text_width(texts[0], layout.style) // layout.widths[index]))
            needs.append(sum(bool(text) for text in texts))
        counts.append(max(needs))
    return counts


def rows_room(table: Table, layout: Layout) -> int:
    """How many lines of rows a page holds beside caption, notes and the lines between groups."""
    remarks = {row.cells[i].detail for row in table.rows for i in range(len(table.columns))}
    written = [text for text in remarks if len(text) > LONGEST_DETAIL and not is_interval(text)]
    paragraphs = [*written, *table.notes, f"{table.title}{table.caption}"]
    below = sum(1 + text_width(text, NOTES) // LINE_WIDTH_PT for text in paragraphs) * NOTES.line_pt
    between = 2 * len(table.groups()) + 4  # rules, groups and titles
    return max(int((PAGE_HEIGHT_PT - below) / layout.style.line_pt) - between, FEWEST_LINES)
