"""The user's own images in one file of arrays: `.npz`, as MedMNIST and many others are handed out.

Format: `train_images`, `train_labels`, `test_images`, `test_labels`, and `val_images`, `val_labels` if there
are any; images (N, H, W) or (N, H, W, C) uint8 with 1 or 3 channels, labels (N,) or (N, 1) of whole numbers
from 0 (Yang et al. 2023, "MedMNIST v2", Scientific Data 10:41). A file that has only `images` and `labels` is
split: `test_share` of each class, drawn by `split_seed`, is the test part.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.entry import IMAGENET_MEAN, IMAGENET_STD, RGB, Entry, Look, Pixels, Source

if TYPE_CHECKING:
    import numpy as np

TEST_PARTS = ("test", "val")
WHOLE: Mapping[str, Any] = {"test_share": None}  # nothing is split


def _path(args: Mapping[str, Any], data_dir: Path) -> Path:
    return data_dir / args["file"]


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    path = _path(args, data_dir)
    return None if path.is_file() else f"npz needs the file {path}"


def _validate(args: Mapping[str, Any]) -> None:
    if not isinstance(args["file"], str) or not args["file"]:
        raise ValueError("npz: file must be the name of a file in the data folder, such as bloodmnist.npz")
    if Path(args["file"]).is_absolute() or ".." in Path(args["file"]).parts:
        raise ValueError(f"npz: file must lie inside the data folder, '{args['file']}' does not")
    if args["test"] not in TEST_PARTS:
        raise ValueError(f"npz: test, the part that is evaluated, must be test or val, not {args['test']!r}")
    validate_split("npz", args)


def load_npz(args: Mapping[str, Any], data_dir: Path) -> Source:
    """Both parts of a file of arrays (see the module's docstring). Normalised by the training pixels.

    Raises:
        ValueError: it is no such file, or arrays are missing, of another shape or type, or do not match.
    """
    path = _path(args, data_dir)
    arrays = _arrays(path)
    said: tuple[str, ...] = ()
    if "images" in arrays and "train_images" not in arrays:
        images, labels = (_array(arrays, name, path) for name in ("images", "labels"))
        labels = _labels(labels, "labels", path)
        _check(images, labels, "", path)
        held = stratified(labels, args["test_share"], args["split_seed"])
        parts = [(images[~held], labels[~held]), (images[held], labels[held])]
        said = split_lines(args["file"], labels, args)
    else:
        parts = [_part(arrays, name, path) for name in ("train", args["test"])]
    train, test = (Pixels(images=_with_channels(images), labels=labels) for images, labels in parts)
    if train.images.shape[3] != test.images.shape[3]:
        raise ValueError(f"{path}: one part has grey images, the other has colours")
    classes = 1 + max(int(part.labels.max()) for part in (train, test))
    normalised = normalisation(train.images)
    return Source(train=train, test=test, classes=classes, left_out=said, normalised=normalised)


def _arrays(path: Path, ends: tuple[str, ...] = ("images", "labels")) -> Mapping[str, np.ndarray]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise ValueError("it holds one array without a name")
            return {name: file[name] for name in file.files if name.endswith(ends)}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz file of plain arrays: {error}") from None


def _array(arrays: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in arrays:
        has = ", ".join(sorted(arrays)) or "none"
        raise ValueError(f"{path} has no array {name}; arrays of images and labels in it: {has}")
    return arrays[name]


def _part(arrays: Mapping[str, np.ndarray], part: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    images = _array(arrays, f"{part}_images", path)
    labels = _labels(_array(arrays, f"{part}_labels", path), f"{part}_labels", path)
    _check(images, labels, f"{part}_", path)
    return images, labels


def _labels(labels: np.ndarray, name: str, path: Path) -> np.ndarray:
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1:
        several = "; several labels an image are not one class each" if labels.ndim == 2 else ""
        raise ValueError(f"{path}: {name} has the shape {labels.shape}, expected (N,) or (N, 1){several}")
    if flat.dtype.kind not in "ui":
        raise ValueError(f"{path}: {name} is of type {flat.dtype}; labels are whole numbers from 0")
    if len(flat) and (flat.min() < 0 or flat.max() >= 1_000_000):
        raise ValueError(f"{path}: {name} goes from {flat.min()} to {flat.max()}; labels are classes from 0")
    return flat.astype("int64")


def _check(images: np.ndarray, labels: np.ndarray, part: str, path: Path) -> None:
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if images.dtype != "uint8" or not is_image:
        shape = f"{images.shape} of type {images.dtype}"
        raise ValueError(f"{path}: {part}images is {shape}; expected (N, H, W) or (N, H, W, 1 or 3) of uint8")
    if len(images) != len(labels) or not len(labels):
        counts = f"{len(images)} {part}images and {len(labels)} {part}labels"
        raise ValueError(f"{path}: {counts}; there must be as many of both")


def _with_channels(images: np.ndarray) -> np.ndarray:
    return images[..., None] if images.ndim == 3 else images


def stratified(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which of (N,) labels are held out: `share` of each class, rounded, at least one and not all; a pure
    function of the labels, the share and the seed. A class of one image is trained on."""
    import numpy as np

    rng = np.random.Generator(np.random.Philox(seed))
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        held[own[: min(max(1, round(share * len(own))), len(own) - 1)]] = True
    return held


def validate_split(name: str, args: Mapping[str, Any]) -> None:
    """Check `test_share` (None: nothing is split) and `split_seed`.

    Raises:
        ValueError: they are no share and no seed.
    """
    share, seed = args["test_share"], args["split_seed"]
    is_share = isinstance(share, int | float) and not isinstance(share, bool) and 0 < share < 1
    if share is not None and not is_share:
        raise ValueError(f"{name}: test_share must be a number between 0 and 1, not {share!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"{name}: split_seed must be a whole number from 0, not {seed!r}")


def split_lines(name: str, labels: np.ndarray, args: Mapping[str, Any]) -> tuple[str, ...]:
    """What plan and report say of data that are split by `stratified`: labels (N,) of all of them."""
    import numpy as np

    share, seed = args["test_share"], args["split_seed"]
    held = int(stratified(labels, share, seed).sum())
    said = f"{name} is split: {held:,} of {len(labels):,} images, {share:g} of each class drawn by "
    said += f"split_seed {seed}, are the test part of every run"
    single = int((np.bincount(labels) == 1).sum())
    alone = f"; {single} of its classes have one image each, which is trained on" if single else ""
    return (said + alone,)


def normalisation(images: np.ndarray) -> tuple[RGB, RGB]:
    """Mean and standard deviation of each channel over (N, H, W, C) uint8, of [0, 1] pixels."""
    import numpy as np

    counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(images.shape[3])]
    levels = np.arange(256) / 255
    means = [float(count @ levels / count.sum()) for count in counts]
    squares = [float(count @ levels**2 / count.sum()) for count in counts]
    spreads = [
        math.sqrt(max(0.0, square - mean**2)) or 1.0 for square, mean in zip(squares, means, strict=True)
    ]
    red, green, blue = (means * 3)[:3]
    r, g, b = (spreads * 3)[:3]
    return (red, green, blue), (r, g, b)


def _labels_alone(args: Mapping[str, Any], data_dir: Path) -> list[np.ndarray]:
    """Of both parts, or of the one that is split; without the images, which may be many."""
    path = _path(args, data_dir)
    arrays = _arrays(path, ("labels",))
    has_parts = "train_labels" in arrays or "labels" not in arrays
    names = ("train_labels", f"{args['test']}_labels") if has_parts else ("labels",)
    return [_labels(_array(arrays, name, path), name, path) for name in names]


def _look(args: Mapping[str, Any], data_dir: Path) -> Look:
    found = _labels_alone(args, data_dir)
    return Look(notes=split_lines(args["file"], found[0], args) if len(found) == 1 else ())


NPZ = Entry(
    name="npz",
    args={"file": "", "test": "test", "test_share": 0.2, "split_seed": 0},
    channels=3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    missing=_missing,
    load=load_npz,
    validate=_validate,
    count_classes=lambda args, data_dir: 1 + max(int(each.max()) for each in _labels_alone(args, data_dir)),
    look=_look,
)
