"""Images of one size held as a single uint8 array: one gather per batch, no decoding."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.resample import crop_resize

RESIDENT_BYTES = 2 * 2**30  # an array up to this size is copied to the accelerator once


class ArrayImages:
    """`Images` over one array (N, H, W, C) uint8, in memory or memory-mapped.

    Forked workers share its pages, and processes that map the same file share the page cache.
    """

    def __init__(self, array: np.ndarray) -> None:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3):
            raise ValueError(
                f"images must be uint8 of shape (N, H, W, 1 or 3), not {array.dtype} of shape {array.shape}"
            )
        writable = array if array.flags.writeable and array.flags.c_contiguous else array.copy()
        self._pixels = torch.from_numpy(writable)
        self._resident: dict[str, Tensor] = {}
        self.channels = int(array.shape[3])

    def __len__(self) -> int:
        return len(self._pixels)

    @property
    def array(self) -> np.ndarray:
        """The pixels, (N, H, W, C) uint8."""
        return self._pixels.numpy()

    def sizes(self, indices: Tensor) -> Tensor:
        """Height and width, (B, 2) int64; the same for every image."""
        return torch.tensor(self._pixels.shape[1:3]).expand(len(indices), 2)

    def crop_resize(self, indices: Tensor, boxes: Tensor, size: int, device: str = "cpu") -> Tensor:
        """See `harness.data.base.Images.crop_resize`."""
        if device == "cpu":
            batch = self._pixels.index_select(0, indices)
        elif self._pixels.numel() <= RESIDENT_BYTES:
            batch = self._on(device).index_select(0, indices.to(device, non_blocking=True))
        else:
            batch = self._pixels.index_select(0, indices).to(device, non_blocking=True)
        return crop_resize(batch, boxes.to(device, non_blocking=True), size)

    def _on(self, device: str) -> Tensor:
        if device not in self._resident:
            self._resident[device] = self._pixels.to(device)
        return self._resident[device]


def decoded_once(path: Path, decode: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in the .npy file `path`, memory-mapped; made with `decode` where it does not exist yet.

    The file is renamed into place, so two processes that start at once are safe. Where the folder cannot be
    written (a read-only data folder), the array stays in this process's memory.
    """
    if not path.exists():
        array = decode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
            with draft.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            draft.replace(path)
        except OSError:
            return array
    # Copy-on-write mapping: torch wants a writable array; nobody writes, so the pages stay shared.
    return np.load(path, mmap_mode="c", allow_pickle=False)
