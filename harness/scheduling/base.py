"""One interface for every place where runs are executed; signals as arrivals; cores, and the fork server."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from harness.runs.folder import RunFolder
from harness.spec import AnyRun, Machine, Stop

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, ForkServerProcess

# One interface for every place where runs are executed.


INTERRUPTED = "interrupted"  # beside the outcomes in study.records: stopped, resumable

RunOne = Callable[[AnyRun, RunFolder, Machine, Stop], str]
"""Trains (or resumes) one run and returns its status: finished, diverged, failed or interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run to execute, and the runs that must have finished before it."""

    spec: AnyRun
    needs: tuple[str, ...] = ()
    cost: float = 0.0  # any unit; the longest go first

    @property
    def run_id(self) -> str:
        return self.spec.run_id


@dataclass(slots=True, kw_only=True)
class Progress:
    """What a watcher sees: called at every change and at least once a second."""

    waiting: int
    running: tuple[str, ...]
    ended: dict[str, str] = field(default_factory=dict)  # run_id -> status
    note: str = ""  # e.g. "worker 4711 was killed; run ab12 is retried (2 of 3)"
    queue: str = ""  # of a cluster, e.g. "3 agents, 13 queued (Priority)"


Watch = Callable[[Progress], None]

IsOver = Callable[[], bool]
"""Whether no more time is to be spent: asked at least once a second, and quick."""


def never() -> bool:
    return False


class Scheduler(Protocol):
    """Executes jobs somewhere. Returns when all have ended or when the user interrupts."""

    def execute(self, jobs: Sequence[Job], run_one: RunOne, watch: Watch) -> dict[str, str]:
        """run_id -> status. Never raises for a failing run."""
        ...


# Ctrl-C, SIGTERM and a closed terminal as arrivals that a loop reads, not as an exception.


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Arrival(NamedTuple):
    """A signal that came, and when by `time.monotonic`."""

    number: int
    time_s: float


class Interrupts:
    """While entered, each of `signals` is added to `arrivals` and makes `wake_fd` readable.

    A signal that is ignored (nohup, a background job of a script) stays ignored. Outside the main thread
    Python installs no handlers: there nothing arrives and a KeyboardInterrupt goes to the main thread.
    """

    def __init__(self, *, raise_on_second: bool = False, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self.arrivals: list[Arrival] = []
        self._signals = signals
        self._raise_on_second = raise_on_second
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self.wake_fd, self._write_fd = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(self._write_fd, False)
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self.wake_fd)
        os.close(self._write_fd)

    @property
    def count(self) -> int:
        """How many signals have arrived."""
        return len(self.arrivals)

    def end(self) -> None:
        """As if a signal had come: time is up."""
        self.arrivals.append(Arrival(0, time.monotonic()))

    def drain(self) -> None:
        """Make `wake_fd` unreadable until the next signal."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake_fd, 64):
                pass

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.arrivals.append(Arrival(number, time.monotonic()))
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_fd, b"!")
        if self._raise_on_second and self.count >= 2:
            raise KeyboardInterrupt


# What this machine has, found without importing torch (the CLI must start at once).


CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_OF_THIS_PROCESS = Path("/proc/self/cgroup")


def default_workers(devices: Sequence[str], per_device: int = 1) -> int:
    """One-thread workers: one per core on a CPU; `per_device` per GPU, as far as the cores suffice."""
    gpus = [device for device in devices if device != "cpu"]
    cores = available_cores()
    return max(len(gpus), min(len(gpus) * per_device, cores)) if gpus else cores


def available_cores(root: Path = CGROUP_ROOT, membership: Path = CGROUP_OF_THIS_PROCESS) -> int:
    """Cores this process may use: its affinity mask, cut by its cgroups' CPU quotas (v2). At least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = _cgroup_quota(root, membership)
    return max(1, cores if quota is None else min(cores, int(quota)))


def _cgroup_quota(root: Path, membership: Path) -> float | None:
    """The smallest CPU quota, in cores, of this process's cgroup and of those above it; None: no limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None:
        return None
    folder = root / own
    quotas = [_quota(level / "cpu.max") for level in (folder, *folder.parents) if level.is_relative_to(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(file: Path) -> float | None:
    """`cpu.max` holds "QUOTA PERIOD" in microseconds, or "max PERIOD"."""
    try:
        quota, period = file.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


# A process that has imported the training code once, from which workers are forked in milliseconds.
#
# This is multiprocessing's fork server, started with care for four things it does not do by itself:
#
# - Python before 3.12.8 and 3.13.1 ignores the caller's `sys.path` while preloading, and a module that is
#   not found is passed over in silence (python/cpython issue 117378): the path is handed over in
# PYTHONPATH,
#   and every worker says which modules it found loaded.
# - The number of threads of OpenMP and BLAS is read once, when they are loaded: it is set before.
# - A worker runs the caller's main script again before it starts, which costs the time of its imports and
#   starts everything anew where the script has no `if __name__ == "__main__"`: the script is hidden from
# it.
# - A Ctrl-C in a terminal, or the end of it, reaches every process of the group. The signals are blocked in
#   the server, hence in a new worker until it has its own handlers. Slurm sends SIGUSR2 to all processes of
# a
#   task: it stays blocked in the server and whatever comes of it, because it is the agent's alone.


BLOCKED = (*SIGNALS, signal.SIGUSR2)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def context() -> ForkServerContext:
    """The multiprocessing context all workers belong to."""
    import multiprocessing  # a process that starts no other does without

    return multiprocessing.get_context("forkserver")


def start_server(preload: Sequence[str], threads: int) -> None:
    """Start the server, unless this process already has one; then its modules and threads stay.

    Returns at once; the modules are imported while the caller goes on. A module that raises something else
    than ImportError ends the server, and `start_process` raises EOFError or ConnectionError.
    """
    from multiprocessing import forkserver, resource_tracker

    forkserver.set_forkserver_preload(list(preload))
    with _signals_blocked((signal.SIGUSR2,)):  # of the others it unblocks two, here as well, when it starts
        resource_tracker.ensure_running()
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    variables = {name: str(threads) for name in THREAD_VARIABLES} | {"PYTHONPATH": path}
    with _environment(variables), _signals_blocked(BLOCKED), _main_hidden():
        forkserver.ensure_running()


def start_process(
    target: Callable[..., None], args: tuple[Any, ...], *, with_main: bool
) -> ForkServerProcess:
    """Fork a process that calls `target(*args)`; `with_main` where `args` refer to the main script.

    Raises:
        OSError, EOFError: the server has died or the process could not be forked.
    """
    process = context().Process(target=target, args=args, daemon=False)  # a daemon may not have children
    with contextlib.nullcontext() if with_main else _main_hidden():
        process.start()
    return process


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """Let multiprocessing find no main script to run again in the new process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _signals_blocked(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
