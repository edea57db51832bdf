"""ImageNet (ILSVRC 2012): 1,000 classes, 1,281,167 training and 50,000 validation images.

Read from the folders that torchvision.datasets.ImageNet leaves behind:

    <data folder>/imagenet/train/<wnid>/*.JPEG
    <data folder>/imagenet/val/<wnid>/*.JPEG

Sorted wnids give torchvision's class numbers. Nothing is downloaded or unpacked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data.entry import IMAGENET_MEAN, IMAGENET_STD, Entry, Source, no_arguments_to_check
from harness.data.folders import missing_folder
from harness.data.imagefolder import load_all_classes, look_at_classes

CLASSES = 1000


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    root = data_dir / "imagenet"
    if missing_folder(root, "imagenet") is None:
        return None
    return (
        f"imagenet needs {root / 'train'}/<wnid>/*.JPEG and {root / 'val'}/<wnid>/*.JPEG with {CLASSES} "
        "class folders each (for example n01440764). To make them, put ILSVRC2012_img_train.tar, "
        f"ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz from image-net.org into {root} and run "
        f"torchvision.datasets.ImageNet({str(root)!r}, split) once with split='train' and once with 'val'."
    )


def _load(args: Mapping[str, Any], data_dir: Path) -> Source:
    return load_all_classes(data_dir / "imagenet", "ImageNet", CLASSES)


ENTRY = Entry(
    name="imagenet",
    args={},
    channels=3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    missing=_missing,
    load=_load,
    listed=_load,
    validate=no_arguments_to_check,
    count_classes=lambda args, data_dir: CLASSES,
    classes=CLASSES,
    look=lambda args, data_dir: look_at_classes(data_dir / "imagenet", "ImageNet", CLASSES),
    train_images=1_281_167,
    test_images=50_000,
)
