"""What two simple classifiers make of a study's own images: a network below that has not learnt its task.

The floor of a data setting is the best of three numbers, in percent of the test images:

linear      logistic regression on the pixels: mean cross-entropy + L2 / 2 |W|^2, by L-BFGS, 50 iterations
neighbours  the most frequent class of the 5 nearest training images (Euclidean; a tie: the lowest class)
guessing    what an answer that is always the largest class of the test part gets, and 1.645 of its standard
            errors over test images: above that a network is seen to have learnt anything

Both classifiers see the training images of the study at its resolution and in its channels, the square in
the middle of each, without augmentation; above 32 pixels they see them at 32. Pixels go from 0 to 1, with the
mean of the training part taken off. `L2` was chosen once, on 3,000 to 10,000 images of Fashion-MNIST (81.9 to
82.7 %): between .001 and .01 the accuracy is within a point of that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.data import load
from harness.data.entry import DataSet, Images
from harness.spec import DataSpec

MOST_PIXELS = 32  # of a side
NEIGHBOURS = 5
L2 = 0.003
ITERATIONS = 50
ONE_SIDED = 1.645  # standard errors: 95 %, one-sided
BLOCK = 1000  # images that are read, and test images that are compared, at a time
MOST_NUMBERS = 60_000_000  # of a table beside the images, 240 MB: fewer images at a time where it has more
FEWEST_CLASSES, MOST_CLASSES = 2, 1000
FEWEST_PER_CLASS = 2  # training images, on average
MOST_IMAGES = 100_000  # of a part
MOST_WORK = 4e12  # multiply-adds of the 5 nearest neighbours: some minutes of one core


class NoFloor(ValueError):
    """Why there is no floor for some data, in words that go on after "no floor: "."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Percent of the test images. `pixels`: the side at which both classifiers saw them."""

    fingerprint: str  # of the data (`DataSet.fingerprint`)
    classes: int
    train_images: int
    test_images: int
    channels: int
    pixels: int
    chance: float  # share of the largest class of the test part
    guessing: float
    neighbours: float
    linear: float


def measure(spec: DataSpec, data_dir: Path) -> Measured:
    """The floor of one data setting, on one thread; the same bits from the same machine.

    Raises:
        NoFloor: these data have none.
        FileNotFoundError, ValueError: the data are not there, or damaged.
    """
    data = load(
        spec.name,
        spec.args,
        train_images=spec.train_images,
        test_images=spec.test_images,
        data_dir=data_dir,
    )
    side = min(spec.resolution, MOST_PIXELS)
    _refuse(data, side)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(data, side)
    finally:
        torch.set_num_threads(threads)


def _refuse(data: DataSet, side: int) -> None:
    """
    Raises:
        NoFloor: too few images or classes for a classifier, or too many for a minute's work.
    """
    train, test = len(data.train.labels), len(data.test.labels)
    if data.classes < FEWEST_CLASSES:
        raise NoFloor("the data have 1 class: every answer is right")
    if data.classes > MOST_CLASSES:
        raise NoFloor(f"{data.classes:,} classes are more than {MOST_CLASSES:,}")
    if train < FEWEST_PER_CLASS * data.classes:
        raise NoFloor(f"{train:,} training images of {data.classes:,} classes are fewer than 2 a class")
    if max(train, test) > MOST_IMAGES:
        raise NoFloor(f"{train:,} training and {test:,} test images; at most {MOST_IMAGES:,} of each")
    work = float(train) * test * side * side * data.train.images.channels
    if work > MOST_WORK:
        raise NoFloor(f"{train:,} x {test:,} images at {side} pixels are too many to compare")


def _measured(data: DataSet, side: int) -> Measured:
    with torch.no_grad():
        train, test = pixels_of(data.train.images, side), pixels_of(data.test.images, side)
        mean = train.mean(0)
        train -= mean
        test -= mean
        near = nearest(train, test)
        found = data.train.labels[near]
        votes = torch.zeros(len(test), data.classes).scatter_add_(1, found, torch.ones(found.shape))
    linear = logistic_regression(train, data.train.labels, data.classes)
    labels = data.test.labels
    share = float(labels.bincount().max()) / len(labels)
    guessing = min(1.0, share + ONE_SIDED * math.sqrt(share * (1.0 - share) / len(labels)))
    return Measured(
        fingerprint=data.fingerprint,
        classes=data.classes,
        train_images=len(train),
        test_images=len(test),
        channels=data.train.images.channels,
        pixels=side,
        chance=100.0 * share,
        guessing=100.0 * guessing,
        neighbours=_percent(votes.argmax(1), labels),
        linear=_percent((test @ linear[:-1] + linear[-1]).argmax(1), labels),
    )


def pixels_of(images: Images, side: int) -> Tensor:
    """The square in the middle of every image at `side` pixels: (N, C side side) float32 from 0 to 1."""
    found = torch.empty(len(images), images.channels * side * side)
    for indices in torch.arange(len(images)).split(BLOCK):
        sizes = images.sizes(indices)
        shorter = sizes.amin(1)
        boxes = torch.stack(
            [(sizes[:, 0] - shorter) // 2, (sizes[:, 1] - shorter) // 2, shorter, shorter], dim=1
        )
        found[indices[0] : indices[-1] + 1] = images.crop_resize(indices, boxes, side).flatten(1)
    return found


def nearest(train: Tensor, test: Tensor) -> Tensor:
    """The indices of the nearest training images of every test image, (M, NEIGHBOURS) or fewer."""
    # Nothing is kept of a part but its numbers: a small tensor behind each large one would keep its memory.
    squares = torch.empty(len(train))
    for block, its_squares in zip(train.split(BLOCK), squares.split(BLOCK), strict=True):
        its_squares[:] = (block * block).sum(1)
    count = min(NEIGHBOURS, len(train))
    found = torch.empty(len(test), count, dtype=torch.int64)
    for block, its_nearest in zip(*(_blocks(each, len(train), BLOCK) for each in (test, found)), strict=True):
        # |a - b|^2 without |a|^2, which is the same for all b
        distances = 2.0 * block @ train.T
        torch.sub(squares, distances, out=distances)
        its_nearest[:] = distances.topk(count, dim=1, largest=False).indices
        del distances
    return found


def _blocks(values: Tensor, numbers: int, most: int | None = None) -> tuple[Tensor, ...]:
    """Rows in parts, at most so many and such that as many numbers a row as these make no large table."""
    fit = max(1, MOST_NUMBERS // numbers)
    return values.split(min(fit, most or fit))


def logistic_regression(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Weights (D + 1, K), the last row the intercepts, of images (N, D) whose mean is 0."""
    weights = torch.zeros(images.shape[1], classes, requires_grad=True)
    intercepts = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, intercepts], max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    # All but the last part hand their gradients on at once, and their tables with them.
    *parts, last = zip(_blocks(images, 3 * classes), _blocks(labels, 3 * classes), strict=True)

    def entropy(part: Tensor, right: Tensor) -> Tensor:
        scores = part @ weights + intercepts
        return torch.nn.functional.cross_entropy(scores, right) * (len(part) / len(images))

    def loss() -> Tensor:
        optimizer.zero_grad()
        before = torch.zeros(())
        for each in parts:
            of_part = entropy(*each)
            of_part.backward()
            before += of_part.detach()
        total = entropy(*last) + L2 / 2 * (weights * weights).sum()
        total.backward()
        return total + before

    optimizer.step(loss)
    return torch.cat([weights.detach(), intercepts.detach()[None]])


def _percent(answers: Tensor, labels: Tensor) -> float:
    return 100.0 * float((answers == labels).sum()) / len(labels)
