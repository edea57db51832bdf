"""Worker processes from both sides: starting and hearing them; what SIGTERM does to one; one attempt."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import multiprocessing
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
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import Any

from harness.errors import DeviceLostError, DeviceUnusableError, decided
from harness.runs.folder import FolderGone, RunFolder, record
from harness.scheduling import base
from harness.scheduling.base import INTERRUPTED, SIGNALS, THREAD_VARIABLES, RunOne
from harness.scheduling.ranks import RankDied, RankFailed, run_ranks
from harness.spec import DIVERGED, FAILED, FINISHED, AnyRun, Machine, RunSpec, ScriptRun, Stop

# One attempt at one run, in whichever process: whatever happens, it comes to a status and a record.


STATUSES = (FINISHED, DIVERGED, FAILED, INTERRUPTED)
TRACEBACK_CHARACTERS = 20_000  # the end of a longer one is kept

_log = logging.getLogger(__name__)


def attempt(run_one: RunOne, spec: AnyRun, machine: Machine, stop: Stop) -> str:
    """Call `run_one`, here or in several ranks; an exception in it is a failed run with its traceback.

    Returns:
        One of `STATUSES`. A KeyboardInterrupt is passed on: it is the user's, not the run's.

    Raises:
        SystemExit: one of several ranks died, or the GPU is lost, and this is a worker: its death is the
            worker's own, which the scheduler retries. In the process of the user's command a run whose rank
            died has failed.
        DeviceLostError: the GPU is lost, in the process of the user's command: no further run works there.
    """
    run_id = spec.run_id
    try:
        folder = RunFolder(machine.runs_dir / run_id)
        folder.path.mkdir(parents=True, exist_ok=True)
        if isinstance(spec, RunSpec) and processes_of(spec, machine) > 1:
            status = run_ranks(run_one, spec, machine, stop)
        else:
            own = machine if machine.processes == 1 else _alone(machine)
            status = run_one(spec, folder, own, stop)
    except FolderGone as error:  # there is nowhere to write it down
        _log.error("run %s failed: %s", run_id, error)
        return FAILED
    except (RankDied, DeviceLostError) as death:
        return _died(machine, run_id, death)
    except RankFailed as error:
        record(machine.runs_dir, run_id, "failed", message=str(error), traceback=error.traceback)
        return FAILED
    except (Exception, SystemExit) as error:
        text = traceback.format_exc()[-TRACEBACK_CHARACTERS:]
        record(machine.runs_dir, run_id, "failed", message=f"{type(error).__name__}: {error}", traceback=text)
        return FAILED
    if status not in STATUSES:
        message = f"run_one returned {status!r}; valid: {', '.join(STATUSES)}"
        record(machine.runs_dir, run_id, "failed", message=message)
        return FAILED
    return status


def _died(machine: Machine, run_id: str, death: RankDied | DeviceLostError) -> str:
    """What this process makes of it, see `attempt`."""
    kind = "rank_died" if isinstance(death, RankDied) else "device_lost"
    record(machine.runs_dir, run_id, kind, message=str(death))
    if multiprocessing.parent_process() is not None:
        raise SystemExit(UNUSABLE if isinstance(death, DeviceUnusableError) else str(death)) from death
    if isinstance(death, DeviceLostError):
        raise death
    record(machine.runs_dir, run_id, "failed", message=str(death))
    return FAILED


def processes_of(spec: AnyRun, machine: Machine) -> int:
    """How many processes train this run together. One, where nothing is trained (a run that observes others),
    and where a training function or a command of the user's own does it, which knows nothing of ranks."""
    alone = isinstance(spec, ScriptRun) or spec.arm.observes or spec.arm.recipe.trainer != "harness"
    return 1 if alone else machine.processes


def _alone(machine: Machine) -> Machine:
    """The machine of several processes for a run that has one: on the first of their devices."""
    device = machine.devices[0] if machine.devices else machine.device
    return dataclasses.replace(machine, device=device, devices=(), processes=1)


# The worker's side: take a run from the pipe, do it, say how it ended, until told to leave.
#
# The main thread trains. A second thread sleeps on the pipe, so that asking `stop` costs one attribute
# look-up per step, and so that the end of the controller, even by SIGKILL, is noticed at once: the pipe
# then reports its end, the run writes a checkpoint and the worker leaves.


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
class WorkerEnded:
    """A run has ended; `rss_bytes` is the worker's resident memory after it."""

    run_id: str
    status: str
    rss_bytes: int


Order = tuple[AnyRun, threading.Event]  # a run, and what asks it to stop


def serve(connection: Connection, settings: WorkerSettings) -> None:
    """Execute runs until the controller says `LEAVE`, or is gone."""
    _keep_signals_from_ending_this_process()
    _prepare_process(settings)
    machine = see_one_device(settings.machine)
    not_preloaded = _not_preloaded(settings.preload)
    orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
    threading.Thread(
        target=_listen, args=(connection, orders, settings.grace_s), name="orders", daemon=True
    ).start()
    run_one = _load(settings.run_one)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the controller is gone
        connection.send(Ready(not_preloaded))
        for spec, stop in iter(orders.get, None):
            status = attempt(run_one, spec, machine, stop.is_set)
            connection.send(WorkerEnded(spec.run_id, status, resident_bytes()))


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


# What a worker does on SIGTERM, Ctrl-C and the end of its terminal: nothing. Whoever started it hears them
# too (`base.Interrupts`), and orders it to `STOP`: its run writes a checkpoint, and it leaves.


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


def see_one_device(machine: Machine) -> Machine:
    """Let this process see the GPU of its machine alone, before CUDA starts, and call it cuda:0.

    Then whatever is done on "the" GPU is done on the right one, no memory is taken of another, and slices of
    a GPU (MIG) work, of which a process sees the first in CUDA_VISIBLE_DEVICES only. Several processes of a
    run see all of their GPUs: each makes its own the current one.
    """
    kind, _, index = machine.device.partition(":")
    if kind != "cuda" or not index or machine.processes > 1:
        return machine
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(index)].strip() if visible else index
    return dataclasses.replace(machine, device="cuda:0", listed_as=machine.shown_device)


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


# The controller's side of the workers: start, hand out, listen, replace, end. Knows nothing of queues.


LEAVING_S = 5.0  # an idle worker that was told to leave is killed after this time
SERVER_ENDS_S = 0.2  # the time between the end of a server's sockets and that of its process
UNUSABLE = 69  # the exit code of a worker on whose device nothing can be begun (sysexits.h: EX_UNAVAILABLE)
SERVER_GONE = 255  # the exit code multiprocessing reports where the fork server has died


@dataclass(frozen=True, slots=True)
class Died:
    """A worker is gone although a run was under way. `exit_code` -9 is SIGKILL, None: it never started."""

    run_id: str
    exit_code: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Replace:
    """When a worker is replaced by a fresh one between two runs, so that memory stays bounded."""

    rss_bytes: int | None = None
    runs: int | None = None


Event = Ready | WorkerEnded | Died


class Slot:
    """A place for one worker: its device, its cores, and the worker that is there now, if any."""

    def __init__(self, settings: WorkerSettings, replace: Replace) -> None:
        self.settings = settings
        self.replace = replace
        self.process: ForkServerProcess | None = None
        self.connection: Connection
        self.run_id: str | None = None
        self.is_retired = False  # nothing can be begun on its device
        self._leave_by_s: float | None = None

    @property
    def idle(self) -> bool:
        return self.run_id is None and self._leave_by_s is None and not self.is_retired

    def start(self, preload: Sequence[str]) -> None:
        """Fork a worker. Raises OSError or EOFError where that is not possible."""
        base.start_server(preload, self.settings.machine.threads)
        self.connection, theirs = base.context().Pipe()
        try:
            self.process = base.start_process(
                serve, (theirs, self.settings), with_main=b"__main__" in self.settings.run_one
            )
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self.runs = 0
        self._listening = True

    def give(self, spec: AnyRun, run_id: str) -> None:
        self.run_id = run_id
        self.order(spec)

    def order(self, order: AnyRun | str) -> None:
        """Send an order; where the worker has just died its sentinel says so."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.connection.send(order)

    def leave(self) -> None:
        """Tell an idle worker to leave; the slot is free again when it has."""
        if self.process is not None and self._leave_by_s is None:
            self._leave_by_s = time.monotonic() + LEAVING_S
            self.order(LEAVE)

    def waitables(self) -> list[Connection | int]:
        if self.process is None:
            return []
        return [self.process.sentinel, *([self.connection] if self._listening else [])]

    def events(self) -> list[Event]:
        """What has happened since the last call; messages first, so that a last word counts."""
        if self.process is None:
            return []
        dead = self.process.exitcode is not None  # asked before reading: nothing is sent after it
        events = self._read()
        if dead:
            events += self._bury()
        elif self._leave_by_s is not None and time.monotonic() > self._leave_by_s:
            self.process.kill()
        return events

    def _read(self) -> list[Event]:
        events: list[Event] = []
        try:
            while self._listening and self.connection.poll():
                message = self.connection.recv()
                events.append(message)
                if isinstance(message, WorkerEnded):
                    self._after_run(message)
        except (EOFError, OSError, pickle.UnpicklingError):  # cut off by the worker's end
            self._listening = False
        return events

    def _after_run(self, ended: WorkerEnded) -> None:
        self.run_id = None
        self.runs += 1
        too_large = self.replace.rss_bytes is not None and ended.rss_bytes > self.replace.rss_bytes
        if too_large or self.runs == self.replace.runs:
            self.leave()

    def _bury(self) -> list[Event]:
        process, run_id = self.process, self.run_id
        assert process is not None
        exit_code = process.exitcode
        if exit_code == SERVER_GONE and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # the worker itself may well be alive
                os.kill(process.pid, signal.SIGKILL)
        process.close()
        self.connection.close()
        self.process = self.run_id = self._leave_by_s = None
        self.is_retired = exit_code == UNUSABLE
        return [] if run_id is None else [Died(run_id, exit_code, describe_exit(exit_code))]


class WorkerPool:
    """All slots of this machine."""

    def __init__(self, settings: Sequence[WorkerSettings], replace: Replace) -> None:
        self._slots = [Slot(each, replace) for each in settings]
        self._preload = settings[0].preload

    def give(self, spec: AnyRun, run_id: str) -> Died | None:
        """Hand a run to an idle slot. The worker there is started if need be: Died where it cannot be."""
        slot = next(slot for slot in self._slots if slot.idle)
        if slot.process is None:
            try:
                self._start(slot)
            except (OSError, EOFError) as error:
                return Died(run_id, None, f"no worker could be started ({type(error).__name__}: {error})")
        slot.give(spec, run_id)
        decided(f"worker {1 + self._slots.index(slot)} of {len(self._slots)} takes run {run_id}")
        return None

    @property
    def has_idle(self) -> bool:
        return any(slot.idle for slot in self._slots)

    @property
    def is_retired(self) -> bool:
        """Whether no worker can begin anything."""
        return all(slot.is_retired for slot in self._slots)

    def wait(self, timeout_s: float, wake_fd: int) -> list[Event]:
        """Sleep until something happens, a signal included, or the time is over."""
        wait([wake_fd, *(each for slot in self._slots for each in slot.waitables())], timeout_s)
        return [event for slot in self._slots for event in slot.events()]

    def ask_to_stop(self) -> None:
        """Running jobs checkpoint and end; their workers leave."""
        for slot in self._slots:
            slot.order(STOP)

    def stop_run(self, run_id: str) -> None:
        """This run checkpoints and ends; its worker stays."""
        for slot in self._slots:
            if slot.run_id == run_id:
                slot.order(STOP_RUN)

    def kill(self, run_id: str | None = None) -> None:
        """Kill the worker of this run, or every worker."""
        for slot in self._slots:
            if slot.process is not None and run_id in (None, slot.run_id):
                slot.process.kill()

    def close(self, grace_s: float) -> None:
        """End every worker: idle ones at once, busy ones get `grace_s` to checkpoint."""
        self.ask_to_stop()
        deadline_s = time.monotonic() + grace_s
        while sentinels := [slot.process.sentinel for slot in self._slots if slot.process is not None]:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                self.kill()
            if left_s <= -LEAVING_S:
                return  # not even SIGKILL ends a process that waits for a dead disk
            wait(sentinels, max(left_s, 0.1))
            for slot in self._slots:
                slot.events()

    def _start(self, slot: Slot) -> None:
        """Start a worker; at a third attempt without preloading, which may be what ends the server.

        The second is for a server that was killed: for a moment it is neither there nor gone. An error of
        a module that is no longer preloaded shows in the worker, as a message or as the run's failure.
        """
        for _ in range(2):
            try:
                return slot.start(self._preload)
            except (OSError, EOFError):
                time.sleep(SERVER_ENDS_S)
        self._preload = ()
        return slot.start(self._preload)


def pickle_by_name(run_one: RunOne) -> bytes:
    """`run_one` as a name that a worker can import.

    Raises:
        TypeError: it is a lambda or was defined inside a function.
    """
    try:
        return pickle.dumps(run_one)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        message = f"{run_one!r} cannot be sent to a worker; give a function defined at the top of a module"
        raise TypeError(message) from error


def describe_exit(exit_code: int | None) -> str:
    """An exit code of multiprocessing in words."""
    if exit_code == SERVER_GONE:
        return f"exited with code {SERVER_GONE}, or was lost with the fork server"
    if exit_code is None or exit_code >= 0:
        return f"exited with code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
