"""Plugins as text, small and whole, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

from harness.plugins.load import Plugin, load

TRICK = '''
"""Half of the batch: train on every other image.

Paper: own
Equation: x' = x_0, x_2, x_4, ...
Acts on: batch (images and targets are repeated)
Defaults: no options
Differs: nothing
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.tricks.base import Batch, Trick


@dataclass(frozen=True, kw_only=True)
class Halves(Trick):
    """Every other image, twice."""

    name: ClassVar[str] = "halves"

    def edit_batch(self, batch, rng, context):
        at = [2 * (index // 2) for index in range(len(batch.images))]
        return Batch(batch.images[at], batch.targets[at])


TRICKS = (Halves,)
'''

MODEL = """
from harness.models.entry import Model, number


def build(width, classes, in_channels):
    from torch import nn

    channels = round(8 * width)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes),
    )


MODELS = (
    Model(
        name="tiny_net", arguments={"width": number(1.0, low=0.5, high=4)}, build=build, paper="own",
        note="one convolution", variants={"tiny_net_wide": {"width": 2.0}}, minimum_input=lambda args: 3,
    ),
)
"""

DATA = """
import numpy as np

from harness.data.entry import Entry, Pixels, Source, no_arguments_to_check


def part(seed, count):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Pixels(images=pixels, labels=np.arange(count) % 3)


DATASETS = (
    Entry(
        name="noise", args={}, channels=3, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3),
        missing=lambda args, data_dir: None,
        load=lambda args, data_dir: Source(train=part(0, 30), test=part(1, 12), classes=3),
        validate=no_arguments_to_check,
        count_classes=lambda args, data_dir: 3, classes=3, train_images=30, test_images=12,
    ),
)
"""

METRIC = """
def confidence(logits, labels):
    return logits.softmax(1).amax(1).mean()


METRICS = {"confidence": confidence}
"""

TRAINER = """
def train(spec, run):
    return {"top1": 50.0}


TRAINERS = {"guess": train}
"""


def written(folder: Path, text: str, name: str = "my_lab.py") -> Path:
    """The text in a file of the folder."""
    path = folder / name
    path.write_text(text)
    return path


def loaded(folder: Path, text: str, name: str = "my_lab.py") -> Plugin:
    """The plugin of a text."""
    return load(written(folder, text, name))
