"""Random numbers that are a pure function of (seed, epoch, image, draw): no generator state to save.

A draw is a hash of its counter, as in counter-based generators (Salmon et al. 2011, "Parallel random numbers:
as easy as 1, 2, 3", SC'11). The hash is the output function of SplitMix64 (Steele, Lea and Flood 2014, "Fast
splittable pseudorandom number generators", OOPSLA'14, Fig. 16 with the constants of variant 13): an image's
sequence is the SplitMix64 sequence that starts at a hash of (seed, epoch, stream, image).

So a resumed run draws what the uninterrupted one drew, and neither the number of workers, nor the batch an
image falls into, nor a draw that another stream needs changes anything.
"""

from __future__ import annotations

import hashlib

import numpy as np

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # odd, close to 2^64 / golden ratio


def uniforms(seed: int, epoch: int, indices: np.ndarray, draws: int, stream: str) -> np.ndarray:
    """(B, draws) float32 in [0, 1), 24 random bits each, for the images at `indices` (B,) int64.

    Streams with different names are independent. The same arguments give the same bits on every platform.
    """
    hashed = _hash(_key(seed, epoch, stream), indices, draws)
    return (hashed >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def normals(seed: int, epoch: int, indices: np.ndarray, draws: int, stream: str) -> np.ndarray:
    """(B, draws) float32 standard normal draws by the Box-Muller transform of `uniforms`."""
    pairs = (draws + 1) // 2
    u = uniforms(seed, epoch, indices, 2 * pairs, stream)
    radius = np.sqrt(-2 * np.log1p(-u[:, :pairs]))  # log of 1 - u, which is never 0
    angle = np.float32(2 * np.pi) * u[:, pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :draws]


def _key(seed: int, epoch: int, stream: str) -> np.uint64:
    digest = hashlib.blake2b(f"{seed}/{epoch}/{stream}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _hash(key: np.uint64, indices: np.ndarray, draws: int) -> np.ndarray:
    images = np.asarray(indices, np.int64).astype(np.uint64)[:, None] + np.uint64(1)
    counters = np.arange(1, draws + 1, dtype=np.uint64)[None, :]
    return _mix(_mix(key + images * GOLDEN_GAMMA) + counters * GOLDEN_GAMMA)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
