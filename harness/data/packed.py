"""Packed data: the images of a set, smaller where that is wanted, in a few large files that processes map.

    <data folder>/<folder>/index.json        what was packed, how, and the sha256 of each file; written last
    <data folder>/<folder>/train-00000.bin   images, one after the other: JPEG files, or rows of R, G, B
    <data folder>/<folder>/train-00000.npz   of each: place, size, label, sha256 as it is stored and as it was

A pair of files holds `SHARD` images and is written whole or not at all, so that packing goes on where it was
stopped. What resizing and JPEG changed is part of the data: a packed set has a fingerprint of its own.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data import entry
from harness.data.entry import Entry, Files, Look, Packed, Reading, Source, named_in

if TYPE_CHECKING:
    import numpy as np

    from harness.data.contents import Contents

FORMAT = 1
INDEX, LOCK = "index.json", ".lock"
SHARD = 8192  # images of one file
AT_ONCE = 128  # images in memory while a file is written
PARTS = ("train", "test")
LISTED = ("places", "sizes", "labels", "stored", "stats", "resized", "settings", "sha256")  # what is read
SMALLEST_SIDE, LARGEST_SIDE = 8, 4096
NO_FLOCK = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})  # of file systems that have no flock

Told = Callable[[str, int, int], None]  # part, images that are packed, of how many


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSettings:
    """What is packed and how. `of`: the data as a person calls them."""

    of: str
    side: int | None = None  # of the shorter side in pixels, at most; None: as the files are
    jpeg: int | None = None  # quality; None: raw pixels

    def __post_init__(self) -> None:
        if self.side is not None and not SMALLEST_SIDE <= self.side <= LARGEST_SIDE:
            raise ValueError(f"--side must be in {SMALLEST_SIDE}..{LARGEST_SIDE} pixels, not {self.side}")
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise ValueError(f"--jpeg must be a quality in 1..100, not {self.jpeg}")

    @property
    def form(self) -> str:
        return "raw" if self.jpeg is None else f"jpeg{self.jpeg}"

    @property
    def folder(self) -> str:
        """The name that a packed set gets where none is given.

        >>> PackSettings(of="imagefolder pets", side=256, jpeg=95).folder
        'pets-256-jpeg95'
        """
        side = "native" if self.side is None else str(self.side)
        return f"{self.of.split()[-1].replace('/', '-')}-{side}-{self.form}"


@dataclass(frozen=True, slots=True)
class Pack:
    """One work of packing: from where, to where, how."""

    source: Source
    folder: Path
    settings: PackSettings
    told: Told = lambda part, done, of: None

    def run(self) -> dict[str, Any]:
        """Pack what is not packed yet, and write the index; returns the index.

        Raises:
            ValueError: the set is not one of image files, the folder holds something else, another process
                packs into it, or an image cannot be read.
            OSError: it cannot be written to; what is whole stays, and the same call goes on.
        """
        for part in (self.source.train, self.source.test):
            if not isinstance(part, Files):
                raise ValueError(f"{self.settings.of} is no set of image files; there is nothing to pack")
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder):
            self._refuse_another()
            shards = {part: list(self._shards(part)) for part in PARTS}
            return self._write_index(shards)

    def _refuse_another(self) -> None:
        there = self.folder / INDEX
        try:
            found = read_index(self.folder)["settings"]
        except (OSError, ValueError):  # not there, or damaged: it is made again
            found = self._settings()
        for draft in self.folder.glob(".*.draft"):  # of a packer that was killed
            draft.unlink()
        own = (*self.folder.glob("*.bin"), *self.folder.glob("*.npz"), there, self.folder / LOCK)
        strange = sorted(path.name for path in set(self.folder.iterdir()) - set(own))
        if found != self._settings():
            raise ValueError(
                f"{self.folder} holds {found['of']} packed in another way; pack elsewhere (--to)"
            )
        if strange and not there.exists():
            raise ValueError(f"{self.folder} holds something else, for example {strange[0]}; pack elsewhere")

    def _settings(self) -> dict[str, Any]:
        from harness.data.pixels import RULES

        train = self.source.train
        assert isinstance(train, Files)
        return {
            **asdict(self.settings),
            "rules": RULES,
            "reading": json.loads(json.dumps(asdict(train.reading))),
        }

    def _shards(self, part: str) -> Iterator[dict[str, Any]]:
        from harness.data.contents import Contents

        files = self.source.train if part == "train" else self.source.test
        assert isinstance(files, Files)
        known = Contents(self.folder)
        for number, start in enumerate(range(0, len(files.labels), SHARD)):
            shard = Shard(self.folder / f"{part}-{number:05}.bin", self._settings())
            piece = Files(
                root=files.root,
                paths=files.paths[start : start + SHARD],
                labels=files.labels[start : start + SHARD],
                reading=files.reading,
            )
            if not shard.holds(piece, known):
                (self.folder / INDEX).unlink(missing_ok=True)  # nobody reads a mixture
                shard.write(piece, partial(self._tell, part, start, len(files.labels)))
            yield {**shard.about(), "file": shard.path.name}
        for path in sorted(self.folder.glob(f"{part}-*")):  # of a set that had more images
            if int(path.stem.rpartition("-")[2]) * SHARD >= len(files.labels):
                path.unlink()

    def _tell(self, part: str, start: int, of: int, done: int) -> None:
        self.told(part, start + done, of)

    def _write_index(self, shards: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
        changed = sum(each["resized"] for part in shards.values() for each in part)
        index = {
            "format": FORMAT,
            "settings": self._settings(),
            "classes": self.source.classes,
            "normalised": self.source.normalised,
            "images": {part: sum(each["images"] for each in found) for part, found in shards.items()},
            "resized": changed,
            "left_out": list(self.source.left_out),
            "shards": shards,
        }
        draft = self.folder / f".{INDEX}.draft"
        draft.write_text(json.dumps(index, indent=1) + "\n")
        draft.replace(self.folder / INDEX)
        return index


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """
    Raises:
        ValueError: another process packs into the folder.
    """
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process packs into {folder}; wait until it is done, or stop it"
            ) from None
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
        yield


@dataclass(frozen=True, slots=True)
class Shard:
    """One large file and its list."""

    path: Path
    settings: Mapping[str, Any]

    @property
    def list_path(self) -> Path:
        return self.path.with_suffix(".npz")

    def holds(self, piece: Files, known: Contents) -> bool:
        """Whether it is whole and was made, in this way, of these files as they are now."""
        import numpy as np

        from harness.data.contents import BadFile, stats_of

        try:
            found = self.lists()
            whole = known.digests([self.path]).tobytes().hex() == str(found["sha256"])
        except (OSError, ValueError, KeyError, EOFError, BadFile):
            return False
        if not whole or json.loads(str(found["settings"])) != self.settings:
            return False
        same = np.array_equal(found["labels"], piece.labels)
        return same and np.array_equal(found["stats"], np.array(list(stats_of(piece.paths)), np.int64))

    def lists(self) -> dict[str, Any]:
        """What its .npz file holds."""
        import zipfile

        import numpy as np

        try:
            with np.load(self.list_path, allow_pickle=False) as found:
                return {name: found[name] for name in LISTED}
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError):
            raise ValueError(f"{self.list_path} is damaged; the same `harness pack` mends it") from None

    def about(self) -> dict[str, Any]:
        """What the index says of it."""
        found = self.lists()
        return {
            "images": len(found["labels"]),
            "bytes": int(found["places"][-1]),
            "resized": int(found["resized"].sum()),
            "sha256": str(found["sha256"]),
        }

    def write(self, piece: Files, told: Callable[[int], None]) -> None:
        """Make it of these files, whole or not at all.

        Raises:
            ValueError: an image cannot be read; it is named.
            OSError: the folder cannot be written to.
        """
        from concurrent.futures import ThreadPoolExecutor  # its imports are slow

        from harness.data.pixels import count_threads

        drafts = [path.with_name(f".{path.name}.draft") for path in (self.path, self.list_path)]
        total, rows = hashlib.sha256(), []
        try:
            with drafts[0].open("wb") as out, ThreadPoolExecutor(count_threads()) as pool:
                for start in range(0, len(piece.labels), AT_ONCE):
                    paths = list(piece.paths[start : start + AT_ONCE])
                    for stored, row in pool.map(lambda path: self._stored(path, piece.reading), paths):
                        out.write(stored)
                        total.update(stored)
                        rows.append(row)
                    told(start + len(paths))
                out.flush()
                os.fsync(out.fileno())
            self._write_list(drafts[1], piece, rows, total.hexdigest())
            self.list_path.unlink(missing_ok=True)  # never a list beside a file of another time
            drafts[0].replace(self.path)
            drafts[1].replace(self.list_path)
        finally:
            for draft in drafts:
                draft.unlink(missing_ok=True)

    def _write_list(self, draft: Path, piece: Files, rows: list[_Row], sha256: str) -> None:
        import numpy as np

        with draft.open("wb") as file:
            np.savez(
                file,
                places=np.cumsum([0, *(row.length for row in rows)]).astype(np.int64),
                sizes=np.array([row.size for row in rows], np.int32),
                labels=np.asarray(piece.labels, np.int64),
                stored=np.frombuffer(b"".join(row.stored for row in rows), np.uint8).reshape(-1, 32),
                originals=np.frombuffer(b"".join(row.original for row in rows), np.uint8).reshape(-1, 32),
                stats=np.array([row.stat for row in rows], np.int64),
                resized=np.array([row.resized for row in rows]),
                settings=np.array(json.dumps(self.settings)),
                sha256=np.array(sha256),
            )
            file.flush()
            os.fsync(file.fileno())

    def _stored(self, path: Path, reading: Reading) -> tuple[bytes, _Row]:
        from harness.data.contents import read_settled
        from harness.data.pixels import decode_array

        content, stat = read_settled(path)
        try:
            pixels = decode_array(content, reading)
        except ValueError:
            pixels = decode_array(path, reading)  # says the name
        shown = _smaller(pixels, self.settings["side"])
        resized = shown is not pixels
        if self.settings["jpeg"] is None:
            stored = shown.tobytes()
        elif not resized and _is_plain_jpeg(content):
            stored = content
        else:
            stored = _as_jpeg(shown, self.settings["jpeg"])
        digests = (hashlib.sha256(stored).digest(), hashlib.sha256(content).digest())
        return stored, _Row(len(stored), shown.shape[:2], *digests, stat, resized)


@dataclass(frozen=True, slots=True)
class _Row:
    """What is listed of one image."""

    length: int  # bytes
    size: tuple[int, ...]  # height, width
    stored: bytes  # sha256
    original: bytes  # sha256
    stat: tuple[int, ...]  # of the original
    resized: bool


def _smaller(pixels: np.ndarray, side: int | None) -> np.ndarray:
    """The image with `side` as its shorter side, by Pillow's bicubic filter; itself where it is no larger."""
    import numpy as np
    from PIL import Image

    height, width = pixels.shape[:2]
    short = min(height, width)
    if side is None or short <= side:
        return pixels
    wanted = (round(width * side / short), round(height * side / short))
    return np.asarray(Image.fromarray(pixels).resize(wanted, Image.Resampling.BICUBIC))


def _is_plain_jpeg(content: bytes) -> bool:
    """Whether its own bytes may stand for it: RGB or grey, not turned."""
    from harness.data.pixels import header

    found = header(content)
    return found.format == "JPEG" and found.mode in ("RGB", "L") and found.orientation == 1


def _as_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


# Reading.


def read_index(folder: Path) -> dict[str, Any]:
    """
    Raises:
        ValueError: it is damaged, or of another version.
        OSError: it is not there.
    """
    path = folder / INDEX
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            raise ValueError(f"{path} has format {found['format']}; this version reads {FORMAT}")
        return dict(found)
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ValueError(f"{path} is damaged; pack again, or copy it again") from None


def describe(index: Mapping[str, Any]) -> str:
    """What packing changed, in one sentence."""
    settings, images = index["settings"], index["images"]
    total = sum(images.values())
    form = "raw pixels" if settings["jpeg"] is None else f"JPEG of quality {settings['jpeg']}"
    side = "at their own size"
    if settings["side"] is not None:
        side = (
            f"the shorter side resized to {settings['side']} pixels in {index['resized']:,} of them (bicubic)"
        )
    return f"packed from {settings['of']}: {total:,} images, {side}, as {form}"


def load_packed(folder: Path, *, check: bool = True) -> Source:
    """Both parts. `check`: every file's sha256 too, which is read where it is not known on this machine.

    Raises:
        ValueError: a file is missing, cut short, or was changed after it was packed; it is named.
    """
    index = read_index(folder)
    train, test = (_part(folder, index, part, check) for part in PARTS)
    said = (*index["left_out"], describe(index))
    mean, std = index["normalised"] or (PACKED.mean, PACKED.std)
    return Source(
        train=train,
        test=test,
        classes=int(index["classes"]),
        left_out=said,
        normalised=(tuple(mean), tuple(std)),
    )


def _part(folder: Path, index: Mapping[str, Any], part: str, check: bool) -> Packed:
    import numpy as np

    shards = [Shard(folder / each["file"], index["settings"]) for each in index["shards"][part]]
    for shard, said in zip(shards, index["shards"][part], strict=True):
        _refuse_cut(shard.path, said["bytes"])
    if check:
        _refuse_changed(folder, shards, [each["sha256"] for each in index["shards"][part]])
    rows, labels, digests = [], [], []
    for number, shard in enumerate(shards):
        found = shard.lists()
        if str(found["sha256"]) != index["shards"][part][number]["sha256"]:
            raise ValueError(f"{shard.list_path} is of another packing than {folder / INDEX}; pack again")
        places, which = found["places"], np.full(len(found["labels"]), number)
        rows.append(np.column_stack([which, places[:-1], np.diff(places), found["sizes"]]).astype(np.int64))
        labels.append(found["labels"])
        digests.append(found["stored"])
    return Packed(
        raw=index["settings"]["jpeg"] is None,
        shards=tuple(shard.path for shard in shards),
        rows=np.concatenate(rows),
        labels=np.concatenate(labels),
        digests=np.concatenate(digests),
    )


def _refuse_cut(path: Path, wanted: int) -> None:
    try:
        there = path.stat().st_size
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; the same `harness pack` makes it again") from None
    if there != wanted:
        raise ValueError(
            f"{path} has {there:,} of {wanted:,} bytes; copy it again, or the same `harness pack` mends it"
        )


def _refuse_changed(folder: Path, shards: list[Shard], wanted: list[str]) -> None:
    from harness.data.contents import Contents

    found = Contents(folder).digests([shard.path for shard in shards])
    for shard, digest, said in zip(shards, found, wanted, strict=True):
        if digest.tobytes().hex() != said:
            raise ValueError(
                f"{shard.path} was changed after it was packed; the same `harness pack` mends it"
            )


def _folder(args: Mapping[str, Any], data_dir: Path) -> Path:
    return named_in(data_dir, str(args["folder"]))


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    folder = _folder(args, data_dir)
    if (folder / INDEX).is_file():
        return None
    begun = len(list(folder.glob("*.npz"))) if folder.is_dir() else 0
    if begun:
        says = f"{folder} is not complete ({begun} files are there)"
        return f"packed {args['folder']}: {says}; the same `harness pack` goes on"
    return (
        f"packed {args['folder']} needs {folder / INDEX}; `harness pack DATA --side 256 --jpeg 95` makes one"
    )


def _look(folder: Path) -> Look:
    """What a plan says. Looks at the sizes of the large files.

    Raises:
        ValueError: one is missing or cut short; it is named.
    """
    index = read_index(folder)
    for each in (*index["shards"]["train"], *index["shards"]["test"]):
        _refuse_cut(folder / each["file"], each["bytes"])
    return Look(notes=(describe(index),))


def _validate(args: Mapping[str, Any]) -> None:
    folder = args["folder"]
    if not isinstance(folder, str) or not folder:
        raise ValueError(
            "packed: folder must name a packed folder of the data folder, e.g. imagenet-256-jpeg95"
        )
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise ValueError(f"packed: folder must lie inside the data folder, '{folder}' does not")


PACKED = Entry(
    name="packed",
    args={"folder": ""},
    channels=3,
    mean=entry.IMAGENET_MEAN,
    std=entry.IMAGENET_STD,
    missing=_missing,
    load=lambda args, data_dir: load_packed(_folder(args, data_dir)),
    listed=lambda args, data_dir: load_packed(_folder(args, data_dir), check=False),
    validate=_validate,
    count_classes=lambda args, data_dir: int(read_index(_folder(args, data_dir))["classes"]),
    look=lambda args, data_dir: _look(_folder(args, data_dir)),
)


@dataclass(slots=True)
class Pace:
    """One line now and then: how many, how fast, how long still."""

    say: Callable[[str], None]
    every_s: float = 10.0
    _started_s: float = -1.0
    _last_s: float = 0.0
    _first: int = 0

    def __call__(self, part: str, done: int, of: int) -> None:
        now_s = time.monotonic()
        if self._started_s < 0 or done < self._first:
            self._started_s, self._last_s, self._first = now_s, now_s, done
        if now_s - self._last_s < self.every_s or now_s == self._started_s:
            return
        self._last_s = now_s
        speed = (done - self._first) / (now_s - self._started_s)
        left = f", {(of - done) / speed / 60:.0f} min left" if speed else ""
        self.say(f"packing {part}: {done:,} of {of:,} images, {speed:.0f} a second{left}")
