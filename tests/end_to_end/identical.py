"""Identical trainings that nobody made: every run of the shipped calibration study has ended."""

from __future__ import annotations

import argparse

import numpy as np

from harness.commands.calibrate import OWN_STUDY
from harness.commands.workspace import Workspace, first_plan
from harness.spec import RunSpec
from harness.study.plan import Plan
from tests import ended

ABOUT = {"model": "bn_mlp", "data": "fashion_mnist", "device": "a cpu", "threads": 1, "torch": "2"}


def make_identical_runs(place: Workspace, runs: int) -> Plan:
    """Normal accuracies around 60 %, and the plan that asks for them."""
    how = argparse.Namespace(study=OWN_STUDY, size="mini", seeds=runs, smoke=False)
    plan = first_plan(how, place)
    values = np.random.default_rng(0).normal(60.0, 2.0, size=runs)
    for run, value in zip(plan.runs, values, strict=True):
        end(place, plan.spec(run), float(value))
    return plan


def end(place: Workspace, spec: RunSpec, top1: float | None) -> None:
    """A finished run with this accuracy, or without one."""
    metrics = {} if top1 is None else {"top1": top1}
    ended.end(place.folder(spec.run_id), spec, metrics=metrics, data_fingerprint="f", **ABOUT)
