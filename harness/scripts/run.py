"""Execute one run of a user's command: start it, watch it, read its results after its end, write the record.

runs/<run_id>/output/   the command's own folder, {folder}
              log.txt   what it printed; log.<n>.txt: at attempt n, which was begun anew since
Where only `results` changed since the command ended well, it is not executed again: what it wrote is read.
Its place on this machine is `provenance.read_place`, its end `supervise.py`'s to see to.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import os
import platform
import re
import select
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.runs import provenance
from harness.runs.folder import FolderGone, RunFolder, identity_of, locked, write_json
from harness.runs.records import LARGEST, read_quickly
from harness.scripts.plan import sha256_of
from harness.scripts.study_file import ReadAs, read_as
from harness.spec import (
    ACCURACIES,
    FAILED,
    FINISHED,
    SCHEMA_VERSION,
    AnyRun,
    Machine,
    ScriptPlace,
    ScriptRun,
    Stop,
    canonical_json,
    run_id,
)

OUTPUT, LOG = "output", "log.txt"
INTERRUPTED = "interrupted"
POLL_S = 0.1
PROGRESS_S = 2.0  # between two looks at what was printed
TOLD_LINES, TOLD_CHARACTERS = 5, 600  # of the log, in the message of a failure
MOST_LOG = 1 << 26  # bytes of a log that are searched: its end
MOST_RESULT = 1 << 28  # bytes of a file of results
LITTLE_DISK = 1 << 20  # bytes that are free: a disk with less is full
SUPERVISOR = Path(__file__).with_name("supervise.py")


class NoResultError(ValueError):
    """The command ended well, and left no result that can be used; in words."""


def run_script(spec: ScriptRun, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Execute the command, or go on where an earlier attempt stopped, and write the record into `folder`.

    Waits while another process executes the same run, or what it started is still ending. A run that has
    ended is not executed again, nor one whose results alone are to be read otherwise.

    Returns:
        finished; failed, with the reason in the events; interrupted (`stop()` was True).

    Raises:
        ValueError: the command is not what was planned any more, or nobody knows where to execute it.
        FolderGone: the run folder was deleted or replaced meanwhile.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with locked(folder.lock, stop) as lock:
        if lock is None:
            return INTERRUPTED
        if not folder.has_spec():
            write_json(folder.spec, spec.to_json())
        if (summary := folder.read_summary()) is not None:
            return str(summary["status"])
        place = provenance.read_place(machine.runs_dir, spec.arm.arm_id)
        _check_code(spec, place)
        before = _executed_before(spec, folder)
        attempt = _Attempt(spec=spec, folder=folder, machine=machine, place=place, lock=lock)
        return attempt.execute(stop) if before is None else attempt.read(before)


def is_read_anew(spec: AnyRun, folder: RunFolder) -> bool:
    """Whether the run needs not be executed: the same command and seed ended well in another run, whose
    results were to be read otherwise."""
    return isinstance(spec, ScriptRun) and _executed_before(spec, folder) is not None


def _executed_before(spec: ScriptRun, folder: RunFolder) -> RunFolder | None:
    if folder.events.exists():  # also where it was read before, and the result was not to be found
        return None
    runs_dir = folder.path.parent
    arms = provenance.arms_of_command(runs_dir, spec.arm.command_id)
    others = (RunFolder(runs_dir / run_id(arm_id, spec.seed)) for arm_id in arms if arm_id != spec.arm.arm_id)
    return next((each for each in others if _has_ended_well(each)), None)


def _has_ended_well(folder: RunFolder) -> bool:
    """Whether its command ended with exit code 0, whatever could be read, and what it wrote is there."""
    events = folder.read_events() if (folder.path / OUTPUT).is_dir() else []
    if not any(event["kind"] == "attempt" for event in events):
        return False
    return events[-1]["kind"] == "end" or (events[-1]["kind"] == FAILED and events[-1].get("code") == 0)


def _check_code(spec: ScriptRun, place: ScriptPlace) -> None:
    """
    Raises:
        ValueError: a file that the command names, or another one of its repository, changed since the plan.
    """
    again = "since this run was planned; `harness run` plans it anew"
    for name, wanted in spec.arm.files.items():
        path = Path(place.paths.get(name, Path(place.folder) / name))
        if not path.is_file():
            raise ValueError(f"{path} has gone {again}")
        if sha256_of(str(path), path.stat().st_mtime_ns) != wanted:
            raise ValueError(f"{path} changed {again}")
    if spec.arm.repository is not None and place.repository is not None:
        _, now = provenance.script_code(Path(place.repository) / "script", Path(place.study))
        if now not in (None, spec.arm.repository):
            raise ValueError(f"files that {place.repository} tracks changed {again}")


@dataclass(slots=True, kw_only=True)
class _End:
    """What became of the command."""

    code: int | None
    error: str  # why it could not be started
    left: int  # processes that it left behind
    killed: bool
    was_stopped: bool = False  # because somebody asked

    @property
    def in_words(self) -> str:
        """Why that is a failure; "": it is none."""
        if self.error:
            return f"the command could not be started: {self.error}"
        if self.code is None:
            return "the process that watches over the command died"
        if self.code < 0:
            return f"the command was ended by signal {-self.code}"
        return f"the command ended with exit code {self.code}" if self.code else ""


@dataclass(kw_only=True)
class _Attempt:
    """One attempt at a run, whose lock is held."""

    spec: ScriptRun
    folder: RunFolder
    machine: Machine
    place: ScriptPlace
    lock: int
    number: int = field(init=False)
    started_s: float = field(init=False)  # of the first attempt

    def __post_init__(self) -> None:
        self._identity = identity_of(self.folder.lock)
        events = self.folder.read_events()
        self.number = 1 + sum(event["kind"] == "attempt" for event in events)
        self.started_s = min((event["time_s"] for event in events), default=time.time())

    @property
    def output(self) -> Path:
        return self.folder.path / OUTPUT

    @property
    def log(self) -> Path:
        return self.folder.path / LOG

    def execute(self, stop: Stop) -> str:
        command, resumes = self._command()
        if not resumes:
            self._begin_anew()
        self.output.mkdir(exist_ok=True)
        self._note("attempt", attempt=self.number, device=self.machine.shown_device,
                   device_name=self._device_name, threads=self.machine.threads, processes=1,
                   resumed=resumes, command=shlex.join(command))  # fmt: skip
        start = time.monotonic()
        end = self._watched(command, stop)
        wall_s = time.monotonic() - start
        if end.left:
            self._note("left_behind", processes=end.left)
        if end.was_stopped:  # whatever it wrote: a command that was cut short may well leave some results
            self._note("script_stopped", killed=end.killed, code=end.code)
            return INTERRUPTED
        if end.in_words:
            return self._fail(f"{end.in_words}{_left_in_words(end.left)}", end.code)
        self._require_folder()
        write_json(self.folder.env, self._describe())
        return self._conclude(wall_s, time.time(), _left_in_words(end.left))

    def read(self, before: RunFolder) -> str:
        """Read the results in what that run wrote, of which this one gets its own copy: its times, machine
        and code are those of its execution."""
        events = before.read_events()
        begun = next(event for event in reversed(events) if event["kind"] == "attempt")
        self.started_s = min(event["time_s"] for event in events)
        self._device_name, self.machine = (
            begun["device_name"],
            replace(self.machine, threads=begun["threads"]),
        )
        self._begin_anew()
        shutil.copytree(before.path / OUTPUT, self.output, copy_function=_link_or_copy, symlinks=True)
        _link_or_copy(before.path / LOG, self.log)
        shutil.copyfile(before.env, self.folder.env)
        same = {name: value for name, value in begun.items() if name not in ("kind", "time_s", "resumed")}
        self._note("attempt", **{**same, "attempt": self.number}, resumed=False, read_from=before.run_id)
        ended_s = events[-1]["time_s"]
        return self._conclude(ended_s - begun["time_s"], ended_s)

    def _conclude(self, wall_s: float, ended_s: float, left: str = "") -> str:
        """After an end with exit code 0."""
        try:
            metrics = self._results()
        except NoResultError as error:
            return self._fail(f"{error}{left}", code=0)
        self._write_end(metrics, wall_s, ended_s)
        return FINISHED

    # Before.

    def _command(self) -> tuple[list[str], bool]:
        """The command line of this attempt, and whether it goes on from an earlier one."""
        filled = {
            "{seed}": str(self.spec.seed),
            "{folder}": str(self.output),
            "{data}": self.place.data or "",
        }
        filled |= self.place.paths
        needed = [_filled(word, filled) for word in self.place.resume]
        files = [new for old, new in zip(self.place.resume, needed, strict=True) if "{folder}" in old]
        resumes = bool(files) and all(Path(name.partition("=")[2] or name).exists() for name in files)
        return [_filled(word, filled) for word in self.spec.arm.command] + needed * resumes, resumes

    def _begin_anew(self) -> None:
        """Nothing of an earlier attempt is taken for a result of this one."""
        if self.output.exists():
            shutil.rmtree(self.output)
        if self.log.exists():
            self.log.rename(self.folder.path / f"log.{self.number - 1}.txt")

    def _environment(self) -> dict[str, str]:
        own = {"HARNESS_SEED": str(self.spec.seed), "HARNESS_FOLDER": str(self.output)}
        kind, _, index = self.machine.device.partition(":")
        if kind == "cuda" and index and not self.machine.listed_as:  # no worker has narrowed it yet
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            own["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(index)].strip() if visible else index
        return {**os.environ, **own}

    # While.

    def _watched(self, command: Sequence[str], stop: Stop) -> _End:
        """Start the command, and wait for its end and for that of all it started."""
        arguments = [sys.executable, "-I", "-S", str(SUPERVISOR), str(self.place.grace_s), *command]
        with self.log.open("ab") as log, self._supervisor(arguments, log) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            asked, looked_s, said = False, time.monotonic(), b""
            while True:
                if select.select([process.stdout], [], [], POLL_S)[0]:
                    piece = os.read(process.stdout.fileno(), 65536)
                    said += piece
                    if not piece:
                        break
                if not asked and stop():
                    asked = True
                    process.stdin.close()
                if self.place.progress and time.monotonic() - looked_s > PROGRESS_S:
                    looked_s = time.monotonic()
                    self._tell_progress()
            process.wait()
        try:
            return _End(**ast.literal_eval(said.decode()), was_stopped=asked)
        except (ValueError, SyntaxError, TypeError):
            return _End(code=None, error="", left=0, killed=False, was_stopped=asked)

    @contextmanager
    def _supervisor(
        self, arguments: Sequence[str], log: io.BufferedWriter
    ) -> Iterator[subprocess.Popen[bytes]]:
        """It holds the run's lock as well; it ends the command when its standard input is closed."""
        process = subprocess.Popen(  # noqa: S603 (the study's command, split once and read by no shell)
            arguments,
            cwd=self.place.folder,
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=(self.lock,),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait()
            process.stdout.close()

    def _tell_progress(self) -> None:
        assert self.place.progress is not None
        share = share_of(re.findall(self.place.progress, _end_of(self.log)))
        if share is not None:
            self._note("progress", share=share)

    # After.

    def _results(self) -> dict[str, float]:
        """
        Raises:
            NoResultError: one is missing, is there twice, or is no finite number.
        """
        found = {}
        for name, said in self.spec.arm.results.items():
            where = read_as(said)
            path = self._file(where.file, name)
            value = _value(read_result(path, where, name), where, (name, path.name))
            if name in ACCURACIES and not 0 <= value <= 100:
                raise NoResultError(f"{name} is {value:g} in {path.name}, which is no percentage")
            found[name] = value
        return found

    def _file(self, pattern: str, metric: str) -> Path:
        """The one file that the pattern means; what was printed where it says log.txt and there is none."""
        found = sorted(path for path in self.output.glob(pattern) if path.is_file())
        if not found and pattern == LOG:
            return self.log
        if not found:
            there = [path.relative_to(self.output).as_posix() for path in sorted(self.output.rglob("*"))[:6]]
            beside = f"; it wrote {', '.join(there)}" if there else " into its folder"
            raise NoResultError(
                f"no result: the command ended well and wrote no {pattern}{beside} ({metric})"
            )
        if len(found) > 1:
            names = ", ".join(path.relative_to(self.output).as_posix() for path in found[:4])
            raise NoResultError(
                f"{len(found)} files where one was asked for: {pattern} is {names} ({metric})"
            )
        return found[0]

    def _fail(self, why: str, code: int | None) -> str:
        lines = _end_of(self.log, TOLD_CHARACTERS * 20).splitlines()
        last = "\n".join(line for line in lines[-TOLD_LINES:] if line.strip())[-TOLD_CHARACTERS:]
        if shutil.disk_usage(self.folder.path).free < LITTLE_DISK:  # then its last words are lost, too
            own_mb = sum(path.lstat().st_size for path in self.output.rglob("*")) / 1e6
            why += f"; the disk is full, {own_mb:.1f} MB of it with what this command wrote"
        told = (
            f"{why}; its last lines: {' | '.join(last.splitlines())}"
            if last
            else f"{why}; it printed nothing"
        )
        self._note(FAILED, message=told, reason=why, code=code, traceback="\n".join(lines[-40:]))
        return FAILED

    def _write_end(self, metrics: Mapping[str, float], wall_s: float, ended_s: float) -> None:
        self._note("end", status=FINISHED)
        self._require_folder()
        write_json(
            self.folder.summary,
            {
                "schema": SCHEMA_VERSION,
                "run_id": self.spec.run_id,
                "arm_id": self.spec.arm.arm_id,
                "seed": self.spec.seed,
                "status": FINISHED,
                "metrics": dict(metrics),
                "predictions_sha256": None,
                "steps": 0,
                "train_time_s": wall_s,
                "wall_time_s": wall_s,
                "attempts": self.number,
                "device": self._device_name,
                "threads": self.machine.threads,
                "started_s": self.started_s,
                "ended_s": ended_s,
                "command": self.spec.arm.line[:10_000],
                "code": self.spec.arm.repository or "",
            },
        )

    @cached_property
    def _device_name(self) -> str:
        return provenance.cpu_name() if self.machine.device == "cpu" else self.machine.shown_device

    def _describe(self) -> dict[str, Any]:
        """env.json. Software is the command's own, of which only its code is known here."""
        top = None if self.place.repository is None else Path(self.place.repository)
        code = provenance.code_version(top) if top else {"commit": None, "dirty": None}
        return {
            "platform": platform.platform(),
            "hostname": socket.gethostname(),
            **provenance.describe_hardware(),
            "device": self.machine.shown_device,
            "device_name": self._device_name,
            "processes": 1,
            "shared": self.machine.shared,
            "threads": self.machine.threads,
            **code,
            "changes": provenance.changes_digest(top) if top and code["dirty"] else None,
            "files": canonical_json(dict(self.spec.arm.files)),
        }

    # Events.

    def _require_folder(self) -> None:
        if identity_of(self.folder.lock) != self._identity:
            raise FolderGone(self.folder.path)

    def _note(self, kind: str, **values: Any) -> None:
        self._require_folder()
        self.folder.append_event(kind, **values)


def _link_or_copy(source: Path | str, target: Path | str) -> None:
    """The same bytes under another name: a script's checkpoints may be large."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _filled(word: str, filled: Mapping[str, str]) -> str:
    return re.sub(r"\{[^{}]+\}", lambda found: filled.get(found[0], found[0]), word)


def _left_in_words(left: int) -> str:
    if not left:
        return ""
    what = "a process" if left == 1 else f"{left} processes"
    return f"; it left {what} behind, ended by now: a command must stay in the foreground until all is done"


def _end_of(path: Path, most: int = MOST_LOG) -> str:
    """The end of a text; "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            return file.read().decode(errors="replace").replace("\r", "\n")
    except OSError:
        return ""


def share_of(matches: Sequence[str]) -> float | None:
    """How much is done, from 0 to 1, by the last match of `progress`.

    >>> share_of(["1/10", "5/10"]), share_of(["0.25"]), share_of(["40%"]), share_of(["x"])
    (0.5, 0.25, 0.4, None)
    """
    found = re.fullmatch(r"\s*([0-9.]+)\s*(?:(%)|(?:/|of)\s*([0-9.]+))?\s*", matches[-1]) if matches else None
    try:
        share = float(found[1]) / (100 if found[2] else float(found[3] or 1)) if found else math.nan
    except (ValueError, ZeroDivisionError):
        return None
    return share if 0 <= share <= 1 else None


# What the files of results say.


def read_result(path: Path, where: ReadAs, metric: str) -> Any:
    """The value as it stands in the file.

    Raises:
        NoResultError: it is not there, or the file is cut off.
    """
    if where.kind == "match":
        return _matched(_end_of(path), path.name, where, metric)
    try:
        text = read_quickly(path)[:MOST_RESULT].decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise NoResultError(f"no result: {path.name} cannot be read ({reason}) ({metric})") from None
    if where.kind == "csv":
        return _in_csv(text, path.name, where.what)
    return _in_json(text, path, where.what)


def _matched(text: str, name: str, where: ReadAs, metric: str) -> Any:
    found = re.findall(where.what, text)
    if not found:
        raise NoResultError(f"no result: nothing in {name} matches /{where.what}/ ({metric})")
    if where.which == "only" and len(found) > 1:
        raise NoResultError(
            f"two results where one was asked for: {name} matches /{where.what}/ {len(found)} times"
        )
    if where.which in ("max", "min"):
        numbers = [number for each in found if (number := _number(each)) is not None]
        chosen = [each for each in numbers if math.isfinite(each)] or numbers
        return (max if where.which == "max" else min)(chosen) if chosen else found[-1]
    return found[0 if where.which == "first" else -1]


def _in_csv(text: str, name: str, column: str) -> Any:
    """The column of the last line."""
    lines = [line for line in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in line)]
    if len(lines) < 2:
        raise NoResultError(f"no result: {name} has {'no line below its head' if lines else 'no line'}")
    head, last = [cell.strip() for cell in lines[0]], lines[-1]
    if head.count(column) != 1:
        there = "twice" if column in head else "not"
        raise NoResultError(f"no result: the column {column} is {there} in {name} ({', '.join(head)[:200]})")
    if len(last) != len(head):
        what = f"has {len(last)} of {len(head)} columns"
        raise NoResultError(f"no result: the last line of {name} {what}: it is cut off, or no CSV")
    return last[head.index(column)]


def _in_json(text: str, path: Path, keys: str) -> Any:
    lines = text.strip().splitlines()
    if path.suffix == ".jsonl":
        text = lines[-1] if lines else ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise NoResultError(f"no result: {path.name} is cut off, or no JSON") from None
    for place, name in enumerate(keys.split(".")):
        inside = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, list) and re.fullmatch(r"-?[0-9]{1,9}", name):
            inside = value[int(name)] if -len(value) <= int(name) < len(value) else None
        if inside is None:
            above = ".".join(keys.split(".")[:place]) or "its top"
            there = f" ({', '.join(map(str, value))[:200]})" if isinstance(value, dict) else ""
            raise NoResultError(f"no result: {path.name} has no {name} at {above}{there}")
        value = inside
    return value


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _value(found: Any, where: ReadAs, named: tuple[str, str]) -> float:
    metric, name = named
    number = _number(found)
    if number is None:
        raise NoResultError(f"no result: {metric} is {str(found)[:80]!r} in {name}, which is no number")
    number *= where.scale
    if not math.isfinite(number) or abs(number) >= LARGEST:
        raise NoResultError(f"no finite value of {metric}: it is {number} in {name}")
    return number
