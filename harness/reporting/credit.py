"""Credit in a report: its tables and sentences, and its two figures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.contrasts import FIRST_AND_LAST
from harness.analysis.findings import (
    GLYPHS,
    Amount,
    CreditFinding,
    CreditTotal,
    Settings,
    TableFinding,
    TrickCredit,
)
from harness.analysis.verdicts import metric_name, size_text
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.figures.curves import right_labels
from harness.reporting.figures.style import (
    FAINT,
    GREY,
    INK,
    Picture,
    finish,
    new_figure,
    verdict_colour,
)
from harness.reporting.sections.opening import with_minus
from harness.reporting.sections.tables import effect_digits

# Credit: how the total of a table splits over its tricks, and whether the order of adding them matters.


PATH_DEPENDENT = "path-dependent"
GIVEN_ABOVE = (
    "Cumulative increments: each effect is what the row adds given the rows above it. In another order the "
    "same change may add more or less; the designs both_ends, both_ways, factorial and fractional tell."
)
FORMULAS = {
    "both_ends": (
        "Credit: the mean of first and last, plus an equal share of what these means leave of the total, so "
        "that the credits add up. It is the Shapley value, the mean over all orders of adding the tricks, if "
        "interactions are at most pairwise."
    ),
    "both_ways": (
        "Forward: what the trick adds to those before it in the given order; reverse: to those after it. "
        "Credit: the mean of the two. It is the Shapley value, the mean over all orders of adding the "
        "tricks, if interactions are at most pairwise."
    ),
    "factorial": (
        "Credit: the Shapley value, the mean over all orders of adding the tricks, from every subset of them."
    ),
    "fractional": (
        "All numbers are from a least-squares fit of main effects and pairs to the rows. Credit: the main "
        "effect plus half of the trick's pairs. It is the Shapley value, the mean over all orders of adding "
        "the tricks, if interactions are at most pairwise."
    ),
}
ENDS = "First: the trick alone, minus none. Last: all tricks, minus all but this one."
SHARED_SEEDS = (
    "In this adaptive study the verdicts on rows, not those on credits, decide who gets more seeds; the "
    "credits are read once, from all seeds that there are."
)


def credit_key(table: str) -> str:
    """Key of the table of credits, and of the first of its figures."""
    return f"{table}_credit"


def credit_section(
    table: TableFinding, settings: Settings, figures: list[doc.FigureBlock], name: str = ""
) -> doc.Section | None:
    """Sentences, the table and the figures of one table's credit; None for a design that gives none.

    `name`: what tells the section from those of other tables, where there are several (`section_names`).
    """
    credit = table.credit
    if credit is None:
        return None
    title = f"Credit: how the total splits{f' ({name})' if name else ''}"
    if credit.why_not:
        return doc.Section(title, (doc.Paragraph(f"No credit is given: {credit.why_not}."),))
    claims = doc.ClaimList("What each trick deserves", tuple(_claims(credit)))
    blocks: list[doc.Block] = [claims, credit_table(table.key, credit, settings), *figures]
    return doc.Section(title, tuple(blocks))


def section_names(tables: Sequence[TableFinding]) -> dict[str, str]:
    """Key of each table with a credit -> the tables it is about; empty texts where only one has a credit."""
    found = [table for table in tables if table.credit is not None]
    return {
        table.key: " and ".join(map(doc.short_name, table.credit.tables))
        if table.credit and found[1:]
        else ""
        for table in found
    }


def order_note(table: TableFinding) -> doc.Paragraph | None:
    """For a stack: that its effects are given the rows above."""
    return doc.Paragraph(GIVEN_ABOVE) if table.design == "stack" else None


def credit_table(key: str, credit: CreditFinding, settings: Settings) -> doc.TextTable:
    """One row per trick, and one for the total, column by column."""
    unit = doc.effect_suffix(settings)
    first, last = ("First (alone)", "Last (given all others)")
    if credit.places != FIRST_AND_LAST:
        first, last = ("Forward", "Reverse")
    titles = (first, last, "Credit", "Interaction (half-gap)")
    rows = []
    for total in credit.totals:
        mine = [each for each in credit.credits if each.column == total.column]
        rows += [doc.TextRow(_cells(each, settings), total.column or "") for each in mine]
        rows.append(doc.TextRow(_total_cells(total, settings), total.column or ""))
    return doc.TextTable(
        key=credit_key(key),
        title="Credit: how the total splits",
        caption=_caption(credit, settings),
        columns=(
            doc.TextColumn(title="Trick"),
            doc.TextColumn(title="n", kind=doc.NUMBER),
            *(
                doc.TextColumn(title=f"{title}{unit}", kind=doc.SPREAD, detail_title="95 % CI")
                for title in titles
            ),
            doc.TextColumn(title="Verdict on the credit", kind=doc.TEXT, detail_title="qualifier"),
        ),
        rows=tuple(rows),
    )


def amount_text(amount: Amount, settings: Settings) -> str:
    """The estimate with its interval on one line, for figures and their descriptions."""
    return _amount_cell(amount, settings).joined


def _claims(credit: CreditFinding) -> list[doc.ClaimLine]:
    claims = []
    for total in credit.totals:
        claims.append(doc.ClaimLine("·", with_minus(total.sentence), ""))
        for each in credit.credits:
            if each.column == total.column:
                glyph, sentence = GLYPHS[each.verdict], with_minus(each.sentence)
                mark = glyph if each.verdict in sentence else f"{glyph} {each.verdict}"
                claims.append(doc.ClaimLine(mark, sentence, each.verdict))
    return claims


def _cells(credit: TrickCredit, settings: Settings) -> tuple[doc.TextCell, ...]:
    gap = _amount_cell(credit.half_gap, settings)
    details = [credit.qualifier] * bool(credit.qualifier)
    details += [PATH_DEPENDENT] * (credit.path_dependent or credit.contradiction)
    return (
        doc.TextCell(credit.trick),
        doc.TextCell(str(credit.n)),
        _amount_cell(credit.first, settings),
        _amount_cell(credit.last, settings),
        _amount_cell(credit.credit, settings),
        gap,
        doc.TextCell(f"{GLYPHS[credit.verdict]} {credit.verdict}", "; ".join(details), credit.verdict),
    )


def _total_cells(total: CreditTotal, settings: Settings) -> tuple[doc.TextCell, ...]:
    amount = _amount_cell(total.total, settings)
    nothing = doc.TextCell(num.DASH)
    return (
        doc.TextCell("All tricks"),
        doc.TextCell(str(total.n)),
        nothing,
        nothing,
        amount,
        nothing,
        nothing,
    )


def _amount_cell(amount: Amount, settings: Settings) -> doc.TextCell:
    if amount.estimate is None:
        return doc.TextCell(num.DASH, "(no value)")
    digits = effect_digits(amount, settings)
    return doc.TextCell(num.signed(amount.estimate, digits), num.interval(amount.low, amount.high, digits))


def _caption(credit: CreditFinding, settings: Settings) -> str:
    ends = credit.places == FIRST_AND_LAST
    columns = " in all columns" if len(credit.totals) > 1 else ""
    gap = (
        "Interaction: half of last minus first; below 0 the trick overlaps with others, above 0 it needs them"
    )
    if not ends:
        gap = "Half-gap: half of reverse minus forward"
    parts = [
        ENDS * ends,
        FORMULAS[credit.design],
        f"{gap}; {PATH_DEPENDENT} where its interval excludes 0.",
        f"Effects on {metric_name(settings.metric)}; 95 % intervals are over re-training; verdicts are "
        f"Holm-adjusted over the {len(credit.credits)} credits{columns}; smallest effect of interest: "
        f"{size_text(settings.smallest_effect_pp, settings)}; n: seeds of the row with fewest.",
        SHARED_SEEDS * (len(settings.looks) > 1),
    ]
    return " ".join(filter(None, parts))


# Two figures of credit: how the total builds up from trick to trick, and each trick first against last.


ROW_IN, FRAME_IN, SCATTER_IN = 0.46, 0.75, 3.4
LABEL_CHARS = 28
BAR, THIN = 0.36, 0.16  # heights of bars, in rows
BELOW = 0.33  # where the forward bars and the marks of first and last are, in rows below the credit
MARGIN = 0.12


@dataclass(frozen=True, slots=True)
class CreditPanel:
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


def panels_of(credit: CreditFinding) -> list[CreditPanel]:
    """The columns in which every trick has a credit."""
    panels = []
    for total in credit.totals:
        mine = tuple(each for each in credit.credits if each.column == total.column)
        if all(each.credit.estimate is not None for each in mine):
            panels.append(CreditPanel(total, mine))
    return panels


def draw_waterfall(panels: Sequence[CreditPanel], settings: Settings) -> Figure:
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


def _draw_steps(ax: Axes, panel: CreditPanel, settings: Settings) -> None:
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


def _labels(ax: Axes, panel: CreditPanel, settings: Settings) -> None:
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


def waterfall_caption(credit: CreditFinding, panels: Sequence[CreditPanel]) -> str:
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


def waterfall_alt(panels: Sequence[CreditPanel], settings: Settings) -> str:
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


def draw_scatter(credit: CreditFinding, panels: Sequence[CreditPanel], settings: Settings) -> Figure:
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


def scatter_alt(credit: CreditFinding, panels: Sequence[CreditPanel], settings: Settings) -> str:
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
