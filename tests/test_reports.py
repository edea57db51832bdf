"""The committed reports are those of the committed studies, and the README counts what is in them."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.cli import build_parser
from harness.commands.report import part_json, report_input
from harness.commands.workspace import build_catalogue, part_names
from harness.reporting.frames import read_extra, read_raw
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.part import part_of
from harness.study.plan import Plan, plan_to_json

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))
NUMBERS = (
    "zero",
    "One",
    "Two",
    "Three",
    "Four",
    "Five",
    "Six",
    "Seven",
    "Eight",
    "Nine",
    "Ten",
    "Eleven",
    "Twelve",
)


@cache
def _plan(study: str) -> Plan:
    catalogue = build_catalogue(ROOT / "data")
    return expand(load_study(ROOT / "studies" / f"{study}.yaml", catalogue), catalogue, ExpandOptions())


@cache
def _report(study: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((ROOT / "reports" / study / "report.json").read_text())
    return report


def test_every_study_has_a_report_and_every_report_a_study() -> None:
    reports = (path.parent.name for path in (ROOT / "reports").glob("*/report.json"))
    of_a_demo = ("-part", "-here")
    assert sorted(name for name in reports if not name.endswith(of_a_demo)) == STUDIES


@pytest.mark.parametrize("study", STUDIES)
def test_a_report_has_the_runs_that_its_study_plans_today(study: str) -> None:
    """By identity: a change of any number of the study needs the report made again."""
    report = _report(study)
    assert [run["run_id"] for run in report["runs"]] == [run.run_id for run in _plan(study).runs]
    assert {run["status"] for run in report["runs"]} <= {"finished", "diverged"}
    assert report["size"] == "mini"


@pytest.mark.parametrize("study", STUDIES)
def test_a_report_shows_the_rows_printed_values_and_claims_of_its_study(study: str) -> None:
    report, plan = _report(study), plan_to_json(_plan(study))
    shown = [
        (table["key"], cell["row"], cell["column"], cell["paper"])
        for table in report["findings"]["tables"]
        for cell in table["cells"]
    ]
    planned = [
        (table["key"], cell["row"], cell["column"], cell["paper"])
        for table in plan["tables"]
        for cell in table["cells"]
    ]
    assert shown == planned
    assert [claim["says"] for claim in report["claims"]] == [claim["says"] for claim in plan["claims"]]


def test_the_readme_counts_the_studies_and_the_demos_trainings() -> None:
    readme = (ROOT / "README.md").read_text()
    trainings = len(_plan("bag_of_tricks").runs)
    assert re.findall(r"(\w+) more studies come with it", readme) == [NUMBERS[len(STUDIES) - 1]]
    assert f"{trainings} short trainings" in readme


def test_two_workers_train_the_demos_part_within_half_of_its_budget_and_it_has_settled_rows() -> None:
    """By the times and verdicts of the committed report, whose runs shared their machine with other work."""
    said = re.search(r"^DEMO := studies/(\w+)\.yaml (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert said is not None
    args = build_parser("run").parse_args(["run", said[1], *said[2].split(), "--budget", "11min"])
    part = part_of(_plan(said[1]), part_names(args), "")
    records, curves = read_raw(ROOT / "reports" / said[1])
    own = records[records["run_id"].isin(run.run_id for run in part.plan.runs)]
    assert len(own) == len(part.plan.runs)
    assert own["wall_time_s"].sum() / 2 <= args.budget.most_s / 2
    extra = read_extra(ROOT / "reports" / said[1])
    found = report_input(part.whole, own, curves, {}, {**extra, "part": part_json(part)}).findings
    words = [cell.effect.verdict for table in found.tables for cell in table.cells if cell.effect]
    assert {"helps", "no detectable difference"} <= set(words)
    assert len(set(words) & {"undecided", "not evaluable"}) <= 1
