"""Every number behind a verdict, for the reader who wants to check it."""

from __future__ import annotations

from harness.analysis.findings import CellFinding, Effect, Settings, TableFinding
from harness.reporting.cells import NUMBER, SPREAD, Cell, Column, Row, Table
from harness.reporting.document import Paragraph, Section
from harness.reporting.inputs import ReportInput
from harness.reporting.names import effect_suffix, ordered, table_name
from harness.reporting.numbers import DASH, interval, number, probability
from harness.reporting.sections.results import effect_digits


def _columns(settings: Settings) -> tuple[Column, ...]:
    unit = effect_suffix(settings)
    return (
        Column(title="Row"),
        Column(title="n", kind=NUMBER),
        Column(title=f"Effect{unit}: Holm-adjusted interval", kind=SPREAD),
        Column(title="p (Holm)", kind=NUMBER),
        Column(title="df", kind=NUMBER),
        Column(title=f"Detectable effect{unit}", kind=NUMBER),
    )


def evidence(report: ReportInput) -> Section | None:
    """One table per study table that has effects; None where nothing is compared."""
    tables = [
        _table(table, report.findings.settings) for table in report.findings.tables if _with_effect(table)
    ]
    if not tables:
        return None
    intro = (
        "Verdicts use the Holm-adjusted intervals. “Detectable effect” is the smallest true effect that this "
        "n would find with probability 0.8."
    )
    return Section("Evidence for each verdict", (Paragraph(intro), *tables))


def _with_effect(table: TableFinding) -> list[tuple[CellFinding, Effect]]:
    return [
        (cell, cell.effect) for cell in ordered(table) if cell.effect and cell.effect.estimate is not None
    ]


def _table(table: TableFinding, settings: Settings) -> Table:
    cells = _with_effect(table)
    noise = [f"Comparisons in the Holm family: {table.contrasts}."]
    if table.pooled_sd is not None:
        sd = f"{number(table.pooled_sd)} pp" if settings.in_percent else number(table.pooled_sd, None)
        noise.append(f"Pooled sd between seeds: {sd}.")
    if table.seed_correlation is not None:
        noise.append(f"Share of the variance that runs with the same seed have in common: "
                     f"{number(table.seed_correlation)}.")  # fmt: skip
    guarded = [cell.row for cell, effect in cells if effect.flagged]
    if guarded:
        noise.append(f"Mostly own variance instead of the pooled one (variance guard): {', '.join(guarded)}.")
    return Table(
        key=f"{table.key}_evidence",
        caption=f"{table_name(table)}: the numbers behind the verdicts.",
        columns=_columns(settings),
        rows=tuple(Row(_row(cell, effect, settings), cell.column or "") for cell, effect in cells),
        notes=(" ".join(noise),),
    )


def _row(cell: CellFinding, effect: Effect, settings: Settings) -> tuple[Cell, ...]:
    digits = effect_digits(effect, settings)
    texts = (
        cell.row,
        str(effect.n),
        interval(effect.adjusted_low, effect.adjusted_high, digits),
        "" if effect.p_holm is None else probability(effect.p_holm),
        "" if effect.df is None else number(effect.df, 1),
        "" if effect.detectable is None else number(effect.detectable, digits),
    )
    why = "(same run)" if effect.estimate == 0.0 and effect.p is None else "(no spread known)"
    return tuple(Cell(text) if text else Cell(DASH, why) for text in texts)
