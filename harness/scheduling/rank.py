"""One of the processes that train a run together: `python -m harness.scheduling.rank REPORT_FD`.

Started by `harness.scheduling.ranks` with torchrun's variables in its environment, never by hand. Its
order comes through standard input as one line of JSON; a byte after it means "stop", the end of the pipe that
the process which started it is gone, even by SIGKILL. How the run ended goes back, as one line of JSON,
through the pipe whose number is the argument.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from harness.errors import DeviceLostError
from harness.runs.folder import RunFolder
from harness.scheduling.base import SIGNALS, RunOne
from harness.spec import Machine, RunSpec

STOP = b"s"
STORE = "HARNESS_STORE"  # the file through which the ranks of one machine find each other
TRACEBACK_CHARACTERS = 20_000
# Slurm sends its warnings to every process of a job: the agent alone decides what they mean.
NOT_FOR_A_RANK = (*SIGNALS, signal.SIGUSR1, signal.SIGUSR2)
LOST_THE_OTHERS = ("PeerError", "DistBackendError", "DistNetworkError", "DistStoreError", "DistError")


def name_of(run_one: RunOne) -> str:
    """`run_one` as "module:function", which another process can import.

    Raises:
        TypeError: it is a lambda, was defined inside a function, or belongs to the main script.
    """
    module, name = getattr(run_one, "__module__", None), getattr(run_one, "__qualname__", "<lambda>")
    if module in (None, "__main__") or "<" in name:
        raise TypeError(
            f"{run_one!r} cannot be named to another process; give a function at the top of a module"
        )
    return f"{module}:{name}"


def load(name: str) -> RunOne:
    """The function that `name_of` named."""
    module, _, function = name.partition(":")
    value: Any = importlib.import_module(module)
    for part in function.split("."):
        value = getattr(value, part)
    return value


def machine_to_json(machine: Machine) -> dict[str, Any]:
    """A machine as plain data."""
    values = dataclasses.asdict(machine)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def machine_from_json(data: Mapping[str, Any]) -> Machine:
    """The machine that `machine_to_json` wrote."""
    paths = {name: Path(data[name]) for name in ("runs_dir", "data_dir")}
    return Machine(**{**data, **paths, "devices": tuple(data["devices"])})


def main(report_fd: int) -> int:
    """Carry out the order, report how it ended; 1 where the order never came."""
    _ignore_signals_for_the_parent()
    control = os.fdopen(os.dup(0), "rb")
    _close_standard_input()
    line = control.readline()
    if not line.endswith(b"\n"):
        return 1
    order = json.loads(line)
    stop, parent_gone = threading.Event(), threading.Event()
    threading.Thread(
        target=_listen, args=(control, stop, parent_gone, order["grace_s"]), name="control", daemon=True
    ).start()
    report = _carry_out(order, stop)
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(report_fd, json.dumps(report).encode() + b"\n")
    if parent_gone.is_set():
        _remove_store()
    return 0


def _carry_out(order: Mapping[str, Any], stop: threading.Event) -> dict[str, Any]:
    try:
        spec, machine = RunSpec.from_json(order["spec"]), machine_from_json(order["machine"])
        folder = RunFolder(machine.runs_dir / spec.run_id)
        return {"status": load(order["run_one"])(spec, folder, machine, stop.is_set)}
    except (Exception, SystemExit) as error:
        return {
            "message": f"{type(error).__name__}: {error}"[-TRACEBACK_CHARACTERS:],
            "traceback": traceback.format_exc()[-TRACEBACK_CHARACTERS:],
            "lost": _lost_the_others(error),
            "device_lost": isinstance(error, DeviceLostError),
        }


def _lost_the_others(error: BaseException) -> bool:
    """Whether the rank says that others are gone or have failed: the consequence of something else."""
    return type(error).__name__ in LOST_THE_OTHERS or "gloo/transport" in str(error)


def _listen(control: BinaryIO, stop: threading.Event, parent_gone: threading.Event, grace_s: float) -> None:
    with contextlib.suppress(OSError):
        while control.read(1):
            stop.set()
    parent_gone.set()
    stop.set()
    time.sleep(grace_s)  # the process ends before this does, unless the run does not come to a step
    _remove_store()
    os._exit(1)


def _remove_store() -> None:
    """What the parent would have removed, had it lived."""
    if STORE in os.environ:
        shutil.rmtree(Path(os.environ[STORE]).parent, ignore_errors=True)


def _close_standard_input() -> None:
    """The control pipe is not for the run, nor for the programs it starts."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _ignore_signals_for_the_parent() -> None:
    """They were blocked when this process was started; programs that a run starts get the usual behaviour."""
    for number in NOT_FOR_A_RANK:
        signal.signal(number, _do_nothing)  # not SIG_IGN: a started program would inherit that
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_FOR_A_RANK)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A signal handler."""


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
