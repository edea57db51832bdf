"""A recipe, a network and a training step small enough for every trick to be tried in milliseconds."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from harness.study.spec import DataSpec, ModelSpec, Recipe
from harness.tricks.base import Batch, Context, Loss, State, Trick

CLASSES = 5
DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def recipe(**changes: Any) -> Recipe:
    """The baseline recipe of a ResNet that has every argument the tricks know of."""
    args = {"stem": "7x7", "stride_in": "1x1", "shortcut": "conv", "zero_gamma": False}
    return Recipe(
        model=ModelSpec(name="resnet50", args=args),
        data=DataSpec(name="fashion_mnist", resolution=8),
        **changes,
    )


# Every switch that a trick may turn, at the value that the trick changes; no real network has them all.
SWITCHES: Mapping[str, Any] = {
    "stem": "7x7",
    "stride_in": "1x1",
    "shortcut": "conv",
    "zero_gamma": False,
    "auxiliary": "none",
    "dropout": 0.4,
    "lrn": True,
    "norm": "none",
    "activation": "relu",
    "residual": True,
    "scale_a": 0.17,
    "scale_b": 0.10,
    "scale_c": 0.20,
    "factorized_7x7": False,
    "five": "5x5",
    "asymmetric": False,
    "grid": "other",
    "first_layer": "other",
}


def full_recipe(**changes: Any) -> Recipe:
    """A recipe on which every trick acts, whatever its options are."""
    fields = {
        "batch_size": 512,
        "schedule": "exponential",
        "decay": 0.96,
        "decay_every": 6.0,
        "milestones": (),
        "shuffle": "shards",
        "initialisation": "other",
        "eval_crops": 1,
    }
    return dataclasses.replace(
        recipe(**{**fields, **changes}), model=ModelSpec(name="everything", args=SWITCHES)
    )


def net(seed: int = 0) -> nn.Module:
    """Convolution, batch normalisation, linear layer: one parameter of every kind."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, CLASSES),
    )


def batch(seed: int = 0, size: int = 6) -> Batch:
    """Random images with one-hot targets."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (size,), generator=rng)
    return Batch(torch.randn(size, 3, 8, 8, generator=rng), one_hot(labels, CLASSES).float())


def context() -> Context:
    """A context with a teacher: a fixed network of its own."""
    teacher = net(seed=99).eval().requires_grad_(False)
    return Context(classes=CLASSES, steps_per_epoch=2, total_steps=6, teacher=teacher)


def cross_entropy(output: Tensor, batch: Batch) -> Tensor:
    """Mean over the batch of -sum_k y_k log p_k, from logits (B, K)."""
    return -(batch.targets * log_softmax(output.float(), dim=1)).sum(dim=1).mean()


def named_groups(model: nn.Module, weight_decay: float = 1e-4) -> list[dict[str, Any]]:
    """Every parameter in one group, as a trick gets them."""
    return [{"params": list(model.named_parameters()), "weight_decay": weight_decay}]


@dataclass
class Run:
    """One training with some tricks on; makes its steps one by one."""

    tricks: Sequence[Trick]
    seed: int = 0
    steps: int = 0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recipe, self.context = full_recipe(), context()
        self.model, groups = net(self.seed), []
        for trick in self.tricks:
            self.recipe = trick.edit_recipe(self.recipe)
        for trick in self.tricks:
            self.model = trick.edit_model(self.model)
        groups = named_groups(self.model, self.recipe.weight_decay)
        for trick in self.tricks:
            groups = trick.edit_parameter_groups(groups, self.model)
        plain = [{**group, "params": [p for _, p in group["params"]]} for group in groups]
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(plain, lr=0.1, momentum=0.9, nesterov=True)
        self.scaler = torch.amp.GradScaler("cpu", enabled=self.recipe.precision == "fp16")
        self.states: dict[str, State | None] = {t.name: t.new_state(self.model) for t in self.tricks}
        self.loss: Loss = cross_entropy
        for trick in self.tricks:
            self.optimizer = trick.edit_optimizer(self.optimizer, self.states[trick.name])
            self.loss = trick.edit_loss(self.loss, self.context)

    def step(self) -> None:
        """One optimizer step on a batch of its own."""
        data = batch(seed=1000 * self.seed + self.steps)
        for i, trick in enumerate(self.tricks):
            rng = torch.Generator().manual_seed(100 * self.steps + i)
            data = trick.edit_batch(data, rng, self.context)
        dtype = DTYPES[self.recipe.precision]
        with torch.autocast("cpu", dtype=dtype) if dtype else nullcontext():
            output = self.model(data.images)
        loss = self.loss(output, data)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.gradients = [p.grad for p in self.model.parameters()]
        self.optimizer.zero_grad()
        self.losses.append(loss.item())
        self.steps += 1

    def eval_model(self) -> nn.Module:
        """The network that would be evaluated."""
        model = self.model
        for trick in self.tricks:
            model = trick.edit_eval_model(model, self.states[trick.name])
        return model


def bits(value: Any) -> list[bytes]:
    """The exact content of tensors, or of the tensors of a module's state."""
    tensors = value.state_dict().values() if isinstance(value, nn.Module) else value
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


@contextmanager
def no_global_randomness() -> Iterator[None]:
    """Fail if the block draws from a generator that it was not given."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    yield
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()  # noqa: NPY002
