"""Two figures of credit: how the total builds up from trick to trick, and each trick first against last."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.credit_findings import Amount, CreditFinding, CreditTotal, TrickCredit
from harness.analysis.credit_weights import FIRST_AND_LAST
from harness.analysis.findings import GLYPHS, Settings, TableFinding
from harness.analysis.units import metric_name
from harness.reporting.figures.picture import Picture, finish
from harness.reporting.figures.style import FAINT, GREY, INK, new_figure, right_labels, verdict_colour
from harness.reporting.sections.credit import PATH_DEPENDENT, amount_text, credit_key

ROW_IN, FRAME_IN, SCATTER_IN = 0.46, 0.75, 3.4
LABEL_CHARS = 28
BAR, THIN = 0.36, 0.16  # heights of bars, in rows
BELOW = 0.33  # where the forward bars and the marks of first and last are, in rows below the credit
MARGIN = 0.12


@dataclass(frozen=True, slots=True)
class Panel:
    """One column of the table: every trick has a credit."""

    total: CreditTotal
    credits: tuple[TrickCredit, ...]

    @property
    def start(self) -> float:
        """Where the bars begin: the level without any trick, or 0 where no row shows it."""
        return self.total.none or 0.0


def credit_pictures(table: TableFinding, settings: Settings) -> list[Picture]:
    """The figures of one table; none where it has no credit, or no column whose tricks all have one."""
    credit = table.credit
    panels = [] if credit is None else panels_of(credit)
    if credit is None or not panels:
        return []
    key, where = credit_key(table.key), belongs_to(table.key)
    waterfall = waterfall_caption(credit, panels), waterfall_alt(panels, settings)
    scatter = scatter_caption(credit), scatter_alt(credit, panels, settings)
    return [
        finish(key, where, draw_waterfall(panels, settings), waterfall),
        finish(f"{key}_order", where, draw_scatter(credit, panels, settings), scatter),
    ]


def belongs_to(table: str) -> str:
    """`Picture.table` of the figures of a table's credit: no table has this key."""
    return f"{table}/credit"


def panels_of(credit: CreditFinding) -> list[Panel]:
    """The columns in which every trick has a credit."""
    panels = []
    for total in credit.totals:
        mine = tuple(each for each in credit.credits if each.column == total.column)
        if all(each.credit.estimate is not None for each in mine):
            panels.append(Panel(total, mine))
    return panels


def draw_waterfall(panels: Sequence[Panel], settings: Settings) -> Figure:
    """From no trick to all of them: a bar per credit, its interval, and what other orders would show."""
    rows = [len(panel.credits) + 2 for panel in panels]
    figure = new_figure(sum(FRAME_IN + ROW_IN * count for count in rows))
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=rows)[:, 0]
    for ax, panel in zip(axes, panels, strict=True):
        _draw_steps(ax, panel, settings)
        unit = ", %" if settings.in_percent else ""
        known = panel.total.none is not None
        ax.set_xlabel(
            f"{metric_name(settings.metric)}{unit}" if known else "Above the level without any trick"
        )
        if panel.total.column is not None:
            ax.set_title(panel.total.column, loc="left", fontweight="bold")
    return figure


def _draw_steps(ax: Axes, panel: Panel, settings: Settings) -> None:
    ax.use_sticky_edges = False  # or the first bar would start on the frame
    at = forward = panel.start
    last = len(panel.credits) + 1
    ax.set_ylim(last + 0.6, -0.6)
    ax.plot(at, 0, "o", color=INK, markersize=5)
    for place, each in enumerate(panel.credits, start=1):
        step, colour = each.credit.estimate or 0.0, verdict_colour(each.verdict)
        ax.plot([at, at], [place - 1, place + BELOW], color=GREY, linewidth=0.7, zorder=1)
        ax.barh(place, step, left=at, height=BAR, color=colour, alpha=0.85, zorder=2)
        _whisker(ax, each.credit, at, place)
        if each.forward is not None and each.forward.estimate is not None:
            ax.barh(
                place + BELOW, each.forward.estimate, left=forward, height=THIN, facecolor="white",
                edgecolor=GREY, hatch="////", linewidth=0.7, zorder=2,
            )  # fmt: skip
            forward += each.forward.estimate
        else:
            _ends(ax, each, at, place + BELOW)
        at += step
    ax.plot([at, at], [last - 1, last], color=GREY, linewidth=0.7, zorder=1)
    ax.plot(at, last, "o", color=INK, markersize=5)
    _labels(ax, panel, settings)


def _whisker(ax: Axes, amount: Amount, at: float, place: float) -> None:
    if amount.low is not None and amount.high is not None:
        ax.plot([at + amount.low, at + amount.high], [place, place], color=INK, linewidth=1.2, zorder=3)
        ax.plot([at + amount.low, at + amount.high], [place, place], "|", color=INK, markersize=6, zorder=3)


def _ends(ax: Axes, credit: TrickCredit, at: float, place: float) -> None:
    """Where the bar would end for the trick alone, and given all others; a line joins the two."""
    marks = [
        (at + amount.estimate, marker, face)
        for amount, marker, face in ((credit.first, ">", "white"), (credit.last, "<", GREY))
        if amount.estimate is not None
    ]
    ax.plot([x for x, _, _ in marks], [place] * len(marks), color=GREY, linewidth=0.8, zorder=2)
    for x, marker, face in marks:
        ax.plot(x, place, marker, markerfacecolor=face, markeredgecolor=INK, markersize=5.5, zorder=3)


def _labels(ax: Axes, panel: Panel, settings: Settings) -> None:
    names = ["none of them", *(each.trick for each in panel.credits), "all of them"]
    places = [float(place) for place in range(len(names))]
    ax.set_yticks(places, [textwrap.fill(name, LABEL_CHARS) for name in names])
    ax.tick_params(axis="y", length=0)
    texts = ["", *(f"{GLYPHS[each.verdict]} {amount_text(each.credit, settings)}" for each in panel.credits)]
    texts.append(f"total {amount_text(panel.total.total, settings)}")
    twin = right_labels(ax, places, texts)
    for tick, each in zip(twin.get_yticklabels()[1:-1], panel.credits, strict=True):
        tick.set_color(verdict_colour(each.verdict))
    ax.grid(axis="x", color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)


def waterfall_caption(credit: CreditFinding, panels: Sequence[Panel]) -> str:
    """What the marks mean."""
    has_forward = all(each.forward is not None for panel in panels for each in panel.credits)
    other = "hatched: what each trick adds in the given order" if has_forward else (
        "triangles: where the bar would end for the trick alone (hollow, pointing right) and given all "
        "others (grey, pointing left)"
    )  # fmt: skip
    return (
        "How the total splits. Bars: credits, one after another from none of the tricks to all of them; "
        f"line: 95 % interval of the credit; {other}. "
        "▲ helps, ▼ hurts, ≈ no detectable difference, ? undecided."
    )


def waterfall_alt(panels: Sequence[Panel], settings: Settings) -> str:
    """Every bar in words."""
    unit = " pp" if settings.in_percent else ""
    parts = []
    for panel in panels:
        where = "" if panel.total.column is None else f"{panel.total.column}: "
        steps = "; ".join(
            f"{each.trick} {amount_text(each.credit, settings)}{unit}, {each.verdict}"
            for each in panel.credits
        )
        parts.append(f"{where}{steps}; total {amount_text(panel.total.total, settings)}{unit}.")
    return "Waterfall of credits. " + " ".join(parts)


def draw_scatter(credit: CreditFinding, panels: Sequence[Panel], settings: Settings) -> Figure:
    """First across, last up; on the diagonal the order does not matter."""
    figure = new_figure(SCATTER_IN * len(panels))
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    across, up = ("alone", "given all others")
    if credit.places != FIRST_AND_LAST:
        across, up = ("in the given order", "in the reverse order")
    unit = ", pp" if settings.in_percent else ""
    for ax, panel in zip(axes, panels, strict=True):
        ax.axhline(0, color=GREY, linewidth=0.7)
        ax.axvline(0, color=GREY, linewidth=0.7)
        ax.axline((0, 0), slope=1, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        for number, each in enumerate(panel.credits, start=1):
            _draw_point(ax, number, each)
        ax.margins(MARGIN)
        ax.set_xlabel(f"Effect {across}{unit}")
        ax.set_ylabel(f"Effect {up}{unit}")
        ax.grid(color=FAINT, linewidth=0.5)
        ax.set_axisbelow(True)
        ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, title=panel.total.column,
                  handlelength=1.2, alignment="left")  # fmt: skip
    return figure


def _draw_point(ax: Axes, number: int, each: TrickCredit) -> None:
    first, last = each.first, each.last
    if first.estimate is None or last.estimate is None:
        return
    colour = verdict_colour(each.verdict)
    if first.low is not None and first.high is not None:
        ax.plot([first.low, first.high], [last.estimate] * 2, color=colour, linewidth=0.9, alpha=0.6)
    if last.low is not None and last.high is not None:
        ax.plot([first.estimate] * 2, [last.low, last.high], color=colour, linewidth=0.9, alpha=0.6)
    face, ink = (colour, "white") if each.path_dependent else ("white", colour)
    ax.plot(first.estimate, last.estimate, "o", markerfacecolor=face, markeredgecolor=colour, markersize=11)
    ax.annotate(
        str(number), (first.estimate, last.estimate), color=ink, ha="center", va="center", fontsize=7.5,
        fontweight="bold",
    )  # fmt: skip
    name = textwrap.fill(f"{number}  {GLYPHS[each.verdict]} {each.trick}", LABEL_CHARS)
    ax.plot([], [], "o", markerfacecolor=face, markeredgecolor=colour, label=name)


def scatter_caption(credit: CreditFinding) -> str:
    """How to read the scatter."""
    sides = "below it a trick overlaps with the others, above it the trick needs them"
    if credit.places != FIRST_AND_LAST:
        sides = "away from it the order matters"
    return (
        f"Does the order matter? On the dashed diagonal it does not; {sides}. Filled: {PATH_DEPENDENT}, that "
        "is, the 95 % interval of the half-gap excludes 0. Bars: 95 % intervals of each effect alone."
    )


def scatter_alt(credit: CreditFinding, panels: Sequence[Panel], settings: Settings) -> str:
    """Every point in words."""
    across, up = credit.places
    unit = " pp" if settings.in_percent else ""
    parts = []
    for panel in panels:
        where = "" if panel.total.column is None else f"{panel.total.column}: "
        points = "; ".join(
            f"{each.trick} {across} {amount_text(each.first, settings)}{unit}, {up} "
            f"{amount_text(each.last, settings)}{unit}{', ' + PATH_DEPENDENT if each.path_dependent else ''}"
            for each in panel.credits
        )
        parts.append(f"{where}{points}.")
    return f"Scatter of each trick's effect, {across} against {up}. " + " ".join(parts)
