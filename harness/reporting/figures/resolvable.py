"""What this study could have seen: the effect found with 80 % power, against the number of seeds."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from harness.analysis.findings import Findings, TableFinding
from harness.analysis.further_findings import Resolvable
from harness.analysis.units import metric_name, plain_text, size_text
from harness.reporting.figures.curves import spread_out
from harness.reporting.figures.picture import Sketch, twin
from harness.reporting.figures.style import FAINT, GREY, INK, LINES, STYLES, new_figure, right_labels
from harness.reporting.names import short_name
from harness.reporting.numbers import count

HEIGHT_IN, LABEL_IN = 2.7, 0.19
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
        _draw(ax, curve[1], index, farthest)
    _frame(ax, findings, curves, farthest)
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
    caption = _caption(findings)
    return Sketch(
        key="resolvable", figure=figure, caption=caption, alt=_alt(findings, curves), data=twin(lines)
    )


def _height_in(curves: int) -> float:
    return max(HEIGHT_IN, 0.7 + LABEL_IN * min(curves, MOST_LABELS))


def _draw(ax: Axes, found: Resolvable, index: int, farthest: int) -> None:
    shown = [(n, effect) for n, effect in zip(found.seeds, found.effects, strict=True) if n <= farthest]
    colour, style = LINES[index % len(LINES)], STYLES[index % len(STYLES)]
    ax.plot(*zip(*shown, strict=True), color=colour, linestyle=style, linewidth=1.4, zorder=2)
    ax.plot(found.seeds_now, found.effect_now, "o", color=colour, markersize=6, zorder=3)


def _frame(ax: Axes, findings: Findings, curves: list[Curve], farthest: int) -> None:
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
    texts = [f"{short_name(curves[index][0].key)}: {_needs(curves[index][1])}" for index in ranked]
    twin_axes = right_labels(ax, [(place - low) / (high - low) for place in places], texts, (0.0, 1.0))
    for tick, index in zip(twin_axes.get_yticklabels(), ranked, strict=True):
        tick.set_color(LINES[index % len(LINES)] if LINES[index % len(LINES)] != "#777777" else GREY)


def _effect_at(found: Resolvable, seeds: int) -> float:
    return next(e for n, e in reversed(list(zip(found.seeds, found.effects, strict=True))) if n <= seeds)


def _farthest(curves: list[Curve]) -> int:
    """The right end of the axis: beyond the seeds needed, where that is on the curves."""
    wanted = max([FEWEST_SHOWN, *(max(2 * f.seeds_now, f.seeds_needed or 0) for _, f in curves)])
    return next((tick for tick in TICKS if tick >= wanted), TICKS[-1])


def _needs(found: Resolvable) -> str:
    return "above 10,000 seeds" if found.seeds_needed is None else count(found.seeds_needed, "seed")


def _caption(findings: Findings) -> str:
    metric = metric_name(findings.settings.metric)
    looks = " Looks in between cost a little more." * (len(findings.settings.looks) > 1)
    return (
        f"What this study could have seen: the true effect on {metric} that a typical comparison of each "
        "table finds with 80 % power, by seeds per row; noise and degrees of freedom as measured, level "
        "Holm's strictest (alpha over the number of comparisons). Dot: the seeds there are now. At the "
        f"right: seeds needed for the smallest effect of interest (dashed line).{looks} "
        "Numbers: figures/resolvable.csv."
    )


def _alt(findings: Findings, curves: list[Curve]) -> str:
    unit = " pp" if findings.settings.in_percent else ""
    parts = [
        f"{short_name(table.key)} {plain_text(found.effect_now, findings.settings)}{unit} with "
        f"{count(found.seeds_now, 'seed')}, {_needs(found)} needed"
        for table, found in curves
    ]
    delta = size_text(findings.settings.smallest_effect_pp, findings.settings)
    return (
        "Effect found with 80 % power, falling with the seeds; needed for the smallest effect of interest, "
        f"{delta}. {'; '.join(parts)}."
    )
