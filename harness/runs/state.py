"""The state of every run of a plan, what is done already, and how long the rest will take."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import mutable, printable
from harness.runs import records
from harness.runs.folder import (
    CANCELLED,
    MISSING,
    PREFIX,
    RUNNING,
    STOPPED,
    Holder,
    RunFolder,
    holder_of,
    is_locked,
    newest_of,
    read_json,
    write_json,
)
from harness.runs.records import Specs, is_count, parsed, read_quickly, reason
from harness.spec import FAILED, FINISHED
from harness.study import declaration
from harness.study.declaration import HASH_SHOWN
from harness.study.expand import grow
from harness.study.plan import Plan, PlannedRun

# The recorded declarations of a study: numbered files, written once, never changed.
#
# runs/.studies/<study>-<size>[-smoke]/declaration.1.json, declaration.2.json, ...
#
# Each: {schema, time (UTC), harness, commit, dirty, runs, ended, seen, plan_hash, declaration}. `ended` of
# `runs` planned runs had ended when it was recorded; `seen` counts further ended runs, of recipes that an
# earlier declaration names.


FOLDER = ".studies"  # in the folder of runs
TIME = "%Y-%m-%dT%H:%M:%SZ"
KEYS = ("time", "harness", "commit", "dirty", "runs", "ended", "seen", "plan_hash", "declaration")


def study_folder(runs_dir: Path, plan: Plan) -> Path:
    """What is kept beside the runs about one study at one size; it may not be there."""
    suffix = "-smoke" if plan.header["smoke"] else ""
    return runs_dir / FOLDER / f"{plan.study}-{plan.size}{suffix}"


def read_history(folder: Path) -> dict[str, Any] | None:
    """{schema, problem, declarations (oldest first)}; None where nothing was recorded. Never writes.

    `problem` says in words what is wrong with a file; the declarations before it are there. It is None
    where every file is as it was written.
    """
    declarations: list[Mapping[str, Any]] = []
    problem = None
    for number, path in enumerate(_files(folder), start=1):
        found = "is missing" if path is None else _read(path)
        if isinstance(found, str):
            problem = f"declaration.{number}.json {found}"
            break
        declarations.append(found)
    if not declarations and problem is None:
        return None
    return {"schema": declaration.DECLARATION_SCHEMA, "problem": problem, "declarations": declarations}


def write_declaration(folder: Path, number: int, entry: Mapping[str, Any]) -> bool:
    """Record one, whole or not at all. False: another process has recorded that number."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"declaration.{number}.json"
    draft = folder / f".declaration.{os.uname().nodename}.{os.getpid()}.draft"
    data = (
        json.dumps({"schema": declaration.DECLARATION_SCHEMA, **entry}, indent=1, sort_keys=True) + "\n"
    ).encode()
    try:
        _write(draft, data, os.O_TRUNC)
        try:
            os.link(draft, path)  # whole and exclusive, on NFS too
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return _write_new(path, data)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _write_new(path: Path, data: bytes) -> bool:
    try:
        _write(path, data, os.O_EXCL)
    except FileExistsError:
        return False
    return True


def _write(path: Path, data: bytes, how: int) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | how, 0o644), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _files(folder: Path) -> list[Path | None]:
    """By number from 1; None where one is missing below the highest."""
    found = {}
    for path in folder.glob("declaration.*.json"):
        number = path.name.split(".")[1]
        if number.isascii() and number.isdigit() and len(number) < 10 and int(number) > 0:
            found[int(number)] = path
    if not found:
        return []
    if max(found) > 2 * len(found) + 1:  # a name such as declaration.999999999.json is nobody's count
        return [found.get(number) for number in range(1, len(found) + 2)]
    return [found.get(number) for number in range(1, max(found) + 1)]


def _read(path: Path) -> Mapping[str, Any] | str:
    """The record, or what is wrong with it."""
    try:
        entry = parsed(read_quickly(path))
    except (OSError, ValueError) as error:
        return f"is damaged: {reason(error)}"
    return checked(entry)


def checked(entry: Any) -> Mapping[str, Any] | str:
    """What a record holds, or what is wrong with it, in words."""
    try:
        if entry["schema"] != declaration.DECLARATION_SCHEMA:
            return f"is of schema {entry['schema']!r}; this version reads {declaration.DECLARATION_SCHEMA}"
        found = {key: entry[key] for key in ("schema", *KEYS)}
        counts = all(type(found[key]) is int and found[key] >= 0 for key in ("runs", "ended", "seen"))
        if not counts:
            return "is damaged: a count of runs is no whole number"
        datetime.strptime(found["time"], TIME)
        declaration.amendments(found["declaration"], found["declaration"])  # every key is there
        declaration.contrasts(found["declaration"])
        own = declaration.plan_hash(found["declaration"])
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        why = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        return f"is damaged: {why}"
    if own != found["plan_hash"]:
        said = str(found["plan_hash"])[:HASH_SHOWN]
        return f"was changed by hand: what it declares has the hash {own[:HASH_SHOWN]}, it says {said}"
    return found


def wrong_with(history: Any) -> str | None:
    """What is wrong with a history that was read from a report's folder; None: nothing."""
    try:
        problem, entries = history["problem"], list(history["declarations"])
    except (KeyError, TypeError) as error:
        return f"is damaged: {error}"
    if not (problem is None or isinstance(problem, str)) or not (entries or problem):
        return "is damaged: it declares nothing"
    found = [checked(entry) for entry in entries]
    return next(
        (f"declaration {number} {text}" for number, text in enumerate(found, 1) if isinstance(text, str)),
        None,
    )


# Where an adaptive study stands: runs/.studies/<study>-<size>/blocks.json.
#
# `harness run` writes it after each look at the results; plan, status, report and the others read it, so
# that they show the same runs without computing anything. It holds nothing that the run folders do not
# imply: where it is missing, damaged, or of a study that was edited since, the plan is that of the first
# look, and the next `harness run` looks again.
#
#     plan_hash   of the declaration for which it was written
#     looks       [{seeds, settled, comparisons, says}], in the order in which they were taken
#     arm_seeds   {arm_id: seeds planned by now}, of every arm


FILE = "blocks.json"


class LookRecord(NamedTuple):
    """What was seen at one look, for people."""

    seeds: int  # per arm that was still open
    settled: int  # comparisons
    comparisons: int
    says: str


class Blocks(NamedTuple):
    """What the file says of a plan."""

    arm_seeds: Mapping[str, int]
    looks: tuple[LookRecord, ...]


def read_blocks(runs_dir: Path, plan: Plan) -> Blocks | None:
    """What was decided for this plan; None where nothing was, or for another study of that name."""
    try:
        data = read_json(_path(runs_dir, plan))
        if data is None or data["plan_hash"] != _hash(plan):
            return None
        arm_seeds = {str(arm_id): int(seeds) for arm_id, seeds in data["arm_seeds"].items()}
        looks = tuple(LookRecord(**look) for look in data["looks"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not all(_is_right(look) for look in looks):
        return None
    fits = arm_seeds.keys() == plan.all_arms.keys() and set(arm_seeds.values()) <= set(plan.looks)
    return Blocks(arm_seeds=arm_seeds, looks=looks) if fits else None


def _is_right(look: LookRecord) -> bool:
    return all(map(is_count, (look.seeds, look.settled, look.comparisons))) and isinstance(look.says, str)


def as_it_stands(plan: Plan, runs_dir: Path) -> Plan:
    """The plan of the first look, grown to where `harness run` has come by now. Writes nothing."""
    blocks = read_blocks(runs_dir, plan) if plan.is_adaptive else None
    return grow(plan, blocks.arm_seeds) if blocks else plan


def write_blocks(runs_dir: Path, plan: Plan, looks: Sequence[LookRecord]) -> None:
    """Keep where the plan stands. What another `harness run` of the study decided meanwhile is kept too.

    looks: those that were taken; one with the same seeds takes the place of the one before.
    """
    known = read_blocks(runs_dir, plan)
    arm_seeds = {arm_id: len(plan.seeds_of(arm_id)) for arm_id in plan.all_arms}
    if known is not None:
        arm_seeds = {arm_id: max(seeds, known.arm_seeds[arm_id]) for arm_id, seeds in arm_seeds.items()}
    taken = {look.seeds: look for look in (*(known.looks if known else ()), *looks)}
    data = {
        "plan_hash": _hash(plan),
        "looks": [taken[seeds]._asdict() for seeds in sorted(taken)],
        "arm_seeds": arm_seeds,
    }
    path = _path(runs_dir, plan)
    try:
        unchanged = read_json(path) == data
    except (OSError, ValueError):
        unchanged = False
    if not unchanged:
        write_json(path, data)


def _path(runs_dir: Path, plan: Plan) -> Path:
    return study_folder(runs_dir, plan) / FILE


def _hash(plan: Plan) -> str:
    return declaration.plan_hash(declaration.declaration_of(plan))


# The state of every run of a plan, read fast: ten thousand folders in less than a second. Writes nothing.
#
# A folder is listed once, and only the files that its names call for are opened.


SHORT_ID = 12  # characters of a run_id that are shown: enough to name it to `harness logs`
QUEUED = "queued"  # beside the states in study.records: an agent in Slurm's queue, or at work, will take it
RELEASED = b'"released": true'  # of a claim; within a text the quotes would be escaped
ATTEMPT, EPOCH, PROGRESS = b'"kind": "attempt"', b'"kind": "epoch"', b'"kind": "progress"'


@mutable
class RunView:
    """What is known of one run."""

    state: str = MISSING
    used_s: float = 0.0  # seconds of one worker that all attempts took together, as far as they were recorded
    gpus: int = 0  # GPUs that it took at a time
    progress: float | None = None  # of a training that has begun and not ended, from 0 to 1
    holder: Holder | None = None  # who trains it now
    message: str = ""  # why it failed
    failed_s: float = 0.0  # when


def look(plan: Plan, runs_dir: Path, summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, RunView]:
    """run_id -> what its folder says. `summaries`: of the runs that have one, by `reconcile`."""
    try:
        present = set(os.listdir(runs_dir))
    except OSError:
        present = set()
    counted = _Gpus(runs_dir)
    views = {}
    for run in plan.runs:
        summary = summaries.get(run.run_id)
        if summary is not None:
            views[run.run_id] = _ended(run, summary, counted)
        elif run.run_id in present:
            arm = plan.arms.get(run.arm_id)  # none: of a script, which tells its progress as a share
            epochs = arm.recipe.epochs if arm else 0.0
            views[run.run_id] = _unfinished(f"{runs_dir}{os.sep}{run.run_id}", epochs)
        else:
            views[run.run_id] = RunView()
    return views


def _ended(run: PlannedRun, summary: Mapping[str, Any], counted: _Gpus) -> RunView:
    return RunView(
        state=summary["status"],
        used_s=summary.get("wall_time_s") or 0.0,
        gpus=counted.of(run, str(summary.get("device"))),
    )


class _Gpus:
    """How many GPUs finished runs took: told by env.json, of which one is read per arm and device."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._known: dict[tuple[str, str], int] = {}
        self._are_cpus: set[str] = set()  # product names of devices

    def of(self, run: PlannedRun, device_name: str) -> int:
        if device_name in self._are_cpus:
            return 0
        key = (run.arm_id, device_name)
        if key not in self._known:
            said = records.read_map(f"{self._runs_dir}{os.sep}{run.run_id}{os.sep}env.json")
            self._known[key] = _gpus(said)
            if said.get("device") == "cpu":
                self._are_cpus.add(device_name)
        return self._known[key]


def _unfinished(folder: str, epochs: float) -> RunView:
    """What the folder of a run without a summary says; the states are those of `records.run_state`."""
    try:
        names = os.listdir(folder)
    except OSError:  # deleted meanwhile, or a file
        return RunView()
    view = _events(f"{folder}{os.sep}events.jsonl", epochs) if "events.jsonl" in names else RunView()
    view.holder = _holder(folder, newest_of(names))
    if view.holder is not None or ("lock" in names and _is_locked(f"{folder}{os.sep}lock")):
        view.state = RUNNING
        return view
    if view.state != FAILED and "cancel" in names:
        view.state = CANCELLED
    return view


def _holder(folder: str, newest: int) -> Holder | None:
    """As `holder_of`, which is asked only where there is a claim that was not released."""
    if not newest:
        return None
    try:
        is_released = RELEASED in records.read_quickly(f"{folder}{os.sep}{PREFIX}{newest}")
    except OSError:
        return None
    return None if is_released else holder_of(RunFolder(Path(folder)))


def _is_locked(path: str) -> bool:
    """As `folder.is_locked`; where it cannot be known: no."""
    try:
        return is_locked(path)
    except OSError:
        return False


def _events(path: str, epochs: float) -> RunView:
    """State, time and progress from the events; of the lines only those that tell are parsed."""
    try:
        lines = records.read_quickly(path).split(b"\n")[:-1]  # what follows the last line end was cut off
    except OSError:
        return RunView()
    last = _last(lines)
    if last is None:
        return RunView()
    view = RunView(state=FAILED if last["kind"] == FAILED else STOPPED)
    if view.state == FAILED:
        view.message, view.failed_s = printable(str(last.get("message") or "")), float(last["time_s"])
    starts = [place for place, line in enumerate(lines) if ATTEMPT in line]
    for begin, end in zip(starts, [*starts[1:], len(lines)], strict=False):
        first = records.event_of(lines[begin])
        if first is not None:
            view.gpus = _gpus(first)
            view.used_s += max(0.0, (_last(lines[begin:end]) or first)["time_s"] - first["time_s"])
    told = next(
        (event for line in reversed(lines) if EPOCH in line and (event := records.event_of(line))), None
    )
    epoch = told.get("epoch") if told else None
    if starts and epochs == 0:
        view.progress = _share(lines[starts[-1] :])
    if starts and epochs > 0:
        view.progress = min(1.0, epoch / epochs) if records.is_time(epoch) else 0.0
    return view


def _share(lines: list[bytes]) -> float | None:
    """How far a command said it was."""
    told = next(
        (event for line in reversed(lines) if PROGRESS in line and (event := records.event_of(line))), {}
    )
    share = told.get("share")
    return min(1.0, share) if records.is_time(share) else None


def _last(lines: list[bytes]) -> dict[str, Any] | None:
    """The last line that is an event."""
    return next((event for line in reversed(lines) if (event := records.event_of(line))), None)


def _gpus(said: Mapping[str, Any]) -> int:
    """Of an attempt's event or env.json: one per process, none on a CPU."""
    processes = said.get("processes")
    used = processes if records.is_count(processes) else 1
    return used if str(said.get("device", "cpu")).startswith("cuda") else 0


# What is already done, and how long the rest will take, from the records of finished runs.


OTHER_RECORDS = 200  # records of runs outside the plan that are read, at most, for their speed


def reconcile(plan: Plan, runs_dir: Path) -> dict[str, dict[str, Any]]:
    """Set `done` and `time_s` of every run in place. Returns the summaries that were read, by run_id.

    A run is done when its record says finished or diverged and belongs to its spec; its `time_s` is then what
    its training took. For the others it is the planned multiply-adds over the median speed of finished runs
    of the same arm, evaluations included. Without any it is `rough`: from runs of the same model,
    precision and batch size; without any, of the same precision; without any, of all;
    without any, None.
    """
    present, within = _folders(runs_dir), f"{runs_dir}{os.sep}"
    planned = {run.run_id: run for run in plan.runs}
    speeds, specs = _Speeds(), Specs()
    summaries: dict[str, dict[str, Any]] = {}
    for name in (name for name in present if name in planned):
        summary, touched_ns = _summary(within, name)
        if summary is None or not _has_spec(within, name, specs, touched_ns):
            continue
        summaries[name] = summary
        run = planned[name]
        run.done = True
        run.time_s = summary.get("train_time_s")
    if len(summaries) < len(planned):  # else nobody asks how long the rest takes
        for summary in summaries.values():
            speeds.add(summary)
    others = (name for name in present if name not in planned)
    for _, name in zip(range(OTHER_RECORDS), others, strict=False):
        summary, _ = _summary(within, name)
        if summary is not None:
            speeds.add(summary)
    speeds.done = [run for run in plan.runs if run.done and run.time_s is not None] if plan.scripts else []
    for run in plan.runs:
        if not run.done:
            run.time_s, run.rough = speeds.time_s(plan, run)
    return summaries


class _Speeds:
    """Multiply-adds per second of finished trainings, by how alike the trainings are."""

    def __init__(self) -> None:
        self.found: dict[tuple[Any, ...], list[float]] = {}
        self.medians: dict[tuple[Any, ...], float] = {}
        self.done: list[PlannedRun] = []  # of a script, with their times

    def add(self, summary: Mapping[str, Any]) -> None:
        work = 3.0 * (summary.get("macs") or 0) * (summary.get("images_seen") or 0)
        time_s = summary.get("wall_time_s") or summary.get("train_time_s") or 0
        if summary.get("status") != FINISHED or work <= 0 or time_s <= 0:
            return
        about = [summary.get(name) for name in ("arm_id", "model", "precision", "batch_size")]
        for key in _likeness(*about):
            self.found.setdefault(key, []).append(work / time_s)

    def time_s(self, plan: Plan, run: PlannedRun) -> tuple[float | None, bool]:
        """Seconds, and whether they are rough."""
        if plan.scripts:
            return self._of_script(run)
        if not run.macs:  # how many images there are is not known
            return None, False
        recipe = plan.arms[run.arm_id].recipe
        alike = _likeness(run.arm_id, recipe.model.name, recipe.precision, recipe.batch_size)
        for rough, key in enumerate(alike):
            if key in self.found:
                if key not in self.medians:
                    from statistics import median  # only where runs have ended: 3 ms

                    self.medians[key] = median(self.found[key])
                return run.macs / self.medians[key], rough > 0
        return None, False

    def _of_script(self, run: PlannedRun) -> tuple[float | None, bool]:
        """The median of the same command's runs, else of all of the study's."""
        for rough, alike in enumerate((lambda each: each.arm_id == run.arm_id, lambda _: True)):
            times = sorted(each.time_s or 0.0 for each in self.done if alike(each))
            if times:
                return times[len(times) // 2], rough > 0
        return None, False


def _likeness(arm_id: Any, model: Any, precision: Any, batch_size: Any) -> Iterable[tuple[Any, ...]]:
    """From runs of the same arm to any run."""
    return ("arm", arm_id), (model, precision, batch_size), (precision,), ()


def _folders(runs_dir: Path) -> list[str]:
    """Names of all run folders, in order: one directory listing, however many runs there are."""
    try:
        return sorted(_names(runs_dir))
    except FileNotFoundError:
        return []


def _names(runs_dir: Path) -> Iterator[str]:
    with os.scandir(runs_dir) as entries:
        yield from (entry.name for entry in entries)


def _summary(within: str, name: str) -> tuple[dict[str, Any] | None, int]:
    """As `RunFolder.read_summary`, without making paths and without a look at the spec: there may be ten
    thousand. None where there is none that can be relied on: then nothing is known about the run. Beside it
    when the file was written.
    """
    path = f"{within}{name}{os.sep}summary.json"
    try:
        text, info = records.read_with_stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, 0
    except OSError as error:
        records.note(path, records.reason(error))
        return None, 0
    return records.summary_of(text, name, path), info.st_mtime_ns


def _has_spec(within: str, name: str, specs: Specs, ended_ns: int) -> bool:
    """As `RunFolder.has_spec`, of a run that has ended. The spec was checked when it began: only one that was
    written since the end is read. Whoever builds on a run or reports it reads it."""
    path = f"{within}{name}{os.sep}spec.json"
    try:
        info = os.stat(path)
        if info.st_mtime_ns <= ended_ns and info.st_size and stat.S_ISREG(info.st_mode):
            return True
        why = specs.wrong(records.read_quickly(path), name)
    except FileNotFoundError:
        why = records.NO_SPEC
    except OSError as error:
        why = records.reason(error)
    if why:
        records.note(path, why)
    return not why
