"""From what a data set's loader found to a `DataSet`: subset, fingerprint, one copy per process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.data.arrays import ArrayImages
from harness.data.base import DataSet, Images, Split
from harness.data.contents import fingerprints
from harness.data.entry import Entry, Files, Pixels, Source
from harness.data.files import FileImages
from harness.data.subsets import subset

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
    train = subset(source.train, counts[0], source.classes)
    test = subset(source.test, counts[1], source.classes)
    found = fingerprints(train, test)
    return DataSet(
        name=entry.name,
        train=_split(train),
        test=_split(test),
        classes=source.classes,
        mean=entry.mean,
        std=entry.std,
        fingerprint=found.both,
        part_fingerprints=(found.train, found.test),
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


def _split(part: Pixels | Files) -> Split:
    images: Images = (
        ArrayImages(part.images) if isinstance(part, Pixels) else FileImages(part.paths, part.reading)
    )
    return Split(images=images, labels=torch.from_numpy(np.array(part.labels, np.int64)))
