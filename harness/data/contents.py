"""What identifies data: the bytes of its images with their labels; a look at a folder before it is used."""

from __future__ import annotations

import contextlib
import hashlib
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from harness.data.entry import PLAIN, Files, Look, Packed, Part, PathList, Pixels, Reading, cache_folder
from harness.data.folders import (
    FolderPart,
    Found,
    broken_in,
    class_problem,
    composed,
    evaluation_folder,
    missing_folder,
    part_of,
    subfolders,
    training_folder,
)
from harness.data.pixels import RULES, count_frames, count_threads, decode, header, range_of
from harness.errors import decided

# What identifies data: the bytes of its images, in their order, with their labels (docs/data.md).
#
# Files are hashed once. What is known of them is kept in the user's cache, one file per data folder. A hash
# holds while the file has the size, inode and both times that it had: a program that writes, copies or
# unpacks can put back the time of modification; the time of change (ctime) is the kernel's alone.


FORMAT = 3  # of the kept file; another one is made anew
DIGEST_BYTES = 32  # sha256
RACY_NS = 2_000_000_000  # a file that changed so shortly before it was hashed may change again unseen
THREADS_PER_CORE = 2
SLICE = 1000  # files that a thread looks at before it comes back
SAVE_EVERY_S = 60.0  # of a long first look
LOOKED_AT = 10_000  # files of a larger set that are looked at before a run; every one when it is read

_ARRAYS = ("stats", "looked", "digests", "opened", "sizes", "decoded")
Told = Callable[[int, int], None]  # files that were hashed, of how many


class Fingerprints(NamedTuple):
    """sha256 of both parts of a data set as a run sees them, and of each."""

    both: str
    train: str
    test: str
    files: tuple[Hashed | None, Hashed | None] = (None, None)  # of parts in files


@dataclass(frozen=True, slots=True)
class Hashed:
    """The files of a part as they were hashed, in their order."""

    root: Path
    stats: np.ndarray  # (N, 4) int64
    digests: np.ndarray  # (N, 32) uint8
    sizes: np.ndarray  # (N, 2) int32: height and width of each as shown; zeros where they are not known

    def require(self, index: int, path: Path) -> None:
        """Of a file that was just read: its bytes are those that were hashed.

        Raises:
            BadFile: they are others; the next look at the folder hashes it again.
        """
        now = _stat_some([path])[0]
        if now != tuple(self.stats[index].tolist()):
            now, _, digest = _hash(path)
            if digest != self.digests[index].tobytes():
                Contents(self.root).forget(path)
                raise BadFile(
                    f"the image file {path} changed since it was hashed; run again, with what it is now"
                )
            self.stats[index] = now


class BadFile(ValueError):
    """A file that cannot be read; the message names it."""


class Contents:
    """What is known of the files of one data folder: hashes, and which were decoded without fault."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:32]
        folder = cache_folder()
        self._file = folder / "contents" / f"{name}.npz" if folder else None
        self._names: bytes | None = b""  # of the files, a NUL between two; None: to be joined again
        self._places: dict[bytes, int] | None = {}  # their rows; None: to be made when it is needed
        self._stats = np.zeros((0, 4), np.int64)
        self._looked = np.zeros(0, np.int64)  # when a file was hashed, ns
        self._digests = np.zeros((0, DIGEST_BYTES), np.uint8)
        self._opened = np.zeros(0, np.uint32)  # `RULES` by which its header was read; 0: not yet
        self._sizes = np.zeros((0, 2), np.int32)  # height and width as its header says them
        self._decoded = np.zeros(0, np.uint32)  # `_mark` of the reading with which it was decoded; 0: not yet
        self._load()
        decided(f"hashes of {self.root}: {len(self._looked):,} known, kept in {self._file}")

    def digests(self, paths: Sequence[Path], told: Told = lambda done, of: None) -> np.ndarray:
        """(N, 32) uint8, the sha256 of every file. As `hashed`."""
        return self.hashed(paths, told).digests

    def hashed(self, paths: Sequence[Path], told: Told = lambda done, of: None) -> Hashed:
        """What is known of these files; those that are not known are read, by threads.

        Raises:
            BadFile: one cannot be read.
        """
        rows = self._current(paths)
        new = np.flatnonzero(rows < 0).tolist()
        saved = time.monotonic()
        for start in range(0, len(new), SLICE):
            some = [paths[place] for place in new[start : start + SLICE]]
            with ThreadPoolExecutor(count_threads(per_core=THREADS_PER_CORE)) as pool:
                self._add(list(map(os.fsencode, some)), list(pool.map(_hash, some)))
            told(start + len(some), len(new))
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        if new:
            self.save()
            rows = self._rows(paths)
        # Those of a part mostly lie one after the other: then nothing is copied.
        in_one = len(rows) > 0 and bool((np.diff(rows) == 1).all())
        of_these: Any = slice(rows[0], rows[0] + len(rows)) if in_one else rows
        sizes = np.where((self._opened[of_these] == RULES)[:, None], self._sizes[of_these], 0)
        return Hashed(self.root, self._stats[of_these], self._digests[of_these], sizes)

    def unknown(self, paths: Sequence[Path]) -> list[Path]:
        """Those of `paths` whose content must be read to be known. Opens none."""
        return [paths[place] for place in np.flatnonzero(self._current(paths) < 0).tolist()]

    def not_decoded(self, files: Files) -> list[Path]:
        """Those that were never decoded whole, as they are now and by these rules."""
        return self._unless(self._decoded, _mark(files.reading), files.paths)

    def not_opened(self, files: Files) -> list[Path]:
        """Those whose headers were never read, as they are now."""
        return self._unless(self._opened, RULES, files.paths)

    def _unless(self, marks: np.ndarray, mark: int, paths: Sequence[Path]) -> list[Path]:
        rows = self._current(paths)
        done = (rows >= 0) & (marks[rows] == mark) if len(marks) else rows >= 0
        return [paths[place] for place in np.flatnonzero(~done).tolist()]

    def forget(self, path: Path) -> None:
        """Hash it again the next time."""
        row = self._row(path)
        if row >= 0:
            self._looked[row] = 0
            self.save()

    def was_opened(self, path: Path, size: tuple[int, int]) -> None:
        """Remember the height and width that its header says; kept by `save`."""
        row = self._row(path)
        if row >= 0:
            self._opened[row], self._sizes[row] = RULES, size

    def was_decoded(self, path: Path, reading: Reading) -> None:
        """Remember that it was decoded without fault; kept by `save`."""
        row = self._row(path)
        if row >= 0:
            self._decoded[row] = _mark(reading)

    def save(self) -> None:
        """Keep what is known, whole or not at all. Where it cannot be kept, that costs time only."""
        if self._file is None:
            return
        names = np.frombuffer(self._joined(), np.uint8)
        draft = self._file.with_name(f".{self._file.name}.{os.uname().nodename}.{os.getpid()}.draft")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                np.savez(
                    file, format=np.array(FORMAT), names=names, stats=self._stats, looked=self._looked,
                    digests=self._digests, opened=self._opened, sizes=self._sizes, decoded=self._decoded,
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
                names = kept["names"].tobytes()
                arrays = [kept[name] for name in _ARRAYS]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return  # not there, or damaged: everything is read again
        count = names.count(b"\0") + 1 if names else 0
        wanted = [(count, 4), (count,), (count, DIGEST_BYTES), (count,), (count, 2), (count,)]
        if [array.shape for array in arrays] != wanted:
            return
        self._names, self._places = names, None
        self._stats, self._looked, self._digests, self._opened, self._sizes, self._decoded = arrays

    def _joined(self) -> bytes:
        if self._names is None:
            self._names = b"\0".join(self._by_name())
        return self._names

    def _by_name(self) -> dict[bytes, int]:
        if self._places is None:
            names = self._joined().split(b"\0") if self._names else []
            self._places = {name: row for row, name in enumerate(names)}
        return self._places

    def _row(self, path: Path) -> int:
        return self._by_name().get(os.fsencode(path), -1)

    def _rows(self, paths: Sequence[Path]) -> np.ndarray:
        """(N,) int64: the row of what is known of a file; -1: nothing is."""
        # In the order in which they were kept they are found as one text: a table of a million is slow.
        asked = b"\0".join(_names_of(paths))
        known = self._joined()
        start = known.find(asked)
        end = start + len(asked)
        if start >= 0 and known[start - 1 : start] in (b"", b"\0") and known[end : end + 1] in (b"", b"\0"):
            first = known.count(b"\0", 0, start)
            return np.arange(first, first + len(paths)) if asked else np.zeros(0, np.int64)
        rows = self._by_name()
        return np.array([rows.get(name, -1) for name in asked.split(b"\0")], np.int64)

    def _current(self, paths: Sequence[Path]) -> np.ndarray:
        """As `_rows`; -1 too where a file is not as it was. Of more than `LOOKED_AT` so many are looked at,
        all where one of them changed. `Hashed.require` sees the others when they are read."""
        rows = self._rows(paths)
        if not len(self._looked):
            return rows
        settled = (rows >= 0) & (self._looked[rows] - self._stats[rows, 2] > RACY_NS)
        if len(rows) > LOOKED_AT and settled.all():
            some = np.sort(np.random.default_rng().choice(len(rows), LOOKED_AT, replace=False))
            names = paths.names if isinstance(paths, PathList) else paths
            if self._are_same([names[place] for place in some.tolist()], rows[some]).all():
                return rows
        return np.where(settled & self._are_same(paths, rows), rows, -1)

    def _are_same(self, paths: Sequence[Path | str], rows: np.ndarray) -> np.ndarray:
        stats = np.array(list(stats_of(paths)), np.int64).reshape(-1, 4)
        same: np.ndarray = (self._stats[rows] == stats).all(1)
        return same

    def _add(self, names: Sequence[bytes], found: Sequence[tuple[tuple[int, ...], int, bytes]]) -> None:
        places = self._by_name()
        fresh = [name for name in names if name not in places]
        if fresh:
            more = len(fresh)
            places.update(zip(fresh, range(len(places), len(places) + more), strict=True))
            self._names = None
            self._stats = np.concatenate([self._stats, np.zeros((more, 4), np.int64)])
            self._looked = np.concatenate([self._looked, np.zeros(more, np.int64)])
            self._digests = np.concatenate([self._digests, np.zeros((more, DIGEST_BYTES), np.uint8)])
            self._opened = np.concatenate([self._opened, np.zeros(more, np.uint32)])
            self._sizes = np.concatenate([self._sizes, np.zeros((more, 2), np.int32)])
            self._decoded = np.concatenate([self._decoded, np.zeros(more, np.uint32)])
        rows = [places[name] for name in names]
        digests = np.frombuffer(b"".join(digest for _, _, digest in found), np.uint8).reshape(-1, 32)
        changed = (self._digests[rows] != digests).any(1)
        self._opened[rows] = np.where(changed, 0, self._opened[rows])
        self._decoded[rows] = np.where(changed, 0, self._decoded[rows])
        self._stats[rows] = [stat for stat, _, _ in found]
        self._looked[rows] = [looked for _, looked, _ in found]
        self._digests[rows] = digests


def fingerprint(part: Part, told: Told = lambda done, of: None) -> str:
    """sha256 over the labels and, of arrays, shape and bytes; of files, the sha256 of each in their order.

    Names, times and sizes are not in it: the same images in another folder are the same data.

    Raises:
        BadFile: a file cannot be read.
    """
    total = hashlib.sha256()
    _feed([total], part, told, {})
    return total.hexdigest()


def fingerprints(train: Part, test: Part, told: Told = lambda done, of: None) -> Fingerprints:
    """Of both parts, one after the other, and of each. Raises as `fingerprint`."""
    both, second = hashlib.sha256(), hashlib.sha256()
    known: dict[Path, Contents] = {}
    train_files = _feed([both], train, told, known)
    first = both.hexdigest()
    test_files = _feed([both, second], test, told, known)
    return Fingerprints(both.hexdigest(), first, second.hexdigest(), (train_files, test_files))


def _feed(
    totals: Sequence[hashlib._Hash], part: Part, told: Told, known: dict[Path, Contents]
) -> Hashed | None:
    """Of files, what is known of them; `known`: what was read for another part of the same folder."""
    files = part.origin if isinstance(part, Pixels) else part if isinstance(part, Files) else None
    blocks: list[bytes | memoryview]
    hashed = None
    if files is not None:
        if files.root not in known:
            known[files.root] = Contents(files.root)
        hashed = known[files.root].hashed(files.paths, told)
        blocks = [b"files\n", np.ascontiguousarray(hashed.digests).data]
    elif isinstance(part, Packed):
        kind = b"files\n" if part.reading else b"packed raw\n" if part.raw else b"packed jpeg\n"
        blocks = [kind, np.ascontiguousarray(part.digests).data]
        blocks += [np.ascontiguousarray(part.rows[:, 3:], "<i8").tobytes()] if part.raw else []
    else:
        assert isinstance(part, Pixels)
        blocks = [f"{part.images.shape}\n".encode(), np.ascontiguousarray(part.images).data]
    for total in totals:
        total.update(np.ascontiguousarray(part.labels, "<i8").tobytes())
        for block in blocks:
            total.update(block)
    return hashed


def decoding_key(files: Files) -> str:
    """sha256 over the bytes of the files in their order and the rules by which they are decoded."""
    return hashlib.sha256(f"{_mark(files.reading)} {fingerprint(files)}".encode()).hexdigest()


def _mark(reading: Reading) -> int:
    """Which rules a file was decoded by; never 0."""
    text = f"{RULES} {reading.range} {reading.background}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") | 1


def stats_of(paths: Sequence[Path | str]) -> Iterator[tuple[int, ...]]:
    """Size, modification and change in ns, inode, of every file; by threads, as a network folder needs."""
    names: Sequence[Path | str] = paths.names if isinstance(paths, PathList) else paths
    slices = [names[start : start + SLICE] for start in range(0, len(names), SLICE)]
    if len(slices) < 2:
        for some in slices:
            yield from _stat_some(some)
        return
    with ThreadPoolExecutor(count_threads(per_core=THREADS_PER_CORE)) as pool:
        for stats in pool.map(_stat_some, slices):
            yield from stats


def _names_of(paths: Sequence[Path]) -> Iterator[bytes]:
    """That of a `PathList` in one piece, which is the same joined."""
    return map(os.fsencode, ["\0".join(paths.names)] if isinstance(paths, PathList) else paths)


def _stat_some(paths: Sequence[Path | str]) -> list[tuple[int, ...]]:
    try:
        return [_stat(os.stat(path)) for path in paths]
    except OSError as error:
        raise BadFile(f"cannot read the image file {error.filename}: {error.strerror}") from None


def _stat(stat: os.stat_result) -> tuple[int, ...]:
    inode = stat.st_ino - (1 << 64) if stat.st_ino >= 1 << 63 else stat.st_ino
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, inode


def _hash(path: Path) -> tuple[tuple[int, ...], int, bytes]:
    """Its stat, when it was looked at, and the sha256 of its bytes; again where it changed meanwhile."""
    return _settled(path, lambda file: hashlib.file_digest(file, "sha256").digest())


def read_settled(path: Path) -> tuple[bytes, tuple[int, ...]]:
    """The bytes of a file, and its stat; read again where it changed meanwhile. Raises as `_hash`."""
    stat, _, content = _settled(path, lambda file: file.read())
    return content, stat


def _settled(path: Path, read: Callable[[Any], bytes]) -> tuple[tuple[int, ...], int, bytes]:
    try:
        while True:
            looked = time.time_ns()
            with open(path, "rb", buffering=0) as file:
                before = _stat(os.fstat(file.fileno()))
                found = read(file)
                if _stat(os.fstat(file.fileno())) == before:
                    return before, looked, found
    except OSError as error:
        raise BadFile(f"cannot read the image file {path}: {error.strerror}") from None


# A look at a folder of images before a study uses it: what is there, cannot be read, or is left out.


SCHEMA = 1
HEADERS_LOOKED_AT = 64  # of a plan; spread evenly
DEEP_LOOKED_AT = 16  # of those, files whose numbers are read
DECODED = 2_000  # files of a part, unless all are asked for
EXAMPLES = 20
HALF = 32_768  # 16-bit numbers that span less than this do not fill their range


class Seen(NamedTuple):
    """What one file says of itself; `wrong`: why it cannot be read."""

    size: tuple[int, int] = (0, 0)  # width, height as shown
    mode: str = ""
    format: str = ""
    turned: bool = False
    frames: int = 1
    wrong: str = ""


def examine(root: Path, reading: Reading = PLAIN, *, decode_all: bool = False) -> dict[str, Any]:
    """What `harness data FOLDER --json` prints (docs/json.md).

    Every file's header is read; of each part `DECODED` files are decoded, or all of them.

    Raises:
        ValueError: there is no such folder.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder")
    is_split = not evaluation_folder(root).is_dir() and len(subfolders(training_folder(root))) > 1
    problem = class_problem(root, split=True) if is_split else None
    problem = problem or (None if is_split else missing_folder(root, root.name) or class_problem(root))
    problems = [problem] if problem else []
    notes = [missing_folder(root, root.name) or ""] if is_split else []
    parts = _parts(root)
    described = {}
    for part in parts:
        described[part.folder.name], wrong = _describe(part, reading, decode_all)
        problems += wrong
    images = [Path(path) for part in parts for path in part.everything().images]
    deep = depth_findings(images, reading)
    problems += [each for each in deep.problems if each not in problems]
    twins = _same_content(parts)
    if twins:
        notes.append(f"{len(twins)} files have the bytes of a file in another part, for example {twins[0]}")
    return {
        "schema": SCHEMA,
        "folder": str(root),
        "problems": problems,
        "notes": [*notes, *deep.notes],
        "parts": described,
        "in_both_parts": twins[:EXAMPLES],
    }


def depth_findings(paths: Sequence[Path | bytes], reading: Reading = PLAIN) -> Look:
    """Of some of the files: numbers that need a range and have none, and 16-bit numbers that do not fill
    theirs (12-bit scans in 16-bit files). Files that cannot be read are passed over."""
    deep = []
    looked_at = _spread(paths, HEADERS_LOOKED_AT)
    for path in looked_at:
        try:
            if header(path).deep:
                deep.append(path)
        except ValueError:
            continue
    ranges = []
    for path in _spread(deep, DEEP_LOOKED_AT):
        try:
            decode(path, reading)
            ranges.append(range_of(path))
        except ValueError as error:
            return Look(problems=(str(error),))
    if not ranges:
        unused = reading.range is not None and bool(looked_at)
        says = f"range is of no effect: no file of {len(looked_at)} looked at has more than 8 bits a pixel"
        return Look(notes=(says,) if unused else ())
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if reading.range is not None or high - low >= HALF:
        return Look()
    bits = max(9, int(high).bit_length())
    return Look(
        notes=(
            f"16-bit files such as {deep[0]!s}: the numbers in {len(ranges)} of them lie in "
            f"{low:g}..{high:g}, so that the images have at most {round((high - low) / 257) + 1} of 256 grey "
            "levels; "
            f"`range: [0, {2**bits - 1}]` of the data set uses them all",
        )
    )


def _parts(root: Path) -> list[FolderPart]:
    folders = [folder for folder in (root / "train", evaluation_folder(root)) if folder.is_dir()] or [root]
    # Each part by itself, under the names of the training part where they are the same name.
    parts = []
    known = {composed(name): name for name in subfolders(folders[0])}
    for folder in folders:
        own = [known.get(composed(name), name) for name in subfolders(folder)]
        parts.append(part_of(folder, own))
    return parts


def _describe(part: FolderPart, reading: Reading, decode_all: bool) -> tuple[dict[str, Any], list[str]]:
    """The part's entry of the output, and what would make a run fail."""
    counts = {name: len(found.images) for name, found in part.classes.items()}
    total = part.everything()
    paths = [Path(path) for path in total.images]
    return described(str(part.folder), paths, (counts, total), reading, decode_all=decode_all)


def described(
    title: str,
    images: Sequence[Path | bytes],
    found: tuple[Mapping[str, int], Found],
    reading: Reading,
    *,
    decode_all: bool,
) -> tuple[dict[str, Any], list[str]]:
    """The same of images from anywhere. `found`: how many images each class has, and what is not read."""
    counts, total = found
    decoded = set(range(len(images)) if decode_all else _spread(range(len(images)), DECODED))
    with ThreadPoolExecutor(count_threads()) as pool:
        seen = list(pool.map(lambda i: _look(images[i], reading, i in decoded), range(len(images))))
    good = [each for each in seen if not each.wrong]
    wrong = [each.wrong for each in seen if each.wrong]
    unreadable = wrong + [f"{path}: {why}" for path, why in total.broken]
    problems = [f"class '{name}' has no image files in {title}" for name, n in counts.items() if not n]
    problems += [broken_in(title, total)] if total.broken else []
    problems += [f"{wrong[0]} ({len(wrong)} of {len(images)} files in {title})"] if wrong else []
    return {
        "images": len(images),
        "decoded": len(decoded),
        "classes": dict(counts),
        "images_per_class": _spread_of(counts.values()),
        "width": _spread_of(each.size[0] for each in good),
        "height": _spread_of(each.size[1] for each in good),
        "modes": _counted(each.mode for each in good),
        "formats": _counted(each.format for each in good),
        "turned_by_exif": sum(each.turned for each in good),
        "several_frames": sum(each.frames > 1 for each in good),
        "unreadable": {"files": len(unreadable), "examples": unreadable[:EXAMPLES]},
        "left_out": {
            reason: {"files": len(paths), "example": paths[0]}
            for reason, paths in sorted(total.left_out.items())
        },
    }, problems


def _look(path: Path | bytes, reading: Reading, whole: bool) -> Seen:
    try:
        found = header(path)
        frames = count_frames(path)
        if whole:
            decode(path, reading)
    except ValueError as error:
        return Seen(wrong=str(error))
    return Seen((found.width, found.height), found.mode, found.format, found.orientation != 1, frames)


def _same_content(parts: Sequence[FolderPart]) -> list[str]:
    """Files of a later part whose bytes a file of the first one has. Only files of one size are read."""
    if len(parts) < 2:
        return []
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in parts[0].everything().images:
        by_size[os.path.getsize(path)].append(path)
    known: dict[int, set[str]] = {}
    twins = []
    for path in (path for part in parts[1:] for path in part.everything().images):
        size = os.path.getsize(path)
        if size in by_size:
            if size not in known:
                known[size] = {_digest(each) for each in by_size[size]}
            if _digest(path) in known[size]:
                twins.append(path)
    return twins


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spread(things: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of them, at even distances."""
    if len(things) <= most:
        return list(things)
    return [things[index * len(things) // most] for index in range(most)]


def _spread_of(values: Iterable[int]) -> dict[str, float] | None:
    """Least, median and most; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return {"least": ordered[0], "median": statistics.median(ordered), "most": ordered[-1]}


def _counted(texts: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0])))
