"""ResNet, its refinements B, C and D, and ResNeXt: what a study may name, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.models.entry import Argument, Model, choice, counts, number, switch, whole
from harness.models.rules import groups_divide_channels

if TYPE_CHECKING:
    from torch import nn

Depth = tuple[int, int, int, int]

B = {"stride_in": "3x3"}
C = {**B, "stem": "deep"}
D = {**C, "shortcut": "avgpool"}


def _build(block: str, **args: Any) -> nn.Module:
    from harness.models.resnet import ResNet, ResNetConfig

    return ResNet(ResNetConfig(block=block, **args))


def _arguments(depth: Depth) -> dict[str, Argument]:
    return {
        "depth": counts(depth, at_most=100),
        "width": number(1.0, low=1 / 64, high=16),
        "stem": choice("7x7", "deep"),
        "shortcut": choice("conv", "avgpool"),
        "zero_gamma": switch(False, changes_cost=False),
    }


def _basic(name: str, depth: Depth) -> Model:
    """He et al. 2016, Table 1; its blocks have no 1x1 convolution, so neither B nor groups exist for it."""
    return Model(
        name=name,
        arguments=_arguments(depth),
        build=partial(_build, "basic"),
        paper="he2016deep",
        note=f"basic blocks {_written(depth)}; stem and shortcut of He et al. 2016",
    )


def _bottleneck(
    name: str, depth: Depth, *, groups: tuple[int, int] = (1, 64), variants: Mapping[str, Any] | None = None
) -> Model:
    """He et al. 2016, Table 1; with `groups` (how many, how wide) Xie et al. 2017, Table 1."""
    arguments = _arguments(depth)
    plain = groups[0] == 1
    arguments["stride_in"] = choice("1x1", "3x3") if plain else choice("3x3", "1x1")
    arguments["groups"] = whole(groups[0], low=1, high=1024)
    arguments["group_width"] = whole(groups[1], low=1, high=1024)
    blocks = f"bottleneck blocks {_written(depth)}"
    if plain:
        note = f"{blocks}; stride placement, stem and shortcut of He et al. 2016"
    else:
        note = f"{blocks}, 3x3 convolutions in {groups[0]} groups of {groups[1]} channels; stride in the 3x3"
    return Model(
        name=name,
        arguments=arguments,
        build=partial(_build, "bottleneck"),
        paper="he2016deep" if plain else "xie2017aggregated",
        note=note,
        variants=variants or {},
        rule=groups_divide_channels,
    )


def _written(depth: Depth) -> str:
    return "-".join(map(str, depth))


ENTRIES: tuple[Model, ...] = (
    _basic("resnet18", (2, 2, 2, 2)),
    _basic("resnet34", (3, 4, 6, 3)),
    _bottleneck(
        "resnet50",
        (3, 4, 6, 3),
        variants={"resnet50_stride1x1": {}, "resnet50b_v1.5": B, "resnet50c": C, "resnet50d": D},
    ),
    _bottleneck("resnet101", (3, 4, 23, 3), variants={"resnet101d": D}),
    _bottleneck("resnet152", (3, 8, 36, 3), variants={"resnet152_stride1x1": {}, "resnet152d": D}),
    _bottleneck("resnext50_32x4d", (3, 4, 6, 3), groups=(32, 4)),
    _bottleneck("resnext101_32x4d", (3, 4, 23, 3), groups=(32, 4)),
    _bottleneck("resnext101_64x4d", (3, 4, 23, 3), groups=(64, 4)),
)
