"""Figures for planning: accuracy against cost, the effect that could be seen, images that flip."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from harness.analysis.findings import BudgetPoint, Findings, Resolvable, RowFlips, Settings, TableFinding
from harness.analysis.precision import front
from harness.analysis.verdicts import metric_name, plain_text, size_text
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.figures.curves import right_labels, spread_out
from harness.reporting.figures.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    LINES,
    STYLES,
    VERMILLION,
    Sketch,
    new_figure,
    twin,
)
from harness.reporting.figures.tables import Panel, RowLine, draw_rows, row_pages, with_headings
from harness.reporting.report_input import ReportInput

# What to use under a budget: accuracy against training time, or energy, of one run of every recipe.


BUDGET_HEIGHT_IN, ENTRY_IN = 3.3, 0.31
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
    figure = new_figure(max(BUDGET_HEIGHT_IN, 0.5 + ENTRY_IN * len(named)))
    ax, side = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1.0]})
    _draw_budget(ax, marks, best)
    _budget_frame(ax, marks, settings, kind)
    _number(ax, named)
    side.set_axis_off()
    side.text(0, 1, "\n".join(_entry(report, n, mark, kind) for n, mark in enumerate(named, start=1)),
              fontsize=8, va="top", linespacing=1.25, transform=side.transAxes)  # fmt: skip
    return Sketch(
        key=key,
        figure=figure,
        caption=_budget_caption(marks, kind, key),
        alt=_budget_alt(report, marks, named, kind),
        data=twin({"name": doc.arm_name(report.plan, mark.point.arm_id), **_line(mark)} for mark in marks),
    )


def _draw_budget(ax: Axes, marks: list[Mark], best: list[Mark]) -> None:
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


def _budget_frame(ax: Axes, marks: list[Mark], settings: Settings, kind: str) -> None:
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
    return num.duration(value).replace(".0 ", " ") if short else num.duration(value)


def _entry(report: ReportInput, number: int, mark: Mark, kind: str) -> str:
    name = textwrap.shorten(doc.arm_name(report.plan, mark.point.arm_id), NAME_CHARS, placeholder=" ...")
    return f"{number}  {name}\n    {_numbers(mark, report.findings.settings, kind)}"


def _numbers(mark: Mark, settings: Settings, kind: str) -> str:
    point = mark.point
    text = f"{_cost(mark.cost, kind)}: {plain_text(point.value, settings)}{' %' * settings.in_percent}"
    return f"{text} {num.interval(point.low, point.high, 2 if settings.in_percent else None)}".strip()


def _budget_caption(marks: list[Mark], kind: str, key: str) -> str:
    group = marks[0].point.group
    what = "training time" if kind == "time" else "energy"
    bars = "95 % intervals of the means (the frame may cut them)"
    below = sum(mark.point.value < _floor(marks) for mark in marks)
    hidden = f" {num.count(below, 'recipe')} far below the frame." if below else ""
    return (
        f"Accuracy against the {what} of one run, a teacher's or source's run included; {group}. Filled, "
        "joined and named: no other recipe is at least as accurate by its mean and cheaper; hollow: one is. "
        f"Crosses: {bars}.{hidden} Rows that only evaluate trained networks are left out. "
        f"Numbers: figures/{key}.csv."
    )


def _budget_alt(report: ReportInput, marks: list[Mark], named: list[Mark], kind: str) -> str:
    settings = report.findings.settings
    parts = [f"{doc.arm_name(report.plan, m.point.arm_id)} {_numbers(m, settings, kind)}" for m in named]
    rest = len(marks) - sum(mark.best for mark in marks)
    return (
        f"Scatter of {num.count(len(marks), 'recipe')}, mean accuracy against the {kind} of one run. "
        f"Not dominated, from the cheapest: {'; '.join(parts)}. The other {rest} are dominated."
    )


def _line(mark: Mark) -> dict[str, object]:
    point = mark.point
    return {
        "arm_id": point.arm_id, "group": point.group, "runs": point.n, "value": point.value, "low": point.low,
        "high": point.high, "time_s": point.time_s, "time_low_s": point.time_low_s,
        "time_high_s": point.time_high_s, "energy_j": point.energy_j, "on_front": mark.best,
    }  # fmt: skip


# What this study could have seen: the effect found with 80 % power, against the number of seeds.


RESOLVABLE_HEIGHT_IN, LABEL_IN = 2.7, 0.19
FEWEST_SHOWN = 20  # seeds; the axis goes at least so far
TICKS = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
MOST_LABELS = 16

BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}

Curve = tuple[TableFinding, Resolvable]


def resolvable_sketch(findings: Findings) -> Sketch | None:
    """One line per table; None where no table has an estimate of its noise."""
    curves = [(table, table.resolvable) for table in findings.tables if table.resolvable is not None]
    if not curves:
        return None
    figure = new_figure(_height_in(len(curves)))
    ax = figure.add_subplot()
    ax.set_xscale("log")
    ax.set_yscale("log")
    farthest = _farthest(curves)
    for index, curve in enumerate(curves):
        _draw_resolvable(ax, curve[1], index, farthest)
    _resolvable_frame(ax, findings, curves, farthest)
    if len(curves) <= MOST_LABELS:
        _labels(ax, curves, farthest)
    lines = [
        {
            "table": table.key,
            "comparisons": table.contrasts,
            "level": found.level,
            "seeds": n,
            "effect": effect,
        }
        for table, found in curves
        for n, effect in zip(found.seeds, found.effects, strict=True)
    ]
    caption = _resolvable_caption(findings)
    return Sketch(
        key="resolvable",
        figure=figure,
        caption=caption,
        alt=_resolvable_alt(findings, curves),
        data=twin(lines),
    )


def _height_in(curves: int) -> float:
    return max(RESOLVABLE_HEIGHT_IN, 0.7 + LABEL_IN * min(curves, MOST_LABELS))


def _draw_resolvable(ax: Axes, found: Resolvable, index: int, farthest: int) -> None:
    shown = [(n, effect) for n, effect in zip(found.seeds, found.effects, strict=True) if n <= farthest]
    colour, style = LINES[index % len(LINES)], STYLES[index % len(STYLES)]
    ax.plot(*zip(*shown, strict=True), color=colour, linestyle=style, linewidth=1.4, zorder=2)
    ax.plot(found.seeds_now, found.effect_now, "o", color=colour, markersize=6, zorder=3)


def _resolvable_frame(ax: Axes, findings: Findings, curves: list[Curve], farthest: int) -> None:
    settings = findings.settings
    delta = settings.smallest_effect_pp
    ax.axhline(delta, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    text = f"{size_text(delta, settings)}: smallest effect of interest"
    ax.annotate(text, (2, delta), (0, 4), textcoords="offset points", fontsize=8, bbox=BEHIND, zorder=4)
    ends = [delta, *(e for _, f in curves for n, e in zip(f.seeds, f.effects, strict=True) if n <= farthest)]
    ax.set_xlim(1.9, farthest * 1.03)
    ax.set_ylim(0.75 * min(ends), 1.15 * max(ends))
    ax.set_xticks([tick for tick in TICKS if tick <= farthest])
    ax.set_yticks([level for level in LEVELS if 0.75 * min(ends) <= level <= 1.15 * max(ends)])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    ax.set_xlabel("Seeds per row")
    unit = ", pp" if settings.in_percent else ""
    ax.set_ylabel(f"Effect found{unit}")
    ax.grid(color=FAINT, linewidth=0.5)


def _labels(ax: Axes, curves: list[Curve], farthest: int) -> None:
    """At the right end of each line, pushed apart."""
    low, high = (math.log10(end) for end in ax.get_ylim())
    ends = {index: math.log10(_effect_at(curve[1], farthest)) for index, curve in enumerate(curves)}
    ranked = sorted(ends, key=lambda index: ends[index])
    height = _height_in(len(curves)) - 0.6
    places = spread_out([ends[index] for index in ranked], LABEL_IN / height * (high - low), high)
    texts = [f"{doc.short_name(curves[index][0].key)}: {_needs(curves[index][1])}" for index in ranked]
    heights = [(place - low) / (high - low) for place in places]
    lines = [(LINES[index % len(LINES)], STYLES[index % len(STYLES)]) for index in ranked]
    right_labels(ax, heights, texts, (0.0, 1.0), lines)


def _effect_at(found: Resolvable, seeds: int) -> float:
    return next(e for n, e in reversed(list(zip(found.seeds, found.effects, strict=True))) if n <= seeds)


def _farthest(curves: list[Curve]) -> int:
    """The right end of the axis: beyond the seeds needed, where that is on the curves."""
    wanted = max([FEWEST_SHOWN, *(max(2 * f.seeds_now, f.seeds_needed or 0) for _, f in curves)])
    return next((tick for tick in TICKS if tick >= wanted), TICKS[-1])


def _needs(found: Resolvable) -> str:
    return "above 10,000 seeds" if found.seeds_needed is None else num.count(found.seeds_needed, "seed")


def _resolvable_caption(findings: Findings) -> str:
    metric = metric_name(findings.settings.metric)
    looks = " Looks in between cost a little more." * (len(findings.settings.looks) > 1)
    return (
        f"What this study could have seen: the true effect on {metric} that a typical comparison of each "
        "table finds with 80 % power, by seeds per row; noise and degrees of freedom as measured, level "
        "Holm's strictest (alpha over the number of comparisons). Dot: the seeds there are now. At the "
        f"right: seeds needed for the smallest effect of interest (dashed line).{looks} "
        "Numbers: figures/resolvable.csv."
    )


def _resolvable_alt(findings: Findings, curves: list[Curve]) -> str:
    unit = " pp" if findings.settings.in_percent else ""
    parts = [
        f"{doc.short_name(table.key)} {plain_text(found.effect_now, findings.settings)}{unit} with "
        f"{num.count(found.seeds_now, 'seed')}, {_needs(found)} needed"
        for table, found in curves
    ]
    delta = size_text(findings.settings.smallest_effect_pp, findings.settings)
    return (
        "Effect found with 80 % power, falling with the seeds; needed for the smallest effect of interest, "
        f"{delta}. {'; '.join(parts)}."
    )


# Flips: how many test images each row gains and loses against the row it is compared with.


BAR = 0.32  # half of a bar's height, in lines


def flip_sketches(findings: Findings) -> list[Sketch]:
    """As many figures as needed; none where no row has per-image bits of both sides."""
    panels = [panel for table in findings.tables if (panel := _panel(table, findings))]
    data = twin(findings.flips)
    return [
        Sketch(
            key=f"flips_{k + 1}" if k else "flips",
            figure=draw_rows(page, _draw_flips, "Test images lost (left) and gained (right), per run"),
            caption=_flips_caption(k),
            alt=_flips_alt(page),
            data="" if k else data,
        )
        for k, page in enumerate(row_pages(panels))
    ]


def _panel(table: TableFinding, findings: Findings) -> Panel | None:
    found = {(each.row, each.column): each for each in findings.flips if each.table == table.key}
    lines = [
        (cell.column, RowLine(cell.row, flips, _flip_numbers(flips)))
        for cell in doc.ordered(table)
        if (flips := found.get((cell.row, cell.column)))
    ]
    if not lines:
        return None
    images = " or ".join(f"{n:,}" for n in sorted({each.images for each in found.values()}))
    return Panel(f"{doc.short_name(table.key)}, of {images} test images", with_headings(lines))


def _flip_numbers(flips: RowFlips) -> str:
    gained, lost = num.number(flips.gained, 0), num.number(flips.lost, 0)
    return f"gained {gained}, lost {lost}, net {num.signed(flips.gained - flips.lost, 0)}"


def _draw_flips(ax: Axes, places: Sequence[int], rows: Sequence[RowFlips]) -> None:
    ax.barh(places, [row.gained for row in rows], height=2 * BAR, color=BLUE, linewidth=0)
    lost = [-row.lost for row in rows]
    ax.barh(places, lost, height=2 * BAR, color="white", edgecolor=VERMILLION, linewidth=1.0)
    known = [(place, row.churn) for place, row in zip(places, rows, strict=True) if row.churn is not None]
    both = [(place, side * churn) for place, churn in known for side in (-1, 1)]
    low, high = [place - 0.45 for place, _ in both], [place + 0.45 for place, _ in both]
    ax.vlines([churn for _, churn in both], low, high, color=INK, linewidth=1.4, zorder=3)
    net = [row.gained - row.lost for row in rows]
    ax.plot(net, places, "D", color="white", markeredgecolor=INK, markersize=4, markeredgewidth=0.9, zorder=4)
    ax.axvline(0, color=GREY, linewidth=0.8)


def _flips_caption(page: int) -> str:
    if page:
        return "Images gained and lost, continued. Exploratory: nothing here is tested."
    return (
        "Test images gained (filled: right in a run of the row, wrong in one of the row it is compared with) "
        "and lost (hollow: the reverse), means over all pairs of runs; diamond: gained minus lost, the "
        "difference in top-1. Upright strokes: flips between two runs of the compared row alone, so bars up "
        "to there are mere re-training. Exploratory: nothing here is tested. Numbers: figures/flips.csv."
    )


def _flips_alt(page: list[Panel]) -> str:
    flips = [(panel.title.split(",")[0], line) for panel in page for line in panel.lines if line.item]
    parts = [f"{table}, {line.label}: {line.text}" for table, line in flips]
    return f"Images gained and lost, {num.count(len(parts), 'row')}. {'; '.join(parts)}."
