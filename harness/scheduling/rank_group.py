"""The ranks of one machine: processes that train a run together, started, heard and ended as one.

Each is `harness.scheduling.rank` with torchrun's environment. Nothing is pickled: an order goes in and a
report comes out as a line of JSON through a pipe. A rank whose starter is gone reads the end of its pipe,
so that no rank outlives it by more than the time for a checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.scheduling.base import RunOne
from harness.scheduling.forkserver import THREAD_VARIABLES
from harness.scheduling.rank import NOT_FOR_A_RANK, STOP, STORE, machine_to_json, name_of
from harness.study.machine import Machine
from harness.study.spec import RunSpec

GRACE_S = 15.0  # without the process that started it, the time a rank has to come to a checkpoint
BURIED_S = 5.0  # the time a killed rank may take to disappear
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
MODULE = "harness.scheduling.rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which of all ranks are on this machine, and where all of them meet."""

    world: int  # ranks on all machines
    local: int  # ranks on each machine
    node: int = 0
    host: str = ""  # of rank 0; empty: all ranks are on this machine and meet through a file
    port: int = 0

    @property
    def ranks(self) -> range:
        return range(self.node * self.local, (self.node + 1) * self.local)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a group cannot go on. `kind`: "died" | "error" (an exception) | "lost" (only heard of one)."""

    rank: int
    kind: str
    message: str
    traceback: str = ""


class RankGroup:
    """While entered, the ranks of this machine run; afterwards none is left."""

    def __init__(self, run_one: RunOne, spec: RunSpec, machine: Machine, place: Place) -> None:
        """
        Raises:
            TypeError: `run_one` is not a function at the top of a module.
        """
        self.place = place
        self.statuses: dict[int, Any] = {}  # rank -> what its `run_one` returned
        self.troubles: list[Trouble] = []  # in the order of their discovery
        self._ranks: list[_Rank] = []
        devices = (machine.devices or (machine.device,) * place.local)[: place.local]
        base = {"run_one": name_of(run_one), "spec": spec.to_json(), "grace_s": GRACE_S}
        each = [dataclasses.replace(machine, device=device, devices=devices) for device in devices]
        self._orders = [json.dumps(base | {"machine": machine_to_json(own)}) for own in each]
        self._threads = machine.threads

    def __enter__(self) -> RankGroup:
        self._folder = Path(tempfile.mkdtemp(prefix="harness-ranks-"))  # mode 0700
        try:
            for rank in self.place.ranks:
                self._ranks.append(_Rank(rank, self._environment(rank)))
            for each, order in zip(self._ranks, self._orders, strict=True):
                each.send(order.encode() + b"\n")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def ended(self) -> bool:
        """Whether no process of this machine's ranks is left."""
        return all(each.exit_code is not None for each in self._ranks)

    def tell_to_stop(self) -> None:
        """Rank 0, where it is here, is asked to stop; it takes the others along."""
        if self.place.node == 0:
            self._ranks[0].send(STOP)

    def wait(self, timeout_s: float) -> None:
        """Sleep until a rank says something or ends, or the time is over; then take note of it."""
        listening = [each.report_fd for each in self._ranks if each.listening]
        if listening:
            wait(listening, timeout_s)
        else:
            time.sleep(min(timeout_s, 0.02))  # they have said all and are about to end
        for each in self._ranks:
            dead = each.poll()  # asked before reading: nothing is said after it
            report = each.read()
            if report is not None:
                self._take(each.rank, report)
            elif dead and not each.accounted:
                message = f"rank {each.rank} of {self.place.world} {describe(each.exit_code)}"
                self.troubles.append(Trouble(rank=each.rank, kind="died", message=message))
            each.accounted = each.accounted or dead or report is not None

    def wait_for_end(self, timeout_s: float) -> None:
        """Until every process has ended, or the time is over."""
        deadline_s = time.monotonic() + timeout_s
        while not self.ended and time.monotonic() < deadline_s:
            self.wait(0.1)

    def _take(self, rank: int, report: dict[str, Any]) -> None:
        if "status" in report:
            self.statuses[rank] = report["status"]
            return
        where = f"(rank {rank} of {self.place.world})"
        kind = "lost" if report["lost"] else "error"
        message = f"{report['message']} {where}"
        self.troubles.append(Trouble(rank=rank, kind=kind, message=message, traceback=report["traceback"]))

    def _environment(self, rank: int) -> dict[str, str]:
        """This process's environment, where modules are found here, and torchrun's variables."""
        place = self.place
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        values: dict[str, Any] = {
            "RANK": rank,
            "LOCAL_RANK": rank - place.ranks.start,
            "WORLD_SIZE": place.world,
            "LOCAL_WORLD_SIZE": place.local,
            "GROUP_RANK": place.node,
            "MASTER_ADDR": place.host or "127.0.0.1",
            "MASTER_PORT": place.port,
            "PYTHONPATH": path,
            **dict.fromkeys(THREAD_VARIABLES, self._threads),
        }
        if not place.host:  # no port is opened to the network
            interface = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), LOOPBACK)
            values |= {STORE: self._folder / "store", **interface}
        inherited = {name: value for name, value in os.environ.items() if name != STORE}
        return inherited | {name: str(value) for name, value in values.items()}

    def _close(self) -> None:
        for each in self._ranks:
            each.kill()
        for each in self._ranks:
            each.bury()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Rank:
    """One process and its two pipes."""

    def __init__(self, rank: int, environment: dict[str, str]) -> None:
        self.rank = rank
        self.accounted = False  # it has reported, or its death was noticed
        self.listening = True
        self._said = b""
        self.report_fd, theirs = os.pipe()
        os.set_blocking(self.report_fd, False)
        # -P: a folder named `harness` in the working directory is not the code of this process.
        command = [sys.executable, "-P", "-u", "-m", MODULE, str(theirs)]
        try:
            with _signals_blocked():  # until the rank has its handlers
                self._process = subprocess.Popen(  # noqa: S603
                    command, env=environment, stdin=subprocess.PIPE, pass_fds=(theirs,)
                )
        except BaseException:
            os.close(self.report_fd)
            raise
        finally:
            os.close(theirs)

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def poll(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def send(self, data: bytes) -> None:
        """Write to its control pipe; where it has just died, its exit code says so."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def read(self) -> dict[str, Any] | None:
        """Its report, once, when it is there."""
        with contextlib.suppress(BlockingIOError):
            while self.listening:
                data = os.read(self.report_fd, 65536)
                self._said += data
                self.listening = bool(data) and not self._said.endswith(b"\n")
        if self.accounted or not self._said.endswith(b"\n"):
            return None
        return dict(json.loads(self._said))

    def kill(self) -> None:
        self._process.kill()

    def bury(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):  # SIGKILL does not end a wait for a dead disk
            self._process.wait(BURIED_S)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what was not sent is of no account
            self._process.stdin.close()
        os.close(self.report_fd)


def describe(exit_code: int | None) -> str:
    """An exit code of subprocess in words."""
    if exit_code is None or exit_code >= 0:
        return f"exited with code {exit_code} before its run had ended"
    known = {number.value: number.name for number in signal.Signals}
    name = known.get(-exit_code, f"signal {-exit_code}")
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_A_RANK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
