"""With which code, on which data and on what machine a run was made; the code of a submission, frozen."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.runs.folder import PREFIX, RunFolder, read_json, write_bytes, write_json
from harness.spec import DataSpec, ScriptPlace, canonical_json, sha256_of
from harness.study.plan import Plan

# With which code and on which data a run was made, and the code of a submission, frozen.


# Which version of the harness this is: the commit of its checkout, or what a snapshot of it says.


CHANGES_FOLDER = ".changes"  # in the folder of runs: <sha256>.patch
LONGEST_CHANGES = 1 << 20  # bytes
HEX = r"[0-9a-f]{64}"
SNAPSHOT_FILE = "source.json"  # beside the package in a snapshot, in it in a wheel: {"commit", "dirty"}


def code_version(root: Path) -> dict[str, Any]:
    """{"commit", "dirty"} of the folder that holds the package: its commit, and whether files differ from it.

    An installed package says which it was built from. Both are None where nothing does.
    """
    said = read_json(root / SNAPSHOT_FILE)
    if said is None and not (root / ".git").exists():
        said = read_json(root / package().name / SNAPSHOT_FILE)
    if said is not None:
        return {"commit": said.get("commit"), "dirty": said.get("dirty")}
    commit = git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = git(root, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "commit": commit.strip() if commit else None,
        "dirty": None if changed is None else bool(changed.strip()),
    }


def changes(root: Path) -> str:
    """What the files of the checkout have changed since its commit, as a patch; empty outside a checkout."""
    return (git(root, "diff", "HEAD") or "") if (root / ".git").exists() else ""


def changes_digest(root: Path) -> str | None:
    """sha256 of that patch; None where there is none."""
    text = changes(root)
    return sha256_of(text.encode(errors="surrogateescape")) if text else None


def keep_changes(runs_dir: Path, root: Path) -> None:
    """Keep that patch beside the runs under its digest, unless it is there, or too long for a report."""
    data = changes(root).encode(errors="surrogateescape")
    path = runs_dir / CHANGES_FOLDER / f"{sha256_of(data)}.patch"
    if data and len(data) <= LONGEST_CHANGES and not path.exists():
        write_bytes(path, data)


def kept_changes(runs_dir: Path, digests: Iterable[str]) -> dict[str, str]:
    """Digest -> patch, of those that were kept and are still what their digest says."""
    found = {}
    for digest in digests:
        path = runs_dir / CHANGES_FOLDER / f"{digest}.patch"
        data = path.read_bytes() if re.fullmatch(HEX, digest) and path.is_file() else b""
        if data and sha256_of(data) == digest:
            found[digest] = data.decode(errors="surrogateescape")
    return found


def git(root: Path, *words: str) -> str | None:
    """What git prints about a folder; None where it cannot be asked. Never writes, not even git's index."""
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603 (a fixed command)
            ["git", "--no-optional-locks", "-C", str(root), *words],  # noqa: S607
            capture_output=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="surrogateescape")


# Of a script of the user's: what its repository tracks, and where its commands are executed here.
#
# runs/.scripts/<arm_id>.json   `spec.ScriptPlace`: folders and files of this machine, no part of the identity


PLACES_FOLDER = ".scripts"  # in the folder of runs
_IS_STUDY = r"(?ms)^study\s*:.*^tables\s*:"


def script_code(script: Path, study: Path) -> tuple[str | None, str | None]:
    """The top of a script's git repository, and `tracked_digest` without the studies beside this one: a row
    more in one of them makes no other code. (None, None) where there is no repository, or no git."""
    top = next((each for each in script.resolve().parents if (each / ".git").exists()), None)
    if top is None:
        return None, None
    beside = [study, *study.parent.glob("*.yaml"), *study.parent.glob("*.yml")]
    return str(top), tracked_digest(top, {path for path in beside if path == study or _is_study(path)})


def _is_study(path: Path) -> bool:
    try:
        return re.search(_IS_STUDY, path.read_text()) is not None
    except (OSError, ValueError):
        return False


def tracked_digest(top: Path, leave_out: Iterable[Path] = ()) -> str | None:
    """sha256 over the names and contents of all files that a repository tracks, as they are on the disk: the
    same before and after they are committed. None where git cannot be asked."""
    listed = git(top, "ls-files", "-s", "-z")
    touched = git(top, "diff-files", "--name-only", "-z")
    if listed is None or touched is None:
        return None
    pairs = (line.partition("\t") for line in listed.split("\0") if line)
    entries = {name: about for about, _, name in pairs}
    for name in filter(None, touched.split("\0")):
        path = top / name
        if path.is_dir():  # a submodule
            entries[name] = f"160000 {git(path, 'rev-parse', 'HEAD')}"
        elif os.path.lexists(path):
            mode = entries[name].split()[0] if name in entries else ""
            entries[name] = f"{mode} {(git(top, 'hash-object', '--', str(path)) or '').strip()} 0"
        else:
            entries.pop(name, None)
    for path in leave_out:
        with contextlib.suppress(ValueError):
            entries.pop(path.resolve().relative_to(top).as_posix(), None)
    return sha256_of(canonical_json(entries).encode())


def keep_places(runs_dir: Path, places: Mapping[str, ScriptPlace]) -> None:
    """Write down where the commands of these arms are executed, for the processes that do it."""
    for arm_id, place in places.items():
        path, data = runs_dir / PLACES_FOLDER / f"{arm_id}.json", dataclasses.asdict(place)
        try:
            is_known = read_json(path) == json.loads(json.dumps(data))
        except (OSError, ValueError):
            is_known = False
        if not is_known:
            write_json(path, data)
        mark = runs_dir / PLACES_FOLDER / place.command_id / arm_id
        if place.command_id and not mark.exists():
            mark.parent.mkdir(exist_ok=True)
            mark.touch()


def arms_of_command(runs_dir: Path, command_id: str) -> list[str]:
    """The arms that were to execute it here: more than one where a study reads its results otherwise now."""
    folder = runs_dir / PLACES_FOLDER / command_id
    return sorted(path.name for path in folder.iterdir()) if command_id and folder.is_dir() else []


def read_place(runs_dir: Path, arm_id: str) -> ScriptPlace:
    """
    Raises:
        ValueError: it is not there, or damaged.
    """
    path = runs_dir / PLACES_FOLDER / f"{arm_id}.json"
    try:
        found = dict(read_json(path) or {})
        return ScriptPlace(**{**found, "resume": tuple(found["resume"])})
    except (OSError, ValueError, TypeError, KeyError):
        text = f"{path} does not say where its command is executed"
        raise ValueError(f"{text}; `harness run` of its study writes it again") from None


# Files of weights that runs start from: runs/.weights/<sha256> says where one is on this machine.


WEIGHTS_FOLDER = ".weights"


def keep_weights(runs_dir: Path, files: Mapping[str, str]) -> None:
    """Write down where the files of this content are, for the processes that train."""
    for sha256, file in files.items():
        path = runs_dir / WEIGHTS_FOLDER / sha256
        if not path.exists() or path.read_bytes() != os.fsencode(file):
            write_bytes(path, os.fsencode(file))


def weights_file(runs_dir: Path, sha256: str) -> Path:
    """Where the file of this content was when the run was planned.

    Raises:
        OSError: nobody has said so.
    """
    return Path(os.fsdecode((runs_dir / WEIGHTS_FOLDER / sha256).read_bytes()))


# The code of a submission, frozen: jobs that wait for days run what they were submitted with.
#
# runs/.code/<sha256>/harness/...   the package as it was; named by its content, so the same code is kept
# once
#                     source.json   {"commit", "dirty"}


FOLDER = ".code"  # in the folder of runs
LEFT_OUT = "__pycache__"


def package() -> Path:
    """The folder of the `harness` package that this process runs."""
    return Path(__file__).resolve().parents[1]


def take_snapshot(runs_dir: Path, source: Path) -> Path:
    """The folder that holds a copy of the package; nothing is copied where it is there already.

    A copy that is no longer what its name says (a disk that lost files) is put aside and made again.
    """
    path = snapshot_path(runs_dir, source)
    if not path.exists():
        return _copy(source, runs_dir)
    if _is_whole(path, source.name):
        return path
    path.rename(path.with_name(f"{path.name}.damaged.{os.urandom(4).hex()}"))
    return _copy(source, runs_dir)


def snapshot_path(runs_dir: Path, source: Path) -> Path:
    """Where the snapshot of a package is or will be. Another user's folder is not trusted with our code."""
    name = digest(source)
    path = runs_dir / FOLDER / name
    if path.exists() and path.stat().st_uid != os.getuid():
        path = path.with_name(f"{name}-{os.getuid()}")
    return path


def digest(source: Path) -> str:
    """sha256 over the names and bytes of all files of a package."""
    import hashlib

    total = hashlib.sha256()
    for file in _files(source):
        content = file.read_bytes()
        total.update(f"{file.relative_to(source).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def _is_whole(path: Path, package_name: str) -> bool:
    return (path / package_name).is_dir() and digest(path / package_name) == path.name.partition("-")[0]


def _copy(source: Path, runs_dir: Path) -> Path:
    """Copy beside, then rename. Named by what was copied: files may change while they are read."""
    import shutil

    draft = runs_dir / FOLDER / f".{os.urandom(8).hex()}.draft"
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.mkdir(mode=0o700)
    try:
        for file in _files(source):
            copy = draft / source.name / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        write_json(draft / SNAPSHOT_FILE, code_version(source.parent))
        path = snapshot_path(runs_dir, draft / source.name)
        try:
            draft.rename(path)
        except OSError:
            if not path.exists():  # else another submission was quicker with the same
                raise
        return path
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _files(source: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if name != LEFT_OUT]
        found += [Path(folder, name) for name in names]
    return sorted(found)


# Records of one run on different data: which of them counts, and where the others are kept.
#
# runs/<run_id>/other_data/<16 characters of the data's fingerprint>/    what the run left behind on those
# data
#
# A run's identity holds no data, only their name: paths and contents are a machine's. So a record says
# which data it saw (`data_fingerprint`), and one that saw others than are there now is set aside, whole,
# and put back when its data come back. Whoever moves a record holds the run's claim (`run_claims`) or its
# lock.


OTHER_DATA = "other_data"
SHOWN = 16  # characters of a fingerprint in the name of a folder
STAYS = frozenset({OTHER_DATA, "lock", "cancel", "spec.json", "summary.json"})  # the last is moved at the end

Known = Mapping[str, str | None]
"""Key of data (`data_key`) -> the fingerprint of what is there now; None: not known here."""


def data_key(spec: DataSpec) -> str:
    """Which data of this machine an arm sees; the resolution is not part of it."""
    counts = [spec.train_images, spec.test_images]
    return canonical_json({"name": spec.name, "args": dict(spec.args), "counts": counts})


def data_name(spec: DataSpec) -> str:
    """As a person calls it.

    >>> data_name(DataSpec(name="imagefolder", resolution=16, args={"folder": "pets", "side": None}))
    'imagefolder pets'
    """
    place = spec.args.get("folder") or spec.args.get("file")
    return f"{spec.name} {place}" if isinstance(place, str) and place else spec.name


def set_aside(folder: RunFolder, fingerprint: str) -> None:
    """Move what the run left behind to where records on these data are kept. The caller holds the run.

    Stopped on the way, it is done to the end by the next call: the summary goes last, so that the run counts
    as ended, on other data, until everything has been moved.
    """
    import shutil

    aside = folder.path / OTHER_DATA / fingerprint[:SHOWN]
    aside.mkdir(parents=True, exist_ok=True)
    if folder.spec.exists():
        shutil.copyfile(folder.spec, aside / "spec.json")
    for path in sorted(folder.path.iterdir()):
        if path.name not in STAYS and not path.name.startswith((PREFIX, ".")):
            _move(path, aside / path.name)
    if folder.summary.exists():
        _move(folder.summary, aside / "summary.json")


def kept_on(folder: RunFolder, fingerprint: str) -> dict[str, Any] | None:
    """The summary of the record on these data that was set aside; None: there is none that can be read."""
    try:
        found = read_json(folder.path / OTHER_DATA / fingerprint[:SHOWN] / "summary.json")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("data_fingerprint") == fingerprint else None


def put_back(folder: RunFolder, fingerprint: str) -> bool:
    """The record on these data in its old place; False: there is none. The caller holds the run, whose other
    record was set aside."""
    aside = folder.path / OTHER_DATA / fingerprint[:SHOWN]
    if not (aside / "summary.json").exists():
        return False
    for path in sorted(aside.iterdir()):
        if path.name not in ("spec.json", "summary.json"):
            _move(path, folder.path / path.name)
    _move(aside / "summary.json", folder.summary)
    import shutil

    shutil.rmtree(aside, ignore_errors=True)
    return True


def _move(path: Any, target: Any) -> None:
    if target.is_dir():
        import shutil

        shutil.rmtree(target)
    path.replace(target)


def built_on(needed: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """What a run's record says of the data of runs that it builds on, and of those that these build on.

    >>> built_on([("b", {"data_fingerprint": "2", "built_on": "a=1"})])
    'a=1 b=2'
    """
    found: dict[str, str] = {}
    for run_id, summary in needed:
        found |= _pairs(summary.get("built_on"))
        found[run_id] = str(summary.get("data_fingerprint"))
    return " ".join(f"{run_id}={found[run_id]}" for run_id in sorted(found))


def _pairs(text: Any) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in str(text or "").split())
    return {run_id: fingerprint for run_id, _, fingerprint in pairs if fingerprint}


def outdated(plan: Plan, records: Mapping[str, Mapping[str, Any]], now: Known) -> dict[str, str]:
    """run_id -> key of the data that are others now, for the runs whose record must not be used.

    records: run_id -> `data_fingerprint`, `ended_s` and, where it builds on others, `built_on`, of runs that
    have ended.
    now: where it does not know the data, the ones count that the run saw which ended last.
    """
    keys = keys_of(plan)
    current = {**newest(keys, records), **{key: found for key, found in now.items() if found}}
    wrong: dict[str, str] = {}
    for run_id, record in records.items():
        key = keys.get(run_id)
        if key is None or not record.get("data_fingerprint"):
            continue  # a record of no data, from a test or a very old version, is told from nothing
        if record["data_fingerprint"] != current[key]:
            wrong[run_id] = key
        elif record.get("built_on") and (changed := changed_below(record, keys, current)) is not None:
            wrong[run_id] = changed
    return wrong


def changed_below(record: Mapping[str, Any], keys: Mapping[str, str], now: Known) -> str | None:
    """The key of data that changed since a run saw them on which this one builds; None: none did."""
    for run_id, fingerprint in _pairs(record.get("built_on")).items():
        key = keys.get(run_id, "")
        if fingerprint != (now.get(key) or fingerprint):
            return key
    return None


def keys_of(plan: Plan) -> dict[str, str]:
    """run_id -> key of the data that it sees."""
    by_arm = keys_by_arm(plan)
    return {run.run_id: by_arm[run.arm_id] for run in plan.runs if run.arm_id in by_arm}


def keys_by_arm(plan: Plan) -> dict[str, str]:
    """arm_id -> key of the data that it sees."""
    shared = {id(arm.recipe.data): arm.recipe.data for arm in plan.arms.values()}
    keys = {each: data_key(data) for each, data in shared.items()}
    return {arm_id: keys[id(arm.recipe.data)] for arm_id, arm in plan.arms.items()}


def data_of(plan: Plan) -> dict[str, DataSpec]:
    """Key of data -> the data, of all arms."""
    shared = {id(arm.recipe.data): arm.recipe.data for arm in plan.arms.values()}
    return {data_key(data): data for data in shared.values()}


def newest(keys: Mapping[str, str], records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Key of data -> the fingerprint that the record has which ended last."""
    last: dict[
        str, tuple[float, str]
    ] = {}  # key -> when it ended, and the run's name where two ended at once
    for run_id, record in records.items():
        key = keys.get(run_id)
        if key is not None and record.get("data_fingerprint"):
            ended = (record.get("ended_s") or 0.0, run_id)
            if key not in last or ended > last[key]:
                last[key] = ended
    return {key: str(records[run_id]["data_fingerprint"]) for key, (_, run_id) in last.items()}


# What this machine is, read from the system; None where it does not tell. Does not import torch.


DRIVER = Path("/sys/module/nvidia/version")


def describe_hardware() -> dict[str, Any]:
    """Keys: cpu (product name), cores (that this process may use), cores_of_machine, memory_gb (10^9 bytes),
    os, driver (of NVIDIA GPUs)."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores_of_machine": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "os": _os_name(),
        "driver": _first_line(DRIVER),
    }


@functools.cache
def cpu_name() -> str:
    """The processor's product name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return os.uname().machine
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, os.uname().machine)


DEVICE_FILES = Path("/dev")


def detect_devices(
    environment: Mapping[str, str] = os.environ, device_files: Path = DEVICE_FILES
) -> tuple[str, ...]:
    """("cuda:0", "cuda:1", ...) for the NVIDIA GPUs this process may use, or ("cpu",).

    CUDA_VISIBLE_DEVICES is read as the driver reads it: the list ends at the first entry that is no device.
    """
    present = [file for file in device_files.glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)]
    count = len(present)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and count:
        count = _leading_valid(visible.split(","), count)
    return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)


def wrong_visible(environment: Mapping[str, str] = os.environ, device_files: Path = DEVICE_FILES) -> str:
    """What is wrong with CUDA_VISIBLE_DEVICES: the driver ends its list without a word at a number that no
    device has. Empty where it is right; "" and -1 mean none on purpose."""
    count = len([file for file in device_files.glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)])
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    entries = [entry.strip() for entry in visible.split(",")]
    valid = _leading_valid(entries, count)
    if not count or valid == len(entries) or entries[valid] in ("", "-1"):
        return ""
    there = "GPU 0 alone" if count == 1 else f"GPUs 0 to {count - 1}"
    return f"'{visible}' names {entries[valid]}, and this machine has {there}; -1 trains on the CPU"


def _leading_valid(entries: Sequence[str], present: int) -> int:
    """How many entries come before the first that is no device. Names (GPU-..., MIG-...) are believed."""
    for position, entry in enumerate(entry.strip() for entry in entries):
        is_name = entry.startswith(("GPU-", "MIG-"))
        if not is_name and not (entry.isdecimal() and int(entry) < present):
            return position
    return len(entries)


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (ValueError, OSError):
        return None


def _os_name() -> str:
    import platform

    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
