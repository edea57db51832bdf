"""A study on Slurm ends in what the same study ends in on this machine, run for run, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.end_to_end.workplace import Workplace
from tests.slurm.cluster import MAX_ARRAY_TASKS, Cluster
from tests.slurm.conftest import SHORT
from tests.slurm.place import SlurmPlace, copy_of_the_code, wait_until

At = Callable[..., SlurmPlace]


def test_teachers_and_students_give_the_results_of_a_local_study_and_a_second_command_does_nothing(
    cluster: Cluster, at: At, undisturbed: Workplace
):
    place = at(cluster)
    done = place.submit()
    assert done.returncode == 0, done.stderr + place.story()
    assert place.results() == undisturbed.results()
    assert {summary["status"] for summary in place.results().values()} == {"finished"}
    assert set(place.attempts().values()) == {1}, "nothing was done twice"

    before = {path: place.files()[path] for path in place.files() if path.startswith("runs/")}
    again = place.submit()
    assert again.returncode == 0, again.stderr
    after = place.files()
    assert {path for path in before if after.get(path) != before[path]} <= {"runs/.queue.json"}
    assert len(place.submissions()) == 1


def test_the_report_is_written_by_the_command_that_watched(cluster: Cluster, at: At):
    place = at(cluster)
    done = place.harness("run", "--on", "slurm", "--cluster", "cluster.yaml")
    assert done.returncode == 0, done.stderr + place.story()
    assert "Distilled" in (place.report_dir / "report.md").read_text()
    assert place.json("status", "tiny.yaml")
    assert (place.path / "mlflow.db").exists()


def test_more_agents_than_an_array_may_hold_are_several_arrays(
    cluster: Cluster, at: At, undisturbed_baseline: Workplace
):
    place = at(cluster, **SHORT)
    place.resources(at_most=3)
    done = place.submit("--seeds", "3")
    assert done.returncode == 0, done.stderr + place.story()
    (submission,) = place.submissions()
    chunks = json.loads((submission / "jobs.json").read_text())
    assert sum(job["tasks"] for job in chunks.values()) == 3
    assert max(job["tasks"] for job in chunks.values()) <= MAX_ARRAY_TASKS
    assert len({job["job_id"] for job in chunks.values()}) == len(chunks)
    assert len(place.results()) == 3
    assert place.results().items() >= undisturbed_baseline.results().items()
    assert set(place.attempts().values()) == {1}


def test_at_most_two_agents_run_at_once_where_that_is_asked(cluster: Cluster, at: At, undisturbed: Workplace):
    place = at(cluster)
    place.resources(at_most=8)
    process = place.start_submitting("--at-most", "2")
    seen = []
    while process.poll() is None:
        seen.append(sum(state == "RUNNING" for state in place.tasks().values()))
    assert process.returncode == 0, process.communicate()
    assert max(seen) == 2
    assert place.results() == undisturbed.results()


def test_a_waiting_job_runs_the_code_it_was_submitted_with(
    cluster: Cluster, at: At, undisturbed: Workplace, tmp_path: Path
):
    code = copy_of_the_code(tmp_path / "checkout")
    place = at(cluster, code=code)
    place.resources(sbatch=["--hold"])
    done = place.submit("--detach")
    assert done.returncode == 0, done.stderr
    assert set(place.tasks().values()) == {"PENDING"}
    for file in (code / "harness").rglob("*.py"):
        file.write_text("raise RuntimeError('this is not what was submitted')\n")
    place.cluster.ask("scontrol", "release", *place.job_ids())
    wait_until(lambda: not place.tasks(), place.story)
    assert place.results() == undisturbed.results(), place.story()
