"""Generated pixels for benchmarks and tests, never for a report: a pattern per class under uniform noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.entry import IMAGENET_MEAN, IMAGENET_STD, Entry, Pixels, Source

if TYPE_CHECKING:
    import numpy as np

PATTERN_CELLS = 4  # the pattern of a class has 4 x 4 cells
PATTERN_SEED = 20190601


def draw_images(labels: np.ndarray, args: Mapping[str, Any], part: int) -> np.ndarray:
    """(N, size, size, channels) uint8: half the pattern of the label's class, half noise; a pure function."""
    import numpy as np

    side, channels = args["size"], args["channels"]
    patterns = np.random.Generator(np.random.Philox(PATTERN_SEED)).integers(
        0, 128, (args["classes"], PATTERN_CELLS, PATTERN_CELLS, channels), dtype=np.uint8
    )
    cell = np.arange(side) * PATTERN_CELLS // side
    noise = np.random.Generator(np.random.Philox([PATTERN_SEED, part + 1])).integers(
        0, 128, (len(labels), side, side, channels), dtype=np.uint8
    )
    return patterns[:, cell][:, :, cell][labels] + noise


def _load(args: Mapping[str, Any], data_dir: Path) -> Source:
    import numpy as np

    def part(number: int, count: int) -> Pixels:
        labels = np.arange(count, dtype=np.int64) % args["classes"]
        return Pixels(images=draw_images(labels, args, number), labels=labels)

    return Source(train=part(0, args["train"]), test=part(1, args["test"]), classes=args["classes"])


def _validate(args: Mapping[str, Any]) -> None:
    for key in ("classes", "size", "train", "test"):
        if not isinstance(args[key], int) or isinstance(args[key], bool) or args[key] < 1:
            raise ValueError(f"generated: {key} must be a whole number of at least 1, not {args[key]!r}")
    if args["channels"] not in (1, 3):
        raise ValueError(f"generated: channels must be 1 or 3, not {args['channels']!r}")
    if args["classes"] < 2:
        raise ValueError("generated: classes must be at least 2")


ENTRY = Entry(
    name="generated",
    args={"classes": 10, "size": 32, "channels": 3, "train": 1024, "test": 256},
    channels=3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    missing=lambda args, data_dir: None,
    load=_load,
    validate=_validate,
    count_classes=lambda args, data_dir: args["classes"],
    for_reports=False,
    counts=lambda args: (args["classes"], args["train"], args["test"]),
    is_fixed=lambda args: True,
)
