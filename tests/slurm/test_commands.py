"""What becomes of a study when the command that submitted it dies, is given twice, or cannot submit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.end_to_end.workplace import Workplace
from tests.slurm.cluster import Cluster
from tests.slurm.place import PATIENCE_S, SlurmPlace, wait_until

At = Callable[..., SlurmPlace]


def test_after_kill_9_of_the_command_the_study_goes_on_and_the_next_command_only_reports(
    cluster: Cluster, at: At, undisturbed: Workplace
):
    place = at(cluster)
    process = place.start_submitting()
    wait_until(place.is_submitted, lambda: f"nothing was submitted: {process.poll()} {place.story()}")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(place.results()) < len(undisturbed.results()), "it was killed before that was done"
    wait_until(lambda: not place.tasks(), place.story)
    assert place.results() == undisturbed.results(), place.story()

    done = place.harness("run", "--on", "slurm", "--cluster", "cluster.yaml")
    assert done.returncode == 0, done.stderr
    assert (place.report_dir / "report.md").exists()
    assert set(place.attempts().values()) == {1}, "nothing was trained again"
    assert len(place.submissions()) == 1


def test_after_kill_9_in_the_middle_of_submitting_the_next_command_submits_the_rest(
    cluster: Cluster, at: At, undisturbed: Workplace
):
    place = at(cluster)
    process = place.start_submitting()
    while process.poll() is None and not list(place.runs_dir.glob(".submissions/*/*.sh")):
        pass  # it goes from here to the last group within a tenth of a second
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not place.is_submitted()
    done = place.submit()
    assert done.returncode == 0, done.stderr + place.story()
    assert place.results() == undisturbed.results()
    assert set(place.attempts().values()) == {1}


def test_two_commands_at_once_train_each_run_once(cluster: Cluster, at: At, undisturbed: Workplace):
    place = at(cluster)
    processes = [place.start_submitting() for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors + place.story()
    assert place.results() == undisturbed.results()
    assert set(place.attempts().values()) == {1}


def test_slurm_and_this_machine_at_once_train_each_run_once(cluster: Cluster, at: At, undisturbed: Workplace):
    place = at(cluster)
    processes = [place.start_submitting(), place.start("run", "tiny.yaml", "--no-report")]
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors + place.story()
    assert place.results() == undisturbed.results()
    assert set(place.attempts().values()) == {1}


def test_ctrl_c_leaves_the_jobs_running_and_the_same_command_attaches_again(
    cluster: Cluster, at: At, undisturbed: Workplace
):
    place = at(cluster)
    place.resources(sbatch=["--hold"])
    process = place.start_submitting()
    wait_until(place.is_submitted, place.story)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3, errors
    assert "go on without this command" in errors
    assert "Traceback" not in errors
    assert set(place.tasks().values()) == {"PENDING"}, "they are still there"
    cluster.ask("scontrol", "release", *place.job_ids())
    done = place.submit()
    assert done.returncode == 0, done.stderr + place.story()
    assert place.results() == undisturbed.results()
    assert set(place.attempts().values()) == {1}
    assert len(place.submissions()) == 1


def test_a_partition_that_does_not_exist_is_one_clear_error_and_nothing_looks_submitted(
    cluster: Cluster, at: At
):
    place = at(cluster)
    place.resources(partition="gpus")
    done = place.submit()
    assert done.returncode == 2, done.stdout + done.stderr
    assert "gpus" in done.stderr
    assert "Traceback" not in done.stderr
    assert place.tasks() == {}
    assert place.job_ids() == []

    place.resources()
    mended = place.submit("--detach")
    assert mended.returncode == 0, mended.stderr
    assert place.tasks(), "the same command submits once that is mended"


def test_a_dry_run_prints_the_scripts_and_submits_nothing(cluster: Cluster, at: At):
    place = at(cluster)
    done = place.submit("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --partition=main" in done.stdout
    assert place.submissions() == []
