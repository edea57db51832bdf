"""Our own network, and our own idea: train on shifted images.

Paper: own
Equation: x'[i, j] = x[i - a, j - b], zero outside;   a, b uniform on -pixels ... pixels, drawn once a batch
Acts on: batch (images)
Defaults: pixels = 2 (own)
Differs: nothing
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.models.entry import Model, number
from harness.tricks.base import Batch, Trick, require


@dataclass(frozen=True, kw_only=True)
class Shift(Trick):
    """Move the whole batch by a few pixels."""

    name: ClassVar[str] = "shift"
    pixels: int = 2

    def __post_init__(self):
        require(self.pixels > 0, f"shift: pixels must be at least 1, got {self.pixels!r}")

    def edit_batch(self, batch, rng, context):
        import torch
        from torch.nn.functional import pad

        n = self.pixels
        down, right = torch.randint(-n, n + 1, (2,), generator=rng).tolist()
        size = batch.images.shape[-1]
        wide = pad(batch.images, (n, n, n, n))
        moved = wide[:, :, n - down : n - down + size, n - right : n - right + size]
        return Batch(moved.contiguous(memory_format=torch.channels_last), batch.targets)


def build(width, classes, in_channels):
    from torch import nn

    a, b = round(16 * width), round(32 * width)
    return nn.Sequential(
        nn.Conv2d(in_channels, a, 3, padding=1, bias=False),
        nn.BatchNorm2d(a),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(a, b, 3, padding=1, bias=False),
        nn.BatchNorm2d(b),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(b, classes),
    )


TRICKS = (Shift,)
MODELS = (
    Model(
        name="clothes_net",
        arguments={"width": number(1.0, low=0.25, high=8)},
        build=build,
        paper="own",
        note="two convolutions",
        minimum_input=lambda args: 2,
    ),
)
