"""Figures with a line for every row of a table: forest plots, and the paper's numbers beside ours."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator

from harness.analysis.findings import GLYPHS, CellFinding, Effect, Findings, Settings, TableFinding
from harness.analysis.verdicts import metric_name, size_text
from harness.reporting.document import DASH, cell_name, count, interval, number, ordered, short_name, signed
from harness.reporting.figures.style import (
    FAINT,
    GREY,
    INK,
    LINES,
    WIDTH_IN,
    new_figure,
    right_labels,
    verdict_colour,
)
from harness.reporting.sections.tables import effect_digits

# Figures with a line for every row of every table: one panel per table, as many panels as fit on a page.


PANEL_ROW_IN, PANEL_IN, PANEL_FRAME_IN = 0.172, 0.48, 0.22
TITLE_IN, PAD_IN = 0.21, 0.1
PAGE_IN = 8.9  # of one figure: what fits on a page with its caption
ROW_CHARS, TITLE_CHARS = 38, 110
CONTINUED = " (continued)"


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


# Forest plot: which row changed the accuracy, by how much, how sure, and what the paper saw.


FOREST_ROW_IN, FOREST_FRAME_IN = 0.40, 0.95
FOREST_CHARS = 30
MOST_LINES = 20  # of one figure: what fits on a page
SEED_DOT_OFFSET = 0.24  # rows below the interval, so that dots do not hide it


@dataclass(frozen=True, slots=True)
class ForestLine:
    """One line of the plot: an effect, or the heading of a column of the table."""

    label: str
    effect: Effect | None


def lines_of(table: TableFinding) -> list[ForestLine]:
    """The effects in the order of the table, with a heading before each column of rows."""
    lines: list[ForestLine] = []
    column: str | None = None
    for cell in ordered(table):
        if cell.effect is None:
            continue
        if cell.column is not None and cell.column != column:
            lines.append(ForestLine(cell.column, None))
        column = cell.column
        lines.append(ForestLine(cell.row, cell.effect))
    return lines


def forest_pages(lines: list[ForestLine]) -> list[list[ForestLine]]:
    """The lines in figures of at most `MOST_LINES`, cut before a heading where possible."""
    groups: list[list[ForestLine]] = []
    for line in lines:
        if line.effect is None or not groups:
            groups.append([])
        groups[-1].append(line)
    pages: list[list[ForestLine]] = []
    for part in (piece for group in groups for piece in _pieces(group)):
        if pages and len(pages[-1]) + len(part) <= MOST_LINES:
            pages[-1].extend(part)
        else:
            pages.append(list(part))
    return pages


def _pieces(group: list[ForestLine]) -> list[list[ForestLine]]:
    """A group that is too long for one figure, cut; every piece has the group's heading."""
    heading = group[:1] if group[0].effect is None else []
    rows, most = group[len(heading) :], MOST_LINES - len(heading)
    return [[*heading, *rows[start : start + most]] for start in range(0, len(rows), most)]


def draw_forest(
    table: TableFinding, settings: Settings, lines: list[ForestLine] | None = None
) -> Figure | None:
    """The figure of some lines (by default all of them), or None where nothing is compared."""
    lines = lines_of(table) if lines is None else lines
    if not any(line.effect for line in lines):
        return None
    figure = new_figure(FOREST_FRAME_IN + FOREST_ROW_IN * len(lines))
    ax = figure.add_subplot()
    ax.set_ylim(len(lines) - 0.4, -0.6)
    delta = settings.smallest_effect_pp
    ax.axvspan(-delta, delta, color="#EDEDED", zorder=0, linewidth=0)
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    for place, line in enumerate(lines):
        if line.effect:
            _draw_effect(ax, place, line.effect)
    _label_forest(ax, lines, settings)
    unit = ", percentage points" if settings.in_percent else ""
    ax.set_xlabel(f"Effect on {metric_name(settings.metric)}{unit}")
    ax.grid(axis="x", color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)
    return figure


def forest_caption(table: TableFinding, settings: Settings) -> str:
    """What the marks mean."""
    memory = any(cell.effect and cell.effect.paper is not None for cell in table.cells)
    paper = " Hollow diamond: the paper's effect, in its own setting." if memory else ""
    delta = size_text(settings.smallest_effect_pp, settings)
    return (
        f"{table.title}: effect of each row. Large dot and thick bar: estimate and 95 % interval over "
        "re-training; thin line: the same after Holm's correction, which decides the verdict; "
        f"small dots: single seeds.{paper} Grey band: ±{delta}, the smallest effect of interest. "
        " ▲ helps, ▼ hurts, ≈ no detectable difference, ? undecided."
    )


def forest_alt(table: TableFinding, settings: Settings, lines: list[ForestLine] | None = None) -> str:
    """Every effect of the plot in words."""
    parts = []
    for line in lines_of(table) if lines is None else lines:
        if line.effect is None:
            parts.append(f"{line.label}:")
        elif line.effect.estimate is None:
            parts.append(f"{line.label} {line.effect.verdict};")
        else:
            effect = line.effect
            paper = "" if effect.paper is None else f" (paper {signed(effect.paper)})"
            unit = " pp" if settings.in_percent else ""
            parts.append(f"{line.label} {_numbers(effect, settings)}{unit}, {effect.verdict}{paper};")
    return "Effects by row. " + " ".join(parts).rstrip(";") + "."


def _numbers(effect: Effect, settings: Settings) -> str:
    if effect.estimate is None:
        return DASH
    digits = effect_digits(effect, settings)
    return f"{signed(effect.estimate, digits)} {interval(effect.low, effect.high, digits)}".strip()


def _draw_effect(ax: Axes, place: int, effect: Effect) -> None:
    colour = verdict_colour(effect.verdict)
    below = place + SEED_DOT_OFFSET
    dots = list(effect.differences.values())
    ax.plot(dots, [below] * len(dots), "o", color=colour, markersize=2.6, alpha=0.75, zorder=2, linewidth=0)
    if effect.low is not None and effect.high is not None:
        ax.plot([effect.low, effect.high], [place, place], color=colour, linewidth=2.4, zorder=3,
                solid_capstyle="butt")  # fmt: skip
    if effect.adjusted_low is not None and effect.adjusted_high is not None:
        ends = [effect.adjusted_low, effect.adjusted_high]
        ax.plot(ends, [place, place], color=colour, linewidth=0.9, marker="|", markersize=5, zorder=3)
    if effect.paper is not None:
        ax.plot(
            effect.paper, place, "D", markerfacecolor="white", markeredgecolor=INK, markersize=5.5, zorder=4
        )
    if effect.estimate is not None:
        ax.plot(effect.estimate, place, "o", color=colour, markersize=5, zorder=5)


def _label_forest(ax: Axes, lines: list[ForestLine], settings: Settings) -> None:
    places = list(range(len(lines)))
    ax.set_yticks(places, [textwrap.fill(line.label, FOREST_CHARS) for line in lines])
    ax.tick_params(axis="y", length=0)
    for tick, line in zip(ax.get_yticklabels(), lines, strict=True):
        if line.effect is None:
            tick.set_fontweight("bold")
    texts = [
        f"{GLYPHS[line.effect.verdict]} {_numbers(line.effect, settings)}" if line.effect else ""
        for line in lines
    ]
    twin = right_labels(ax, [float(place) for place in places], texts)
    for tick, line in zip(twin.get_yticklabels(), lines, strict=True):
        if line.effect:
            tick.set_color(verdict_colour(line.effect.verdict))


# The paper's numbers beside ours: effects where the setting differs, values where it is the same.


MARKERS = "osD^vP*X"
SCATTER_IN = 4.0
PAPER_ROW_IN, PAPER_FRAME_IN = 0.27, 0.8
PAPER_CHARS = 44
MARGIN = 0.08


@dataclass(frozen=True, slots=True)
class PaperPoint:
    """One effect that the paper also has. `series` is the position of its table."""

    series: int
    label: str
    effect: Effect

    @property
    def ours(self) -> float:
        assert self.effect.estimate is not None
        return self.effect.estimate

    @property
    def paper(self) -> float:
        assert self.effect.paper is not None
        return self.effect.paper


def points_of(findings: Findings) -> list[PaperPoint]:
    """Every effect with an estimate here and in the paper."""
    return [
        PaperPoint(index, cell_name(cell), cell.effect)
        for index, table in enumerate(findings.tables)
        for cell in table.cells
        if cell.effect and cell.effect.estimate is not None and cell.effect.paper is not None
    ]


def draw_effects(findings: Findings) -> Figure | None:
    """Scatter of effects: the paper's across, ours up, with our 95 % intervals."""
    points = points_of(findings)
    if not points:
        return None
    figure = new_figure(SCATTER_IN)
    ax = figure.add_subplot()
    ax.axhspan(
        -findings.settings.smallest_effect_pp, findings.settings.smallest_effect_pp, color="#EDEDED", lw=0
    )
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.axvline(0, color=GREY, linewidth=0.8)
    _frame(ax, points)
    ax.axline((0, 0), slope=1, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    for index, table in enumerate(findings.tables):
        mine = [point for point in points if point.series == index]
        if mine:
            _draw_series(ax, mine, short_name(table.key))
    metric = f"{metric_name(findings.settings.metric)}{', pp' * findings.settings.in_percent}"
    ax.set_xlabel(f"The paper's effect on {metric}")
    ax.set_ylabel(f"Our effect on {metric}")
    ax.grid(color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)
    figure.legend(loc="outside right upper", frameon=False, title="Effects in", alignment="left")
    return figure


def effects_caption(findings: Findings) -> str:
    """How to read the scatter, with the count of agreeing signs."""
    agree, total = sign_agreement(findings)
    delta = size_text(findings.settings.smallest_effect_pp, findings.settings)
    return (
        "Effects: the paper's and ours, each in its own setting. Bar: our 95 % interval. Dashed line: equal "
        f"effects. Grey band: ±{delta}, the smallest effect of interest. "
        "Filled: the paper's value is verified; hollow: from memory. "
        f"{agree} of {count(total, 'effect')} have the paper's sign."
    )


def effects_alt(findings: Findings) -> str:
    """The scatter in words."""
    agree, total = sign_agreement(findings)
    far = sorted(points_of(findings), key=lambda point: -abs(point.ours - point.paper))[:3]
    names = "; ".join(f"{p.label} ours {number(p.ours)}, paper {number(p.paper)}" for p in far)
    return (
        f"Scatter of {count(total, 'effect')}, ours against the paper's: {agree} with the same sign. "
        f"Farthest apart: {names}."
    )


def sign_agreement(findings: Findings) -> tuple[int, int]:
    """How many effects have the paper's sign, and of how many."""
    points = points_of(findings)
    return sum(point.ours * point.paper > 0 for point in points), len(points)


def _frame(ax: Axes, points: list[PaperPoint]) -> None:
    across = [0.0, *(point.paper for point in points)]
    up = [
        0.0,
        *(value for p in points for value in (p.ours, p.effect.low, p.effect.high) if value is not None),
    ]
    for values, set_limits in ((across, ax.set_xlim), (up, ax.set_ylim)):
        margin = MARGIN * (max(values) - min(values)) or 0.5
        set_limits(min(values) - margin, max(values) + margin)


def _draw_series(ax: Axes, points: list[PaperPoint], name: str) -> None:
    index = points[0].series
    colour, marker = LINES[index % len(LINES)], MARKERS[index % len(MARKERS)]
    for point in points:
        if point.effect.low is not None and point.effect.high is not None:
            ax.plot(
                [point.paper] * 2,
                [point.effect.low, point.effect.high],
                color=colour,
                linewidth=0.9,
                alpha=0.6,
            )
        face = colour if point.effect.paper_status == "verified" else "white"
        ax.plot(point.paper, point.ours, marker, color=colour, markerfacecolor=face, markersize=6)
    ax.plot([], [], marker, color=colour, markersize=6, label=name)


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
