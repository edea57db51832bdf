"""Runs that do not train: each does, in a fresh process, the one thing a scheduler must cope with."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from harness.errors import DeviceLostError, DeviceUnusableError
from harness.runs.folder import RunFolder, read_json, write_json
from harness.scheduling.base import INTERRUPTED, Job
from harness.spec import DIVERGED, FINISHED, Arm, DataSpec, Machine, ModelSpec, Recipe, RunSpec, Stop
from tests.ended import end
from tests.timing import FOREVER_S

STEP_S = 0.01
IMPORTED_IN = os.getpid()


def spec(seed: int, task: str = "quick", **options: float) -> RunSpec:
    """A spec whose model name says what the fake does."""
    recipe = Recipe(model=ModelSpec(name=task, args=options), data=DataSpec(name="none", resolution=1))
    return RunSpec(arm=Arm(recipe=recipe), seed=seed)


def job(
    seed: int, task: str = "quick", *, needs: tuple[Job, ...] = (), cost: float = 1, **options: float
) -> Job:
    return Job(spec=spec(seed, task, **options), needs=tuple(need.run_id for need in needs), cost=cost)


def run_fake(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Starts with an event that says where it ran, then does what the spec's model is named."""
    threads = os.environ.get("OMP_NUM_THREADS")
    device = {"device": machine.shown_device, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}
    folder.append_event("started", pid=os.getpid(), threads=threads, **device)
    model = spec.arm.recipe.model
    return TASKS[model.name](spec, folder, stop, **model.args)


def _finish(spec: RunSpec, folder: RunFolder, status: str = FINISHED, **metrics: float) -> str:
    return end(folder, spec, status, metrics)


def quick(spec: RunSpec, folder: RunFolder, stop: Stop) -> str:
    return _finish(spec, folder)


def sleep(spec: RunSpec, folder: RunFolder, stop: Stop, time_s: float) -> str:
    time.sleep(time_s)
    return _finish(spec, folder)


def diverge(spec: RunSpec, folder: RunFolder, stop: Stop) -> str:
    return _finish(spec, folder, DIVERGED)


def crash(spec: RunSpec, folder: RunFolder, stop: Stop) -> str:
    raise RuntimeError(f"loss has shape ({spec.seed},)")


def leave_python(spec: RunSpec, folder: RunFolder, stop: Stop) -> str:
    sys.exit("enough")


def answer_nonsense(spec: RunSpec, folder: RunFolder, stop: Stop) -> str:
    return "completed"


def die(spec: RunSpec, folder: RunFolder, stop: Stop, times: float) -> str:
    """Killed with -9 at its first `times` attempts."""
    attempts = sum(event["kind"] == "started" for event in folder.read_events())
    if attempts <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return _finish(spec, folder, attempts=attempts)


def lose_device(spec: RunSpec, folder: RunFolder, stop: Stop) -> str:
    """At its first attempt the GPU of the process is lost."""
    if len(events(folder, "started")) == 1:
        raise DeviceLostError("cuda:0 cannot be used by this process any more: CUDA error")
    return _finish(spec, folder)


def unusable(spec: RunSpec, folder: RunFolder, stop: Stop) -> str:
    """Nothing can be begun on the second GPU."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "1":
        raise DeviceUnusableError("cuda:1 cannot be used: it is broken")
    return _finish(spec, folder)


def deaf(spec: RunSpec, folder: RunFolder, stop: Stop) -> str:
    """Never asks whether to stop."""
    time.sleep(FOREVER_S)
    return _finish(spec, folder)


def count(spec: RunSpec, folder: RunFolder, stop: Stop, steps: float) -> str:
    """A training in little: a state that depends on every step, a checkpoint when asked to stop.

    In the middle it says so with a file and waits for `go`, so that a test may interrupt it at leisure.
    """
    state = read_json(folder.checkpoint) or {"step": 0, "value": spec.seed}
    while state["step"] < steps:
        if stop():
            write_json(folder.checkpoint, state)
            folder.append_event("checkpoint", step=state["step"])
            return INTERRUPTED
        time.sleep(STEP_S)
        if state["step"] == steps // 2:
            (folder.path / "middle").touch()
        if state["step"] != steps // 2 or (folder.path.parent / "go").exists():
            state = {"step": state["step"] + 1, "value": (state["value"] * 31 + state["step"]) % 10_007}
    return _finish(spec, folder, value=state["value"])


def has_begun(folder: RunFolder) -> bool:
    """Whether the run's first event is there, not only its file."""
    return bool(events(folder, "started"))


def go(runs_dir: Path) -> None:
    """Let every `count` in this folder of runs go on to its end."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    (runs_dir / "go").touch()


def has_a_child(spec: RunSpec, folder: RunFolder, stop: Stop) -> str:
    """Starts a process, as a data loader would, and ends it with SIGTERM."""
    child = os.fork()
    if child == 0:
        time.sleep(FOREVER_S)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    return _finish(spec, folder, ended_by=-os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def fill(spec: RunSpec, folder: RunFolder, stop: Stop, megabytes: float) -> str:
    """Leaves memory behind that only the end of the process gives back."""
    LEAKED.append(b"x" * int(megabytes * 1e6))
    return _finish(spec, folder)


def see(spec: RunSpec, folder: RunFolder, stop: Stop) -> str:
    """Notes the surroundings: the cores of the process, and which process imported this module."""
    folder.append_event("seen", cores=sorted(os.sched_getaffinity(0)), imported_in=IMPORTED_IN)
    return _finish(spec, folder)


LEAKED: list[bytes] = []
FAKES = (
    quick,
    sleep,
    diverge,
    crash,
    leave_python,
    answer_nonsense,
    die,
    lose_device,
    unusable,
    deaf,
    count,
    has_a_child,
    fill,
    see,
)
TASKS = {task.__name__: task for task in FAKES}


def events(folder: RunFolder, kind: str) -> list[dict[str, object]]:
    return [event for event in folder.read_events() if event["kind"] == kind]
