"""The controller's side of the workers: start, hand out, listen, replace, end. Knows nothing of queues."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

from harness.scheduling import forkserver
from harness.scheduling.base import RunOne
from harness.scheduling.worker import LEAVE, STOP, STOP_RUN, Ended, Ready, WorkerSettings, serve
from harness.study.spec import RunSpec

LEAVING_S = 5.0  # an idle worker that was told to leave is killed after this time
SERVER_ENDS_S = 0.2  # the time between the end of a server's sockets and that of its process
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


Event = Ready | Ended | Died


class Slot:
    """A place for one worker: its device, its cores, and the worker that is there now, if any."""

    def __init__(self, settings: WorkerSettings, replace: Replace) -> None:
        self.settings = settings
        self.replace = replace
        self.process: ForkServerProcess | None = None
        self.connection: Connection
        self.run_id: str | None = None
        self._leave_by_s: float | None = None

    @property
    def idle(self) -> bool:
        return self.run_id is None and self._leave_by_s is None

    def start(self, preload: Sequence[str]) -> None:
        """Fork a worker. Raises OSError or EOFError where that is not possible."""
        forkserver.start_server(preload, self.settings.machine.threads)
        self.connection, theirs = forkserver.context().Pipe()
        try:
            self.process = forkserver.start_process(
                serve, (theirs, self.settings), with_main=b"__main__" in self.settings.run_one
            )
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self.runs = 0
        self._listening = True

    def give(self, spec: RunSpec, run_id: str) -> None:
        self.run_id = run_id
        self.order(spec)

    def order(self, order: RunSpec | str) -> None:
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
                if isinstance(message, Ended):
                    self._after_run(message)
        except (EOFError, OSError, pickle.UnpicklingError):  # cut off by the worker's end
            self._listening = False
        return events

    def _after_run(self, ended: Ended) -> None:
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
        return [] if run_id is None else [Died(run_id, exit_code, describe_exit(exit_code))]


class Pool:
    """All slots of this machine."""

    def __init__(self, settings: Sequence[WorkerSettings], replace: Replace) -> None:
        self._slots = [Slot(each, replace) for each in settings]
        self._preload = settings[0].preload

    def give(self, spec: RunSpec, run_id: str) -> Died | None:
        """Hand a run to an idle slot. The worker there is started if need be: Died where it cannot be."""
        slot = next(slot for slot in self._slots if slot.idle)
        if slot.process is None:
            try:
                self._start(slot)
            except (OSError, EOFError) as error:
                return Died(run_id, None, f"no worker could be started ({type(error).__name__}: {error})")
        slot.give(spec, run_id)
        return None

    @property
    def has_idle(self) -> bool:
        return any(slot.idle for slot in self._slots)

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
