"""Learning curves over epochs or steps: mean over seeds, lowest to highest seed as a band."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.findings import TableFinding
from harness.reporting.figures.style import FAINT, GREY, LINES, STYLES, new_figure, right_labels
from harness.reporting.numbers import number

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

HEIGHT_IN = 3.1
LABEL_IN = 0.19  # of a line of a direct label
LEGEND_ROW_IN = 0.2
LEGEND_COLUMNS = 3
LABEL_CHARS, LEGEND_CHARS = 30, 30
MANY = 8  # curves; direct labels of more than these are cut to one line
HIDDEN_START = 0.25  # the axis is scaled to what follows this fraction of the epochs
LABEL_GAP = 0.062  # smallest distance of two labels, as a fraction of the axis, where they are few
EPOCH, STEP = "epoch", "step"


@dataclass(frozen=True, slots=True)
class Curve:
    """One recipe. Arrays (P,) over the curve's points, accuracies in percent. `label` names its rows."""

    label: str
    seeds: int
    at: NDArray[np.float64]  # epochs or optimizer steps
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def panels_of(table: TableFinding, curves: DataFrame, axis: str = EPOCH) -> dict[str, list[Curve]]:
    """Column of the table -> its curves over `axis`; rows that share an arm share a curve."""
    panels: dict[str, list[Curve]] = {}
    for column in table.columns:
        labels: dict[str, list[str]] = {}
        for cell in table.cells:
            if cell.column == column and cell.arm_id is not None:
                labels.setdefault(cell.arm_id, []).append(cell.row)
        drawn = (_curve(" = ".join(rows), arm, curves, axis) for arm, rows in labels.items())
        found = [curve for curve in drawn if curve]
        if found:
            panels[column or ""] = found
    return panels


def _curve(label: str, arm_id: str, curves: DataFrame, axis: str) -> Curve | None:
    rows = curves[(curves["arm_id"] == arm_id) & curves["val_top1"].between(0.0, 100.0)]
    if rows.empty:
        return None
    by_point = rows.groupby(axis, sort=True)["val_top1"]
    arrays = (by_point.mean(), by_point.min(), by_point.max())
    mean, low, high = (array.to_numpy(dtype=float) for array in arrays)
    at = np.asarray(by_point.mean().index, dtype=float)
    return Curve(label, int(rows["seed"].nunique()), at, mean, low, high)


def draw_curves(
    panels: dict[str, list[Curve]], axis: str = EPOCH, targets: Mapping[str, float] = MappingProxyType({})
) -> Figure:
    """One panel per column of the table, on a common accuracy axis. `targets`: column -> a dashed line."""
    labels = list(dict.fromkeys(curve.label for curves in panels.values() for curve in curves))
    direct = len(panels) == 1
    legend_rows = 0 if direct else -(-len(labels) // LEGEND_COLUMNS)
    lines = [text.count("\n") + 1 for text in _shown(labels)] if direct else []
    height = max(HEIGHT_IN, 0.6 + LABEL_IN * sum(lines))
    figure = new_figure(height + LEGEND_ROW_IN * legend_rows)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    hidden = HIDDEN_START if axis == EPOCH else 0.0
    bottom, top = _limits([curve for curves in panels.values() for curve in curves], hidden)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for curve in curves:
            _draw(ax, curve, labels.index(curve.label))
        if title in targets:
            ax.axhline(targets[title], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        ax.set_ylim(bottom, top)
        ax.set_title(textwrap.shorten(title, 100 // len(panels), placeholder=" ..."), loc="left")
        ax.set_xlabel("Epoch" if axis == EPOCH else "Optimizer steps")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(color=FAINT, linewidth=0.5)
    axes[0].set_ylabel("Test top-1, %")
    if direct:
        _direct_labels(axes[0], next(iter(panels.values())), labels)
    else:
        _legend(figure, labels)
    return figure


def _legend(figure: Figure, labels: list[str]) -> None:
    """Below all panels, with every label once."""
    handles = {line.get_label(): line for ax in figure.axes for line in ax.get_lines()}
    figure.legend(
        [handles[label] for label in labels],
        [textwrap.shorten(label, LEGEND_CHARS, placeholder=" ...") for label in labels],
        loc="outside lower center",
        ncols=LEGEND_COLUMNS,
        frameon=False,
        handlelength=3,
    )


def steps_caption(table: TableFinding, panels: dict[str, list[Curve]]) -> str:
    """What line, band and dashed line are."""
    return (
        f"{table.title}: top-1 against optimizer steps, on a fixed part of the test set (at most 1,000 "
        f"images). Line: mean over seeds (n = {_seeds(panels)}); band: lowest to highest seed; dashed line: "
        "the target."
    )


def curves_caption(table: TableFinding, panels: dict[str, list[Curve]]) -> str:
    """What line and band are, and that the frame may hide the start."""
    return (
        f"{table.title}: top-1 during training on a fixed part of the test set (at most 1,000 images, "
        f"so levels differ from the tables'). Line: mean over seeds (n = {_seeds(panels)}); band: lowest to "
        "highest seed. The axis is scaled to the last three quarters of training; earlier values may lie "
        "below it. Descriptive only: verdicts use the declared read-out."
    )


def curves_alt(panels: dict[str, list[Curve]]) -> str:
    """The end of each curve in words."""
    ends = [
        f"{f'{title}, ' if title else ''}{curve.label} {number(curve.mean[-1])} %"
        for title, curves in panels.items()
        for curve in curves
    ]
    return f"Learning curves; mean test top-1 at the last epoch: {'; '.join(ends)}."


def _seeds(panels: dict[str, list[Curve]]) -> str:
    seeds = sorted({curve.seeds for curves in panels.values() for curve in curves})
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"


def _limits(curves: list[Curve], hidden: float) -> tuple[float, float]:
    shown = [
        values[curve.at >= hidden * curve.at[-1]] for curve in curves for values in (curve.low, curve.high)
    ]
    low, high = min(float(v.min()) for v in shown), max(float(v.max()) for v in shown)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _draw(ax: Axes, curve: Curve, index: int) -> None:
    colour, style = LINES[index % len(LINES)], STYLES[(index + index // len(LINES)) % len(STYLES)]
    ax.fill_between(curve.at, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)
    ax.plot(
        curve.at, curve.mean, color=colour, linestyle=style, linewidth=1.5, label=curve.label,
        marker="o" if len(curve.at) == 1 else None, markersize=3,
    )  # fmt: skip


def _direct_labels(ax: Axes, curves: list[Curve], labels: list[str]) -> None:
    low, high = ax.get_ylim()
    ranked = sorted(curves, key=lambda curve: curve.mean[-1])
    texts = _shown([curve.label for curve in ranked])
    gap = min(LABEL_GAP, 1 / max(sum(text.count("\n") + 1 for text in texts), 1))
    places = spread_out([float(c.mean[-1]) for c in ranked], gap * (high - low), high)
    twin = right_labels(ax, places, texts)
    for tick, curve in zip(twin.get_yticklabels(), ranked, strict=True):
        tick.set_color(LINES[labels.index(curve.label) % len(LINES)])


def _shown(labels: list[str]) -> list[str]:
    """Wrapped, or cut to a line where there are many."""
    if len(labels) > MANY:
        return [textwrap.shorten(label, LABEL_CHARS, placeholder=" ...") for label in labels]
    return [textwrap.fill(label, LABEL_CHARS) for label in labels]


def spread_out(values: list[float], gap: float, top: float) -> list[float]:
    """Ascending positions near ascending `values`, at least `gap` apart and not above `top`.

    >>> spread_out([1.0, 1.1, 3.0], 0.5, 3.2)
    [1.0, 1.5, 3.0]
    >>> spread_out([2.9, 3.0], 0.5, 3.0)
    [2.5, 3.0]
    """
    places: list[float] = []
    for value in values:
        places.append(value if not places else max(value, places[-1] + gap))
    ceiling = top
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    return places
