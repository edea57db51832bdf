"""MNIST: 28x28 grey images of handwritten digits in 10 classes, 60,000 + 10,000, from the user's files.

Source: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86(11). Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data.entry import Entry, Source, no_arguments_to_check
from harness.data.idx import FILES, absent_idx, grey_source, read_idx_files

CLASSES = 10


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    folder = data_dir / "mnist"
    absent = absent_idx(folder)
    if not absent:
        return None
    return (
        f"mnist needs the {len(FILES)} original files in {folder}, each plain or with .gz at its end: "
        f"{', '.join(FILES.values())}. Not there: {', '.join(absent)}. Nothing is downloaded here; "
        "torchvision.datasets.MNIST leaves them in its folder MNIST/raw."
    )


def _load(args: Mapping[str, Any], data_dir: Path) -> Source:
    return grey_source(read_idx_files(data_dir / "mnist"), CLASSES)


# mean and std: over the pixels of the 60,000 training images
ENTRY = Entry(
    name="mnist",
    args={},
    channels=1,
    mean=(0.1307, 0.1307, 0.1307),
    std=(0.3081, 0.3081, 0.3081),
    missing=_missing,
    load=_load,
    validate=no_arguments_to_check,
    count_classes=lambda args, data_dir: CLASSES,
    classes=CLASSES,
    train_images=60_000,
    test_images=10_000,
)
