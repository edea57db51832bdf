"""Figures with a line for every row of every table: one panel per table, as many panels as fit on a page."""

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

from harness.reporting.figures.style import FAINT, WIDTH_IN, new_figure, right_labels

ROW_IN, PANEL_IN, FRAME_IN = 0.172, 0.48, 0.22
TITLE_IN, PAD_IN = 0.21, 0.1
PAGE_IN = 8.9  # of one figure: what fits on a page with its caption
LABEL_CHARS, TITLE_CHARS = 38, 110
CONTINUED = " (continued)"


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table, with what is drawn for it and what is written at its right; or a heading."""

    label: str
    item: Any = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One table."""

    title: str
    lines: tuple[Line, ...]


def with_headings(lines: Sequence[tuple[str | None, Line]]) -> tuple[Line, ...]:
    """Pairs of a column and a line, in order: a heading is put before the lines of every named column."""
    out: list[Line] = []
    column: str | None = None
    for name, line in lines:
        if name is not None and name != column:
            out.append(Line(name))
        column = name
        out.append(line)
    return tuple(out)


def pages_of(panels: Sequence[Panel]) -> list[list[Panel]]:
    """The panels in figures that fit on a page, cut before a heading where possible."""
    most = int((PAGE_IN - FRAME_IN - PANEL_IN) / ROW_IN)
    pages: list[list[Panel]] = []
    room = 0.0
    for panel in panels:
        for k, lines in enumerate(_groups(panel.lines, most)):
            joins = k > 0 and ROW_IN * len(lines) <= room
            part = replace(panel, title=panel.title + CONTINUED * (k > 0), lines=lines)
            if joins:
                last = pages[-1].pop()
                pages[-1].append(replace(last, lines=last.lines + lines))
                room -= ROW_IN * len(lines)
                continue
            if not pages or _height(part) > room:
                pages.append([])
                room = PAGE_IN - FRAME_IN
            pages[-1].append(part)
            room -= _height(part)
    return pages


Drawer = Callable[[Axes, Sequence[int], Sequence[Any]], None]


def draw_rows(page: Sequence[Panel], draw: Drawer, label: str) -> Figure:
    """One panel below the other. `draw` puts a panel's items at their lines; `label` names the axis below."""
    height = FRAME_IN + sum(map(_height, page))
    figure = new_figure(height)
    figure.set_layout_engine("none")  # finding the layout of many panels would take as long as drawing them
    left = PAD_IN + _widest_in(figure, [_shown(line) for panel in page for line in panel.lines])
    right = WIDTH_IN - PAD_IN - _widest_in(figure, [line.text for panel in page for line in panel.lines])
    top = height
    for panel in page:
        room = ROW_IN * len(panel.lines)
        bottom = top - TITLE_IN - room
        box = (left / WIDTH_IN, bottom / height, (right - left) / WIDTH_IN, room / height)
        ax = figure.add_axes(box)
        top -= _height(panel)
        ax.set_ylim(len(panel.lines) - 0.4, -0.6)
        items = [(place, line.item) for place, line in enumerate(panel.lines) if line.item is not None]
        draw(ax, [place for place, _ in items], [item for _, item in items])
        _label(ax, panel)
    ax.set_xlabel(label)
    return figure


def _widest_in(figure: Figure, texts: Sequence[str]) -> float:
    """The width of the longest text at the size of row labels, in inches."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    font = FontProperties(size=float(rcParams["ytick.labelsize"]), weight="bold")
    widths = [renderer.get_text_width_height_descent(text, font, False)[0] for text in texts]
    return float(max(widths, default=0.0)) / figure.get_dpi()


def _shown(line: Line) -> str:
    return textwrap.shorten(line.label, LABEL_CHARS, placeholder=" ...")


def _label(ax: Axes, panel: Panel) -> None:
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
    return PANEL_IN + ROW_IN * len(panel.lines)


def _groups(lines: tuple[Line, ...], most: int) -> list[tuple[Line, ...]]:
    """The lines in parts of at most `most`, each heading with what follows it."""
    groups: list[list[Line]] = []
    for line in lines:
        if line.item is None or not groups or len(groups[-1]) == most:
            groups.append([])
        groups[-1].append(line)
    return [tuple(group) for group in groups]
