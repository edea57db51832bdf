"""From what a data set's loader found to a `DataSet`: subset, fingerprint, one copy per process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.data.arrays import ArrayImages
from harness.data.base import DataSet, Images, Split
from harness.data.entry import Entry, Files, Pixels, Source
from harness.data.files import FileImages

# One copy per process, so that its runs (and forked workers) share it. By entry, not by its name: another
# version of a user's plugin may give the name to other data. The entry is kept, so that its id stays its own.
_loaded: dict[tuple[int, str], tuple[Entry, DataSet]] = {}


def load_cached(
    entry: Entry, args: Mapping[str, Any], counts: tuple[int | None, int | None], data_dir: Path
) -> DataSet:
    """See `harness.data.load`; `args` has every argument filled in, `counts` is (train, test)."""
    key = id(entry), json.dumps([dict(args), counts, str(data_dir)], sort_keys=True)
    if key not in _loaded:
        _loaded[key] = entry, _load(entry, args, counts, data_dir)
    return _loaded[key][1]


def _load(
    entry: Entry, args: Mapping[str, Any], counts: tuple[int | None, int | None], data_dir: Path
) -> DataSet:
    message = entry.missing(args, data_dir)
    if message is not None:
        raise FileNotFoundError(message)
    source = entry.load(args, data_dir)
    check_labels(source, entry.name)
    train = subset(source.train, counts[0], source.classes, f"{entry.name}: train_images")
    test = subset(source.test, counts[1], source.classes, f"{entry.name}: test_images")
    return DataSet(
        name=entry.name,
        train=_split(train),
        test=_split(test),
        classes=source.classes,
        mean=entry.mean,
        std=entry.std,
        fingerprint=fingerprint(train, test),
    )


def check_labels(source: Source, name: str) -> None:
    """Refuse parts that are empty, or whose labels do not fit the images or the number of classes.

    Raises:
        ValueError: in words for whoever wrote the loader; starts with `name`.
    """
    for part, found in (("training", source.train), ("test", source.test)):
        images = len(found.images if isinstance(found, Pixels) else found.paths)
        if not images or images != len(found.labels):
            raise ValueError(f"{name}: the {part} part has {images} images and {len(found.labels)} labels")
        low, high = int(found.labels.min()), int(found.labels.max())
        if low < 0 or high >= source.classes:
            raise ValueError(
                f"{name}: {part} labels go from {low} to {high}; with {source.classes} classes they must lie "
                f"in 0..{source.classes - 1}"
            )


def balanced_indices(labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """The first count / classes images of each class, in the set's order; a remainder goes to the first
    classes.

    Raises:
        ValueError: a class has too few images.

    >>> balanced_indices(np.array([0, 0, 1, 0, 1]), 3, 2)
    array([0, 1, 2])
    """
    chosen = []
    for label in range(classes):
        wanted = count // classes + (label < count % classes)
        found = np.flatnonzero(labels == label)
        if len(found) < wanted:
            raise ValueError(
                f"a class-balanced subset of {count} needs {wanted} images of class {label}, "
                f"which has {len(found)}"
            )
        chosen.append(found[:wanted])
    return np.sort(np.concatenate(chosen))


def subset(part: Pixels | Files, count: int | None, classes: int, what: str) -> Pixels | Files:
    """The class-balanced subset of `count` images, or everything where it is None.

    Raises:
        ValueError: `count` is out of range or a class has too few images; starts with `what`.
    """
    total = len(part.labels)
    if count is None or count == total:
        return part
    if not classes <= count <= total:
        raise ValueError(f"{what} must be between {classes} (one per class) and {total}, not {count}")
    try:
        chosen = balanced_indices(part.labels, count, classes)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    if isinstance(part, Pixels):
        return Pixels(images=part.images[chosen], labels=part.labels[chosen])
    return replace(part, paths=tuple(part.paths[index] for index in chosen), labels=part.labels[chosen])


def fingerprint(*parts: Pixels | Files) -> str:
    """sha256 over labels and decoded bytes; for files over sorted relative names and sizes in bytes."""
    total = hashlib.sha256()
    for part in parts:
        total.update(np.ascontiguousarray(part.labels, "<i8").tobytes())
        if isinstance(part, Pixels):
            total.update(f"{part.images.shape}\n".encode())
            total.update(np.ascontiguousarray(part.images).data)
        else:
            for path in sorted(part.paths):
                line = f"{path.relative_to(part.root).as_posix()} {path.stat().st_size}\n"
                total.update(line.encode())
    return total.hexdigest()


def _split(part: Pixels | Files) -> Split:
    images: Images = (
        ArrayImages(part.images) if isinstance(part, Pixels) else FileImages(part.paths, part.reading)
    )
    return Split(images=images, labels=torch.from_numpy(np.array(part.labels, np.int64)))
