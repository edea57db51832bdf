"""One contract suite for a whole plugin: what every model, data set and metric must keep."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from harness.data import augment
from harness.data.contents import fingerprints
from harness.data.entry import DataSet, Entry, SourceError, checked
from harness.data.loading import load_cached
from harness.models.blocks import Outputs
from harness.models.entry import Model
from harness.plugins.load import Metric, Plugin, from_exception
from harness.plugins.trick_contract import (
    BROKEN,
    IN_EVERY_SETTING,
    ONCE,
    Broken,
    Check,
    ContractFinding,
    Skipped,
    bits,
    require,
    run_checks,
    settings,
)
from harness.tricks.base import Trick

# What every data set and every metric must keep.


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
        require(good, f"images of form {tuple(seen.shape)}", "see harness.data.entry.Images")
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


# What every model must keep, tried on a few small images.


CLASSES = 7
IMAGES = 3
SMALLEST_SIDE = 32  # of the images tried, where the model does not need more


def build(
    model: Model, args: dict[str, Any] | None = None, *, seed: int = 0, classes: int = CLASSES
) -> nn.Module:
    """The network as its constructor leaves it, on the CPU."""
    torch.manual_seed(seed)
    net = model.build(**model.resolve(args or {}), classes=classes, in_channels=3)
    if not isinstance(net, nn.Module):
        raise Broken(f"build returned {type(net).__name__}", "let build return a torch.nn.Module")
    return net


def side(model: Model) -> int:
    """The side of the images it is tried on, in pixels."""
    return max(model.minimum_input(model.resolve({})), SMALLEST_SIDE)


def images(pixels: int, count: int = IMAGES) -> Tensor:
    """The same normal noise every time, (count, 3, pixels, pixels)."""
    return torch.randn(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(1))


def defaults_are_valid(model: Model) -> None:
    """Its defaults are valid values of its arguments, and an unknown argument is refused."""
    model.validate(model.args)
    require(bool(model.note.strip()), "it has no note", "say in `note` what it is, in one line")
    require(bool(model.paper.strip()), "it names no paper", "write paper='own' where there is none")


def answers_every_image(model: Model) -> None:
    """It maps images (B, 3, S, S) to finite logits (B, classes), also for one image and two classes."""
    for classes, count in ((CLASSES, IMAGES), (2, 1)):
        net = build(model, classes=classes).eval()
        with torch.no_grad():
            out = net(images(side(model), count))
        require(
            isinstance(out, Tensor) and tuple(out.shape) == (count, classes),
            f"in evaluation mode it returned {_form(out)}, expected logits ({count}, {classes})",
            "end with a linear layer of `classes` outputs; auxiliary heads answer in training mode only",
        )
        require(bool(torch.isfinite(out).all()), "its logits are not finite", "look at its initial weights")


def trains(model: Model) -> None:
    """Every parameter gets a finite gradient in training mode."""
    net = build(model).train()
    out = net(images(side(model)))
    if isinstance(out, Tensor):
        heads = [out]
    elif isinstance(out, Outputs):
        heads = [out.logits, *out.auxiliary]
    else:
        raise Broken(
            f"in training mode it returned {_form(out)}",
            "return logits, or harness.models.blocks.Outputs(logits, auxiliary)",
        )
    sum(head.float().logsumexp(1).sum() for head in heads).backward()  # type: ignore[union-attr]
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            require(parameter.grad is not None, f"{name} gets no gradient", "use it, or remove it")
            finite = parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())
            require(finite, f"the gradient of {name} is not finite", "look at its initial weights")


def initialises_from_the_seed(model: Model) -> None:
    """The same seed gives the same weights, whatever else was drawn."""
    first = bits(build(model))
    random.random()
    np.random.rand()  # noqa: NPY002  (the generator that a model must not use)
    require(
        first == bits(build(model)),
        "two builds with one seed differ",
        "draw initial weights from torch's default generator only",
    )


def survives_save_and_load(model: Model) -> None:
    """Saved and loaded into a new network it answers with the same bits."""
    one, other = build(model, seed=0).eval(), build(model, seed=1).eval()
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    seen = images(side(model))
    with torch.no_grad():
        same = torch.equal(one(seen), other(seen))
    require(same, "it answers otherwise", "keep everything it computes with in parameters and buffers")


def images_do_not_mix(model: Model) -> None:
    """In evaluation mode the answer to an image does not depend on the others of its batch."""
    net, seen = build(model).eval(), images(side(model))
    with torch.no_grad():
        together, alone = net(seen), torch.cat([net(each[None]) for each in seen])
    close = torch.allclose(together, alone, rtol=1e-3, atol=1e-4)
    require(close, "one image alone got other logits", "use batch statistics in training mode only")


def minimum_input_is_true(model: Model) -> None:
    """It works on images of its minimum_input."""
    least = model.minimum_input(model.resolve({}))
    try:
        with torch.no_grad():
            build(model).eval()(images(least, 1))
    except (RuntimeError, ValueError) as error:
        mend = "state the smallest side in pixels: Model(..., minimum_input=lambda args: ...)"
        raise Broken(f"images of {least} pixels: {str(error).splitlines()[0]}", mend) from None


def width_scales(model: Model) -> None:
    """A smaller width has fewer parameters."""
    width = model.arguments.get("width")
    if width is None:
        raise Skipped("it has no argument `width`, so a size cannot make it smaller")
    half = width.default / 2
    if not width.accepts(half):
        raise Skipped(f"it does not accept width {half:g}")
    counts = [
        sum(p.numel() for p in build(model, {"width": value}).parameters()) for value in (half, width.default)
    ]
    require(
        counts[0] < counts[1], f"{counts[0]} parameters at half width, {counts[1]} at full", "use `width`"
    )


def cost_can_be_counted(model: Model) -> None:
    """Its cost can be counted without storage for its weights."""
    with torch.device("meta"), torch.no_grad():
        net = build(model).eval()
        net(torch.empty(1, 3, side(model), side(model)))


def variants_are_valid(model: Model) -> None:
    """Every variant is a valid setting of its arguments."""
    for args in model.variants.values():
        model.validate(args)


def _form(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


CHECKS: tuple[Check, ...] = (
    defaults_are_valid,
    variants_are_valid,
    answers_every_image,
    trains,
    initialises_from_the_seed,
    survives_save_and_load,
    images_do_not_mix,
    minimum_input_is_true,
    width_scales,
    cost_can_be_counted,
)


# One contract suite for a whole plugin: the checks that the harness's own tables are tested with.
#
# `IN_EVERY_SETTING` and `ONCE` (tricks), `MODEL_CHECKS`, `DATA_CHECKS` (of a `Placed`), `METRIC_CHECKS` and
# `TRAINER_CHECKS` are functions of one thing that raise `Broken`; tests may call them on the harness's own
# tables.


def check_plugin(plugin: Plugin, data_dir: Path) -> Iterator[ContractFinding]:
    """Every check on everything that an installed plugin names, in the order of its tables."""
    path, tables = plugin.path, plugin.tables
    for name, model in tables.models.items():
        yield from run_checks(f"model {name}", model, CHECKS, path)
    for name, trick in tables.tricks.items():
        yield from _check_trick(name, trick, path)
    for name, entry in tables.datasets.items():
        yield from run_checks(f"data set {name}", Placed(entry, data_dir), DATA_CHECKS, path)
    for name, metric in tables.metrics.items():
        yield from run_checks(f"metric {name}", metric, METRIC_CHECKS, path)
    for name, trainer in tables.trainers.items():
        yield from run_checks(f"trainer {name}", trainer, TRAINER_CHECKS, path)


def _check_trick(name: str, trick: type[Trick], path: Path) -> Iterator[ContractFinding]:
    try:
        default, *others = settings(trick)
    except Exception as error:
        why = str(from_exception(error, path, "making it with its defaults"))
        mend = "let its defaults be valid options"
        yield ContractFinding(
            subject=f"trick {name}", claim="Its defaults are valid", outcome=BROKEN, why=why, mend=mend
        )
        return
    yield from run_checks(f"trick {name}", default, (*IN_EVERY_SETTING, *ONCE), path)
    for other in others:
        yield from run_checks(f"trick {other!r}", other, IN_EVERY_SETTING, path)
