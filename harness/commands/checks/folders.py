"""The runs folder: room, what its file system promises, its clock, and who may read submissions."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.commands.checks.base import FAIL, OK, WARN, Finding
from harness.commands.workspace import Workspace

GB = 2**30
LITTLE_GB, TOO_LITTLE_GB = 10.0, 1.0
FEW_FILES = 50_000
RACERS, RACES = 8, 20
SKEW_S = 2.0
SLOW_FSYNC_S = 0.5
COARSE_S = 2.0  # claims are kept alive by a new time of change every 10 s
MOUNTS = Path("/proc/self/mounts")
NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.sshfs",
    "fuse.glusterfs",
}


def space(place: Workspace) -> Iterator[Finding]:
    """Bytes and files that still fit."""
    folder = existing(place.runs_dir)
    usage, counts = shutil.disk_usage(folder), os.statvfs(folder)
    free_gb = usage.free / GB
    says = f"{free_gb:.0f} of {usage.total / GB:.0f} GB free at {place.runs_dir}"
    mend = "free some, or keep the run folders elsewhere: --runs DIR"
    if free_gb < TOO_LITTLE_GB:
        yield Finding("disk", FAIL, f"{free_gb:.2f} GB free at {place.runs_dir}", mend)
    elif counts.f_files and counts.f_favail < FEW_FILES:
        yield Finding("disk", WARN, f"{says}, but only {counts.f_favail} more files fit", mend)
    else:
        yield Finding("disk", WARN if free_gb < LITTLE_GB else OK, says, mend if free_gb < LITTLE_GB else "")


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def file_system(place: Workspace) -> Iterator[Finding]:
    """What claims, records and checkpoints rely on, tried on this mount; leaves nothing behind."""
    folder = existing(place.runs_dir)
    about = f"{kind_of(folder)} at {folder}"
    try:
        made = tempfile.mkdtemp(prefix=f".doctor-{socket.gethostname()}-", dir=folder)
    except OSError as error:
        mend = "make it writable, or --runs DIR; reading (status, logs, plan) works without"
        yield Finding("file system", FAIL, f"{about}: cannot write there: {error.strerror}", mend)
        return
    scratch = Path(made)
    try:
        yield Finding("file system", OK, about)
        for name, test in TESTS.items():
            yield tried(name, test, scratch)
        yield clock(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def tried(name: str, test: Callable[[Path], Finding], scratch: Path) -> Finding:
    """What the test says; an error of the file system is its failure."""
    try:
        return test(scratch)
    except OSError as error:
        mend = "keep the run folders on another file system: --runs DIR"
        return Finding(name, FAIL, f"{error.strerror or error}", mend)


def kind_of(folder: Path) -> str:
    """The type of the file system, e.g. ext4 or nfs4 (shared); `unknown` where the system does not tell."""
    with contextlib.suppress(OSError):
        entries = [line.split()[1:3] for line in MOUNTS.read_text().splitlines()]
        above = [entry for entry in entries if folder.is_relative_to(entry[0].replace("\\040", " "))]
        if above:
            kind = max(above, key=lambda entry: len(entry[0]))[1]
            return f"{kind} (shared)" if kind in NETWORK else kind
    return "unknown"


def exclusive(scratch: Path) -> Finding:
    """Of several that create the same file, exactly one may succeed: a claim relies on it."""
    with ThreadPoolExecutor(RACERS) as pool:
        for race in range(RACES):
            winners = sum(pool.map(_creates, [scratch / f"claim.{race}"] * RACERS))
            if winners != 1:
                says = f"{winners} of {RACERS} created the same new file"
                mend = "two machines would train the same run: keep the run folders on another file system"
                return Finding("exclusive create", FAIL, says, mend)
    return Finding("exclusive create", OK, f"one of {RACERS} wins, {RACES} times of {RACES}")


def _creates(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def replacing(scratch: Path) -> Finding:
    """A reader of a file that is renamed over sees the old one or the new one, never none or a part."""
    target, draft = scratch / "summary", scratch / "draft"
    target.write_bytes(b"0" * 4096)
    seen = set()
    for turn in range(RACES):
        draft.write_bytes(str(turn % 10).encode() * 4096)
        with target.open("rb") as reader:
            draft.replace(target)
            seen.add(len(reader.read()) == 4096 and target.stat().st_size == 4096 and not draft.exists())
    if seen != {True}:
        mend = "records could be cut: keep the run folders on another file system"
        return Finding("rename", FAIL, "a file that was renamed over another was cut or missing", mend)
    return Finding("rename", OK, "replaces a file as a whole, also under a reader")


def locking(scratch: Path) -> Finding:
    """flock is a second guard beside the claims, so a file system without it is a remark only."""
    path = scratch / "lock"
    try:
        with path.open("a") as first, path.open("a") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding("flock", OK, "excludes")
    except OSError as error:
        says = f"not on this mount ({errno.errorcode.get(error.errno or 0, error.errno)})"
        return Finding("flock", WARN, says, "nothing to do: claims guard the runs; keep mlflow.db elsewhere")
    says = "does not exclude a second holder"
    return Finding("flock", WARN, says, "nothing to do: claims guard the runs; keep mlflow.db elsewhere")


def granularity(scratch: Path) -> Finding:
    """The smallest step of times of change: a beat must be seen."""
    path = scratch / "beat"
    path.touch()
    first, start_s = path.stat().st_mtime_ns, time.monotonic()
    while time.monotonic() - start_s < COARSE_S + 1.0:
        os.utime(path)
        step_s = (path.stat().st_mtime_ns - first) / 1e9
        if step_s > 0:
            says = f"times of change move in steps of {step_s * 1000:.1f} ms or less"
            return Finding("beat", OK, says) if step_s <= COARSE_S else _coarse(step_s)
        time.sleep(0.001)
    return _coarse(COARSE_S + 1.0)


def _coarse(step_s: float) -> Finding:
    mend = "a living run could be taken for dead: keep the run folders on another file system"
    return Finding("beat", WARN, f"times of change move in steps of {step_s:.0f} s or more", mend)


def syncing(scratch: Path) -> Finding:
    """How long a small file takes to reach the disk, as for every record and checkpoint."""
    times_s = []
    for turn in range(5):
        start_s = time.perf_counter()
        with (scratch / f"synced{turn}").open("wb") as file:
            file.write(b"0" * 65536)
            file.flush()
            os.fsync(file.fileno())
        times_s.append(time.perf_counter() - start_s)
    median_s = statistics.median(times_s)
    says = f"64 kB in {median_s * 1000:.1f} ms"
    if median_s > SLOW_FSYNC_S:
        return Finding("fsync", WARN, says, "checkpoints will be slow here: try another file system")
    return Finding("fsync", OK, says)


TESTS: dict[str, Callable[[Path], Finding]] = {
    "exclusive create": exclusive,
    "rename": replacing,
    "flock": locking,
    "beat": granularity,
    "fsync": syncing,
}


def clock(scratch: Path) -> Finding:
    """The file server's clock against this machine's."""
    path = scratch / "now"
    before_s = time.time()
    path.touch()
    skew_s = path.stat().st_mtime - before_s
    if abs(skew_s) <= SKEW_S:
        return Finding("clock", OK, f"the file system's is within {SKEW_S:g} s of this machine's")
    says = f"the file system's is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
    return Finding("clock", WARN, says, "synchronise the clocks (NTP): times in logs will not agree")


def privacy(place: Workspace) -> Iterator[Finding]:
    """Submissions are for their owner alone; those of others are not looked at."""
    folder = place.runs_dir / ".submissions"
    try:
        mine = [
            path for path in sorted(folder.iterdir()) if path.is_dir() and path.stat().st_uid == os.getuid()
        ]
    except FileNotFoundError:
        yield Finding("submissions", OK, "none yet")
        return
    except OSError as error:
        yield Finding("submissions", WARN, f"cannot be listed: {error.strerror}", f"look at {folder}")
        return
    open_ones = [path for path in mine if path.stat().st_mode & 0o077]
    for path in open_ones:
        says = f"{path} can be read by others"
        yield Finding("submissions", FAIL, says, f"chmod 700 {path}")
    if not open_ones:
        yield Finding("submissions", OK, f"{len(mine)}, each for its owner alone")
