"""A document as GitHub-flavoured Markdown."""

from __future__ import annotations

import re

from harness.reporting.cells import TEXT, Row, Table
from harness.reporting.document import (
    Block,
    Bullets,
    Claims,
    Definitions,
    Document,
    FigureBlock,
    Paragraph,
)

_SPECIAL = re.compile(r"[\\`*<>|&~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=\])[(:\[]")
_AT_LINE_START = re.compile(r"^(?=[-+=])|^(?=\d+[.)])")


def to_markdown(document: Document) -> str:
    """The whole report; figures are linked from `figures/`."""
    parts = [document.banner] if document.banner else []
    parts.append(f"# {escape(document.title)}")
    parts += [escape(text) for text in (document.question, document.scope) if text]
    for section in document.sections:
        parts.append(f"{'#' * section.level} {escape(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    r"""Text that Markdown prints as it is.

    >>> print(escape("+ mixup, 50%_x&y <b>"))
    \+ mixup, 50%\_x\&y \<b\>
    """
    line = _SPECIAL.sub(lambda match: "\\" + match.group(), " ".join(text.split()))
    if re.match(r"\d+[.)]", line):
        return re.sub(r"^(\d+)([.)])", r"\1\\\2", line)
    return _AT_LINE_START.sub(r"\\", line)


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return escape(block.text)
        case Bullets():
            return "\n".join(f"- {escape(item)}" for item in block.items)
        case Definitions():
            return "\n".join(f"- **{escape(term)}**: {escape(text)}" for term, text in block.items)
        case Claims():
            lines = [f"- {escape(f'{claim.mark} {claim.text}')}" for claim in block.items]
            return f"**{escape(block.title)}**\n\n" + "\n".join(lines)
        case Table():
            return table_to_markdown(block)
        case FigureBlock():
            alt = escape(block.alt).replace("[", "\\[").replace("]", "\\]")
            return f"![{alt}](figures/{block.key}.svg)\n\n*{escape(block.caption)}*"


def table_to_markdown(table: Table) -> str:
    """A pipe table with its caption above and its notes below."""
    titles = []
    for index, column in enumerate(table.columns):
        shown = column.detail_title and table.has_detail(index)
        titles.append(f"{column.title} ({column.detail_title})" if shown else column.title)
    rules = ["---" if column.kind == TEXT else "---:" for column in table.columns]
    lines = [_line([escape(title) for title in titles]), _line(rules)]
    for group, rows in table.groups():
        if group:
            lines.append(_line([f"**{escape(group)}**"] + [""] * (len(table.columns) - 1)))
        lines += [_row(row) for row in rows]
    notes = "".join(f"\n\n{escape(note)}" for note in table.notes)
    return f"{escape(table.caption)}\n\n" + "\n".join(lines) + notes


def _row(row: Row) -> str:
    return _line([escape(cell.joined) for cell in row.cells])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
