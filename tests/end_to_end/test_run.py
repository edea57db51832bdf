"""`harness run`: ends in a report, does nothing twice, trains only what is new, says what failed."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Once
from tests.end_to_end.conftest import Finished, copy_of
from tests.end_to_end.workplace import Workplace


def test_a_run_ends_with_every_summary_every_report_and_one_finished_mlflow_run_per_run(finished: Finished):
    place = finished.place
    assert finished.exit_code == 0, finished.errors
    planned = set(place.runs())
    assert len(planned) == 6
    assert {folder.run_id for folder in place.folders() if folder.read_summary()} == planned
    for ending in ("md", "html", "pdf", "json"):
        assert (place.report_dir / f"report.{ending}").stat().st_size > 1000
    with closing(sqlite3.connect(place.path / "mlflow.db")) as store:
        mirrored = store.execute(
            "SELECT t.value, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'run_id'"
        ).fetchall()
    assert sorted(mirrored) == sorted((run_id, "FINISHED") for run_id in planned)


def test_a_run_without_a_terminal_prints_its_progress_as_plain_lines_on_stderr(finished: Finished):
    assert "to train: 6 runs" in finished.output
    assert "report:" in finished.output
    first, *_, last = finished.errors.splitlines()
    assert first.startswith("starting workers for 6 runs")
    assert last.startswith("6 runs: 6 finished; ")
    assert "\x1b" not in finished.errors


def test_running_again_trains_nothing_changes_no_file_and_says_that_the_report_is_up_to_date(copy: Workplace):
    before = copy.files()
    again = copy.harness("run")
    assert again.returncode == 0, again.stderr
    assert "6 done; nothing to train" in again.stdout
    assert "is up to date" in again.stdout
    assert copy.files() == before


@dataclass(frozen=True)
class Extended:
    """The finished study after a row was added to it of which seed 1 cannot be trained, and run again."""

    place: Workplace
    before: dict[str, tuple[bytes, int]]  # the files as they were
    new: dict[str, int]  # run_id -> seed of the added row's runs
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def extended(finished: Finished, once: Once[Extended]) -> Extended:
    return once("extended", partial(extend, finished))


def extend(finished: Finished, folder: Path) -> Extended:
    place = copy_of(finished, folder / "copy")
    old = place.runs()
    [teacher] = [run_id for run_id, about in old.items() if about == ("only / Smoothed", 1)]
    (place.runs_dir / teacher / "weights.pt").unlink()
    before = place.files()
    place.add_row("{label: Warmer, add: {distillation: {teacher: teacher, temperature: 5}}}")
    new = {run_id: seed for run_id, (_, seed) in place.runs().items() if run_id not in old}
    return Extended(place, before, new, place.harness("run", "--on", "inline"))


def test_adding_one_row_trains_only_that_rows_runs(extended: Extended):
    assert sorted(extended.new.values()) == [0, 1]
    assert "to train: 2 runs" in extended.done.stdout
    after = extended.place.files()
    of_old_runs = [path for path in extended.before if path.startswith("runs/")]
    assert {path: after[path] for path in of_old_runs} == {
        path: extended.before[path] for path in of_old_runs
    }
    trained = {
        path.split("/")[1]
        for path in after.keys() - extended.before.keys()
        if path.startswith("runs/") and not path.startswith("runs/.")
    }
    assert trained == set(extended.new)
    [first] = [run_id for run_id, seed in extended.new.items() if seed == 0]
    assert extended.place.results()[first]["status"] == "finished"


def test_a_failed_run_gives_exit_code_1_and_its_reason_once(extended: Extended):
    assert extended.done.returncode == 1
    errors = extended.done.stderr
    assert errors.count("no weights.pt") == 1
    assert "failed: only / Warmer, seed 1: TeacherError: " in errors
    assert errors.splitlines()[-1].startswith("2 runs: ")
    assert "1 failed" in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_a_failed_run_is_named_in_the_report_with_the_reason(extended: Extended):
    lines = (extended.place.report_dir / "details.md").read_text().splitlines()
    [row] = [line for line in lines if line.startswith("| only / Warmer | 1 | failed |")]
    assert "no weights.pt" in row
    report = json.loads((extended.place.report_dir / "report.json").read_text())
    [failed] = [run for run in report["runs"] if run["status"] != "finished"]
    assert failed["status"] == "failed"
    assert extended.new[failed["run_id"]] == 1
