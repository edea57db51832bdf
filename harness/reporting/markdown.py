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
_LIST_MARK = re.compile(r"^(\d*)([-+.)=])(?=\s|=*$|-*$)")


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


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return escape(block.text)
        case Bullets():
            return "\n".join(f"- {escape(item)}" for item in block.items)
        case Definitions():
            return "\n".join(f"- **{inline(term)}**: {inline(text)}" for term, text in block.items)
        case Claims():
            lines = [f"- {inline(f'{claim.mark} {claim.text}')}" for claim in block.items]
            return f"**{inline(block.title)}**\n\n" + "\n".join(lines)
        case Table():
            return table_to_markdown(block)
        case FigureBlock():
            alt = inline(block.alt).replace("[", "\\[").replace("]", "\\]")
            return f"![{alt}](figures/{block.key}.svg)\n\n*{inline(block.caption)}*"


def table_to_markdown(table: Table) -> str:
    """A pipe table with its caption above and its notes below."""
    titles = []
    for index, column in enumerate(table.columns):
        shown = column.detail_title and table.has_detail(index)
        titles.append(f"{column.title} ({column.detail_title})" if shown else column.title)
    rules = ["---" if column.kind == TEXT else "---:" for column in table.columns]
    lines = [_line([inline(title) for title in titles]), _line(rules)]
    for group, rows in table.groups():
        if group:
            lines.append(_line([f"**{inline(group)}**"] + [""] * (len(table.columns) - 1)))
        lines += [_row(row) for row in rows]
    notes = "".join(f"\n\n{escape(note)}" for note in table.notes)
    return f"{escape(table.caption)}\n\n" + "\n".join(lines) + notes


def _row(row: Row) -> str:
    return _line([inline(cell.joined) for cell in row.cells])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
