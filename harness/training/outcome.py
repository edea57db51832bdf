"""What a run leaves behind when it has ended: weights, predictions, env.json and, last, summary.json."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from harness.data.base import DataSet
from harness.models.costs import lookup
from harness.study.machine import Machine
from harness.study.other_data import built_on
from harness.study.records import DIVERGED, FINISHED, RunFolder, write_bytes, write_json
from harness.study.spec import SCHEMA_VERSION, Recipe, RunSpec
from harness.training.environment import describe, device_name
from harness.training.evaluate import Evaluation, evaluate, median
from harness.training.journal import Journal
from harness.training.progress import Progress
from harness.training.setup import Setup
from harness.training.tensors import write_torch_file
from harness.training.trained import evaluates_another


class Cost(NamedTuple):
    """Parameters, and multiply-adds for one test image."""

    params: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One process's work on a run: of training, or of evaluating networks that others trained."""

    spec: RunSpec
    data: DataSet
    progress: Progress
    folder: RunFolder
    machine: Machine
    journal: Journal
    # `kernels.record` of the run's networks.
    kernels: Mapping[str, Any] = field(default_factory=dict)


def evaluate_result(setup: Setup) -> Evaluation:
    """One pass over the whole test set, as the recipe and the tricks evaluate."""
    labels = setup.data.test.labels
    every = torch.arange(len(labels))
    return evaluate(setup.result_answers(), labels, every, setup.metrics, world=setup.world)


def read_out(attempt: Attempt, setup: Setup) -> str:
    """Write every result: of the evaluations kept while training, or of one made now. Of several processes
    all evaluate, and the first one writes.

    Returns:
        finished; diverged where the trained network answers with NaN or infinity.
    """
    progress, folder = attempt.progress, attempt.folder
    if not progress.kept:
        with progress.evaluation:
            progress.kept.append(evaluate_result(setup))
    if not setup.world.is_main:
        return FINISHED
    if not all(each.is_finite for each in progress.kept):
        return write_diverged(attempt)
    attempt.journal.require_folder()
    write_torch_file(folder.weights, portable_state(setup.eval_model()))
    if evaluates_another(setup.tricks):
        write_torch_file(folder.raw_weights, portable_state(setup.model))
    recipe = setup.recipe
    return write_finished(attempt, median(progress.kept), cost_of([recipe], classes=setup.data.classes))


def write_finished(attempt: Attempt, result: Evaluation, cost: Cost) -> str:
    """The predictions and the summary, after everything else."""
    attempt.journal.require_folder()
    write_bytes(attempt.folder.predictions, result.packed())
    digest = hashlib.sha256(result.packed()).hexdigest()
    write_end(attempt, FINISHED, cost, metrics=result.metrics, predictions_sha256=digest)
    return FINISHED


def write_diverged(attempt: Attempt) -> str:
    """The loss became NaN or infinite: an outcome without metrics."""
    attempt.journal.note("diverged", step=attempt.progress.step)
    cost = cost_of([attempt.spec.arm.recipe], classes=attempt.data.classes)
    write_end(attempt, DIVERGED, cost, metrics={}, predictions_sha256=None)
    return DIVERGED


def cost_of(recipes: Sequence[Recipe], *, classes: int, crops: int = 1) -> Cost:
    """What it costs to answer one image with the networks of these recipes and so many crops each."""
    costs = [
        lookup(recipe.model.name, recipe.model.args, resolution=recipe.data.resolution, classes=classes)
        for recipe in recipes
    ]
    return Cost(params=sum(cost[0] for cost in costs), macs=crops * sum(cost[1] for cost in costs))


def portable_state(model: nn.Module) -> dict[str, Any]:
    """The state dict on the CPU in torch's default memory format."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def write_end(attempt: Attempt, status: str, cost: Cost, **results: Any) -> None:
    """env.json and, last, the summary: the run has ended."""
    folder, env = attempt.folder, {**describe(attempt.machine), "kernels": dict(attempt.kernels)}
    if attempt.data.left_out:
        env["data_left_out"] = "; ".join(attempt.data.left_out)
    attempt.journal.require_folder()
    write_json(folder.env, env)
    attempt.journal.note("end", status=status, step=attempt.progress.step)
    facts = {**_facts(attempt), **cost._asdict(), **_work(attempt)}
    attempt.journal.require_folder()
    write_json(folder.summary, {**facts, "status": status, **results})
    folder.checkpoint.unlink(missing_ok=True)


def _facts(attempt: Attempt) -> dict[str, Any]:
    """Who this run is and what it ran on."""
    spec, data = attempt.spec, attempt.data
    recipe = spec.arm.recipe
    return {
        "schema": SCHEMA_VERSION,
        "run_id": spec.run_id,
        "arm_id": spec.arm.arm_id,
        "seed": spec.seed,
        "read_out": recipe.read_out,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "precision": recipe.precision,
        "model": recipe.model.name,
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "train_fingerprint": data.part_fingerprints[0],
        "test_fingerprint": data.part_fingerprints[1],
        **_built_on(attempt),
        "classes": data.classes,
        "test_images": len(data.test.labels),
        "device": device_name(attempt.machine.device),
        "threads": attempt.machine.threads,
        "torch": torch.__version__,
    }


def _built_on(attempt: Attempt) -> dict[str, str]:
    """The data that the runs saw whose networks this one uses; nothing where it uses none."""
    spec = attempt.spec
    ids = [each for each in (spec.teacher_run_id, spec.source_run_id, *spec.member_run_ids) if each]
    found = [(each, RunFolder(attempt.machine.runs_dir / each).read_summary() or {}) for each in ids]
    return {"built_on": built_on(found)} if ids else {}


def _work(attempt: Attempt) -> dict[str, Any]:
    """What was done, and the time of the steps that led to the result, over all attempts."""
    progress, data = attempt.progress, attempt.data
    images = progress.step * min(attempt.spec.arm.recipe.batch_size, len(data.train.labels))
    ended_s = time.time()
    return {
        "steps": progress.step,
        "images_seen": images,
        "train_loss": progress.train_loss,
        "train_time_s": progress.train.time_s,
        "eval_time_s": progress.evaluation.time_s,
        "wall_time_s": progress.wall.running_s,
        "energy_j": progress.energy.joules(),
        "energy_source": progress.energy.source,
        "images_per_s": images / progress.train.time_s if images else None,
        "attempts": attempt.journal.attempt,
        "started_s": attempt.journal.started_s or ended_s - progress.wall.running_s,
        "ended_s": ended_s,
    }
