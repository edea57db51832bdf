"""Who holds a run: the claims in its folder, read by any process on any machine. Nothing here writes.

runs/<run_id>/claim.<n>   the n-th process that took the run; the highest n is the current claim
              cancel      a request to stop

A claim is alive while its file is touched (a beat). It is dead at once where this machine can see that the
process has gone, and else when the file has not been touched for `STALE_S`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.study.checked import is_count, is_time, parsed, read_with_time
from harness.study.problems import printable

if TYPE_CHECKING:
    from harness.study.records import RunFolder

BEAT_S = 10.0
STALE_S = 90.0
PREFIX = "claim."
MOST_DIGITS = 9  # of a claim's number; a file with more is nobody's claim
MOST_PID = 2**31
LONGEST_NAME = 300  # characters of a host, a job, ... in a claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What a claim file says. Everything but `number` and the beat is unknown where it is empty or cut."""

    number: int
    beat_ns: int  # the last beat, by the clock of the file system
    released: bool = False
    host: str = "an unknown host"
    pid: int | None = None
    process_start: int | None = None  # clock ticks after boot: tells a pid from its next owner
    boot_id: str | None = None
    pid_namespace: str | None = None
    job: str | None = None  # of Slurm
    token: str | None = None  # of the process, new at every start
    time_s: float | None = None  # when the run was taken, by the holder's clock

    @property
    def beat_s(self) -> float:
        """The last beat, by the clock of the file system."""
        return self.beat_ns / 1e9

    @property
    def place(self) -> str:
        """The process in words, for messages."""
        where = f"process {self.pid} on {self.host}" if self.pid is not None else self.host
        return printable(f"{where} (job {self.job})" if self.job else where)

    def is_gone(self) -> bool:
        """Whether this machine can see that the process has ended. False where it cannot tell."""
        if not self._is_here():
            return False
        assert self.pid is not None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it is another user's
        start = process_start(self.pid)
        return start == "ended" or (None not in (start, self.process_start) and start != self.process_start)

    def is_halted(self) -> bool:
        """Whether this machine can see that the process was stopped (Ctrl-Z, kill -STOP) and does nothing."""
        text = _read(f"/proc/{self.pid}/stat") if self._is_here() else None
        return text is not None and text.rpartition(")")[2].split()[:1] in (["T"], ["t"])

    def _is_here(self) -> bool:
        """Whether it is, or was, a process that this one can look at."""
        here, names = identity(), ("host", "boot_id", "pid_namespace")
        known = self.boot_id is not None and self.pid is not None and self.pid > 0
        return known and all(getattr(self, name) == here[name] for name in names)


def holder_of(folder: RunFolder, now_s: float | None = None, stale_s: float = STALE_S) -> Holder | None:
    """The living holder of a run, or None. Never writes, and never raises for a folder it cannot read.

    `now_s` is the file system's time where the caller has asked it (`sightings.file_system_time_s`); without
    it this machine's clock is believed. A beat that lies as far in the future is no sign of life either.
    """
    try:
        claim = read_claim(folder.path, newest_number(folder.path))
    except OSError:
        return None
    if claim is None or claim.released or claim.is_gone():
        return None
    age_s = (time.time() if now_s is None else now_s) - claim.beat_s
    return claim if abs(age_s) <= stale_s else None


def is_cancelled(folder: RunFolder) -> bool:
    """Whether somebody asked for this run to be stopped, and nobody has asked for it since."""
    return os.path.lexists(folder.path / "cancel")


def newest_number(folder: Path) -> int:
    """The highest n of the claims in a folder, 0 where there is none.

    Raises:
        OSError: the folder is there and cannot be listed.
    """
    try:
        return newest_of(os.listdir(folder))
    except FileNotFoundError:
        return 0


def newest_of(names: Iterable[str]) -> int:
    """The highest n among the names of files, 0 where none is a claim.

    >>> newest_of(["claim.2", "claim.10", "claim.x", "events.jsonl"]), newest_of([])
    (10, 0)
    """
    numbers = (name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))
    return max((int(each) for each in numbers if is_number_of_claim(each)), default=0)


def claim_numbers(folder: Path) -> list[int]:
    """The numbers of all claims in a folder, the first first; [] where it cannot be listed."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    numbers = (name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))
    return sorted(int(each) for each in numbers if is_number_of_claim(each))


def is_number_of_claim(text: str) -> bool:
    """Whether a process counts its claims so.

    >>> [is_number_of_claim(text) for text in ("1", "10", "01", "0", "9" * 20, "x", "")]
    [True, True, False, False, False, False, False]
    """
    return text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS and text[0] != "0"


def read_claim(folder: Path, number: int) -> Holder | None:
    """The claim of that number, or None where there is none.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        text, beat_ns = read_with_time(folder / f"{PREFIX}{number}")
    except FileNotFoundError:
        return None
    try:
        data = parsed(text)
    except ValueError:  # empty or cut: it holds as well
        data = None
    return _holder(data if isinstance(data, dict) else {}, number, beat_ns)


def identity() -> dict[str, Any]:
    """This process, as its claims name it."""
    return _identity(os.getpid())  # by process: a fork is another one


@cache
def _identity(pid: int) -> dict[str, Any]:
    start = process_start(pid)
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "process_start": start if isinstance(start, int) else None,
        "boot_id": _read("/proc/sys/kernel/random/boot_id"),
        "pid_namespace": _link("/proc/self/ns/pid"),
    }


def process_start(pid: int) -> int | str | None:
    """Clock ticks after boot at which a process started; "ended" for one that only waits to be reaped."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may contain anything
    return "ended" if fields[0] in "ZX" else int(fields[19])


def _holder(data: dict[str, Any], number: int, beat_ns: int) -> Holder:
    texts = ("host", "boot_id", "pid_namespace", "job", "token")
    known = {name: printable(data[name][:LONGEST_NAME]) for name in texts if isinstance(data.get(name), str)}
    pid, start, time_s = (data.get(name) for name in ("pid", "process_start", "time_s"))
    return Holder(
        number=number,
        beat_ns=beat_ns,
        released=data.get("released") is True,
        pid=pid if is_count(pid) and 0 < pid < MOST_PID else None,
        process_start=start if is_count(start) else None,
        time_s=float(time_s) if is_time(time_s) else None,
        **known,
    )


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
