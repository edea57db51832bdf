"""`harness run`: ends in a report, does nothing twice, trains only what is new, says what failed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from tests.end_to_end.conftest import Finished
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


def test_adding_one_row_trains_only_that_rows_runs(copy: Workplace):
    old_runs, before = copy.runs(), copy.files()
    copy.add_row("{label: Added, add: ema}")
    added = {run_id: label for run_id, label in copy.runs().items() if run_id not in old_runs}
    assert sorted(added.values()) == [("only / Added", 0), ("only / Added", 1)]

    done = copy.harness("run", "--no-report")
    assert done.returncode == 0, done.stderr
    assert "2 runs: 2 finished" in done.stderr
    assert set(copy.results()) == set(old_runs) | set(added)
    after = copy.files()
    of_old_runs = [path for path in before if path.startswith("runs/")]
    assert {path: after[path] for path in of_old_runs} == {path: before[path] for path in of_old_runs}


def test_a_failed_run_gives_exit_code_1_and_a_report_that_names_it_and_why(copy: Workplace):
    seed_of_teacher = {
        run_id: seed for run_id, (label, seed) in copy.runs().items() if label == "only / Smoothed"
    }
    for run_id, seed in seed_of_teacher.items():
        if seed == 1:
            (copy.runs_dir / run_id / "weights.pt").unlink()
    copy.add_row("{label: Warmer, add: {distillation: {teacher: teacher, temperature: 5}}}")

    done = copy.harness("run")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("no weights.pt") == 1, "the reason is printed once"
    assert "failed: only / Warmer, seed 1: " in done.stderr
    assert "2 runs: " in done.stderr.splitlines()[-1]
    assert "1 failed" in done.stderr.splitlines()[-1]
    [line] = [
        line for line in (copy.report_dir / "report.md").read_text().splitlines() if "no weights.pt" in line
    ]
    assert "Warmer" in line
    assert "failed" in line
    report = json.loads((copy.report_dir / "report.json").read_text())
    [failed] = [run for run in report["runs"] if run["status"] != "finished"]
    assert (failed["status"], failed["seed"]) == ("failed", 1)
    assert copy.runs()[failed["run_id"]] == ("only / Warmer", 1)
