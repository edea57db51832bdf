"""Records of one run on different data: which of them counts, and where the others are kept.

runs/<run_id>/other_data/<16 characters of the data's fingerprint>/    what the run left behind on those data

A run's identity holds no data, only their name: paths and contents are a machine's. So a record says which
data it saw (`data_fingerprint`), and one that saw others than are there now is set aside, whole, and put back
when its data come back. Whoever moves a record holds the run's claim (`run_claims`) or its lock.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from harness.study.holders import PREFIX
from harness.study.plan import Plan
from harness.study.records import RunFolder, read_json
from harness.study.spec import DataSpec, canonical_json

FOLDER = "other_data"
SHOWN = 16  # characters of a fingerprint in the name of a folder
STAYS = frozenset({FOLDER, "lock", "cancel", "spec.json", "summary.json"})  # the last is moved at the end

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
    folder = spec.args.get("folder")
    return f"{spec.name} {folder}" if isinstance(folder, str) and folder else spec.name


def set_aside(folder: RunFolder, fingerprint: str) -> None:
    """Move what the run left behind to where records on these data are kept. The caller holds the run.

    Stopped on the way, it is done to the end by the next call: the summary goes last, so that the run counts
    as ended, on other data, until everything has been moved.
    """
    aside = folder.path / FOLDER / fingerprint[:SHOWN]
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
        found = read_json(folder.path / FOLDER / fingerprint[:SHOWN] / "summary.json")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("data_fingerprint") == fingerprint else None


def put_back(folder: RunFolder, fingerprint: str) -> bool:
    """The record on these data in its old place; False: there is none. The caller holds the run, whose other
    record was set aside."""
    aside = folder.path / FOLDER / fingerprint[:SHOWN]
    if not (aside / "summary.json").exists():
        return False
    for path in sorted(aside.iterdir()):
        if path.name not in ("spec.json", "summary.json"):
            _move(path, folder.path / path.name)
    _move(aside / "summary.json", folder.summary)
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _move(path: Any, target: Any) -> None:
    if target.is_dir():
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
        changed = key if record["data_fingerprint"] != current[key] else changed_below(record, keys, current)
        if changed is not None:
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
    by_arm = {arm_id: data_key(arm.recipe.data) for arm_id, arm in plan.arms.items()}
    return {run.run_id: by_arm[run.arm_id] for run in plan.runs}


def newest(keys: Mapping[str, str], records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Key of data -> the fingerprint that the record has which ended last."""
    ended = sorted(
        (record.get("ended_s") or 0.0, run_id) for run_id, record in records.items() if run_id in keys
    )
    seen = ((keys[run_id], records[run_id].get("data_fingerprint")) for _, run_id in ended)
    return {key: str(fingerprint) for key, fingerprint in seen if fingerprint}
