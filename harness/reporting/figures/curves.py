"""Learning curves: mean over seeds, with the range from the lowest to the highest seed as a band."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.findings import TableFinding
from harness.reporting.figures.style import FAINT, LINES, STYLES, new_figure, right_labels
from harness.reporting.numbers import number

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

HEIGHT_IN = 3.1
LEGEND_ROW_IN = 0.2
LEGEND_COLUMNS = 3
LABEL_CHARS = 30
HIDDEN_START = 0.25  # the axis is scaled to what follows this fraction of the epochs
LABEL_GAP = 0.062  # smallest distance of two labels, as a fraction of the axis


@dataclass(frozen=True, slots=True)
class Curve:
    """One recipe. Arrays of shape (epochs,), accuracies in percent. `label` names every row that shows it."""

    label: str
    seeds: int
    epochs: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def panels_of(table: TableFinding, curves: DataFrame) -> dict[str, list[Curve]]:
    """Column of the table -> its curves; rows that share an arm share a curve."""
    panels: dict[str, list[Curve]] = {}
    for column in table.columns:
        labels: dict[str, list[str]] = {}
        for cell in table.cells:
            if cell.column == column and cell.arm_id is not None:
                labels.setdefault(cell.arm_id, []).append(cell.row)
        found = [curve for arm, rows in labels.items() if (curve := _curve(" = ".join(rows), arm, curves))]
        if found:
            panels[column or ""] = found
    return panels


def _curve(label: str, arm_id: str, curves: DataFrame) -> Curve | None:
    rows = curves[(curves["arm_id"] == arm_id) & curves["val_top1"].notna()]
    if rows.empty:
        return None
    by_epoch = rows.groupby("epoch", sort=True)["val_top1"]
    arrays = (by_epoch.mean(), by_epoch.min(), by_epoch.max())
    mean, low, high = (array.to_numpy(dtype=float) for array in arrays)
    epochs = np.asarray(by_epoch.mean().index, dtype=float)
    return Curve(label, int(rows["seed"].nunique()), epochs, mean, low, high)


def draw_curves(panels: dict[str, list[Curve]]) -> Figure:
    """One panel per column of the table, on a common accuracy axis."""
    labels = list(dict.fromkeys(curve.label for curves in panels.values() for curve in curves))
    direct = len(panels) == 1
    legend_rows = 0 if direct else -(-len(labels) // LEGEND_COLUMNS)
    figure = new_figure(HEIGHT_IN + LEGEND_ROW_IN * legend_rows)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    bottom, top = _limits([curve for curves in panels.values() for curve in curves])
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for curve in curves:
            _draw(ax, curve, labels.index(curve.label))
        ax.set_ylim(bottom, top)
        ax.set_title(title, loc="left")
        ax.set_xlabel("Epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(color=FAINT, linewidth=0.5)
    axes[0].set_ylabel("Test top-1, %")
    if direct:
        _direct_labels(axes[0], next(iter(panels.values())), labels)
    else:
        handles = {line.get_label(): line for ax in axes for line in ax.get_lines()}
        figure.legend(
            [handles[label] for label in labels],
            [textwrap.shorten(label, 48, placeholder=" ...") for label in labels],
            loc="outside lower center",
            ncols=LEGEND_COLUMNS,
            frameon=False,
            handlelength=3,
        )
    return figure


def curves_caption(table: TableFinding, panels: dict[str, list[Curve]]) -> str:
    """What line and band are, and that the frame may hide the start."""
    seeds = sorted({curve.seeds for curves in panels.values() for curve in curves})
    n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"{table.title}: top-1 during training on a fixed part of the test set (at most 1,000 images, "
        f"so levels differ from the tables'). Line: mean over seeds (n = {n}); band: lowest to highest seed. "
        "The axis is scaled to the last three quarters of training; earlier values may lie below it. "
        "Descriptive only: verdicts use the declared read-out."
    )


def curves_alt(panels: dict[str, list[Curve]]) -> str:
    """The end of each curve in words."""
    ends = [
        f"{f'{title}, ' if title else ''}{curve.label} {number(curve.mean[-1])} %"
        for title, curves in panels.items()
        for curve in curves
    ]
    return f"Learning curves; mean test top-1 at the last epoch: {'; '.join(ends)}."


def _limits(curves: list[Curve]) -> tuple[float, float]:
    shown = [
        values[curve.epochs >= HIDDEN_START * curve.epochs[-1]]
        for curve in curves
        for values in (curve.low, curve.high)
    ]
    low, high = min(float(v.min()) for v in shown), max(float(v.max()) for v in shown)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _draw(ax: Axes, curve: Curve, index: int) -> None:
    colour, style = LINES[index % len(LINES)], STYLES[(index + index // len(LINES)) % len(STYLES)]
    ax.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)
    ax.plot(
        curve.epochs, curve.mean, color=colour, linestyle=style, linewidth=1.5, label=curve.label,
        marker="o" if len(curve.epochs) == 1 else None, markersize=3,
    )  # fmt: skip


def _direct_labels(ax: Axes, curves: list[Curve], labels: list[str]) -> None:
    low, high = ax.get_ylim()
    ranked = sorted(curves, key=lambda curve: curve.mean[-1])
    places = spread_out([float(c.mean[-1]) for c in ranked], LABEL_GAP * (high - low), high)
    twin = right_labels(ax, places, [textwrap.fill(curve.label, LABEL_CHARS) for curve in ranked])
    for tick, curve in zip(twin.get_yticklabels(), ranked, strict=True):
        tick.set_color(LINES[labels.index(curve.label) % len(LINES)])


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
