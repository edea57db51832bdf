"""`harness report`: tracking store -> frames -> verdicts -> report. Runs are read through MLflow."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import __version__
from harness.commands.workspace import Workspace, load_plan, mirror, report_folder, workspace
from harness.study.plan import Plan
from harness.study.plan_json import plan_to_json
from harness.study.records import read_json
from harness.study.spec import canonical_json

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.analysis.findings import Settings
    from harness.reporting import ReportInput


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    plan = load_plan(args, place)
    mirror(plan, place.store()).sync([place.folder(run.run_id) for run in plan.runs])
    print(write_report(plan, place, report_folder(args, plan)))
    return 0


def write_report(plan: Plan, place: Workspace, out_dir: Path) -> str:
    """Write every format into `out_dir` and say so."""
    from harness.reporting import render
    from harness.tracking.collect import collect

    records, curves = collect(place.store(), study=plan.study, size=plan.size)
    wanted = {run.run_id for run in plan.runs}
    records = records[records["run_id"].isin(wanted)].reset_index(drop=True)
    curves = curves[curves["run_id"].isin(wanted)].reset_index(drop=True)
    records["reason"] = records["error"]  # why a run failed, in the words of the analysis
    software = {"harness": __version__, "drawn_with": drawn_with(), "inputs": inputs_digest(plan, place)}
    render(report_input(plan, records, curves, software), out_dir)
    return f"report: {out_dir / 'report.md'} (.html, .pdf, .json; tables, figures and raw records beside)"


def report_input(
    plan: Plan, records: DataFrame, curves: DataFrame, software: Mapping[str, Any]
) -> ReportInput:
    """The one way from records to a report: `harness report` and `harness verify` both go it.

    software: what of the provenance is not in the records.
    """
    from harness.analysis import analyse
    from harness.reporting import ReportInput
    from harness.reporting.raw import raw_digest

    return ReportInput(
        findings=analyse(plan, records, curves, settings_of(plan)),
        plan=plan,
        records=records,
        curves=curves,
        provenance={**software, **_ran_with(records), "records": raw_digest(records, curves)},
        title=plan.header.get("title") or plan.study.replace("_", " ").capitalize(),
    )


def settings_of(plan: Plan) -> Settings:
    """What was declared. Only an uncut run at size `paper` may be held against the printed values."""
    from harness.analysis.findings import Settings

    return Settings(
        metric=plan.header["metric"],
        smallest_effect_pp=plan.header["smallest_effect"],
        comparable_to_paper=plan.size == "paper" and not plan.header["smoke"],
    )


def is_up_to_date(plan: Plan, place: Workspace, out_dir: Path) -> bool:
    """Whether the report in `out_dir` was written from just these runs by this version."""
    report = read_json(out_dir / "report.json")
    return report is not None and report.get("provenance", {}).get("inputs") == inputs_digest(plan, place)


def inputs_digest(plan: Plan, place: Workspace) -> str:
    """One hash over the plan, every summary and the harness version."""
    sha = hashlib.sha256(f"{__version__}\n".encode())
    sha.update(canonical_json({**plan_to_json(plan), "runs": None, "totals": None}).encode())
    for run in sorted(plan.runs, key=lambda run: run.run_id):
        path = place.folder(run.run_id).summary
        sha.update(run.run_id.encode() + (path.read_bytes() if path.exists() else b"-"))
    return sha.hexdigest()


def drawn_with() -> list[str]:
    """The packages whose versions decide the bytes of figures and of the PDF."""
    return [f"{name} {version(name)}" for name in ("matplotlib", "typst")]


def _ran_with(records: DataFrame) -> dict[str, list[str]]:
    def distinct(column: str) -> list[str]:
        values = records[column].dropna().tolist() if column in records else []
        return sorted({f"{value:g}" if isinstance(value, float) else str(value) for value in values})

    return {column: distinct(column) for column in ("torch", "device", "threads", "data", "data_fingerprint")}
