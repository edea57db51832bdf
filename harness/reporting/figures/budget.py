"""What to use under a budget: accuracy against training time, or energy, of one run of every recipe."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from harness.analysis.budget import front
from harness.analysis.findings import Settings
from harness.analysis.further_findings import BudgetPoint
from harness.analysis.units import metric_name, plain_text
from harness.reporting.figures.picture import Sketch, twin
from harness.reporting.figures.style import BLUE, FAINT, GREY, INK, new_figure
from harness.reporting.inputs import ReportInput
from harness.reporting.names import arm_name
from harness.reporting.numbers import count, duration, interval

HEIGHT_IN, ENTRY_IN = 3.3, 0.31
FEWEST, MOST_FIGURES, MOST_NAMED = 4, 2, 12
NAME_CHARS = 46
NUMBER_GAP = 0.055  # of the axes
SECONDS_TO_S = 90  # above it a tick is in minutes, as `duration` writes it
FAR = 3.0  # times the distance from the median to the best
LOG_FROM = 4.0  # ratio of the dearest to the cheapest from which the axis is logarithmic
TIME_TICKS_S = (0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60, 120, 300, 600, 1200, 1800, 3600, 7200,
                14400, 28800, 86400, 172800, 604800)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with its cost in the unit of the axis; `best`: nothing is cheaper and at least as good."""

    point: BudgetPoint
    cost: float
    low: float | None
    high: float | None
    best: bool


def budget_sketches(report: ReportInput) -> list[Sketch]:
    """Time, and energy where every run's was measured, for the groups with most recipes."""
    groups: dict[str, list[BudgetPoint]] = {}
    for point in report.findings.budget:
        groups.setdefault(point.group, []).append(point)
    ranked = sorted(groups.values(), key=lambda points: -len(points))[:MOST_FIGURES]
    sketches: list[Sketch] = []
    for points in ranked:
        if len(points) < FEWEST:
            continue
        suffix = f"_{len(sketches) + 1}" if sketches else ""
        sketches.append(_sketch(report, f"budget{suffix}", _timed(points), "time"))
        if all(point.energy_j is not None for point in points):
            sketches.append(_sketch(report, f"energy{suffix}", _metered(points), "energy"))
    return sketches


def _timed(points: Sequence[BudgetPoint]) -> list[Mark]:
    return [Mark(p, p.time_s, p.time_low_s, p.time_high_s, p.on_front) for p in points]


def _metered(points: Sequence[BudgetPoint]) -> list[Mark]:
    costs = [(point.energy_j or 0.0) / 1000 for point in points]
    best = front(costs, [point.value for point in points])
    return [Mark(p, kj, None, None, bool(b)) for p, kj, b in zip(points, costs, best, strict=True)]


def _sketch(report: ReportInput, key: str, marks: list[Mark], kind: str) -> Sketch:
    settings = report.findings.settings
    best = sorted((mark for mark in marks if mark.best), key=lambda mark: (mark.cost, mark.point.value))
    named = best[-MOST_NAMED:]
    figure = new_figure(max(HEIGHT_IN, 0.5 + ENTRY_IN * len(named)))
    ax, side = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1.0]})
    _draw(ax, marks, best)
    _frame(ax, marks, settings, kind)
    _number(ax, named)
    side.set_axis_off()
    side.text(0, 1, "\n".join(_entry(report, n, mark, kind) for n, mark in enumerate(named, start=1)),
              fontsize=8, va="top", linespacing=1.25, transform=side.transAxes)  # fmt: skip
    return Sketch(
        key=key,
        figure=figure,
        caption=_caption(marks, kind, key),
        alt=_alt(report, marks, named, kind),
        data=twin({"name": arm_name(report.plan, mark.point.arm_id), **_line(mark)} for mark in marks),
    )


def _draw(ax: Axes, marks: list[Mark], best: list[Mark]) -> None:
    steps = [(mark.cost, mark.point.value) for mark in best]
    ax.plot(*zip(*steps, strict=True), color=BLUE, linewidth=1.1, zorder=2)
    for mark in marks:
        point, colour = mark.point, BLUE if mark.best else GREY
        if point.low is not None and point.high is not None:
            ax.plot(
                [mark.cost] * 2, [point.low, point.high], color=colour, linewidth=0.8, alpha=0.6, zorder=1
            )
        if mark.low is not None and mark.high is not None:
            ax.plot(
                [mark.low, mark.high], [point.value] * 2, color=colour, linewidth=0.8, alpha=0.6, zorder=1
            )
        face = colour if mark.best else "white"
        ax.plot(mark.cost, point.value, "o", color=colour, markerfacecolor=face, markersize=4.5, zorder=3)


def _number(ax: Axes, named: list[Mark]) -> None:
    """Numbers at the upper left of the points; at the lower right of one that is close to the one before."""
    before, is_above = None, True
    for k, mark in enumerate(named, start=1):
        at = ax.transAxes.inverted().transform(ax.transData.transform((mark.cost, mark.point.value)))
        is_close = before is not None and abs(at - before).max() < NUMBER_GAP
        is_above, before = not (is_close and is_above), at
        offset, side = ((-5, 3), "right") if is_above else ((5, -9), "left")
        ax.annotate(str(k), (mark.cost, mark.point.value), offset, textcoords="offset points", ha=side,
                    fontsize=8, color=INK, zorder=4)  # fmt: skip


def _frame(ax: Axes, marks: list[Mark], settings: Settings, kind: str) -> None:
    costs, values = [mark.cost for mark in marks], [mark.point.value for mark in marks]
    if min(costs) > 0 and max(costs) / min(costs) > LOG_FROM:
        ax.set_xscale("log")
        low, high = 0.8 * min(costs), 1.25 * max(costs)
        ax.set_xticks([tick for tick in TIME_TICKS_S if low <= tick <= high])
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        margin = 0.1 * (max(costs) - min(costs)) or 0.1 * max(costs) or 1.0
        low, high = max(min(costs) - margin, 0.0), max(costs) + margin
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlim(low, high)
    margin = 0.12 * (max(values) - _floor(marks)) or 1.0
    ax.set_ylim(_floor(marks) - margin, max(values) + margin)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _cost(value, kind, short=True)))
    ax.set_xlabel("Training time of one run" if kind == "time" else "Energy of one run, kJ")
    ax.set_ylabel(f"{metric_name(settings.metric)}{', %' * settings.in_percent}")
    ax.grid(color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)


def _floor(marks: list[Mark]) -> float:
    """The lowest value shown: the whole front, and nothing far below it and below most of the others."""
    values = [mark.point.value for mark in marks]
    middle = median(values)
    limit = min([middle - FAR * (max(values) - middle), *(mark.point.value for mark in marks if mark.best)])
    return min(value for value in values if value >= limit)


def _cost(value: float, kind: str, *, short: bool = False) -> str:
    if kind == "energy":
        return f"{value:.3g}" if short else f"{value:.3g} kJ"
    if short and value < SECONDS_TO_S:
        return f"{value:g} s"
    return duration(value).replace(".0 ", " ") if short else duration(value)


def _entry(report: ReportInput, number: int, mark: Mark, kind: str) -> str:
    name = textwrap.shorten(arm_name(report.plan, mark.point.arm_id), NAME_CHARS, placeholder=" ...")
    return f"{number}  {name}\n    {_numbers(mark, report.findings.settings, kind)}"


def _numbers(mark: Mark, settings: Settings, kind: str) -> str:
    point = mark.point
    text = f"{_cost(mark.cost, kind)}: {plain_text(point.value, settings)}{' %' * settings.in_percent}"
    return f"{text} {interval(point.low, point.high, 2 if settings.in_percent else None)}".strip()


def _caption(marks: list[Mark], kind: str, key: str) -> str:
    group = marks[0].point.group
    what = "training time" if kind == "time" else "energy"
    bars = "95 % intervals of the means (the frame may cut them)"
    below = sum(mark.point.value < _floor(marks) for mark in marks)
    hidden = f" {count(below, 'recipe')} far below the frame." if below else ""
    return (
        f"Accuracy against the {what} of one run, a teacher's or source's run included; {group}. Filled, "
        "joined and named: no other recipe is at least as accurate by its mean and cheaper; hollow: one is. "
        f"Crosses: {bars}.{hidden} Rows that only evaluate trained networks are left out. "
        f"Numbers: figures/{key}.csv."
    )


def _alt(report: ReportInput, marks: list[Mark], named: list[Mark], kind: str) -> str:
    settings = report.findings.settings
    parts = [f"{arm_name(report.plan, m.point.arm_id)} {_numbers(m, settings, kind)}" for m in named]
    rest = len(marks) - sum(mark.best for mark in marks)
    return (
        f"Scatter of {count(len(marks), 'recipe')}, mean accuracy against the {kind} of one run. "
        f"Not dominated, from the cheapest: {'; '.join(parts)}. The other {rest} are dominated."
    )


def _line(mark: Mark) -> dict[str, object]:
    point = mark.point
    return {
        "arm_id": point.arm_id, "group": point.group, "runs": point.n, "value": point.value, "low": point.low,
        "high": point.high, "time_s": point.time_s, "time_low_s": point.time_low_s,
        "time_high_s": point.time_high_s, "energy_j": point.energy_j, "on_front": mark.best,
    }  # fmt: skip
