"""What the table says of each data set, what its loader hands over, checked. Imports no torch, no numpy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

from harness.errors import frozen

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

RGB = tuple[float, float, float]
Facts = tuple[int | None, int | None, int | None]  # classes, training images, test images; None: not known

# The normalisation printed in He et al. 2019 (arXiv:1812.01187), Sec. 2.1, on 0-255 pixels, divided by 255.
IMAGENET_MEAN: RGB = (123.68 / 255, 116.779 / 255, 103.939 / 255)
IMAGENET_STD: RGB = (58.393 / 255, 57.12 / 255, 57.375 / 255)


@frozen
class Reading:
    """What an image file does not say of its own pixels (docs/data.md, "Pixels")."""

    range: tuple[float, float] | None = None  # black and white, of one number per pixel of more than 8 bits
    background: tuple[int, int, int] = (255, 255, 255)  # RGB under what is transparent


PLAIN = Reading()


@frozen
class Pixels:
    """Decoded images. images: (N, H, W, C) uint8. labels: (N,) int64.

    `origin`: the files that they were decoded from, in the same order, where there are any.
    """

    images: np.ndarray
    labels: np.ndarray
    origin: Files | None = None


class PathList(Sequence[Path]):
    """Paths that are made when they are asked for: a million of them cost a second and 200 MB to make."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> PathList: ...
    def __getitem__(self, index: int | slice) -> Path | PathList:
        return PathList(self.names[index]) if isinstance(index, slice) else Path(self.names[index])


@frozen
class Files:
    """Image files that are decoded when they are read. labels: one class index per path.

    A path that is not absolute lies in `root`; every path does.
    """

    root: Path
    paths: Sequence[Path]
    labels: np.ndarray
    reading: Reading = PLAIN


class Stored(bytes):
    """The bytes of an image file that lies in a larger one; as text, where."""

    where: str

    @classmethod
    def of(cls, content: bytes, where: str) -> Stored:
        made = cls(content)
        made.where = where
        return made

    def __str__(self) -> str:
        return self.where


@frozen
class Packed:
    """Images in a few large files (`harness.data.packed`), in the order of `rows`.

    `reading`: they are image files of any kind, in a table called `title`; None: as the packer stores them.
    """

    raw: bool  # rows of R, G, B; else JPEG
    shards: tuple[Path, ...]
    # (N, 5) int64: number of the shard, first byte, bytes, height, width; of a table (N, 6), with its row
    rows: np.ndarray
    labels: np.ndarray  # (N,) int64
    digests: np.ndarray  # (N, 32) uint8: sha256 of each image's bytes
    reading: Reading | None = None
    title: str = ""


Part = Pixels | Files | Packed


@frozen
class Source:
    """Both parts of a data set as its loader found them, before any subset is taken."""

    train: Part
    test: Part
    classes: int
    left_out: tuple[str, ...] = ()  # sentences about what was found and will not be read
    normalised: tuple[RGB, RGB] | None = None  # mean and std, where they are not those of the entry


class Look(NamedTuple):
    """What a plan says of the user's files before anything is trained."""

    problems: tuple[str, ...] = ()  # a run would fail
    notes: tuple[str, ...] = ()


@frozen
class Entry:
    """One data set of the table.

    `missing` returns None where the data is ready, else what to put where. `load` reads it and raises
    FileNotFoundError or ValueError in words for the user. `count_classes` answers without reading images.
    `look`, asked where nothing is missing, lists the files and opens a few.
    """

    name: str
    args: Mapping[str, Any]  # every argument with its default
    channels: int
    mean: RGB  # of [0, 1] pixels
    std: RGB
    missing: Callable[[Mapping[str, Any], Path], str | None]
    load: Callable[[Mapping[str, Any], Path], Source]
    validate: Callable[[Mapping[str, Any]], None]  # raises ValueError on a bad argument value
    count_classes: Callable[[Mapping[str, Any], Path], int]
    classes: int | None = None  # None: depends on the arguments or on the user's files
    train_images: int | None = None
    test_images: int | None = None
    for_reports: bool = True  # False: generated pixels, for benchmarks only
    counts: Callable[[Mapping[str, Any]], Facts] | None = (
        None  # of all arguments, where they change the counts
    )
    # Both parts as files, where `load` decodes them first or looks at more than their names.
    listed: Callable[[Mapping[str, Any], Path], Source] | None = None
    # Whether the images come with the package, or from a formula: they cannot change on the user's disk.
    is_fixed: Callable[[Mapping[str, Any]], bool] = lambda args: False

    look: Callable[[Mapping[str, Any], Path], Look] | None = None
    said_if_set: frozenset[str] = (
        frozenset()
    )  # arguments that a run's identity has where they are not the default
    # Arguments by which a row changes its data: what stands for that data at a size takes them over.
    of_a_row: frozenset[str] = frozenset()

    def facts(self, args: Mapping[str, Any]) -> Facts:
        """Classes, training images and test images with these arguments (those left out: the defaults).

        None for what is known only once the user's files are read.
        """
        if self.counts is None:
            return self.classes, self.train_images, self.test_images
        return self.counts({**self.args, **args})


# What a loader handed over, with the types that it promised.


class SourceError(ValueError):
    """A loader handed over what cannot be trained on. `why` and `mend` are the two halves of the sentence."""

    def __init__(self, entry: Entry, why: str, mend: str) -> None:
        super().__init__(f"{place_of(entry)}{entry.name}: {why}; {mend}")
        self.why, self.mend = why, mend


def place_of(entry: Entry) -> str:
    """`FILE:LINE: ` of the function that loads a user's data set; empty for the harness's own."""
    import inspect

    code = getattr(inspect.unwrap(entry.load), "__code__", None)
    if code is None or Path(code.co_filename).parent == Path(__file__).parent:
        return ""
    return f"{code.co_filename}:{code.co_firstlineno}: "


def checked(source: Source, entry: Entry) -> Source:
    """The source with arrays of the promised types, made from what means the same: a list of whole numbers,
    (N, 1), tensors, whole floats, paths as text, paths relative to the root.

    Raises:
        SourceError: it is anything else; in words for whoever wrote the loader.
    """
    if not isinstance(source, Source):
        mend = "return a harness.data.entry.Source"
        raise SourceError(entry, f"its loader returned {type(source).__name__}", mend)
    parts = []
    for title, part in (("training", source.train), ("test", source.test)):
        try:
            parts.append(_checked_part(part, source.classes))
        except _Wrong as wrong:
            raise SourceError(entry, f"the {title} part: {wrong}", wrong.mend) from None
    return replace(source, train=parts[0], test=parts[1])


class _Wrong(Exception):
    def __init__(self, why: str, mend: str) -> None:
        super().__init__(why)
        self.mend = mend


def _checked_part(part: Any, classes: int) -> Part:
    import numpy as np

    if isinstance(part, Files):
        part = replace(part, root=Path(part.root), paths=_paths(part))
        images = len(part.paths)
    elif isinstance(part, Pixels):
        part = replace(part, images=_pixels(part.images))
        images = len(part.images)
    elif isinstance(part, Packed):
        images = len(part.rows)
    else:
        raise _Wrong(f"it is {type(part).__name__}", "use Pixels or Files of harness.data.entry")
    labels = integer_labels(part.labels)
    if not images or images != len(labels):
        raise _Wrong(f"it has {images} images and {len(labels)} labels", "give one label per image")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise _Wrong(
            f"labels go from {low} to {high}",
            f"with {classes} classes they must lie in 0..{classes - 1}",
        )
    return replace(part, labels=labels.astype(np.int64))


def integer_labels(found: Any) -> np.ndarray:
    """Labels as (N,) whole numbers, where that loses nothing.

    Raises:
        _Wrong: they are text, fractions, several numbers per image or of unequal length.
    """
    import numpy as np
    import torch

    mend = "give one class number per image, (N,) of integers"
    try:
        labels = np.asarray(found.detach().cpu() if isinstance(found, torch.Tensor) else found)
    except ValueError:
        raise _Wrong("labels are lists of unequal length", mend) from None
    if labels.dtype.kind not in "biuf":
        example = f", for example {labels.flat[0]!r}" if labels.size else ""
        raise _Wrong(f"labels are {labels.dtype.name}{example}", "number the classes from 0")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all():
        raise _Wrong(f"labels have the form {labels.shape}, one-hot", "give labels.argmax(1)")
    if labels.ndim != 1:
        raise _Wrong(
            f"labels have the form {labels.shape}", f"{mend}; several classes per image are not known"
        )
    if labels.dtype.kind == "f":
        broken = np.flatnonzero(~(np.isfinite(labels) & (labels == np.floor(labels))))
        if len(broken):
            at = int(broken[0])
            raise _Wrong(f"labels are {labels.dtype.name}, and label {at} is {labels[at]:g}", mend)
        return labels
    return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels


def _pixels(images: Any) -> np.ndarray:
    import numpy as np
    import torch

    array = images.detach().cpu().numpy() if isinstance(images, torch.Tensor) else images
    good = isinstance(array, np.ndarray) and array.dtype == np.uint8
    if good and array.ndim == 3:
        array = array[..., None]
    if not good or array.ndim != 4 or array.shape[3] not in (1, 3):
        what = (
            f"{array.dtype} of form {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        )
        raise _Wrong(f"images are {what}", "give uint8 of form (N, height, width, 1 or 3)")
    return array


def _paths(part: Files) -> Sequence[Path]:
    root = Path(part.root)
    if isinstance(part.paths, PathList):  # the harness's own listing of the root
        return part.paths
    try:
        paths = tuple(root / path for path in part.paths)
    except TypeError:
        raise _Wrong("a path is neither a Path nor text", "give pathlib.Path") from None
    outside = next((path for path in paths if not path.is_relative_to(root)), None)
    if outside is not None:
        raise _Wrong(f"{outside} does not lie in the root {root}", "make root the folder above all files")
    return paths


def named_in(data_dir: Path, name: str) -> Path:
    """Where a file or folder lies that a study names: in the folder of data; else, where that is the `data`
    of a project, in the project itself, such as `photos` beside the study. In the former if in neither."""
    inside, beside = data_dir / name, data_dir.parent / name
    # A name that no file system takes is of neither: whoever reads the data says so.
    is_there = os.path.exists
    return beside if data_dir.name == "data" and is_there(beside) and not is_there(inside) else inside


def no_arguments_to_check(args: Mapping[str, Any]) -> None:
    """For data sets without arguments: their names were checked already."""


def cache_folder() -> Path | None:
    """The user's cache of this package; `HARNESS_CACHE` and `XDG_CACHE_HOME` move it. None: no home, none."""
    if own := os.environ.get("HARNESS_CACHE"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"
    except RuntimeError:
        return None


# What a loaded data set is: images that can be cropped in batches, labels, and a fingerprint.


class Images(Protocol):
    """Decoded on demand or held as one uint8 array; either way read in batches of crops."""

    channels: int  # 1: grey (colour augmentation cannot change it), 3: RGB
    decodes: bool  # at every read, which is worth a thread of its own

    def __len__(self) -> int: ...

    def sizes(self, indices: Tensor) -> Tensor:
        """Height and width in pixels, (B, 2) int64, of the images at `indices` (B,)."""
        ...

    def read(self, indices: Tensor, boxes: Tensor, size: int, device: str) -> dict[str, Tensor]:
        """What `cut` needs of the images at `indices` (B,), on the CPU."""
        ...

    def cut(self, sent: Mapping[str, Tensor], size: int, device: str, out: Tensor | None = None) -> Tensor:
        """The crops of `crop_resize`, from what `read` gave, on the device; those that `sent["mirrored"]`
        marks are mirrored. `out`: memory of a CPU for them, of any layout, which may be taken or not."""
        ...

    def crop_resize(self, indices: Tensor, boxes: Tensor, size: int, device: str = "cpu") -> Tensor:
        """Cut `boxes` (B, 4) int64 (top, left, height, width) and resize each to size x size, bilinear with
        antialias as Pillow and torchvision.transforms.v2 do it. Returns (B, channels, size, size) float32 in
        [0, 1] on `device`."""
        ...


@frozen
class Split:
    """One part of a data set. labels: (N,) int64."""

    images: Images
    labels: Tensor


@frozen
class DataSet:
    """A data set, ready to be read."""

    name: str
    train: Split
    test: Split
    classes: int
    mean: tuple[float, float, float]  # of [0, 1] pixels, per channel
    std: tuple[float, float, float]
    fingerprint: str  # sha256 over labels and bytes of both parts (`harness.data.contents`)
    part_fingerprints: tuple[str, str]  # the same of the training and of the test part
    left_out: tuple[str, ...] = ()  # sentences about files that were found and are not read
