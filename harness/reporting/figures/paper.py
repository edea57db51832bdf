"""The paper's numbers beside ours: effects where the setting differs, values where it is the same."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.findings import CellFinding, Effect, Findings
from harness.analysis.units import metric_name, size_text
from harness.reporting.figures.style import FAINT, GREY, INK, LINES, new_figure
from harness.reporting.names import cell_name, short_name
from harness.reporting.numbers import count, number

MARKERS = "osD^vP*X"
SCATTER_IN = 4.0
ROW_IN, FRAME_IN = 0.27, 0.8
LABEL_CHARS = 44
MARGIN = 0.08


@dataclass(frozen=True, slots=True)
class Point:
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


def points_of(findings: Findings) -> list[Point]:
    """Every effect with an estimate here and in the paper."""
    return [
        Point(index, cell_name(cell), cell.effect)
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


def _frame(ax: Axes, points: list[Point]) -> None:
    across = [0.0, *(point.paper for point in points)]
    up = [
        0.0,
        *(value for p in points for value in (p.ours, p.effect.low, p.effect.high) if value is not None),
    ]
    for values, set_limits in ((across, ax.set_xlim), (up, ax.set_ylim)):
        margin = MARGIN * (max(values) - min(values)) or 0.5
        set_limits(min(values) - margin, max(values) + margin)


def _draw_series(ax: Axes, points: list[Point], name: str) -> None:
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
    figure = new_figure(FRAME_IN + ROW_IN * len(cells))
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
    ax.set_yticks(range(len(cells)), [textwrap.shorten(cell_name(cell), LABEL_CHARS) for cell in cells])
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
