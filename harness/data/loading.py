"""From what a data set's loader found to a `DataSet`: subset, fingerprint, one copy per process."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from harness.data import pixels
from harness.data.arrays import subset
from harness.data.augment import crop_resize, flip, send
from harness.data.contents import SLICE, THREADS_PER_CORE, Contents, Hashed, fingerprints
from harness.data.entry import (
    DataSet,
    Entry,
    Files,
    Images,
    Packed,
    Part,
    Pixels,
    Reading,
    Split,
    Stored,
    checked,
)
from harness.data.pixels import CutImages, FileImages, Header, count_threads, decode, header
from harness.errors import decided

# Images of one size held as a single uint8 array: one gather per batch, no decoding.


RESIDENT_BYTES = 2 * 2**30  # an array up to this size is copied to the accelerator once


class ArrayImages:
    """`Images` over one array (N, H, W, C) uint8, in memory or memory-mapped.

    Forked workers share its pages, and processes that map the same file share the page cache.
    """

    decodes = False

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
        """See `harness.data.entry.Images.crop_resize`."""
        return self.cut(send(self.read(indices, boxes, size, device), device), size, device)

    def read(self, indices: Tensor, boxes: Tensor, size: int, device: str) -> dict[str, Tensor]:
        """See `harness.data.entry.Images.read`: the indices alone, where the device has all pixels."""
        if device != "cpu" and self._pixels.numel() <= RESIDENT_BYTES:
            return {"indices": indices, "boxes": boxes}
        return {"pixels": self._pixels.index_select(0, indices), "boxes": boxes}

    def cut(self, sent: Mapping[str, Tensor], size: int, device: str, out: Tensor | None = None) -> Tensor:
        """See `harness.data.entry.Images.cut`."""
        found = sent["pixels"] if "pixels" in sent else self._on(device).index_select(0, sent["indices"])
        crops = crop_resize(found, sent["boxes"], size)
        return flip(crops, sent["mirrored"]) if "mirrored" in sent else crops

    def _on(self, device: str) -> Tensor:
        if device not in self._resident:
            self._resident[device] = self._pixels.to(device)
            _resident.add(self)
        return self._resident[device]

    def drop_resident(self) -> None:
        """Forget the copies on accelerators."""
        self._resident.clear()


_resident: weakref.WeakSet[ArrayImages] = weakref.WeakSet()  # those with a copy on an accelerator


def drop_resident() -> None:
    """Forget every copy on an accelerator: a run makes its own anew, and others have the memory meanwhile."""
    for images in list(_resident):
        images.drop_resident()
    _resident.clear()


class PackedImages(CutImages):
    """`Images` in a few large files. Each is opened once; an image is a read at its place, whose pages all
    processes share. (A mapped file that is cut short ends a process; a read says so.)"""

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self._packed = packed
        self._sizes = torch.from_numpy(packed.rows[:, 3:5].copy())
        self._files: dict[int, BinaryIO] = {}
        self._loaded = [_version(os.stat(path)) for path in packed.shards]
        self._buffers = threading.local()  # one per thread: new memory costs more than the read

    def pixels(self, index: int) -> np.ndarray:
        """See `CutImages.pixels`."""
        if self._packed.raw:
            height = int(self._sizes[index, 0])
            return self._rows(index, 0, height).copy()
        stored = self._stored(index, 0, int(self._packed.rows[index, 2]))
        if self._packed.reading is not None:
            return pixels.decode_array(Stored.of(bytes(stored), self._where(index)), self._packed.reading)
        try:
            return pixels.decode_jpeg(stored)
        except ValueError as error:
            raise ValueError(f"{self._where(index)} cannot be decoded: {error}") from None

    def stored(self, index: int) -> Stored:
        """One image file as it is stored."""
        content = self._stored(index, 0, int(self._packed.rows[index, 2]))
        return Stored.of(bytes(content), self._where(index))

    def files(self) -> Sequence[bytes]:
        """The image files as they are stored, read when they are asked for."""
        return _StoredFiles(self)

    def _read_crop(self, index: int, box: Sequence[int], size: int) -> np.ndarray:
        if not self._packed.raw:
            return pixels.resized(self.pixels(index), box, size)
        top, left, height, width = box
        return pixels.resized(self._rows(index, top, height), (0, left, height, width), size)

    def _rows(self, index: int, top: int, height: int) -> np.ndarray:
        """Some rows of a raw image, (height, W, 3), until this thread reads the next."""
        width = int(self._packed.rows[index, 4])
        return self._stored(index, top * width * 3, height * width * 3).reshape(height, width, 3)

    def _stored(self, index: int, start: int, length: int) -> np.ndarray:
        """Bytes of an image, (length,) uint8, until this thread reads the next."""
        shard, first = self._packed.rows[index, :2].tolist()
        file = self._files.get(shard) or self._opened(shard)
        buffer = getattr(self._buffers, "bytes", None)
        if buffer is None or len(buffer) < length:
            buffer = self._buffers.bytes = np.empty(max(length, 2**20), np.uint8)
        found: np.ndarray = buffer[:length]
        if os.preadv(file.fileno(), [found.data], first + start) != length:
            raise ValueError(f"{self._where(index)} is not there: the file is cut short")
        return found

    def _opened(self, shard: int) -> BinaryIO:
        file = self._packed.shards[shard].open("rb", buffering=0)
        if _version(os.fstat(file.fileno())) != self._loaded[shard]:
            raise ValueError(f"{file.name} was packed again or cut short after this run had begun; run again")
        # Of two threads that open it at once both read the one that stays: the other is closed.
        return self._files.setdefault(shard, file)

    def _where(self, index: int) -> str:
        if self._packed.title:
            return f"{self._packed.title}: the image in row {self._packed.rows[index, 5]:,}"
        shard, first = self._packed.rows[index, :2].tolist()
        return f"{self._packed.shards[shard]}: the image at byte {first:,}"


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns


class _StoredFiles(Sequence[bytes]):
    def __init__(self, images: PackedImages) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        return self._images.stored(index)


def decoded_once(path: Path, decode: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in the .npy file `path`, memory-mapped; made with `decode` where it does not exist yet.

    The file is renamed into place, so two processes that start at once are safe. Where it cannot be written
    (a read-only data folder, a full disk), the array stays in this process's memory.
    """
    if not path.exists():
        array, draft = decode(), path.with_name(f".{path.name}.{os.getpid()}.draft")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            draft.replace(path)
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            return array
    # Copy-on-write mapping: torch wants a writable array; nobody writes, so the pages stay shared.
    return np.load(path, mmap_mode="c", allow_pickle=False)


# One copy per process, so that its runs (and forked workers) share it. By entry, not by its name: another
# version of a user's plugin may give the name to other data. The entry is kept, so that its id stays its own.
# The one that was not asked for longest goes: a worker that trains many studies keeps a few.
MOST_LOADED = 4
_loaded: dict[tuple[int, str], tuple[Entry, DataSet]] = {}


def load_cached(
    entry: Entry, args: Mapping[str, Any], counts: tuple[int | None, int | None], data_dir: Path
) -> DataSet:
    """See `harness.data.load`; `args` has every argument filled in, `counts` is (train, test)."""
    key = id(entry), json.dumps([dict(args), counts, str(data_dir)], sort_keys=True)
    found = _loaded.pop(key, None) or (entry, _load(entry, args, counts, data_dir))
    _loaded[key] = found
    for oldest in list(_loaded)[:-MOST_LOADED]:
        del _loaded[oldest]
    return found[1]


def _load(
    entry: Entry, args: Mapping[str, Any], counts: tuple[int | None, int | None], data_dir: Path
) -> DataSet:
    message = entry.missing(args, data_dir)
    if message is not None:
        raise FileNotFoundError(message)
    source = checked(entry.load(args, data_dir), entry)
    train = subset(source.train, counts[0], source.classes)
    test = subset(source.test, counts[1], source.classes)
    found = fingerprints(train, test)
    counts_in_words = f"{len(train.labels):,} + {len(test.labels):,} images"
    decided(f"data {entry.name} from {data_dir}: {counts_in_words}, fingerprint {found.both[:12]}")
    mean, std = source.normalised or (entry.mean, entry.std)
    return DataSet(
        name=entry.name,
        train=_split(train, found.files[0]),
        test=_split(test, found.files[1]),
        classes=source.classes,
        mean=mean,
        std=std,
        fingerprint=found.both,
        part_fingerprints=(found.train, found.test),
        left_out=source.left_out,
    )


def _require(files: Hashed, index: int, path: Path) -> None:
    """As `Hashed.require`; what has changed is not kept for the next run of this process."""
    try:
        files.require(index, path)
    except ValueError:
        _loaded.clear()
        raise


def _split(part: Part, files: Hashed | None) -> Split:
    images: Images
    if isinstance(part, Pixels):
        images = ArrayImages(part.images)
    elif isinstance(part, Packed):
        images = PackedImages(part)
    else:
        assert files is not None
        images = FileImages(part.paths, part.reading, files.sizes, partial(_require, files))
    return Split(images=images, labels=torch.from_numpy(np.array(part.labels, np.int64)))


# Every file of a part opened, or decoded, before a run needs it.


def open_all(files: Files) -> list[str]:
    """Read every header that was not read before; what is wrong, in sentences that name the file."""
    known, wrong = Contents(files.root), []
    left = known.not_opened(files)
    with ThreadPoolExecutor(count_threads(per_core=THREADS_PER_CORE)) as pool:
        for path, found in zip(left, pool.map(_header_or_problem, left), strict=True):
            if isinstance(found, str):
                wrong.append(found)
            else:
                known.was_opened(path, (found.height, found.width))
    if left:
        known.save()
    return wrong


def decode_all(files: Files, until: Callable[[], bool], threads: int | None = None) -> list[str]:
    """Decode every file that was not decoded before, until `until()`; what is wrong, in sentences."""
    known, wrong = Contents(files.root), []
    left = known.not_decoded(files)
    for start in range(0, len(left), SLICE // 10):
        if until():
            break
        some = left[start : start + SLICE // 10]
        problems = _decode_some(some, files.reading, threads)
        for path, problem in zip(some, problems, strict=True):
            if problem:
                wrong.append(problem)
            else:
                known.was_decoded(path, files.reading)
    known.save()
    return wrong


def _header_or_problem(path: Path) -> Header | str:
    try:
        return header(path)
    except ValueError as error:
        return str(error)


def _decode_some(paths: Sequence[Path], reading: Reading, threads: int | None) -> list[str]:
    if threads == 1:  # of the caller, with its priority
        return [_decode_problem(path, reading) for path in paths]
    with ThreadPoolExecutor(threads or count_threads(per_core=THREADS_PER_CORE)) as pool:
        return list(pool.map(lambda path: _decode_problem(path, reading), paths))


def _decode_problem(path: Path, reading: Reading) -> str:
    try:
        decode(path, reading)
    except ValueError as error:
        return str(error)
    return ""
