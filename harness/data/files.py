"""Images in files, decoded with Pillow when a batch needs them, by threads (Pillow releases the GIL)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.data.entry import PLAIN, Reading
from harness.data.pixels import decode, header

THREADS = min(16, os.cpu_count() or 1)
MOST_LOOKED_AT = 20_000  # files, to count the unreadable ones once one was found


class FileImages:
    """`Images` over files of any size, mode and format, as `harness.data.pixels` makes them RGB."""

    channels = 3

    def __init__(self, paths: Sequence[Path], reading: Reading = PLAIN) -> None:
        self.paths = tuple(paths)
        self.reading = reading
        self._sizes = torch.zeros(len(self.paths), 2, dtype=torch.int64)  # zeros: not read yet
        self._threads: tuple[int, ThreadPoolExecutor] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def _pool(self) -> ThreadPoolExecutor:
        """This process's threads; those of the parent do not survive a fork."""
        if self._threads is None or self._threads[0] != os.getpid():
            self._threads = os.getpid(), ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
        return self._threads[1]

    def sizes(self, indices: Tensor) -> Tensor:
        """Height and width in pixels as shown, (B, 2) int64, from the files' headers; read once per file.

        Raises:
            ValueError: a file is not an image that Pillow can read; the message names it, and says how many
                others are like it.
        """
        unread = indices[self._sizes[indices, 0] == 0].unique().tolist()
        try:
            for index, size in zip(unread, self._pool.map(self._read_size, unread), strict=True):
                self._sizes[index] = torch.tensor(size)
        except ValueError as error:
            raise ValueError(f"{error} ({self._how_many()})") from None
        return self._sizes[indices]

    def crop_resize(self, indices: Tensor, boxes: Tensor, size: int, device: str = "cpu") -> Tensor:
        """See `harness.data.base.Images.crop_resize`; Pillow rounds each pixel to one of 256 levels.

        Raises:
            ValueError: a file cannot be decoded; the message names it.
        """
        crops = list(self._pool.map(self._read_crop, indices.tolist(), boxes.tolist(), [size] * len(indices)))
        batch = torch.from_numpy(np.stack(crops)).to(device, non_blocking=True)
        return batch.permute(0, 3, 1, 2).float().div_(255)

    def _how_many(self) -> str:
        """Of the first files, how many cannot be opened: so that all are mended at once."""
        looked_at = self.paths[:MOST_LOOKED_AT]
        wrong = sum(self._pool.map(is_unreadable, looked_at))
        more = "" if len(looked_at) == len(self.paths) else " first"
        return f"of the{more} {len(looked_at)} files {wrong} cannot be read"

    def _read_size(self, index: int) -> tuple[int, int]:
        found = header(self.paths[index])
        return found.height, found.width

    def _read_crop(self, index: int, box: Sequence[int], size: int) -> np.ndarray:
        top, left, height, width = box
        # Cropped first: Pillow's own `box` argument would read pixels outside the box.
        image = decode(self.paths[index], self.reading).crop((left, top, left + width, top + height))
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def is_unreadable(path: Path) -> bool:
    """Whether the file's header is not that of an image."""
    try:
        header(path)
    except ValueError:
        return True
    return False
