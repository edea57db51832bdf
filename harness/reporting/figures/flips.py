"""Flips: how many test images each row gains and loses against the row it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from harness.analysis.findings import Findings, TableFinding
from harness.analysis.further_findings import RowFlips
from harness.reporting.figures.picture import Sketch, twin
from harness.reporting.figures.rows import Line, Panel, draw_rows, pages_of, with_headings
from harness.reporting.figures.style import BLUE, GREY, INK, VERMILLION
from harness.reporting.names import ordered, short_name
from harness.reporting.numbers import count, number, signed

BAR = 0.32  # half of a bar's height, in lines


def flip_sketches(findings: Findings) -> list[Sketch]:
    """As many figures as needed; none where no row has per-image bits of both sides."""
    panels = [panel for table in findings.tables if (panel := _panel(table, findings))]
    data = twin(findings.flips)
    return [
        Sketch(
            key=f"flips_{k + 1}" if k else "flips",
            figure=draw_rows(page, _draw, "Test images lost (left) and gained (right), per run"),
            caption=_caption(k),
            alt=_alt(page),
            data="" if k else data,
        )
        for k, page in enumerate(pages_of(panels))
    ]


def _panel(table: TableFinding, findings: Findings) -> Panel | None:
    found = {(each.row, each.column): each for each in findings.flips if each.table == table.key}
    lines = [
        (cell.column, Line(cell.row, flips, _numbers(flips)))
        for cell in ordered(table)
        if (flips := found.get((cell.row, cell.column)))
    ]
    if not lines:
        return None
    images = " or ".join(f"{n:,}" for n in sorted({each.images for each in found.values()}))
    return Panel(f"{short_name(table.key)}, of {images} test images", with_headings(lines))


def _numbers(flips: RowFlips) -> str:
    gained, lost = number(flips.gained, 0), number(flips.lost, 0)
    return f"gained {gained}, lost {lost}, net {signed(flips.gained - flips.lost, 0)}"


def _draw(ax: Axes, places: Sequence[int], rows: Sequence[RowFlips]) -> None:
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


def _caption(page: int) -> str:
    if page:
        return "Images gained and lost, continued. Exploratory: nothing here is tested."
    return (
        "Test images gained (filled: right in a run of the row, wrong in one of the row it is compared with) "
        "and lost (hollow: the reverse), means over all pairs of runs; diamond: gained minus lost, the "
        "difference in top-1. Upright strokes: flips between two runs of the compared row alone, so bars up "
        "to there are mere re-training. Exploratory: nothing here is tested. Numbers: figures/flips.csv."
    )


def _alt(page: list[Panel]) -> str:
    flips = [(panel.title.split(",")[0], line) for panel in page for line in panel.lines if line.item]
    parts = [f"{table}, {line.label}: {line.text}" for table, line in flips]
    return f"Images gained and lost, {count(len(parts), 'row')}. {'; '.join(parts)}."
