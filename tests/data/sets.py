"""Small sets of random pixels for the tests of this folder."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

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


def write_idx(path: Path, array: np.ndarray) -> None:
    """Unsigned bytes in the IDX format, gzipped where the name ends in .gz."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
