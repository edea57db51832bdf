"""The order of a report."""

from __future__ import annotations

from harness.reporting.costs import arm_costs
from harness.reporting.document import Block, Document, FigureBlock, Paragraph, Section
from harness.reporting.figures.credit import belongs_to
from harness.reporting.figures.gallery import Picture, steps_key
from harness.reporting.inputs import ReportInput
from harness.reporting.names import short_name, table_name
from harness.reporting.places import place_labels, places
from harness.reporting.sections.amendments import amendments_section
from harness.reporting.sections.claims import claims_section
from harness.reporting.sections.credit import credit_section, order_note, section_names
from harness.reporting.sections.details import details_table
from harness.reporting.sections.evidence import evidence
from harness.reporting.sections.method import method
from harness.reporting.sections.opening import (
    answer,
    banner,
    has_sentences,
    question,
    scope,
    sentences,
)
from harness.reporting.sections.provenance import provenance
from harness.reporting.sections.results import main_table
from harness.reporting.sections.settling import settling
from harness.reporting.sections.shortfalls import shortfalls
from harness.reporting.sections.speed import speed_section
from harness.reporting.sections.values import values_table


def outline(report: ReportInput, pictures: list[Picture]) -> Document:
    """Put the whole report together, without a format."""
    sections = [
        answer(report),
        claims_section(report),
        *_results(report, pictures),
        speed_section(report, _step_figures(report, pictures)),
        *_overview(report, pictures),
        settling(report),
        shortfalls(report),
        amendments_section(report),
        evidence(report),
        method(report),
        _further(pictures),
        provenance(report),
    ]
    return Document(
        banner=banner(report),
        title=report.title,
        question=question(report),
        scope=scope(report),
        sections=tuple(section for section in sections if section is not None),
    )


def _results(report: ReportInput, pictures: list[Picture]) -> list[Section]:
    sections = []
    labels, costs = place_labels(report.plan), arm_costs(report.records)
    names = section_names(report.findings.tables)
    for table in report.findings.tables:
        blocks: list[Block] = [main_table(table, report.findings.settings, labels)]
        if not has_sentences(report):
            blocks.append(sentences(table, f"{short_name(table.key)} in words"))
        blocks += [_block(picture) for picture in pictures if picture.table == table.key]
        blocks += [note] if (note := order_note(table)) else []
        if details := details_table(table, report.findings.settings, costs):
            blocks += [values_table(table, report.findings.settings), details]
        sections.append(Section(table_name(table), tuple(blocks)))
        figures = [_block(picture) for picture in pictures if picture.table == belongs_to(table.key)]
        if credit := credit_section(table, report.findings.settings, figures, names.get(table.key, "")):
            sections.append(credit)
    return sections


def _step_figures(report: ReportInput, pictures: list[Picture]) -> dict[str, FigureBlock]:
    keys = {steps_key(speed.table): speed.table for speed in report.findings.speed}
    return {keys[picture.key]: _block(picture) for picture in pictures if picture.key in keys}


def _overview(report: ReportInput, pictures: list[Picture]) -> list[Section]:
    elsewhere = _step_figures(report, pictures).values()
    own = [picture for picture in pictures if picture.table is None and not picture.further]
    blocks: list[Block] = [_block(picture) for picture in own]
    blocks = [block for block in blocks if block not in elsewhere]
    if not blocks:
        return []
    if not report.findings.settings.comparable_to_paper and report.plan.header.get("paper"):
        blocks.insert(0, Paragraph(_setting_differs(report)))
    return [Section("Paper and ours; what was run", tuple(blocks))]


def _further(pictures: list[Picture]) -> Section | None:
    blocks = tuple(_block(picture) for picture in pictures if picture.further)
    return Section("Further figures", blocks) if blocks else None


def _setting_differs(report: ReportInput) -> str:
    return (
        f"The setting differs from the paper's: {', '.join(places(report.plan))}. The values are therefore "
        "not comparable with the printed ones; only the sign and the order of the effects may be read "
        "side by side."
    )


def _block(picture: Picture) -> FigureBlock:
    return FigureBlock(picture.key, picture.caption, picture.alt)
