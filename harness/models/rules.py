"""What must hold between the arguments of a ResNet or a MobileNet: asked when planning, and when building."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.models.entry import scaled_channels

RESNET_CHANNELS = (64, 128, 256, 512)  # of each stage's 3x3 convolutions, He et al. 2016, Table 1
MOBILENET_DEPTH = (1, 2, 2, 6, 2)  # separable convolutions at 112 to 7 pixels, Howard et al. 2017, Table 1
SHALLOW_STAGE = 3  # index of the stage whose blocks of stride 1 the shallow MobileNet has not


def groups_divide_channels(args: Mapping[str, Any]) -> None:
    """The 3x3 convolutions of every stage must split into equal groups, whatever the width.

    Raises:
        ValueError: they do not, or no channel is left.
    """
    for stage, _ in enumerate(args["depth"], start=1):
        inner = args["groups"] * args["group_width"] * RESNET_CHANNELS[stage - 1] // RESNET_CHANNELS[0]
        channels = scaled_channels(inner, args["width"])
        if channels % args["groups"]:
            raise ValueError(
                f"width {args['width']:g} leaves {channels} of {inner} channels in the 3x3 convolutions of "
                f"stage {stage}, which do not split into {args['groups']} groups: choose a width that makes "
                f"them a multiple of {args['groups']}, or fewer groups"
            )


def shallow_removes_something(args: Mapping[str, Any]) -> None:
    """A shallow network must differ from the whole one.

    Raises:
        ValueError: it does not.
    """
    depth = args["depth"]
    if args["shallow"] and (len(depth) <= SHALLOW_STAGE or depth[SHALLOW_STAGE] == 1):
        raise ValueError(
            f"shallow removes the blocks of stride 1 of stage {SHALLOW_STAGE + 1}, and depth {list(depth)} "
            "leaves none there: give that stage 2 or more"
        )
