"""Data sets and resolutions: what a row asks for in the paper's words, and what a size uses for it.

- A row that asks for nothing has the size's own `data` and `resolution`, which stand for the baseline's: what
  the size `paper` says.
- Another data set, or other pixels, that a row asks for are looked up in the size's `datasets` and
  `resolutions`. A size without such a key uses what was asked for, as the size `paper` does.
- The image counts of a size hold for every data set. Where one has no more images, all are used.

While tricks edit a recipe, its data set is that of the size and its resolution is in the paper's pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from harness.study.catalogue import Catalogue, DataEntry, Facts
from harness.study.lookups import Mode, Unusable, check_data, guarded
from harness.study.schema import Size
from harness.study.spec import DataSpec
from harness.study.uses import Use, fill_options, plain

MOST_CLASSES = 1_000_000


class Inputs:
    """The data of arms at one size. Equal data is one object."""

    def __init__(self, catalogue: Catalogue, size: Size, paper: Size, mode: Mode) -> None:
        self._catalogue, self._size, self._paper = catalogue, size, paper
        self._names_are_wrong = mode.names_are_wrong
        self._asked: dict[tuple[Use | None, int | None], DataSpec] = {}
        self._fast: dict[int, DataSpec] = {}  # by the id of an object in `_asked`
        self._used: dict[Any, DataSpec] = {}

    def asked(self, data: Use | None, resolution: int | None) -> DataSpec:
        """What a row asks for, its resolution still in the paper's pixels; None: what the baseline has.

        Raises:
            ValueError: the size does not say what stands for it.
            Unusable: its name is already reported as a mistake.
        """
        found = self._asked.get((data, resolution))
        if found is None:
            found = dataclasses.replace(self._data(data), resolution=resolution or self._paper.resolution)
            self._asked[data, resolution] = found
            with suppress(ValueError):  # a trick may still ask for other pixels
                self._fast[id(found)] = self.used(found)
        return found

    def used(self, asked: DataSpec) -> DataSpec:
        """The same data with the pixels of the size.

        Raises:
            ValueError: the size does not say what stands for these pixels.
        """
        found = self._fast.get(id(asked))
        if found is None:
            key = (*dataclasses.astuple(asked)[:4], *asked.args.items())
            found = self._used.get(key)
        if found is None:
            check_data(Use(asked.name, tuple(asked.args.items())), self._catalogue)
            found = self._used[key] = dataclasses.replace(asked, resolution=self._pixels(asked.resolution))
        return found

    def classes(self, data: DataSpec) -> int | None:
        """How many classes it has; None where its files were not read yet."""
        return self._facts(data)[0]

    def train_images(self, data: DataSpec) -> int | None:
        """How many images are trained on; None where that is not known yet."""
        return data.train_images or self._facts(data)[1]

    def test_images(self, data: DataSpec) -> int | None:
        """How many images are evaluated; None where that is not known yet."""
        return data.test_images or self._facts(data)[2]

    def _facts(self, data: DataSpec) -> Facts:
        return self._catalogue.data[data.name].facts(data.args)

    def _data(self, asked: Use | None) -> DataSpec:
        size = self._size
        use = size.data if asked is None else self._mapped(asked)
        try:
            check_data(use, self._catalogue)
        except ValueError:
            if self._names_are_wrong:
                raise Unusable from None
            raise
        entry = self._catalogue.data[use.name]
        args = fill_options("data set", use, entry.args)
        classes, train_images, test_images = guarded(f"data set '{use.name}'", entry.facts, args)
        if classes is not None and classes > MOST_CLASSES:
            raise ValueError(
                f"{use.name} has {classes} classes; a network tells at most {MOST_CLASSES} apart"
            )
        return DataSpec(
            name=use.name,
            resolution=size.resolution,
            train_images=_capped(size.train_images, train_images),
            test_images=_capped(size.test_images, test_images),
            args=_said(args, entry),
        )

    def _mapped(self, asked: Use) -> Use:
        datasets = self._size.datasets
        if asked.name in datasets:
            return datasets[asked.name]
        if asked == self._paper.data:
            return self._size.data
        if self._names_are_wrong and asked.name not in self._catalogue.data:
            raise Unusable
        if datasets:
            raise ValueError(
                f"this size's key 'datasets' has no entry for {asked.name}; it has {', '.join(datasets)}"
            )
        return asked

    def _pixels(self, asked: int) -> int:
        size = self._size
        if asked == self._paper.resolution:
            return size.resolution
        if size.resolutions and asked not in size.resolutions:
            has = ", ".join(map(str, size.resolutions))
            raise ValueError(f"this size's key 'resolutions' has no entry for {asked} pixels; it has {has}")
        return size.resolutions.get(asked, asked)


def _said(args: Mapping[str, Any], entry: DataEntry) -> dict[str, Any]:
    """The arguments that a spec holds: one that came later is left out where it is not used."""
    return {
        name: value
        for name, value in args.items()
        if name not in entry.said_if_set or value != plain(entry.args[name])
    }


def _capped(count: int | None, has: int | None) -> int | None:
    """`count` images of a set, or all of them (None) where it has no more."""
    return None if count is None or (has is not None and has <= count) else count
