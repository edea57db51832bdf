"""What no table of a report may do, as sentences about the cells that do it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.reporting.document import NUMBER, SPREAD, Document, TextCell, TextTable
from harness.reporting.numbers import DASH

ESTIMATE = re.compile(r"[+−]?(\d+)(?:\.(\d+))?(?: pp)?$")
INTERVAL = re.compile(r"^\[[−]?\d+(?:\.(\d+))?, [−]?\d+(?:\.(\d+))?\]")
NEEDS_NO_N = (
    "undecided",
    "unfinished",
    "baseline",
    "recipes",
    "runs",
    "costs",
    "settings_apart",
    "recipes_apart",
)


def tables_of(document: Document) -> list[TextTable]:
    return [
        block
        for section in (*document.sections, *document.details)
        for block in section.blocks
        if isinstance(block, TextTable)
    ]


def faults(table: TextTable) -> Iterator[str]:
    """Every fault of one table."""
    for row in table.rows:
        name = f"{table.key}, {row.cells[0].text}"
        for column, cell in zip(table.columns, row.cells, strict=True):
            where = f"{name}, {column.title}: {cell.joined!r}"
            yield from (f"{where} {text}" for text in _text_faults(cell))
            if "±" in cell.joined and "± sd" not in f"{column.title} {table.caption}":
                yield f"{where} has a ± that its heading does not call sd"
            if "±" in cell.detail:
                yield f"{where} has a ± in the line of the interval"
            if (
                cell.detail.startswith("[")
                and "CI" not in f"{column.title} {column.detail_title} {table.caption}"
            ):
                yield f"{where} has an interval that nothing calls one"
            if column.kind in (NUMBER, SPREAD):
                yield from (f"{where} {text}" for text in _uneven(cell))
    if not has_n(table) and table.key not in NEEDS_NO_N:
        yield f"{table.key} has no n"


def _text_faults(cell: TextCell) -> Iterator[str]:
    if "**" in cell.joined:
        yield "is bold"
    if cell.text == DASH and not re.match(r"\(.+\)|\[", cell.detail):
        yield "does not say why it is missing"
    if not cell.text:
        yield "is empty"


def has_n(table: TextTable) -> bool:
    """Whether n, or of how many runs a row counts, is a column or stands in one."""
    titles = [f"{column.title} {column.detail_title}" for column in table.columns]
    said = any(re.search(r"(^|: | )n( |$)|Reached by|Seeds|Runs", title) for title in titles)
    return said or re.search(r"\bn = \d", table.caption) is not None


def _uneven(cell: TextCell) -> Iterator[str]:
    """An estimate and its interval, and a mean and its sd, have the same number of decimals."""
    decimals = set()
    for part in cell.text.split(" ± ") if " ± " in cell.text else [cell.text]:
        if found := ESTIMATE.fullmatch(part):
            decimals.add(len(found.group(2) or ""))
    if found := INTERVAL.match(cell.detail):
        decimals |= {len(found.group(1) or ""), len(found.group(2) or "")}
    if len(decimals) > 1:
        yield "has different numbers of decimals"
