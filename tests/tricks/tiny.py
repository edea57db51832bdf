"""The bench on which plugins are tried, for the tests of the harness's own tricks; and a ResNet's recipe."""

from __future__ import annotations

from typing import Any

from harness.plugins.trick_contract import (
    CLASSES,
    SWITCHES,
    Training,
    batch,
    bits,
    context,
    cross_entropy,
    named_groups,
    net,
    no_global_randomness,
)
from harness.plugins.trick_contract import recipe as full_recipe
from harness.spec import DataSpec, ModelSpec, Recipe

__all__ = [
    "CLASSES",
    "SWITCHES",
    "Training",
    "batch",
    "bits",
    "context",
    "cross_entropy",
    "full_recipe",
    "named_groups",
    "net",
    "no_global_randomness",
    "recipe",
]


def recipe(**changes: Any) -> Recipe:
    """The baseline recipe of a ResNet with the arguments that its tricks know of."""
    args = {"stem": "7x7", "stride_in": "1x1", "shortcut": "conv", "zero_gamma": False}
    return Recipe(
        model=ModelSpec(name="resnet50", args=args),
        data=DataSpec(name="fashion_mnist", resolution=8),
        **changes,
    )
