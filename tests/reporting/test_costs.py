"""Costs are sums of what was measured, and nothing where one part was not."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from harness.reporting.report_input import CORE_HOURS, GPU_HOURS, RunCost, arm_costs, study_cost

CPU = {"device": "cpu", "threads": 1, "processes": 2}
GPU = {"device": "cuda:0", "processes": 4, "threads": 1}


def runs(*rows: dict[str, Any]) -> pd.DataFrame:
    """One record per row; env may be left out."""
    whole = {
        "arm_id": "a",
        "status": "finished",
        "train_time_s": 90.0,
        "wall_time_s": 3600.0,
        "energy_j": 5e4,
    }
    records = [{**whole, "run_id": str(number), "env": None, **row} for number, row in enumerate(rows)]
    return pd.DataFrame(records)


def test_gpu_hours_are_gpus_times_wall_time_and_core_hours_threads_times_wall_time():
    records = runs({"env": json.dumps(GPU)}, {"env": json.dumps(CPU), "arm_id": "b", "train_time_s": 30.0})
    costs = arm_costs(records)
    assert costs["a"] == RunCost(runs=1, time_s=90, device_hours=4, unit=GPU_HOURS, energy_kj=50)
    assert costs["b"] == RunCost(runs=1, time_s=30, device_hours=2, unit=CORE_HOURS, energy_kj=50)
    together = study_cost(records)
    assert (together.runs, together.time_s, together.energy_kj) == (2, 60, 100)
    assert together.device_hours is together.unit is None  # GPU-hours and core-hours have no sum


def test_times_are_means_and_hours_and_joules_sums_over_the_runs_that_ended():
    env = json.dumps(CPU)
    records = runs(
        {"env": env},
        {"env": env, "train_time_s": 30.0, "wall_time_s": 1800.0, "status": "diverged"},
        {"env": env, "status": "failed", "wall_time_s": 1e9},
    )
    assert study_cost(records) == RunCost(runs=2, time_s=60, device_hours=3, unit=CORE_HOURS, energy_kj=100)


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_one_run_without_a_measurement_leaves_the_sum_unknown(absent: Any):
    env = json.dumps(CPU)
    assert study_cost(runs({"env": env}, {"env": env, "energy_j": absent})).energy_kj is None
    assert study_cost(runs({"env": env}, {"env": env, "wall_time_s": absent})).device_hours is None
    assert study_cost(runs({"env": env}, {"env": env, "train_time_s": absent})).time_s is None


@pytest.mark.parametrize("env", [None, "", "{", "[1]", '{"device": "cuda:0", "processes": "four"}'])
def test_a_run_of_an_unknown_machine_has_no_device_hours(env: str | None):
    assert study_cost(runs({"env": json.dumps(GPU)}, {"env": env})).device_hours is None


def test_records_of_an_older_report_have_times_only():
    old = runs({}).drop(columns=["env", "energy_j", "wall_time_s"])
    assert study_cost(old) == RunCost(runs=1, time_s=90, device_hours=None, unit=None, energy_kj=None)


def test_nothing_that_ended_costs_nothing_that_is_known():
    none = runs({"status": "failed"})
    assert arm_costs(none) == {}
    assert study_cost(none) == RunCost(runs=0, time_s=None, device_hours=None, unit=None, energy_kj=None)
