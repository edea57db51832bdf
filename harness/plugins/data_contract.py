"""What every data set and every metric must keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from harness.data import augment
from harness.data.base import DataSet
from harness.data.contents import fingerprints
from harness.data.entry import Entry
from harness.data.loading import SourceError, checked, load_cached
from harness.plugins.checks import Broken, Check, Skipped, require
from harness.plugins.tables import Metric

A_FEW = 4  # images that are looked at


class Placed(NamedTuple):
    """A data set, and the folder its files are in."""

    entry: Entry
    data_dir: Path


def entry_is_complete(placed: Placed) -> None:
    """Its channels, mean and standard deviation are stated."""
    entry = placed.entry
    require(entry.channels in (1, 3), f"channels is {entry.channels}", "1 for grey, 3 for RGB")
    for name, values in (("mean", entry.mean), ("std", entry.std)):
        inside = len(values) == 3 and all(0 <= value <= 1 for value in values)
        require(inside, f"{name} is {values}", "three numbers, of pixels in [0, 1]")
    require(all(value > 0 for value in entry.std), f"std is {entry.std}", "three numbers above 0")


def missing_says_what(placed: Placed) -> None:
    """`missing` answers None, or what to put where."""
    entry, data_dir = placed
    said = entry.missing(entry.args, data_dir)
    good = said is None or (isinstance(said, str) and len(said.split()) > 3)
    require(good, f"missing returned {said!r}", "return None where it is ready, else a sentence for the user")


def loads_what_it_promises(placed: Placed) -> None:
    """It loads: labels in range, and the counts and classes that it promises."""
    entry, data_dir = placed
    data = _load(entry, data_dir)
    found = (data.classes, len(data.train.labels), len(data.test.labels))
    names = ("classes", "train_images", "test_images")
    for name, promised, real in zip(names, entry.facts({}), found, strict=True):
        require(promised in (None, real), f"{name} is {promised}, loaded {real}", f"state {name}={real}")
    counted = entry.count_classes(entry.args, data_dir)
    require(
        counted == data.classes, f"count_classes says {counted}, loaded {data.classes}", "make them agree"
    )
    for part, split in (("training", data.train), ("test", data.test)):
        absent = sorted(set(range(data.classes)) - set(split.labels.tolist()))
        require(
            not absent, f"no {part} image of class {absent[:1]}", "number the classes from 0 without gaps"
        )


def images_can_be_read(placed: Placed) -> None:
    """Its first images can be cropped, resized and normalised."""
    entry, data_dir = placed
    data = _load(entry, data_dir)
    view = augment.View(size=16, mean=data.mean, std=data.std)
    for split in (data.train, data.test):
        first = torch.arange(min(A_FEW, len(split.labels)))
        seen = augment.evaluation_images(split, first, eval_crop=1.0, view=view)
        good = tuple(seen.shape) == (len(first), 3, 16, 16) and bool(torch.isfinite(seen).all())
        require(good, f"images of form {tuple(seen.shape)}", "see harness.data.base.Images")
        channels = split.images.channels
        require(channels == entry.channels, f"images have {channels} channels", f"state channels={channels}")


def loads_the_same_every_time(placed: Placed) -> None:
    """Loading it again gives the same fingerprint."""
    entry, data_dir = placed
    first = _load(entry, data_dir).fingerprint
    source = checked(entry.load(entry.args, data_dir), entry)
    again = fingerprints(source.train, source.test).both
    require(first == again, "two loads differ", "draw from a generator with a fixed seed; sort file names")


def _load(entry: Entry, data_dir: Path) -> DataSet:
    try:
        entry.validate(entry.args)
    except ValueError as error:
        raise Skipped(f"its defaults alone are no data set: {error}") from None
    said = entry.missing(entry.args, data_dir)
    if said is not None:
        raise Skipped(f"its files are not here: {said}")
    try:
        return load_cached(entry, entry.args, (None, None), data_dir)
    except SourceError as error:
        raise Broken(error.why, error.mend) from None


DATA_CHECKS: tuple[Check, ...] = (
    entry_is_complete,
    missing_says_what,
    loads_what_it_promises,
    images_can_be_read,
    loads_the_same_every_time,
)


def _answers(images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(images + classes)
    return torch.randn(images, classes, generator=rng), torch.randint(classes, (images,), generator=rng)


def metric_is_a_finite_number(metric: Metric) -> None:
    """It is a finite number on random logits, for 2 to 100 classes and for a single image."""
    for images, classes in ((64, 10), (64, 2), (200, 100), (1, 10)):
        value = _number(metric, images, classes)
        if not math.isfinite(value):
            raise Broken(
                f"{value} on {images} images of {classes} classes", "guard empty groups and logarithms"
            )


def metric_does_not_depend_on_order(metric: Metric) -> None:
    """The order of the images does not matter."""
    logits, labels = _answers(64, 10)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    one, other = float(metric(logits, labels)), float(metric(logits[order], labels[order]))
    require(
        math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6),
        f"{one:g} became {other:g}",
        "average over the images",
    )


def metric_changes_nothing(metric: Metric) -> None:
    """It leaves the logits and labels as they are, and gives the same number again."""
    logits, labels = _answers(64, 10)
    copies = logits.clone(), labels.clone()
    one, other = float(metric(logits, labels)), float(metric(logits, labels))
    same = torch.equal(copies[0], logits) and torch.equal(copies[1], labels)
    require(same, "it changed them in place", "compute new tensors")
    require(one == other, f"{one:g}, then {other:g}", "draw nothing at random")


def _number(metric: Metric, images: int, classes: int) -> float:
    value = metric(*_answers(images, classes))
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise Broken(f"it returned {type(value).__name__}", "return one number") from None


METRIC_CHECKS: tuple[Check, ...] = (
    metric_is_a_finite_number,
    metric_does_not_depend_on_order,
    metric_changes_nothing,
)


def trainer_has_the_signature(trainer: Callable[..., object]) -> None:
    """It takes (spec, run)."""
    import inspect

    names = list(inspect.signature(trainer).parameters)
    mend = "def train(spec, run): see docs/plugins.md"
    require(len(names) == 2, f"it takes ({', '.join(names)})", mend)


TRAINER_CHECKS: tuple[Check, ...] = (trainer_has_the_signature,)
