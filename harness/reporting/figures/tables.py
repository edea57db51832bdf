"""Figures with a line for every row of a table: the scoreboard, and the paper's values beside ours."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator

from harness.analysis.findings import CANNOT_TEST, NOT_EVALUABLE, CellFinding, Findings
from harness.analysis.verdicts import metric_name
from harness.reporting.document import Board, ScoreLine, ScorePanel, cell_name
from harness.reporting.figures.curves import right_labels
from harness.reporting.figures.style import (
    FAINT,
    GREY,
    INK,
    LINES,
    WIDTH_IN,
    new_figure,
    verdict_colour,
)
from harness.reporting.numbers import number, signed
from harness.reporting.sections.paper import CONTINUED, only

# Figures with a line for every row of every table: one panel per table, as many panels as fit on a page.


PANEL_ROW_IN, PANEL_IN, PANEL_FRAME_IN = 0.172, 0.48, 0.22
TITLE_IN, PAD_IN = 0.21, 0.1
PAGE_IN = 8.9  # of one figure: what fits on a page with its caption
ROW_CHARS, TITLE_CHARS = 38, 110
MOST_CHARS = 200  # of a text that is measured


@dataclass(frozen=True, slots=True)
class RowLine:
    """A row of a table, with what is drawn for it and what is written at its right; or a heading."""

    label: str
    item: Any = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One table."""

    title: str
    lines: tuple[RowLine, ...]


def with_headings(lines: Sequence[tuple[str | None, RowLine]]) -> tuple[RowLine, ...]:
    """Pairs of a column and a line, in order: a heading is put before the lines of every named column."""
    out: list[RowLine] = []
    column: str | None = None
    for name, line in lines:
        if name is not None and name != column:
            out.append(RowLine(name))
        column = name
        out.append(line)
    return tuple(out)


def row_pages(panels: Sequence[Panel]) -> list[list[Panel]]:
    """The panels in figures that fit on a page, cut before a heading where possible."""
    most = int((PAGE_IN - PANEL_FRAME_IN - PANEL_IN) / PANEL_ROW_IN)
    pages: list[list[Panel]] = []
    room = 0.0
    for panel in panels:
        for k, lines in enumerate(_groups(panel.lines, most)):
            joins = k > 0 and PANEL_ROW_IN * len(lines) <= room
            part = replace(panel, title=panel.title + CONTINUED * (k > 0), lines=lines)
            if joins:
                last = pages[-1].pop()
                pages[-1].append(replace(last, lines=last.lines + lines))
                room -= PANEL_ROW_IN * len(lines)
                continue
            if not pages or _height(part) > room:
                pages.append([])
                room = PAGE_IN - PANEL_FRAME_IN
            pages[-1].append(part)
            room -= _height(part)
    return pages


Drawer = Callable[[Axes, Sequence[int], Sequence[Any]], None]


def draw_rows(page: Sequence[Panel], draw: Drawer, label: str) -> Figure:
    """One panel below the other. `draw` puts a panel's items at their lines; `label` names the axis below."""
    height = PANEL_FRAME_IN + sum(map(_height, page))
    figure = new_figure(height)
    figure.set_layout_engine("none")  # finding the layout of many panels would take as long as drawing them
    left = PAD_IN + _widest_in(figure, [_shown(line) for panel in page for line in panel.lines])
    right = WIDTH_IN - PAD_IN - _widest_in(figure, [line.text for panel in page for line in panel.lines])
    top = height
    for panel in page:
        room = PANEL_ROW_IN * len(panel.lines)
        bottom = top - TITLE_IN - room
        box = (left / WIDTH_IN, bottom / height, (right - left) / WIDTH_IN, room / height)
        ax = figure.add_axes(box)
        top -= _height(panel)
        ax.set_ylim(len(panel.lines) - 0.4, -0.6)
        items = [(place, line.item) for place, line in enumerate(panel.lines) if line.item is not None]
        draw(ax, [place for place, _ in items], [item for _, item in items])
        _label_rows(ax, panel)
    ax.set_xlabel(label)
    return figure


def _widest_in(figure: Figure, texts: Sequence[str]) -> float:
    """The width of the longest text at the size of row labels, in inches."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    font = FontProperties(size=float(rcParams["ytick.labelsize"]), weight="bold")
    widths = [renderer.get_text_width_height_descent(text, font, False)[0] for text in texts]
    return float(max(widths, default=0.0)) / figure.get_dpi()


def _shown(line: RowLine) -> str:
    return textwrap.shorten(line.label, ROW_CHARS, placeholder=" ...")


def _label_rows(ax: Axes, panel: Panel) -> None:
    places = list(range(len(panel.lines)))
    ax.set_yticks(places, [_shown(line) for line in panel.lines])
    for tick, line in zip(ax.get_yticklabels(), panel.lines, strict=True):
        if line.item is None:
            tick.set_fontweight("bold")
    ax.tick_params(axis="y", length=0)
    ax.set_title(textwrap.shorten(panel.title, TITLE_CHARS, placeholder=" ..."), loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(7))
    ax.grid(axis="x", color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)
    right_labels(ax, [float(place) for place in places], [line.text for line in panel.lines])


def _height(panel: Panel) -> float:
    return PANEL_IN + PANEL_ROW_IN * len(panel.lines)


def _groups(lines: tuple[RowLine, ...], most: int) -> list[tuple[RowLine, ...]]:
    """The lines in parts of at most `most`, each heading with what follows it."""
    groups: list[list[RowLine]] = []
    for line in lines:
        if line.item is None or not groups or len(groups[-1]) == most:
            groups.append([])
        groups[-1].append(line)
    return [tuple(group) for group in groups]


# The scoreboard: which row changed the accuracy, by how much, how sure, and what the paper saw.


BOARD_ROW_IN, BOARD_TITLE_IN, BOARD_AXIS_IN, BOARD_GAP_IN = 0.16, 0.225, 0.36, 0.14
FEW_LINES = 24  # rows and titles that stand in one column, with their numbers
PLOT_IN = 0.85  # least width of the axis
BOARD_PT = 7.5
GREYED = "#6B6B6B"
LABEL_SHARE = 0.36  # most of a column that labels may take
SLACK_IN = 0.02


@dataclass(frozen=True, slots=True)
class _Place:
    """One column of the figure, in inches: labels from `left`, the axis, the words."""

    left: float
    plot: float
    plot_end: float
    numbers: float
    words: float
    right: float


def draw_board(board: Board, title: bool = True) -> Figure:
    """One column of tables, or two where there are many rows. `title`: whether tables have one."""
    columns = _board_columns(board)
    heights = [_column_in(panels, title) for panels in columns]
    height = max(heights) + BOARD_AXIS_IN + PAD_IN
    figure = new_figure(height)
    # One plane, in inches: an axes for each table would take seconds.
    figure.set_layout_engine("none")
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_xlim(0, WIDTH_IN)
    ax.set_ylim(height, 0)
    ax.set_axis_off()
    width = (WIDTH_IN - 2 * BOARD_GAP_IN * (len(columns) - 1)) / len(columns)
    for k, panels in enumerate(columns):
        left = k * (width + 2 * BOARD_GAP_IN)
        shown = only(board, panels)
        place = _board_place(shown, (left, left + width), numbers=len(columns) == 1)
        _draw_column(ax, shown, place, title)
    return figure


def _column_in(panels: Sequence[ScorePanel], title: bool) -> float:
    return sum(BOARD_TITLE_IN * title + BOARD_ROW_IN * len(panel.lines) for panel in panels)


def _board_columns(board: Board) -> list[list[ScorePanel]]:
    """The tables in one column, or in two of about equal height; a table is cut where that is worth it."""
    panels = list(board.panels)
    if len(board.lines()) + len(panels) <= FEW_LINES:
        return [panels]
    cuts = [(panels[:k], panels[k:]) for k in range(1, len(panels))]
    for k, panel in enumerate(panels):
        for at in range(3, len(panel.lines) - 2):
            rest = ScorePanel(panel.title + CONTINUED, panel.lines[at:])
            cuts.append(([*panels[:k], replace(panel, lines=panel.lines[:at])], [rest, *panels[k + 1 :]]))
    whole = len(panels) - 1

    def worth(k: int) -> float:
        """The height of the figure; a table that is cut counts as four rows."""
        return max(_column_in(part, True) for part in cuts[k]) + 4 * BOARD_ROW_IN * (k >= whole)

    return list(cuts[min(range(len(cuts)), key=worth)])


def _board_place(board: Board, ends: tuple[float, float], *, numbers: bool) -> _Place:
    """What labels and words need; the axis has the rest."""
    left, right = ends
    lines = board.lines()
    label = min(_text_in([line.label for line in lines]), LABEL_SHARE * (right - left))
    words = _text_in([line.says for line in lines])
    effects = _text_in([line.effect for line in lines]) + 0.12 if numbers else 0.0
    most = right - left - label - PLOT_IN - effects - 0.2
    words = min(words, most)
    start = right - words - effects
    return _Place(left, left + label + 0.1, start - 0.1, start, right - words, right)


def _draw_column(ax: Axes, board: Board, place: _Place, title: bool) -> None:
    y = PAD_IN
    for panel in board.panels:
        if title:
            y += BOARD_TITLE_IN
            text = cut_to(panel.title, place.right - place.left, bold=True)
            ax.text(place.left, y - 0.045, text, fontsize=BOARD_PT, fontweight="bold", va="bottom")
        end = y + BOARD_ROW_IN * len(panel.lines)
        _draw_scale(ax, board, place, (y, end))
        for line in panel.lines:
            _draw_line(ax, board, place, (y + BOARD_ROW_IN / 2, line))
            y += BOARD_ROW_IN
    _draw_ticks(ax, board, place, y)


def _at(board: Board, place: _Place, value: float) -> float:
    return place.plot + board.share(value) * (place.plot_end - place.plot)


def _draw_scale(ax: Axes, board: Board, place: _Place, ends: tuple[float, float]) -> None:
    """The band of effects that do not matter, and the line of none."""
    band = [_at(board, place, -board.band), _at(board, place, board.band)]
    ax.fill_between(band, ends[0], ends[1], color="#EAEAEA", linewidth=0, zorder=0)
    zero = _at(board, place, 0.0)
    ax.plot([zero, zero], ends, color=GREY, linewidth=0.7, zorder=1)


def _draw_line(ax: Axes, board: Board, place: _Place, what: tuple[float, ScoreLine]) -> None:
    y, line = what
    is_grey = line.verdict in (CANNOT_TEST, NOT_EVALUABLE)
    colour = "#8E8E8E" if is_grey else verdict_colour(line.verdict, INK)
    ink = GREYED if is_grey else INK
    words = GREYED if is_grey else verdict_colour(line.verdict, INK)
    size: dict[str, Any] = {"fontsize": BOARD_PT, "va": "center_baseline"}
    label = cut_to(line.label, place.plot - 0.08 - place.left)
    ax.text(place.left, y, label, color=ink, **size)
    style = (0, (2, 1.2)) if is_grey else "-"
    if line.adjusted is not None:
        ends = [_at(board, place, end) for end in line.adjusted]
        ax.plot(ends, [y, y], color=colour, linewidth=0.7, linestyle=style)
    if line.low is not None and line.high is not None:
        ends = [_at(board, place, line.low), _at(board, place, line.high)]
        ax.plot(ends, [y, y], color=colour, linewidth=1.6, linestyle=style, solid_capstyle="butt", zorder=3)
        for end in filter(board.is_beyond, (line.low, line.high)):
            _mark(ax, board, place, (y, end), "o", color=colour)
    if line.paper is not None:
        _mark(ax, board, place, (y, line.paper), "D", markerfacecolor="white", markeredgecolor=ink)
    if line.estimate is not None:
        _mark(ax, board, place, (y, line.estimate), "o", color=colour)
    if place.numbers < place.words:
        ax.text(place.words - 0.12, y, line.effect, color=ink, ha="right", **size)
    ax.text(place.words, y, cut_to(line.says, place.right - place.words), color=words, **size)


def _mark(ax: Axes, board: Board, place: _Place, at: tuple[float, float], shape: str, **style: Any) -> None:
    """A mark at a value; an arrow at the end of the axis where the value lies beyond it."""
    y, value = at
    if board.is_beyond(value):
        shape = "<" if value < board.low else ">"
    ax.plot(_at(board, place, value), y, shape, markersize=3.6, markeredgewidth=0.7, zorder=4, **style)


def _draw_ticks(ax: Axes, board: Board, place: _Place, y: float) -> None:
    ticks = [tick for tick in MaxNLocator(4).tick_values(board.low, board.high) if not board.is_beyond(tick)]
    ax.plot([place.plot, place.plot_end], [y + 0.03] * 2, color=GREY, linewidth=0.7)
    for tick in ticks:
        x = _at(board, place, tick)
        ax.plot([x, x], [y + 0.03, y + 0.06], color=GREY, linewidth=0.7)
        text = signed(tick, None) if tick else "0"
        ax.text(x, y + 0.08, text, fontsize=7, ha="center", va="top", color=INK)
    ax.text(place.plot_end, y + 0.21, f"effect, {board.unit}", fontsize=7, ha="right", va="top", color=INK)


def _text_in(texts: Sequence[str], *, bold: bool = False) -> float:
    """The width of the longest text of a scoreboard, in inches."""
    font = FontProperties(family=rcParams["font.family"], size=BOARD_PT, weight="bold" if bold else "normal")
    widths = (TextToPath().get_text_width_height_descent(text, font, ismath=False)[0] for text in texts)
    return float(max(widths, default=0.0)) / 72


def cut_to(text: str, width_in: float, *, bold: bool = False) -> str:
    """As much of a text as there is room for."""
    if _text_in([text[:MOST_CHARS]], bold=bold) <= width_in + SLACK_IN and len(text) <= MOST_CHARS:
        return text
    low, high = 0, min(len(text), MOST_CHARS)
    while low < high:
        middle = (low + high + 1) // 2
        fits = _text_in([text[:middle].rstrip() + "…"], bold=bold) <= width_in
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip() + "…"


# The paper's values beside ours, where the setting is the same.


PAPER_ROW_IN, PAPER_FRAME_IN = 0.27, 0.8
PAPER_CHARS = 44


def valued_cells(findings: Findings) -> list[CellFinding]:
    """The cells with a mean here and a value in the paper."""
    metric = findings.settings.metric
    return [
        cell
        for table in findings.tables
        for cell in table.cells
        if cell.level and cell.level.mean is not None and metric in cell.paper
    ]


def draw_values(findings: Findings, cells: list[CellFinding] | None = None) -> Figure | None:
    """Dumbbells of some cells (by default all), for a study in the paper's own setting."""
    cells = valued_cells(findings) if cells is None else cells
    if not cells:
        return None
    figure = new_figure(PAPER_FRAME_IN + PAPER_ROW_IN * len(cells))
    ax = figure.add_subplot()
    for place, cell in enumerate(cells):
        level, paper = cell.level, cell.paper[findings.settings.metric].value
        assert level is not None
        assert level.mean is not None
        ax.plot([paper, level.mean], [place, place], color=FAINT, linewidth=3, zorder=1)
        if level.low is not None and level.high is not None:
            ax.plot([level.low, level.high], [place, place], color=LINES[1], linewidth=1.2, zorder=2)
        ax.plot(paper, place, "D", markerfacecolor="white", markeredgecolor=INK, markersize=5, zorder=3)
        ax.plot(level.mean, place, "o", color=LINES[1], markersize=4.5, zorder=4)
    ax.set_yticks(range(len(cells)), [textwrap.shorten(cell_name(cell), PAPER_CHARS) for cell in cells])
    ax.set_ylim(len(cells) - 0.4, -0.6)
    ax.set_xlabel(f"{metric_name(findings.settings.metric)}{', %' * findings.settings.in_percent}")
    ax.grid(axis="x", color=FAINT, linewidth=0.5)
    return figure


MOST_VALUES = 30  # lines of one figure: what fits on a page
VALUES_CAPTION = "Values: ours (dot, bar: 95 % interval of the mean) and the paper's (hollow diamond)."


def values_alt(findings: Findings, cells: list[CellFinding] | None = None) -> str:
    """Every pair of values in words."""
    metric = findings.settings.metric
    parts = [
        f"{cell_name(cell)} ours {number(cell.level.mean)}, paper {number(cell.paper[metric].value)}"
        for cell in (valued_cells(findings) if cells is None else cells)
        if cell.level and cell.level.mean is not None
    ]
    return f"Values, ours and the paper's: {'; '.join(parts)}."
