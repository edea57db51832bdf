"""A run that trains nothing: it evaluates networks that other runs trained, together or on several crops."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.data.base import DataSet
from harness.study.machine import Machine, Stop
from harness.study.records import RunFolder
from harness.study.spec import RunSpec
from harness.training.answers import Answerer, Look, make_answers
from harness.training.environment import device_name
from harness.training.evaluate import Answers, Evaluation, evaluate
from harness.training.journal import Journal
from harness.training.kernels import record_of_kernels
from harness.training.loop import INTERRUPTED
from harness.training.metrics import make_metrics
from harness.training.outcome import Attempt, cost_of, write_diverged, write_finished
from harness.training.precision import Precision
from harness.training.progress import Progress
from harness.training.setup import check_names, load_data
from harness.training.trained import MemberError, TrainedRun, find_trained


class _StopAskedError(Exception):
    """The evaluation was left; the next attempt makes it from the start."""


def observe(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop, journal: Journal) -> str:
    """Evaluate the members of the run on every test image and write the record of a run of 0 steps.

    Each member sees the images as its own recipe says (resolution, centre crop, precision, the tricks'
    `edit_prediction`); how many crops, and which weights, says the recipe of this run.

    Returns:
        finished, diverged (the answer is NaN or infinite) or interrupted.

    Raises:
        ValueError: the recipe names something that does not exist.
        MemberError: a member has not finished, its files are missing, or it knows other classes.
    """
    start = time.perf_counter()
    recipe, device = spec.arm.recipe, torch.device(machine.device)
    check_names(recipe)
    data = load_data(recipe, machine)
    journal.see(data)
    members = [_find(run_id, spec, machine, data) for run_id in spec.member_run_ids]
    networks = [member.network(raw=recipe.eval_weights == "raw") for member in members]
    answerers = [_answerer(*each, device) for each in zip(members, networks, strict=True)]
    answers = make_answers(answerers, data, crops=recipe.eval_crops, device=device)
    progress = Progress.start(device)
    progress.wall.time_s += time.perf_counter() - start
    attempt = Attempt(
        spec=spec, data=data, progress=progress, folder=folder, machine=machine, journal=journal,
        kernels=record_of_kernels(networks))  # fmt: skip
    with progress.wall:
        progress.energy.start(machine)
        journal.start(machine, device_name=device_name(machine.device), step=0)
        try:
            result = _evaluate(attempt, answers, stop)
        except _StopAskedError:
            journal.note("stop", step=0)
            return INTERRUPTED
        if not result.is_finite:
            return write_diverged(attempt)
        recipes = [member.spec.arm.recipe for member in members]
        cost = cost_of(recipes, classes=data.classes, crops=recipe.eval_crops)
        return write_finished(attempt, result, cost)


def _find(run_id: str, spec: RunSpec, machine: Machine, data: DataSet) -> TrainedRun:
    member = find_trained(run_id, machine, MemberError)
    member.require_classes(data.classes, data.name)
    member.require_same_data(spec, data.fingerprint)
    return member


def _answerer(member: TrainedRun, model: nn.Module, device: torch.device) -> Answerer:
    recipe = member.spec.arm.recipe
    precision = Precision(recipe.precision, device)

    def logits(images: Tensor) -> Tensor:
        with precision.forward():
            return model(images)

    predict: Callable[[Tensor], Tensor] = logits
    for trick in member.tricks:
        predict = trick.edit_prediction(predict)
    return Answerer(predict=predict, look=Look.of(recipe))


def _evaluate(attempt: Attempt, answers: Answers, stop: Stop) -> Evaluation:
    """The evaluation, left between two batches when `stop()`; a line now and then shows that it goes on."""
    labels, seen, noted = attempt.data.test.labels, 0, time.monotonic()

    def answers_until_stop(indices: Tensor) -> Tensor:
        nonlocal seen, noted
        if stop():
            raise _StopAskedError
        if time.monotonic() - noted >= attempt.machine.checkpoint_every_s:
            noted = time.monotonic()
            attempt.journal.note("evaluated", images=seen, of=len(labels))
        seen += len(indices)
        return answers(indices)

    extra = make_metrics(attempt.spec.arm.recipe)
    with attempt.progress.evaluation:
        return evaluate(answers_until_stop, labels, torch.arange(len(labels)), extra)
