"""Data sets of one folder per class: the user's own images, ImageNet, Places365."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data import arrays, entry, folders
from harness.data.entry import Entry, Files, Look, PathList, Pixels, Reading, Source, named_in
from harness.data.folders import FolderPart, Found

if TYPE_CHECKING:
    import numpy as np


# The user's own images: one folder per class.
#
#     <data folder>/<folder>/train/<class>/*.jpg
#     <data folder>/<folder>/val/<class>/*.jpg      (or `test`, or `validation`)
#
# With `test_share: 0.2` a folder without the second part is split. Classes are numbered by their sorted
# names. With `side: N` every image is cut to its central square and resized to N x N once, into a file beside
# the images that all processes map; without it, files are decoded when read.


LARGEST_SIDE = 1024


def list_images(part: FolderPart, root: Path, reading: Reading = entry.PLAIN) -> Files:
    """The image files of every class folder of `part`, by class, then as torchvision sorts them.

    Raises:
        ValueError: a class has no images, or a file that should be one cannot be opened; it is named.
    """
    import numpy as np

    broken = folders.broken_line(part)
    if broken:
        raise ValueError(broken)
    names: list[str] = []
    labels: list[int] = []
    for label, (name, found) in enumerate(part.classes.items()):
        if not found.images:
            raise ValueError(f"class '{name}': {part.folder / name} {_why_empty(found)}")
        names += found.images
        labels += [label] * len(found.images)
    return Files(root=root, paths=PathList(names), labels=np.array(labels, np.int64), reading=reading)


def _why_empty(found: Found) -> str:
    reasons = ", ".join(f"{len(paths)} {reason}" for reason, paths in sorted(found.left_out.items()))
    read = f"; read are {' '.join(sorted(folders.SUFFIXES))}"
    return f"has no image files, but files left out: {reasons}{read}" if reasons else "has no image files"


def load_folder(
    root: Path,
    side: int | None = None,
    reading: Reading = entry.PLAIN,
    split: Mapping[str, Any] = arrays.WHOLE,
) -> Source:
    """Both parts of an image folder (see the module's docstring). `split`: has `test_share`, and `split_seed`
    where that is not None.

    Raises:
        ValueError: the parts have other classes, or a class or a file cannot be read; it is named.
    """
    parts = folders.parts_of(root, split=split["test_share"] is not None)
    found = [list_images(part, root, reading) for part in parts]
    said = [line for part in parts for line in folders.left_out_lines(part)]
    if len(found) == 1:
        said += arrays.split_lines(f"imagefolder {root.name}", found[0].labels, split)
        found = arrays.split_files(found[0], split)
    train, test = found
    source = Source(train=train, test=test, classes=len(parts[0].classes), left_out=tuple(said))
    if side is None:
        return source
    return replace(source, train=_at_side(train, side), test=_at_side(test, side))


def load_all_classes(root: Path, title: str, classes: int) -> Source:
    """Both parts of a published set, called `title`, which is there as a whole.

    Raises:
        ValueError: it has another number of class folders.
    """
    for problem in look_at_classes(root, title, classes).problems:
        raise ValueError(problem)
    return load_folder(root)


def look_at_classes(root: Path, title: str, classes: int) -> Look:
    """Whether the class folders are those of a published set. Lists no file."""
    problem = folders.class_problem(root)
    if problem is None and (found := len(folders.class_names(root))) != classes:
        problem = (
            f"{root / 'train'} has {found} class folders, {title} has {classes}; "
            "for a part of it use the data set imagefolder"
        )
    return Look(problems=(problem,) if problem else ())


def look_at(root: Path, reading: Reading = entry.PLAIN, split: Mapping[str, Any] = arrays.WHOLE) -> Look:
    """What a plan says of a folder: classes that do not agree, files left out, files that cannot be read,
    numbers that do not fill their range, and how it is split. Lists every file, opens a few."""
    is_split = split["test_share"] is not None
    problem = folders.class_problem(root, split=is_split)
    if problem is not None:
        return Look(problems=(problem,))
    from harness.data.contents import depth_findings

    parts = folders.parts_of(root, split=is_split)
    notes = [line for part in parts for line in folders.left_out_lines(part)]
    problems = [line for part in parts if (line := folders.broken_line(part))]
    for part in parts:
        for name, found in part.classes.items():
            if not found.images and not found.broken:
                problems.append(f"class '{name}': {part.folder / name} {_why_empty(found)}")
    if is_split and not problems:
        labels = list_images(parts[0], root).labels
        notes += arrays.split_lines(f"imagefolder {root.name}", labels, split)
    deep = depth_findings([Path(path) for part in parts for path in part.everything().images], reading)
    return Look(problems=(*problems, *deep.problems), notes=(*notes, *deep.notes))


def _at_side(files: Files, side: int) -> Pixels:
    """Decode once, threaded, to the central square at side x side; keyed by the bytes of the files and by
    how they are read."""
    from harness.data.contents import decoding_key
    from harness.data.loading import decoded_once

    cache = files.root / ".decoded" / f"{decoding_key(files)[:32]}_{side}.npy"
    images = decoded_once(cache, lambda: _decode_squares(files, side))
    return Pixels(images=images, labels=files.labels, origin=files)


def _decode_squares(files: Files, side: int) -> np.ndarray:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from PIL import Image, ImageOps

    from harness.data.pixels import count_threads, decode

    def square(path: Path) -> np.ndarray | str:
        try:
            image = decode(path, files.reading)
        except ValueError as error:
            return str(error)
        short = min(image.size)
        central = ImageOps.fit(image, (short, short))
        return np.asarray(central.resize((side, side), Image.Resampling.BILINEAR))

    out = np.empty((len(files.paths), side, side, 3), np.uint8)
    wrong: list[str] = []
    with ThreadPoolExecutor(count_threads()) as pool:
        for index, pixels in enumerate(pool.map(square, files.paths)):
            if isinstance(pixels, str):
                wrong.append(pixels)
            else:
                out[index] = pixels
    if wrong:
        raise ValueError(f"{wrong[0]} (of {len(files.paths)} files {len(wrong)} cannot be read)")
    return out


def _validate(args: Mapping[str, Any]) -> None:
    folder, side = args["folder"], args["side"]
    if not isinstance(folder, str) or not folder:
        raise ValueError("imagefolder: folder must name a folder of the data folder, e.g. folder: imagenette")
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise ValueError(f"imagefolder: folder must lie inside the data folder, '{folder}' does not")
    whole = isinstance(side, int) and not isinstance(side, bool)
    if side is not None and not (whole and 8 <= side <= LARGEST_SIDE):
        raise ValueError(
            f"imagefolder: side must be null or a number of pixels in 8..{LARGEST_SIDE}, not {side!r}"
        )
    reading_of(args)
    arrays.validate_split("imagefolder", args)


def reading_of(args: Mapping[str, Any], kind: str = "imagefolder") -> Reading:
    """How files are read, from the arguments `range` and `background` of a data set of this kind.

    Raises:
        ValueError: they are not two numbers, the lower one first, and three whole numbers of 0..255.
    """
    limits, colour = args["range"], args["background"]
    if limits is not None:
        numbers = isinstance(limits, list | tuple) and len(limits) == 2 and all(map(_is_number, limits))
        if not numbers or not limits[0] < limits[1]:
            raise ValueError(f"{kind}: range must be [BLACK, WHITE], e.g. [0, 4095], not {limits!r}")
        limits = (float(limits[0]), float(limits[1]))
    three = isinstance(colour, list | tuple) and len(colour) == 3
    if not three or not all(type(each) is int and 0 <= each <= 255 for each in colour):
        raise ValueError(f"{kind}: background must be a colour [RED, GREEN, BLUE] of 0..255, not {colour!r}")
    return Reading(range=limits, background=(colour[0], colour[1], colour[2]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    root = named_in(data_dir, args["folder"])
    if args["test_share"] is not None and root.is_dir():
        return None
    return folders.missing_folder(root, f"imagefolder {args['folder']}")


IMAGEFOLDER = Entry(
    name="imagefolder",
    args={
        "folder": "",
        "side": None,
        "range": None,
        "background": (255, 255, 255),
        "test_share": None,
        "split_seed": 0,
    },
    said_if_set=frozenset({"range", "background", "test_share", "split_seed"}),
    channels=3,
    mean=entry.IMAGENET_MEAN,
    std=entry.IMAGENET_STD,
    missing=_missing,
    load=lambda args, data_dir: load_folder(
        named_in(data_dir, args["folder"]), args["side"], reading_of(args), args
    ),
    validate=_validate,
    count_classes=lambda args, data_dir: len(folders.class_names(named_in(data_dir, args["folder"]))),
    listed=lambda args, data_dir: load_folder(
        named_in(data_dir, args["folder"]), None, reading_of(args), args
    ),
    look=lambda args, data_dir: look_at(named_in(data_dir, args["folder"]), reading_of(args), args),
)


# ImageNet (ILSVRC 2012): 1,000 classes, 1,281,167 training and 50,000 validation images.
#
# Read from the folders that torchvision.datasets.ImageNet leaves behind:
#
#     <data folder>/imagenet/train/<wnid>/*.JPEG
#     <data folder>/imagenet/val/<wnid>/*.JPEG
#
# Sorted wnids give torchvision's class numbers. Nothing is downloaded or unpacked here.


IMAGENET_CLASSES = 1000


def _missing_imagenet(args: Mapping[str, Any], data_dir: Path) -> str | None:
    root = data_dir / "imagenet"
    if folders.missing_folder(root, "imagenet") is None:
        return None
    return (
        f"imagenet needs {root / 'train'}/<wnid>/*.JPEG and {root / 'val'}/<wnid>/*.JPEG with "
        f"{IMAGENET_CLASSES} class folders "
        "each (for example n01440764). To make them, put ILSVRC2012_img_train.tar, "
        f"ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz from image-net.org into {root} and run "
        f"torchvision.datasets.ImageNet({str(root)!r}, split) once with split='train' and once with 'val'."
    )


def _load_imagenet(args: Mapping[str, Any], data_dir: Path) -> Source:
    return load_all_classes(data_dir / "imagenet", "ImageNet", IMAGENET_CLASSES)


IMAGENET = Entry(
    name="imagenet",
    args={},
    channels=3,
    mean=entry.IMAGENET_MEAN,
    std=entry.IMAGENET_STD,
    missing=_missing_imagenet,
    load=_load_imagenet,
    listed=_load_imagenet,
    validate=entry.no_arguments_to_check,
    count_classes=lambda args, data_dir: IMAGENET_CLASSES,
    classes=IMAGENET_CLASSES,
    look=lambda args, data_dir: look_at_classes(data_dir / "imagenet", "ImageNet", IMAGENET_CLASSES),
    train_images=1_281_167,
    test_images=50_000,
)


# MIT Places365-Standard: 365 kinds of places, 1,803,460 training and 36,500 validation images.
#
# Source: Zhou, Lapedriza, Khosla, Oliva and Torralba 2018, "Places: A 10 Million Image Database for Scene
# Recognition", IEEE TPAMI; counts from its development kit, github.com/zhoubolei/places_devkit.
#
#     <data folder>/places365/train/<class>/*.jpg
#     <data folder>/places365/val/<class>/*.jpg
#
# The labels of the 328,500 test images are not public (the authors' server scored submissions): results are
# on the validation images. Nothing is downloaded or unpacked here.


PLACES365_CLASSES = 365


def _missing_places365(args: Mapping[str, Any], data_dir: Path) -> str | None:
    root = data_dir / "places365"
    if folders.missing_folder(root, "places365") is None:
        return None
    return (
        f"places365 needs {root / 'train'}/<class>/*.jpg and {root / 'val'}/<class>/*.jpg with "
        f"{PLACES365_CLASSES} class folders "
        "each (for example airfield): the training and validation images of Places365-Standard "
        "from places2.csail.mit.edu. Nothing is downloaded here. Results are on the validation images, "
        "because the labels of the test images are not public."
    )


def _load_places365(args: Mapping[str, Any], data_dir: Path) -> Source:
    return load_all_classes(data_dir / "places365", "Places365", PLACES365_CLASSES)


PLACES365 = Entry(
    name="places365",
    args={},
    channels=3,
    mean=entry.IMAGENET_MEAN,
    std=entry.IMAGENET_STD,
    missing=_missing_places365,
    load=_load_places365,
    listed=_load_places365,
    validate=entry.no_arguments_to_check,
    count_classes=lambda args, data_dir: PLACES365_CLASSES,
    classes=PLACES365_CLASSES,
    look=lambda args, data_dir: look_at_classes(data_dir / "places365", "Places365", PLACES365_CLASSES),
    train_images=1_803_460,
    test_images=36_500,
)
