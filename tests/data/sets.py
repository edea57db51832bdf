"""Small sets of random pixels for the tests of this folder."""

from __future__ import annotations

import numpy as np
import torch

from harness.data.arrays import ArrayImages
from harness.data.base import Split


def random_pixels(count: int, height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """(N, H, W, C) uint8."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def array_split(pixels: np.ndarray) -> Split:
    """A split whose labels are all zero."""
    return Split(images=ArrayImages(pixels), labels=torch.zeros(len(pixels), dtype=torch.int64))
