"""What `harness doctor` finds about this machine: Python, torch, kernels, folders."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import __version__
from harness.commands.step_times import CAPS
from harness.commands.workspace import Workspace
from harness.errors import MEASURE, masked, printable, unknown, wrong_variables
from harness.scheduling.base import available_cores

# What a check says, and programs that are called with a limit on their time.


OK, WARN, FAIL = "ok", "warn", "fail"
PACKAGE_ROOT = Path(__file__).parents[2]
PROBE_LIMIT_S = 90.0  # importing torch from a cold network file system takes a minute


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `harness doctor`."""

    name: str
    level: str  # OK | WARN (look at it) | FAIL (something will not work)
    says: str
    mend: str = ""  # what to do about it; empty where there is nothing to do

    def __post_init__(self) -> None:
        for name in ("says", "mend"):
            object.__setattr__(self, name, printable(masked(getattr(self, name))))


class ProgramError(Exception):
    """A program gave no answer; the message says why, in one line."""


def answer_of(
    command: Sequence[str], limit_s: float, environment: Mapping[str, str | None] | None = None
) -> str:
    """The standard output of a program. `environment`: what is other than here; None: not set.

    Raises:
        ProgramError: it is not there, took longer than `limit_s` seconds, or ended with another code than 0.
    """
    name = Path(command[0]).name
    try:
        process = subprocess.Popen(  # noqa: S603  an argument list, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(environment or {}),
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramError(f"{name} cannot be started: {error.strerror or error}") from None
    try:
        output, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        _end(process)
        raise ProgramError(f"{name} gave no answer within {limit_s:g} s") from None
    if process.returncode != 0:
        raise ProgramError(last_line(errors or output) or f"{name} ended with code {process.returncode}")
    return output


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    found = {**os.environ, **changes}
    return {name: value for name, value in found.items() if value is not None}


def _end(process: subprocess.Popen[str]) -> None:
    """With all that it started; one that does not even die is left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)


def probe(name: str, *, limit_s: float = PROBE_LIMIT_S, **environment: str) -> dict[str, Any]:
    """What a function of `probes` says in a process of its own, so that no import can end or hang this one.

    Raises:
        ProgramError: it says nothing, or not in time.
    """
    path = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-m", "harness.commands.probes", name]
    output = answer_of(command, limit_s, {"PYTHONPATH": path, **environment})
    facts: dict[str, Any] = json.loads(output.splitlines()[-1])
    if "error" in facts:
        raise ProgramError(facts["error"])
    return facts


def last_line(text: str) -> str:
    """The last line with something in it: where a traceback has its message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return masked(lines[-1]) if lines else ""


# Python, torch and its GPUs, typst, and the environment variables that the harness reads.


FIRST_PYTHON = (3, 11)
VARIABLES = {  # what the harness reads or sets -> what it is
    "HARNESS_RUNS": "the run folders",
    "HARNESS_DATA": "your data sets",
    "HARNESS_CACHE": "what is known of your data files and of this machine",
    "HARNESS_SHARED_MEMORY": "the share of free memory for decoded images; 0: none",
    "HARNESS_MEASURE": "0: never measure what a step takes here",
    "HARNESS_GRAPHS": "0: never record a step of a GPU and replay it",
    "HARNESS_STORE": "set by the harness for the processes of one run",
    "HARNESS_ORDERS": "set by the harness in a job of several nodes",
    "HARNESS_SEED": "set by the harness for a script",
    "HARNESS_FOLDER": "set by the harness for a script",
}
NEEDED_PER_CORE_GB = 1.0  # of a small run's worker, torch included
DRIVER = Path("/proc/driver/nvidia/version")
MEMORY = Path("/proc/meminfo")
CPU = Path("/proc/cpuinfo")
HALF = "emulated on a CPU, at 1.0 to 1.3 times the cost of fp32"
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def python(_place: Workspace) -> Iterator[Finding]:
    """The interpreter and this package."""
    says = f"{platform.python_version()} with harness {__version__} ({sys.executable})"
    if sys.version_info < FIRST_PYTHON:
        wanted = ".".join(map(str, FIRST_PYTHON))
        yield Finding("python", FAIL, says, f"install Python {wanted} or newer")
    else:
        yield Finding("python", OK, says)


def torch(_place: Workspace) -> Iterator[Finding]:
    """torch and torchvision, whether they fit each other, and every GPU with a computation on it."""
    try:
        facts = probe("torch")
    except ProgramError as error:
        yield Finding("torch", FAIL, str(error), "pip install --force-reinstall torch torchvision")
        return
    yield versions(facts)
    driver = re.search(r"Kernel Module\D*([\d.]+)", DRIVER.read_text()) if DRIVER.exists() else None
    yield from gpus(facts, driver[1] if driver else None)


def versions(facts: Mapping[str, Any]) -> Finding:
    """torch 2.N is made together with torchvision 0.(N + 15)."""
    says = f"{facts['torch']} with torchvision {facts['torchvision']}"
    if facts["torchvision_error"]:
        mend = "pip install --force-reinstall torch torchvision"
        return Finding("torch", FAIL, f"{facts['torch']}; torchvision: {facts['torchvision_error']}", mend)
    major, minor = (int(part) for part in facts["torch"].split(".")[:2])
    if major == 2 and facts["torchvision"].split(".")[:2] != ["0", str(minor + 15)]:
        pair = f"torchvision 0.{minor + 15}"
        return Finding("torch", WARN, says, f"they are not a pair: torch {major}.{minor} goes with {pair}")
    return Finding("torch", OK, f"{says} on Python {platform.python_version()}")


def gpus(facts: Mapping[str, Any], driver: str | None) -> Iterator[Finding]:
    """What torch can compute with.

    Args:
        facts: of `probes.torch`.
        driver: version of the NVIDIA driver, or None where there is none.
    """
    if not facts["gpus"]:
        if driver is None:
            yield Finding("gpu", OK, "none; runs train on the CPU")
        elif facts["cuda"] is None:
            mend = "install a CUDA build of torch to use the GPU"
            yield Finding("gpu", WARN, f"driver {driver}, but torch was built without CUDA", mend)
        else:
            mend = "update the driver, look at CUDA_VISIBLE_DEVICES, or ask nvidia-smi"
            says = f"driver {driver}, but torch (CUDA {facts['cuda']}) finds no GPU it can use"
            yield Finding("gpu", WARN, says, mend)
    for index, gpu in enumerate(facts["gpus"]):
        about = f"cuda:{index} is {gpu['name']}, {gpu['memory_gb']:.0f} GB; "
        about += f"CUDA {facts['cuda']}, driver {driver or 'unknown'}"
        if gpu["error"]:
            mend = "install a torch built for this GPU and driver, or free the GPU"
            yield Finding("gpu", FAIL, f"{about}; a sum on it fails: {gpu['error']}", mend)
        else:
            yield Finding("gpu", OK, about)


def kernels(_place: Workspace) -> Iterator[Finding]:
    """Which of this CPU's kernels are wrong, as far as layers were examined, and what is done about it."""
    try:
        facts = probe("kernels")
    except ProgramError as error:
        yield Finding("kernels", WARN, f"not checked: {error}", "runs say in env.json whether theirs were")
        return
    if facts["unchecked"]:
        yield Finding("kernels", WARN, f"not checked: {facts['unchecked'][0]}")
        return
    wrong: Mapping[str, str] = facts["wrong"]
    many = len(wrong) or "none"
    says = f"{facts['known']} kinds of layers examined on this CPU, {many} computed wrongly by torch"
    refused = [layer for layer, form in wrong.items() if not form]
    listed = "; ".join(f"{layer}: {form or 'no form is exact'}" for layer, form in wrong.items())
    if refused:
        yield Finding(
            "kernels",
            WARN,
            f"{says} ({listed})",
            "networks with a layer of which no form is exact are refused",
        )
    elif wrong:
        yield Finding("kernels", OK, f"{says}; a safer form is used ({listed})")
    else:
        yield Finding("kernels", OK, says)


def cores_and_memory(_place: Workspace) -> Iterator[Finding]:
    """What this process may use, which in a container or a Slurm job is less than the machine has."""
    cores, memory_gb = available_cores(), _memory_gb()
    if memory_gb is None:
        yield Finding("machine", OK, f"{cores} cores")
        return
    says = f"{cores} cores, {memory_gb:.1f} GB of memory available"
    if memory_gb < NEEDED_PER_CORE_GB * cores:
        fit = max(1, int(memory_gb / NEEDED_PER_CORE_GB))
        yield Finding("machine", WARN, says, f"a worker needs about 1 GB: use --workers {fit}")
    else:
        yield Finding("machine", OK, says)


def speed(_place: Workspace) -> Iterator[Finding]:
    """What makes runs, or this command line, slower here than they need be."""
    found = list(_slow(os.environ, CPU.read_text() if CPU.exists() else "", available_cores()))
    yield from found
    if not found:
        yield Finding("speed", OK, f"nothing known slows runs here; half precision is {HALF}")


def _slow(environment: Mapping[str, str], cpu: str, cores: int) -> Iterator[Finding]:
    """
    Args:
        cpu: /proc/cpuinfo; empty where there is none, and then nothing is said of the processor.
    """
    flags = set(next((line for line in cpu.splitlines() if line.startswith("flags")), "").split())
    if flags and "avx2" not in flags:
        says = "this CPU has no AVX2: convolutions run several times slower than on most machines"
        yield Finding("speed", WARN, says, "use a CPU of after 2015 or a GPU for more than `--smoke`")
    for name in CAPS:
        if name in environment:
            says = f"{name}={environment[name]} caps the instructions that torch may use"
            yield Finding("speed", WARN, says, f"unset {name}, unless you test for another machine")
    if cores == 1:
        yield Finding("speed", WARN, "1 core: runs train one after another", "give it more cores")
    if environment.get("PYTHONDONTWRITEBYTECODE"):
        says = "PYTHONDONTWRITEBYTECODE is set: every command compiles its imports again"
        yield Finding("speed", WARN, says, "unset it")
    if environment.get(MEASURE) == "0":
        says = f"{MEASURE}=0: plans do not measure what a step takes here, and may say no seconds"
        yield Finding("speed", WARN, says, f"unset {MEASURE}")


def _memory_gb() -> float | None:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", MEMORY.read_text())
        limit = CGROUP_MEMORY.read_text().strip() if CGROUP_MEMORY.exists() else "max"
    except OSError:
        return None
    amounts = [int(found[1]) / 2**20] if found else []
    amounts += [int(limit) / 2**30] if limit.isdecimal() else []
    return min(amounts, default=None)


def typesetting(_place: Workspace) -> Iterator[Finding]:
    """Whether report.pdf can be made, in its own font."""
    try:
        facts = probe("typst")
    except ProgramError as error:
        yield Finding("pdf", FAIL, str(error), "pip install --force-reinstall typst")
        return
    if not (facts["pdf"] and facts["font"]):
        mend = "pip install --force-reinstall typst: its own fonts are missing"
        yield Finding("pdf", WARN, f"typst {facts['typst']} sets pages in another font", mend)
    else:
        yield Finding("pdf", OK, f"typst {facts['typst']} with its own fonts")


def environment(_place: Workspace) -> Iterator[Finding]:
    """Variables that are set; one that nothing reads is a misspelling. No command loads a study while one is
    wrong."""
    names = sorted(name for name in os.environ if name.startswith("HARNESS_"))
    for name in names:
        if name not in VARIABLES:
            yield Finding("environment", WARN, f"{name} is set, and nothing reads it", _nearest(name))
    for name, says in wrong_variables().items():
        yield Finding("environment", FAIL, says, f"set it to such a value, or unset {name}")
    read = [name for name in (*names, "MLFLOW_TRACKING_URI") if name in os.environ and name not in _ignored()]
    values = ", ".join(f"{name}={masked(os.environ[name])}" for name in read)
    yield Finding("environment", OK, values or "no HARNESS_ variable is set")


def _ignored() -> set[str]:
    return {name for name in os.environ if name.startswith("HARNESS_") and name not in VARIABLES}


def _nearest(name: str) -> str:
    return unknown("variable", name, VARIABLES)


# The runs folder: room, what its file system promises, its clock, and who may read submissions.


GB = 2**30
LITTLE_GB, TOO_LITTLE_GB = 10.0, 1.0
FEW_FILES = 50_000
RACERS, RACES = 8, 20
SKEW_S = 2.0
SLOW_FSYNC_S = 0.5
STEPS = 3
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
    # A process that was held up between two looks has seen a long step, on any file system.
    step_s = min(_step_s(path) for _ in range(STEPS))
    if step_s <= COARSE_S:
        return Finding("beat", OK, f"times of change move in steps of {step_s * 1000:.1f} ms or less")
    mend = "a living run could be taken for dead: keep the run folders on another file system"
    return Finding("beat", WARN, f"times of change move in steps of {step_s:.0f} s or more", mend)


def _step_s(path: Path) -> float:
    """How far the time of change moves when it moves next; `COARSE_S` and a second where it does not."""
    first, start_s = path.stat().st_mtime_ns, time.monotonic()
    while time.monotonic() - start_s < COARSE_S + 1.0:
        os.utime(path)
        if (step_ns := path.stat().st_mtime_ns - first) > 0:
            return step_ns / 1e9
        time.sleep(0.001)
    return COARSE_S + 1.0


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
    skew_s = skew_of(scratch)
    if abs(skew_s) <= SKEW_S:
        return Finding("clock", OK, f"the file system's is within {SKEW_S:g} s of this machine's")
    says = f"the file system's is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
    return Finding("clock", WARN, says, "synchronise the clocks (NTP): times in logs will not agree")


def skew_of(folder: Path) -> float:
    """Seconds that the clock of the folder's file server is ahead of this machine's: outside of the time that
    the touch took, which is long on a busy machine or mount."""
    path = folder / f"now-{socket.gethostname()}"
    before_s = time.time()
    path.touch()
    after_s, touched_s = time.time(), path.stat().st_mtime
    return touched_s - min(max(touched_s, before_s), after_s)


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
