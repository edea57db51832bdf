"""How a size scales a recipe, and which data and resolution it uses for those of the paper."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from fractions import Fraction
from typing import Any

from harness.errors import frozen
from harness.spec import DataSpec, ModelSpec, Recipe, recipe_of
from harness.study.catalogue import (
    Catalogue,
    DataEntry,
    Facts,
    Mode,
    Unusable,
    Use,
    check_data,
    fill_options,
    guarded,
    plain,
)
from harness.study.schema import Size

# How a size scales a recipe: one rule for each thing that must scale, stated here and in every plan.
#
# - Time: epochs, milestones, the steps of an exponential decay and warm-up are multiplied by (epochs of the
#   size) / (epochs of the baseline), so that 200 epochs beside 120 stay 5 : 3. Epochs may become fractional.
# - Batches: every batch size is multiplied by `batch_scale`. Learning rates stay: the linear rule's
#   reference batch scales along. So are the images over which batch norm takes its statistics, rounded up; a
#   share of the batch, 1/8 for each of 8 workers, is one of the batch that the tricks end with.
# - Rates: every learning rate, and where a warm-up starts, is multiplied by `rate_scale`. It is for studies
#   whose rows name rates of their own; elsewhere `set: {lr: ...}` says it in plain words.
# - Models: each model takes its constructor arguments of this size; those of a variant's name win over
#   those of its family's.
# - Data: `data`, `resolution` and the image counts stand for the baseline's. Other pixels or another data
#   set that a row asks for, in the paper's words, are mapped by `resolutions` and `datasets` below.
# - `set` changes the baseline; what a row sets wins over it. `arms` changes named arms, in the paper's units.
# - `smallest_effect`, where given, is declared for this size in place of the study's.
# - Smoke (`harness run --smoke`): 256 training and 256 test images, at most 2 seeds unless `--seeds` says how
#   many, and time is scaled once more so that the longest arm trains for at most 1 epoch. It shows that
#   everything runs; its numbers mean nothing.


_FLOATS = tuple(
    field.name
    for field in dataclasses.fields(Recipe)
    if field.type == "float" and field.name not in ("epochs", "decay_every", "warmup_epochs")
)
SMOKE_IMAGES, SMOKE_SEEDS, SMOKE_EPOCHS = 256, 2, 1.0


@frozen
class Scale:
    """Time x `epochs` / `baseline_epochs`, batches x `batch`, learning rates x `rate`."""

    epochs: float
    baseline_epochs: float
    batch: Fraction
    rate: Fraction = Fraction(1)
    _seen: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, size: Size, baseline_epochs: float) -> Scale:
        """The scale of a size. baseline_epochs: the length of the baseline, in the paper's epochs."""
        return cls(
            epochs=size.epochs,
            baseline_epochs=baseline_epochs,
            batch=size.batch_scale,
            rate=size.rate_scale,
        )

    def time(self, epochs: float) -> float:
        """Epochs at this size.

        >>> Scale(epochs=4.0, baseline_epochs=120.0, batch=Fraction(1, 8)).time(30)
        1.0
        """
        if self.epochs == self.baseline_epochs:
            return float(epochs)
        return float(epochs) * self.epochs / self.baseline_epochs  # in this order whole numbers stay whole

    def times(self, epochs: tuple[float, ...]) -> tuple[float, ...]:
        """Several epochs at this size; equal ones are one object."""
        if epochs not in self._seen:
            self._seen[epochs] = tuple(self.time(epoch) for epoch in epochs)
        scaled: tuple[float, ...] = self._seen[epochs]
        return scaled

    def batch_size(self, images: int) -> int:
        """The batch at this size.

        Raises:
            ValueError: it would not be a whole number of images.
        """
        scaled = self._seen.get(images)
        if scaled is None:
            product = images * self.batch
            if product.denominator != 1:
                raise ValueError(
                    f"batch_size {images} x batch_scale {self.batch} = {float(product):g}"
                    " is not a whole number of images"
                )
            scaled = self._seen[images] = int(product)
        return scaled

    def lr(self, rate: float) -> float:
        """A learning rate at this size.

        >>> Scale(epochs=4.0, baseline_epochs=4.0, batch=Fraction(1), rate=Fraction(1, 4)).lr(0.1)
        0.025
        """
        return float(rate) * self.rate.numerator / self.rate.denominator

    def norm_images(self, images: int | Fraction, *, batch_size: int) -> int:
        """Over how many images batch norm takes its statistics at this size; 0 stays 0, others stay above it.

        A fraction is a share of the batch, both in the paper's units.

        >>> scale = Scale(epochs=1.0, baseline_epochs=1.0, batch=Fraction(1, 25))
        >>> [scale.norm_images(images, batch_size=400) for images in (0, 1, 32, Fraction(1, 8))]
        [0, 1, 2, 2]
        """
        if isinstance(images, Fraction):
            images *= batch_size
        return math.ceil(images * self.batch) if images else 0


def smoke(size: Size, longest_epochs: float) -> Size:
    """The same size, cut down by the smoke rule. `longest_epochs` is the longest training at the size."""
    return size.but(
        epochs=size.epochs * min(1.0, SMOKE_EPOCHS / longest_epochs),
        train_images=min(SMOKE_IMAGES, size.train_images or SMOKE_IMAGES),
        test_images=min(SMOKE_IMAGES, size.test_images or SMOKE_IMAGES),
    )


def describe(size: Size, baseline: Recipe, baseline_epochs: float) -> list[str]:
    """The rules with this size's numbers, for the plan. `baseline` is the baseline at this size."""
    data = baseline.data
    counts = [
        f"{count} {kind} images"
        for kind, count in (("training", data.train_images), ("test", data.test_images))
        if count is not None
    ]
    notes = [", ".join([f"data: {data.name} at {data.resolution} x {data.resolution} pixels", *counts])]
    if size.epochs != baseline_epochs:
        factor = Fraction(size.epochs / baseline_epochs).limit_denominator(100_000)
        notes.append(
            f"time: epochs, milestones and warm-up x {factor}"
            f" (baseline {baseline_epochs:g} -> {baseline.epochs:g} epochs)"
        )
    notes += _batches_and_rates(size, baseline)
    if size.resolutions:
        pairs = ", ".join(f"{asked} -> {used}" for asked, used in size.resolutions.items())
        notes.append(f"pixels that rows ask for: {pairs}")
    if size.datasets:
        pairs = ", ".join(f"{asked} -> {used}" for asked, used in size.datasets.items())
        notes.append(f"data sets that rows ask for: {pairs}")
    if baseline.norm_images and size.batch_scale != 1:
        notes.append(f"batch norm: statistics over {baseline.norm_images} images, rounded up")
    for name, args in size.models.items():
        notes.append(f"model {name}: " + ", ".join(f"{key} = {value}" for key, value in args.items()))
    for key, value in size.set.values().items():
        notes.append(f"baseline at this size: {key} = {value}")
    for arm, changes in size.arms.items():
        notes += [
            f"arm {arm} at this size: {key} = {value}, in the paper's units"
            for key, value in changes.values().items()
        ]
    return notes


def _batches_and_rates(size: Size, baseline: Recipe) -> list[str]:
    notes = []
    if size.batch_scale != 1:
        rates = "learning rates unchanged, " if size.rate_scale == 1 else ""
        notes.append(
            f"batches: x {size.batch_scale} (baseline {int(baseline.batch_size / size.batch_scale)} -> "
            f"{baseline.batch_size}); {rates}the linear rule's reference batch scales along"
        )
    if size.rate_scale != 1:
        paper = baseline.lr / float(size.rate_scale)
        notes.append(f"learning rates: all x {size.rate_scale} (baseline {paper:g} -> {baseline.lr:g})")
    return notes


def scaled_recipe(fields: Mapping[str, Any], model: ModelSpec, data: DataSpec, scale: Scale) -> Recipe:
    """A recipe at a size, from its fields in the paper's units; every number in the type of its field.

    `model` and `data` are those of the size, in place of the fields'.

    Raises:
        ValueError: warm-up is not shorter than training, a batch is not whole, or there is more padding
            than image.
    """
    if fields["augment"].crop_pad >= data.resolution:
        raise ValueError(
            f"crop_pad {fields['augment'].crop_pad} around {data.resolution} x {data.resolution} pixels would"
            " train on windows without any of the image; it must be smaller than the resolution"
        )
    if not fields["warmup_epochs"] < fields["epochs"]:
        raise ValueError(
            f"warm-up of {fields['warmup_epochs']:g} epochs is not shorter than training"
            f" ({fields['epochs']:g} epochs)"
        )
    scaled = {
        **fields,
        "model": model,
        "data": data,
        "epochs": scale.time(fields["epochs"]),
        "batch_size": scale.batch_size(fields["batch_size"]),
        "lr": scale.lr(fields["lr"]),
        "warmup_lr": scale.lr(fields["warmup_lr"]),
        "milestones": scale.times(fields["milestones"]),
        "decay_every": scale.times((fields["decay_every"],))[0],
        "warmup_epochs": scale.time(fields["warmup_epochs"]),
        "norm_images": scale.norm_images(fields["norm_images"], batch_size=fields["batch_size"]),
    }
    for name in _FLOATS:
        if type(scaled[name]) is not float:
            scaled[name] = float(scaled[name])
    return recipe_of(scaled)


# Data sets and resolutions: what a row asks for in the paper's words, and what a size uses for it.
#
# - A row that asks for nothing has the size's own `data` and `resolution`, which stand for the baseline's:
# what
#   the size `paper` says.
# - Arguments by which a row changes its data, such as `corrupt`, go over to what stands for it.
# - Another data set, or other pixels, that a row asks for are looked up in the size's `datasets` and
#   `resolutions`. A size without such a key uses what was asked for, as the size `paper` does.
# - The image counts of a size hold for every data set. Where one has no more images, all are used.
#
# While tricks edit a recipe, its data set is that of the size and its resolution is in the paper's pixels.


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
        return data.train_images or self._facts(data)[1] or self._here(data)[0]

    def test_images(self, data: DataSpec) -> int | None:
        """How many images are evaluated; None where that is not known yet."""
        return data.test_images or self._facts(data)[2] or self._here(data)[1]

    def _here(self, data: DataSpec) -> tuple[int | None, int | None]:
        return self._catalogue.data[data.name].here(data.args)

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
        datasets, entry = self._size.datasets, self._catalogue.data.get(asked.name)
        over = [pair for pair in asked.options if entry and pair[0] in entry.of_a_row]
        bare = Use(asked.name, tuple(pair for pair in asked.options if pair not in over))
        if asked.name in datasets:
            return self._changed(datasets[asked.name], over)
        if bare == self._paper.data:
            return self._changed(self._size.data, over)
        if self._names_are_wrong and asked.name not in self._catalogue.data:
            raise Unusable
        if datasets:
            raise ValueError(
                f"this size's key 'datasets' has no entry for {asked.name}; it has {', '.join(datasets)}"
            )
        return asked

    def _changed(self, stand_in: Use, over: list[tuple[str, Any]]) -> Use:
        """What stands for a row's data, with the arguments that the row changes.

        Raises:
            ValueError: it does not have one of them.
        """
        entry = self._catalogue.data.get(stand_in.name)
        for name, _ in over:
            if entry is not None and name not in entry.of_a_row:
                raise ValueError(
                    f"the row sets '{name}' of its data, and {stand_in.name}, which stands for it at this"
                    " size, has no such argument; give the size another data set under 'data' or 'datasets'"
                )
        return Use(stand_in.name, tuple({**dict(stand_in.options), **dict(over)}.items()))

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
