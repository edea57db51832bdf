"""Taking a run, so that of all processes on all machines one trains it.

The claim is a numbered file created with O_EXCL, which one process wins on any file system. Nothing is
renamed or deleted while it is contested: whoever follows a dead holder creates the next number, and a holder
that was only taken for dead finds that number at its next beat and stops. Times are those of the file system
and of this process's steady clock; the clocks of machines are never compared.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from harness.runs.folder import (
    BEAT_S,
    PREFIX,
    STALE_S,
    WRITABLE,
    Holder,
    RunFolder,
    identity,
    newest_number,
    newest_of,
    read_claim,
    write_json,
)

# Whether the holder of a claim lives, as far as one process can see by looking at it again and again.
#
# No clocks of two machines are compared. A claim that has not been touched for `stale_s` by the clock of
# the file system is watched for a few beats before its holder is called dead, because on some file systems
# a beat carries the holder's own clock, which may be wrong; and one that is not touched while it is watched
# for `stale_s` is dead whatever its time says.


CONFIRM_BEATS = 2.5  # a claim that looks stale is watched for so many beats


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of a claim. Time counts only as far as it was looked at: a machine that slept has seen
    nobody die."""

    number: int
    beat_ns: int
    looked_s: float
    watched_s: float = 0.0  # how long it was seen without a new beat
    beats: bool = False  # it was touched while it was watched


class Sightings:
    """What this process has seen of the claims of others."""

    def __init__(self, folder: Path, *, beat_s: float, stale_s: float) -> None:
        self._stale_s = stale_s
        self._confirm_s = min(stale_s, CONFIRM_BEATS * beat_s)
        self._seen: dict[str, Sighting] = {}
        self._time = FileSystemTime(folder)

    def is_dead(self, run_id: str, claim: Holder) -> bool:
        """Look once more at the newest claim of a run, which has not been released."""
        if claim.is_gone():
            return True
        watched_s = self._look(run_id, claim).watched_s
        if watched_s < self._confirm_s:
            return False
        now_s = self._time.now_s()
        return watched_s > self._stale_s or (now_s is not None and now_s - claim.beat_s > self._stale_s)

    def beats(self, run_id: str) -> bool:
        """Whether the claim was touched under this process's eyes, and not long ago."""
        seen = self._seen.get(run_id)
        return seen is not None and seen.beats and seen.watched_s < self._confirm_s

    def forget(self, run_id: str) -> None:
        self._seen.pop(run_id, None)

    def _look(self, run_id: str, claim: Holder) -> Sighting:
        now_s = time.monotonic()
        seen = self._seen.get(run_id)
        if seen is None or seen.number != claim.number:
            seen = Sighting(claim.number, claim.beat_ns, now_s)
        elif seen.beat_ns != claim.beat_ns:
            seen = Sighting(claim.number, claim.beat_ns, now_s, beats=True)
        else:
            passed_s = min(now_s - seen.looked_s, self._confirm_s / 2)
            seen = replace(seen, looked_s=now_s, watched_s=seen.watched_s + passed_s)
        self._seen[run_id] = seen
        return seen


class FileSystemTime:
    """The clock that stamps files in a folder, asked once and then carried on by this process's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ahead_s: float | None = None  # of time.monotonic

    def now_s(self) -> float | None:
        """Seconds since 1970; None where the folder cannot be written."""
        if self._ahead_s is None:
            try:
                self._ahead_s = file_system_time_s(self._folder) - time.monotonic()
            except OSError:
                return None
        return time.monotonic() + self._ahead_s


def file_system_time_s(folder: Path) -> float:
    """Seconds since 1970 by the clock that stamps files in this folder, found with a file of a moment.

    Raises:
        OSError: the folder cannot be written.
    """
    probe = folder / f".clock.{os.urandom(8).hex()}"
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.utime(probe)  # "now" by the server's clock; a time of one's own would be this machine's
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        probe.unlink(missing_ok=True)


LOST, CANCELLED = "lost", "cancelled"
MENDS_ITSELF = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EDQUOT,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


@dataclass(frozen=True, slots=True)
class Taken:
    """The run is this process's now. `after` is the holder that died without releasing it, if any."""

    number: int
    after: Holder | None


@dataclass(frozen=True, slots=True)
class Held:
    """The run is another process's, or cannot be claimed for the moment: `problem` says why.

    `beats`: the holder's claim was touched while this process watched, so it lives.
    """

    holder: Holder | None
    beats: bool = False
    problem: str = ""


class Claims:
    """The claims of this process: a context manager that beats while entered and releases at its end.

    Everything may be called from any thread. A claim costs a few file operations and no waiting.
    """

    def __init__(
        self, runs_dir: Path, *, job: str | None = None, beat_s: float = BEAT_S, stale_s: float = STALE_S
    ) -> None:
        self._runs_dir, self._job = runs_dir, job
        self._beat_s = beat_s
        self._token = os.urandom(8).hex()
        self._held: dict[str, int] = {}  # run_id -> the number of the claim
        self._own: dict[str, int] = {}  # the same, released or not
        self._withdrawn: dict[str, str] = {}
        self._unwritten: dict[str, bytes] = {}  # run_id -> what its claim should say
        self._lock = threading.Lock()  # of what is held and withdrawn
        self._sightings = Sightings(runs_dir, beat_s=beat_s, stale_s=stale_s)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        for run_id in list(self._held):
            self.release(run_id)

    def holds(self, run_id: str) -> bool:
        return run_id in self._held

    def take(self, run_id: str) -> Taken | Held:
        """Take the run unless a living process has it. Taking what one holds is an error of the caller.

        Raises:
            OSError: the folder cannot be written for a reason that does not mend itself.
        """
        if run_id in self._held:
            raise ValueError(f"run {run_id} is held already")
        try:
            return self._take(run_id)
        except OSError as error:
            if error.errno not in MENDS_ITSELF:
                raise
            return Held(None, problem=f"{type(error).__name__}: {error}")

    def release(self, run_id: str) -> None:
        """Let the run go, so that another may take it at once. The file stays: numbers are never used twice.

        Where no disk has space for that, nobody may write the file any more, which says the same. Where that
        is not possible either, the claim dies with this process, or of its age.
        """
        with self._lock:
            number = self._held.pop(run_id, None)
            self._withdrawn.pop(run_id, None)
            self._unwritten.pop(run_id, None)
        if number is None:
            return
        draft = f"{self._runs_dir}/{run_id}/.{PREFIX}{number}.{self._token}.draft"
        file = self._file(run_id, number)
        try:
            handle = os.open(draft, os.O_CREAT | os.O_WRONLY, 0o644)
            if not _write(handle, self._content(released=True)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), draft)
            os.replace(draft, file)
        except OSError:
            with contextlib.suppress(OSError):
                os.chmod(file, stat.S_IMODE(os.stat(file).st_mode) & ~WRITABLE)
                os.unlink(draft)

    def withdrawn(self) -> dict[str, str]:
        """run_id -> "lost" (another has it now) or "cancelled", for runs held here that are to stop."""
        return dict(self._withdrawn)

    def is_withdrawn(self, run_id: str) -> bool:
        return run_id in self._withdrawn

    def beat(self) -> None:
        """Touch every claim and see which runs are no longer wanted here. The thread does this; never raises.

        What cannot be looked at is neither lost nor cancelled.
        """
        for run_id, number in list(self._held.items()):
            try:
                if run_id in self._unwritten:
                    self._write_late(run_id, number)
                os.utime(self._file(run_id, number))
                names = os.listdir(f"{self._runs_dir}/{run_id}")  # NFS remembers that one name was not there
                if newest_of(names) > number:
                    self._withdraw(run_id, LOST)
                elif "cancel" in names:
                    self._withdraw(run_id, CANCELLED)
            except FileNotFoundError:  # somebody deleted the folder: what is written here is for nobody
                self._withdraw(run_id, LOST)
            except OSError:
                continue

    def _take(self, run_id: str) -> Taken | Held:
        folder = self._runs_dir / run_id
        number = newest_number(folder)
        if number == 0:
            folder.mkdir(parents=True, exist_ok=True)
        while True:
            claim = read_claim(folder, number) if number else None
            if claim is not None and (claim.released or number == self._own.get(run_id)):
                claim = None  # the latter: this process could not write that it had released it
            if claim is not None and not self._sightings.is_dead(run_id, claim):
                return Held(claim, beats=self._sightings.beats(run_id))
            if self._create(run_id, number + 1):
                return Taken(number + 1, claim)
            number += 1  # somebody was quicker, or the listing was old: look at that claim

    def _create(self, run_id: str, number: int) -> bool:
        try:
            handle = os.open(self._file(run_id, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        content = self._content()
        # On a full disk an empty claim, or a part of one, holds as well. A beat writes it when there is room.
        if not _write(handle, content):
            self._unwritten[run_id] = content
        self._held[run_id] = self._own[run_id] = number
        self._sightings.forget(run_id)
        self._start_to_beat()
        return True

    def _write_late(self, run_id: str, number: int) -> None:
        with self._lock, contextlib.suppress(OSError):
            # Not one that was released meanwhile, and no new file where the folder was deleted.
            content = self._unwritten.get(run_id)
            if content and _write(os.open(self._file(run_id, number), os.O_WRONLY), content):
                del self._unwritten[run_id]

    def _content(self, **more: bool) -> bytes:
        said = {**identity(), "token": self._token, "job": self._job, "time_s": time.time(), **more}
        return (json.dumps(said) + "\n").encode()

    def _withdraw(self, run_id: str, why: str) -> None:
        with self._lock:
            if run_id in self._held:  # not released meanwhile
                self._withdrawn.setdefault(run_id, why)

    def _start_to_beat(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_beating, name="claims", daemon=True)
            self._thread.start()

    def _keep_beating(self) -> None:
        while not self._closed.wait(self._beat_s):
            self.beat()

    def _file(self, run_id: str, number: int) -> str:
        return f"{self._runs_dir}/{run_id}/{PREFIX}{number}"


def _write(handle: int, content: bytes) -> bool:
    """Write all of it into a file, which is closed then; whether that was possible."""
    try:
        return os.write(handle, content) == len(content)
    except OSError:
        return False
    finally:
        os.close(handle)


def request_cancel(folder: RunFolder, by: str) -> None:
    """Ask whoever trains this run, on any machine, to stop. `by`: user@host.

    Raises:
        OSError: the folder cannot be written.
    """
    write_json(folder.path / "cancel", {"time_s": time.time(), "by": by})


def clear_cancel(folder: RunFolder) -> None:
    """The run is wanted again."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (folder.path / "cancel").unlink()
