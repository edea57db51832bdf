"""Everything that one training needs, built and seeded from its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.data import augment, load
from harness.data.base import DataSet
from harness.study.machine import Machine
from harness.study.problems import unknown
from harness.study.spec import Recipe, RunSpec
from harness.training.cpu_bf16 import require_exact_gradients
from harness.training.feed import Feed, count_steps_per_epoch
from harness.training.losses import soft_cross_entropy
from harness.training.network import build_network, make_tricks
from harness.training.optimizers import make_optimizer, parameter_groups
from harness.training.precision import Precision
from harness.training.schedule import Schedule, make_schedule
from harness.training.teacher import load_teacher
from harness.tricks.base import Context, Loss, Predict, State, Trick

INITIALISATIONS = ("he_fan_out",)  # of harness.models; He et al. 2015, Eq. (14)
READ_OUTS = ("last_epoch",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The parts of one training. What changes while training is inside the model, optimizer and states."""

    spec: RunSpec
    data: DataSet
    device: torch.device
    context: Context
    tricks: tuple[Trick, ...]
    states: Mapping[str, State]  # trick name -> what it remembers
    model: nn.Module
    forward: Callable[[Tensor], Any]  # the model, compiled where the machine asks for it
    optimizer: Optimizer
    precision: Precision
    loss: Loss
    schedule: Schedule
    feed: Feed

    @property
    def recipe(self) -> Recipe:
        return self.spec.arm.recipe

    def eval_model(self) -> nn.Module:
        """The network that is evaluated, as the tricks edit it, in evaluation mode."""
        model = self.model
        for trick in self.tricks:
            model = trick.edit_eval_model(model, self.states.get(trick.name))
        return model.eval()

    def predict(self, model: nn.Module) -> Predict:
        """Images (B, 3, S, S) -> logits (B, K), in the precision of the run."""

        def logits(images: Tensor) -> Tensor:
            with self.precision.forward():
                return model(images)

        return logits

    def test_images(self, indices: Tensor) -> Tensor:
        """Centre crops of test images, normalised, (B, 3, S, S) on the device."""
        return augment.evaluation_images(
            self.data.test,
            indices,
            eval_crop=self.recipe.eval_crop,
            view=self.feed.view(epoch=0),
        )


def build(spec: RunSpec, machine: Machine) -> Setup:
    """Load the data and build the network, optimizer, loss and batches of a run.

    Raises:
        ValueError: the recipe names something that does not exist, in words for the user.
        TeacherError: the run needs a teacher that cannot be used.
    """
    recipe, device = spec.arm.recipe, torch.device(machine.device)
    check_names(recipe)
    data = load_data(recipe, machine)
    tricks = make_tricks(spec)
    precision = Precision(recipe.precision, device)
    teacher = load_teacher(spec, machine, precision, classes=data.classes) if spec.teacher_run_id else None
    context = make_context(recipe, data, teacher)
    model = build_network(spec, tricks, classes=data.classes)
    if device.type == "cpu" and recipe.precision == "bf16":
        require_exact_gradients(model, recipe.data.resolution)
    model = model.to(device)
    states = {trick.name: state for trick in tricks if (state := trick.new_state(model)) is not None}
    optimizer = make_optimizer(recipe, parameter_groups(model, tricks, weight_decay=recipe.weight_decay))
    loss: Loss = soft_cross_entropy
    for trick in tricks:
        optimizer = trick.edit_optimizer(optimizer, states.get(trick.name))
        loss = trick.edit_loss(loss, context)
    return Setup(
        spec=spec,
        data=data,
        device=device,
        context=context,
        tricks=tricks,
        states=states,
        model=model,
        forward=torch.compile(model) if machine.compile else model,
        optimizer=optimizer,
        precision=precision,
        loss=loss,
        schedule=make_schedule(recipe, steps_per_epoch=context.steps_per_epoch),
        feed=Feed(data=data, recipe=recipe, seed=spec.seed, device=device, tricks=tricks, context=context),
    )


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
        ValueError: an unknown initialisation or read-out.
    """
    if recipe.initialisation not in INITIALISATIONS:
        raise ValueError(unknown("initialisation", recipe.initialisation, INITIALISATIONS))
    if recipe.read_out not in READ_OUTS:
        raise ValueError(unknown("read-out", recipe.read_out, READ_OUTS))
