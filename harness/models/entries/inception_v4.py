"""Inception-v4: what a study may name, and with which arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.models.entries.inception_v3 import sizes, smallest_image, three_stages
from harness.models.entry import Model

if TYPE_CHECKING:
    from torch import nn


def _build(**args: Any) -> nn.Module:
    from harness.models.inception_v4 import InceptionV4, InceptionV4Config

    return InceptionV4(InceptionV4Config(**args))


ENTRIES: tuple[Model, ...] = (
    Model(
        name="inception_v4",
        arguments=sizes((4, 7, 3)),
        build=_build,
        paper="szegedy2017inception",
        note="the released code (timm's): 42.7 M parameters, 12.3 G multiply-adds at 299 pixels",
        input_size=299,
        minimum_input=smallest_image,
        rule=three_stages,
    ),
)
