"""Change one thing of a sample report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.analysis.findings import CellFinding, Settings, TableFinding
from harness.reporting import ReportInput
from harness.reporting.document import Document, Section
from harness.reporting.frames import ARCHIVE, packed, unpacked
from harness.reporting.markdown import details_to_markdown, to_markdown
from harness.reporting.render import outline


def edit_tables(report: ReportInput, edit: Callable[[TableFinding], TableFinding]) -> ReportInput:
    """The same report with every table edited."""
    findings = replace(report.findings, tables=tuple(edit(table) for table in report.findings.tables))
    return replace(report, findings=findings)


def edit_cells(report: ReportInput, edit: Callable[[CellFinding], CellFinding]) -> ReportInput:
    """The same report with every cell edited."""
    return edit_tables(report, lambda table: replace(table, cells=tuple(edit(cell) for cell in table.cells)))


def only_table(report: ReportInput, key: str) -> ReportInput:
    """The same report with one table: quicker to render."""
    tables = tuple(table for table in report.findings.tables if table.key == key)
    return replace(report, findings=replace(report.findings, tables=tables))


def comparable(report: ReportInput) -> ReportInput:
    """The same report as if data and size were the paper's."""
    settings: Settings = replace(report.findings.settings, comparable_to_paper=True)
    return replace(report, findings=replace(report.findings, settings=settings))


def whole_text(report: ReportInput) -> str:
    """What the report and its details say in Markdown, without figures."""
    document = outline(report, [])
    return f"{to_markdown(document)}\n{details_to_markdown(document)}"


def sections_of(document: Document) -> list[Section]:
    """Those that are looked at first, and the details."""
    return [*document.sections, *document.details]


def loosen(folder: Path) -> None:
    """Lay the raw files of a report open, as older reports have them: data/runs.jsonl, ..."""
    _, files = unpacked(folder)
    (folder / ARCHIVE).unlink()
    for name, content in files.items():
        (folder / "data" / name).write_bytes(content)


def edit_raw(folder: Path, name: str, edit: Callable[[str], str]) -> None:
    """Change the text of one raw file in the archive of a report."""
    _, files = unpacked(folder)
    (folder / ARCHIVE).write_bytes(packed({**files, name: edit(files[name].decode()).encode()}))
