"""A report says when its plan was declared, what was changed later, and what it was made with."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.analysis.effects import mark_exploratory
from harness.errors import StudyError
from harness.reporting import ReportInput
from harness.reporting.frames import (
    ARCHIVE,
    extra_files,
    packed,
    raw_digest,
    raw_files,
    read_extra,
    to_csv,
    to_json,
)
from harness.reporting.report_input import ran_with
from harness.runs.provenance import kept_changes
from harness.study.declaration import declaration_of, plan_hash
from tests.end_to_end.test_json import PAGE, emitted, is_kind
from tests.reporting.edits import whole_text
from tests.reporting.sample import make_report

ENV = {
    "commit": "46ae5c0294e5419f5ee629e876b22d388e1d7127", "dirty": True, "changes": "ab12cd34" * 8,
    "device": "cpu", "cpu": "a small CPU", "cores": 2, "memory_gb": 8.3, "threads": 1, "exact": True,
    "tf32": False, "compile": False, "hostname": "vm", "numpy": "2.4.6", "driver": None,
}  # fmt: skip


@pytest.fixture(scope="session")
def report() -> ReportInput:
    """The sample, with the header of a study that was expanded."""
    sample = make_report()
    header = {**sample.plan.header, "smoke": False, "metric": "top1", "smallest_effect": 0.4}
    return replace(sample, plan=replace(sample.plan, header=header))


def entry(report: ReportInput, ended: int = 0, seen: int = 0, **changes: Any) -> dict[str, Any]:
    declaration = {**declaration_of(report.plan), **changes}
    head = {"time": "2026-11-22T17:31:29Z", "harness": "0.1.0", "commit": None, "dirty": None}
    counts = {"runs": len(report.plan.runs), "ended": ended, "seen": seen}
    return {"schema": 1, **head, **counts, "plan_hash": plan_hash(declaration), "declaration": declaration}


def declared(report: ReportInput, *entries: dict[str, Any], problem: str | None = None) -> ReportInput:
    history = {"schema": 1, "problem": problem, "declarations": list(entries)}
    return replace(report, declaration=history)


def markdown(report: ReportInput) -> str:
    return whole_text(report)


def method(report: ReportInput) -> str:
    return markdown(report).split("## Method")[1].split("## Provenance")[0]


def test_a_plan_that_was_declared_before_the_first_run_is_said_with_hash_and_time(report: ReportInput):
    first = entry(report)
    text = markdown(declared(report, first))
    said = f"The plan (hash {first['plan_hash'][:8]}) was recorded on 2026-11-22 17:31 UTC, before any of its"
    assert said in text
    assert "nothing here shows" not in text
    assert "Amendments to the plan" not in text


@pytest.mark.parametrize(
    ("ended", "says"),
    [
        (None, "was not recorded when its runs were started: nothing here shows that it was declared before"),
        ("all", "when all of its {runs} runs had ended: nothing here shows that it was declared before"),
        (
            "some",
            "when 5 of its {runs} runs had ended: for the results that were there by then, nothing here",
        ),
    ],
)
def test_a_plan_that_was_not_is_never_said_to_be(report: ReportInput, ended: str | None, says: str):
    runs = len(report.plan.runs)
    if ended is not None:
        report = declared(report, entry(report, ended=runs if ended == "all" else 5))
    text = method(report)
    assert says.format(runs=runs) in text
    assert "before the first run" not in text
    assert "before any of its" not in text


def test_amendments_are_listed_with_their_date_and_what_had_ended(report: ReportInput):
    first = entry(report, smallest_effect=0.2, looks=[2])
    then = {**entry(report, ended=12, seen=9), "time": "2026-11-23T08:00:00Z"}
    text = markdown(declared(report, first, then))
    part = text.split("## Amendments to the plan")[1].split("\n## ")[0]
    delta = report.plan.header["smallest_effect"]
    assert f"2026-11-23 08:00 UTC, plan hash {then['plan_hash'][:8]}, when 12 of its" in part
    assert "and 9 further runs of recipes declared before:" in part
    assert f"smallest effect 0.2 → {delta:g} pp; seeds 2 → 3." in part
    assert "How many seeds there are was changed when results were there." in part
    assert "It was changed since: see “Amendments to the plan”." in method(declared(report, first, then))


def test_a_report_of_another_plan_than_the_newest_record_says_so(report: ReportInput):
    text = markdown(declared(report, entry(report, metric="top5")))
    assert "Not recorded, but so in this report" in text
    assert "metric top5 → top1." in text


def test_a_damaged_record_is_said_and_shows_nothing(report: ReportInput):
    text = markdown(declared(report, problem="declaration.1.json was changed by hand"))
    assert "The record of the plan cannot be used (declaration.1.json was changed by hand): nothing" in text
    assert "A record of the plan cannot be used: declaration.1.json was changed by hand." in text


def test_an_exploratory_verdict_is_tagged_everywhere_and_stays_in_the_holm_family(report: ReportInput):
    key = ("table5", None, "ResNet-50-C")
    findings = mark_exploratory(report.findings, {key})
    late = replace(declared(report, entry(report, metric="top5"), entry(report, ended=3)), findings=findings)
    text = markdown(late)
    [line] = [
        line for line in text.splitlines() if line.startswith("| ResNet-50-C ") and "exploratory" in line
    ]
    assert "helps" in line or "undecided" in line
    assert re.search(r"ResNet-50-C.*Exploratory: not declared before results were there\.", text)
    assert "(1 of them exploratory: not declared before results were there)" in text
    part = text.split("## Amendments to the plan")[1].split("\n## ")[0]
    assert "1 verdict marked as exploratory" in part
    assert "They stay in the Holm family" in part
    assert "Table 5 / ResNet-50-C." in part
    [table] = [table for table in findings.tables if table.key == "table5"]
    head, *lines = to_csv(table).splitlines()
    tags = [line.split(",")[head.split(",").index("effect_exploratory")] for line in lines]
    assert tags == ["", "False", "True", "False"]
    before = [table.contrasts for table in report.findings.tables]
    assert [table.contrasts for table in findings.tables] == before
    assert mark_exploratory(report.findings, ()) is report.findings


def test_json_has_the_declaration_and_what_the_runs_cost(report: ReportInput):
    first, then = entry(report, smallest_effect=0.2), entry(report, ended=12)
    data = json.loads(to_json(declared(report, first, then)))
    assert data["declaration"]["first"]["plan_hash"] == first["plan_hash"]
    [amendment] = data["declaration"]["amendments"]
    assert (amendment["ended"], amendment["changes"][0][:15]) == (12, "smallest effect")
    assert data["declaration"]["not_recorded"] == []
    assert data["costs"]["study"]["runs"] == (report.records["status"] != "failed").sum()
    assert json.loads(to_json(report))["declaration"] == {
        "problem": None, "first": None, "amendments": [], "not_recorded": [],
    }  # fmt: skip


def test_every_key_of_both_is_described_on_the_page_and_no_other(report: ReportInput):
    late = declared(report, entry(report, smallest_effect=0.2), entry(report, ended=12))
    data = json.loads(to_json(late))
    section = PAGE.read_text().split("## report.json: declaration and costs\n")[1].split("\n## ")[0]
    keys = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", section, re.M))
    pairs = list(emitted({name: data[name] for name in ("declaration", "costs")}, keys))
    assert {key for key, _ in pairs} == set(keys)
    assert [key for key, value in pairs if not is_kind(value, keys[key])] == []


# The inputs beside the records


def test_inputs_beside_the_records_come_back_from_the_folder_as_they_were(
    report: ReportInput, tmp_path: Path
):
    inputs = {"declaration": {"declarations": [1.25, "a→b"]}, "calibration": None}
    files = extra_files(inputs)
    assert list(files) == ["declaration.json"]
    (tmp_path / "data").mkdir()
    (tmp_path / ARCHIVE).write_bytes(packed(files))
    assert read_extra(tmp_path) == {"declaration": inputs["declaration"]}
    assert extra_files(read_extra(tmp_path)) == files


def test_a_report_without_them_has_the_files_and_the_hash_that_it_had(report: ReportInput):
    assert extra_files(report.extra) == {}
    assert set(raw_files(report.records, report.curves, {})) == {"runs.jsonl", "curves.csv"}
    without, with_one = (
        raw_digest(raw_files(report.records, report.curves, more)) for more in ({}, {"x": b"1"})
    )
    assert without != with_one


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_input_is_one_sentence(tmp_path: Path, content: bytes):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "declaration.json").write_bytes(content)
    with pytest.raises(StudyError, match=r"declaration\.json: is damaged"):
        read_extra(tmp_path)


def test_the_patch_of_changed_code_lies_beside_the_records_under_its_digest(report, tmp_path: Path):
    patch = "+caf\udce9\n"  # a byte that is no UTF-8 is kept as it is
    digest = hashlib.sha256(b"+caf\xe9\n").hexdigest()
    (tmp_path / "runs/.changes").mkdir(parents=True)
    path = tmp_path / "runs/.changes" / f"{digest}.patch"
    path.write_bytes(b"+caf\xe9\n")
    assert kept_changes(tmp_path / "runs", [digest, "0" * 64, "../../etc/passwd"]) == {digest: patch}
    changed = replace(report, changes={digest: patch})
    files = extra_files(changed.extra)
    assert files == {f"changes.{digest[:12]}.patch": b"+caf\xe9\n"}
    (tmp_path / "data").mkdir()
    (tmp_path / ARCHIVE).write_bytes(packed(files))
    assert read_extra(tmp_path) == {"changes": {digest: patch}}
    assert f"**Changed files**: changes.{digest[:12]}.patch in data/records.zip" in markdown(changed)
    path.write_bytes(b"another")
    assert kept_changes(tmp_path / "runs", [digest]) == {}


# Provenance


def with_env(report: ReportInput, *envs: dict[str, Any] | None) -> pd.DataFrame:
    """The records, their environments in turn."""
    texts = [json.dumps(env) if env else None for env in envs]
    return report.records.assign(env=[texts[n % len(texts)] for n in range(len(report.records))])


def test_provenance_names_code_machine_and_versions_and_what_was_not_recorded(report: ReportInput):
    records = with_env(report, ENV)
    facts = {"harness": "0.1.0", **ran_with(records)}
    text = markdown(replace(report, records=records, provenance=facts)).split("## Provenance")[1]
    assert "**Code of the runs**: commit 46ae5c0294e5 with changed files (patch sha256 ab12cd34ab12)" in text
    assert "**CPU cores a run could use**: 2" in text
    assert "**Memory, GB**: 8.3" in text
    assert "**Determinism**: exact: repeatable algorithms only, TF32 off, not compiled" in text
    assert re.search(r"\*\*Not recorded by any run\*\*: .*torchvision", text)
    assert "NVIDIA driver" not in text  # no run used a GPU


def test_runs_of_two_versions_are_counted_for_each_and_an_old_store_is_not_recorded(report: ReportInput):
    clean = {**ENV, "commit": "1234567890abcdef", "dirty": False}
    found = ran_with(with_env(report, ENV, clean, None))
    third = len(report.records) // 3
    assert len(found["code"]) == 2
    assert f"commit 1234567890ab, no file changed ({third} runs)" in found["code"]
    old = ran_with(report.records)
    assert old["code"] == old["determinism"] == old["cores"] == []


def test_the_runs_are_counted_in_the_text_and_each_of_them_stands_in_report_json(report: ReportInput):
    text = markdown(report).split("## Provenance")[1]
    ids = sorted(run.run_id for run in report.plan.runs)
    assert f"ids {ids[0][:12]} ... {ids[-1][:12]}; each with seed, status, result and time in" in text
    data = json.loads(to_json(report))
    assert [run["run_id"] for run in data["runs"]] == [run.run_id for run in report.plan.runs]


def test_the_checklist_answers_from_the_records(report: ReportInput):
    records = with_env(report, ENV).assign(wall_time_s=7200.0, energy_j=float("nan"))
    text = method(replace(report, records=records, provenance=ran_with(records)))
    ended = int(records["status"].isin(["finished", "diverged"]).sum())
    planned = len(report.plan.runs)
    assert f"{ended} of {planned} planned runs ended, 1 of them diverged, and all of them are counted" in text
    assert "**Seeds**: 3 seeds for every row (0 to 2), the same for all rows." in text
    assert f"{2 * ended:.1f} CPU core-hours; energy: not measured" in text
    assert "(2 CPU cores, 8.3 GB memory)" in text
    measured = method(replace(report, records=records.assign(energy_j=500.0)))
    assert f"energy: {ended / 2:.1f} kJ" in measured
