"""Which files of an image folder belong to which class, and what is left out. Opens no image; no numpy.

    <root>/train/<class>/**/*.jpg
    <root>/val/<class>/**/*.jpg      (or `test`, or `validation`)

A folder that is split has no second part; its classes lie in `train`, or in <root> itself. Sub-folders of a
class belong to it, in the order of torchvision.datasets.ImageFolder.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.entry import cache_folder
from harness.errors import mutable
from harness.spec import sha256_of

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
TEST_NAMES = ("val", "test", "validation")
SYSTEM_FOLDERS = frozenset(  # of archives, file servers and desktops; they hold thumbnails and waste
    {"__MACOSX", "@eaDir", "lost+found", "#recycle", "$RECYCLE.BIN", "System Volume Information"}
)
NAMED_CLASSES = 5  # in one message
TO_SPLIT = "`test_share: 0.2` holds a fifth of each class out as the test part, the same one for every run"
HIDDEN, SYSTEM, LOOP, NO_SUFFIX = (
    "hidden",
    "in a system's folder",
    "a link to a folder around it",
    "no suffix",
)


@mutable
class Found:
    """What lies in a folder: image files, files left out by reason, and images that cannot be opened."""

    images: list[str] = field(default_factory=list)  # paths
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> paths
    broken: list[tuple[str, str]] = field(default_factory=list)  # path, why
    folders: list[str] = field(default_factory=list)  # that were listed

    def leave_out(self, reason: str, path: str) -> None:
        self.left_out.setdefault(reason, []).append(path)


class FolderPart(NamedTuple):
    """One part of an image folder: what each class holds, in the order of the classes."""

    folder: Path
    classes: dict[str, Found]  # by the class's name in the training part
    loose: Found  # what lies in no class

    @property
    def images(self) -> int:
        return sum(len(found.images) for found in self.classes.values())

    def everything(self) -> Found:
        """Both kinds of what is not read, of all classes together."""
        total = Found()
        for found in (self.loose, *self.classes.values()):
            total.images += found.images
            total.broken += found.broken
            for reason, paths in found.left_out.items():
                total.left_out.setdefault(reason, []).extend(paths)
        return total


def walk(folder: Path) -> Found:
    """Every image file in `folder` and its sub-folders, links followed, sorted as torchvision sorts them."""
    found, waiting, by_folder = Found(), [str(folder)], []
    while waiting:
        here = waiting.pop()
        names: list[str] = []
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    _sort_in(entry, here, names, waiting, found)
        except OSError as error:
            found.broken.append((here, f"the folder cannot be read: {error.strerror}"))
        by_folder.append((here, names))
    found.images = [f"{here}{os.sep}{name}" for here, names in sorted(by_folder) for name in sorted(names)]
    found.folders = sorted(here for here, _ in by_folder)
    for paths in found.left_out.values():
        paths.sort()
    found.broken.sort()
    return found


def _sort_in(entry: os.DirEntry[str], here: str, names: list[str], waiting: list[str], found: Found) -> None:
    if entry.name.startswith("."):
        found.leave_out(HIDDEN, entry.path)
    elif entry.is_dir():
        if entry.name in SYSTEM_FOLDERS:
            found.leave_out(SYSTEM, entry.path)
        elif entry.is_symlink() and _lies_in(os.path.realpath(here), os.path.realpath(entry.path)):
            found.leave_out(LOOP, entry.path)
        else:
            waiting.append(entry.path)
    elif (suffix := os.path.splitext(entry.name)[1].lower()) not in SUFFIXES:
        found.leave_out(suffix or NO_SUFFIX, entry.path)
    elif entry.is_file():
        names.append(entry.name)
    elif entry.is_symlink():
        found.broken.append((entry.path, f"it is a link to {os.readlink(entry.path)}, which does not exist"))
    else:
        found.broken.append((entry.path, "it is no plain file"))


def _lies_in(folder: str, around: str) -> bool:
    return folder == around or folder.startswith(around.rstrip(os.sep) + os.sep)


def class_names(root: Path) -> list[str]:
    """The class folders of the training folder of `root`, sorted.

    Raises:
        ValueError: fewer than two of them, or two that differ in their code points only.
    """
    train = training_folder(root)
    names = subfolders(train)
    if len(names) < 2:
        raise ValueError(f"{train} has {len(names)} class folders; a classifier needs at least 2")
    same = Counter(map(composed, names))
    for name in names:
        if same[composed(name)] > 1:
            twins = [each for each in names if composed(each) == composed(name)]
            both = " and ".join(map(spelt, twins))
            raise ValueError(f"{train} has two class folders that look the same: {both}; rename one")
    return names


def subfolders(folder: Path) -> list[str]:
    """Names of the class folders of one part, sorted."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in SYSTEM_FOLDERS
    )


def training_folder(root: Path) -> Path:
    """`train`; where nothing is called so, `root` itself."""
    return root / "train" if (root / "train").is_dir() else root


def evaluation_folder(root: Path) -> Path:
    """The first of `TEST_NAMES` that exists."""
    return next((root / name for name in TEST_NAMES if (root / name).is_dir()), root / TEST_NAMES[0])


def parts_of(root: Path, *, split: bool = False) -> tuple[FolderPart, ...]:
    """Everything in the training and the evaluation folder; of a folder that is split, in its only part.

    Raises:
        ValueError: the class folders make no data set (`class_problem` says why).
    """
    kept = _kept(root)
    if kept is not None and len(kept) == (1 if split else 2):
        return kept
    taken_ns = time.time_ns()
    problem = class_problem(root, split=split)
    if problem is not None:
        raise ValueError(problem)
    names = class_names(root)
    folders = (training_folder(root),) if split else (root / "train", evaluation_folder(root))
    parts = tuple(part_of(folder, names) for folder in folders)
    _keep(root, parts, taken_ns)
    return parts


# What was found in a folder is kept in the user's cache with the times of every folder in it. A name that
# comes, goes or changes makes a new time of its folder; so does no write into a file, which `contents` sees.


KEPT_FORMAT = 1
RACY_NS = 2_000_000_000  # a folder that changed so shortly before it was listed may change again unseen
FEWEST_KEPT = 1000  # files; fewer are listed in a few ms
Times = tuple[int, int, int]  # of modification and of change in ns, inode


def _signature(paths: Iterable[str]) -> list[Times]:
    found = map(os.stat, paths)
    return [(each.st_mtime_ns, each.st_ctime_ns, each.st_ino) for each in found]


def _kept_file(root: Path) -> Path | None:
    folder = cache_folder()
    name = sha256_of(os.fsencode(root.absolute()))[:32]
    return folder / "listings" / name if folder else None


def _keep(root: Path, parts: Sequence[FolderPart], taken_ns: int) -> None:
    """Write down what was found, whole or not at all; a cache that cannot be written costs time only."""
    kept = _kept_file(root)
    total = sum(part.images for part in parts)
    if kept is None or total < FEWEST_KEPT or any(part.everything().broken for part in parts):
        return  # what a link leads to may come back without a trace in its folder
    folders = sorted({str(root), *(each for part in parts for each in _folders_of(part))})
    head = {
        "format": KEPT_FORMAT,
        "taken_ns": taken_ns,
        "folders": folders,
        "times": _signature(folders),
        "parts": [
            {
                "folder": str(part.folder),
                "loose": part.loose.left_out,
                "classes": [
                    [name, len(found.images), found.left_out, found.folders]
                    for name, found in part.classes.items()
                ],
            }
            for part in parts
        ],
    }
    names = (name for part in parts for found in part.classes.values() for name in found.images)
    draft = kept.with_name(f".{kept.name}.{os.uname().nodename}.{os.getpid()}.draft")
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        text = "\0".join((json.dumps(head), *names))
        draft.write_bytes(text.encode(errors="surrogateescape"))
        draft.replace(kept)


def _folders_of(part: FolderPart) -> Iterable[str]:
    yield str(part.folder)
    for found in part.classes.values():
        yield from found.folders


def _kept(root: Path) -> tuple[FolderPart, ...] | None:
    """What was found the last time, where no folder has changed since; a stat for each of them."""
    kept = _kept_file(root)
    try:
        first, *names = kept.read_bytes().decode(errors="surrogateescape").split("\0") if kept else [""]
        head = json.loads(first)
        if head["format"] != KEPT_FORMAT:
            return None
        now = _signature(head["folders"])
        if (
            now != [tuple(each) for each in head["times"]]
            or head["taken_ns"] - max(max(each[:2]) for each in now) < RACY_NS
        ):
            return None
        rest = iter(names)
        return tuple(_part_from(each, rest) for each in head["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, damaged, or a folder is gone: everything is listed


def _part_from(said: Any, names: Iterator[str]) -> FolderPart:
    classes = {
        name: Found(images=list(itertools.islice(names, count)), left_out=left_out, folders=folders)
        for name, count, left_out, folders in said["classes"]
    }
    return FolderPart(Path(said["folder"]), classes, Found(left_out=said["loose"]))


def part_of(folder: Path, classes: Sequence[str]) -> FolderPart:
    """What each of `classes` has in `folder`; its name may be written there with other code points."""
    here = {composed(name): name for name in subfolders(folder)}
    found = {name: walk(folder / here.get(composed(name), name)) for name in classes}
    loose = Found()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            loose.leave_out(HIDDEN, entry.path)
        elif entry.name in SYSTEM_FOLDERS:
            loose.leave_out(SYSTEM, entry.path)
        elif not entry.is_dir():
            loose.leave_out("in no class folder", entry.path)
    return FolderPart(folder, found, loose)


def missing_folder(root: Path, name: str) -> str | None:
    """None where `root` has the two parts, else what to put where."""
    if (root / "train").is_dir() and evaluation_folder(root).is_dir():
        return None
    if not evaluation_folder(root).is_dir() and root.is_dir() and len(subfolders(training_folder(root))) > 1:
        return f"{name} has no {' or '.join(TEST_NAMES)} in {root}; {TO_SPLIT}"
    others = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    has = f"; {root} has {', '.join(others[:NAMED_CLASSES])}" if others else ""
    return (
        f"{name} needs one folder per class in {root / 'train'} and in {root / 'val'} (or 'test'), "
        f"for example {root / 'train' / 'cat' / '0001.jpg'}{has}"
    )


def class_problem(root: Path, *, split: bool = False) -> str | None:
    """Why the class folders of the two parts, or of the only one, make no data set; None where they do.
    Lists folders only."""
    train, test = training_folder(root), evaluation_folder(root)
    if split and test.is_dir():
        return f"{test} is there, and test_share asks for another test part: take one of the two away"
    parts = (train,) if split else (train, test)
    try:
        dead = [path for part in parts for path in part.iterdir() if path.is_symlink() and not path.exists()]
        names = class_names(root)
        others = names if split else subfolders(test)
    except OSError as error:
        return f"cannot read the folder {error.filename}: {error.strerror}"
    except ValueError as error:
        return str(error)
    if dead:
        return f"{dead[0]} is a link to {dead[0].readlink()}, which does not exist"
    if not others:
        loose = sum(entry.is_file() for entry in os.scandir(test))
        instead = f", but {loose} files" if loose else ""
        return f"{test} has no class folders{instead}; {train} has {_some(names)}"
    known, here = set(map(composed, names)), set(map(composed, others))
    extra = [name for name in others if composed(name) not in known]
    lacking = [name for name in names if composed(name) not in here]
    says = []
    if extra:
        says.append(f"{test} has classes that are not in {train}: {_some(extra, _alike(extra, lacking))}")
    if lacking:
        says.append(f"{test} has no folder for {_some(lacking, _alike(lacking, extra))} of {train}")
    return "; ".join(says) or None


def composed(name: str) -> str:
    """One spelling of names that look the same: Unicode's NFC (macOS writes NFD, Linux what it is given)."""
    return unicodedata.normalize("NFC", name)


def spelt(name: str) -> str:
    """The name, and its code points where it has others than ASCII.

    >>> spelt("cat"), spelt("thé")
    ("'cat'", "'thé' (t h U+00E9)")
    """
    if name.isascii():
        return f"'{name}'"
    return f"'{name}' ({' '.join(c if c.isascii() else f'U+{ord(c):04X}' for c in name)})"


def _alike(names: Iterable[str], others: Iterable[str]) -> bool:
    """Whether something beside ASCII is among them, so that code points tell more than the eye sees."""
    return any(not name.isascii() for name in (*names, *others))


def _some(names: Sequence[str], code_points: bool = False) -> str:
    shown = ", ".join(spelt(name) if code_points else name for name in names[:NAMED_CLASSES])
    return shown + (f" and {len(names) - NAMED_CLASSES} more" if len(names) > NAMED_CLASSES else "")


def left_out_lines(part: FolderPart) -> list[str]:
    """What is not read of a part, counted and named: one sentence, or none."""
    left_out = part.everything().left_out
    if not left_out:
        return []
    counts = sorted(left_out.items(), key=lambda item: (-len(item[1]), item[0]))
    total = sum(map(len, left_out.values()))
    each = ", ".join(f"{len(paths)} {reason}" for reason, paths in counts)
    where = f"{part.folder.parent.name}/{part.folder.name}"
    first = os.path.relpath(counts[0][1][0], part.folder)
    return [f"{where}: {part.images} images; {total} left out: {each} (for example {first})"]


def broken_line(part: FolderPart) -> str | None:
    """The first file that should be an image and cannot be opened, and how many are like it."""
    total = part.everything()
    return broken_in(str(part.folder), total) if total.broken else None


def broken_in(title: str, total: Found) -> str:
    """The same of whatever has such files."""
    path, why = total.broken[0]
    return f"{path}: {why} ({len(total.broken)} in {title}); put the file there, or remove its name"
