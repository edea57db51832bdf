"""Train one run from its spec to its summary, go on where it stopped, or evaluate what others trained."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch import Tensor, nn

from harness.data.entry import DataSet
from harness.errors import DeviceLostError, unknown
from harness.plugins.install import TRAINERS, load_stored, only
from harness.plugins.load import from_exception
from harness.runs.folder import RunFolder, exclusive, write_bytes, write_json
from harness.runs.records import Specs, event_of, read_quickly, summary_of
from harness.spec import (
    ACCURACIES,
    DIVERGED,
    FINISHED,
    TOO_FEW_NORM_IMAGES,
    Machine,
    Recipe,
    RunSpec,
    Stop,
    norm_images_in_words,
)
from harness.training import record
from harness.training.checkpoint import CheckpointError, TrainingProgress, load_checkpoint
from harness.training.environment import (
    configured,
    cuda_in_words,
    device_name,
    is_lost,
    is_out_of_memory,
    lacks_memory,
    note_peak,
    release_memory,
    require_device,
)
from harness.training.evaluate import Answerer, Answers, Evaluation, Viewing, evaluate, make_answers
from harness.training.feed import seed_default
from harness.training.graphs import without_graphs
from harness.training.kernels import record_of_kernels
from harness.training.loop import INTERRUPTED, train
from harness.training.optim import Precision
from harness.training.parallel import World
from harness.training.record import Attempt, Journal, Recorder, Unwritten, cost_of, write_end
from harness.training.setup import (
    MemberError,
    Setup,
    TrainedRun,
    build,
    check_names,
    find_trained,
    load_data,
    make_metrics,
)

# A training function of a plugin in place of the harness's own: what it is given, what it must answer.
#
# def train(spec, run):                    # spec: harness.spec.RunSpec
#     ...
#     return {"top1": 71.3}                # percent on the test set; further keys: see `check_answer`
#
# TRAINERS = {"mine": train}


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
        given = measured(given, recipe, data)
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


def measured(given: Any, recipe: Recipe, data: DataSet) -> Any:
    """The numbers of {"logits": (N, K)}, one row per test image in their order; another answer as it is.

    Raises:
        ValueError: logits of another form, or together with other keys.
    """
    if not isinstance(given, Mapping) or "logits" not in given:
        return given
    logits, labels = torch.as_tensor(given["logits"]).detach().cpu(), data.test.labels
    if len(given) > 1 or logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(
            f"trainer '{recipe.trainer}': logits must be alone and of shape ({len(labels)}, classes), one "
            f"row per test image; it returned {', '.join(map(str, given))} with logits {tuple(logits.shape)}"
        )
    every = torch.arange(len(labels))
    result = evaluate(lambda indices: logits[indices], labels, every, make_metrics(recipe, data))
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


# A run that trains nothing: it evaluates networks that other runs trained, together or on several crops.


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
    progress = TrainingProgress.start(device)
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
            return record.write_diverged(attempt)
        recipes = [member.spec.arm.recipe for member in members]
        cost = record.cost_of(recipes, classes=data.classes, crops=recipe.eval_crops)
        return record.write_finished(attempt, result, cost)


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
    return Answerer(predict=predict, look=Viewing.of(recipe))


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

    extra = make_metrics(attempt.spec.arm.recipe, attempt.data)
    with attempt.progress.evaluation:
        return evaluate(answers_until_stop, labels, torch.arange(len(labels)), extra)


# Train one run from its spec to its summary, or go on where an earlier attempt stopped.


ROOM_S = 600.0  # that a run waits for memory of its GPU before it begins
NEIGHBOUR_S = 10.0  # after which a neighbour on the GPU may have come past its peak of memory
SET_ASIDE = "summary.json.aside"  # an end that does not belong to the folder it was found in


def run_one(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Train (or resume) one run and write its record into `folder`.

    Several processes train it together where the machine says so and they are called alike, each with its
    own device: the first one decides, waits for the lock and writes, and its answer counts. Runs that it
    makes alone (those that observe others, a training function of the user's own) the others leave at once.

    Waits while another process trains the same run. A run that has ended is not trained again. A run that
    observes others trains nothing and evaluates them (`harness.training.run`); the recipe may name a
    training function of the user's own (`harness.training.run`). User code comes from the store of the
    runs folder, as it was when the run was submitted.

    Returns:
        finished, diverged, or interrupted (`stop()` was True; the next call goes on from that step).

    Raises:
        DeviceLostError: its GPU cannot be used by this process any more; by another one perhaps.
        DeviceUnusableError: nothing can be begun on it.
        Exception: the run cannot be trained; there is no summary. The scheduler records why.
    """
    release_memory()  # what a run that failed here held until its error was recorded
    require_device(machine)
    try:
        return _run_one(spec, folder, machine, stop)
    except Exception as error:
        if is_lost(machine.device):
            message = (
                f"{machine.shown_device} cannot be used by this process any more: {cuda_in_words(error)}"
            )
            raise DeviceLostError(message) from error
        raise
    finally:
        release_memory()


def _run_one(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    with World.join(machine) as world:
        if not world.is_main:
            return world.tell() or _attempt(spec, folder, machine, stop, Unwritten(folder), world)
        folder.path.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.lock, stop) as held:
            ended = world.tell(_status(spec, folder) if held else INTERRUPTED)
            return ended or _attempt(spec, folder, machine, stop, Journal(folder), world)


def _status(spec: RunSpec, folder: RunFolder) -> str:
    """finished or diverged, and then no checkpoint is left; nothing for a run that has not ended.

    Writes the spec where it is missing or damaged: the folder's name says which it was. What the run came to
    is kept, unless the folder was made anew (by a version that wrote into deleted folders) or lost results.

    Raises:
        OSError: a file is there and cannot be read.
    """
    if not _has_spec(folder):
        if folder.summary.exists() and not _is_whole(folder):
            folder.summary.replace(folder.path / SET_ASIDE)
        write_json(folder.spec, spec.to_json())
    if folder.summary.exists():
        read_quickly(folder.summary)  # one that cannot be read now may be a good one: the run fails, in words
    summary = folder.read_summary()
    if summary is None:
        return ""
    folder.checkpoint.unlink(missing_ok=True)
    return str(summary["status"])


def _has_spec(folder: RunFolder) -> bool:
    """As `RunFolder.has_spec`; a file that cannot be read now says nothing about what it holds.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        return not Specs().wrong(read_quickly(folder.spec), folder.run_id)
    except FileNotFoundError:
        return False


def _is_whole(folder: RunFolder) -> bool:
    """Whether a folder without a spec holds the end of a run, and the beginning that belongs to it.

    Raises:
        OSError: a file is there and cannot be read.
    """
    try:
        lines = read_quickly(folder.events).split(b"\n")
        summary = summary_of(read_quickly(folder.summary), folder.run_id, folder.summary)
        wanted = summary and summary.get("predictions_sha256")
        own = hashlib.sha256(read_quickly(folder.predictions)).hexdigest() if wanted else None
    except FileNotFoundError:
        return False
    begun = any((event_of(line) or {}).get("kind") == "attempt" for line in lines)
    return begun and summary is not None and own == wanted


def _attempt(
    spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop, journal: Journal, world: World
) -> str:
    """One attempt, once there is memory for it; a second one, from the last checkpoint, where other runs on
    the GPU, or a recording of the step, had its memory.

    Raises:
        MemoryError: there is not enough memory on the GPU, in words.
    """
    arm_id, device = spec.arm.arm_id, machine.device
    if world.size == 1 and not _has_room(partial(lacks_memory, arm_id, device), journal, stop):
        return INTERRUPTED
    try:
        return _attempt_once(spec, folder, machine, stop, journal, world)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        replays = without_graphs(torch.device(device)) is None  # which take memory of their own
        if world.size > 1 or not (machine.shared or replays):
            raise MemoryError(_memory_in_words(error, machine)) from error
        journal.note("out_of_memory", message=_first_line(error), shared=machine.shared)
    finally:
        note_peak(arm_id, device)
    release_memory()  # here, where no traceback holds the network any more
    deadline_s = time.monotonic() + (NEIGHBOUR_S if machine.shared else 0.0)
    while time.monotonic() < deadline_s:
        if stop():
            return INTERRUPTED
        time.sleep(min(0.1, NEIGHBOUR_S))
    journal = Journal(folder)
    if not _has_room(partial(lacks_memory, arm_id, device), journal, stop):
        return INTERRUPTED
    try:
        return _attempt_once(spec, folder, machine, stop, journal, world)
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(_memory_in_words(error, machine)) from error
        raise


def _has_room(lacks: Callable[[], str], journal: Journal, stop: Stop) -> bool:
    """Wait while a run lacks memory, which others on the GPU may give back; after a time it is tried anyway.
    False: `stop()` came first."""
    deadline_s, noted = time.monotonic() + ROOM_S, False
    while (why := lacks()) and time.monotonic() < deadline_s:
        if stop():
            return False
        if not noted:
            journal.note("waits_for_memory", message=why)
            noted = True
        time.sleep(min(0.5, ROOM_S))
    return True


def _memory_in_words(error: Exception, machine: Machine) -> str:
    alone = "a smaller batch, or the batch cut into parts by --processes on several GPUs, needs less"
    beside = "fewer runs side by side on a GPU, or a smaller batch, need less"
    mend = beside if machine.shared else alone
    return f"{machine.shown_device} has not enough memory free for this run; {mend} ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _attempt_once(
    spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop, journal: Journal, world: World
) -> str:
    recipe = spec.arm.recipe
    # The plugins of the runs that it needs are among its own.
    with configured(machine), only(load_stored(spec.arm.plugins, machine.runs_dir)):
        if spec.arm.observes or recipe.trainer != "harness":
            if not world.is_main:
                return FINISHED
            alone = observe if spec.arm.observes else train_custom
            return alone(spec, folder, machine, stop, journal)
        return _train(spec, folder, machine, stop, journal, world)


def _train(
    spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop, journal: Journal, world: World
) -> str:
    start = time.perf_counter()
    with _batch_norm_in_words(spec.arm.recipe):  # kernels are tried on the network while it is built
        setup, progress = _resume(spec, folder, machine, journal, world)
    progress.found_eager = journal.found_eager
    progress.wall.time_s += time.perf_counter() - start
    attempt = Attempt(
        spec=spec, data=setup.data, progress=progress, folder=folder, machine=machine, journal=journal,
        kernels=record_of_kernels([setup.model]), start=setup.start,
    )  # fmt: skip
    with progress.wall:
        if world.is_main:
            progress.energy.start(machine)
        journal.start(machine, device_name=device_name(machine.device), step=progress.step)
        recorder = Recorder(attempt, setup)
        with recorder.kept_if_it_fails():
            recorder.catch_up()
        with _batch_norm_in_words(setup.recipe):
            try:
                outcome = train(setup, progress, stop, recorder.boundary, recorder.is_due)
            finally:
                journal.eager(progress, setup.feed)
        if outcome == FINISHED:
            with recorder.kept_if_it_fails():
                return record.read_out(attempt, setup)
        if not world.is_main:
            return outcome
        if outcome == DIVERGED:
            return record.write_diverged(attempt)
        recorder.checkpoint()
        journal.note("stop", step=progress.step)
        return INTERRUPTED


@contextmanager
def _batch_norm_in_words(recipe: Recipe) -> Iterator[None]:
    """Torch's error for a batch norm that sees one image, as the plan says it."""
    try:
        yield
    except ValueError as error:
        if TOO_FEW_NORM_IMAGES in str(error):
            raise ValueError(norm_images_in_words(recipe)) from error
        raise


def _resume(
    spec: RunSpec, folder: RunFolder, machine: Machine, journal: Journal, world: World
) -> tuple[Setup, TrainingProgress]:
    """Everything built, at the state of the checkpoint where there is a usable one, else at step 0."""
    setup = build(spec, machine, world)
    mended = journal.see(setup.data)
    progress = TrainingProgress.start(setup.device)
    try:
        load_checkpoint(folder.checkpoint, setup, progress)
        if mended and progress.kept:
            raise CheckpointError("it holds evaluations on other test images")
    except CheckpointError as error:
        journal.note("checkpoint_refused", message=f"{error}; starting again from step 0")
        if world.is_main:
            folder.checkpoint.unlink()
        setup = build(spec, machine, world)
        progress = TrainingProgress.start(setup.device)
    return setup, progress
