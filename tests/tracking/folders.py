"""Run folders as training writes them, without training anything."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.runs.folder import RunFolder, write_bytes, write_json
from harness.spec import FINISHED, Arm, DataSpec, Member, ModelSpec, Recipe, RunSpec, TrickSpec

STARTED_S = 1_700_000_000.0
TEST_IMAGES = 1001


def observer_spec(members: int = 3, seed: int = 0) -> RunSpec:
    """An ensemble of the runs of `run_spec`: it trains nothing."""
    arm = run_spec().arm
    recipe = replace(arm.recipe, eval_crops=10)
    return RunSpec(arm=Arm(recipe=recipe, observes=(Member(arm=arm.arm_id, runs=members),)), seed=seed)


def run_spec(lr: float = 0.1, seed: int = 0) -> RunSpec:
    recipe = Recipe(
        model=ModelSpec(name="resnet50", args={"width": 0.25, "depth": (1, 1, 1, 1)}),
        data=DataSpec(name="fashion_mnist", resolution=32, args={"full": False}),
        lr=lr,
    )
    return RunSpec(
        arm=Arm(recipe=recipe, tricks=(TrickSpec(name="mixup", options={"alpha": 0.2}),)), seed=seed
    )


def start(runs_dir: Path, spec: RunSpec) -> RunFolder:
    """A folder with a spec and one attempt."""
    folder = RunFolder(runs_dir / spec.run_id)
    write_json(folder.spec, spec.to_json())
    event(folder, "attempt", 0, attempt=1, device="cpu", device_name="a small CPU", threads=1)
    return folder


def event(folder: RunFolder, kind: str, after_s: float, **values: Any) -> None:
    folder.append_event(kind, **{**values, "time_s": STARTED_S + after_s})


def epoch(folder: RunFolder, number: int, **values: Any) -> None:
    """The line of one epoch of ten steps."""
    event(
        folder,
        "epoch",
        number,
        **{
            "epoch": float(number),
            "step": 10 * number,
            "lr": 0.1 / number,
            "train_loss": 2 / 3 / number,
            "val_top1": 50.0 + number,
            "images_per_s": 1234.5,
            **values,
        },
    )


def finish(
    folder: RunFolder, spec: RunSpec, *, status: str = FINISHED, epochs: int = 3, **metrics: float
) -> None:
    """Predictions and a summary with floats that have no short decimal form. `metrics`: of plugins."""
    rng = np.random.default_rng(spec.seed)
    right = rng.random(TEST_IMAGES) < 0.8
    packed = np.packbits(right).tobytes()
    done = status == FINISHED
    if done:
        write_bytes(folder.predictions, packed)
    write_json(folder.env, {"python": "3.11"})
    accuracies = {"top1": 100 * right.mean(), "top5": 100 * 2 / 3, "loss": 1 / 3}
    metrics = {**accuracies, **metrics} if done else {}
    write_json(
        folder.summary,
        {
            "schema": 1,
            "run_id": spec.run_id,
            "arm_id": spec.arm.arm_id,
            "seed": spec.seed,
            "status": status,
            "metrics": metrics,
            "epochs": float(epochs),
            "steps": 10 * epochs,
            "images_seen": 1280 * epochs,
            "train_loss": 0.1 + 0.2 if epochs else None,
            "train_time_s": 1.1 if epochs else 0.0,
            "eval_time_s": 0.1,
            "wall_time_s": 1.3,
            "images_per_s": 1280 * epochs / 1.1,
            "params": 123456,
            "macs": 7654321,
            "model": "resnet50",
            "precision": "fp32",
            "batch_size": 128,
            "data": "fashion_mnist",
            "data_fingerprint": "ab" * 32,
            "attempts": 1,
            "started_s": STARTED_S,
            "ended_s": STARTED_S + 10.25,
            "device": "a small CPU",
            "threads": 1,
            "torch": "2.13.0",
            "test_images": TEST_IMAGES,
            "predictions_sha256": hashlib.sha256(packed).hexdigest() if done else None,
        },
    )


def finished(runs_dir: Path, lr: float = 0.1, seed: int = 0, epochs: int = 3) -> RunFolder:
    spec = run_spec(lr, seed)
    folder = start(runs_dir, spec)
    for number in range(1, epochs + 1):
        epoch(folder, number)
    finish(folder, spec, epochs=epochs)
    return folder
