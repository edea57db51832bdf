"""The short form of a report, for the comment on a pull request: the answer and the leading tables."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.findings import TableFinding
from harness.reporting.cells import Table
from harness.reporting.document import Block, Claims, Document, Paragraph, Section
from harness.reporting.inputs import ReportInput
from harness.reporting.markdown import to_markdown
from harness.reporting.names import table_name
from harness.reporting.numbers import count
from harness.reporting.places import place_labels
from harness.reporting.sections.opening import answer, banner, question, scope, sentences
from harness.reporting.sections.results import main_table

MOST_BYTES = 60_000  # of UTF-8; a comment on a pull request may have 65,536 characters
MOST_TEXT = 600  # characters of the title, the question and each answer: a study may write pages
FULL = (
    "The full report is beside this one: report.html, report.pdf, report.md, report.json; every number in "
    "tables/, every run in data/."
)


def to_short(report: ReportInput, most_bytes: int = MOST_BYTES) -> str:
    """Markdown of at most `most_bytes`. What does not fit is left out with its count, in words.

    Sentences go first, then rows from the end of a table, then whole tables from the end of the report.
    """
    tables = report.findings.tables
    kept: list[Section] = []
    for place, table in enumerate(tables):
        fitting = (
            section
            for section in _forms(report, table)
            if _size(_document(report, [*kept, section], tables[place + 1 :])) <= most_bytes
        )
        found = next(fitting, None)
        if found is None:
            return _within(to_markdown(_document(report, kept, tables[place:])), most_bytes)
        kept.append(found)
    return _within(to_markdown(_document(report, kept, ())), most_bytes)


def _document(report: ReportInput, kept: list[Section], left_out: tuple[TableFinding, ...]) -> Document:
    """`left_out`: the tables that the last section counts."""
    said: list[Block] = []
    if left_out:
        rows = sum(len(table.cells) for table in left_out)
        names = f"{count(len(left_out), 'further table')} with {count(rows, 'row')}"
        said.append(Paragraph(f"Left out here to keep this short: {names}."))
    return Document(
        banner=banner(report),
        title=_cut(report.title),
        question=_cut(question(report)),
        scope=_cut(scope(report)),
        sections=(_tally(report), *kept, Section("Full report", (*said, Paragraph(FULL)))),
    )


def _tally(report: ReportInput) -> Section:
    """The answer's counts; its sentences stand with the tables."""
    first = answer(report).blocks
    return Section(
        "Answer", tuple(Paragraph(_cut(block.text)) for block in first[:2] if isinstance(block, Paragraph))
    )


def _forms(report: ReportInput, table: TableFinding) -> list[Section]:
    """The table whole with its sentences, without them, and with fewer and fewer rows."""
    shown = main_table(table, report.findings.settings, place_labels(report.plan))
    shown = replace(shown, notes=tuple(map(_cut, shown.notes)))
    words = sentences(table, "In words")
    name = _cut(table_name(table))
    forms = [Section(name, (Claims("In words", words.items), shown)), Section(name, (shown,))]
    rows = len(shown.rows) // 2
    while rows:
        forms.append(Section(name, (_first_rows(shown, rows),)))
        rows //= 2
    return forms


def _first_rows(shown: Table, rows: int) -> Table:
    left = count(len(shown.rows) - rows, "further row")
    notes = (f"{left} left out here to keep this short.", *shown.notes[:3])
    return replace(shown, rows=shown.rows[:rows], notes=notes)


def _size(document: Document) -> int:
    return len(to_markdown(document).encode())


def _within(text: str, most_bytes: int) -> str:
    """The last resort, where even the counts do not fit: the text is cut at the end of a line."""
    data = text.encode()
    if len(data) <= most_bytes:
        return text
    tail = "\n\nCut here to keep this short; the full report is beside this one.\n"
    kept = data[: most_bytes - len(tail)].decode(errors="ignore")
    return kept.rpartition("\n")[0] + tail


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"
