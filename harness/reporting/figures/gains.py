"""When a gain appears: learning-curve difference between a row and the row it is compared with."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harness.analysis.findings import GLYPHS, HELPS, HURTS, CellFinding, Findings, TableFinding
from harness.reporting.figures.curves import HIDDEN_START, spread_out
from harness.reporting.figures.picture import Sketch, twin
from harness.reporting.figures.style import FAINT, GREY, LINES, STYLES, new_figure, right_labels
from harness.reporting.names import ordered, short_name
from harness.reporting.numbers import signed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

PANEL_IN, FRAME_IN, ACROSS = 1.55, 0.35, 2
MOST_PANELS, MOST_LINES = 10, 8  # of one figure; lines of one panel
LABEL_CHARS, TITLE_CHARS, LABEL_GAP = 22, 52, 0.12


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
        _draw(ax, title, gains[:MOST_LINES])
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


def _draw(ax: Axes, title: str, gains: list[Gain]) -> None:
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
    title = f"{title}: {_label(gains[0], TITLE_CHARS)}" if len(gains) == 1 else title
    ax.set_title(textwrap.shorten(title, TITLE_CHARS, placeholder=" ..."), loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.grid(color=FAINT, linewidth=0.5)
    if len(gains) > 1:
        _name_lines(ax, gains)


def _name_lines(ax: Axes, gains: list[Gain]) -> None:
    """At the right end of each line, pushed apart."""
    low, high = ax.get_ylim()
    ranked = sorted(range(len(gains)), key=lambda k: gains[k].mean[-1])
    places = spread_out([float(gains[k].mean[-1]) for k in ranked], LABEL_GAP * (high - low), high)
    axis = right_labels(ax, places, [_label(gains[k]) for k in ranked])
    for tick, k in zip(axis.get_yticklabels(), ranked, strict=True):
        tick.set_color(LINES[k % len(LINES)])


def _label(gain: Gain, chars: int = LABEL_CHARS) -> str:
    assert gain.cell.effect is not None
    return f"{GLYPHS[gain.cell.effect.verdict]} {textwrap.shorten(gain.cell.row, chars, placeholder=' ...')}"


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
