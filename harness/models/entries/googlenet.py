"""GoogLeNet and BN-GoogLeNet: what a study may name, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.models.entry import Argument, Model, choice, number, switch

if TYPE_CHECKING:
    from torch import nn

SMALLEST_SIDE = {"large": 31, "small": 15}  # pixels; one less, and a max-pool has no pixel left


def blocks_kept(full: tuple[int, ...]) -> Argument:
    """How many blocks of each stage stay: for every stage from 1 to as many as the paper has.

    >>> blocks_kept((2, 5, 2)).accepts([1, 5, 2]), blocks_kept((2, 5, 2)).accepts([3, 5, 2])
    (True, False)
    """
    words = (
        f"{len(full)} whole numbers, the blocks kept of each stage ({', '.join(f'1 to {n}' for n in full)})"
    )

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(full)
            and all(type(kept) is int and 1 <= kept <= most for kept, most in zip(value, full, strict=True))
        )

    return Argument(default=full, words=words, accepts=accepts)


def dropout(default: float) -> Argument:
    """The share of units that are dropped; costs nothing."""
    return replace(number(default, low=0, high=0.99), changes_cost=False)


def free(argument: Argument) -> Argument:
    """The same argument, declared to change neither parameters nor multiply-adds."""
    return replace(argument, changes_cost=False)


def _build(**args: Any) -> nn.Module:
    from harness.models.googlenet import GoogLeNet, GoogLeNetConfig

    return GoogLeNet(GoogLeNetConfig(**args))


def _smallest_side(args: Mapping[str, Any]) -> int:
    return SMALLEST_SIDE[args["stem"]]


ENTRIES: tuple[Model, ...] = (
    Model(
        name="googlenet",
        arguments={
            "depth": blocks_kept((2, 5, 2)),
            "width": number(1.0, low=1 / 32, high=16),
            "stem": choice("large", "small"),
            "norm": choice("none", "batch"),
            "lrn": switch(True, changes_cost=False),
            "auxiliary": free(choice("plain", "none")),
            "dropout": dropout(0.4),
            "five": choice("5x5", "3x3"),
        },
        build=_build,
        paper="szegedy2015going",
        note=(
            "real 5x5, biases, two auxiliary heads; a full 7x7 first convolution (9.4 K weights; the printed "
            "2.7 K fit only a separable one); response normalisation where Caffe's model has it"
        ),
        variants={"googlenet_paper": {}, "googlenet_bn": {"norm": "batch", "lrn": False}},
        minimum_input=_smallest_side,
    ),
)
