"""What the runs cost: time, device-hours and energy, per recipe and for a study. A sum over runs of which one
was not measured is not known; nothing here is estimated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.reporting.environments import Environment, environments
from harness.reporting.numbers import is_number
from harness.study.records import ENDED

if TYPE_CHECKING:
    from pandas import DataFrame

GPU_HOURS, CORE_HOURS = "GPU-hours", "CPU core-hours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of the runs that have ended (finished or diverged). None: not measured for all of them."""

    runs: int
    time_s: float | None  # training time of one run, mean; without evaluation and preparation
    device_hours: float | None  # sum over runs: devices x wall time; a device that runs share counts for each
    unit: str | None  # GPU_HOURS | CORE_HOURS; None: not known, or both
    energy_kj: float | None  # sum over runs, of the GPUs or of the CPU packages, as their counters say


def arm_costs(records: DataFrame) -> dict[str, Cost]:
    """arm_id -> what its runs cost; arms without an ended run are left out."""
    by_arm: dict[str, list[_Run]] = {}
    for arm_id, run in _runs(records):
        by_arm.setdefault(arm_id, []).append(run)
    return {arm_id: _cost(runs) for arm_id, runs in by_arm.items()}


def study_cost(records: DataFrame) -> Cost:
    """All runs together."""
    return _cost([run for _, run in _runs(records)])


@dataclass(frozen=True, slots=True)
class _Run:
    time_s: float | None
    device_hours: float | None
    unit: str | None
    energy_j: float | None


def _runs(records: DataFrame) -> Iterable[tuple[str, _Run]]:
    env = environments(records)
    for row in records.to_dict("records"):
        if row["status"] in ENDED:
            yield str(row["arm_id"]), _run(row, env[str(row["run_id"])])


def _run(row: Mapping[Any, Any], env: Environment) -> _Run:
    unit, devices = _devices(row, env)
    wall_s = _number(row, "wall_time_s")
    hours = None if wall_s is None or devices is None else devices * wall_s / 3600
    return _Run(_number(row, "train_time_s"), hours, unit, _number(row, "energy_j"))


def _devices(row: Mapping[Any, Any], env: Environment) -> tuple[str | None, float | None]:
    """How many GPUs, or CPU cores, a run held. Runs of before `processes` was recorded had one process."""
    if "device" not in env:
        return None, None
    processes = _number({"processes": 1, **env}, "processes")
    if env["device"] != "cpu":
        return GPU_HOURS, processes
    threads = _number({"threads": row.get("threads"), **env}, "threads")
    return CORE_HOURS, None if threads is None or processes is None else processes * threads


def _cost(runs: list[_Run]) -> Cost:
    units = {run.unit for run in runs}
    unit = units.pop() if len(units) == 1 else None
    times = _sum(run.time_s for run in runs)
    energy_j = _sum(run.energy_j for run in runs)
    return Cost(
        runs=len(runs),
        time_s=None if times is None else times / len(runs),
        device_hours=_sum(run.device_hours for run in runs) if unit else None,
        unit=unit,
        energy_kj=None if energy_j is None else energy_j / 1000,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum, whatever their order; None where one is not known, or there is none."""
    known = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return math.fsum(known) if known else None


def _number(row: Mapping[Any, Any], name: str) -> float | None:
    value = row.get(name)
    return float(value) if is_number(value) else None
