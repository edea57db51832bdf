"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32x32 pixels, from the user's files.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", technical report, Toronto.
Nothing is downloaded; torchvision checks the files' md5 before it reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.entry import RGB, Entry, Pixels, Source, no_arguments_to_check

if TYPE_CHECKING:
    import numpy as np

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}


def _missing(name: str, data_dir: Path) -> str | None:
    folder = data_dir / name / FOLDERS[name]
    if folder.is_dir():
        return None
    return (
        f"{name} needs the folder {folder}: unpack {ARCHIVES[name]} "
        f"(from www.cs.toronto.edu/~kriz/cifar.html) into {data_dir / name}"
    )


def _load(name: str, classes: int, data_dir: Path) -> Source:
    from harness.data.arrays import decoded_once

    def part(split: str) -> Pixels:
        cache = data_dir / name / ".decoded"
        images = decoded_once(cache / f"{split}_images.npy", lambda: _read(name, split, data_dir)[0])
        labels = decoded_once(cache / f"{split}_labels.npy", lambda: _read(name, split, data_dir)[1])
        return Pixels(images=images, labels=labels)

    return Source(train=part("train"), test=part("test"), classes=classes)


def _read(name: str, split: str, data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    from harness.data.torchvision_import import torchvision

    dataset = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name]
    try:
        made = getattr(torchvision.datasets, dataset)(
            root=str(data_dir / name), train=split == "train", download=False
        )
    except RuntimeError as error:
        raise ValueError(f"{data_dir / name / FOLDERS[name]} is incomplete or damaged: {error}") from error
    return made.data, np.array(made.targets, np.int64)


def _entry(name: str, classes: int, mean: RGB, std: RGB) -> Entry:
    def missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
        return _missing(name, data_dir)

    def load(args: Mapping[str, Any], data_dir: Path) -> Source:
        return _load(name, classes, data_dir)

    return Entry(
        name=name,
        args={},
        channels=3,
        mean=mean,
        std=std,
        missing=missing,
        load=load,
        validate=no_arguments_to_check,
        count_classes=lambda args, data_dir: classes,
        classes=classes,
        train_images=50_000,
        test_images=10_000,
    )


# mean and std: over the pixels of the 50,000 training images
CIFAR10 = _entry("cifar10", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = _entry("cifar100", 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
