"""The floor of every data setting of a study: measured once beside the first runs, kept, read by reports.

runs/.floors/<32 characters of the setting's sha256>.json   {schema, setting, data, problem, ...}, all numbers
as `harness.data.floor.Measured` has them; `problem` says why there are none. `setting` is a `DataSpec` as
canonical JSON. What is not as it was written, or is of other data than are there now, is measured again.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.data import LOOK, fingerprint_now
from harness.commands.workspace import Workspace
from harness.data import DATASETS, missing_data
from harness.runs.folder import write_json
from harness.runs.provenance import data_name
from harness.runs.records import read_map
from harness.spec import ACCURACIES, DataSpec, sha256_of
from harness.study.conditions import (
    FLOORS_SCHEMA,
    NOT_MEASURED,
    below_everywhere,
    below_so_far,
    setting_of,
    wrong_with_floor,
)
from harness.study.plan import Plan

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from harness.scheduling.base import Progress, Watch

FOLDER = ".floors"  # in the folder of runs
MOST_SETTINGS = 20
LOWEST_PRIORITY = 19


def read_floors(plan: Plan, place: Workspace) -> dict[str, Any]:
    """What a report keeps of the floors, for `ReportInput.floors`: what is known by now. Never writes."""
    settings = settings_of_plan(plan)
    if plan.header["metric"] not in ACCURACIES:
        why = f"the metric {plan.header['metric']} is a plugin's, which no simple classifier is read by"
        return {"schema": FLOORS_SCHEMA, "why": why, "floors": []}
    if len(settings) > MOST_SETTINGS:
        why = f"its rows see {len(settings):,} different data settings, more than {MOST_SETTINGS}"
        return {"schema": FLOORS_SCHEMA, "why": why, "floors": []}
    return {"schema": FLOORS_SCHEMA, "why": "", "floors": [_known(spec, place) for spec in settings]}


def measure_floors(plan: Plan, place: Workspace) -> None:
    """Measure what is not known yet, here and now; the rest is left as it is."""
    for spec in _unknown(plan, place):
        _measure_one(spec, place.data_dir, place.runs_dir)


class FloorsBeside:
    """Measures in a process of its own, at the lowest priority, while the runs are trained.

    Only data sets of the harness: those of plugins wait for `measure_floors`, as does whatever goes wrong in
    it. `is_idle`: so does everything, because no worker of this machine is there to be forked from.
    """

    def __init__(self, plan: Plan, place: Workspace, *, is_idle: bool) -> None:
        idle = is_idle or all(run.done for run in plan.runs)
        unknown = [] if idle else _unknown(plan, place)
        self._settings = [spec for spec in unknown if _is_of_the_harness(spec)]
        self._place = place
        self._process: BaseProcess | None = None

    def __enter__(self) -> FloorsBeside:
        from harness.scheduling.base import start_process

        if self._settings:
            args = (self._settings, self._place.data_dir, self._place.runs_dir)
            with suppress(OSError, EOFError):
                self._process = start_process(_measure_apart, args, with_main=False)
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if self._process is not None:
            if failed is not None:
                self._process.kill()
            self._process.join()

    def stop(self) -> None:
        """Do not wait for what is still to be measured."""
        if self._process is not None:
            self._process.kill()


def _measure_apart(settings: Sequence[DataSpec], data_dir: Path, runs_dir: Path) -> None:
    with suppress(OSError):
        os.nice(LOWEST_PRIORITY)
    for spec in settings:
        _measure_one(spec, data_dir, runs_dir)


def below_by_now(plan: Plan, place: Workspace, summaries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The lines of `conditions.below_so_far`. summaries: run_id -> of runs that have ended."""
    top1 = _top1_by_now(plan, summaries)
    return tuple(below_so_far(plan, top1, read_floors(plan, place))) if top1 else ()


def hopeless_by_now(plan: Plan, place: Workspace, summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """The reason of `conditions.below_everywhere`. summaries: run_id -> of runs that have ended."""
    top1 = _top1_by_now(plan, summaries)
    return below_everywhere(plan, top1, read_floors(plan, place)) if top1 else ""


def _top1_by_now(plan: Plan, summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """arm_id -> seed -> percent; {}: no floor is for the plan's metric, or for scripts."""
    top1: dict[str, dict[int, float]] = {}
    if plan.scripts or plan.header["metric"] not in ACCURACIES or plan.header["smoke"]:
        return top1
    seeds = frozenset(plan.seeds)
    for run in plan.runs:
        value = summaries.get(run.run_id, {}).get("metrics", {}).get("top1")
        if isinstance(value, int | float) and run.seed in seeds:
            top1.setdefault(run.arm_id, {})[run.seed] = float(value)
    return top1


class AfterTheFirstBlock:
    """A watcher of runs that says what is below its floor once every row has a result, and hands on."""

    def __init__(self, plan: Plan, place: Workspace, watch: Watch) -> None:
        self._plan, self._place, self._watch = plan, place, watch
        first = plan.seeds[0] if plan.seeds else 0
        self._left = {run.run_id for run in plan.runs if run.seed == first and not run.done}
        self._is_done = not self._left

    def __call__(self, progress: Progress) -> None:
        """Called by the scheduler between two hand-outs."""
        if not self._is_done and self._left <= progress.ended.keys() and self._floors_are_known():
            self._is_done = True
            found = {run.run_id: self._place.folder(run.run_id).read_summary() for run in self._plan.runs}
            ended = {run_id: summary for run_id, summary in found.items() if summary is not None}
            said = "\n".join(below_by_now(self._plan, self._place, ended))
            note = "\n".join(filter(None, (progress.note, said)))
            progress = dataclasses.replace(progress, note=note)
        self._watch(progress)

    def _floors_are_known(self) -> bool:
        return not any(floor["problem"] == NOT_MEASURED for floor in _read(self._plan, self._place))


def _read(plan: Plan, place: Workspace) -> list[dict[str, Any]]:
    floors: list[dict[str, Any]] = read_floors(plan, place)["floors"]
    return floors


def settings_of_plan(plan: Plan) -> list[DataSpec]:
    """The distinct data settings of the rows that the harness trains, in the order of the tables."""
    arms = dict.fromkeys(cell.arm_id for table in plan.tables for cell in table.cells if cell.arm_id)
    recipes = [plan.arms[arm_id].recipe for arm_id in arms if arm_id in plan.arms]
    found = {setting_of(each.data): each.data for each in recipes if each.trainer == "harness"}
    return list(found.values())


def _unknown(plan: Plan, place: Workspace) -> list[DataSpec]:
    """The settings of which nothing is known that holds for the data of now."""
    settings = settings_of_plan(plan)
    if plan.header["metric"] not in ACCURACIES or len(settings) > MOST_SETTINGS:
        return []
    return [spec for spec in settings if not _holds(spec, _kept(spec, place.runs_dir), place.data_dir)]


def _holds(spec: DataSpec, kept: Mapping[str, Any] | None, data_dir: Path) -> bool:
    if kept is None:
        return False
    now = fingerprint_now(spec, data_dir, LOOK)
    return now is None or kept["fingerprint"] in (None, now)


def _is_of_the_harness(spec: DataSpec) -> bool:
    return getattr(DATASETS[spec.name].load, "__module__", "").startswith("harness.")


def _measure_one(spec: DataSpec, data_dir: Path, runs_dir: Path) -> None:
    """Keep the floor of one setting, or why it has none. Nothing is kept of data that are not there."""
    if missing_data(spec.name, spec.args, data_dir) is not None:
        return
    if problem := _too_many(spec):
        write_json(_path(spec, runs_dir), _without(spec, problem))
        return
    from harness.data.floor import NoFloor, measure

    try:
        entry = {**_without(spec, None), **dataclasses.asdict(measure(spec, data_dir))}
    except NoFloor as error:
        entry = _without(spec, str(error))
    except Exception:  # of files, or of the code of a plugin: the runs tell of it
        return
    with suppress(OSError):
        write_json(_path(spec, runs_dir), entry)


def _too_many(spec: DataSpec) -> str:
    """Said before a data set of millions of files is listed."""
    from harness.data.floor import MOST_IMAGES

    facts = DATASETS[spec.name].facts(spec.args)
    train, test = spec.train_images or facts[1] or 0, spec.test_images or facts[2] or 0
    if max(train, test) <= MOST_IMAGES:
        return ""
    return f"{train:,} training and {test:,} test images; at most {MOST_IMAGES:,} of each"


def _without(spec: DataSpec, problem: str | None) -> dict[str, Any]:
    numbers = dict.fromkeys(("fingerprint", "classes", "train_images", "test_images", "channels", "pixels"))
    numbers |= dict.fromkeys(("chance", "guessing", "neighbours", "linear"))
    about = {"schema": FLOORS_SCHEMA, "setting": setting_of(spec), "data": data_name(spec)}
    return {**about, "problem": problem, **numbers}


def _path(spec: DataSpec, runs_dir: Path) -> Path:
    name = sha256_of(setting_of(spec).encode())[:32]
    return runs_dir / FOLDER / f"{name}.json"


def _known(spec: DataSpec, place: Workspace) -> dict[str, Any]:
    kept = _kept(spec, place.runs_dir)
    if kept is None:
        missing = missing_data(spec.name, spec.args, place.data_dir) is not None
        return _without(spec, "the data are not on this machine" if missing else NOT_MEASURED)
    return kept


def _kept(spec: DataSpec, runs_dir: Path) -> dict[str, Any] | None:
    def wrong(entry: Mapping[str, Any]) -> str:
        other = "" if entry.get("setting") == setting_of(spec) else "it is of another setting"
        return wrong_with_floor(entry) or other

    return read_map(_path(spec, runs_dir), wrong) or None
