"""MIT Places365-Standard: 365 kinds of places, 1,803,460 training and 36,500 validation images.

Source: Zhou, Lapedriza, Khosla, Oliva and Torralba 2018, "Places: A 10 Million Image Database for Scene
Recognition", IEEE TPAMI; counts from its development kit, github.com/zhoubolei/places_devkit.

    <data folder>/places365/train/<class>/*.jpg
    <data folder>/places365/val/<class>/*.jpg

The labels of the 328,500 test images are not public (the authors' server scored submissions): results are
on the validation images. Nothing is downloaded or unpacked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data.entry import IMAGENET_MEAN, IMAGENET_STD, Entry, Source, no_arguments_to_check
from harness.data.folders import missing_folder
from harness.data.imagefolder import load_all_classes, look_at_classes

CLASSES = 365


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    root = data_dir / "places365"
    if missing_folder(root, "places365") is None:
        return None
    return (
        f"places365 needs {root / 'train'}/<class>/*.jpg and {root / 'val'}/<class>/*.jpg with {CLASSES} "
        "class folders each (for example airfield): the training and validation images of Places365-Standard "
        "from places2.csail.mit.edu. Nothing is downloaded here. Results are on the validation images, "
        "because the labels of the test images are not public."
    )


def _load(args: Mapping[str, Any], data_dir: Path) -> Source:
    return load_all_classes(data_dir / "places365", "Places365", CLASSES)


ENTRY = Entry(
    name="places365",
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
    look=lambda args, data_dir: look_at_classes(data_dir / "places365", "Places365", CLASSES),
    train_images=1_803_460,
    test_images=36_500,
)
