"""A report may be all that is left of its runs: none is replaced by one that knows less."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import build_parser
from harness.commands.report import up_to_date, written
from harness.commands.workspace import load_plan, workspace
from tests.end_to_end.workplace import Workplace


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ended_in(folder: Path) -> int:
    runs = json.loads((folder / "report.json").read_text())["runs"]
    return sum(run["status"] == "finished" for run in runs)


def test_a_report_with_runs_that_are_not_here_stays_and_the_new_one_is_written_beside_it(
    copy: Workplace, monkeypatch: pytest.MonkeyPatch
):
    was = contents(copy.report_dir)
    for run in copy.folders()[2:]:
        shutil.rmtree(run.path)
    done = copy.harness("report")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "reports/tiny has 4 runs of which nothing is here, so it stays as it is; "
        "this report is written beside it (--out reports/tiny would replace it)"
    )
    assert done.stdout.startswith("report: reports/tiny-here/report.md (")
    assert contents(copy.report_dir) == was
    assert ended_in(copy.path / "reports" / "tiny-here") == 2

    # What `harness run` asks: whether there is anything to write, and which report --open shows.
    monkeypatch.chdir(copy.path)
    args = build_parser().parse_args(["run", "tiny.yaml"])
    place = workspace(args)
    plan = load_plan(args, place)
    assert up_to_date(args, plan, place) == written(args, plan) == Path("reports/tiny-here")

    done = copy.harness("report", "--out", "reports/tiny")
    assert done.returncode == 0, done.stderr
    assert ended_in(copy.report_dir) == 2
    assert written(args, plan) == Path("reports/tiny")


def test_a_report_whose_runs_are_all_here_is_replaced_and_other_trainings_of_them_are_named(copy: Workplace):
    done = copy.harness("report")
    assert "reports/tiny" not in done.stderr
    assert done.stdout.startswith("report: reports/tiny/report.md (")
    folder = copy.folders()[0]
    summary = json.loads(folder.summary.read_text())
    folder.summary.write_text(json.dumps(summary | {"started_s": summary["started_s"] + 60.5}))
    done = copy.harness("report")
    assert done.returncode == 0, done.stderr
    assert "reports/tiny was computed from other trainings of 1 run; it is replaced\n" in done.stderr
    assert not (copy.path / "reports" / "tiny-here").exists()


def test_runs_that_the_study_has_no_longer_keep_no_report(copy: Workplace):
    for run in copy.folders():
        shutil.rmtree(run.path)
    copy.study.write_text(copy.study.read_text().replace("epochs: 6", "epochs: 5"))
    done = copy.harness("report")
    assert done.stdout.startswith("report: reports/tiny/report.md ("), done.stderr
