"""FP16 with GradScaler, and bf16: a run stopped within an epoch and resumed, beside one never stopped.

Both are trained by `harness.training.run.run_one` in the exact mode and compared bit by bit: every tensor
of weights.pt (batch-norm buffers included), the metrics and which test images were right. Before them, an
overflow at the very first step; and `measure_tests` runs the tests that need a GPU.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gpu_parts.rows import Add, Row, guarded
from gpu_parts.settings import Settings, stop_after, without_graphs
from harness.runs.folder import RunFolder
from harness.spec import Arm, AugmentSpec, DataSpec, ModelSpec, Recipe, RunSpec, TrickSpec
from harness.training.checkpoint import TrainingProgress
from harness.training.environment import configured
from harness.training.loop import train as train_loop
from harness.training.run import run_one
from harness.training.setup import build
from harness.training.weights import read_torch_file

ROOT = Path(__file__).resolve().parents[2]
HUGE_SCALE = 2.0**60
# Without what the suite sets up for all tests: that imports packages which a GPU machine lacks.
PYTEST = [sys.executable, "-m", "pytest", "--noconftest", "-o", "addopts=", "-p", "no:cacheprovider"]
PYTEST += ["-v", "--tb=short", "-m", "gpu"]
TESTS = {
    "tests/training/test_resume.py": "tests of resume",
    "tests/training/test_replica.py": "tests of two processes",
}

COMPARED = ("status", "metrics", "train_loss", "steps", "predictions_sha256")


def measure(settings: Settings, add: Add) -> None:
    what = "fp16: an overflow at step 0 changes no weight and leaves no momentum"
    row = guarded(add, what, partial(overflow, settings, what))
    if row is not None:
        add(row)
    for name in ("fp16", "bf16"):
        what = f"{name}: stopped and resumed = never stopped, exact mode"
        row = guarded(add, what, partial(compare, settings, spec(settings, name), what))
        if row is not None:
            add(row)


def measure_tests(settings: Settings, add: Add) -> None:
    """The tests of the suite that are marked `gpu`, file by file; each has half of the time that is left."""
    for place, (name, what) in enumerate(TESTS.items()):
        if not settings.is_cuda or importlib.util.find_spec("pytest") is None:
            why = "pytest is not installed here" if settings.is_cuda else "they need a GPU"
            add(Row(what=what, skipped=why))
            continue
        left_s = max(1.0, settings.stop_at_s - time.monotonic())
        add(run_tests(what, [*PYTEST, name], left_s / (len(TESTS) - place), settings.folder))


def run_tests(what: str, command: list[str], limit_s: float, folder: Path) -> Row:
    """How many passed, also where the time is over; each one that failed."""
    environment = {**os.environ, "HARNESS_CACHE": str(folder / "cache")}
    with (folder / "tests.txt").open("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, env=environment)
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
        said.seek(0)
        lines = [line.strip() for line in said if line.strip()]
    passed = sum(" PASSED" in line for line in lines)
    if code == 0:
        return Row(what=what, value=f"{passed} passed")
    failed = [line for line in lines if " FAILED" in line or line.startswith(("E  ", "ERROR"))]
    end = f"ended at its bound of {limit_s:.0f} s" if code is None else f"pytest ended with {code}"
    return Row(what=what, failed=f"{end}, {passed} passed; {'; '.join(failed or lines[-1:])}"[:900])


def overflow(settings: Settings, what: str) -> Row:
    """One step at a loss scale that no gradient survives."""
    machine = settings.machine("exact/overflow", exact=True)
    setup = build(spec(settings, "fp16"), machine)
    setup.precision.load_state_dict({**setup.precision.state_dict(), "scale": HUGE_SCALE})
    before = {name: each.clone() for name, each in setup.model.named_parameters()}
    with configured(machine):
        train_loop(
            setup, TrainingProgress.start(setup.device), stop_after(1), lambda ended: None, lambda: False
        )
    changed = [name for name, each in setup.model.named_parameters() if not same_bits(before[name], each)]
    states = setup.optimizer.state.values()
    momentum = [float(each["momentum_buffer"].abs().max()) for each in states if "momentum_buffer" in each]
    scale = setup.precision.state_dict()["scale"]
    wrong = []
    if changed:
        wrong.append(f"{len(changed)} tensors changed, first {changed[0]}")
    if any(each != 0 for each in momentum):  # also NaN
        wrong.append(f"momentum up to {max(momentum):.3g}")
    if scale != HUGE_SCALE / 2:
        wrong.append(f"the loss scale is {scale:g}, not {HUGE_SCALE / 2:g}")
    note = f"{len(before)} weights, {len(momentum)} momentum buffers"
    return Row(what=what, failed="; ".join(wrong) or None, value=None if wrong else "yes", note=note)


def spec(settings: Settings, precision: str) -> RunSpec:
    """A ResNet-D whose tricks keep state (EMA) and draw numbers (mixup), on a generated set."""
    images, batch = settings.pick((1024, 32), (64, 16))
    model = {"depth": (1, 1, 1, 1), "width": settings.pick(0.25, 1 / 16), "stride_in": "3x3"}
    recipe = Recipe(
        model=ModelSpec(name="resnet50", args={**model, "stem": "deep", "shortcut": "avgpool"}),
        data=DataSpec(name="generated", resolution=32, args={"train": images, "test": 256}),
        augment=AugmentSpec(),
        epochs=2,
        batch_size=batch,
        lr=0.05,
        schedule="cosine",
        precision=precision,
    )
    tricks = (TrickSpec(name="label_smoothing"), TrickSpec(name="mixup"), TrickSpec(name="ema"))
    return RunSpec(arm=Arm(recipe=recipe, tricks=tricks), seed=0)


def compare(settings: Settings, spec: RunSpec, what: str) -> Row:
    """Train the run twice.

    Raises:
        RuntimeError: the interruption or the resumption did not happen, so nothing was compared.
    """
    whole = train(settings, "whole", spec, stop_at=None)
    steps = whole.read_summary()["steps"]
    stop_at = steps * 5 // 8  # within the second of two epochs
    stopped = train(settings, "stopped", spec, stop_at=stop_at)
    scale = read_torch_file(stopped.checkpoint)["precision"].get("scale")
    train(settings, "stopped", spec, stop_at=None)
    attempts = [event for event in stopped.read_events() if event["kind"] == "attempt"]
    resumed = [event["resumed_from_step"] for event in attempts]
    if resumed != [0, stop_at]:
        raise RuntimeError(f"attempts started at steps {resumed}, not at 0 and {stop_at}")
    wrong = differences(whole, stopped)
    note = f"stopped after {stop_at} of {steps} steps"
    if settings.is_cuda:
        wrong += [f"replayed and made, {each}" for each in differences(whole, made(settings, spec))]
        note += f", {how_made(whole)}"
    if scale is not None:
        note += f" at loss scale {scale:g}"
    if wrong:
        return Row(what=what, failed="not bit-identical: " + "; ".join(wrong[:4]), note=note)
    tensors = len(read_torch_file(whole.weights))
    return Row(what=what, value="bit-identical", note=f"{tensors} tensors, metrics, predictions; {note}")


def train(settings: Settings, name: str, spec: RunSpec, stop_at: int | None) -> RunFolder:
    """Train in the folder of this name, to the end or for `stop_at` steps."""
    machine = settings.machine(f"exact/{spec.arm.recipe.precision}/{name}", exact=True)
    folder = RunFolder(machine.runs_dir / spec.run_id)
    status = run_one(spec, folder, machine, (lambda: False) if stop_at is None else stop_after(stop_at))
    expected = "finished" if stop_at is None else "interrupted"
    if status != expected:
        raise RuntimeError(f"the run ended as '{status}', not '{expected}'")
    return folder


def made(settings: Settings, spec: RunSpec) -> RunFolder:
    """The same run without CUDA graphs."""
    with without_graphs():
        return train(settings, "made", spec, stop_at=None)


def how_made(folder: RunFolder) -> str:
    """Whether the steps of a run were replayed from a graph, and else why not."""
    reasons = [event["message"] for event in folder.read_events() if event["kind"] == "eager"]
    return f"steps made one by one: {reasons[0]}" if reasons else "steps replayed"


def differences(a: RunFolder, b: RunFolder) -> list[str]:
    """What is not the same in two finished runs, in words."""
    one, other = a.read_summary(), b.read_summary()
    assert one is not None
    assert other is not None
    wrong = [f"{key}: {one[key]} and {other[key]}" for key in COMPARED if one[key] != other[key]]
    weights, others = read_torch_file(a.weights), read_torch_file(b.weights)
    if list(weights) != list(others):
        return [*wrong, "names of tensors"]
    return wrong + [
        f"{name} differs by up to {largest(weights[name], others[name]):.2g}"
        for name in weights
        if not same_bits(weights[name], others[name])
    ]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def largest(a: Any, b: Any) -> float:
    return float((a.double() - b.double()).abs().max())
