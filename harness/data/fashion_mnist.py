"""Fashion-MNIST: 28x28 grey photographs of clothes in 10 balanced classes.

Source: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv:1708.07747. Licence: MIT, Zalando SE (embedded/LICENSE).

Embedded: the first 1,000 training images of each class in file order (10,000, kept in file order) and the
whole test set (10,000), written by scripts/make_fashion_mnist_subset.py. With `full: true` the 60,000
training images are read from the four original files in the user's data folder.

`part` keeps five of the ten classes, renumbered 0-4: two parts without a class in common, for fine-tuning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.entry import Entry, Facts, Source
from harness.data.sets import FILES, absent_idx, grey_source, read_idx_files
from harness.errors import unknown

if TYPE_CHECKING:
    import numpy as np

EMBEDDED = Path(__file__).parent / "embedded" / "fashion_mnist.npz"
EMBEDDED_SHA256 = "fd850ae6f2cbae2aebb9fe0219b3c2bf96211d289d42bc1b3a010d26a5848699"
IMAGES_PER_CLASS = 1000
CLASSES = 10
FULL_PER_CLASS = 6000
TEST_PER_CLASS = 1000
PARTS = {"all": range(10), "first5": range(5), "last5": range(5, 10)}  # the classes that are kept


def read_embedded(path: Path = EMBEDDED) -> dict[str, np.ndarray]:
    """The embedded arrays: images (N, 28, 28) uint8 and labels (N,) uint8 of `train` and `test`.

    Raises:
        ValueError: the contents are not the ones that were shipped.
    """
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in FILES}
    found = content_sha256(arrays)
    if found != EMBEDDED_SHA256:
        raise ValueError(
            f"{path} is damaged: the sha256 of its arrays is {found}, expected {EMBEDDED_SHA256}. "
            "Install the package again, or rebuild the file with scripts/make_fashion_mnist_subset.py."
        )
    return arrays


def balanced_subset(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first IMAGES_PER_CLASS training images of each class in file order; the test set stays whole."""
    import numpy as np

    labels = arrays["train_labels"]
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:IMAGES_PER_CLASS] for c in range(CLASSES)]))
    return {
        **arrays,
        "train_images": arrays["train_images"][chosen],
        "train_labels": labels[chosen],
    }


def content_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, shapes and bytes, so that it does not depend on the compressor's version."""
    total = hashlib.sha256()
    for name in FILES:
        total.update(f"{name} {arrays[name].shape}\n".encode())
        total.update(arrays[name].tobytes())
    return total.hexdigest()


def keep_classes(arrays: Mapping[str, np.ndarray], classes: range) -> dict[str, np.ndarray]:
    """The images of a run of classes in their order, with labels from 0."""
    kept = {}
    for part in ("train", "test"):
        labels = arrays[f"{part}_labels"]
        inside = (labels >= classes.start) & (labels < classes.stop)
        kept[f"{part}_images"] = arrays[f"{part}_images"][inside]
        kept[f"{part}_labels"] = labels[inside] - classes.start
    return kept


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    if not args["full"]:
        return None
    folder = data_dir / "fashion_mnist"
    absent = absent_idx(folder)
    if not absent:
        return None
    return (
        f"fashion_mnist with full: true needs {', '.join(f'{name}.gz' for name in absent)} in {folder} "
        "(the original files, from github.com/zalandoresearch/fashion-mnist). "
        "With full: false the embedded 10,000 training images are used."
    )


def _load(args: Mapping[str, Any], data_dir: Path) -> Source:
    arrays = read_idx_files(data_dir / "fashion_mnist") if args["full"] else read_embedded()
    classes = PARTS[args["part"]]
    if len(classes) < CLASSES:
        arrays = keep_classes(arrays, classes)
    return grey_source(arrays, len(classes))


def _validate(args: Mapping[str, Any]) -> None:
    if not isinstance(args["full"], bool):
        raise ValueError(f"fashion_mnist: full must be true or false, not {args['full']!r}")
    if args["part"] not in list(PARTS):
        raise ValueError(f"fashion_mnist: {unknown('part', str(args['part']), PARTS)}")


def _counts(args: Mapping[str, Any]) -> Facts:
    classes = len(PARTS[args["part"]])
    per_class = FULL_PER_CLASS if args["full"] else IMAGES_PER_CLASS
    return classes, classes * per_class, classes * TEST_PER_CLASS


# mean and std: over the pixels of the 60,000 training images, for the parts too: one normalisation for all
ENTRY = Entry(
    name="fashion_mnist",
    args={"full": False, "part": "all"},
    channels=1,
    mean=(0.2860, 0.2860, 0.2860),
    std=(0.3530, 0.3530, 0.3530),
    missing=_missing,
    load=_load,
    validate=_validate,
    count_classes=lambda args, data_dir: len(PARTS[args["part"]]),
    classes=CLASSES,
    train_images=IMAGES_PER_CLASS * CLASSES,
    test_images=TEST_PER_CLASS * CLASSES,
    counts=_counts,
    is_fixed=lambda args: not args["full"],
)
