"""Inception-v2 and -v3: what a study may name, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.models.entry import Argument, Model, choice, counts, number, switch

if TYPE_CHECKING:
    from torch import nn

MOST_BLOCKS = 24  # at one grid; the names of Inception-v3's blocks end at z
SMALLEST = {"stride2_pool": 75, "stride1_pool": 39, "stride1": 21}  # pixels; at 8 pixels' grid one is left


def sizes(depth: tuple[int, int, int]) -> dict[str, Argument]:
    """The arguments that every Inception of these papers has."""
    return {
        "depth": counts(depth, at_most=MOST_BLOCKS),
        "width": number(1.0, low=1 / 64, high=16),
        "stem": choice("large", "small"),
        "dropout": replace(number(0.2, low=0, high=0.95), changes_cost=False),
    }


def three_stages(args: Mapping[str, Any]) -> None:
    """The blocks at all three grids are needed.

    Raises:
        ValueError: `depth` does not name three stages.
    """
    depth = args["depth"]
    if len(depth) != 3:
        raise ValueError(f"depth must be 3 positive integers, one for each grid, got {list(depth)}")


def smallest_image(args: Mapping[str, Any]) -> int:
    """Smallest side in pixels of the images: one that leaves a pixel of the last grid, none with padding."""
    return 1 if args["stem"] == "small" else SMALLEST[args.get("first_layer", "stride2_pool")]


def _build(**args: Any) -> nn.Module:
    from harness.models.inception_v3 import InceptionV3, InceptionV3Config

    return InceptionV3(InceptionV3Config(**args))


ENTRIES: tuple[Model, ...] = (
    Model(
        name="inception_v3",
        arguments={
            **sizes((3, 4, 2)),
            "layout": choice("code", "table1"),
            "five": choice("5x5", "two_3x3", "two_3x3_linear"),
            "asymmetric": switch(True, changes_cost=True),
            "factorized_7x7": switch(True, changes_cost=True),
            "auxiliary": replace(choice("bn", "plain", "none"), changes_cost=False),
            "grid": choice("paper", "naive", "expensive"),
            "first_layer": choice("stride2_pool", "stride1_pool", "stride1"),
        },
        build=_build,
        paper="szegedy2016rethinking",
        note="the released code (torchvision's): 23.8 M parameters, 5.7 G multiply-adds at 299 pixels; the "
        "paper says under 25 M and 5 G",
        variants={
            "inception_v3_code": {},
            "inception_v3_table1_literal": {"layout": "table1", "depth": (3, 5, 2)},
            "inception_v2": {"factorized_7x7": False, "auxiliary": "plain"},
        },
        input_size=299,
        minimum_input=smallest_image,
        rule=three_stages,
    ),
)
