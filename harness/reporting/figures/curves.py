"""Learning curves, and when a gain appears: mean over seeds, lowest to highest seed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.findings import GLYPHS, HELPS, HURTS, CellFinding, Findings, TableFinding
from harness.reporting.document import ordered, short_name
from harness.reporting.figures.style import FAINT, GREY, LINES, STYLES, Sketch, new_figure, twin
from harness.reporting.numbers import number, signed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

# Learning curves over epochs or steps: mean over seeds, lowest to highest seed as a band.


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
class DrawnCurve:
    """One recipe. Arrays (P,) over the curve's points, accuracies in percent. `label` names its rows."""

    label: str
    seeds: int
    at: NDArray[np.float64]  # epochs or optimizer steps
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def panels_of(table: TableFinding, curves: DataFrame, axis: str = EPOCH) -> dict[str, list[DrawnCurve]]:
    """Column of the table -> its curves over `axis`; rows that share an arm share a curve."""
    panels: dict[str, list[DrawnCurve]] = {}
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


def _curve(label: str, arm_id: str, curves: DataFrame, axis: str) -> DrawnCurve | None:
    rows = curves[(curves["arm_id"] == arm_id) & curves["val_top1"].between(0.0, 100.0)]
    if rows.empty:
        return None
    by_point = rows.groupby(axis, sort=True)["val_top1"]
    arrays = (by_point.mean(), by_point.min(), by_point.max())
    mean, low, high = (array.to_numpy(dtype=float) for array in arrays)
    at = np.asarray(by_point.mean().index, dtype=float)
    return DrawnCurve(label, int(rows["seed"].nunique()), at, mean, low, high)


def draw_curves(
    panels: dict[str, list[DrawnCurve]],
    axis: str = EPOCH,
    targets: Mapping[str, float] = MappingProxyType({}),
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


def steps_caption(table: TableFinding, panels: dict[str, list[DrawnCurve]]) -> str:
    """What line, band and dashed line are."""
    return (
        f"{table.title}: top-1 against optimizer steps, on a fixed part of the test set (at most 1,000 "
        f"images). Line: mean over seeds (n = {_seeds(panels)}); band: lowest to highest seed; dashed line: "
        "the target."
    )


def curves_caption(table: TableFinding, panels: dict[str, list[DrawnCurve]]) -> str:
    """What line and band are, and that the frame may hide the start."""
    return (
        f"{table.title}: top-1 during training on a fixed part of the test set (at most 1,000 images, "
        f"so levels differ from the tables'). Line: mean over seeds (n = {_seeds(panels)}); band: lowest to "
        "highest seed. The axis is scaled to the last three quarters of training; earlier values may lie "
        "below it. Descriptive only: verdicts use the declared read-out."
    )


def curves_alt(panels: dict[str, list[DrawnCurve]]) -> str:
    """The end of each curve in words."""
    ends = [
        f"{f'{title}, ' if title else ''}{curve.label} {number(curve.mean[-1])} %"
        for title, curves in panels.items()
        for curve in curves
    ]
    return f"Learning curves; mean test top-1 at the last epoch: {'; '.join(ends)}."


def _seeds(panels: dict[str, list[DrawnCurve]]) -> str:
    seeds = sorted({curve.seeds for curves in panels.values() for curve in curves})
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"


def _limits(curves: list[DrawnCurve], hidden: float) -> tuple[float, float]:
    shown = [
        values[curve.at >= hidden * curve.at[-1]] for curve in curves for values in (curve.low, curve.high)
    ]
    low, high = min(float(v.min()) for v in shown), max(float(v.max()) for v in shown)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _look(index: int) -> tuple[str, Any]:
    """The colour and the style of a line."""
    return LINES[index % len(LINES)], STYLES[(index + index // len(LINES)) % len(STYLES)]


def _draw(ax: Axes, curve: DrawnCurve, index: int) -> None:
    colour, style = _look(index)
    ax.fill_between(curve.at, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)
    ax.plot(
        curve.at, curve.mean, color=colour, linestyle=style, linewidth=1.5, label=curve.label,
        marker="o" if len(curve.at) == 1 else None, markersize=3,
    )  # fmt: skip


PIECE_PT = 20  # of a line, beside its name


def right_labels(
    ax: Axes,
    positions: list[float],
    labels: list[str],
    limits: tuple[float, float] | None = None,
    lines: Sequence[tuple[str, Any]] = (),
) -> Axes:
    """Texts at the right edge, one per height (by default in data units); the layout keeps room for them.

    lines: (colour, style) of the line that each names, for a piece of it before the text, which has its
    colour too: colours alone say nothing in grey print.
    """
    right = ax.twinx()
    right.set_ylim(limits or ax.get_ylim())
    right.set_yticks(positions, labels)
    right.tick_params(axis="y", length=0)
    if lines:
        right.tick_params(axis="y", pad=PIECE_PT + 6)
    right.spines[:].set_visible(False)
    for position, tick, (colour, style) in zip(positions, right.get_yticklabels(), lines, strict=False):
        tick.set_color(colour if colour != LINES[-1] else GREY)  # the lightest is too light for letters
        right.annotate(
            "",
            (1, position),
            (PIECE_PT + 3, 0),
            xycoords=right.get_yaxis_transform(),
            textcoords="offset points",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "shrinkA": 0,
                "shrinkB": 3,
                "color": colour,
                "linestyle": style,
                "linewidth": 1.5,
            },
        )
    return right


def _direct_labels(ax: Axes, curves: list[DrawnCurve], labels: list[str]) -> None:
    low, high = ax.get_ylim()
    ranked = sorted(curves, key=lambda curve: curve.mean[-1])
    texts = _shown([curve.label for curve in ranked])
    gap = min(LABEL_GAP, 1 / max(sum(text.count("\n") + 1 for text in texts), 1))
    places = spread_out([float(c.mean[-1]) for c in ranked], gap * (high - low), high)
    right_labels(ax, places, texts, lines=[_look(labels.index(curve.label)) for curve in ranked])


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


# When a gain appears: learning-curve difference between a row and the row it is compared with.


PANEL_IN, FRAME_IN, ACROSS = 1.55, 0.35, 2
MOST_PANELS, MOST_LINES = 10, 8  # of one figure; lines of one panel
GAIN_CHARS, TITLE_CHARS, GAIN_GAP = 22, 52, 0.12


@dataclass(frozen=True, slots=True)
class Gain:
    """Row minus reference over epochs, for the seeds that both have. Arrays (P,), percentage points."""

    cell: CellFinding
    seeds: int
    epochs: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


Panels = list[tuple[str, list[Gain]]]


def gain_sketches(findings: Findings, curves: DataFrame) -> list[Sketch]:
    """Rows with the verdict helps or hurts, in one panel per table and column; none where no row has one."""
    wanted = [table for table in findings.tables if any(_is_told(cell) for cell in table.cells)]
    if not wanted:
        return []
    by_arm = _tables_of_values(curves, {c.arm_id for t in wanted for c in t.cells if c.arm_id})
    panels = [panel for table in wanted for panel in _panels(table, by_arm)]
    data = twin(
        _line(title, gain, k) for title, gains in panels for gain in gains for k in range(gain.mean.size)
    )
    pages = [panels[start : start + MOST_PANELS] for start in range(0, len(panels), MOST_PANELS)]
    return [_sketch(page, k, "" if k else data) for k, page in enumerate(pages)]


def gain_of(cell: CellFinding, row: DataFrame, reference: DataFrame) -> Gain | None:
    """From two frames of values, epochs down and seeds across; None where they end at different epochs."""
    seeds = [seed for seed in row.columns if seed in reference.columns]
    if not seeds or row.index[-1] != reference.index[-1]:
        return None
    difference = (row[seeds] - reference[seeds]).dropna(how="all")
    if len(difference) < 2:
        return None
    values = difference.to_numpy(dtype=float)
    return Gain(
        cell,
        len(seeds),
        np.asarray(difference.index, dtype=float),
        np.nanmean(values, axis=1),
        np.nanmin(values, axis=1),
        np.nanmax(values, axis=1),
    )


def _is_told(cell: CellFinding) -> bool:
    return cell.effect is not None and cell.effect.verdict in (HELPS, HURTS)


def _tables_of_values(curves: DataFrame, arms: set[str]) -> dict[str, DataFrame]:
    """arm_id -> val_top1, epochs down and seeds across."""
    rows = curves[curves["arm_id"].isin(arms) & curves["val_top1"].between(0.0, 100.0)]
    means = rows.groupby(["arm_id", "epoch", "seed"])["val_top1"].mean().unstack("seed")
    return {
        str(arm): frame.droplevel("arm_id").dropna(axis="columns", how="all")
        for arm, frame in means.groupby(level="arm_id")
    }


def _panels(table: TableFinding, by_arm: Mapping[str, DataFrame]) -> Panels:
    arm_of = {(cell.row, cell.column): cell.arm_id for cell in table.cells}
    found: dict[str, list[Gain]] = {}
    for cell in ordered(table):
        if cell.effect is None or not _is_told(cell):
            continue
        row = by_arm.get(cell.arm_id or "")
        reference = by_arm.get(arm_of.get((cell.effect.versus, cell.column)) or "")
        gain = gain_of(cell, row, reference) if row is not None and reference is not None else None
        if gain:
            title = short_name(table.key) + (f", {cell.column}" if cell.column else "")
            found.setdefault(title, []).append(gain)
    return list(found.items())


def _sketch(page: Panels, number: int, data: str) -> Sketch:
    across = min(ACROSS, len(page))
    down = -(-len(page) // across)
    figure = new_figure(FRAME_IN + PANEL_IN * down)
    axes = figure.subplots(down, across, squeeze=False)
    for ax, (title, gains) in zip(axes.flat, page, strict=False):
        _draw_gains(ax, title, gains[:MOST_LINES])
    for ax in axes.flat[len(page) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("Top-1, pp")
    for ax in axes.flat[max(len(page) - across, 0) : len(page)]:
        ax.set_xlabel("Epoch")
    return Sketch(
        key=f"gains_{number + 1}" if number else "gains",
        figure=figure,
        caption=_caption(page),
        alt=_alt(page),
        data=data,
    )


def _draw_gains(ax: Axes, title: str, gains: list[Gain]) -> None:
    for index, gain in enumerate(gains):
        colour = LINES[index % len(LINES)]
        ax.fill_between(gain.epochs, gain.low, gain.high, color=colour, alpha=0.12, linewidth=0)
        ax.plot(gain.epochs, gain.mean, color=colour, linestyle=STYLES[index % len(STYLES)], linewidth=1.4)
    shown = [
        values[gain.epochs >= HIDDEN_START * gain.epochs[-1]]
        for gain in gains
        for values in (gain.low, gain.high)
    ]
    low, high = min(0.0, *(float(v.min()) for v in shown)), max(0.0, *(float(v.max()) for v in shown))
    margin = 0.06 * (high - low) or 0.5
    ax.set_ylim(low - margin, high + margin)
    ax.axhline(0, color=GREY, linewidth=0.8)
    alone = f"\n{_label(gains[0])}" * (len(gains) == 1)
    ax.set_title(textwrap.shorten(title, TITLE_CHARS, placeholder=" ...") + alone, loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.grid(color=FAINT, linewidth=0.5)
    if len(gains) > 1:
        _name_lines(ax, gains)


def _name_lines(ax: Axes, gains: list[Gain]) -> None:
    """At the right end of each line, pushed apart."""
    low, high = ax.get_ylim()
    ranked = sorted(range(len(gains)), key=lambda k: gains[k].mean[-1])
    places = spread_out([float(gains[k].mean[-1]) for k in ranked], GAIN_GAP * (high - low), high)
    lines = [(LINES[k % len(LINES)], STYLES[k % len(STYLES)]) for k in ranked]
    right_labels(ax, places, [_label(gains[k]) for k in ranked], lines=lines)


def _label(gain: Gain) -> str:
    assert gain.cell.effect is not None
    name = textwrap.shorten(gain.cell.row, GAIN_CHARS, placeholder=" ...")
    return f"{GLYPHS[gain.cell.effect.verdict]} {name}"


def _caption(page: Panels) -> str:
    seeds = sorted({gain.seeds for _, gains in page for gain in gains})
    n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        "When a gain appears: learning curve of a row minus that of the row it is compared with, for rows "
        f"that help or hurt and train as long. Line: mean over seeds (n = {n}); band: lowest to highest "
        "seed. On a fixed part of the test set; the axes are scaled to the last three quarters. Descriptive "
        "only: verdicts use the declared read-out. Numbers: figures/gains.csv."
    )


def _alt(page: Panels) -> str:
    parts = [
        f"{title}, {gain.cell.row}: {signed(float(gain.mean[gain.mean.size // 2]))} pp half-way, "
        f"{signed(float(gain.mean[-1]))} pp at the end"
        for title, gains in page
        for gain in gains
    ]
    return f"Differences of learning curves, means over seeds. {'; '.join(parts)}."


def _line(title: str, gain: Gain, k: int) -> dict[str, object]:
    return {
        "table": title, "row": gain.cell.row, "seeds": gain.seeds, "epoch": float(gain.epochs[k]),
        "mean": float(gain.mean[k]), "low": float(gain.low[k]), "high": float(gain.high[k]),
    }  # fmt: skip
