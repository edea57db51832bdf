"""Inception-ResNet-v1 and -v2: what a study may name, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.models.entries.inception_v3 import sizes, smallest_image, three_stages
from harness.models.entry import Argument, Model, choice, number, switch

if TYPE_CHECKING:
    from torch import nn


def _build(version: str, **args: Any) -> nn.Module:
    from harness.models.inception_resnet import InceptionResNet, InceptionResNetConfig

    return InceptionResNet(InceptionResNetConfig(version=version, **args))


def _arguments(depth: tuple[int, int, int]) -> dict[str, Argument]:
    def scale(default: float) -> Argument:
        return replace(number(default, low=0, high=10), changes_cost=False)

    return {
        **sizes(depth),
        "residual": switch(True, changes_cost=False),
        "scale_a": scale(0.17),
        "scale_b": scale(0.10),
        "scale_c": scale(0.20),
    }


def _model(
    version: str, arguments: dict[str, Argument], *, note: str, variants: Mapping[str, Mapping[str, Any]]
) -> Model:
    return Model(
        name=f"inception_resnet_{version}",
        arguments=arguments,
        build=partial(_build, version),
        paper="szegedy2017inception",
        note=note,
        variants=variants,
        input_size=299,
        minimum_input=smallest_image,
        rule=three_stages,
    )


ENTRIES: tuple[Model, ...] = (
    _model(
        "v1",
        _arguments((5, 10, 5)),
        note="the figures' 5-10-5 blocks: 22.8 M parameters, 6.2 G multiply-adds at 299 pixels",
        variants={"inception_resnet_v1_figs": {}},
    ),
    _model(
        "v2",
        {**_arguments((10, 20, 10)), "layout": choice("released", "figures")},
        note="the released code (timm's): 55.8 M parameters, 13.2 G multiply-adds at 299 pixels; the figures "
        "differ, layout 'figures' follows them",
        variants={
            "inception_resnet_v2_slim_timm": {},
            "inception_resnet_v2_figs_5_10_5": {"layout": "figures", "depth": (5, 10, 5)},
            "inception_resnet_v2_figs_10_20_10": {"layout": "figures"},
        },
    ),
)
