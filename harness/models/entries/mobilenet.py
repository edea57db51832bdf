"""MobileNet v1: what a study may name, and with which arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.models.entry import Model, choice, counts, number, switch
from harness.models.rules import MOBILENET_DEPTH, shallow_removes_something

if TYPE_CHECKING:
    from torch import nn


def _build(**args: Any) -> nn.Module:
    from harness.models.mobilenet import MobileNet, MobileNetConfig

    return MobileNet(MobileNetConfig(**args))


ENTRIES: tuple[Model, ...] = (
    Model(
        name="mobilenet_v1",
        arguments={
            "width": number(1.0, low=1 / 32, high=16),
            "base_width": number(1.0, low=1 / 32, high=16),
            "depth": counts(MOBILENET_DEPTH, at_most=100),
            "shallow": switch(False, changes_cost=True),
            "full_conv": switch(False, changes_cost=True),
            "activation": choice("relu", "relu6"),
            "stem": choice("large", "small"),
        },
        build=_build,
        paper="howard2017mobilenets",
        note=(
            "Table 1 prints stride 2 for the last depthwise convolution, 7x7 to 7x7: it is 1 here. "
            "The released networks use ReLU6, the paper ReLU"
        ),
        variants={
            "mobilenet_v1_1.0": {},
            "mobilenet_v1_0.75": {"width": 0.75},
            "mobilenet_v1_0.5": {"width": 0.5},
            "mobilenet_v1_0.25": {"width": 0.25},
            "mobilenet_v1_shallow": {"shallow": True},
            "mobilenet_v1_full_conv": {"full_conv": True},
        },
        rule=shallow_removes_something,
    ),
)
