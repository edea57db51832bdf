"""Runs that do not train, in several ranks: each does the one thing that a launcher must cope with.

The ranks of a true training wait for each other at every step. Here rank 0 counts, and the others wait for
the file that says it has ended, so that one that is gone, or hangs, shows as it does there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from harness.errors import DeviceLostError
from harness.runs.folder import RunFolder, read_json, write_json
from harness.scheduling.base import INTERRUPTED
from harness.spec import FINISHED, Machine, RunSpec, Stop
from tests.ended import end
from tests.timing import FOREVER_S, PATIENCE_S

STEP_S = 0.01
VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "HARNESS_STORE",
    "GLOO_SOCKET_IFNAME",
    "OMP_NUM_THREADS",
)


class DistBackendError(RuntimeError):
    """Named like what torch raises where the connection to another rank is gone."""


def run_rank(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Starts with a file that says where it runs, then does what the spec's model is named."""
    rank = int(os.environ["RANK"])
    seen = {name: os.environ.get(name) for name in VARIABLES}
    store = os.environ.get("HARNESS_STORE")
    mode = None if store is None else oct(Path(store).parent.stat().st_mode & 0o777)
    seen |= {"pid": os.getpid(), "device": machine.device, "processes": machine.processes, "mode": mode}
    write_json(folder.path / f"rank.{rank}.json", seen)
    if rank == 0:
        write_json(folder.spec, spec.to_json())
    model = spec.arm.recipe.model
    answer = globals()[model.name](rank, folder, stop, **model.args)
    write_json(folder.path / f"ended.{rank}.json", {"status": answer, "stop": stop()})
    return answer


def count(rank: int, folder: RunFolder, stop: Stop, steps: float, waits: float = 0) -> str:
    """Rank 0 counts, and writes a checkpoint when it is asked to stop; the others wait for its end.

    Where it `waits`, it does not come to its last step before `go`, so that a test may interrupt at leisure.
    """
    if rank:
        return _wait_for_rank_0(folder)
    _meet(folder)
    step = (read_json(folder.checkpoint) or {"step": 0})["step"]
    while step < steps:
        if stop():
            write_json(folder.checkpoint, {"step": step})
            return _end(folder, INTERRUPTED)
        time.sleep(STEP_S)
        if not waits or step < steps - 1 or (folder.path.parent / "go").exists():
            step += 1
    end(folder, RunSpec.from_json(read_json(folder.spec)), metrics={"steps": step})
    return _end(folder, FINISHED)


def die(rank: int, folder: RunFolder, stop: Stop, dying: float, times: float) -> str:
    """Rank `dying` is killed in each of the first `times` attempts."""
    with (folder.path / f"attempts.{rank}").open("a") as file:
        file.write("x")
    attempts = len((folder.path / f"attempts.{rank}").read_text())
    if rank == dying and attempts <= times:
        _meet(folder, "attempts.*")
        os.kill(os.getpid(), signal.SIGKILL)
    if attempts <= times:
        time.sleep(FOREVER_S)
    return count(rank, folder, stop, steps=1)


def leave(rank: int, folder: RunFolder, stop: Stop) -> str:
    """Rank 1 ends its process without a word."""
    if rank:
        os._exit(0)
    time.sleep(FOREVER_S)
    return FINISHED


def crash(rank: int, folder: RunFolder, stop: Stop, silent_s: float) -> str:
    """Rank 1 raises a little later than rank 0 says that it has lost it, as happens on a busy machine."""
    _meet(folder)
    if rank == 0:
        raise DistBackendError("Connection closed by peer")
    time.sleep(silent_s)
    raise KeyError("the cause")


def lose(rank: int, folder: RunFolder, stop: Stop) -> str:
    """Every rank says that it has lost the others."""
    raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")


def lose_device(rank: int, folder: RunFolder, stop: Stop) -> str:
    """The GPU of rank 1 is lost; rank 0 hears of nothing."""
    if rank:
        raise DeviceLostError("cuda:1 cannot be used by this process any more: CUDA error")
    return deaf(rank, folder, stop)


def deaf(rank: int, folder: RunFolder, stop: Stop) -> str:
    """Never asks whether to stop."""
    time.sleep(FOREVER_S)
    return FINISHED


def linger(rank: int, folder: RunFolder, stop: Stop) -> str:
    """Rank 0 ends well, the other never."""
    return deaf(rank, folder, stop) if rank else FINISHED


def differ(rank: int, folder: RunFolder, stop: Stop) -> str:
    return FINISHED if rank == 0 else "anything"


def _meet(folder: RunFolder, files: str = "rank.*.json") -> None:
    """Wait until every rank has written its file, before the first step, as ranks do."""
    deadline_s = time.monotonic() + PATIENCE_S
    while len(list(folder.path.glob(files))) < int(os.environ["WORLD_SIZE"]):
        if time.monotonic() > deadline_s:
            raise TimeoutError("the other ranks did not come")
        time.sleep(STEP_S)


def _wait_for_rank_0(folder: RunFolder) -> str:
    while (ended := read_json(folder.path / "over.json")) is None:
        time.sleep(STEP_S)
    return str(ended["status"])


def _end(folder: RunFolder, status: str) -> str:
    write_json(folder.path / "over.json", {"status": status})
    return status


def lead_from_command_line() -> None:
    """`run_ranks` in a process of its own, for tests that kill it: the spec and the machine come as JSON."""
    from harness.scheduling import ranks
    from harness.scheduling.rank import machine_from_json
    from harness.scheduling.ranks import run_ranks

    order = json.loads(sys.argv[1])
    ranks.GRACE_S = order["grace_s"]
    spec, machine = RunSpec.from_json(order["spec"]), machine_from_json(order["machine"])
    print(run_ranks(run_rank, spec, machine, lambda: False))
