"""Everything that one training needs, built and seeded from its spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.data import load
from harness.data.base import DataSet
from harness.data.multi_crops import CROPS
from harness.models.initialise import SCHEMES
from harness.study.machine import Machine
from harness.study.problems import unknown
from harness.study.spec import Recipe, RunSpec
from harness.training.answers import Answerer, Look, make_answers
from harness.training.clipping import Clip, make_clip
from harness.training.distributed import ALONE, World
from harness.training.evaluate import Answers, Metric
from harness.training.feed import Feed, count_steps_per_epoch
from harness.training.kernels import trust_kernels
from harness.training.losses import soft_cross_entropy, with_auxiliary
from harness.training.metrics import make_metrics
from harness.training.network import build_network, make_tricks
from harness.training.optimizers import make_optimizer, parameter_groups
from harness.training.order import ORDERS
from harness.training.precision import Precision
from harness.training.replica import Average, Forward, check_parts, replicate, share_norms
from harness.training.schedule import Schedule, make_schedule
from harness.training.source import load_source
from harness.training.teacher import load_teacher
from harness.tricks.base import Context, Loss, Predict, State, Trick

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

    @property
    def recipe(self) -> Recipe:
        return self.spec.arm.recipe

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
        answerer = Answerer(predict=predict, look=Look.of(self.recipe))
        return make_answers([answerer], self.data, crops=crops, device=self.device)


def build(spec: RunSpec, machine: Machine, world: World = ALONE) -> Setup:
    """Load the data and build the network, optimizer, loss and batches of a run.

    Raises:
        ValueError: the recipe names something that does not exist, or its batch cannot be cut into equal
            parts for the processes; in words for the user.
        NeededRunError: the run needs a teacher or a source that cannot be used.
        PeerError: another process could not build it.
    """
    with world.together():
        alone = _build(spec, machine, world)
    forward, average = replicate(alone.forward, alone.model, world)
    return replace(alone, forward=forward, average=average)


def _build(spec: RunSpec, machine: Machine, world: World) -> Setup:
    """What a process builds by itself."""
    recipe, device = spec.arm.recipe, torch.device(machine.device)
    check_names(recipe)
    data = load_data(recipe, machine)
    check_parts(recipe, images=len(data.train.labels), processes=world.size)
    tricks = make_tricks(spec)
    precision = Precision(recipe.precision, device)
    teacher = load_teacher(spec, machine, precision, data) if spec.teacher_run_id else None
    context = make_context(recipe, data, teacher)
    model = make_model(spec, tricks, machine, data)
    share_norms(model, recipe, images=len(data.train.labels), world=world)
    states = {trick.name: state for trick in tricks if (state := trick.new_state(model)) is not None}
    optimizer = make_optimizer(recipe, parameter_groups(model, tricks, weight_decay=recipe.weight_decay))
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
        forward=torch.compile(model) if machine.compile else model,
        average=lambda loss: loss,
        optimizer=optimizer,
        precision=precision,
        clip=make_clip(recipe),
        loss=make_loss(recipe, tricks, context),
        schedule=make_schedule(recipe, steps_per_epoch=context.steps_per_epoch),
        feed=feed,
        metrics=make_metrics(recipe),
    )


def make_model(spec: RunSpec, tricks: tuple[Trick, ...], machine: Machine, data: DataSet) -> nn.Module:
    """The network at the start of training, on its device.

    Raises:
        ValueError: a layer of it is computed wrongly on this CPU, whatever is tried.
        SourceError: the run starts from another one that cannot be used.
    """
    model = build_network(spec, tricks, classes=data.classes)
    if spec.source_run_id:
        load_source(model, spec, machine, data)
    trust_kernels(model, spec, machine, batch=spec.arm.recipe.batch_size // machine.processes)
    return model.to(machine.device)


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
        total_steps=make_schedule(recipe, steps_per_epoch=steps_per_epoch).total_steps,
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
