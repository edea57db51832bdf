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
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from harness.study.holders import (
    BEAT_S,
    PREFIX,
    STALE_S,
    Holder,
    identity,
    newest_number,
    newest_of,
    read_claim,
)
from harness.study.records import RunFolder, write_json
from harness.study.sightings import Sightings

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
        self._token = secrets.token_hex(8)
        self._held: dict[str, int] = {}  # run_id -> the number of the claim
        self._own: dict[str, int] = {}  # the same, released or not
        self._withdrawn: dict[str, str] = {}
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

        Where that cannot be written the claim dies with this process, or of its age.
        """
        with self._lock:
            number = self._held.pop(run_id, None)
            self._withdrawn.pop(run_id, None)
        if number is None:
            return
        draft = f"{self._runs_dir}/{run_id}/.{PREFIX}{number}.{self._token}.draft"
        with contextlib.suppress(OSError):
            with open(draft, "wb", buffering=0) as file:
                file.write(self._content(released=True))
            os.replace(draft, self._file(run_id, number))

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
        try:
            os.write(handle, self._content())
        except OSError:
            pass  # a full disk: an empty claim holds as well
        finally:
            os.close(handle)
        self._held[run_id] = self._own[run_id] = number
        self._sightings.forget(run_id)
        self._start_to_beat()
        return True

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
