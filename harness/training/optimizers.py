"""Optimizers by name. The algorithms are torch.optim's, and TensorFlow's RMSProp."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from harness.study.problems import unknown
from harness.study.spec import Recipe
from harness.training.rmsprop_tf import RMSpropTF
from harness.tricks.base import ParameterGroup, Trick


@dataclass(frozen=True, slots=True)
class Entry:
    """An optimizer's constructor, and what a recipe leaves to us."""

    make: type[Optimizer]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fused: bool = True  # has one kernel for all parameters on CPU and CUDA


OPTIMIZERS: Mapping[str, Entry] = {
    # Nesterov momentum 0.9 is the optimizer of He et al. 2019 (GluonCV's NAG) and of Goyal et al. 2017.
    "sgd": Entry(torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": Entry(torch.optim.Adam),
    "adamw": Entry(torch.optim.AdamW),
    "rmsprop": Entry(torch.optim.RMSprop, fused=False),
    "rmsprop_tf": Entry(RMSpropTF, fused=False),
}


def parameter_groups(
    model: nn.Module, tricks: Sequence[Trick], *, weight_decay: float
) -> list[ParameterGroup]:
    """One group with every trainable parameter, as the tricks then regroup it.

    Raises:
        ValueError: a trick lost a parameter or put one into two groups.
    """
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    groups: list[ParameterGroup] = [{"params": named, "weight_decay": weight_decay}]
    for trick in tricks:
        groups = trick.edit_parameter_groups(groups, model)
    grouped = sorted(name for group in groups for name, _ in group["params"])
    if grouped != sorted(name for name, _ in named):
        twice = sorted({name for name in grouped if grouped.count(name) > 1})
        lost = sorted({name for name, _ in named} - set(grouped))
        raise ValueError(f"parameter groups must hold each parameter once; twice: {twice}, missing: {lost}")
    return groups


def make_optimizer(recipe: Recipe, groups: Sequence[ParameterGroup]) -> Optimizer:
    """The recipe's optimizer over the groups. The learning rate is set anew at every step.

    Raises:
        ValueError: an unknown optimizer, or an argument that its constructor does not take.
    """
    if recipe.optimizer not in OPTIMIZERS:
        raise ValueError(unknown("optimizer", recipe.optimizer, OPTIMIZERS))
    entry = OPTIMIZERS[recipe.optimizer]
    valid = set(inspect.signature(entry.make).parameters) - {"params", "lr", "weight_decay"}
    for name in recipe.optimizer_args:
        if name not in valid:
            raise ValueError(unknown(f"argument of optimizer {recipe.optimizer}", name, valid))
    options = {**entry.defaults, **recipe.optimizer_args}
    if entry.fused:
        # A first momentum of zeros, see below, equals the gradient only where nothing of it is damped.
        options.setdefault("fused", not options.get("dampening"))
    plain = [{**group, "params": [value for _, value in group["params"]]} for group in groups]
    make: Any = entry.make
    optimizer: Optimizer = make(plain, lr=recipe.lr, **options)
    if options.get("fused") and options.get("momentum"):
        _start_momentum(optimizer)
    return optimizer


def _start_momentum(optimizer: Optimizer) -> None:
    """Zeros for the momentum of fused SGD, before the first step.

    Its kernel makes the momentum with uninitialised memory and, where FP16 overflowed, returns before it
    writes it: the second step would take that memory for gradients (torch 2.13). From zeros the first step
    is the same, m * 0 + g.
    """
    for group in optimizer.param_groups:
        for value in group["params"]:
            optimizer.state[value]["momentum_buffer"] = torch.zeros_like(value)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
