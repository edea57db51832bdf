"""Whatever ends `harness run` half-way, the same command goes on and ends in the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness.runs.folder import RunFolder, run_state
from tests.end_to_end.conftest import Finished
from tests.end_to_end.workplace import Workplace, group_of, pending, state_of, states_of_group
from tests.timing import PATIENCE_S, wait_until

pytestmark = pytest.mark.campaign
STILL_S = 10.0  # until all have stopped; else they go on, and are stopped a little later
AT_REST = 20  # looks in a row at a process that waits for something

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc")


def is_half_way(place: Workplace) -> bool:
    """A run has ended and another is under way, at least an epoch from its start and four from its end."""
    folders = place.folders()
    under_way = [
        folder for folder in folders if not folder.summary.exists() and 1 <= len(epochs(folder)) <= 2
    ]
    return bool(under_way) and any(folder.summary.exists() for folder in folders)


def is_frozen_half_way(place: Workplace, process: subprocess.Popen[str]) -> bool:
    """Whether it is half-way, and stays so: all its processes stand still, until the group is continued."""
    if not is_half_way(place):
        return False
    os.killpg(process.pid, signal.SIGSTOP)
    # One that waits for a child between vfork and exec does not stop before that child goes on.
    stand = wait_until(lambda: all(state == "T" for state in states_of_group(process).values()), STILL_S)
    if stand and is_half_way(place):
        return True
    os.killpg(process.pid, signal.SIGCONT)
    return False


def hears(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Of a frozen group only the controller goes on, until it has taken the signal and waits again: however
    slow the machine is, no worker ends its run before the controller's order to stop is there."""
    os.kill(process.pid, number)
    os.kill(process.pid, signal.SIGCONT)
    rests = 0

    def is_at_rest() -> bool:
        nonlocal rests
        rests = rests + 1 if not pending(process.pid, number) and state_of(process.pid) == "S" else 0
        return rests >= AT_REST

    assert wait_until(is_at_rest)


def epochs(folder: RunFolder) -> list[float]:
    return [event["epoch"] for event in folder.read_events() if event["kind"] == "epoch"]


def resumed_from(place: Workplace) -> list[tuple[int, int]]:
    """Of each attempt after the first one, in runs that had more than one: the step from which it trained,
    and that of the last checkpoint before it."""
    steps = []
    for folder in place.folders():
        saved, attempts = 0, 0
        for event in folder.read_events():
            if event["kind"] == "checkpoint":
                saved = event["step"]
            elif event["kind"] == "attempt":
                attempts += 1
                steps += [(event["resumed_from_step"], saved)] if attempts > 1 else []
    return steps


@contextmanager
def half_way(place: Workplace) -> Iterator[subprocess.Popen[str]]:
    """`harness run` frozen in the middle of the study; whatever is left of it at the end is killed."""
    process = place.start("run", "tiny.yaml", "--no-report")
    try:
        assert wait_until(lambda: is_frozen_half_way(place, process) or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def assert_goes_on_to_the_undisturbed_results(place: Workplace, undisturbed: Workplace) -> None:
    assert len(place.results()) < len(undisturbed.results()), "it was stopped half-way"
    done = place.harness("run", "--no-report")
    assert done.returncode == 0, done.stderr
    assert place.results() == undisturbed.results()
    resumed = resumed_from(place)
    assert max(resumed) > (0, 0), "at least one run was under way"
    assert all(step == saved for step, saved in resumed), "each went on from its checkpoint"
    for folder in place.folders():
        assert epochs(folder) == list(range(1, 7)), "one line per epoch"


@needs_proc
def test_after_kill_9_of_the_controller_no_process_stays_and_the_next_run_ends_in_the_same_results(
    fresh: Workplace, finished: Finished
):
    with half_way(fresh) as process:
        assert len(group_of(process)) >= 3, "a controller, a fork server and at least one worker"
        # Not the other way round: the kernel hangs up on a frozen group that its leader leaves.
        os.killpg(process.pid, signal.SIGCONT)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert wait_until(lambda: group_of(process) == []), "workers notice that it is gone"
    assert_goes_on_to_the_undisturbed_results(fresh, finished.place)


@needs_proc
def test_ctrl_c_ends_with_exit_code_3_and_the_same_command_goes_on_to_the_same_results(
    fresh: Workplace, finished: Finished
):
    with half_way(fresh) as process:
        hears(process, signal.SIGINT)
        os.killpg(process.pid, signal.SIGCONT)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 3, errors
        assert wait_until(lambda: group_of(process) == []), "its fork server ends with it"
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    states = {run_state(folder) for folder in fresh.folders()}
    assert states == {"finished", "stopped"}
    assert_goes_on_to_the_undisturbed_results(fresh, finished.place)
