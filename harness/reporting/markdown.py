"""A document as GitHub-flavoured Markdown, and the short form for the comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.analysis.findings import TableFinding
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.report_input import ReportInput, place_labels
from harness.reporting.sections.opening import answer, banner, question, scope, sentences
from harness.reporting.sections.tables import main_table, of_plan

# A document as GitHub-flavoured Markdown.


_SPECIAL = re.compile(r"[\\`*<>|&~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=\])[(:\[]")
_LIST_MARK = re.compile(r"^(\d*)([-+.)=])(?=\s|=*$|-*$)")


DETAILS = "details.md"


def to_markdown(document: doc.Document) -> str:
    """What a reader looks at; figures are linked from `figures/`, all else from `details.md`."""
    parts = [document.banner] if document.banner else []
    parts.append(f"# {escape(document.title)}")
    parts += [escape(text) for text in (document.question, document.scope) if text]
    parts += _sections(document.sections)
    if document.details:
        parts.append("## Details")
        parts.append("\n".join(f"- {_details_link(section.title)}" for section in document.details))
    return "\n\n".join(parts) + "\n"


def details_to_markdown(document: doc.Document) -> str:
    """What lies behind the report: every number, every run, how the verdicts were made."""
    parts = [document.banner] if document.banner else []
    parts += [f"# {escape(document.title)}: details", "The answer and the tables: [report.md](report.md)."]
    return "\n\n".join([*parts, *_sections(document.details)]) + "\n"


def _details_link(title: str) -> str:
    return f"[{inline(title)}]({DETAILS}#{doc.as_slug(title)})"


def _sections(sections: Sequence[doc.Section]) -> Iterator[str]:
    for section in sections:
        yield f"{'#' * section.level} {escape(section.title)}"
        yield from (_block(block) for block in section.blocks)
        yield from (f"More: {_details_link(title)}" for title in section.more)


def escape(text: str) -> str:
    r"""Text that Markdown prints as it is, also at the start of a line.

    >>> print(escape("+ mixup, 50%_x&y <b>"))
    \+ mixup, 50%\_x\&y \<b\>
    >>> print(escape("1. is no list, 84.2 and +0.3 neither"))
    1\. is no list, 84.2 and +0.3 neither
    """
    return _LIST_MARK.sub(r"\1\\\2", inline(text))


def inline(text: str) -> str:
    """Text that Markdown prints as it is inside a line: in a table cell, after other text."""
    return _SPECIAL.sub(lambda match: "\\" + match.group(), " ".join(text.split()))


def _block(block: doc.Block) -> str:
    match block:
        case doc.Paragraph() | doc.Note():
            return escape(block.text)
        case doc.Bullets():
            return "\n".join(f"- {escape(item)}" for item in block.items)
        case doc.Definitions():
            return "\n".join(f"- **{inline(term)}**: {inline(text)}" for term, text in block.items)
        case doc.ClaimList():
            lines = [f"- {inline(f'{claim.mark} {claim.text}')}" for claim in block.items]
            return f"**{inline(block.title)}**\n\n" + "\n".join(lines)
        case doc.TextTable():
            return table_to_markdown(block)
        case doc.RunsBlock():
            return "\n\n".join(map(_recipe, block.recipes))
        case doc.FigureBlock():
            alt = inline(block.alt).replace("[", "\\[").replace("]", "\\]")
            return f"![{alt}](figures/{block.key}.svg)\n\n*{inline(block.caption)}*"


def table_to_markdown(table: doc.TextTable) -> str:
    """A pipe table with its caption above and its notes below."""
    titles = []
    for index, (column, span) in enumerate(zip(table.columns, table.span_titles(), strict=True)):
        shown = column.detail_title and table.has_detail(index)
        title = f"{column.title} ({column.detail_title})" if shown else column.title
        titles.append(f"{span}: {title}" if span else title)
    rules = ["---" if column.kind == doc.TEXT else "---:" for column in table.columns]
    lines = [_line([inline(title) for title in titles]), _line(rules)]
    for group, rows in table.groups():
        if group:
            lines.append(_line([f"**{inline(group)}**"] + [""] * (len(table.columns) - 1)))
        lines += [_row(row) for row in rows]
    notes = "".join(f"\n\n{escape(note)}" for note in table.notes)
    return f"{escape(table.caption)}\n\n" + "\n".join(lines) + notes


def _recipe(recipe: doc.RecipeRuns) -> str:
    """Its settings and, a line each, its runs."""
    runs = [
        f"- seed {run.seed}: {inline(run.value)}, run `{run.run_id}`"
        + (f", {inline(run.log)}" if run.log else "")
        for run in recipe.runs
    ]
    return "\n\n".join([f"**{inline(recipe.name)}**", escape(recipe.brief), "\n".join(runs)])


def _row(row: doc.TextRow) -> str:
    return _line([inline(cell.joined) for cell in row.cells])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


# The short form of a report, for the comment on a pull request: the answer and the leading tables.


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
    kept: list[doc.Section] = []
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


def _document(
    report: ReportInput, kept: list[doc.Section], left_out: tuple[TableFinding, ...]
) -> doc.Document:
    """`left_out`: the tables that the last section counts."""
    said: list[doc.Block] = []
    if left_out:
        rows = sum(len(table.cells) for table in left_out)
        names = f"{num.count(len(left_out), 'further table')} with {num.count(rows, 'row')}"
        said.append(doc.Paragraph(f"Left out here to keep this short: {names}."))
    return doc.Document(
        banner=banner(report),
        title=_cut(report.title),
        question=_cut(question(report)),
        scope=_cut(scope(report)),
        sections=(_tally(report), *kept, doc.Section("Full report", (*said, doc.Paragraph(FULL)))),
    )


def _tally(report: ReportInput) -> doc.Section:
    """The answer's counts; its sentences stand with the tables."""
    first = answer(report).blocks
    return doc.Section(
        "Answer",
        tuple(doc.Paragraph(_cut(block.text)) for block in first[:2] if isinstance(block, doc.Paragraph)),
    )


def _forms(report: ReportInput, table: TableFinding) -> list[doc.Section]:
    """The table whole with its sentences, without them, and with fewer and fewer rows."""
    effects = main_table(table, report.findings.settings, place_labels(report.plan))
    shown = doc.first_rows(of_plan(effects, report.plan))
    shown = replace(shown, notes=tuple(map(_cut, shown.notes)))
    words = doc.first_claims(sentences(table, "In words"))
    name = _cut(doc.table_name(table))
    forms = [doc.Section(name, (doc.ClaimList("In words", words.items), shown)), doc.Section(name, (shown,))]
    rows = len(shown.rows) // 2
    while rows:
        forms.append(doc.Section(name, (_first_rows(shown, rows),)))
        rows //= 2
    return forms


def _first_rows(shown: doc.TextTable, rows: int) -> doc.TextTable:
    left = num.count(len(shown.rows) - rows, "further row")
    notes = (f"{left} left out here to keep this short.", *shown.notes[:3])
    return replace(shown, rows=shown.rows[:rows], notes=notes)


def _size(document: doc.Document) -> int:
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
