"""A recipe, a network and a training step small enough for a contract to be checked on."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from harness.models.half import EmulatedHalf
from harness.plugins.load import from_exception
from harness.spec import DataSpec, ModelSpec, Recipe
from harness.tricks.base import Batch, Context, Loss, State, Trick

# A recipe, a network and a training step small enough for a trick to be tried in milliseconds.


CLASSES = 5
DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class Unwell(Exception):
    """A step could not be made or its numbers are not finite; says why."""


# Every switch that a trick may turn, at a value that the trick changes; no real network has them all.
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


def recipe(**changes: Any) -> Recipe:
    """A recipe on which every trick of the harness acts, whatever its options are."""
    full = Recipe(
        model=ModelSpec(name="everything", args=SWITCHES),
        data=DataSpec(name="fashion_mnist", resolution=8),
        batch_size=512,
        schedule="exponential",
        decay=0.96,
        decay_every=6.0,
        milestones=(),
        shuffle="shards",
        initialisation="other",
    )
    return dataclasses.replace(full, **changes)


def net(seed: int = 0) -> nn.Module:
    """Convolution, batch normalisation, linear layer: a parameter of every kind; same seed, same weights."""
    with torch.random.fork_rng(devices=[]):
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
class Training:
    """One training with some tricks on; makes its steps one by one, as harness.training does."""

    tricks: Sequence[Trick]
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)  # of the last step

    def __post_init__(self) -> None:
        edited, self.context, self.model = recipe(), context(), net()
        for trick in self.tricks:
            edited = trick.edit_recipe(edited)
        for trick in self.tricks:
            self.model = trick.edit_model(self.model)
        groups = named_groups(self.model, edited.weight_decay)
        for trick in self.tricks:
            groups = trick.edit_parameter_groups(groups, self.model)
        plain = [{**group, "params": [value for _, value in group["params"]]} for group in groups]
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(plain, lr=0.1, momentum=0.9, nesterov=True)
        self.dtype = DTYPES[edited.precision]
        self.scaler = torch.amp.GradScaler("cpu", enabled=edited.precision == "fp16")
        self.states: dict[str, State | None] = {t.name: t.new_state(self.model) for t in self.tricks}
        self.loss: Loss = cross_entropy
        for trick in self.tricks:
            self.optimizer = trick.edit_optimizer(self.optimizer, self.states[trick.name])
            self.loss = trick.edit_loss(self.loss, self.context)

    def step(self) -> None:
        """One optimizer step on a batch of its own.

        Raises:
            Unwell: the loss or a gradient is not finite, or there is no gradient at all.
        """
        data = batch(seed=self.steps)
        for place, trick in enumerate(self.tricks):
            rng = torch.Generator().manual_seed(100 * self.steps + place)
            data = trick.edit_batch(data, rng, self.context)
        with EmulatedHalf(self.dtype) if self.dtype else nullcontext():
            output = self.model(data.images)
        loss = self.loss(output, data)
        if not torch.isfinite(loss):
            raise Unwell(f"the loss of step {self.steps + 1} is {loss.item()}")
        self.scaler.scale(loss).backward()
        self.gradients = [value.grad for value in self.model.parameters() if value.grad is not None]
        if not all(torch.isfinite(gradient).all() for gradient in self.gradients):
            raise Unwell(f"a gradient of step {self.steps + 1} is not finite")
        if not any(gradient.any() for gradient in self.gradients):
            raise Unwell(f"in step {self.steps + 1} no parameter has a gradient")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.losses.append(loss.item())
        self.steps += 1

    def make_steps(self, count: int) -> Training:
        """Several steps; returns itself."""
        for _ in range(count):
            self.step()
        return self

    def eval_model(self) -> nn.Module:
        """The network that would be evaluated."""
        model = self.model
        for trick in self.tricks:
            model = trick.edit_eval_model(model, self.states[trick.name])
        return model

    def checkpoint(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        states = {name: state.state_dict() for name, state in self.states.items() if state is not None}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "tricks": states,
            "steps": self.steps,
        }

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for name, kept in saved["tricks"].items():
            state = self.states[name]
            if state is not None:
                state.load_state_dict(kept)
        self.steps = saved["steps"]


def bits(value: Any) -> list[bytes]:
    """The exact content of tensors, or of the tensors of a module's state."""
    tensors = value.state_dict().values() if isinstance(value, nn.Module) else value
    return [tensor.detach().contiguous().numpy().tobytes() for tensor in tensors]


@contextmanager
def no_global_randomness() -> Iterator[None]:
    """
    Raises:
        Unwell: the block drew from a generator that it was not given.
    """

    def state() -> list[Any]:
        legacy = np.random.get_state()  # noqa: NPY002
        return [torch.get_rng_state().tolist(), random.getstate(), str(legacy)]

    before = state()
    yield
    for name, was, now in zip(("torch's", "random's", "numpy's"), before, state(), strict=True):
        if was != now:
            raise Unwell(
                f"drew from {name} global generator; every draw must come from the `rng` it is given"
            )


# What a check of a contract is, and how checks are run over a plugin's things.


KEPT, BROKEN, SKIPPED = "kept", "broken", "skipped"


class Broken(Exception):
    """The contract is not kept: why, and how to mend it."""

    def __init__(self, why: str, mend: str) -> None:
        super().__init__(why)
        self.mend = mend


class Skipped(Exception):
    """The check cannot be made here; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractFinding:
    """What one check said of one thing."""

    subject: str  # e.g. "trick half_batch"
    claim: str  # what is promised
    outcome: str  # KEPT | BROKEN | SKIPPED
    why: str = ""
    mend: str = ""


Check = Callable[[Any], None]  # raises Broken or Skipped; the first line of its docstring is the claim


def run_checks(subject: str, thing: Any, checks: Sequence[Check], path: Path) -> list[ContractFinding]:
    """Every check on one thing. An exception in the user's code is a broken contract, with its place."""
    return [_run(subject, thing, check, path) for check in checks]


def require(condition: bool, why: str, mend: str) -> None:
    """
    Raises:
        Broken: the condition does not hold.
    """
    if not condition:
        raise Broken(why, mend)


def _run(subject: str, thing: Any, check: Check, path: Path) -> ContractFinding:
    claim = (check.__doc__ or check.__name__).strip().splitlines()[0].rstrip(".")
    try:
        check(thing)
    except Broken as broken:
        return ContractFinding(
            subject=subject, claim=claim, outcome=BROKEN, why=str(broken), mend=broken.mend
        )
    except Skipped as skipped:
        return ContractFinding(subject=subject, claim=claim, outcome=SKIPPED, why=str(skipped))
    except Exception as error:
        why = str(from_exception(error, path, "it"))
        return ContractFinding(
            subject=subject, claim=claim, outcome=BROKEN, why=why, mend="mend the line it names"
        )
    return ContractFinding(subject=subject, claim=claim, outcome=KEPT)
