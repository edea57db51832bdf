"""One run trained by several processes, on this machine or on all nodes of a job: torchrun's semantics.

The worker that was given the run starts the ranks of its machine and waits for rank 0, whose word counts.
A rank that dies ends the others and the attempt, like the death of a worker: the scheduler retries it, so
often and no more. On several nodes the first one gives orders (`harness.scheduling.ranks`) and the others
`follow`; they need no connection but the shared folder, and the ranks' own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.runs.folder import read_json, write_json
from harness.scheduling.base import INTERRUPTED, THREAD_VARIABLES, RunOne
from harness.scheduling.rank import NOT_FOR_A_RANK, STOP, STORE, machine_to_json, name_of
from harness.spec import Machine, RunSpec, Stop

# The ranks of one machine: processes that train a run together, started, heard and ended as one.
#
# Each is `harness.scheduling.rank` with torchrun's environment. Nothing is pickled: an order goes in and a
# report comes out as a line of JSON through a pipe. A rank whose starter is gone reads the end of its pipe,
# so that no rank outlives it by more than the time for a checkpoint.


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

    @property
    def has_said_all(self) -> bool:
        """Whether all ranks of the run are of this machine and have reported or died: no more will show."""
        return self.place.local == self.place.world and all(each.accounted for each in self._ranks)

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
        kind = "died" if report["device_lost"] else "lost" if report["lost"] else "error"
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


# Orders from the first node of a job to its other nodes: files in the private folder of the submission.
#
#     <orders>/<life>/beat           touched by the first node's agent while it lives
#                     <n>.json       the n-th group of ranks: its run, and where all ranks meet
#                     <n>.over       that group has ended, however it ended
#                     done/<n>.<node>.json   what a node says about its ranks of that group
#                     end            nothing more will come
#
# `life` is SLURM_RESTART_COUNT: a requeued job keeps its number, and must not follow orders of its former
# life.


FOLDER = "HARNESS_ORDERS"  # names it in the environment of the first node's workers
BEAT_S = 10.0


class Orders:
    """The files of one life of a job. Folders are listed rather than asked for one name: NFS remembers for a
    while that a file was not there."""

    def __init__(self, orders_dir: Path) -> None:
        self.path = orders_dir / os.environ.get("SLURM_RESTART_COUNT", "0")
        self.done = self.path / "done"

    def give(self, order: dict[str, Any]) -> int:
        """Write the next order. Returns its number."""
        numbers = [int(name.removesuffix(".json")) for name in _names(self.path) if name.endswith(".json")]
        number = max(numbers, default=0) + 1
        write_json(self.path / f"{number}.json", order)
        return number

    def read(self, number: int) -> dict[str, Any] | None:
        """The order of that number, once it has been given."""
        name = f"{number}.json"
        return read_json(self.path / name) if name in _names(self.path) else None

    def end_group(self, number: int) -> None:
        """The first node has no more use for the ranks of this order."""
        _touch(self.path / f"{number}.over")

    def is_over(self, number: int) -> bool:
        """Whether the first node has done with the ranks of this order."""
        return f"{number}.over" in _names(self.path)

    def report(self, number: int, node: int, report: dict[str, Any]) -> None:
        """Say how the ranks of this node ended."""
        write_json(self.done / f"{number}.{node}.json", report)

    def reports(self, number: int) -> dict[int, dict[str, Any]]:
        """Node -> what it said about the ranks of this order."""
        names = [name for name in _names(self.done) if name.startswith(f"{number}.") and name[-5:] == ".json"]
        found = {int(name.split(".")[1]): read_json(self.done / name) for name in names}
        return {node: report for node, report in found.items() if report is not None}

    @property
    def at_end(self) -> bool:
        """Whether nothing more will come."""
        return "end" in _names(self.path)

    def beat(self) -> float | None:
        """A number that changes while the first node's agent lives; None where it never beat."""
        try:
            return (self.path / "beat").stat().st_mtime
        except OSError:
            return None


@contextlib.contextmanager
def leading(orders_dir: Path) -> Iterator[None]:
    """Around all work of the first node's agent: the other nodes see it alive, and leave when it ends."""
    orders = Orders(orders_dir)
    orders.done.mkdir(parents=True, exist_ok=True)
    stopped = threading.Event()

    def beat() -> None:
        while True:
            with contextlib.suppress(OSError):  # the next one may succeed
                _touch(orders.path / "beat")
            if stopped.wait(BEAT_S):
                return

    thread = threading.Thread(target=beat, name="orders' beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(1.0)
        with contextlib.suppress(OSError):
            _touch(orders.path / "end")


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


POLL_S = 0.1  # between two questions whether to stop
ORDERS_POLL_S = 0.5  # between two looks into the shared folder
SETTLE_S = 1.0  # after a first trouble: the time in which its cause may show
SETTLE_NODES_S = 5.0  # the same where it may come from another node, through the shared folder
ENDING_S = 10.0  # the time the other ranks have to end after rank 0 has
LEADER_GONE_S = 120.0  # without a beat of the first node


class RankDied(Exception):
    """A rank is gone, or was lost, although the run had not ended; in words."""


class RankFailed(Exception):
    """`run_one` raised in a rank. `args[0]` is its message; `traceback` the rank's own."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


def run_ranks(run_one: RunOne, spec: RunSpec, machine: Machine, stop: Stop) -> Any:
    """Train one run in `machine.processes` processes; where `machine.devices` are fewer, and HARNESS_ORDERS
    names a folder of orders, so many on each node. When `stop()` is True rank 0 is told, and all end.

    Returns:
        What rank 0 returned, or INTERRUPTED where nothing was started.

    Raises:
        RankDied: a rank died, or lost the others.
        RankFailed: `run_one` raised in a rank.
        TypeError: `run_one` is not a function at the top of a module.
        ValueError: the processes do not go evenly into the devices.
    """
    local = min(len(machine.devices) or machine.processes, machine.processes)
    if stop():
        return INTERRUPTED
    if local == machine.processes:
        with RankGroup(run_one, spec, machine, Place(world=local, local=local)) as group:
            return _lead(group, stop, list, SETTLE_S)
    if FOLDER not in os.environ or machine.processes % local:
        raise ValueError(f"{machine.processes} processes on {local} devices; give each process a device")
    place = Place(world=machine.processes, local=local, host=socket.gethostname(), port=_free_port())
    orders = Orders(Path(os.environ[FOLDER]))
    with ExitStack() as stack:
        order = {"schema": 1, "run_id": spec.run_id, "spec": spec.to_json(), **dataclasses.asdict(place)}
        number = orders.give(order)
        stack.callback(orders.end_group, number)
        group = stack.enter_context(RankGroup(run_one, spec, machine, place))
        return _lead(group, stop, _Others(orders, number), SETTLE_NODES_S)


def follow(orders_dir: Path, node: int, run_one: RunOne, machine: Machine, stop: Stop) -> None:
    """On node 1, 2, ... of a job: start this node's ranks of every group that the first node orders, until it
    says that nothing more will come, is seen to be gone, or `stop()` is True."""
    orders, number = Orders(orders_dir), 1
    leader = _Leader(orders)
    while not (stop() or orders.at_end or leader.is_gone()):
        order = orders.read(number)
        if order is None:
            time.sleep(ORDERS_POLL_S)
            continue
        if not orders.is_over(number):
            _follow_one(orders, number, order, (node, run_one, machine))
        number += 1


def _follow_one(orders: Orders, number: int, order: dict[str, Any], own: tuple[int, RunOne, Machine]) -> None:
    node, run_one, machine = own
    place = Place(
        world=order["world"], local=order["local"], node=node, host=order["host"], port=order["port"]
    )
    spec, machine = RunSpec.from_json(order["spec"]), dataclasses.replace(machine, processes=place.world)
    is_over = _now_and_then(lambda: orders.is_over(number))
    try:
        with RankGroup(run_one, spec, machine, place) as group:
            while not (group.ended or group.troubles or is_over()):
                group.wait(POLL_S)
            group.wait_for_end(SETTLE_S if group.troubles else ENDING_S)
        troubles = group.troubles
    except (OSError, ValueError) as error:  # no process, no disk: the first node must not wait for these
        message = f"node {node}: {type(error).__name__}: {error}"
        troubles = [Trouble(rank=place.ranks.start, kind="error", message=message)]
    report = [dataclasses.asdict(each) for each in troubles]
    orders.report(number, node, {"schema": 1, "troubles": report})


def _lead(group: RankGroup, stop: Stop, others: Callable[[], list[Trouble]], settle_s: float) -> Any:
    """Until rank 0 says how the run ended, or something is wrong with any rank."""
    told, give_up_s = False, float("inf")
    while True:
        group.wait(POLL_S)
        if 0 in group.statuses:
            group.wait_for_end(ENDING_S)
            return group.statuses[0]
        if not told and stop():
            group.tell_to_stop()
            told = True
        troubles = group.troubles + others()
        if troubles:  # an exception may be the echo of a death that is not yet seen
            now_s = time.monotonic()
            give_up_s = min(give_up_s, now_s + settle_s)
            is_clear = group.has_said_all or any(each.kind == "died" for each in troubles)
            if is_clear or now_s >= give_up_s:
                raise _verdict(troubles)


def _verdict(troubles: Sequence[Trouble]) -> Exception:
    """What to make of them: a death weighs more than an exception, and that more than a lost connection."""
    died, errors = ([each for each in troubles if each.kind == kind] for kind in ("died", "error"))
    if errors and not died:
        return RankFailed(errors[0].message, errors[0].traceback)
    if died:
        return RankDied("; ".join(each.message for each in (*died, *errors)))
    return RankDied(f"the ranks lost each other: {troubles[0].message}")


class _Others:
    """Troubles of the ranks on other nodes, looked for now and then."""

    def __init__(self, orders: Orders, number: int) -> None:
        self._look = _now_and_then(lambda: orders.reports(number))

    def __call__(self) -> list[Trouble]:
        reports = self._look() or {}
        return [Trouble(**each) for node in sorted(reports) for each in reports[node]["troubles"]]


class _Leader:
    """Whether the first node's agent is gone, by this machine's own clock."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._seen: tuple[float | None, float] = (None, time.monotonic())

    def is_gone(self) -> bool:
        beat, now_s = self._orders.beat(), time.monotonic()
        if beat is None or beat != self._seen[0]:
            self._seen = (beat, now_s)
        return now_s - self._seen[1] > LEADER_GONE_S


def _now_and_then(look: Callable[[], Any]) -> Callable[[], Any]:
    """`look`, its last answer kept for `ORDERS_POLL_S`."""
    answer, asked_s = None, float("-inf")

    def ask() -> Any:
        nonlocal answer, asked_s
        if time.monotonic() - asked_s >= ORDERS_POLL_S:
            answer, asked_s = look(), time.monotonic()
        return answer

    return ask


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
