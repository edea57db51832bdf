"""Forest plot: which row changed the accuracy, by how much, how sure, and what the paper saw."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.findings import GLYPHS, Effect, Settings, TableFinding
from harness.analysis.units import metric_name, size_text
from harness.reporting.figures.style import FAINT, GREY, INK, new_figure, right_labels, verdict_colour
from harness.reporting.names import ordered
from harness.reporting.numbers import DASH, interval, signed
from harness.reporting.sections.results import effect_digits

ROW_IN, FRAME_IN = 0.40, 0.95
LABEL_CHARS = 30
MOST_LINES = 20  # of one figure: what fits on a page
SEED_DOT_OFFSET = 0.24  # rows below the interval, so that dots do not hide it


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the plot: an effect, or the heading of a column of the table."""

    label: str
    effect: Effect | None


def lines_of(table: TableFinding) -> list[Line]:
    """The effects in the order of the table, with a heading before each column of rows."""
    lines: list[Line] = []
    column: str | None = None
    for cell in ordered(table):
        if cell.effect is None:
            continue
        if cell.column is not None and cell.column != column:
            lines.append(Line(cell.column, None))
        column = cell.column
        lines.append(Line(cell.row, cell.effect))
    return lines


def pages_of(lines: list[Line]) -> list[list[Line]]:
    """The lines in figures of at most `MOST_LINES`, cut before a heading where possible."""
    groups: list[list[Line]] = []
    for line in lines:
        if line.effect is None or not groups:
            groups.append([])
        groups[-1].append(line)
    pages: list[list[Line]] = []
    for part in (piece for group in groups for piece in _pieces(group)):
        if pages and len(pages[-1]) + len(part) <= MOST_LINES:
            pages[-1].extend(part)
        else:
            pages.append(list(part))
    return pages


def _pieces(group: list[Line]) -> list[list[Line]]:
    """A group that is too long for one figure, cut; every piece has the group's heading."""
    heading = group[:1] if group[0].effect is None else []
    rows, most = group[len(heading) :], MOST_LINES - len(heading)
    return [[*heading, *rows[start : start + most]] for start in range(0, len(rows), most)]


def draw_forest(table: TableFinding, settings: Settings, lines: list[Line] | None = None) -> Figure | None:
    """The figure of some lines (by default all of them), or None where nothing is compared."""
    lines = lines_of(table) if lines is None else lines
    if not any(line.effect for line in lines):
        return None
    figure = new_figure(FRAME_IN + ROW_IN * len(lines))
    ax = figure.add_subplot()
    ax.set_ylim(len(lines) - 0.4, -0.6)
    delta = settings.smallest_effect_pp
    ax.axvspan(-delta, delta, color="#EDEDED", zorder=0, linewidth=0)
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    for place, line in enumerate(lines):
        if line.effect:
            _draw_effect(ax, place, line.effect)
    _label(ax, lines, settings)
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


def forest_alt(table: TableFinding, settings: Settings, lines: list[Line] | None = None) -> str:
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


def _label(ax: Axes, lines: list[Line], settings: Settings) -> None:
    places = list(range(len(lines)))
    ax.set_yticks(places, [textwrap.fill(line.label, LABEL_CHARS) for line in lines])
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
