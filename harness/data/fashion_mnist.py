"""Fashion-MNIST: 28x28 grey photographs of clothes in 10 balanced classes.

Source: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv:1708.07747. Licence: MIT, Zalando SE (embedded/LICENSE).

Embedded: the first 1,000 training images of each class in file order (10,000, kept in file order) and the
whole test set (10,000), written by scripts/make_fashion_mnist_subset.py. With `full: true` the 60,000
training images are read from the four original files in the user's data folder.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.entry import Entry, Pixels, Source

if TYPE_CHECKING:
    import numpy as np

EMBEDDED = Path(__file__).parent / "embedded" / "fashion_mnist.npz"
EMBEDDED_SHA256 = "fd850ae6f2cbae2aebb9fe0219b3c2bf96211d289d42bc1b3a010d26a5848699"
IMAGES_PER_CLASS = 1000
CLASSES = 10
SIDE = 28
IDX_FILES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}


def read_embedded(path: Path = EMBEDDED) -> dict[str, np.ndarray]:
    """The embedded arrays: images (N, 28, 28) uint8 and labels (N,) uint8 of `train` and `test`.

    Raises:
        ValueError: the contents are not the ones that were shipped.
    """
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in IDX_FILES}
    found = content_sha256(arrays)
    if found != EMBEDDED_SHA256:
        raise ValueError(
            f"{path} is damaged: the sha256 of its arrays is {found}, expected {EMBEDDED_SHA256}. "
            "Install the package again, or rebuild the file with scripts/make_fashion_mnist_subset.py."
        )
    return arrays


def read_idx_files(folder: Path) -> dict[str, np.ndarray]:
    """The four original files as arrays (see `read_embedded`).

    Raises:
        FileNotFoundError: a file is not there; the message says which.
        ValueError: a file is not in the IDX format.
    """
    return {name: read_idx(folder / file) for name, file in IDX_FILES.items()}


def read_idx(path: Path) -> np.ndarray:
    """One gzipped IDX file of unsigned bytes. Format: LeCun, "The MNIST database", the IDX file format."""
    import numpy as np

    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes (starts with {data[:4].hex()})")
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", count=dimensions, offset=4).astype(int)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    if values.size != shape.prod():
        raise ValueError(
            f"{path} is cut off: {values.size} bytes of pixels or labels, expected {shape.prod()}"
        )
    return values.reshape(shape)


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
    for name in IDX_FILES:
        total.update(f"{name} {arrays[name].shape}\n".encode())
        total.update(arrays[name].tobytes())
    return total.hexdigest()


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    if not args["full"]:
        return None
    folder = data_dir / "fashion_mnist"
    absent = [name for name in IDX_FILES.values() if not (folder / name).is_file()]
    if not absent:
        return None
    return (
        f"fashion_mnist with full: true needs {', '.join(absent)} in {folder} "
        "(the original files, from github.com/zalandoresearch/fashion-mnist). "
        "With full: false the embedded 10,000 training images are used."
    )


def _load(args: Mapping[str, Any], data_dir: Path) -> Source:
    arrays = read_idx_files(data_dir / "fashion_mnist") if args["full"] else read_embedded()

    def part(name: str) -> Pixels:
        return Pixels(
            images=arrays[f"{name}_images"][..., None], labels=arrays[f"{name}_labels"].astype("int64")
        )

    return Source(train=part("train"), test=part("test"), classes=CLASSES)


def _validate(args: Mapping[str, Any]) -> None:
    if not isinstance(args["full"], bool):
        raise ValueError(f"fashion_mnist: full must be true or false, not {args['full']!r}")


# mean and std: over the pixels of the 60,000 training images
ENTRY = Entry(
    name="fashion_mnist",
    args={"full": False},
    channels=1,
    mean=(0.2860, 0.2860, 0.2860),
    std=(0.3530, 0.3530, 0.3530),
    missing=_missing,
    load=_load,
    validate=_validate,
    count_classes=lambda args, data_dir: CLASSES,
    classes=CLASSES,
    train_images=IMAGES_PER_CLASS * CLASSES,
    test_images=10_000,
)
