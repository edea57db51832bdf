"""Tiny runs for the tests of training: real tricks, models and data, a second or less each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.runs.folder import RunFolder
from harness.spec import Arm, AugmentSpec, DataSpec, Machine, ModelSpec, Recipe, RunSpec, TrickSpec
from harness.training.run import run_one

STEPS_PER_EPOCH = 5  # 44 images in batches of 8, the last 4 dropped
DATA_ARGS = {"classes": 4, "size": 16, "channels": 3, "train": 44, "test": 30}


def tiny_recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "model": ModelSpec(name="resnet18", args={"depth": (1, 1, 1, 1), "width": 1 / 16}),
        "data": DataSpec(name="generated", resolution=32, args=DATA_ARGS),
        "augment": AugmentSpec(crop_area=(0.5, 1.0)),
        "epochs": 2,
        "batch_size": 8,
        "lr": 0.05,
        "milestones": (1,),
    }
    return Recipe(**{**fields, **changes})


def tiny_spec(*tricks: str | TrickSpec, seed: int = 0, teacher: str | None = None, **changes: Any) -> RunSpec:
    """A spec with tricks by name (default options) and recipe fields by keyword."""
    named = tuple(TrickSpec(name=trick) if isinstance(trick, str) else trick for trick in tricks)
    return RunSpec(arm=Arm(recipe=tiny_recipe(**changes), tricks=named, teacher=teacher), seed=seed)


def machine_in(runs_dir: Path, **changes: Any) -> Machine:
    return Machine(**{"runs_dir": runs_dir, "data_dir": runs_dir / "data", **changes})


def train(spec: RunSpec, runs_dir: Path, stop: Callable[[], bool] = lambda: False, **machine: Any) -> str:
    """Train (on) a run in its own folder and return its status."""
    return run_one(spec, folder_of(spec, runs_dir), machine_in(runs_dir, **machine), stop)


def folder_of(spec: RunSpec, runs_dir: Path) -> RunFolder:
    return RunFolder(runs_dir / spec.run_id)


def stop_after(steps: int) -> Callable[[], bool]:
    """False at the first `steps` step boundaries, then True."""
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


RESULT_KEYS = ("status", "metrics", "train_loss", "steps", "images_seen", "predictions_sha256")


def results(folder: RunFolder) -> dict[str, Any]:
    """Everything of a finished run that must not depend on when it was stopped."""
    summary = folder.read_summary()
    assert summary is not None
    kept: dict[str, Any] = {key: summary[key] for key in RESULT_KEYS}
    kept["predictions"] = folder.predictions.read_bytes()
    kept["weights"] = load(folder.weights)
    kept["curve"] = [
        (event["step"], event["epoch"], event["lr"], event["train_loss"], event["val_top1"])
        for event in folder.read_events()
        if event["kind"] == "epoch"
    ]
    return kept


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def assert_same_bits(a: Any, b: Any, where: str = "value") -> None:
    """Equal structure, and equal bits in every tensor."""
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same_bits(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_same_bits(*pair, f"{where}[{index}]")
    else:
        assert a == b, where
