"""Credit: how the total of a table splits over its tricks, and whether the order of adding them matters."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.credit_findings import Amount, CreditFinding, CreditTotal, TrickCredit
from harness.analysis.credit_weights import FIRST_AND_LAST
from harness.analysis.findings import GLYPHS, Settings, TableFinding
from harness.analysis.units import metric_name, size_text
from harness.reporting.cells import NUMBER, SPREAD, TEXT, Cell, Column, Row, Table
from harness.reporting.document import Block, Claim, Claims, FigureBlock, Paragraph, Section
from harness.reporting.names import effect_suffix, short_name
from harness.reporting.numbers import DASH, Digits, digits_for, interval, signed
from harness.reporting.sections.opening import with_minus

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
    table: TableFinding, settings: Settings, figures: list[FigureBlock], name: str = ""
) -> Section | None:
    """Sentences, the table and the figures of one table's credit; None for a design that gives none.

    `name`: what tells the section from those of other tables, where there are several (`section_names`).
    """
    credit = table.credit
    if credit is None:
        return None
    title = f"Credit: how the total splits{f' ({name})' if name else ''}"
    if credit.why_not:
        return Section(title, (Paragraph(f"No credit is given: {credit.why_not}."),))
    claims = Claims("What each trick deserves", tuple(_claims(credit)))
    blocks: list[Block] = [claims, credit_table(table.key, credit, settings), *figures]
    return Section(title, tuple(blocks))


def section_names(tables: Sequence[TableFinding]) -> dict[str, str]:
    """Key of each table with a credit -> the tables it is about; empty texts where only one has a credit."""
    found = [table for table in tables if table.credit is not None]
    return {
        table.key: " and ".join(map(short_name, table.credit.tables)) if table.credit and found[1:] else ""
        for table in found
    }


def order_note(table: TableFinding) -> Paragraph | None:
    """For a stack: that its effects are given the rows above."""
    return Paragraph(GIVEN_ABOVE) if table.design == "stack" else None


def credit_table(key: str, credit: CreditFinding, settings: Settings) -> Table:
    """One row per trick, and one for the total, column by column."""
    unit = effect_suffix(settings)
    first, last = ("First (alone)", "Last (given all others)")
    if credit.places != FIRST_AND_LAST:
        first, last = ("Forward", "Reverse")
    titles = (first, last, "Credit", "Interaction (half-gap)")
    rows = []
    for total in credit.totals:
        mine = [each for each in credit.credits if each.column == total.column]
        rows += [Row(_cells(each, settings), total.column or "") for each in mine]
        rows.append(Row(_total_cells(total, settings), total.column or ""))
    return Table(
        key=credit_key(key),
        title="Credit: how the total splits",
        caption=_caption(credit, settings),
        columns=(
            Column(title="Trick"),
            Column(title="n", kind=NUMBER),
            *(Column(title=f"{title}{unit}", kind=SPREAD, detail_title="95 % CI") for title in titles),
            Column(title="Verdict on the credit", kind=TEXT, detail_title="qualifier"),
        ),
        rows=tuple(rows),
    )


def amount_digits(amount: Amount, settings: Settings) -> Digits:
    """Decimals: a quarter of the 95 % interval's width stands for the standard error."""
    if not settings.in_percent:
        return None
    if amount.low is None or amount.high is None:
        return digits_for(None)
    return digits_for((amount.high - amount.low) / 4)


def amount_text(amount: Amount, settings: Settings) -> str:
    """The estimate with its interval on one line, for figures and their descriptions."""
    return _amount_cell(amount, settings).joined


def _claims(credit: CreditFinding) -> list[Claim]:
    claims = []
    for total in credit.totals:
        claims.append(Claim("·", with_minus(total.sentence), ""))
        for each in credit.credits:
            if each.column == total.column:
                glyph, sentence = GLYPHS[each.verdict], with_minus(each.sentence)
                mark = glyph if each.verdict in sentence else f"{glyph} {each.verdict}"
                claims.append(Claim(mark, sentence, each.verdict))
    return claims


def _cells(credit: TrickCredit, settings: Settings) -> tuple[Cell, ...]:
    gap = _amount_cell(credit.half_gap, settings)
    details = [credit.qualifier] * bool(credit.qualifier)
    details += [PATH_DEPENDENT] * (credit.path_dependent or credit.contradiction)
    return (
        Cell(credit.trick),
        Cell(str(credit.n)),
        _amount_cell(credit.first, settings),
        _amount_cell(credit.last, settings),
        _amount_cell(credit.credit, settings),
        gap,
        Cell(f"{GLYPHS[credit.verdict]} {credit.verdict}", "; ".join(details), credit.verdict),
    )


def _total_cells(total: CreditTotal, settings: Settings) -> tuple[Cell, ...]:
    amount = _amount_cell(total.total, settings)
    nothing = Cell(DASH)
    return (Cell("All tricks"), Cell(str(total.n)), nothing, nothing, amount, nothing, nothing)


def _amount_cell(amount: Amount, settings: Settings) -> Cell:
    if amount.estimate is None:
        return Cell(DASH, "(no value)")
    digits = amount_digits(amount, settings)
    return Cell(signed(amount.estimate, digits), interval(amount.low, amount.high, digits))


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
