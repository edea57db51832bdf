"""What is missing or failed, what was replaced, and what the paper leaves out."""

from __future__ import annotations

import textwrap

from harness.analysis.levels import no_value
from harness.analysis.outcomes import can_be
from harness.reporting.cells import NUMBER, TEXT, Table, plain_table
from harness.reporting.document import Block, Bullets, Paragraph, Section
from harness.reporting.inputs import ReportInput
from harness.reporting.names import as_sentences, run_name
from harness.reporting.numbers import count, missing
from harness.study.records import FINISHED

NOT_RUN = "not run"
ERROR_CHARS = 120


def statuses(report: ReportInput) -> dict[str, str]:
    """run_id -> status, for every run of the plan."""
    known = dict(zip(report.records["run_id"], report.records["status"], strict=True))
    return {run.run_id: str(known.get(run.run_id, NOT_RUN)) for run in report.plan.runs}


def shortfalls(report: ReportInput) -> Section:
    """Runs without a result, substitutions at this size, and the gaps of the paper."""
    blocks: list[Block] = []
    bad = _unfinished(report)
    total = len(report.plan.runs)
    if bad is None:
        blocks.append(Paragraph(f"All {count(total, 'planned run')} finished."))
    else:
        lost = len(bad.rows)
        blocks += [Paragraph(f"{count(lost, 'run')} of {total} did not finish with a value."), bad]
    for title, items in (
        ("What differs from the paper at this size:", report.plan.notes),
        ("Deviations:", as_sentences(report.plan.header.get("deviations"))),
        ("What the paper leaves out:", as_sentences(report.plan.header.get("unknown"))),
    ):
        if items:
            blocks += [Paragraph(title), Bullets(tuple(items))]
    return Section("Missing, failed, replaced", tuple(blocks))


def _unfinished(report: ReportInput) -> Table | None:
    attempts, errors, status_of = _column(report, "attempts"), _column(report, "error"), statuses(report)
    rows = [
        [
            run_name(report.plan, run),
            str(run.seed),
            status_of[run.run_id],
            attempts.get(run.run_id, missing("none")),
            _first_line(errors.get(run.run_id, "")),
        ]
        for run in report.plan.runs
        if status_of[run.run_id] != FINISHED
    ]
    metric = report.findings.settings.metric
    lacking = _lacking(report, metric)
    rows += [
        [
            run_name(report.plan, run),
            str(run.seed),
            FINISHED,
            attempts.get(run.run_id, missing("none")),
            no_value(metric),
        ]
        for run in report.plan.runs
        if run.run_id in lacking
    ]
    if not rows:
        return None
    titles = {"Run": TEXT, "Seed": NUMBER, "Status": TEXT, "Attempts": NUMBER, "Error": TEXT}
    return plain_table("unfinished", "Planned runs without a value.", titles, rows)


def _lacking(report: ReportInput, metric: str) -> frozenset[str]:
    """The finished runs without a value of the metric that the analysis takes for one."""
    if metric not in report.records:
        return frozenset()
    rows = report.records[["run_id", "status", metric]].itertuples(index=False)
    return frozenset(
        str(run) for run, status, value in rows if status == FINISHED and not can_be(metric, value)
    )


def _column(report: ReportInput, name: str) -> dict[str, str]:
    """run_id -> the value of a column as text, where there is one."""
    if name not in report.records:
        return {}
    pairs = zip(report.records["run_id"], report.records[name], strict=True)
    return {str(run): str(value) for run, value in pairs if value is not None and value == value}


def _first_line(error: str) -> str:
    lines = error.strip().splitlines()
    return textwrap.shorten(lines[0], ERROR_CHARS, placeholder=" ...") if lines else missing("none recorded")
