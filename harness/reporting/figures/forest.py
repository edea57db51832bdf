"""Forest plot: which row changed the accuracy, by how much, how sure, and what the paper saw."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.findings import GLYPHS, Effect, Settings, TableFinding
from harness.reporting.figures.style import FAINT, GREY, INK, new_figure, right_labels, verdict_colour
from harness.reporting.names import metric_name, ordered
from harness.reporting.numbers import DASH, interval, signed
from harness.reporting.sections.results import effect_digits

ROW_IN, FRAME_IN = 0.40, 0.95
LABEL_CHARS = 30
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


def draw_forest(table: TableFinding, settings: Settings) -> Figure | None:
    """The figure, or None where nothing is compared."""
    lines = lines_of(table)
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
    _label(ax, lines)
    ax.set_xlabel(f"Effect on {metric_name(settings.metric)}, percentage points")
    ax.grid(axis="x", color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)
    return figure


def forest_caption(table: TableFinding, settings: Settings) -> str:
    """What the marks mean."""
    memory = any(cell.effect and cell.effect.paper is not None for cell in table.cells)
    paper = " Hollow diamond: the paper's effect, in its own setting." if memory else ""
    return (
        f"{table.title}: effect of each row. Large dot and bar: estimate and 95 % interval over re-training; "
        f"small dots: single seeds.{paper} Grey band: ±{settings.smallest_effect_pp:g} pp, the smallest "
        "effect of interest. ▲ helps, ▼ hurts, ≈ no detectable difference, ? undecided."
    )


def forest_alt(table: TableFinding) -> str:
    """Every effect of the plot in words."""
    parts = []
    for line in lines_of(table):
        if line.effect is None:
            parts.append(f"{line.label}:")
        elif line.effect.estimate is None:
            parts.append(f"{line.label} {line.effect.verdict};")
        else:
            effect = line.effect
            paper = "" if effect.paper is None else f" (paper {signed(effect.paper)})"
            parts.append(f"{line.label} {_numbers(effect)} pp, {effect.verdict}{paper};")
    return "Effects by row. " + " ".join(parts).rstrip(";") + "."


def _numbers(effect: Effect) -> str:
    if effect.estimate is None:
        return DASH
    digits = effect_digits(effect)
    return f"{signed(effect.estimate, digits)} {interval(effect.low, effect.high, digits)}".strip()


def _draw_effect(ax: Axes, place: int, effect: Effect) -> None:
    colour = verdict_colour(effect.verdict)
    below = place + SEED_DOT_OFFSET
    dots = list(effect.differences.values())
    ax.plot(dots, [below] * len(dots), "o", color=colour, markersize=2.6, alpha=0.75, zorder=2, linewidth=0)
    if effect.low is not None and effect.high is not None:
        ax.plot([effect.low, effect.high], [place, place], color=colour, linewidth=1.8, zorder=3)
    if effect.paper is not None:
        ax.plot(
            effect.paper, place, "D", markerfacecolor="white", markeredgecolor=INK, markersize=5.5, zorder=4
        )
    if effect.estimate is not None:
        ax.plot(effect.estimate, place, "o", color=colour, markersize=5, zorder=5)


def _label(ax: Axes, lines: list[Line]) -> None:
    places = list(range(len(lines)))
    ax.set_yticks(places, [textwrap.fill(line.label, LABEL_CHARS) for line in lines])
    ax.tick_params(axis="y", length=0)
    for tick, line in zip(ax.get_yticklabels(), lines, strict=True):
        if line.effect is None:
            tick.set_fontweight("bold")
    texts = [
        f"{GLYPHS[line.effect.verdict]} {_numbers(line.effect)}" if line.effect else "" for line in lines
    ]
    twin = right_labels(ax, [float(place) for place in places], texts)
    for tick, line in zip(twin.get_yticklabels(), lines, strict=True):
        if line.effect:
            tick.set_color(verdict_colour(line.effect.verdict))
