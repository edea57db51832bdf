"""The worker's side: take a run from the pipe, do it, say how it ended, until told to leave.

The main thread trains. A second thread sleeps on the pipe, so that asking `stop` costs one attribute
look-up per step, and so that the end of the controller, even by SIGKILL, is noticed at once: the pipe
then reports its end, the run writes a checkpoint and the worker leaves.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from harness.scheduling.attempt import attempt
from harness.scheduling.base import RunOne
from harness.scheduling.forkserver import THREAD_VARIABLES
from harness.scheduling.interrupts import SIGNALS
from harness.study.machine import Machine
from harness.study.spec import RunSpec

# Orders of the controller, beside the spec of a run to execute: the run checkpoints and the worker leaves;
# the run checkpoints and the worker stays; an idle worker leaves.
STOP, STOP_RUN, LEAVE = "stop", "stop run", "leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Everything a worker is told once, when it starts."""

    machine: Machine
    run_one: bytes  # pickled; unpickled in the worker, so that an import error is the run's failure
    preload: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()  # pinned to these; empty: wherever the system likes
    grace_s: float = 30.0  # without a controller, the time a run has to checkpoint
    python_path: str | None = None  # the controller's PYTHONPATH, for programs a run may start


@dataclass(frozen=True, slots=True)
class Ready:
    """First message: the modules that were not loaded yet when the worker was forked, and why."""

    not_preloaded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run has ended; `rss_bytes` is the worker's resident memory after it."""

    run_id: str
    status: str
    rss_bytes: int


Order = tuple[RunSpec, threading.Event]  # a run, and what asks it to stop


def serve(connection: Connection, settings: WorkerSettings) -> None:
    """Execute runs until the controller says `LEAVE`, or is gone."""
    _keep_signals_from_ending_this_process()
    _prepare_process(settings)
    not_preloaded = _not_preloaded(settings.preload)
    orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
    threading.Thread(
        target=_listen, args=(connection, orders, settings.grace_s), name="orders", daemon=True
    ).start()
    run_one = _load(settings.run_one)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the controller is gone
        connection.send(Ready(not_preloaded))
        for spec, stop in iter(orders.get, None):
            status = attempt(run_one, spec, settings.machine, stop.is_set)
            connection.send(Ended(spec.run_id, status, resident_bytes()))


def resident_bytes() -> int:
    """Physical memory of this process now, in bytes (where /proc is absent: its peak)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


def _listen(connection: Connection, orders: queue.SimpleQueue[Order | None], grace_s: float) -> None:
    stop = threading.Event()  # of the newest run; the controller gives one at a time
    try:
        while True:
            order = connection.recv()
            if order == LEAVE:
                orders.put(None)
            elif order in (STOP, STOP_RUN):
                stop.set()
                if order == STOP:
                    orders.put(None)
            else:
                stop = threading.Event()
                orders.put((order, stop))
    except (EOFError, OSError):
        pass  # the controller is gone
    except Exception:  # an order that cannot be read: leave, and the controller retries elsewhere
        traceback.print_exc()
    stop.set()
    orders.put(None)
    time.sleep(grace_s)  # the process ends before this does, unless the run does not come to a step
    os._exit(1)


def _keep_signals_from_ending_this_process() -> None:
    """The controller decides when a worker stops; a terminal signals the whole group of processes.

    Processes that a run starts get the usual behaviour back. The signals are blocked while forking: Python
    drops one that comes between the fork and the child's first step.
    """
    for number in SIGNALS:
        signal.signal(number, _do_nothing)  # not SIG_IGN: a started program would inherit that
    os.register_at_fork(
        before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_reset_signals
    )
    _unblock_signals()


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A signal handler."""


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _reset_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _unblock_signals()


def _prepare_process(settings: WorkerSettings) -> None:
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(settings.machine.threads)))
    if settings.python_path is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = settings.python_path
    if settings.cores:
        with contextlib.suppress(AttributeError, OSError):  # not Linux, or a core was taken away
            os.sched_setaffinity(0, settings.cores)


def _not_preloaded(preload: Sequence[str]) -> tuple[str, ...]:
    missing = []
    for name in preload:
        if name not in sys.modules:
            try:
                importlib.import_module(name)
                missing.append(name)
            except Exception as error:
                missing.append(f"{name} ({type(error).__name__}: {error})")
    return tuple(missing)


def _load(pickled: bytes) -> RunOne:
    try:
        return pickle.loads(pickled)  # noqa: S301  from the controller's own pipe
    except Exception as error:
        reason = error

    def run_one(*_: Any) -> str:
        raise reason

    return run_one
