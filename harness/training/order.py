"""In which order an epoch reads the training set: a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from harness.training.randomness import epoch_order, stream

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
