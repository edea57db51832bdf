"""When the plan was declared, and what was changed after that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from harness.reporting.document import Block, Bullets, Paragraph, Section
from harness.reporting.inputs import ReportInput
from harness.reporting.names import cell_name, short_name
from harness.reporting.numbers import count
from harness.study.amendments import amendments
from harness.study.declaration import HASH_SHOWN, declaration_of, declared_before_results, plan_hash

TITLE = "Amendments to the plan"
NOTHING_SHOWS = "nothing here shows that it was declared before the results"

Record = Mapping[str, Any]


def declared_text(report: ReportInput) -> str:
    """One or two sentences for the method box: when the plan was recorded, and what had ended by then."""
    records = _records(report)
    if report.declaration is None:
        return f"The plan was not recorded when its runs were started: {NOTHING_SHOWS}."
    damaged = report.declaration["problem"]
    if not records:
        return f"The record of the plan cannot be used ({damaged}): {NOTHING_SHOWS}."
    first = records[0]
    said = f"The plan (hash {_short(first)}) was recorded on {when(first)}"
    if not first["ended"]:
        text = f"{said}, before any of its {count(first['runs'], 'run')} had ended."
    elif first["ended"] == first["runs"]:
        text = f"{said}, when all of its {count(first['runs'], 'run')} had ended: {NOTHING_SHOWS}."
    else:
        text = (
            f"{said}, when {first['ended']} of its {count(first['runs'], 'run')} had ended: for the results "
        )
        text += "that were there by then, nothing here shows that it was declared before them."
    return text + (f" It was changed since: see “{TITLE}”." if amendments_section(report) else "")


def amendments_section(report: ReportInput) -> Section | None:
    """Every later declaration in words; None where the plan is the one that was declared first."""
    records = _records(report)
    blocks: list[Block] = [*_unusable(report)]
    items = [_amendment(old, new) for old, new in pairwise(records)]
    if records and (text := _unrecorded(report, records[-1])):
        items.append(text)
    if items:
        intro = f"First declared on {when(records[0])}, plan hash {_short(records[0])}. Changed since:"
        blocks += [Paragraph(intro), Bullets(tuple(items)), *_consequences(report, records)]
    return Section(TITLE, tuple(blocks)) if blocks else None


def when(record: Record) -> str:
    """For example "2026-11-22 17:31 UTC"."""
    return f"{record['time'][:16].replace('T', ' ')} UTC"


def declaration_json(report: ReportInput) -> dict[str, Any]:
    """The key `declaration` of report.json, as docs/json.md says."""
    records = _records(report)
    changes = [
        {**_head(new), "changes": amendments(old["declaration"], new["declaration"])}
        for old, new in pairwise(records)
    ]
    last = records[-1]["declaration"] if records else None
    return {
        "problem": report.declaration["problem"] if report.declaration else None,
        "first": _head(records[0]) if records else None,
        "amendments": changes,
        "not_recorded": amendments(last, declaration_of(report.plan)) if last else [],
    }


def _head(record: Record) -> dict[str, Any]:
    return {name: record[name] for name in ("time", "plan_hash", "runs", "ended", "seen")}


def _records(report: ReportInput) -> Sequence[Record]:
    return report.declaration["declarations"] if report.declaration else ()


def _short(record: Record) -> str:
    return str(record["plan_hash"])[:HASH_SHOWN]


def _unusable(report: ReportInput) -> list[Block]:
    problem = report.declaration["problem"] if report.declaration else None
    if problem is None:
        return []
    text = f"A record of the plan cannot be used: {problem}. What was declared from there on is not known."
    return [Paragraph(text)]


def _amendment(old: Record, new: Record) -> str:
    changes = "; ".join(amendments(old["declaration"], new["declaration"])) or "nothing that the hash covers"
    return f"{when(new)}, plan hash {_short(new)}, {_ended(new)}: {changes}."


def _ended(record: Record) -> str:
    if not record["ended"] and not record["seen"]:
        return "before any run had ended"
    before = (
        f", and {count(record['seen'], 'further run')} of recipes declared before" if record["seen"] else ""
    )
    return f"when {record['ended']} of its {count(record['runs'], 'run')} had ended{before}"


def _unrecorded(report: ReportInput, newest: Record) -> str:
    """How this report's plan differs from the newest declaration; "" where it does not."""
    now = declaration_of(report.plan)
    if plan_hash(now) == newest["plan_hash"]:
        return ""
    changes = "; ".join(amendments(newest["declaration"], now))
    return f"Not recorded, but so in this report (plan hash {plan_hash(now)[:HASH_SHOWN]}): {changes}."


def _consequences(report: ReportInput, records: Sequence[Record]) -> list[Block]:
    rows = [
        f"{short_name(table.key)} / {cell_name(cell)}"
        for table in report.findings.tables
        for cell in table.cells
        if cell.effect and cell.effect.exploratory
    ]
    blocks: list[Block] = []
    if rows:
        text = (
            f"{count(len(rows), 'verdict')} marked as exploratory, because the comparison, or the recipe of "
            "one of its sides, was not declared before results were there. They stay in the Holm family, "
            f"which is that of the plan as it is now: {', '.join(rows)}."
        )
        blocks.append(Paragraph(text))
    base = declared_before_results(records)
    if base["declaration"]["looks"] != declaration_of(report.plan)["looks"]:
        text = (
            "How many seeds there are was changed when results were there. The error rate of the verdicts "
            "holds for seeds, and looks at the results, that were declared before."
        )
        blocks.append(Paragraph(text))
    return blocks
