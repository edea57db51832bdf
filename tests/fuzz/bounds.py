"""What a fuzzed case may take and touch: a time limit, a memory limit, and files outside its own folder."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import harness
from tests.timing import unit_s

WRITING = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"}
)
WRITING |= {"os.chmod", "os.chown", "os.utime", "os.mkfifo", "os.mknod", "os.setxattr", "os.chdir"}
REACHING = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"})
REACHING |= {"socket.connect", "socket.bind", "socket.getaddrinfo", "pty.spawn", "pickle.find_class"}
PATIENCE = 100  # times the limit, by the clock: for what sleeps, and what no signal can interrupt


def _slowness() -> float:
    """How many times as long this machine takes as a core of 2023, which does a unit of work in 0.1 ms."""
    with TemporaryDirectory() as folder:
        return max(1.0, unit_s(Path(folder)) / 1e-4)


SLOWNESS = _slowness()  # found on import: later a `Watch` may be on, which notes every file


class TooLong(BaseException):
    """Not an Exception: nothing that is being tested may swallow it."""


class Watch:
    """Notes every file that is opened outside `allowed`, and every write and process, while it is on.

    An audit hook stays for the life of its process, so that this belongs into a process of its own.
    """

    def __init__(self, *allowed: Path) -> None:
        code = (
            Path(harness.__file__).parent,
            *map(Path, {*sysconfig.get_paths().values(), sys.base_prefix, *sys.path, os.getcwd()}),
        )
        self._allowed = tuple(f"{os.path.realpath(path)}{os.sep}" for path in (*allowed, *code, *_system()))
        self._on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Within the block, what is done is noted in `seen`, which starts empty."""
        self.seen = []
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on or not (event in ("open", "os.listdir", "os.scandir") or event in WRITING | REACHING):
            return
        self._on = False  # what is done below is not the case's
        try:
            if event == "open":
                self._opened(*arguments)
            elif event in WRITING or event in REACHING:
                self.seen.append(f"{event} {arguments[:2]!r}")
            elif not self._is_allowed(arguments[0]):
                self.seen.append(f"{event} {arguments[0]!r}")
        finally:
            self._on = True

    def _opened(self, path: Any, mode: str | None, flags: int) -> None:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
            self.seen.append(f"wrote {path!r}")
        elif not self._is_allowed(path):
            self.seen.append(f"read {path!r}")

    def _is_allowed(self, path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return True
        real = os.path.realpath(os.fsdecode(path))
        return f"{real}{os.sep}".startswith(self._allowed)


def _system() -> tuple[Path, ...]:
    """What Python and its libraries themselves look at when they are imported or report an error."""
    return tuple(map(Path, ("/proc", "/sys", "/usr/share/zoneinfo", "/etc/localtime", "/usr/lib", "/lib")))


@contextmanager
def within(time_s: float) -> Iterator[None]:
    """Raise TooLong in the block when it has taken `time_s` of a core of 2023, whatever other processes do.

    What no signal can interrupt ends the process later on.
    """

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TooLong(f"took more than {time_s:.0f} s")

    before = signal.signal(signal.SIGPROF, late)
    limit_s = time_s * SLOWNESS
    faulthandler.dump_traceback_later(limit_s * PATIENCE, exit=True, file=sys.__stderr__)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGPROF, before)


def limit_memory(more_gb: float) -> None:
    """No more than `more_gb` of address space beyond what this process has: else a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + int(more_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def peak_gb() -> float:
    """The most memory that this process has had at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
