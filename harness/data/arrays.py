"""Sets that others hand out: one file of arrays (`.npz`, as MedMNIST), and torchvision's; parts of a set.

A .npz has `train_images`, `train_labels`, `test_images`, `test_labels`, and `val_images`, `val_labels` if
there are any; images (N, H, W) or (N, H, W, C) uint8 with 1 or 3 channels, labels (N,) or (N, 1) of whole
numbers from 0 (Yang et al. 2023, "MedMNIST v2", Scientific Data 10:41). A file that has only `images` and
`labels` is split: `test_share` of each class, drawn by `split_seed`, is the test part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.data.entry import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RGB,
    Entry,
    Facts,
    Files,
    Look,
    Packed,
    Part,
    PathList,
    Pixels,
    Source,
    named_in,
)
from harness.data.folders import TO_SPLIT

if TYPE_CHECKING:
    import numpy as np

TEST_PARTS = ("test", "val")
WHOLE: Mapping[str, Any] = {"test_share": None}  # nothing is split


def _path(args: Mapping[str, Any], data_dir: Path) -> Path:
    return named_in(data_dir, args["file"])


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    path = _path(args, data_dir)
    return None if path.is_file() else f"npz needs the file {path}"


def _validate(args: Mapping[str, Any]) -> None:
    if not isinstance(args["file"], str) or not args["file"]:
        raise ValueError("npz: file must be the name of a file in the data folder, such as bloodmnist.npz")
    if Path(args["file"]).is_absolute() or ".." in Path(args["file"]).parts:
        raise ValueError(f"npz: file must lie inside the data folder, '{args['file']}' does not")
    if args["test"] not in TEST_PARTS:
        raise ValueError(f"npz: test, the part that is evaluated, must be test or val, not {args['test']!r}")
    validate_split("npz", args)


def load_npz(args: Mapping[str, Any], data_dir: Path) -> Source:
    """Both parts of a file of arrays (see the module's docstring). Normalised by the training pixels.

    Raises:
        ValueError: it is no such file, or arrays are missing, of another shape or type, or do not match.
    """
    path = _path(args, data_dir)
    arrays = _arrays(path)
    said: tuple[str, ...] = ()
    if "images" in arrays and "train_images" not in arrays:
        images, labels = (_array(arrays, name, path) for name in ("images", "labels"))
        labels = _labels(labels, "labels", path)
        _check(images, labels, "", path)
        held = stratified(labels, args["test_share"], args["split_seed"])
        parts = [(images[~held], labels[~held]), (images[held], labels[held])]
        said = split_lines(args["file"], labels, args)
    else:
        parts = [_part(arrays, name, path) for name in ("train", args["test"])]
    train, test = (Pixels(images=_with_channels(images), labels=labels) for images, labels in parts)
    if train.images.shape[3] != test.images.shape[3]:
        raise ValueError(f"{path}: one part has grey images, the other has colours")
    classes = 1 + max(int(part.labels.max()) for part in (train, test))
    normalised = normalisation(train.images)
    return Source(train=train, test=test, classes=classes, left_out=said, normalised=normalised)


def _arrays(path: Path, ends: tuple[str, ...] = ("images", "labels")) -> Mapping[str, np.ndarray]:
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise ValueError("it holds one array without a name")
            return {name: file[name] for name in file.files if name.endswith(ends)}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz file of plain arrays: {error}") from None


def _array(arrays: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in arrays:
        has = ", ".join(sorted(arrays)) or "none"
        raise ValueError(f"{path} has no array {name}; arrays of images and labels in it: {has}")
    return arrays[name]


def _part(arrays: Mapping[str, np.ndarray], part: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    images = _array(arrays, f"{part}_images", path)
    labels = _labels(_array(arrays, f"{part}_labels", path), f"{part}_labels", path)
    _check(images, labels, f"{part}_", path)
    return images, labels


def _labels(labels: np.ndarray, name: str, path: Path) -> np.ndarray:
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1:
        several = "; several labels an image are not one class each" if labels.ndim == 2 else ""
        raise ValueError(f"{path}: {name} has the shape {labels.shape}, expected (N,) or (N, 1){several}")
    if flat.dtype.kind not in "ui":
        raise ValueError(f"{path}: {name} is of type {flat.dtype}; labels are whole numbers from 0")
    if len(flat) and (flat.min() < 0 or flat.max() >= 1_000_000):
        raise ValueError(f"{path}: {name} goes from {flat.min()} to {flat.max()}; labels are classes from 0")
    return flat.astype("int64")


def _check(images: np.ndarray, labels: np.ndarray, part: str, path: Path) -> None:
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if images.dtype != "uint8" or not is_image:
        shape = f"{images.shape} of type {images.dtype}"
        raise ValueError(f"{path}: {part}images is {shape}; expected (N, H, W) or (N, H, W, 1 or 3) of uint8")
    if len(images) != len(labels) or not len(labels):
        counts = f"{len(images)} {part}images and {len(labels)} {part}labels"
        raise ValueError(f"{path}: {counts}; there must be as many of both")


def _with_channels(images: np.ndarray) -> np.ndarray:
    return images[..., None] if images.ndim == 3 else images


def stratified(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which of (N,) labels are held out: `share` of each class, rounded, at least one and not all; a pure
    function of the labels, the share and the seed. A class of one image is trained on."""
    import numpy as np

    rng = np.random.Generator(np.random.Philox(seed))
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        held[own[: min(max(1, round(share * len(own))), len(own) - 1)]] = True
    return held


def validate_split(name: str, args: Mapping[str, Any]) -> None:
    """Check `test_share` (None: nothing is split) and `split_seed`.

    Raises:
        ValueError: they are no share and no seed.
    """
    share, seed = args["test_share"], args["split_seed"]
    is_share = isinstance(share, int | float) and not isinstance(share, bool) and 0 < share < 1
    if share is not None and not is_share:
        raise ValueError(f"{name}: test_share must be a number between 0 and 1, not {share!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"{name}: split_seed must be a whole number from 0, not {seed!r}")


def split_lines(name: str, labels: np.ndarray, args: Mapping[str, Any]) -> tuple[str, ...]:
    """What plan and report say of data that are split by `stratified`: labels (N,) of all of them."""
    import numpy as np

    share, seed = args["test_share"], args["split_seed"]
    held = int(stratified(labels, share, seed).sum())
    said = f"{name} is split: {held:,} of {len(labels):,} images, {share:g} of each class drawn by "
    said += f"split_seed {seed}, are the test part of every run"
    single = int((np.bincount(labels) == 1).sum())
    alone = f"; {single} of its classes have one image each, which is trained on" if single else ""
    return (said + alone,)


# Fixed parts of a data set: so many images, as even over the classes as these allow.


def class_shares(found: np.ndarray, count: int) -> np.ndarray:
    """How many images of each class make a subset of `count`: (K,) int64, where `found` (K,) are there.

    Equal shares, a remainder to the first classes. A class with fewer gives all it has, and the others make
    up for it in the same way. Every class that has images gives at least one, and no more are taken than are
    there: then the sum is another than `count`.

    >>> import numpy as np
    >>> class_shares(np.array([5, 5, 5]), 7), class_shares(np.array([9, 1, 9]), 9)
    (array([3, 2, 2]), array([4, 1, 4]))
    >>> class_shares(np.array([2, 2, 2]), 100), class_shares(np.array([2, 2, 2]), 1)
    (array([2, 2, 2]), array([1, 1, 1]))
    """
    import numpy as np

    taken = np.zeros(len(found), np.int64)
    left = min(max(count, int((found > 0).sum())), int(found.sum()))
    while left:
        open_classes = np.flatnonzero(taken < found)
        share, remainder = divmod(left, len(open_classes))
        more = np.full(len(open_classes), share)
        more[:remainder] += 1
        more = np.minimum(more, (found - taken)[open_classes])
        taken[open_classes] += more
        left -= int(more.sum())
    return taken


def subset(part: Part, count: int | None, classes: int) -> Part:
    """The first images of each class, in the set's order, as many as `class_shares` says; None: all.

    Raises:
        ValueError: less than one image is wanted.
    """
    import numpy as np

    if count is None or count >= len(part.labels):
        return part
    if count < 1:
        raise ValueError(f"a part of a data set has at least 1 image, not {count}")
    shares = class_shares(np.bincount(part.labels, minlength=classes), count)
    chosen = np.sort(
        np.concatenate([np.flatnonzero(part.labels == label)[:share] for label, share in enumerate(shares)])
    )
    labels = part.labels[chosen]
    if isinstance(part, Files):
        return replace(part, paths=_chosen(part.paths, chosen.tolist()), labels=labels)
    if isinstance(part, Packed):
        return replace(part, rows=part.rows[chosen], labels=labels, digests=part.digests[chosen])
    origin = None if part.origin is None else subset(part.origin, count, classes)
    assert origin is None or isinstance(origin, Files)
    return Pixels(images=part.images[chosen], labels=labels, origin=origin)


def _chosen(paths: Sequence[Path], indices: Sequence[int]) -> Sequence[Path]:
    if isinstance(paths, PathList):
        return PathList([paths.names[index] for index in indices])
    return tuple(paths[index] for index in indices)


def normalisation(images: np.ndarray) -> tuple[RGB, RGB]:
    """Mean and standard deviation of each channel over (N, H, W, C) uint8, of [0, 1] pixels."""
    import numpy as np

    counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(images.shape[3])]
    levels = np.arange(256) / 255
    means = [float(count @ levels / count.sum()) for count in counts]
    squares = [float(count @ levels**2 / count.sum()) for count in counts]
    spreads = [
        math.sqrt(max(0.0, square - mean**2)) or 1.0 for square, mean in zip(squares, means, strict=True)
    ]
    red, green, blue = (means * 3)[:3]
    r, g, b = (spreads * 3)[:3]
    return (red, green, blue), (r, g, b)


def _labels_alone(args: Mapping[str, Any], data_dir: Path) -> list[np.ndarray]:
    """Of both parts, or of the one that is split; without the images, which may be many."""
    path = _path(args, data_dir)
    arrays = _arrays(path, ("labels",))
    has_parts = "train_labels" in arrays or "labels" not in arrays
    names = ("train_labels", f"{args['test']}_labels") if has_parts else ("labels",)
    return [_labels(_array(arrays, name, path), name, path) for name in names]


def _look(args: Mapping[str, Any], data_dir: Path) -> Look:
    found = _labels_alone(args, data_dir)
    return Look(notes=split_lines(args["file"], found[0], args) if len(found) == 1 else ())


NPZ = Entry(
    name="npz",
    args={"file": "", "test": "test", "test_share": 0.2, "split_seed": 0},
    channels=3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    missing=_missing,
    load=load_npz,
    validate=_validate,
    count_classes=lambda args, data_dir: 1 + max(int(each.max()) for each in _labels_alone(args, data_dir)),
    look=_look,
)


# torchvision's sets for classification, as its classes leave them in the data folder. Nothing is downloaded.


BY_FLAG: tuple[Mapping[str, Any], ...] = ({"train": True}, {"train": False})
BY_SPLIT: tuple[Mapping[str, Any], ...] = ({"split": "train"}, {"split": "test"})
ALL: tuple[Mapping[str, Any], ...] = ({},)  # no test part: `test_share` says one


class Shelf(NamedTuple):
    """Where a set lies below the data folder, how its two parts are called, and how many images they have."""

    place: str
    parts: tuple[Mapping[str, Any], ...]
    facts: Facts
    in_files: bool = False


def _by(train: str, test: str) -> tuple[Mapping[str, Any], ...]:
    return {"split": train}, {"split": test}


SHELVES = {
    "CIFAR10": Shelf("cifar-10-batches-py", BY_FLAG, (10, 50_000, 10_000)),
    "CIFAR100": Shelf("cifar-100-python", BY_FLAG, (100, 50_000, 10_000)),
    "Country211": Shelf("country211", BY_SPLIT, (211, 31_650, 21_100), True),
    "DTD": Shelf("dtd", BY_SPLIT, (47, 1_880, 1_880), True),
    "EMNIST": Shelf(
        "EMNIST/raw", tuple({**part, "split": "balanced"} for part in BY_FLAG), (47, 112_800, 18_800)
    ),
    "EuroSAT": Shelf("eurosat", ALL, (10, None, None), True),
    "FGVCAircraft": Shelf("fgvc-aircraft-2013b", _by("trainval", "test"), (100, 6_667, 3_333), True),
    "FashionMNIST": Shelf("FashionMNIST/raw", BY_FLAG, (10, 60_000, 10_000)),
    "Flowers102": Shelf("flowers-102", BY_SPLIT, (102, 1_020, 6_149), True),
    "Food101": Shelf("food-101", BY_SPLIT, (101, 75_750, 25_250), True),
    "GTSRB": Shelf("gtsrb", BY_SPLIT, (43, 26_640, 12_630), True),
    "Imagenette": Shelf("imagenette2", _by("train", "val"), (10, 9_469, 3_925), True),
    "KMNIST": Shelf("KMNIST/raw", BY_FLAG, (10, 60_000, 10_000)),
    "MNIST": Shelf("MNIST/raw", BY_FLAG, (10, 60_000, 10_000)),
    "OxfordIIITPet": Shelf("oxford-iiit-pet", _by("trainval", "test"), (37, 3_680, 3_669), True),
    "RenderedSST2": Shelf("rendered-sst2", BY_SPLIT, (2, 6_920, 1_821), True),
    "STL10": Shelf("stl10_binary", BY_SPLIT, (10, 5_000, 8_000)),
    "SUN397": Shelf("SUN397", ALL, (397, None, None), True),
    "SVHN": Shelf("test_32x32.mat", BY_SPLIT, (10, 73_257, 26_032)),
    "StanfordCars": Shelf("stanford_cars", BY_SPLIT, (196, 8_144, 8_041), True),
    "USPS": Shelf("usps.t.bz2", BY_FLAG, (10, 7_291, 2_007)),
}


def _missing_on_shelf(name: str, args: Mapping[str, Any], data_dir: Path) -> str | None:
    shelf = SHELVES[name]
    place = data_dir / shelf.place
    if not place.exists():
        return (
            f"torchvision/{name} needs {place}, as torchvision.datasets.{name}({str(data_dir)!r}, ..., "
            "download=True) leaves it; nothing is downloaded here"
        )
    if shelf.parts == ALL and args["test_share"] is None:
        return f"torchvision/{name} has no test part; {TO_SPLIT}"
    return None


def load_from_shelf(name: str, args: Mapping[str, Any], data_dir: Path) -> Source:
    """Both parts, as torchvision numbers their classes. Arrays are normalised by their training pixels.

    Raises:
        ValueError: torchvision does not find what it looks for, or it is damaged.
    """
    shelf = SHELVES[name]
    parts = [_from_torchvision(name, words, data_dir) for words in shelf.parts]
    said: tuple[str, ...] = ()
    if len(parts) == 1:
        assert isinstance(parts[0], Files)
        said = split_lines(f"torchvision/{name}", parts[0].labels, args)
        parts = [*split_files(parts[0], args)]
    classes = shelf.facts[0]
    assert classes is not None
    first = parts[0]
    normalised = normalisation(first.images) if isinstance(first, Pixels) else None
    return Source(train=first, test=parts[1], classes=classes, left_out=said, normalised=normalised)


def _from_torchvision(name: str, words: Mapping[str, Any], data_dir: Path) -> Pixels | Files:
    import numpy as np

    from harness.data.torchvision_import import torchvision

    place = data_dir / SHELVES[name].place
    try:
        made = getattr(torchvision.datasets, name)(root=str(data_dir), download=False, **words)
    except Exception as error:  # of its many readers
        says = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"torchvision/{name}: {place} is incomplete or damaged: {says}") from None
    found = vars(made)
    pairs = found.get("_samples") or found.get("samples")
    if pairs is None and "_labels" in found:
        pairs = list(zip(found.get("_image_files") or found["_images"], found["_labels"], strict=True))
    if pairs is not None:
        pairs = [(str(path), label) for path, label in pairs]
        pairs = sorted(pairs) if SHELVES[name].parts == ALL else pairs  # in the order of the disk
        labels = np.array([label for _, label in pairs], np.int64)
        return Files(root=place, paths=PathList([path for path, _ in pairs]), labels=labels)
    images = np.asarray(made.data)
    if images.ndim == 4 and images.shape[1] == 3:  # channels first
        images = images.transpose(0, 2, 3, 1)
    labels = np.asarray(found["targets"] if "targets" in found else found["labels"])
    return Pixels(images=_with_channels(np.ascontiguousarray(images)), labels=labels.astype(np.int64))


def split_files(files: Files, split: Mapping[str, Any]) -> list[Files]:
    """The training and the test part of files that come in one part."""
    held = stratified(files.labels, split["test_share"], split["split_seed"])
    parts = []
    for chosen in (~held, held):
        paths = PathList([str(files.paths[index]) for index in chosen.nonzero()[0].tolist()])
        parts.append(replace(files, paths=paths, labels=files.labels[chosen]))
    return parts


def _shelf_entry(name: str, shelf: Shelf) -> Entry:
    load = partial(load_from_shelf, name)
    is_split = shelf.parts == ALL

    def validate(args: Mapping[str, Any]) -> None:
        if is_split:
            validate_split(f"torchvision/{name}", args)

    return Entry(
        name=f"torchvision/{name}",
        args={"test_share": None, "split_seed": 0} if is_split else {},
        said_if_set=frozenset({"test_share", "split_seed"}) if is_split else frozenset(),
        channels=1 if "MNIST" in name or name == "USPS" else 3,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        missing=partial(_missing_on_shelf, name),
        load=load,
        listed=load if shelf.in_files else None,
        look=(lambda args, data_dir: Look(notes=load(args, data_dir).left_out)) if is_split else None,
        validate=validate,
        count_classes=lambda args, data_dir: shelf.facts[0] or 0,
        classes=shelf.facts[0],
        train_images=shelf.facts[1],
        test_images=shelf.facts[2],
    )


TORCHVISION = {f"torchvision/{name}": _shelf_entry(name, shelf) for name, shelf in SHELVES.items()}
