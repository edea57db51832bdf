"""A training function of a plugin in place of the harness's own: what it is given, what it must answer.

def train(spec, run):                    # spec: harness.spec.RunSpec
    ...
    return {"top1": 71.3}                # percent on the test set; further keys: see `check_answer`

TRAINERS = {"mine": train}
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.entry import DataSet
from harness.errors import unknown
from harness.plugins import TRAINERS
from harness.plugins.load import from_exception
from harness.runs.folder import RunFolder, write_bytes
from harness.spec import ACCURACIES, FINISHED, Machine, Recipe, RunSpec, Stop
from harness.training.checkpoint import TrainingProgress
from harness.training.environment import device_name
from harness.training.evaluate import evaluate
from harness.training.feed import seed_default
from harness.training.loop import INTERRUPTED
from harness.training.record import Attempt, Journal, cost_of, write_end
from harness.training.setup import load_data, make_metrics

OWN_FOLDER = "trainer"  # in the run folder: the function's own files, e.g. its checkpoints
NUMBERS = (*ACCURACIES, "loss")


@dataclass(slots=True, kw_only=True)
class Run:
    """What a training function may use of the harness. It may also use nothing of it."""

    folder: Path  # the function's own files; kept from one attempt at the run to the next
    device: str  # cpu | cuda:0 ...
    threads: int
    seed: int  # torch's default generator is seeded from it already
    _data: DataSet
    _journal: Journal
    _stop: Stop
    _points: int = 0
    _last_loss: float | None = None
    _stopped: bool = False

    def data(self) -> DataSet:
        """The study's data set: `train` and `test` with images and labels (harness.data.entry)."""
        return self._data

    def log(
        self,
        *,
        step: int | None = None,
        epoch: float | None = None,
        val_top1: float | None = None,
        train_loss: float | None = None,
    ) -> None:
        """One point of the learning curve. `step` must rise; left out, points are counted."""
        self._points = self._points + 1 if step is None else int(step)
        loss = None if train_loss is None else float(train_loss)
        self._last_loss = self._last_loss if loss is None else loss
        self._journal.epoch(
            self._points,
            epoch=float(self._points if epoch is None else epoch),
            val_top1=None if val_top1 is None else float(val_top1),
            train_loss=loss if loss is None or math.isfinite(loss) else None,
            lr=None,
            images_per_s=None,
        )

    def should_stop(self) -> bool:
        """Ask now and then: True means save what is needed into `folder` and return None soon."""
        self._stopped = self._stopped or self._stop()
        return self._stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A training function's answer, checked."""

    metrics: Mapping[str, float]
    predictions: bytes | None = None  # one bit per test image


def train_custom(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop, journal: Journal) -> str:
    """Let the recipe's training function train the run, and write its record.

    Returns:
        finished or interrupted.

    Raises:
        PluginError: the function raised; with the line in the user's file.
        ValueError: there is no such function, or its answer is not one.
    """
    recipe = spec.arm.recipe
    if recipe.trainer not in TRAINERS:
        raise ValueError(unknown("trainer", recipe.trainer, ["harness", *TRAINERS]))
    progress = TrainingProgress.start(torch.device(machine.device))
    start = time.perf_counter()
    data = load_data(recipe, machine)
    journal.see(data)
    own = folder.path / OWN_FOLDER
    own.mkdir(exist_ok=True)
    progress.wall.time_s += time.perf_counter() - start
    run = Run(
        folder=own, device=machine.device, threads=machine.threads, seed=spec.seed,
        _data=data, _journal=journal, _stop=stop,
    )  # fmt: skip
    attempt = Attempt(
        spec=spec, data=data, progress=progress, folder=folder, machine=machine, journal=journal
    )
    with progress.wall:
        progress.energy.start(machine, knows_earlier=journal.attempt == 1)
        journal.start(machine, device_name=device_name(machine.device), step=0)
        with progress.train:
            given = _call(recipe.trainer, spec, run)
        if given is None and run._stopped:
            journal.note("stop", step=0)
            return INTERRUPTED
        given = measured(given, recipe, data.test.labels)
        answer = check_answer(given, recipe.trainer, images=len(data.test.labels), extra=recipe.metrics)
        progress.train_loss = run._last_loss
        _write(attempt, answer)
    return FINISHED


def _call(name: str, spec: RunSpec, run: Run) -> Any:
    function = TRAINERS[name]
    seed_default(spec.seed, f"trainer/{name}")
    try:
        return function(spec, run)
    except Exception as error:
        path = Path(getattr(getattr(function, "__code__", None), "co_filename", name))
        raise from_exception(error, path, f"trainer '{name}'") from error


def measured(given: Any, recipe: Recipe, labels: Tensor) -> Any:
    """The numbers of {"logits": (N, K)}, one row per test image in their order; another answer as it is.

    Raises:
        ValueError: logits of another form, or together with other keys.
    """
    if not isinstance(given, Mapping) or "logits" not in given:
        return given
    logits = torch.as_tensor(given["logits"]).detach().cpu()
    if len(given) > 1 or logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(
            f"trainer '{recipe.trainer}': logits must be alone and of shape ({len(labels)}, classes), one "
            f"row per test image; it returned {', '.join(map(str, given))} with logits {tuple(logits.shape)}"
        )
    every = torch.arange(len(labels))
    result = evaluate(lambda indices: logits[indices], labels, every, make_metrics(recipe))
    return {**result.metrics, "correct": result.correct}


def check_answer(given: Any, name: str, *, images: int, extra: tuple[str, ...] = ()) -> Answer:
    """What a training function may return if not {"logits": (N, K)}: `top1` in percent; where it has them,
    `top5` in percent, `loss` in nats, and `correct`, one truth value per test image in their order; every
    metric that the study asks for.

    Raises:
        ValueError: it is something else; in words for whoever wrote the function.
    """
    if not isinstance(given, Mapping) or "top1" not in given:
        what = "None, although it was not asked to stop" if given is None else f"{given!r:.80}"
        raise ValueError(f"trainer '{name}' must return a dict with 'top1' in percent; it returned {what}")
    valid = (*NUMBERS, *extra, "correct")
    for key in given:
        if key not in valid:
            raise ValueError(f"trainer '{name}' returned an {unknown('key', str(key), valid)}")
    absent = [key for key in extra if key not in given]
    if absent:
        raise ValueError(f"trainer '{name}' did not return the study's metric '{absent[0]}'")
    metrics = {key: _number(given[key], key, name) for key in valid[:-1] if given.get(key) is not None}
    if "correct" not in given or given["correct"] is None:
        return Answer(metrics=metrics)
    correct = np.asarray(torch.as_tensor(given["correct"]).cpu()).ravel()
    if correct.dtype != np.bool_ or len(correct) != images:
        raise ValueError(
            f"trainer '{name}': correct must have one truth value for each of the {images} test images, "
            f"it has {len(correct)} of type {correct.dtype}"
        )
    share = 100 * float(correct.mean())
    if abs(share - metrics["top1"]) > 50 / images:  # half an image: rounding, not another result
        raise ValueError(f"trainer '{name}': top1 is {metrics['top1']:g}, but correct says {share:g} percent")
    return Answer(metrics=metrics, predictions=np.packbits(correct).tobytes())


def _number(value: Any, key: str, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    percent = key in ACCURACIES
    if not math.isfinite(number) or (percent and not 0 <= number <= 100):
        words = "a percentage from 0 to 100" if percent else "a finite number"
        raise ValueError(f"trainer '{name}': {key} must be {words}, got {value!r:.80}")
    return number


def _write(attempt: Attempt, answer: Answer) -> None:
    recipe, digest = attempt.spec.arm.recipe, None
    if answer.predictions is not None:
        attempt.journal.require_folder()
        write_bytes(attempt.folder.predictions, answer.predictions)
        digest = hashlib.sha256(answer.predictions).hexdigest()
    cost = cost_of([recipe], classes=attempt.data.classes)  # of the model that the study names
    write_end(attempt, FINISHED, cost, metrics=dict(answer.metrics), predictions_sha256=digest)
