"""Batches: a pure function of the run's seed and the step, so that resuming needs no sampler state."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from harness.data import augment
from harness.data.entry import DataSet
from harness.data.pixels import count_threads
from harness.spec import Recipe
from harness.training.graphs import Replayed, without_graphs
from harness.training.parallel import ALONE, World
from harness.tricks.base import Batch, Context, Trick, hooks_of

# Independent named streams of random numbers, each a pure function of a seed, a name and counters.
#
# Nothing is shared between streams, so a trick that draws more numbers shifts no other draw of the run, and
# nothing has to be saved to resume: the generator of any step is made again from its counters.


def stream_seed(seed: int, name: str, *counters: int) -> int:
    """64 bits of BLAKE2b over the seed, the name of the stream and its counters (epoch, step, ...).

    A hash and not `seed + counter`, which would make stream 1 of seed 0 equal stream 0 of seed 1.

    >>> stream_seed(0, "order", 1) == stream_seed(1, "order", 0)
    False
    """
    text = "/".join([str(seed), name, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def stream(seed: int, name: str, *counters: int) -> torch.Generator:
    """A new CPU generator for this stream: the same arguments always give the same numbers."""
    return torch.Generator().manual_seed(stream_seed(seed, name, *counters))


def seed_default(seed: int, name: str, *counters: int) -> None:
    """Seed torch's default generators, which weight initialisation and dropout layers draw from.

    `torch.manual_seed` does the same for every backend at 100 times the cost, too much for each step.
    """
    value = stream_seed(seed, name, *counters)
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(value)


def epoch_order(images: int, seed: int, epoch: int) -> torch.Tensor:
    """The order in which an epoch reads the training set: a permutation of 0 ... images - 1, (N,) int64."""
    return torch.randperm(images, generator=stream(seed, "order", epoch))


# In which order an epoch reads the training set: a pure function of the seed and the epoch.


SHARD_IMAGES = 1251  # ImageNet's 1,281,167 training images in the 1,024 files of the released code
FILE_ORDER_SEED = 0  # the same for every run: files are written once


def file_order(images: int) -> Tensor:
    """The order in which the images stand in the shards, one after the other, (N,) int64.

    A fixed random one: shards are shuffled when they are written, else each would hold a few classes.
    """
    return torch.randperm(images, generator=stream(FILE_ORDER_SEED, "file order"))


def within_shards_order(images: int, seed: int, epoch: int) -> Tensor:
    """Both the shards and the images of each shard are in a new order every epoch (Ioffe & Szegedy 2015, Sec.
    4.2.1, "within-shard shuffling"). The last shard may be smaller."""
    rng = stream(seed, "order/within", epoch)
    shuffled = [shard[torch.randperm(len(shard), generator=rng)] for shard in _shards(images, seed, epoch)]
    return torch.cat(shuffled)


def shards_order(images: int, seed: int, epoch: int) -> Tensor:
    """Only the shards are in a new order every epoch: the same images always come one after the other."""
    return torch.cat(_shards(images, seed, epoch))


def _shards(images: int, seed: int, epoch: int) -> list[Tensor]:
    """The shards of `SHARD_IMAGES` images each, in the order of this epoch."""
    shards = file_order(images).split(SHARD_IMAGES)
    order = torch.randperm(len(shards), generator=stream(seed, "order/shards", epoch))
    return [shards[index] for index in order.tolist()]


ORDERS: Mapping[str, Callable[[int, int, int], Tensor]] = {  # images, seed, epoch -> (N,) int64
    "images": epoch_order,
    "within_shards": within_shards_order,
    "shards": shards_order,
}


def count_steps_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches in one epoch. The last incomplete batch is dropped, as in He et al. 2019's GluonCV code;
    a set smaller than one batch is one batch of all its images.

    >>> count_steps_per_epoch(1000, 128), count_steps_per_epoch(100, 128)
    (7, 1)
    """
    return max(1, images // batch_size)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (B,) int64 as targets (B, K) float32; no table of all classes, which would be K x K."""
    targets = torch.zeros(len(labels), classes, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1.0)


# Batches ahead of the step: where images are decoded, threads make the next ones while a step trains.
#
# The threads that decode are shared by all batches. What a batch needs beside it (draws, colours,
# normalisation) is done by the thread that makes it: with a second one, the next batch is decoded meanwhile.

AHEAD = 2  # whole batches that wait or are being made, beside the one that trains
Made = TypeVar("Made")
ImagesAndLabels = tuple[Tensor, Tensor]
Sent = tuple[ImagesAndLabels, Any]  # and the event after which they are there, if that is on a GPU


def in_turn(
    make: Callable[[int], Made], steps: Iterable[int], ahead: int, makers: int = 1
) -> Generator[Made]:
    """`make` of every step, in their order; up to `ahead` of them in advance, by as many threads as `makers`
    says.

    What it raises is raised when that step's turn comes. Closing the iterator ends the threads, after what
    they are making.
    """
    if not ahead:
        yield from map(make, steps)
        return
    threads = ThreadPoolExecutor(min(makers, ahead), thread_name_prefix="batches")
    due: deque[Future[Made]] = deque()
    try:
        for step in steps:
            due.append(threads.submit(make, step))
            if len(due) > ahead:
                yield due.popleft().result()
        while due:
            yield due.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


class CopyStream:
    """What a thread sends to a GPU goes by a stream of its own, beside the step; on a CPU nothing happens."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._own is not None:
            # Constants of the feed may have been made on the stream of the step.
            self._own.wait_stream(torch.cuda.current_stream(device))

    def sent(self, make: Callable[[int], ImagesAndLabels], step: int) -> Sent:
        """`make(step)` on this stream."""
        if self._own is None:
            return make(step), None
        with torch.cuda.stream(self._own):
            return make(step), self._own.record_event()

    def arrived(self, tensors: ImagesAndLabels, event: Any) -> ImagesAndLabels:
        """The same tensors, for the stream of the step, which waits for them; the CPU does not."""
        if event is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(event)
            for each in tensors:
                # Their memory is the other stream's: not to be given away before they were used.
                each.record_stream(stream)
        return tensors


class Augmented(Replayed):
    """The augmentation of a batch, on a GPU that holds all pixels."""

    make: augment.Work

    def work(self, *args: Tensor) -> ImagesAndLabels:
        return self.make(*args)


@dataclass(slots=True, kw_only=True)
class Feed:
    """Makes the batch of any step: order of the epoch, augmentation, then the tricks that edit batches.

    Of several processes each gets its part, and makes its own images only. A trick that mixes images sees the
    whole batch, which is cut afterwards: decoded images are sent for it, others made by every process.
    """

    data: DataSet
    recipe: Recipe
    seed: int
    device: torch.device
    tricks: tuple[Trick, ...]
    context: Context
    world: World = ALONE
    _replayed: Augmented | None = None  # where a GPU has all pixels
    _order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))  # of an epoch

    def __post_init__(self) -> None:
        self.tricks = tuple(trick for trick in self.tricks if "edit_batch" in hooks_of(trick))
        # Batches that wait, made ahead of the step, must not be overwritten by the next one.
        if without_graphs(self.device) is None and not self._decodes:
            self._replayed = Augmented(None, self.device)

    def batches(self, first: int, end: int) -> Generator[Batch]:
        """`batch` of these steps in their order, the same bits; images that are decoded are made ahead. To be
        closed, which ends the thread."""
        ahead = AHEAD if self._decodes else 0
        copies = CopyStream(self.device if ahead else torch.device("cpu"))
        steps = range(first, end)

        def arrived(step: int, sent: Sent) -> Batch:
            return self._edited(step, *copies.arrived(*sent))

        with closing(in_turn(partial(copies.sent, self._images), steps, ahead, count_threads())) as made:
            # Not a loop, whose variables would keep the memory of a batch while the next one is made.
            yield from map(arrived, steps, made)

    def batch(self, step: int) -> Batch:
        """Images (B, 3, S, S) float32, channels last, and soft targets (B, K) float32, on the device; of W
        processes each gets B / W consecutive rows."""
        return self._edited(step, *self._images(step))

    @property
    def eager(self) -> str | None:
        """Why the augmentation is not replayed, where that was found by trying."""
        return self._replayed.eager if self._replayed else None

    @property
    def _mixes(self) -> bool:
        return any(not trick.per_image for trick in self.tricks)

    @property
    def _decodes(self) -> bool:
        return self.data.train.images.decodes

    def _images(self, step: int) -> ImagesAndLabels:
        """The augmented images and their labels, before any trick: no state of this thread, no default
        generator, so that another thread may make them."""
        epoch, position = divmod(step, self.context.steps_per_epoch)
        indices = self._indices(epoch, position)
        if self._decodes or not self._mixes:
            indices = self.world.share(indices)
        images, labels = augment.training_batch(
            self.data.train,
            indices,
            spec=self.recipe.augment,
            view=self.view(epoch),
            make=self._replay if self._replayed else None,
        )
        return images.contiguous(memory_format=torch.channels_last), labels

    def _replay(self, work: augment.Work, buffer: Tensor) -> ImagesAndLabels:
        """The augmentation on a GPU, which is the same for every batch: only what was drawn differs."""
        assert self._replayed is not None
        self._replayed.make = work
        images, labels = self._replayed(buffer)
        return images, labels

    def _edited(self, step: int, images: Tensor, labels: Tensor) -> Batch:
        if self._mixes and self._decodes and self.world.size > 1:
            # As integers, of which 0 + x is x for every bit pattern.
            images = self.world.rows(images.view(torch.int32)).flatten(0, 1).view(torch.float32)
            images = images.contiguous(memory_format=torch.channels_last)
            labels = self.world.rows(labels).flatten()
        batch = Batch(images, one_hot(labels, self.data.classes))
        for trick in self.tricks:
            batch = trick.edit_batch(batch, stream(self.seed, f"trick/{trick.name}", step), self.context)
        return Batch(*map(self.world.share, batch)) if self._mixes else batch

    def _indices(self, epoch: int, position: int) -> Tensor:
        """The images of a whole batch, (B,) int64."""
        known, order = self._order  # one value: another thread may put that of the next epoch there
        if epoch != known:
            order = ORDERS[self.recipe.shuffle](len(self.data.train.labels), self.seed, epoch)
            self._order = epoch, order
        start = position * self.recipe.batch_size
        return order[start : start + self.recipe.batch_size]

    def view(self, epoch: int) -> augment.View:
        return augment.View(
            size=self.recipe.data.resolution,
            mean=self.data.mean,
            std=self.data.std,
            seed=stream_seed(self.seed, "augmentation"),
            epoch=epoch,
            device=str(self.device),
        )
