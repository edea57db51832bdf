"""What a run leaves behind when it has ended: weights, predictions, env.json and, last, summary.json."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.models.costs import lookup
from harness.study.machine import Machine
from harness.study.records import DIVERGED, FINISHED, RunFolder, write_bytes, write_json
from harness.study.spec import SCHEMA_VERSION
from harness.training.environment import describe, device_name
from harness.training.evaluate import Evaluation, evaluate
from harness.training.journal import Journal
from harness.training.progress import Progress
from harness.training.setup import Setup
from harness.training.tensors import write_torch_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One process's work on a run."""

    setup: Setup
    progress: Progress
    folder: RunFolder
    machine: Machine
    journal: Journal


def read_out(attempt: Attempt) -> str:
    """Evaluate on the whole test set and write every result.

    Returns:
        finished; diverged where the trained network answers with NaN or infinity.
    """
    setup = attempt.setup
    model = setup.eval_model()
    predict = setup.predict(model)
    for trick in setup.tricks:
        predict = trick.edit_prediction(predict)
    labels = setup.data.test.labels
    with attempt.progress.evaluation:
        result = evaluate(predict, setup.test_images, labels, torch.arange(len(labels)))
    if not result.is_finite:
        return write_diverged(attempt)
    write_torch_file(attempt.folder.weights, portable_state(model))
    write_bytes(attempt.folder.predictions, result.packed())
    metrics = {"top1": result.top1, "top5": result.top5, "loss": result.loss}
    _write_end(attempt, FINISHED, metrics=metrics, predictions_sha256=_sha256(result))
    return FINISHED


def write_diverged(attempt: Attempt) -> str:
    """The loss became NaN or infinite: an outcome without metrics."""
    attempt.journal.note("diverged", step=attempt.progress.step)
    _write_end(attempt, DIVERGED, metrics={}, predictions_sha256=None)
    return DIVERGED


def portable_state(model: nn.Module) -> dict[str, Any]:
    """The state dict on the CPU in torch's default memory format."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def _sha256(result: Evaluation) -> str:
    return hashlib.sha256(result.packed()).hexdigest()


def _write_end(attempt: Attempt, status: str, **results: Any) -> None:
    folder = attempt.folder
    write_json(folder.env, describe(attempt.machine))
    attempt.journal.note("end", status=status, step=attempt.progress.step)
    write_json(folder.summary, {**_facts(attempt), **_work(attempt), "status": status, **results})
    folder.checkpoint.unlink(missing_ok=True)


def _facts(attempt: Attempt) -> dict[str, Any]:
    """Who this run is and what it ran on."""
    setup, recipe = attempt.setup, attempt.setup.recipe
    params, macs = lookup(
        recipe.model.name, recipe.model.args, resolution=recipe.data.resolution, classes=setup.data.classes
    )
    return {
        "schema": SCHEMA_VERSION,
        "run_id": setup.spec.run_id,
        "arm_id": setup.spec.arm.arm_id,
        "seed": setup.spec.seed,
        "read_out": recipe.read_out,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "precision": recipe.precision,
        "model": recipe.model.name,
        "params": params,
        "macs": macs,
        "data": setup.data.name,
        "data_fingerprint": setup.data.fingerprint,
        "classes": setup.data.classes,
        "test_images": len(setup.data.test.labels),
        "device": device_name(attempt.machine.device),
        "threads": attempt.machine.threads,
        "torch": torch.__version__,
    }


def _work(attempt: Attempt) -> dict[str, Any]:
    """What was done, and the time of the steps that led to the result, over all attempts."""
    progress, setup = attempt.progress, attempt.setup
    images = progress.step * min(setup.recipe.batch_size, len(setup.data.train.labels))
    ended_s = time.time()
    return {
        "steps": progress.step,
        "images_seen": images,
        "train_loss": progress.train_loss,
        "train_time_s": progress.train.time_s,
        "eval_time_s": progress.evaluation.time_s,
        "wall_time_s": progress.wall.running_s,
        "images_per_s": images / progress.train.time_s,
        "attempts": attempt.journal.attempt,
        "started_s": attempt.journal.started_s or ended_s - progress.wall.running_s,
        "ended_s": ended_s,
    }
