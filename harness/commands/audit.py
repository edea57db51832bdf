"""`harness audit`: read a published table and say what it could, and could not, have detected."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from harness.study.printed import read_printed_table

if TYPE_CHECKING:
    from harness.analysis.precision import Audit, AuditedRow

MINUS = "−"
MEMORY_MARK = "†"


def main(args: argparse.Namespace) -> int:
    from harness.analysis.precision import audit

    tables = [read_printed_table(path) for path in args.tables]
    audits = [audit(table) for table in tables]
    if args.json:
        print(json.dumps([as_data(each) for each in audits], indent=1, ensure_ascii=False))
    else:
        print("\n".join(as_markdown(each) for each in audits), end="")
    return 0


def as_data(found: Audit) -> dict[str, object]:
    """Plain data; docs/json.md lists the keys."""
    table = found.table
    return {
        "title": table.title,
        "source": table.source,
        "metric": table.metric,
        "smallest_effect": table.smallest_effect,
        "assumed_sd": None if table.assume_sd is None else dataclasses.asdict(table.assume_sd),
        "seeds_for_smallest": found.seeds_for_smallest,
        "rows": [dataclasses.asdict(row) for row in found.rows],
    }


def as_markdown(found: Audit) -> str:
    """A section with the answer in a sentence, then the table."""
    table, reasons = found.table, {row.why for row in found.rows}
    common = reasons.pop() if len(reasons) == 1 else ""
    lines = [f"## {table.title}", ""]
    lines += (
        [f"Source: {table.source}. {table.metric[:1].upper()}{table.metric[1:]}.", ""] if table.source else []
    )
    lines += [_answer(found), ""]
    lines += [f"{table.note}", ""] if table.note else []
    lines += [
        "| row | over | improvement | 95 % interval | n | could detect | test images | verdict |",
        "|---|---|--:|--:|--:|--:|--:|---|",
        *(_line(row, common) for row in found.rows),
        "",
    ]
    lines += [f"In every row: {common}.", ""] if common else []
    if any(row.status == "memory" for row in found.rows):
        lines += [f"{MEMORY_MARK} a number behind it is from memory.", ""]
    return "\n".join(lines)


def _answer(found: Audit) -> str:
    table = found.table
    settled = sum(row.word in ("better", "worse", "no detectable difference") for row in found.rows)
    text = f"**{settled} of {len(found.rows)} comparisons are settled by what is printed"
    if table.assume_sd is not None:
        assumed = table.assume_sd
        text += f", if seeds vary by {assumed.value:g} ({assumed.source})"
    text += ".**"
    smallest = [row.detectable for row in found.rows if row.detectable is not None]
    if smallest:
        text += f" The smallest effect that it could have found with 80 % power: {min(smallest):.2f}."
    if found.seeds_for_smallest is not None:
        text += f" An effect of {table.smallest_effect:g} needs {found.seeds_for_smallest} runs of each row."
    return text


def _line(row: AuditedRow, common: str) -> str:
    mark = MEMORY_MARK if row.status == "memory" else ""
    interval = "—" if row.low is None or row.high is None else f"[{_signed(row.low)}, {_signed(row.high)}]"
    detectable = "—" if row.detectable is None else f"{row.detectable:.2f}"
    images = "—" if row.images_width is None else f"± {row.images_width:.2f}"
    runs = str(row.runs) if row.runs == row.versus_runs else f"{row.runs} / {row.versus_runs}"
    word = row.word + (f" ({row.why})" if row.why and row.why != common else "")
    cells = [
        _cell(row.label),
        _cell(row.versus),
        _signed(row.improvement) + mark,
        interval,
        runs,
        detectable,
        images,
    ]
    return "| " + " | ".join([*cells, _cell(word)]) + " |"


def _signed(value: float) -> str:
    text = f"{value:+.2f}"
    return text.replace("-", MINUS) if float(text) else "0.00"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
