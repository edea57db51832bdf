"""From what a data set's loader found to a `DataSet`: subset, fingerprint, one copy per process."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import FileIO
from multiprocessing.util import Finalize
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
from harness.errors import SHARED_MEMORY, decided, share_of_memory

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


class _Buffers(threading.local):
    """One per thread: new memory costs more than the read."""

    whole = np.empty(0, np.uint8)

    def read(self, handle: int, place: int, length: int) -> np.ndarray | None:
        """Bytes of a file, (length,) uint8, until this thread reads the next; None: it is shorter."""
        if len(self.whole) < length:
            self.whole = np.empty(max(length, 2**20), np.uint8)
        found = self.whole[:length]
        return found if os.preadv(handle, [found.data], place) == length else None


class PackedImages(CutImages):
    """`Images` in a few large files. Each is opened once; an image is a read at its place, whose pages all
    processes share. (A mapped file that is cut short ends a process; a read says so.)"""

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self._packed = packed
        self._sizes = torch.from_numpy(packed.rows[:, 3:5].copy())
        self._files: dict[int, BinaryIO] = {}
        self._loaded = [_version(os.stat(path)) for path in packed.shards]
        self._buffers = _Buffers()

    def pixels(self, index: int) -> np.ndarray:
        """See `CutImages.pixels`."""
        if self._packed.raw:
            height = int(self._sizes[index, 0])
            return self.rows(index, 0, height).copy()
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

    def rows(self, index: int, top: int, height: int) -> np.ndarray:
        """See `CutImages.rows`."""
        if not self._packed.raw:
            return super().rows(index, top, height)
        width = int(self._packed.rows[index, 4])
        return self._stored(index, top * width * 3, height * width * 3).reshape(height, width, 3)

    def _stored(self, index: int, start: int, length: int) -> np.ndarray:
        """Bytes of an image, (length,) uint8, until this thread reads the next."""
        shard, first = self._packed.rows[index, :2].tolist()
        file = self._files.get(shard) or self._opened(shard)
        found = self._buffers.read(file.fileno(), first + start, length)
        if found is None:
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


# Decoded images of a small set in shared memory: each is decoded once by all processes of a machine.
#
# A file of Linux's file system in memory holds a mark for each image, then rows of R, G, B of all. Whoever
# decodes an image writes it; of two that do at once, both write the same bytes, and the mark comes last. The
# file is read and written, not mapped: where there is no memory left a write says so, and a process goes on
# with the image files. Whoever uses it has a lock on it, which ends with his process; what nobody has locked
# is removed by the last to leave, or after a kill by the next to come.


IN_MEMORY = Path("/dev/shm")  # noqa: S108  a folder of its own in it, for this user alone
CGROUPS = Path("/sys/fs/cgroup")


class SharedPixels:
    """The decoded images of one part.

    sizes: (N, 2) integers, height and width; where one of them is not known (0), nothing is shared. reading:
    how they are decoded. digests: (N, 32) uint8, sha256 of each file.
    """

    def __init__(self, sizes: np.ndarray, reading: Reading | None, digests: np.ndarray) -> None:
        self._sizes, self._reading, self._digests = sizes.astype(np.int64), reading, digests
        self._lock, self._buffers = threading.Lock(), _Buffers()
        self._pid, self._full = 0, False
        self._file: FileIO | None = None
        self._starts = self._marks = np.zeros(0, np.int64)

    def rows(self, images: CutImages, index: int, top: int, height: int) -> np.ndarray:
        """See `CutImages.rows`, which is asked where the image was not decoded before."""
        with self._lock:
            if self._pid != os.getpid():  # also after a fork: the lock of the parent is not ours
                self._pid, self._full = os.getpid(), False
                self._file = self._opened()
        if self._file is None:
            return images.rows(index, top, height)
        handle, width = self._file.fileno(), int(self._sizes[index, 1])
        if self._marks[index] or os.pread(handle, 1, index) == b"\1":
            self._marks[index] = True
            place = int(self._starts[index]) + top * width * 3
            found = self._buffers.read(handle, place, height * width * 3)
            if found is not None:
                return found.reshape(height, width, 3)
            self._full = True  # somebody cut it short: what is written now would lie behind a hole
        whole = images.pixels(index)
        if not self._full and whole.shape[:2] == tuple(self._sizes[index]):
            self._put(handle, index, np.ascontiguousarray(whole))
        return whole[top : top + height]

    def _put(self, handle: int, index: int, whole: np.ndarray) -> None:
        try:
            if os.pwrite(handle, whole.data, int(self._starts[index])) != whole.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.pwrite(handle, b"\1", index)
        except OSError as error:
            self._full = True
            decided(f"what is decoded from now on is not shared: {error.strerror}")

    def _opened(self) -> FileIO | None:
        """None where nothing can be shared."""
        lengths, folder = self._sizes.prod(axis=1) * 3, IN_MEMORY / f"harness-{os.getuid()}"
        if not lengths.all() or not share_of_memory() or not _is_ours(folder):
            return None
        self._starts = len(lengths) + np.concatenate([[0], np.cumsum(lengths)])
        self._marks = np.zeros(len(lengths), bool)
        wanted, path = int(self._starts[-1]), folder / self._name()
        try:
            why_not = None if path.exists() else _why_no_room(folder, wanted)
            if why_not is None:
                file = _locked(path, wanted)
                Finalize(self, _leave, (file, path), exitpriority=0)
                decided(f"decoded images are shared in {path}, at most {wanted / 1e6:,.0f} MB")
                return file
        except OSError as error:
            why_not = str(error.strerror)
        decided(f"decoded images of {wanted / 1e6:,.0f} MB are not shared: {why_not}")
        return None

    def _name(self) -> str:
        """Another one for other pixels."""
        total = hashlib.sha256(f"{pixels.RULES} {self._reading} {len(self._sizes)} ".encode())
        total.update(self._sizes.tobytes())
        total.update(np.ascontiguousarray(self._digests).data)
        return total.hexdigest()[:32]


def _is_ours(folder: Path) -> bool:
    """Whether this user alone can write to the folder, which is made where it is not there."""
    with suppress(OSError):
        folder.mkdir(mode=0o700)
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def _why_no_room(folder: Path, wanted: int) -> str | None:
    """None where so many bytes are within the share of all sets. Removes what nobody uses."""
    others = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError), path.open("r+b", buffering=0) as file:
            if not _leave(file, path):
                others += path.stat().st_size
    share = share_of_memory()
    most = min(int(share * free_memory()) - others, shutil.disk_usage(folder).free)
    if wanted <= most:
        return None
    return f"{max(most, 0) / 1e6:,.0f} MB may be used ({SHARED_MEMORY}={share:g})"


def free_memory() -> int:
    """Bytes that this process may still use: what Linux calls available, cut by limits of cgroups (v2)."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    amounts = [int(found[1]) * 1024] if found else [0]
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    for own in (line.removeprefix("0::/") for line in groups if line.startswith("0::/")):
        for folder in (CGROUPS / own, *(CGROUPS / own).parents):
            with suppress(OSError, ValueError):  # "max", or no such group
                amounts.append(int((folder / "memory.max").read_text()))
    return min(amounts)


def _locked(path: Path, size: int) -> FileIO:
    while True:
        file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file.fileno()).st_nlink:  # else it was removed while we waited
            os.truncate(file.fileno(), size)
            return file
        file.close()


def _leave(file: FileIO, path: Path) -> bool:
    """Remove it where nobody else uses it. Not closed: when a process ends, its threads may still write."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    return False


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
        if not part.raw:
            images.shared = SharedPixels(part.rows[:, 3:5], part.reading, part.digests).rows
    else:
        assert files is not None
        images = FileImages(part.paths, part.reading, files.sizes, partial(_require, files))
        images.shared = SharedPixels(files.sizes, part.reading, files.digests).rows
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
