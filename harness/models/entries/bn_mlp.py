"""The fully connected network of the batch norm paper's Fig. 1: what a study may set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.models.entries.googlenet import free
from harness.models.entry import Model, choice, counts

if TYPE_CHECKING:
    from torch import nn

SIDE = 28  # pixels, as in the paper


def _build(**args: Any) -> nn.Module:
    from harness.models.bn_mlp import BNMLP, BNMLPConfig

    return BNMLP(BNMLPConfig(**args))


ENTRIES: tuple[Model, ...] = (
    Model(
        name="bn_mlp",
        arguments={
            "hidden": counts((100, 100, 100), at_most=10_000),
            "norm": choice("none", "batch"),
            "activation": free(choice("sigmoid", "relu")),
        },
        build=_build,
        paper="ioffe2015batch",
        note=(
            "three layers of 100 sigmoid units on 28x28 grey pixels; colours averaged, larger images pooled; "
            "weights N(0, 0.1^2) for the Gaussian scheme (the paper: a small Gaussian)"
        ),
        input_size=SIDE,
        minimum_input=lambda args: SIDE,
    ),
)
