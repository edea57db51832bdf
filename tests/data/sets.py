"""Small sets of random pixels for the tests of this folder."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from harness.data.entry import Split
from harness.data.loading import ArrayImages


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


def write_classes(root: Path, levels: Mapping[str, int], images: int = 1) -> None:
    """`images` grey pictures of 24 x 24 pixels per class and part, as BMP: all of one size in bytes."""
    for part in ("train", "val"):
        for name, level in levels.items():
            (root / part / name).mkdir(parents=True)
            for number in range(images):
                Image.new("RGB", (24, 24), (level,) * 3).save(root / part / name / f"{number}.bmp")
