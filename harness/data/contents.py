"""What identifies data: the bytes of its images, in their order, with their labels (docs/data.md).

Files are hashed once. What is known of them is kept in the user's cache, one file per data folder. A hash
holds while the file has the size, inode and both times that it had: a program that writes, copies or unpacks
can put back the time of modification; the time of change (ctime) is the kernel's alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from harness.data.entry import Files, Pixels, Reading, cache_folder
from harness.data.pixels import RULES, decode, header

FORMAT = 2  # of the kept file; another one is made anew
DIGEST_BYTES = 32  # sha256
RACY_NS = 2_000_000_000  # a file that changed so shortly before it was hashed may change again unseen
THREADS = min(16, 2 * (os.cpu_count() or 1))
SLICE = 1000  # files that a thread looks at before it comes back
SAVE_EVERY_S = 60.0  # of a long first look

Told = Callable[[int, int], None]  # files that were hashed, of how many


class Fingerprints(NamedTuple):
    """sha256 of both parts of a data set as a run sees them, and of each."""

    both: str
    train: str
    test: str


class BadFile(ValueError):
    """A file that cannot be read; the message names it."""


class Contents:
    """What is known of the files of one data folder: hashes, and which were decoded without fault."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:32]
        folder = cache_folder()
        self._file = folder / "contents" / f"{name}.npz" if folder else None
        self._rows: dict[bytes, int] = {}
        self._stats = np.zeros((0, 4), np.int64)
        self._looked = np.zeros(0, np.int64)  # when a file was hashed, ns
        self._digests = np.zeros((0, DIGEST_BYTES), np.uint8)
        self._opened = np.zeros(0, np.uint32)  # `RULES` by which its header was read; 0: not yet
        self._decoded = np.zeros(0, np.uint32)  # `_mark` of the reading with which it was decoded; 0: not yet
        self._load()

    def unknown(self, paths: Sequence[Path]) -> list[Path]:
        """Those of `paths` whose content must be read to be known. Looks at every file, opens none.

        Raises:
            BadFile: one is not there.
        """
        return [path for path, row in zip(paths, self._current(paths), strict=True) if row < 0]

    def digests(self, paths: Sequence[Path], told: Told = lambda done, of: None) -> np.ndarray:
        """(N, 32) uint8, the sha256 of every file; those that are not known are read, by threads.

        Raises:
            BadFile: one cannot be read.
        """
        rows = self._current(paths)
        new = [place for place, row in enumerate(rows) if row < 0]
        out = np.zeros((len(paths), DIGEST_BYTES), np.uint8)
        known = rows >= 0
        out[known] = self._digests[rows[known]]
        saved = time.monotonic()
        for start in range(0, len(new), SLICE):
            places = new[start : start + SLICE]
            with ThreadPoolExecutor(THREADS) as pool:
                found = list(pool.map(_hash, (paths[place] for place in places)))
            out[places] = np.frombuffer(b"".join(digest for _, _, digest in found), np.uint8).reshape(-1, 32)
            self._add([os.fsencode(paths[place]) for place in places], found)
            told(start + len(places), len(new))
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        if new:
            self.save()
        return out

    def not_decoded(self, files: Files) -> list[Path]:
        """Those that were never decoded whole, as they are now and by these rules."""
        rows, mark = self._current(files.paths), _mark(files.reading)
        return [
            path for path, row in zip(files.paths, rows, strict=True) if row < 0 or self._decoded[row] != mark
        ]

    def not_opened(self, files: Files) -> list[Path]:
        """Those whose headers were never read, as they are now."""
        rows = self._current(files.paths)
        return [
            path for path, row in zip(files.paths, rows, strict=True) if row < 0 or self._opened[row] != RULES
        ]

    def was_opened(self, path: Path) -> None:
        """Remember that its header could be read; kept by `save`."""
        row = self._rows.get(os.fsencode(path), -1)
        if row >= 0:
            self._opened[row] = RULES

    def was_decoded(self, path: Path, reading: Reading) -> None:
        """Remember that it was decoded without fault; kept by `save`."""
        row = self._rows.get(os.fsencode(path), -1)
        if row >= 0:
            self._decoded[row] = _mark(reading)

    def save(self) -> None:
        """Keep what is known, whole or not at all. What another process added meanwhile is found again later;
        a cache that cannot be written costs time and nothing else."""
        if self._file is None:
            return
        names = np.frombuffer(b"\0".join(self._rows), np.uint8)
        draft = self._file.with_name(f".{self._file.name}.{os.uname().nodename}.{os.getpid()}.draft")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                np.savez(
                    file, format=np.array(FORMAT), names=names, stats=self._stats, looked=self._looked,
                    digests=self._digests, opened=self._opened, decoded=self._decoded,
                )  # fmt: skip
            draft.replace(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def _load(self) -> None:
        if self._file is None:
            return
        try:
            with np.load(self._file, allow_pickle=False) as kept:
                if int(kept["format"]) != FORMAT:
                    return
                names = kept["names"].tobytes().split(b"\0") if len(kept["names"]) else []
                arrays = [kept[name] for name in ("stats", "looked", "digests", "opened", "decoded")]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return  # not there, or damaged: everything is read again
        count = len(names)
        wanted = [(count, 4), (count,), (count, DIGEST_BYTES), (count,), (count,)]
        if [array.shape for array in arrays] != wanted:
            return
        self._rows = {name: row for row, name in enumerate(names)}
        self._stats, self._looked, self._digests, self._opened, self._decoded = arrays

    def _current(self, paths: Sequence[Path]) -> np.ndarray:
        """(N,) int64: the row of what is known of a file as it is now; -1: nothing is."""
        stats = np.array(list(_stats_of(paths)), np.int64).reshape(-1, 4)
        rows = np.array([self._rows.get(os.fsencode(path), -1) for path in paths], np.int64)
        if not len(self._rows):
            return rows
        same = (self._stats[rows] == stats).all(1)
        settled = self._looked[rows] - stats[:, 2] > RACY_NS
        return np.where((rows >= 0) & same & settled, rows, -1)

    def _add(self, names: Sequence[bytes], found: Sequence[tuple[tuple[int, ...], int, bytes]]) -> None:
        fresh = [name for name in names if name not in self._rows]
        if fresh:
            more = len(fresh)
            self._rows.update(zip(fresh, range(len(self._rows), len(self._rows) + more), strict=True))
            self._stats = np.concatenate([self._stats, np.zeros((more, 4), np.int64)])
            self._looked = np.concatenate([self._looked, np.zeros(more, np.int64)])
            self._digests = np.concatenate([self._digests, np.zeros((more, DIGEST_BYTES), np.uint8)])
            self._opened = np.concatenate([self._opened, np.zeros(more, np.uint32)])
            self._decoded = np.concatenate([self._decoded, np.zeros(more, np.uint32)])
        rows = [self._rows[name] for name in names]
        digests = np.frombuffer(b"".join(digest for _, _, digest in found), np.uint8).reshape(-1, 32)
        changed = (self._digests[rows] != digests).any(1)
        self._opened[rows] = np.where(changed, 0, self._opened[rows])
        self._decoded[rows] = np.where(changed, 0, self._decoded[rows])
        self._stats[rows] = [stat for stat, _, _ in found]
        self._looked[rows] = [looked for _, looked, _ in found]
        self._digests[rows] = digests


def fingerprint(part: Pixels | Files, told: Told = lambda done, of: None) -> str:
    """sha256 over the labels and, of arrays, shape and bytes; of files, the sha256 of each in their order.

    Names, times and sizes are not in it: the same images in another folder are the same data.

    Raises:
        BadFile: a file cannot be read.
    """
    total = hashlib.sha256()
    _feed([total], part, told)
    return total.hexdigest()


def fingerprints(
    train: Pixels | Files, test: Pixels | Files, told: Told = lambda done, of: None
) -> Fingerprints:
    """Of both parts, one after the other, and of each. Raises as `fingerprint`."""
    both, second = hashlib.sha256(), hashlib.sha256()
    _feed([both], train, told)
    first = both.hexdigest()
    _feed([both, second], test, told)
    return Fingerprints(both.hexdigest(), first, second.hexdigest())


def _feed(totals: Sequence[hashlib._Hash], part: Pixels | Files, told: Told) -> None:
    files = part.origin if isinstance(part, Pixels) else part
    blocks: list[bytes | memoryview]
    if files is not None:
        blocks = [b"files\n", Contents(files.root).digests(files.paths, told).tobytes()]
    else:
        assert isinstance(part, Pixels)
        blocks = [f"{part.images.shape}\n".encode(), np.ascontiguousarray(part.images).data]
    for total in totals:
        total.update(np.ascontiguousarray(part.labels, "<i8").tobytes())
        for block in blocks:
            total.update(block)


def decoding_key(files: Files) -> str:
    """sha256 over the bytes of the files in their order and the rules by which they are decoded."""
    return hashlib.sha256(f"{_mark(files.reading)} {fingerprint(files)}".encode()).hexdigest()


def by_names_and_sizes(train: Pixels | Files, test: Pixels | Files) -> str:
    """What records held before contents were recorded: of files, sorted names and sizes in bytes."""
    total = hashlib.sha256()
    for part in (train, test):
        total.update(np.ascontiguousarray(part.labels, "<i8").tobytes())
        if isinstance(part, Pixels):
            total.update(f"{part.images.shape}\n".encode())
            total.update(np.ascontiguousarray(part.images).data)
        else:
            for path in sorted(part.paths):
                total.update(f"{path.relative_to(part.root).as_posix()} {path.stat().st_size}\n".encode())
    return total.hexdigest()


def open_all(files: Files) -> list[str]:
    """Read every header that was not read before; what is wrong, in sentences that name the file."""
    contents, wrong = Contents(files.root), []
    left = contents.not_opened(files)
    with ThreadPoolExecutor(THREADS) as pool:
        for path, problem in zip(left, pool.map(_header_problem, left), strict=True):
            if problem:
                wrong.append(problem)
            else:
                contents.was_opened(path)
    if left:
        contents.save()
    return wrong


def decode_all(files: Files, until: Callable[[], bool], threads: int = THREADS) -> list[str]:
    """Decode every file that was not decoded before, until `until()`; what is wrong, in sentences."""
    contents, wrong = Contents(files.root), []
    left = contents.not_decoded(files)
    for start in range(0, len(left), SLICE // 10):
        if until():
            break
        some = left[start : start + SLICE // 10]
        problems = _decode_some(some, files.reading, threads)
        for path, problem in zip(some, problems, strict=True):
            if problem:
                wrong.append(problem)
            else:
                contents.was_decoded(path, files.reading)
    contents.save()
    return wrong


def _header_problem(path: Path) -> str:
    try:
        header(path)
    except ValueError as error:
        return str(error)
    return ""


def _decode_some(paths: Sequence[Path], reading: Reading, threads: int) -> list[str]:
    if threads == 1:  # of the caller, with its priority
        return [_decode_problem(path, reading) for path in paths]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda path: _decode_problem(path, reading), paths))


def _decode_problem(path: Path, reading: Reading) -> str:
    try:
        decode(path, reading)
    except ValueError as error:
        return str(error)
    return ""


def _mark(reading: Reading) -> int:
    """Which rules a file was decoded by; never 0."""
    text = f"{RULES} {reading.range} {reading.background}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") | 1


def _stats_of(paths: Sequence[Path]) -> Iterator[tuple[int, ...]]:
    """Size, modification and change in ns, inode, of every file; by threads, as a network folder needs."""
    slices = [paths[start : start + SLICE] for start in range(0, len(paths), SLICE)]
    if len(slices) < 2:
        for some in slices:
            yield from _stat_some(some)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        for stats in pool.map(_stat_some, slices):
            yield from stats


def _stat_some(paths: Sequence[Path]) -> list[tuple[int, ...]]:
    try:
        return [_stat(os.stat(path)) for path in paths]
    except OSError as error:
        raise BadFile(f"cannot read the image file {error.filename}: {error.strerror}") from None


def _stat(stat: os.stat_result) -> tuple[int, ...]:
    inode = stat.st_ino - (1 << 64) if stat.st_ino >= 1 << 63 else stat.st_ino
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, inode


def _hash(path: Path) -> tuple[tuple[int, ...], int, bytes]:
    """Its stat, when it was looked at, and the sha256 of its bytes; again where it changed meanwhile."""
    try:
        while True:
            looked = time.time_ns()
            with open(path, "rb", buffering=0) as file:
                before = _stat(os.fstat(file.fileno()))
                digest = hashlib.file_digest(file, "sha256").digest()
                if _stat(os.fstat(file.fileno())) == before:
                    return before, looked, digest
    except OSError as error:
        raise BadFile(f"cannot read the image file {path}: {error.strerror}") from None
