"""The recorded declarations of a study: numbered files, written once, never changed.

runs/.studies/<study>-<size>[-smoke]/declaration.1.json, declaration.2.json, ...

Each: {schema, time (UTC), harness, commit, dirty, runs, ended, seen, plan_hash, declaration}. `ended` of
`runs` planned runs had ended when it was recorded; `seen` counts further ended runs, of recipes
that an earlier declaration names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.study.amendments import amendments
from harness.study.checked import parsed, read_quickly, reason
from harness.study.declaration import DECLARATION_SCHEMA, HASH_SHOWN, contrasts, plan_hash
from harness.study.plan import Plan

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
    return {"schema": DECLARATION_SCHEMA, "problem": problem, "declarations": declarations}


def write_declaration(folder: Path, number: int, entry: Mapping[str, Any]) -> bool:
    """Record one, whole or not at all. False: another process has recorded that number."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"declaration.{number}.json"
    draft = folder / f".declaration.{os.uname().nodename}.{os.getpid()}.draft"
    data = (json.dumps({"schema": DECLARATION_SCHEMA, **entry}, indent=1, sort_keys=True) + "\n").encode()
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
        if entry["schema"] != DECLARATION_SCHEMA:
            return f"is of schema {entry['schema']!r}; this version reads {DECLARATION_SCHEMA}"
        found = {key: entry[key] for key in ("schema", *KEYS)}
        counts = all(type(found[key]) is int and found[key] >= 0 for key in ("runs", "ended", "seen"))
        if not counts:
            return "is damaged: a count of runs is no whole number"
        datetime.strptime(found["time"], TIME)
        amendments(found["declaration"], found["declaration"])  # every key is there
        contrasts(found["declaration"])
        own = plan_hash(found["declaration"])
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
