"""Train one run from its spec to its summary, or go on where an earlier attempt stopped."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch._dynamo  # noqa: F401  # torch.optim loads it (1 s) when first used: here, before workers are forked

from harness.plugins import load_stored, only
from harness.study.checked import Specs, event_of, read_quickly, summary_of
from harness.study.machine import Machine, Stop
from harness.study.norm_images import TOO_FEW, in_words
from harness.study.records import DIVERGED, FINISHED, RunFolder, write_json
from harness.study.spec import Recipe, RunSpec
from harness.training.checkpoint import CheckpointError, load_checkpoint
from harness.training.custom import train_custom
from harness.training.distributed import World
from harness.training.environment import configured, device_name
from harness.training.journal import Journal, Unwritten
from harness.training.kernels import record_of_kernels
from harness.training.lock import exclusive
from harness.training.loop import INTERRUPTED, train
from harness.training.observe import observe
from harness.training.outcome import Attempt, read_out, write_diverged
from harness.training.progress import Progress
from harness.training.recorder import Recorder
from harness.training.setup import Setup, build

SET_ASIDE = "summary.json.aside"  # an end that does not belong to the folder it was found in


def run_one(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Train (or resume) one run and write its record into `folder`.

    Several processes train it together where the machine says so and they are called alike, each with its
    own device: the first one decides, waits for the lock and writes, and its answer counts. Runs that it
    makes alone (those that observe others, a training function of the user's own) the others leave at once.

    Waits while another process trains the same run. A run that has ended is not trained again. A run that
    observes others trains nothing and evaluates them (`harness.training.observe`); the recipe may name a
    training function of the user's own (`harness.training.custom`). User code comes from the store of the
    runs folder, as it was when the run was submitted.

    Returns:
        finished, diverged, or interrupted (`stop()` was True; the next call goes on from that step).

    Raises:
        Exception: the run cannot be trained; there is no summary. The scheduler records why.
    """
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
    progress.wall.time_s += time.perf_counter() - start
    attempt = Attempt(
        spec=spec, data=setup.data, progress=progress, folder=folder, machine=machine, journal=journal,
        kernels=record_of_kernels([setup.model]),
    )  # fmt: skip
    with progress.wall:
        if world.is_main:
            progress.energy.start(machine)
        journal.start(machine, device_name=device_name(machine.device), step=progress.step)
        recorder = Recorder(attempt, setup)
        with recorder.kept_if_it_fails():
            recorder.catch_up()
        with _batch_norm_in_words(setup.recipe):
            outcome = train(setup, progress, stop, recorder.boundary, recorder.is_due)
        if outcome == FINISHED:
            with recorder.kept_if_it_fails():
                return read_out(attempt, setup)
        if not world.is_main:
            return outcome
        if outcome == DIVERGED:
            return write_diverged(attempt)
        recorder.checkpoint()
        journal.note("stop", step=progress.step)
        return INTERRUPTED


@contextmanager
def _batch_norm_in_words(recipe: Recipe) -> Iterator[None]:
    """Torch's error for a batch norm that sees one image, as the plan says it."""
    try:
        yield
    except ValueError as error:
        if TOO_FEW in str(error):
            raise ValueError(in_words(recipe)) from error
        raise


def _resume(
    spec: RunSpec, folder: RunFolder, machine: Machine, journal: Journal, world: World
) -> tuple[Setup, Progress]:
    """Everything built, at the state of the checkpoint where there is a usable one, else at step 0."""
    setup = build(spec, machine, world)
    mended = journal.see(setup.data)
    progress = Progress.start(setup.device)
    try:
        load_checkpoint(folder.checkpoint, setup, progress)
        if mended and progress.kept:
            raise CheckpointError("it holds evaluations on other test images")
    except CheckpointError as error:
        journal.note("checkpoint_refused", message=f"{error}; starting again from step 0")
        if world.is_main:
            folder.checkpoint.unlink()
        setup = build(spec, machine, world)
        progress = Progress.start(setup.device)
    return setup, progress
