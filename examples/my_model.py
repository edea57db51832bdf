"""A model of one's own: three convolutions. A study names it as `my_net`."""

from itertools import pairwise

from harness.models.entry import Model, number


def build(width, classes, in_channels):
    """Every argument by name, and `classes` and `in_channels`; images (B, C, S, S) -> logits (B, classes)."""
    from torch import nn  # inside the function: planning a study then needs no torch

    channels = [in_channels, *(round(count * width) for count in (16, 32, 64))]
    layers = []
    for before, after in pairwise(channels):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes))


MODELS = (
    Model(
        name="my_net",
        arguments={"width": number(1.0, low=1 / 16, high=16)},
        build=build,
        paper="own",
        note="three convolutions with stride 2, batch norm, global average pooling",
        variants={"my_wide_net": {"width": 2.0}},
    ),
)
