"""The run folder: the only truth about a run. Plain files, one purpose each, nothing half-written.

runs/<run_id>/spec.json          the resolved spec, written first
              events.jsonl       append-only: one line per epoch, attempts, heartbeats
              env.json           versions, device, threads of the attempt that finished
              checkpoint.pt      the newest complete state (absent once the run has ended, unless kept)
              weights.pt         the network that was evaluated, for runs that need it
              weights_raw.pt     the trained one, where a trick evaluates another (an average of weights)
              predictions.bin    one bit per test image: 1 where the top-1 answer was right
              summary.json       written last, atomically: a run without it has not ended
              lock               held (flock) by the process that trains the run, as far as one machine sees
              claim.<n>          who trains the run, as all machines see it (`holders`, `run_claims`)
              cancel             somebody asked for the run to be stopped
              other_data/        what the run left behind on data that have changed since
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.study import checked
from harness.study.checked import DIVERGED as DIVERGED
from harness.study.checked import ENDED as ENDED
from harness.study.checked import FAILED as FAILED
from harness.study.checked import FINISHED as FINISHED
from harness.study.holders import holder_of, is_cancelled

RUNNING, CANCELLED, STOPPED, MISSING = "running", "cancelled", "stopped", "missing"
OTHER_DATA = "other_data"  # it has ended, on data that have changed since (`other_data`)
NO_FLOCK = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})  # of file systems that have no flock


class FolderGone(RuntimeError):
    """The run folder was deleted, or made anew by another process, while this one trained the run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} was deleted or replaced while the run was trained; nothing more is written there, and "
            "`harness run` does the run again"
        )


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and files of one run. Reading never writes."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def spec(self) -> Path:
        return self.path / "spec.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def env(self) -> Path:
        return self.path / "env.json"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def weights(self) -> Path:
        return self.path / "weights.pt"

    @property
    def raw_weights(self) -> Path:
        return self.path / "weights_raw.pt"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.bin"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    def read_summary(self) -> dict[str, Any] | None:
        """The summary, or None while the run has not ended. One that is damaged is no end, and neither is one
        without the spec that the folder is named after; both are named (`checked.note`)."""
        return self.read_end()[0]

    def read_end(self, specs: checked.Specs | None = None) -> tuple[dict[str, Any] | None, str]:
        """As `read_summary`, with the sha256 of the file; "" where it is no end.

        specs: remembers arms, where many folders are read.
        """
        try:
            text = checked.read_quickly(self.summary)
        except (FileNotFoundError, NotADirectoryError):
            return None, ""
        except OSError as error:
            checked.note(self.summary, checked.reason(error))
            return None, ""
        summary = checked.summary_of(text, self.run_id, self.summary)
        if summary is None or not self.has_spec(specs):
            if summary is not None and not self.spec.exists():
                checked.note(self.spec, checked.NO_SPEC)
            return None, ""
        return summary, hashlib.sha256(text).hexdigest()

    def has_spec(self, specs: checked.Specs | None = None) -> bool:
        """Whether the spec is there and hashes to the folder's name. One that does not is named."""
        try:
            why = (specs or checked.Specs()).wrong(checked.read_quickly(self.spec), self.run_id)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            why = checked.reason(error)
        if why:
            checked.note(self.spec, why)
        return not why

    def read_events(self) -> list[dict[str, Any]]:
        """Every complete event line, oldest first. A line cut off by a crash is left out."""
        try:
            lines = checked.read_quickly(self.events).split(b"\n")[:-1]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            checked.note(self.events, checked.reason(error))
            return []
        return [event for line in lines if (event := checked.event_of(line)) is not None]

    def append_event(self, kind: str, **values: Any) -> None:
        """Append one line; a single write, so a reader never sees half of a line that was completed."""
        append_line(self.events, {"kind": kind, "time_s": time.time(), **values})

    def has_ended(self) -> bool:
        """Whether the run has an outcome (finished or diverged) that will not change."""
        return self.read_summary() is not None


def run_state(folder: RunFolder) -> str:
    """finished | diverged | running | failed | cancelled | stopped (resumable) | missing. Never writes.

    Absence of evidence is never an end: a run without a summary can always be run again.
    """
    summary = folder.read_summary()
    if summary is not None:
        return str(summary["status"])
    if is_locked(folder) or holder_of(folder) is not None:
        return RUNNING
    kinds = [event["kind"] for event in folder.read_events()]
    if kinds and kinds[-1] == FAILED:
        return FAILED
    if is_cancelled(folder):
        return CANCELLED
    return STOPPED if kinds else MISSING


def is_locked(folder: RunFolder) -> bool:
    """Whether a living process on this machine is training the run; False where the files have no locks."""
    try:
        handle = os.open(folder.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return False
    else:
        return False
    finally:
        os.close(handle)


def read_json(path: Path) -> Any:
    """The file's data, or None where there is no file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or holds what no record holds (`checked.parsed`).
    """
    try:
        return checked.parsed(checked.read_quickly(path))
    except FileNotFoundError:
        return None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write, fsync, rename: a reader sees the old file or the new one, never a part."""
    write_bytes(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write, fsync, rename (see `write_json`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """Append one line of JSON in a single write. Half a line that a crash left behind is closed before."""
    with path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        cut = end > 0 and file.read(1) != b"\n"
        line = b"\n" * cut + json.dumps(data).encode() + b"\n"
        while line:  # a disk that is nearly full takes a part; the next write says so
            line = line[file.write(line) :]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every complete line that `append_line` wrote, oldest first; [] where there is no file.

    Half a line, which the next writer closed, and one that no writer writes are left out.
    """
    try:
        lines = checked.read_quickly(path).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            data = checked.parsed(line)
            if isinstance(data, dict):
                found.append(data)
    return found
