"""What a training writes: the learning curve, events, checkpoints and, when it has ended, its record."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from harness.data.entry import DataSet
from harness.models.costs import lookup
from harness.runs.folder import FolderGone, RunFolder, identity_of, write_bytes, write_json
from harness.runs.provenance import built_on, set_aside
from harness.spec import DIVERGED, FINISHED, SCHEMA_VERSION, Machine, Recipe, RunSpec
from harness.training.checkpoint import TrainingProgress, save_checkpoint
from harness.training.environment import describe, device_name
from harness.training.evaluate import Evaluation, curve_subset, evaluate, median
from harness.training.feed import Feed
from harness.training.optim import lr_at
from harness.training.setup import READ_OUTS, Setup, evaluates_another
from harness.training.weights import write_torch_file

# The event lines of one attempt at a run, appended to events.jsonl.


UNREADABLE = "evaluation_failed"


class Journal:
    """Writes events; knows from earlier attempts what has been said already.

    Kinds of event: attempt, epoch, checkpoint, checkpoint_refused, eager, evaluated, evaluation_failed,
    out_of_memory, stop, diverged, end, waits_for_memory.
    """

    def __init__(self, folder: RunFolder) -> None:
        """Open the journal of a run whose lock is held; removes what a killed attempt left half-written."""
        self._folder, self._lock = folder, identity_of(folder.lock)
        self._read()

    def _read(self) -> None:
        folder = self._folder
        _drop_cut_line(folder)
        _drop_drafts(folder)
        events = folder.read_events()
        self.attempt = 1 + sum(event["kind"] == "attempt" for event in events)
        self._epoch_step = max((event["step"] for event in events if event["kind"] == "epoch"), default=0)
        self.started_s = min((event["time_s"] for event in events), default=None)
        attempts = [event for event in events if event["kind"] == "attempt"]
        last = attempts[-1] if attempts else {}
        self.data, self.train_data = last.get("data"), last.get("train_data")  # fingerprints; None: not said
        kinds = [event["kind"] for event in events]
        self.found_eager = next((why for event in reversed(events) if (why := _found_eager(event))), None)
        self._could_not_evaluate = (
            UNREADABLE in kinds[-1 - kinds[::-1].index("attempt") :] if attempts else False
        )

    def see(self, data: DataSet) -> bool:
        """This attempt has these data. What an earlier one left behind on others is set aside, and the run
        begins anew. Only where that one could not evaluate, and the training images are the same, the run
        goes on: its test images were mended.

        Returns:
            whether test images were mended.
        """
        changed = self.data not in (None, data.fingerprint)
        mended = changed and self._could_not_evaluate and self.train_data == data.part_fingerprints[0]
        if changed and not mended:
            self.require_folder()
            set_aside(self._folder, str(self.data))
            self._read()
        self.data, self.train_data = data.fingerprint, data.part_fingerprints[0]
        return mended

    def require_folder(self) -> None:
        """To be called before anything is written: a folder that was deleted is never made anew, and nothing
        ends in one that another process made.

        Raises:
            FolderGone: this is not the folder any more in which the attempt began.
        """
        if identity_of(self._folder.lock) != self._lock:
            raise FolderGone(self._folder.path)

    def start(self, machine: Machine, *, device_name: str, step: int) -> None:
        """This attempt trains from `step` on."""
        self.require_folder()
        self._folder.append_event(
            "attempt",
            attempt=self.attempt,
            device=machine.shown_device,
            device_name=device_name,
            threads=machine.threads,
            processes=machine.processes,
            data=self.data,
            train_data=self.train_data,
            resumed_from_step=step,
        )

    def epoch(self, step: int, **values: Any) -> None:
        """One line of the learning curve, after so many steps. A line that an earlier attempt wrote before it
        was killed is not written again, so that a curve has one line per point."""
        if step > self._epoch_step:
            self.require_folder()
            self._folder.append_event("epoch", step=step, **values)

    def eager(self, progress: TrainingProgress, feed: Feed) -> None:
        """Why the GPU was given work operator by operator, where it was."""
        if progress.eager:
            self.note("eager", message=progress.eager, found=progress.eager == progress.found_eager)
        if feed.eager:
            self.note("eager", message=f"augmentation: {feed.eager}")

    def note(self, kind: str, **values: Any) -> None:
        """Any other event of this attempt."""
        self.require_folder()
        self._folder.append_event(kind, attempt=self.attempt, **values)


class Unwritten(Journal):
    """Of a process that trains a run together with others and is not the one that writes."""

    def __init__(self, folder: RunFolder) -> None:
        self.attempt, self.started_s, self.found_eager = 0, None, None

    def see(self, data: DataSet) -> bool:
        return False

    def require_folder(self) -> None:
        pass

    def start(self, machine: Machine, *, device_name: str, step: int) -> None:
        pass

    def epoch(self, step: int, **values: Any) -> None:
        pass

    def note(self, kind: str, **values: Any) -> None:
        pass


def _found_eager(event: Mapping[str, Any]) -> str | None:
    """Why steps are not replayed, if this event of an earlier attempt says what will hold again. A run alone
    on its GPU that ran out of memory may have done so because a recording has memory of its own."""
    if event["kind"] == "eager" and event.get("found"):
        return str(event["message"])
    alone = event["kind"] == "out_of_memory" and event.get("shared") is False
    return "an earlier attempt ran out of memory" if alone else None


def _drop_cut_line(folder: RunFolder) -> None:
    """Remove a last line without its end, or the next event would be appended to it."""
    if not folder.events.exists():
        return
    with folder.events.open("r+b") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)


def _drop_drafts(folder: RunFolder) -> None:
    """Remove files that were being written when an attempt was killed."""
    for draft in folder.path.glob(".*.draft"):
        draft.unlink(missing_ok=True)


# What a run leaves behind when it has ended: weights, predictions, env.json and, last, summary.json.


class NetworkCost(NamedTuple):
    """Parameters, and multiply-adds for one test image."""

    params: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One process's work on a run: of training, or of evaluating networks that others trained."""

    spec: RunSpec
    data: DataSet
    progress: TrainingProgress
    folder: RunFolder
    machine: Machine
    journal: Journal
    # `kernels.record` of the run's networks.
    kernels: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)  # `Setup.start`


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


def write_finished(attempt: Attempt, result: Evaluation, cost: NetworkCost) -> str:
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


def cost_of(recipes: Sequence[Recipe], *, classes: int, crops: int = 1) -> NetworkCost:
    """What it costs to answer one image with the networks of these recipes and so many crops each."""
    costs = [
        lookup(recipe.model.name, recipe.model.args, resolution=recipe.data.resolution, classes=classes)
        for recipe in recipes
    ]
    return NetworkCost(params=sum(cost[0] for cost in costs), macs=crops * sum(cost[1] for cost in costs))


def portable_state(model: nn.Module) -> dict[str, Any]:
    """The state dict on the CPU in torch's default memory format."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def write_end(attempt: Attempt, status: str, cost: NetworkCost, **results: Any) -> None:
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
        **attempt.start,
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


# What happens between the steps of a training: the learning curve, kept evaluations, checkpoints.


CHECKPOINT_SHARE = 0.01  # of the time of a training that saving it may take


def curve_steps(steps_per_epoch: int, points: int) -> frozenset[int]:
    """Steps within an epoch, 1 ... steps_per_epoch, after which the curve has a point: evenly spaced, the end
    of the epoch among them.

    >>> sorted(curve_steps(10, 1)), sorted(curve_steps(10, 4)), sorted(curve_steps(2, 5))
    ([10], [2, 5, 8, 10], [1, 2])
    """
    return frozenset(max(1, round(point * steps_per_epoch / points)) for point in range(1, points + 1))


def is_kept(step: int, *, read_out: str, total_steps: int, steps_per_epoch: int) -> bool:
    """Whether the evaluation at the epoch that ended with this step (the number of steps made) is one of
    several that the read-out needs.

    >>> [step for step in (2, 4, 6, 8, 10, 12, 13)
    ...  if is_kept(step, read_out="median_of_last_5", total_steps=13, steps_per_epoch=2)]
    [6, 8, 10, 12, 13]
    """
    ends_to_come = -(-(total_steps - step) // steps_per_epoch)
    return READ_OUTS[read_out] > max(1, ends_to_come)


def checkpoint_interval_s(machine: Machine, save_time_s: float) -> float:
    """Seconds from one checkpoint to the next, where the last one took `save_time_s` to write.

    A network that takes long to save is saved less often, so that saving stays a hundredth of the time; an
    interval under a second is taken at its word.
    """
    every_s = machine.checkpoint_every_s
    return every_s if every_s < 1 else max(every_s, save_time_s / CHECKPOINT_SHARE)


@dataclass(slots=True)
class Recorder:
    """Does it for one attempt at a run. Of several processes all evaluate, and the first one writes."""

    attempt: Attempt
    setup: Setup
    _curve_steps: frozenset[int] = field(init=False)
    _saved: float = field(default_factory=time.monotonic)
    _save_time_s: float = 0.0
    _epoch_start: tuple[int, float] = field(init=False)  # step, train time

    def __post_init__(self) -> None:
        progress = self.attempt.progress
        self._epoch_start = (progress.step, progress.train.time_s)
        self._curve_steps = curve_steps(self.setup.context.steps_per_epoch, self.setup.recipe.curve_points)

    def is_due(self) -> bool:
        """Whether there is something to do before the epoch ends."""
        self.attempt.progress.energy.tick()
        return self._is_checkpoint_due() or self._is_curve_step()

    def boundary(self, epoch_ended: bool) -> None:
        """After a step, with the clock of training stopped."""
        with self.kept_if_it_fails():
            self._evaluate(epoch_ended)
        if self._is_checkpoint_due():
            self.checkpoint()

    def catch_up(self) -> None:
        """What an earlier attempt could not evaluate after its last step, e.g. for an image that could not be
        read. A point that the curve has already is not written twice."""
        progress, per_epoch = self.attempt.progress, self.setup.context.steps_per_epoch
        at_end = progress.step % per_epoch == 0 or progress.step == self.setup.schedule.total_steps
        if progress.loss_steps:  # else the epoch was closed
            self._evaluate(at_end)

    @contextmanager
    def kept_if_it_fails(self) -> Iterator[None]:
        """Save the trained state where an evaluation fails: after the mend the run goes on from here. What is
        evaluated changes nothing of it before all of it has succeeded."""
        try:
            yield
        except Exception as error:
            if self.setup.world.is_main:
                with suppress(Exception):  # the first error is the one to tell
                    self.checkpoint()
                    self.attempt.journal.note(UNREADABLE, message=str(error))
            raise

    def _evaluate(self, epoch_ended: bool) -> None:
        if epoch_ended:
            self._end_epoch()
        elif self._is_curve_step():
            self._point(self._curve_top1(), train_loss=None, images_per_s=None)

    def checkpoint(self) -> None:
        """Save the complete state of the run."""
        self.attempt.journal.require_folder()
        start = time.perf_counter()
        save_checkpoint(self.attempt.folder.checkpoint, self.setup, self.attempt.progress)
        self._saved, self._save_time_s = time.monotonic(), time.perf_counter() - start
        self.attempt.journal.note(
            "checkpoint", step=self.attempt.progress.step, save_time_s=self._save_time_s
        )

    def _is_checkpoint_due(self) -> bool:
        """Of several processes only the first saves; the others hold the same, and wait at the next step."""
        every_s = checkpoint_interval_s(self.attempt.machine, self._save_time_s)
        return self.setup.world.is_main and time.monotonic() - self._saved >= every_s

    def _is_curve_step(self) -> bool:
        steps_per_epoch = self.setup.context.steps_per_epoch
        return (self.attempt.progress.step - 1) % steps_per_epoch + 1 in self._curve_steps

    def _end_epoch(self) -> None:
        setup, progress = self.setup, self.attempt.progress
        top1, kept = self._curve_top1(), self._kept()
        step, time_s = self._epoch_start
        images = (progress.step - step) * min(setup.recipe.batch_size, len(setup.data.train.labels))
        self._epoch_start = (progress.step, progress.train.time_s)
        images_per_s = images / (progress.train.time_s - time_s) if images else None
        self._point(top1, train_loss=progress.end_epoch(), images_per_s=images_per_s)
        progress.kept += kept

    def _kept(self) -> list[Evaluation]:
        """The evaluation of this epoch, where the read-out needs it."""
        setup, progress = self.setup, self.attempt.progress
        if not is_kept(
            progress.step,
            read_out=setup.recipe.read_out,
            total_steps=setup.schedule.total_steps,
            steps_per_epoch=setup.context.steps_per_epoch,
        ):
            return []
        with progress.evaluation:
            return [evaluate_result(setup)]

    def _point(self, top1: float, *, train_loss: float | None, images_per_s: float | None) -> None:
        """A line of the learning curve; the training loss is that of an epoch, and so at epoch ends only."""
        progress = self.attempt.progress
        self.attempt.journal.epoch(
            progress.step,
            train_loss=train_loss,
            epoch=progress.step / self.setup.context.steps_per_epoch,
            lr=lr_at(progress.step - 1, self.setup.schedule),
            val_top1=top1,
            images_per_s=images_per_s,
        )

    def _curve_top1(self) -> float:
        """Top-1 in percent on a fixed part of the test set, for the curve only: no decision reads it."""
        labels = self.setup.data.test.labels
        with self.attempt.progress.evaluation:
            subset = curve_subset(len(labels))
            return evaluate(self.setup.curve_answers(), labels, subset, world=self.setup.world).top1
