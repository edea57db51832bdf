"""Whatever a cluster does to a job, the study ends in the bits of an undisturbed one."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.runs.folder import run_state
from tests.end_to_end.workplace import Workplace
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import LONG
from tests.slurm.place import PATIENCE_S, SlurmPlace, wait_until

At = Callable[..., SlurmPlace]


def under_way(place: SlurmPlace) -> bool:
    """A run has trained some epochs and is not near its end."""
    return any(
        10 <= len(place.events("epoch")[folder.run_id]) <= 50 and not folder.summary.exists()
        for folder in place.folders()
    )


def assert_same(place: SlurmPlace, undisturbed: Workplace, count: int) -> None:
    """So many runs have ended as in the undisturbed study, with each epoch in their records once."""
    assert len(place.results()) == count, place.story()
    assert place.results().items() <= undisturbed.results().items(), place.story()
    for run_id, events in place.events("epoch").items():
        assert [event["epoch"] for event in events] == list(range(1, LONG["epochs"] + 1)), run_id


def assert_went_on_from_a_checkpoint(place: SlurmPlace) -> None:
    assert place.resumed_from(), "a run was interrupted\n" + place.story()
    assert max(place.resumed_from()) > 0, "it went on where it was\n" + place.story()


def test_a_preempted_job_goes_on_from_its_checkpoint_when_it_is_its_turn_again(
    cluster: Cluster, at: At, undisturbed_long: Workplace
):
    place = at(cluster, **LONG)
    place.resources(partition="low", at_most=1)
    assert place.submit("--seeds", "2", "--detach").returncode == 0
    wait_until(lambda: under_way(place), place.story)
    with place.standing_still() as is_warned:
        urgent = cluster.sbatch("--partition=high", "--cpus-per-task=4", "--mem=1000", "--wrap=sleep 5")
        wait_until(is_warned, place.story)
    wait_until(lambda: urgent in cluster.ask("squeue", "-h", "-t", "R", "-o", "%i").split(), place.story)
    wait_until(lambda: not place.tasks(), place.story)
    assert_same(place, undisturbed_long, count=2)
    assert_went_on_from_a_checkpoint(place)
    assert len(place.job_ids()) == 1, "it was requeued, not submitted again"


def minutes_after(cluster: Cluster, task: str) -> int:
    """The first limit of a running task that is at least 20 s ahead."""
    minutes, seconds = cluster.ask("squeue", "-h", "-j", task, "-o", "%M").strip().split(":")
    return (60 * int(minutes) + int(seconds) + 20) // 60 + 1


def limit(cluster: Cluster, task: str, minutes: int) -> None:
    cluster.ask("scontrol", "update", f"JobId={task}", f"TimeLimit={minutes}")


def test_a_job_that_reaches_its_time_limit_goes_on_from_its_checkpoint(
    cluster: Cluster, at: At, undisturbed_long: Workplace
):
    """The limit of a running job is cut, so that it is reached with work left on any machine; Slurm looks for
    such jobs every 30 s."""
    place = at(cluster, **LONG)
    place.resources(time="30min", at_most=1)
    process = place.start_submitting()
    wait_until(lambda: under_way(place), lambda: f"{process.poll()} {place.story()}")
    (task,) = place.tasks()
    with place.standing_still() as is_warned:
        limit(cluster, task, minutes_after(cluster, task))
        wait_until(is_warned, place.story)
    wait_until(lambda: place.tasks() == {task: "PENDING"}, place.story)
    limit(cluster, task, minutes=30)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors + place.story()
    assert_same(place, undisturbed_long, count=4)
    assert_went_on_from_a_checkpoint(place)


def test_when_a_node_dies_its_runs_are_trained_elsewhere(
    cluster: Cluster, at: At, undisturbed_long: Workplace
):
    place = at(cluster, **LONG)
    place.resources(partition="mortal", at_most=1)
    assert place.submit("--seeds", "2", "--detach").returncode == 0
    wait_until(lambda: under_way(place), place.story)
    (node,) = place.nodes()
    cluster.do("node-kill", node)
    try:
        wait_until(lambda: not place.tasks(), place.story)
    finally:
        cluster.do("node-start", node)
    assert_same(place, undisturbed_long, count=2)
    assert max(place.attempts().values()) == 2


def test_scancel_loses_nothing_is_told_and_the_next_command_finishes_the_study(
    cluster: Cluster, at: At, undisturbed_long: Workplace
):
    place = at(cluster, **LONG)
    process = place.start_submitting("--seeds", "2")
    wait_until(lambda: under_way(place), lambda: f"{process.poll()} {place.story()}")
    cluster.ask("scancel", *place.job_ids())
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3, errors
    assert "cancelled by you" in errors
    assert len(place.results()) < 2, "it was cancelled half-way"
    assert {run_state(folder) for folder in place.folders()} <= {"stopped", "finished"}
    done = place.submit("--seeds", "2")
    assert done.returncode == 0, done.stderr + place.story()
    assert_same(place, undisturbed_long, count=2)
    assert_went_on_from_a_checkpoint(place)


def test_too_little_memory_is_told_with_the_mend_and_ends(cluster: Cluster, at: At):
    place = at(cluster)
    place.resources(memory_gb=0.2, at_most=1)
    done = place.submit()
    assert done.returncode == 1, done.stdout + done.stderr + place.story()
    assert "memory_gb" in done.stdout + done.stderr
    assert not place.tasks(), "it does not try for ever"
    assert not place.results()


def test_nothing_changes_while_the_scheduler_and_its_accounting_are_away(
    whole_cluster: Cluster, at: At, undisturbed_long: Workplace
):
    whole_cluster.do("dbd-kill")
    place = at(whole_cluster, **LONG)
    process = place.start_submitting("--seeds", "2")
    wait_until(lambda: under_way(place), lambda: f"{process.poll()} {place.story()}")
    whole_cluster.do("ctld-kill")
    away_until_s = time.monotonic() + 60
    seen: dict[str, list[str]] = {}
    while time.monotonic() < away_until_s and process.poll() is None:
        for folder in place.folders():
            states = seen.setdefault(folder.run_id, [])
            if (state := run_state(folder)) not in states[-1:]:
                states.append(state)
        time.sleep(0.2)
    whole_cluster.do("ctld-start")
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors + place.story()
    assert_same(place, undisturbed_long, count=2)
    assert set(place.attempts().values()) == {1}
    order = ["missing", "running", "finished"]
    assert all(states == sorted(states, key=order.index) for states in seen.values()), seen
