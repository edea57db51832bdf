"""Seed strip: how far every run lies from the mean of its recipe, and whether pairing by seed works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from harness.analysis.findings import Findings, Level, Settings, TableFinding
from harness.analysis.units import metric_name, plain_text
from harness.reporting.figures.picture import Sketch
from harness.reporting.figures.rows import Line, Panel, draw_rows, pages_of, with_headings
from harness.reporting.figures.style import BLUE, INK
from harness.reporting.names import ordered, short_name
from harness.reporting.numbers import count, number

MARKERS = "os^Dv*P"  # a seed keeps its mark in all rows; with more seeds than marks all are dots


@dataclass(frozen=True, slots=True)
class Strip:
    """The runs of one recipe: seed -> distance from their mean, in the metric's units."""

    offsets: dict[int, float]
    pooled_sd: float | None


def seed_sketches(findings: Findings) -> list[Sketch]:
    """As many figures as needed; none where no recipe has two runs with a value."""
    panels = [panel for table in findings.tables if (panel := _panel(table, findings.settings))]
    seeds = sorted(
        {seed for table in findings.tables for _, level in _levels(table) for seed in level.values}
    )
    marks = dict(zip(seeds, MARKERS, strict=False)) if len(seeds) <= len(MARKERS) else {}
    unit = ", percentage points" if findings.settings.in_percent else ""
    label = f"{metric_name(findings.settings.metric)} of a run minus the recipe's mean{unit}"

    def draw(ax: Axes, places: Sequence[int], strips: Sequence[Strip]) -> None:
        _draw(ax, places, strips, marks)

    return [
        Sketch(
            key=f"seeds_{k + 1}" if k else "seeds",
            figure=draw_rows(page, draw, label),
            caption=_caption(bool(marks), k),
            alt=_alt(page, findings.settings),
        )
        for k, page in enumerate(pages_of(panels))
    ]


def pairing_text(table: TableFinding) -> str:
    """What runs with the same seed have in common, and what using it cost."""
    if table.seed_correlation is None or table.paired_df_cost is None:
        return "ρ not known"
    rho = number(table.seed_correlation)
    saved = f"{100 * float(rho):.0f} % of the variance" if float(rho) else "nothing"
    return f"ρ = {rho}: pairing saved {saved}, cost {table.paired_df_cost} df"


def _panel(table: TableFinding, settings: Settings) -> Panel | None:
    seen: set[str] = set()
    lines = []
    for cell in ordered(table):
        level = cell.level
        if cell.arm_id in seen or level is None or level.mean is None or level.n < 2:
            continue
        seen.add(str(cell.arm_id))
        strip = Strip({seed: value - level.mean for seed, value in level.values.items()}, table.pooled_sd)
        lines.append((cell.column, Line(cell.row, strip, _numbers(level, settings))))
    if not lines:
        return None
    return Panel(f"{short_name(table.key)}: {pairing_text(table)}", with_headings(lines))


def _levels(table: TableFinding) -> list[tuple[str, Level]]:
    return [(cell.row, cell.level) for cell in table.cells if cell.level is not None]


def _numbers(level: Level, settings: Settings) -> str:
    assert level.mean is not None
    assert level.sd is not None
    lost = f", {level.diverged} diverged" * bool(level.diverged)
    lost += f", {level.without_value} without a finite value" * bool(level.without_value)
    return f"{plain_text(level.mean, settings)}, sd {plain_text(level.sd, settings)}, n {level.n}{lost}"


def _draw(ax: Axes, places: Sequence[int], strips: Sequence[Strip], marks: dict[int, str]) -> None:
    sd = strips[0].pooled_sd
    if sd is not None:
        ax.axvspan(-sd, sd, color="#EDEDED", linewidth=0, zorder=0)
    ax.axvline(0, color=INK, linewidth=1.0, zorder=1)
    if not marks:
        dots = [
            (value, place)
            for place, strip in zip(places, strips, strict=True)
            for value in strip.offsets.values()
        ]
        ax.plot(*zip(*dots, strict=True), "o", color=BLUE, markersize=3, alpha=0.7, linewidth=0)
        return
    for seed, marker in marks.items():
        at = [(s.offsets[seed], place) for place, s in zip(places, strips, strict=True) if seed in s.offsets]
        if at:
            ax.plot(
                *zip(*at, strict=True), marker, markeredgecolor=BLUE, markerfacecolor="none", markersize=4
            )


def _caption(marked: bool, page: int) -> str:
    if page:
        return "Noise between seeds, continued."
    shape = " One shape: one seed." * marked
    return (
        "Noise between seeds: one mark per run, as its distance from its recipe's mean (mean, sd and n at "
        f"the right). Grey band: ± the table's pooled sd.{shape} ρ: share of the variance that runs with one "
        "seed have in common; pairing by seed saves it, for some degrees of freedom (df). "
        "Values: tables/*.csv."
    )


def _alt(page: list[Panel], settings: Settings) -> str:
    runs = sum(len(line.item.offsets) for panel in page for line in panel.lines if line.item)
    unit = " pp" if settings.in_percent else ""
    parts = []
    for panel in page:
        strips = [line for line in panel.lines if line.item]
        widest = max(strips, key=lambda line: max(map(abs, line.item.offsets.values())))
        far = max(map(abs, widest.item.offsets.values()))
        parts.append(f"{panel.title}; farthest from its mean: a run of {widest.label}, by "
                     f"{plain_text(far, settings)}{unit}")  # fmt: skip
    return f"Strips of {count(runs, 'run')}. {'. '.join(parts)}."
