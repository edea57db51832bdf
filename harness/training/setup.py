"""Everything that one training needs, built and seeded from its spec: network, teacher, source, losses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from harness.data import load
from harness.data.augment import CROPS
from harness.data.entry import DataSet, cache_folder
from harness.errors import unknown
from harness.models import build_model
from harness.models.blocks import SCHEMES, Outputs
from harness.plugins.install import METRICS
from harness.runs.folder import RunFolder, read_json
from harness.runs.provenance import data_key, data_name
from harness.spec import FINISHED, Machine, Recipe, RunSpec
from harness.training import optim, parallel, weights
from harness.training.evaluate import (
    MEASURED,
    Answerer,
    Answers,
    Metric,
    Viewing,
    make_answers,
    require_every_class,
)
from harness.training.feed import ORDERS, Feed, count_steps_per_epoch, seed_default
from harness.training.kernels import LARGEST_BATCH, trust_kernels
from harness.training.optim import Clip, Precision, Schedule
from harness.training.parallel import Average, Forward, World
from harness.training.weights import Parts, TensorFileError, WeightsError, read_torch_file
from harness.tricks.base import Batch, Context, Loss, Predict, State, Trick, hooks_of
from harness.tricks.build import make as make_trick

# The network of a run: architecture, initial weights, and what tricks change of it.


def build_network(spec: RunSpec, tricks: tuple[Trick, ...], *, classes: int) -> nn.Module:
    """The initialised network on the CPU, channels last.

    The same seed gives the same weights for every device, whatever else the run draws.
    """
    recipe = spec.arm.recipe
    seed_default(spec.seed, "init")
    model = build_model(
        recipe.model.name, recipe.model.args, classes=classes, initialisation=recipe.initialisation
    )
    for trick in tricks:
        seed_default(spec.seed, f"init/{trick.name}")
        model = trick.edit_model(model)
    if recipe.norm_images > 0:
        parallel.group_statistics(model, recipe.norm_images)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stub


def make_tricks(spec: RunSpec) -> tuple[Trick, ...]:
    """The tricks of a run, in the order in which they act."""
    return tuple(make_trick(trick.name, trick.options) for trick in spec.arm.tricks)


# The network of another run: a teacher's, a source's or an ensemble member's.


class NeededRunError(RuntimeError):
    """A run that another one builds on is not there or does not fit."""

    role: ClassVar[str] = "needed"


class TeacherError(NeededRunError):
    """The teacher of a student."""

    role = "teacher"


class SourceError(NeededRunError):
    """The run whose weights a fine-tuning starts from."""

    role = "source"


class MemberError(NeededRunError):
    """A network that is evaluated with others."""

    role = "member"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """A finished run of which the weights are there."""

    spec: RunSpec
    folder: RunFolder
    tricks: tuple[Trick, ...]
    classes: int
    data: str
    machine: Machine  # that uses it
    fingerprint: str  # of the data that it saw
    error: type[NeededRunError]

    def require_classes(self, classes: int, data: str) -> None:
        """
        Raises:
            NeededRunError: the network tells other classes apart than this run's data set has.
        """
        if self.classes != classes:
            raise self.error(
                f"{self.error.role} run {self.folder.run_id} knows {self.classes} classes ({self.data}), "
                f"this run has {classes} ({data})"
            )

    def require_same_data(self, spec: RunSpec, fingerprint: str) -> None:
        """
        Raises:
            NeededRunError: this run has the same data set as that of `spec`, and it has changed since.
        """
        same = data_key(self.spec.arm.recipe.data) == data_key(spec.arm.recipe.data)
        if same and self.fingerprint != fingerprint:
            raise self.error(
                f"{self.error.role} run {self.folder.run_id} saw other data than are there now: "
                f"{data_name(spec.arm.recipe.data)} has changed since; `harness run` trains it again"
            )

    def weights(self, *, raw: bool = False) -> dict[str, Any]:
        """The state dict of the network that the run evaluated; `raw`: of the one that it trained, which is
        another where a trick averages weights.

        Raises:
            NeededRunError: the file is missing or damaged.
        """
        path = self.folder.raw_weights if raw and evaluates_another(self.tricks) else self.folder.weights
        try:
            state = read_torch_file(path)
        except FileNotFoundError:
            raise self._unusable(f"has no {path.name}") from None
        except (OSError, TensorFileError) as error:
            raise self._unusable(f"has a {path.name} that cannot be read ({error})") from None
        if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
            raise self._unusable(f"has a {path.name} that is damaged (it holds no network)")
        return state

    def network(self, *, raw: bool = False) -> nn.Module:
        """The trained network in evaluation mode, on its device, without gradients.

        Raises:
            NeededRunError: as `weights`, or they are another network's.
            ValueError: a layer of it is computed wrongly on this CPU, whatever is tried.
        """
        state = self.weights(raw=raw)
        model = build_network(self.spec, self.tricks, classes=self.classes)
        try:
            model.load_state_dict(state)
        except RuntimeError:
            raise self._unusable("has weights that are damaged (they are another network's)") from None
        trust_kernels(model.eval(), self.spec, self.machine, batch=LARGEST_BATCH)
        return model.to(self.machine.device).requires_grad_(False)

    def _unusable(self, what: str) -> NeededRunError:
        return self.error(
            f"{self.error.role} run {self.folder.run_id} {what}; move {self.folder.summary} away and "
            "`harness run` of a study that has this run trains it again"
        )


def find_trained(run_id: str | None, machine: Machine, error: type[NeededRunError]) -> TrainedRun:
    """The finished run of this id; `error` says what it is needed for.

    Raises:
        NeededRunError: the run has not finished, or its record is damaged.
    """
    folder = RunFolder(machine.runs_dir / str(run_id))
    summary = folder.read_summary()
    if summary is None or summary["status"] != FINISHED:
        state = "has not ended" if summary is None else f"ended as '{summary['status']}'"
        if summary is None and folder.summary.exists():
            state = "has a damaged summary.json or spec.json, which counts as no end"
        raise error(f"{error.role} run {folder.run_id} {state}: this run needs it finished")
    spec = RunSpec.from_json(read_json(folder.spec))
    return TrainedRun(
        spec=spec,
        folder=folder,
        tricks=make_tricks(spec),
        classes=summary["classes"],
        data=summary["data"],
        machine=machine,
        fingerprint=str(summary.get("data_fingerprint")),
        error=error,
    )


def evaluates_another(tricks: tuple[Trick, ...]) -> bool:
    """Whether a trick evaluates another network than the trained one: then a run keeps both."""
    return any("edit_eval_model" in hooks_of(trick) for trick in tricks)


# The teacher of a distilled run: the network of another run, as it was evaluated.


def load_teacher(student: RunSpec, machine: Machine, precision: Precision, data: DataSet) -> Predict:
    """Images (B, 3, S, S) -> logits (B, K), without gradients, in the precision of the student's run.

    Raises:
        TeacherError: the teacher has not finished, its files are missing, or it knows other classes
            or saw other data.
    """
    teacher = find_trained(student.teacher_run_id, machine, TeacherError)
    teacher.require_classes(data.classes, data.name)
    teacher.require_same_data(student, data.fingerprint)
    model = teacher.network()

    @torch.no_grad()
    def logits(images: Tensor) -> Tensor:
        with precision.forward():
            return model(images)

    return logits


# Fine-tuning: training starts from the weights of another run.


def load_source(
    model: nn.Module, spec: RunSpec, machine: Machine, data: DataSet, heads: frozenset[str]
) -> tuple[str, ...]:
    """Give the built network the weights of the network that its source run evaluated.

    Parameters with one row for each class (`heads`: the last layer, and the auxiliary heads') keep their
    initial values where the data set has another number of classes, and are taken over where it has the same.

    Returns:
        the names of those that kept their initial values.

    Raises:
        SourceError: the source has not finished, its files are missing, or it is another network.
    """
    source = find_trained(spec.source_run_id, machine, SourceError)
    source.require_same_data(spec, data.fingerprint)
    try:
        return weights.take_over(model, source.weights(), heads)
    except WeightsError as error:
        who = f"source run {source.folder.run_id} ({source.spec.arm.recipe.model.name})"
        raise SourceError(f"{who} {error} ({spec.arm.recipe.model.name})") from None


# The loss that tricks start from, and what auxiliary heads add to it.


def soft_cross_entropy(output: Any, batch: Batch) -> Tensor:
    """Mean over the batch of - sum_k t_k log softmax(z)_k, in FP32 whatever the precision of the network.

    Args:
        output: logits z, (B, K).
        batch: its targets t are (B, K); on one-hot targets this is the ordinary cross entropy.

    Returns:
        A scalar tensor, in nats.
    """
    return functional.cross_entropy(output.float(), batch.targets)


def with_auxiliary(loss: Loss, weight: float) -> Loss:
    """`loss` of the main head + weight * the sum over auxiliary heads of their `soft_cross_entropy`.

    Every head has the batch's own targets, smoothed and mixed where tricks did that (as in the code that
    Szegedy et al. 2016 released). What tricks make of the loss (distillation, ...) acts on the main head, and
    sees its logits alone. A network without auxiliary heads has `loss`, bit for bit.
    """

    def total(output: Any, batch: Batch) -> Tensor:
        if not isinstance(output, Outputs):
            return loss(output, batch)
        result = loss(output.logits, batch)
        for logits in output.auxiliary:
            result = result + weight * soft_cross_entropy(logits, batch)
        return result

    return total


# Metrics of a read-out beside top-1, top-5 and the loss, by the names that a recipe asks for.


def make_metrics(recipe: Recipe, data: DataSet) -> Mapping[str, Metric]:
    """The recipe's metrics by name.

    Raises:
        ValueError: neither the harness nor a plugin of the run defines one of them, or a class has no test
            image for it.
    """
    known = {**MEASURED, **METRICS}
    for name in recipe.metrics:
        if name not in known:
            raise ValueError(unknown("metric", name, known))
    require_every_class(recipe.metrics, data.test.labels, data.classes)
    return {name: known[name] for name in recipe.metrics}


# Everything that one training needs, built and seeded from its spec.


READ_OUTS: Mapping[str, int] = {  # how many of the last epochs are evaluated; the result is their median
    "last_epoch": 1,
    "median_of_last_5": 5,  # Goyal et al. 2017, Sec. 5.1
}
EVAL_WEIGHTS = ("own", "raw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The parts of one training. What changes while training is inside the model, optimizer and states."""

    spec: RunSpec
    world: World
    data: DataSet
    device: torch.device
    context: Context
    tricks: tuple[Trick, ...]
    states: Mapping[str, State]  # trick name -> what it remembers
    model: nn.Module
    forward: Forward  # the model, compiled where the machine asks for it, as part of all processes' model
    average: Average  # the loss of the whole batch, from that of a process's part of it; once per step
    optimizer: Optimizer
    precision: Precision
    clip: Clip | None
    loss: Loss
    schedule: Schedule
    feed: Feed
    metrics: Mapping[str, Metric]  # of the read-out, beside top-1, top-5 and loss
    parts: Parts

    @property
    def recipe(self) -> Recipe:
        return self.spec.arm.recipe

    @property
    def start(self) -> dict[str, Any]:
        """For the record: the weights that training started from, and which parameters were initialised."""
        weights = self.recipe.model.weights
        return {"weights": weights, "initialised": ", ".join(self.parts.initialised)} if weights else {}

    def train_mode(self) -> None:
        """The network in training mode, but for the batch norms of frozen parts."""
        self.model.train()
        for norm in self.parts.frozen_norms:
            norm.eval()

    def eval_model(self) -> nn.Module:
        """The network that is evaluated, as the tricks edit it, in evaluation mode."""
        model = self.model
        if self.recipe.eval_weights == "own":
            for trick in self.tricks:
                model = trick.edit_eval_model(model, self.states.get(trick.name))
        return model.eval()

    def predict(self, model: nn.Module) -> Predict:
        """Images (B, 3, S, S) -> logits (B, K), in the precision of the run."""

        def logits(images: Tensor) -> Tensor:
            with self.precision.forward():
                return model(images)

        return logits

    def curve_answers(self) -> Answers:
        """For the learning curve: one crop, without the tricks' `edit_prediction`, which may cost more than
        an epoch."""
        return self._answers(self.predict(self.eval_model()), crops=1)

    def result_answers(self) -> Answers:
        """For the read-out: with everything that the recipe and the tricks say of evaluation."""
        predict = self.predict(self.eval_model())
        for trick in self.tricks:
            predict = trick.edit_prediction(predict)
        return self._answers(predict, crops=self.recipe.eval_crops)

    def _answers(self, predict: Predict, *, crops: int) -> Answers:
        answerer = Answerer(predict=predict, look=Viewing.of(self.recipe))
        return make_answers([answerer], self.data, crops=crops, device=self.device)


def build(spec: RunSpec, machine: Machine, world: World = parallel.ALONE) -> Setup:
    """Load the data and build the network, optimizer, loss and batches of a run.

    Raises:
        ValueError: the recipe names something that does not exist, or its batch cannot be cut into equal
            parts for the processes; in words for the user.
        NeededRunError: the run needs a teacher or a source that cannot be used.
        PeerError: another process could not build it.
    """
    with world.together():
        alone = _build(spec, machine, world)
    forward, average = parallel.replicate(alone.forward, alone.model, world)
    return replace(alone, forward=forward, average=average)


def _build(spec: RunSpec, machine: Machine, world: World) -> Setup:
    """What a process builds by itself."""
    recipe, device = spec.arm.recipe, torch.device(machine.device)
    check_names(recipe)
    data = load_data(recipe, machine)
    parallel.check_parts(recipe, images=len(data.train.labels), processes=world.size)
    tricks = make_tricks(spec)
    precision = Precision(recipe.precision, device)
    teacher = load_teacher(spec, machine, precision, data) if spec.teacher_run_id else None
    context = make_context(recipe, data, teacher)
    model, parts = make_model(spec, tricks, machine, data)
    parallel.share_norms(model, recipe, images=len(data.train.labels), world=world)
    states = {trick.name: state for trick in tricks if (state := trick.new_state(model)) is not None}
    groups = optim.parameter_groups(model, tricks, weight_decay=recipe.weight_decay)
    optimizer = optim.make_optimizer(recipe, parts.scaled(groups, recipe.lr_scale))
    for trick in tricks:
        optimizer = trick.edit_optimizer(optimizer, states.get(trick.name))
    feed = Feed(
        data=data, recipe=recipe, seed=spec.seed, device=device, tricks=tricks, context=context, world=world
    )
    return Setup(
        spec=spec,
        world=world,
        data=data,
        device=device,
        context=context,
        tricks=tricks,
        states=states,
        model=model,
        forward=compiled(model) if machine.compile else model,
        average=lambda loss: loss,
        optimizer=optimizer,
        precision=precision,
        clip=optim.make_clip(recipe),
        loss=make_loss(recipe, tricks, context),
        schedule=optim.make_schedule(recipe, steps_per_epoch=context.steps_per_epoch),
        feed=feed,
        metrics=make_metrics(recipe, data),
        parts=parts,
    )


def compiled(model: nn.Module) -> Forward:
    """By torch.compile. What is compiled is kept in the user's cache, for all runs and workers."""
    if (folder := cache_folder()) is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))
    forward: Forward = torch.compile(model)
    return forward


def make_model(
    spec: RunSpec, tricks: tuple[Trick, ...], machine: Machine, data: DataSet
) -> tuple[nn.Module, Parts]:
    """The network at the start of training, on its device, and its parts; those do not learn which the recipe
    freezes.

    Raises:
        ValueError: a layer of it is computed wrongly on this CPU, whatever is tried.
        SourceError: the run starts from another one that cannot be used.
        WeightsError: the run starts from a file that cannot be used.
    """
    recipe, heads = spec.arm.recipe, frozenset[str]()
    if spec.source_run_id or recipe.model.weights or recipe.freeze or recipe.lr_scale:
        heads = weights.class_layers(partial(build_network, spec, tricks), data.classes)
    model = build_network(spec, tricks, classes=data.classes)
    initialised: tuple[str, ...] = ()
    if spec.source_run_id:
        initialised = load_source(model, spec, machine, data, heads)
    elif recipe.model.weights:
        initialised = load_weights(model, spec, machine, heads)
    trust_kernels(model, spec, machine, batch=recipe.batch_size // machine.processes)
    parts = Parts(model, heads, initialised)
    return model.to(machine.device), replace(parts, frozen_norms=parts.freeze(recipe.freeze))


def load_weights(model: nn.Module, spec: RunSpec, machine: Machine, heads: frozenset[str]) -> tuple[str, ...]:
    """Give the built network the weights of the file that its model names; as `load_source`.

    Raises:
        WeightsError: the file cannot be used, in words.
    """
    path, state = weights.weights_of(spec, machine.runs_dir)
    try:
        return weights.take_over(model, state, heads)
    except WeightsError as error:
        raise WeightsError(f"{path} {error} ({spec.arm.recipe.model.name})") from None


def try_start(spec: RunSpec, file: Path | None) -> None:
    """Raise what a run would that starts from this file and trains these parts, before it is submitted: by
    the shapes of its network, for any number of classes.

    Raises:
        ValueError: the weights are another network's, or a part is none; in words.
    """
    recipe, build_for = spec.arm.recipe, partial(build_network, spec, make_tricks(spec))
    heads = weights.class_layers(build_for, classes=2)
    model = weights.without_storage(build_for, classes=2)
    if file is not None:
        state = weights.read_weights(file, recipe.model.weights.partition(":")[2])
        try:
            weights.compare(model.state_dict(), state, heads)
        except WeightsError as error:
            raise WeightsError(f"{file} {error} ({recipe.model.name})") from None
    parts = Parts(model, heads)
    parts.freeze(recipe.freeze)
    parts.scaled(optim.parameter_groups(model, (), weight_decay=0.0), recipe.lr_scale)


def make_loss(recipe: Recipe, tricks: tuple[Trick, ...], context: Context) -> Loss:
    """The loss of a step: as the tricks edit it on the main head, and the auxiliary heads' beside it."""
    loss: Loss = soft_cross_entropy
    for trick in tricks:
        loss = trick.edit_loss(loss, context)
    return with_auxiliary(loss, recipe.auxiliary_weight)


def make_context(recipe: Recipe, data: DataSet, teacher: Predict | None) -> Context:
    """What tricks may know of the run."""
    steps_per_epoch = count_steps_per_epoch(len(data.train.labels), recipe.batch_size)
    return Context(
        classes=data.classes,
        steps_per_epoch=steps_per_epoch,
        total_steps=optim.make_schedule(recipe, steps_per_epoch=steps_per_epoch).total_steps,
        teacher=teacher,
    )


def load_data(recipe: Recipe, machine: Machine) -> DataSet:
    """The data set of a recipe; `harness.data` reads it once per process."""
    spec = recipe.data
    return load(
        spec.name,
        spec.args,
        train_images=spec.train_images,
        test_images=spec.test_images,
        data_dir=machine.data_dir,
    )


def check_names(recipe: Recipe) -> None:
    """Refuse what this training cannot do, rather than train something else under its name.

    Raises:
        ValueError: an unknown initialisation, order, read-out or way to evaluate.
    """
    names = {
        "initialisation": (recipe.initialisation, SCHEMES),
        "shuffle": (recipe.shuffle, ORDERS),
        "read-out": (recipe.read_out, READ_OUTS),
        "eval_weights": (recipe.eval_weights, EVAL_WEIGHTS),
    }
    for kind, (name, valid) in names.items():
        if name not in valid:
            raise ValueError(unknown(kind, name, valid))
    if recipe.eval_crops not in CROPS:
        raise ValueError(f"eval_crops must be one of {', '.join(map(str, CROPS))}, got {recipe.eval_crops}")
