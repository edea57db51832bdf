"""Draw every figure of a report: bytes, a caption, and a text for those who cannot see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from harness.analysis.findings import TableFinding
from harness.reporting.credit import credit_pictures
from harness.reporting.figures.curves import (
    STEP,
    curves_alt,
    curves_caption,
    draw_curves,
    gain_sketches,
    panels_of,
    steps_caption,
)
from harness.reporting.figures.planning import budget_sketches, flip_sketches, resolvable_sketch
from harness.reporting.figures.runs import (
    draw_matrix,
    matrix_alt,
    matrix_caption,
    matrix_pages,
    seed_sketches,
    trace_sketches,
)
from harness.reporting.figures.style import Picture, Sketch, draw_side_by_side, finish, house_style, text_of
from harness.reporting.figures.style import finish as _picture
from harness.reporting.figures.tables import (
    MOST_VALUES,
    VALUES_CAPTION,
    draw_effects,
    draw_forest,
    draw_values,
    effects_alt,
    effects_caption,
    forest_alt,
    forest_caption,
    forest_pages,
    lines_of,
    valued_cells,
    values_alt,
)
from harness.reporting.report_input import ReportInput

# The figures of the appendix, each drawn only where its data exist.


def further_parts(report: ReportInput) -> list[Callable[[], list[Picture]]]:
    """What draws them, kind by kind, in the order of the appendix."""
    findings = report.findings
    curves = report.curves[report.curves["seed"].isin(report.plan.seeds)]
    kinds = (
        lambda: budget_sketches(report),
        lambda: filter(None, [resolvable_sketch(findings)]),
        lambda: trace_sketches(findings),
        lambda: seed_sketches(findings),
        lambda: gain_sketches(findings, curves),
        lambda: flip_sketches(findings),
    )
    return [partial(_drawn, kind) for kind in kinds]


def _drawn(sketches: Callable[[], Iterable[Sketch]]) -> list[Picture]:
    return [_finished(sketch) for sketch in sketches()]


def _finished(sketch: Sketch) -> Picture:
    picture = finish(sketch.key, None, sketch.figure, (sketch.caption, sketch.alt))
    return replace(picture, further=True, data=sketch.data)


def draw_all(report: ReportInput) -> list[Picture]:
    """Every figure, in the order of the report."""
    with house_style(text_of(report.plan)):
        tables = [partial(_of_table, report, table) for table in report.findings.tables]
        return draw_side_by_side([*tables, partial(_of_study, report), *further_parts(report)])


def draw_table(report: ReportInput, table: TableFinding) -> list[Picture]:
    """The figures of one table."""
    with house_style(text_of(report.plan)):
        return _of_table(report, table)


def _of_table(report: ReportInput, table: TableFinding) -> list[Picture]:
    settings = report.findings.settings
    pictures = []
    for page, lines in enumerate(forest_pages(lines_of(table))):
        forest = draw_forest(table, settings, lines)
        if forest is not None:
            text = forest_caption(table, settings), forest_alt(table, settings, lines)
            pictures.append(_picture(_page_key(f"{table.key}_effects", page), table.key, forest, text))
    return [*pictures, *_curves(report, table), *credit_pictures(table, settings)]


def _curves(report: ReportInput, table: TableFinding) -> list[Picture]:
    """Over epochs; over steps where the table has a target. Only runs of the planned seeds."""
    curves = report.curves[report.curves["seed"].isin(report.plan.seeds)]
    speed = next((each for each in report.findings.speed if each.table == table.key), None)
    panels = panels_of(table, curves) if speed is None else panels_of(table, curves, STEP)
    if sum(map(len, panels.values())) < 2:  # one curve alone compares nothing
        return []
    if speed is None:
        text = curves_caption(table, panels), curves_alt(panels)
        return [_picture(f"{table.key}_curves", table.key, draw_curves(panels), text)]
    targets = {panel.column or "": panel.target_top1 for panel in speed.panels}
    known = {title: level for title, level in targets.items() if level is not None}
    text = steps_caption(table, panels), curves_alt(panels)
    return [_picture(steps_key(table.key), None, draw_curves(panels, STEP, known), text)]


def steps_key(table: str) -> str:
    """The key of the figure of accuracy against steps of a table with a target."""
    return f"{table}_steps"


def _page_key(key: str, page: int) -> str:
    return f"{key}_{page + 1}" if page else key


def _of_study(report: ReportInput) -> list[Picture]:
    findings = report.findings
    pictures = []
    effects = draw_effects(findings)
    if effects is not None:
        text = effects_caption(findings), effects_alt(findings)
        pictures.append(_picture("paper_effects", None, effects, text))
    cells = valued_cells(findings) if findings.settings.comparable_to_paper else []
    for page, start in enumerate(range(0, len(cells), MOST_VALUES)):
        part = cells[start : start + MOST_VALUES]
        values = draw_values(findings, part)
        if values is not None:
            text = VALUES_CAPTION, values_alt(findings, part)
            pictures.append(_picture(_page_key("paper_values", page), None, values, text))
    text = matrix_caption(report), matrix_alt(report)
    for page, lines in enumerate(matrix_pages(report)):
        pictures.append(_picture(_page_key("runs", page), None, draw_matrix(report, lines), text))
    return pictures
