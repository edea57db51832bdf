"""What a study keeps beside its runs: its numbered declarations, and where an adaptive one stands."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.runs.folder import read_json, write_json
from harness.runs.records import is_count, parsed, read_quickly, reason
from harness.study import declaration
from harness.study.declaration import HASH_SHOWN
from harness.study.expand import grow
from harness.study.plan import Plan

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LookRecord:
    """What was seen at one look, for people."""

    seeds: int  # per arm that was still open
    settled: int  # comparisons
    comparisons: int
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
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
    fits = arm_seeds.keys() == plan.arms.keys() and set(arm_seeds.values()) <= set(plan.looks)
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
    arm_seeds = {arm_id: len(plan.seeds_of(arm_id)) for arm_id in plan.arms}
    if known is not None:
        arm_seeds = {arm_id: max(seeds, known.arm_seeds[arm_id]) for arm_id, seeds in arm_seeds.items()}
    taken = {look.seeds: look for look in (*(known.looks if known else ()), *looks)}
    data = {
        "plan_hash": _hash(plan),
        "looks": [_look(taken[seeds]) for seeds in sorted(taken)],
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


def _look(look: LookRecord) -> dict[str, Any]:
    return {name: getattr(look, name) for name in ("seeds", "settled", "comparisons", "says")}
