"""Independent named streams of random numbers, each a pure function of a seed, a name and counters.

Nothing is shared between streams, so a trick that draws more numbers shifts no other draw of the run, and
nothing has to be saved to resume: the generator of any step is made again from its counters.
"""

from __future__ import annotations

import hashlib

import torch


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
