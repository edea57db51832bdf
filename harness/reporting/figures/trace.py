"""Sequential trace: what every look at an adaptive study saw of each row, and why it went on or stopped."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from harness.analysis.findings import GLYPHS, Effect, Findings, LookResult, Settings
from harness.analysis.units import metric_name, plain_text, size_text
from harness.reporting.figures.picture import Sketch, twin
from harness.reporting.figures.style import FAINT, GREY, INK, WIDTH_IN, new_figure, verdict_colour
from harness.reporting.names import ordered, short_name
from harness.reporting.numbers import DASH, count

ACROSS, DOWN = 4, 7  # small plots of one figure
CELL_IN, TITLE_IN, FRAME_IN = 1.0, 0.42, 0.1
LEFT, GAP = 0.42, 0.16  # inches: room for numbers at the left of a plot, and between plots
TITLE_CHARS, PLACE_CHARS = 24, 26
BOUNDARY = "#8A8A8A"


@dataclass(frozen=True, slots=True)
class Plot:
    """One row of a table with at least one look."""

    place: str
    row: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a small plot lies, in inches, and which effects it shows."""

    x: float
    y: float
    width: float
    limit: float  # effects from -limit to +limit

    def up(self, value: float) -> float:
        """Effects beyond the frame end at its edge."""
        return self.y + CELL_IN * (max(-1.0, min(1.0, value / self.limit)) + 1) / 2

    def across(self, look: int, looks: int) -> float:
        return self.x + self.width * (look + 0.5) / looks


def trace_sketches(findings: Findings) -> list[Sketch]:
    """As many figures as needed; none in a fixed design."""
    if len(findings.settings.looks) < 2:
        return []
    plots = [
        Plot(short_name(table.key) + (f", {cell.column}" if cell.column else ""), cell.row, cell.effect)
        for table in findings.tables
        for cell in ordered(table)
        if cell.effect and any(look.low is not None for look in cell.effect.trace)
    ]
    data = twin(_line(plot, look) for plot in plots for look in plot.effect.trace)
    pages = [plots[start : start + ACROSS * DOWN] for start in range(0, len(plots), ACROSS * DOWN)]
    return [_sketch(page, findings.settings, k, "" if k else data) for k, page in enumerate(pages)]


def _sketch(page: Sequence[Plot], settings: Settings, number: int, data: str) -> Sketch:
    rows = -(-len(page) // ACROSS)
    height = FRAME_IN + rows * (TITLE_IN + CELL_IN + 0.2)
    figure = new_figure(height)
    figure.set_layout_engine("none")  # one plane, in inches: a hundred axes would take seconds
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_xlim(0, WIDTH_IN)
    ax.set_ylim(0, height)
    ax.set_axis_off()
    width = WIDTH_IN / ACROSS - LEFT - GAP
    for k, plot in enumerate(page):
        x = (k % ACROSS) * WIDTH_IN / ACROSS + LEFT
        y = height - (k // ACROSS + 1) * (TITLE_IN + CELL_IN + 0.2) + 0.2
        _draw(ax, Frame(x, y, width, _limit(plot.effect, settings)), plot, settings)
    return Sketch(
        key=f"looks_{number + 1}" if number else "looks",
        figure=figure,
        caption=_caption(settings),
        alt=_alt(page, settings),
        data=data,
    )


def _limit(effect: Effect, settings: Settings) -> float:
    """The last look fills most of its frame; the wider intervals of the first ones may be cut."""
    seen = [look for look in effect.trace if look.low is not None]
    ends = [seen[-1].low, seen[-1].high, seen[-1].boundary_low, seen[-1].boundary_high]
    return 1.15 * max([settings.smallest_effect_pp, *(abs(end) for end in ends if end is not None)])


def _draw(ax: Axes, frame: Frame, plot: Plot, settings: Settings) -> None:
    delta, edge = settings.smallest_effect_pp, frame.x + frame.width
    ax.fill_between([frame.x, edge], frame.up(-delta), frame.up(delta), color="#EDEDED", linewidth=0)
    ax.plot([frame.x, edge], [frame.up(0)] * 2, color=GREY, linewidth=0.8)
    ax.plot([frame.x, frame.x, edge], [frame.y + CELL_IN, frame.y, frame.y], color=FAINT, linewidth=0.8)
    looks = settings.looks
    at = {look.seeds: frame.across(looks.index(look.seeds), len(looks)) for look in plot.effect.trace}
    _boundaries(ax, frame, plot.effect.trace, at)
    colour = verdict_colour(plot.effect.verdict)
    seen = [look for look in plot.effect.trace if look.low is not None and look.high is not None]
    bars = [[(at[k.seeds], frame.up(k.low or 0.0)), (at[k.seeds], frame.up(k.high or 0.0))] for k in seen]
    ax.add_collection(LineCollection(bars, colors=[colour], linewidths=1.8, zorder=3))
    known = [(at[k.seeds], k.estimate) for k in seen if k.estimate is not None]
    dots = [(x, frame.up(value)) for x, value in known if abs(value) <= frame.limit]
    ax.plot(
        [x for x, _ in dots], [y for _, y in dots], "o", color=colour, markersize=3.5, linewidth=0, zorder=4
    )
    for k, seeds in enumerate(looks):
        x = frame.across(k, len(looks))
        ax.text(x, frame.y - 0.03, str(seeds), ha="center", va="top", fontsize=7.5)
    for value in (-frame.limit / 1.15, frame.limit / 1.15):
        ax.text(frame.x - 0.04, frame.up(value), _short(value), ha="right", va="center", fontsize=7.5)
    _title(ax, frame, plot)


def _boundaries(ax: Axes, frame: Frame, trace: Sequence[LookResult], at: dict[int, float]) -> None:
    """Only where they lie inside the frame."""
    for name in ("boundary_low", "boundary_high"):
        ends = [(at[look.seeds], getattr(look, name)) for look in trace]
        inside = [(x, frame.up(end)) for x, end in ends if end is not None and abs(end) <= frame.limit]
        if inside:
            ax.plot(*zip(*inside, strict=True), color=BOUNDARY, linewidth=0.9, linestyle="--", marker="_",
                    markersize=6, zorder=2)  # fmt: skip


def _title(ax: Axes, frame: Frame, plot: Plot) -> None:
    effect = plot.effect
    ended = f" at {effect.settled_at}" if effect.settled_at is not None else ""
    row = textwrap.shorten(plot.row, TITLE_CHARS - len(ended), placeholder=" ...")
    top, left = frame.y + CELL_IN + 0.09, frame.x - LEFT + 0.12
    ax.text(
        left,
        top + 0.14,
        textwrap.shorten(plot.place, PLACE_CHARS, placeholder=" ..."),
        fontsize=7.5,
        color=GREY,
    )
    text = f"{GLYPHS[effect.verdict]} {row}{ended}"
    ax.text(left, top, text, fontsize=8, color=INK)


def _short(value: float) -> str:
    return f"{value:+.2g}".replace("-", "\u2212")


def _caption(settings: Settings) -> str:
    unit = " in pp" if settings.in_percent else ""
    delta = size_text(settings.smallest_effect_pp, settings)
    return (
        f"Why each row stopped where it did: the effect on {metric_name(settings.metric)}{unit} (dot) with "
        "its repeated interval (bar) at every look, by seeds per row; the frame may cut wide ones. Dashed: "
        "the boundaries; a dot beyond one settles the row as helps or hurts. "
        f"Grey band: ±{delta}, the smallest effect of interest. “at 5”: settled with 5 seeds. "
        "Numbers: figures/looks.csv."
    )


def _alt(page: Sequence[Plot], settings: Settings) -> str:
    parts = []
    for plot in page:
        last = [look for look in plot.effect.trace if look.low is not None][-1]
        ended = "open" if plot.effect.settled_at is None else f"settled at {plot.effect.settled_at} seeds"
        value = DASH if last.estimate is None else plain_text(last.estimate, settings)
        parts.append(f"{plot.place}, {plot.row}: {plot.effect.verdict}, {ended}, last estimate {value}")
    return f"Looks at {count(len(page), 'row')}. {'; '.join(parts)}."


def _line(plot: Plot, look: LookResult) -> dict[str, object]:
    return {
        "table": plot.place, "row": plot.row, "versus": plot.effect.versus, "seeds": look.seeds,
        "estimate": look.estimate, "low": look.low, "high": look.high, "boundary_low": look.boundary_low,
        "boundary_high": look.boundary_high, "verdict": look.verdict, "settled_at": plot.effect.settled_at,
    }  # fmt: skip
