"""The order of a report."""

from __future__ import annotations

from harness.reporting.document import Block, Document, FigureBlock, Paragraph, Section
from harness.reporting.figures.gallery import Picture
from harness.reporting.inputs import ReportInput
from harness.reporting.names import table_name
from harness.reporting.sections.evidence import evidence
from harness.reporting.sections.method import method
from harness.reporting.sections.opening import answer, banner, question, scope
from harness.reporting.sections.provenance import provenance
from harness.reporting.sections.results import main_table
from harness.reporting.sections.settling import settling
from harness.reporting.sections.shortfalls import shortfalls


def outline(report: ReportInput, pictures: list[Picture]) -> Document:
    """Put the whole report together, without a format."""
    sections = [answer(report), *_results(report, pictures), *_overview(report, pictures)]
    sections += [settling(report), shortfalls(report)]
    if proof := evidence(report):
        sections.append(proof)
    return Document(
        banner=banner(report),
        title=report.title,
        question=question(report),
        scope=scope(report),
        sections=(*sections, method(report), provenance(report)),
    )


def _results(report: ReportInput, pictures: list[Picture]) -> list[Section]:
    sections = []
    for table in report.findings.tables:
        blocks: list[Block] = [main_table(table, report.findings.settings)]
        blocks += [_block(picture) for picture in pictures if picture.table == table.key]
        sections.append(Section(table_name(table), tuple(blocks)))
    return sections


def _overview(report: ReportInput, pictures: list[Picture]) -> list[Section]:
    blocks: list[Block] = [_block(picture) for picture in pictures if picture.table is None]
    if not blocks:
        return []
    if not report.findings.settings.comparable_to_paper and report.plan.header.get("paper"):
        blocks.insert(0, Paragraph(_setting_differs(report)))
    return [Section("Paper and ours; what was run", tuple(blocks))]


def _setting_differs(report: ReportInput) -> str:
    arms = report.plan.arms.values()
    places = sorted({f"{arm.recipe.data.name} at {_pixels(arm.recipe.data.resolution)}" for arm in arms})
    return (
        f"The setting differs from the paper's: {', '.join(places)}. The values are therefore not "
        "comparable with the printed ones; only the sign and the order of the effects may be read "
        "side by side."
    )


def _pixels(side: int) -> str:
    return f"{side} × {side} pixels"


def _block(picture: Picture) -> FigureBlock:
    return FigureBlock(picture.key, picture.caption, picture.alt)
