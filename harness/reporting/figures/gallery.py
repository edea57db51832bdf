"""Draw every figure of a report: bytes, a caption, and a text for those who cannot see it."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from harness.analysis.findings import TableFinding
from harness.reporting.figures.curves import curves_alt, curves_caption, draw_curves, panels_of
from harness.reporting.figures.forest import draw_forest, forest_alt, forest_caption
from harness.reporting.figures.matrix import draw_matrix, matrix_alt, matrix_caption
from harness.reporting.figures.paper import (
    VALUES_CAPTION,
    draw_effects,
    draw_values,
    effects_alt,
    effects_caption,
    values_alt,
)
from harness.reporting.figures.style import house_style, to_png, to_svg
from harness.reporting.inputs import ReportInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A finished figure. `table` is the key of the table it belongs to; None: the whole study."""

    key: str
    table: str | None
    caption: str
    alt: str
    svg: bytes
    png: bytes


def draw_all(report: ReportInput) -> list[Picture]:
    """Every figure, in the order of the report."""
    with house_style():
        pictures = [p for table in report.findings.tables for p in _of_table(report, table)]
        return [*pictures, *_of_study(report)]


def _of_table(report: ReportInput, table: TableFinding) -> list[Picture]:
    settings = report.findings.settings
    pictures = []
    forest = draw_forest(table, settings)
    if forest is not None:
        text = forest_caption(table, settings), forest_alt(table)
        pictures.append(_picture(f"{table.key}_effects", table.key, forest, text))
    panels = panels_of(table, report.curves)
    if sum(map(len, panels.values())) > 1:  # one curve alone compares nothing
        text = curves_caption(table, panels), curves_alt(panels)
        pictures.append(_picture(f"{table.key}_curves", table.key, draw_curves(panels), text))
    return pictures


def _of_study(report: ReportInput) -> list[Picture]:
    findings = report.findings
    pictures = []
    effects = draw_effects(findings)
    if effects is not None:
        text = effects_caption(findings), effects_alt(findings)
        pictures.append(_picture("paper_effects", None, effects, text))
    values = draw_values(findings) if findings.settings.comparable_to_paper else None
    if values is not None:
        pictures.append(_picture("paper_values", None, values, (VALUES_CAPTION, values_alt(findings))))
    if report.plan.runs:
        text = matrix_caption(report), matrix_alt(report)
        pictures.append(_picture("runs", None, draw_matrix(report), text))
    return pictures


def _picture(key: str, table: str | None, figure: Figure, text: tuple[str, str]) -> Picture:
    caption, alt = text
    svg = to_svg(figure)
    figure.set_layout_engine("none")  # the layout is found; finding it again would take half of the time
    return Picture(key=key, table=table, caption=caption, alt=alt, svg=svg, png=to_png(figure))
