"""The table of models: every architecture a study may name. Importing it does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.models.entry import Argument, Model, choice, counts, number, switch, unknown

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "Model", "build_model", "resolve_args", "validate_model"]


def _build_resnet(block: str, **args: Any) -> nn.Module:
    from harness.models.resnet import ResNet, ResNetConfig

    return ResNet(ResNetConfig(block=block, **args))


def _resnet(name: str, block: str, depth: tuple[int, int, int, int]) -> Model:
    """He et al. 2016, Table 1. The name fixes the kind of block; harness.models.resnet explains the rest."""
    arguments: dict[str, Argument] = {
        "depth": counts(depth, at_most=100),
        "width": number(1.0, low=1 / 64, high=16),
        "stem": choice("7x7", "deep"),
        "shortcut": choice("conv", "avgpool"),
        "zero_gamma": switch(False, changes_cost=False),
    }
    if block == "bottleneck":
        arguments["stride_in"] = choice("1x1", "3x3")
    note = (
        f"{block} blocks {'-'.join(map(str, depth))}; stride placement, stem and shortcut of He et al. 2016"
    )
    return Model(
        name=name, arguments=arguments, build=partial(_build_resnet, block), paper="he2016deep", note=note
    )


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        _resnet("resnet18", "basic", (2, 2, 2, 2)),
        _resnet("resnet34", "basic", (3, 4, 6, 3)),
        _resnet("resnet50", "bottleneck", (3, 4, 6, 3)),
        _resnet("resnet101", "bottleneck", (3, 4, 23, 3)),
        _resnet("resnet152", "bottleneck", (3, 8, 36, 3)),
    )
}


def build_model(name: str, args: Mapping[str, Any], *, classes: int, in_channels: int = 3) -> nn.Module:
    """Build and initialise a network; arguments left out take the table's defaults.

    Every random draw comes from torch's default generator, which the caller seeds.
    The network maps images (B, in_channels, H, W) to logits (B, classes).

    Raises:
        ValueError: an unknown name or argument, or a value out of range.
    """
    if classes < 1 or in_channels < 1:
        raise ValueError(f"{name}: needs at least 1 class and 1 channel, got {classes} and {in_channels}")
    return _find(name).build(**resolve_args(name, args), classes=classes, in_channels=in_channels)


def validate_model(name: str, args: Mapping[str, Any]) -> None:
    """Check a model's name and constructor arguments without building it.

    Raises:
        ValueError: what is wrong, the nearest valid name, the valid ones.
    """
    _find(name).validate(args)


def resolve_args(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Every constructor argument, checked, with the defaults filled in.

    Raises:
        ValueError: as `validate_model`.
    """
    return _find(name).resolve(args)


def _find(name: str) -> Model:
    if name not in MODELS:
        raise ValueError(unknown("model", name, MODELS))
    return MODELS[name]
