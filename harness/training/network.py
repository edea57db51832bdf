"""The network of a run: architecture, initial weights, and what tricks change of it."""

from __future__ import annotations

import torch
from torch import nn

from harness.models import build_model
from harness.study.spec import RunSpec
from harness.training.group_statistics import group_statistics
from harness.training.randomness import seed_default
from harness.tricks.base import Trick
from harness.tricks.build import make as make_trick


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
        group_statistics(model, recipe.norm_images)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stub


def make_tricks(spec: RunSpec) -> tuple[Trick, ...]:
    """The tricks of a run, in the order in which they act."""
    return tuple(make_trick(trick.name, trick.options) for trick in spec.arm.tricks)
