"""BN-Inception: what a study may name, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.models.entries.googlenet import blocks_kept, dropout, free
from harness.models.entry import Model, choice, number, switch

if TYPE_CHECKING:
    from torch import nn

SMALLEST_SIDE = {"large": 7, "small": 3}  # pixels; one less, and a max-pool of the stem has no pixel left


def _build(**args: Any) -> nn.Module:
    from harness.models.bn_inception import BNInception, BNInceptionConfig

    return BNInception(BNInceptionConfig(**args))


def _smallest_side(args: Mapping[str, Any]) -> int:
    return SMALLEST_SIDE[args["stem"]]


ENTRIES: tuple[Model, ...] = (
    Model(
        name="bn_inception",
        arguments={
            "depth": blocks_kept((3, 5, 2)),
            "width": number(1.0, low=1 / 64, high=16),
            "stem": choice("large", "small"),
            "layout": choice("slim", "fig5"),
            "norm": choice("batch", "none"),
            "activation": free(choice("relu", "sigmoid")),
            "lrn": switch(False, changes_cost=False),
            "dropout": dropout(0.0),
        },
        build=_build,
        paper="ioffe2015batch",
        note=(
            "Fig. 5 as TF-slim reads it (96-channel projections in 4c and 4d, separable first convolution) "
            "or literally (fig5); 11.2 or 11.3 M parameters, the paper's text says 13.6 M; no auxiliary head"
        ),
        variants={"bn_inception_slim_sepconv": {}, "bn_inception_fig5_pool128": {"layout": "fig5"}},
        minimum_input=_smallest_side,
    ),
)
