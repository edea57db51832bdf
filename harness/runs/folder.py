"""The run folder: the only truth about a run. Plain files, nothing half-written; and who holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import frozen, printable
from harness.runs import records
from harness.runs.records import is_count, is_time, parsed, read_with_stat
from harness.spec import FAILED, FINISHED, Stop, sha256_of

# Who holds a run: the claims in its folder, read by any process on any machine. Nothing here writes.
#
# runs/<run_id>/claim.<n>   the n-th process that took the run; the highest n is the current claim
#               cancel      a request to stop
#
# A claim is alive while its file is touched (a beat). It is dead at once where this machine can see that
# the process has gone, and else when the file has not been touched for `STALE_S`.


BEAT_S = 10.0
STALE_S = 90.0
PREFIX = "claim."
WRITABLE = 0o222  # no such bit: the claim was released while no disk had space for a word
MOST_DIGITS = 9  # of a claim's number; a file with more is nobody's claim
MOST_PID = 2**31
UNKNOWN_HOST = "an unknown host"
LONGEST_NAME = 300  # characters of a host, a job, ... in a claim


@frozen
class Holder:
    """What a claim file says. Where it is empty or cut, its number, the beat and whether it was released are
    known."""

    number: int
    beat_ns: int  # the last beat, by the clock of the file system
    released: bool = False
    host: str = UNKNOWN_HOST
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
        where = f"process {self.pid} on {self.host}"
        if self.pid is None:
            is_named = self.host != UNKNOWN_HOST
            where = self.host if is_named else "a process that has not written its name (a full disk?)"
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
        text, info = read_with_stat(folder / f"{PREFIX}{number}")
    except FileNotFoundError:
        return None
    try:
        data = parsed(text)
    except ValueError:  # empty or cut: it holds as well
        data = None
    data = data if isinstance(data, dict) else {}
    if not info.st_mode & WRITABLE:
        data["released"] = True
    return _holder(data, number, info.st_mtime_ns)


def identity() -> dict[str, Any]:
    """This process, as its claims name it."""
    return _identity(os.getpid())  # by process: a fork is another one


@cache
def _identity(pid: int) -> dict[str, Any]:
    import socket  # plans and states have no claims of their own

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


# The run folder: the only truth about a run. Plain files, one purpose each, nothing half-written.
#
# runs/<run_id>/spec.json          the resolved spec, written first
#               events.jsonl       append-only: one line per epoch, attempts, heartbeats
#               env.json           versions, device, threads of the attempt that finished
#               checkpoint.pt      the newest complete state (absent once the run has ended, unless kept)
#               weights.pt         the network that was evaluated, for runs that need it
#               weights_raw.pt     the trained one, where a trick evaluates another (an average of weights)
#               predictions.bin    one bit per test image: 1 where the top-1 answer was right
#               summary.json       written last, atomically: a run without it has not ended
#               lock               held (flock) by the process that trains the run, as far as one machine
# sees
#               claim.<n>          who trains the run, as all machines see it (`holders`, `run_claims`)
#               cancel             somebody asked for the run to be stopped
#               other_data/        what the run left behind on data that have changed since


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


class RunFolder(NamedTuple):
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

    def read_end(self, specs: records.Specs | None = None) -> tuple[dict[str, Any] | None, str]:
        """As `read_summary`, with the sha256 of the file; "" where it is no end.

        specs: remembers arms, where many folders are read.
        """
        try:
            text = records.read_quickly(self.summary)
        except (FileNotFoundError, NotADirectoryError):
            return None, ""
        except OSError as error:
            records.note(self.summary, records.reason(error))
            return None, ""
        summary = records.summary_of(text, self.run_id, self.summary)
        if summary is None or not self.has_spec(specs):
            if summary is not None and not self.spec.exists():
                records.note(self.spec, records.NO_SPEC)
            return None, ""
        return summary, sha256_of(text)

    def has_spec(self, specs: records.Specs | None = None) -> bool:
        """Whether the spec is there and hashes to the folder's name. One that does not is named."""
        try:
            why = (specs or records.Specs()).wrong(records.read_quickly(self.spec), self.run_id)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            why = records.reason(error)
        if why:
            records.note(self.spec, why)
        return not why

    def read_events(self) -> list[dict[str, Any]]:
        """Every complete event line, oldest first. A line cut off by a crash is left out."""
        try:
            lines = records.read_quickly(self.events).split(b"\n")[:-1]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            records.note(self.events, records.reason(error))
            return []
        return [event for line in lines if (event := records.event_of(line)) is not None]

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
    if is_locked(folder.lock) or holder_of(folder) is not None:
        return RUNNING
    kinds = [event["kind"] for event in folder.read_events()]
    if kinds and kinds[-1] == FAILED:
        return FAILED
    if is_cancelled(folder):
        return CANCELLED
    return STOPPED if kinds else MISSING


def is_locked(lock: Path | str) -> bool:
    """Whether a living process on this machine holds a run's lock file; False where files have no locks.

    Raises:
        OSError: the file system does not say.
    """
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
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
        return records.parsed(records.read_quickly(path))
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


def record(runs_dir: Path, run_id: str, kind: str, **values: Any) -> None:
    """Append an event to a run that was started. A full disk, or a folder that is gone, does not stop the
    others."""
    try:
        RunFolder(runs_dir / run_id).append_event(kind, **values)
    except OSError as error:
        _log_instead(run_id, f"{kind} {values.get('message', '')}", error)


def _log_instead(run_id: str, what: str, error: OSError) -> None:
    import logging  # only where something is wrong: 3 ms

    logging.getLogger(__name__).error("run %s: %s (not recorded: %s)", run_id, what, error)


def record_refused(runs_dir: Path, run_id: str, message: str) -> None:
    """Write down why a run failed that was never started."""
    try:
        (runs_dir / run_id).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log_instead(run_id, f"failed {message}", error)
    else:
        record(runs_dir, run_id, FAILED, message=message)


def finished_in(runs_dir: Path) -> Callable[[str], bool]:
    """A function that says whether a run has finished in an earlier session."""

    def has_finished(run_id: str) -> bool:
        summary = RunFolder(runs_dir / run_id).read_summary()
        return summary is not None and summary["status"] == FINISHED

    return has_finished


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

    Half a line, which the next writer closed, and one that no writer writes are left out, as are events whose
    kind is no text.
    """
    try:
        lines = records.read_quickly(path).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            data = records.parsed(line)
            if isinstance(data, dict) and isinstance(data.get("kind", ""), str):
                found.append(data)
    return found


# Only one process of a machine trains a run at a time.
#
# Between machines, and on file systems without flock, the claims of `harness.runs.claims` see to that.


POLL_S = 0.1


@contextmanager
def exclusive(path: Path, stop: Stop) -> Iterator[bool]:
    """As `locked`. Yields: True with the lock held; False if `stop()` came first."""
    with locked(path, stop) as descriptor:
        yield descriptor is not None


@contextmanager
def locked(path: Path, stop: Stop) -> Iterator[int | None]:
    """Hold the lock file for the block; the system frees it when the process dies, however it dies, and
    every process that it gave the descriptor to.

    Waits while another process holds it (the worker of a controller that was killed ends at its next step).

    Raises:
        OSError: the folder of the file is not there.

    Yields:
        The descriptor with the lock held; None if `stop()` came first.
    """
    while True:
        with path.open("a") as file:
            held = _try_lock(file.fileno())
            while not held and not stop():
                time.sleep(POLL_S)
                held = _try_lock(file.fileno())
            if held and identity_of(path) != identity_of(file.fileno()):
                continue  # the folder was made anew while this process waited: the lock is another file now
            yield file.fileno() if held else None
            return


def identity_of(file: Path | int) -> tuple[int, int] | None:
    """What tells a file that somebody has open from a later one of the same name; None: there is no file."""
    try:
        info = os.stat(file)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
    return True
