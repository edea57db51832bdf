"""The IDX format of MNIST and its kin: one file of images and one of labels, for training and for testing.

Format: LeCun, Cortes and Burges, "The MNIST database of handwritten digits": two zero bytes, the type of the
values (0x08: unsigned bytes), the number of dimensions, each dimension as a big-endian 32-bit number, values.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.entry import Pixels, Source

if TYPE_CHECKING:
    import numpy as np

LARGEST = 2**30  # bytes of one unzipped file
FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def find_idx(folder: Path, name: str) -> Path | None:
    """The file `name` of the folder, or its gzipped form; None where there is neither."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def absent_idx(folder: Path) -> list[str]:
    """The names of the four files that are in the folder neither plain nor gzipped."""
    return [name for name in FILES.values() if find_idx(folder, name) is None]


def read_idx_files(folder: Path) -> dict[str, np.ndarray]:
    """The four files as arrays: images (N, H, W) uint8 and labels (N,) uint8 of `train` and `test`.

    Raises:
        FileNotFoundError: a file is not there; the message says which.
        ValueError: a file is not in the IDX format, or images and labels do not match.
    """
    arrays = {}
    for key, name in FILES.items():
        path = find_idx(folder, name)
        if path is None:
            raise FileNotFoundError(f"{folder / name} is not there, nor is {name}.gz")
        arrays[key] = read_idx(path)
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(
                f"{folder}: the {part} files do not belong together: images of shape {images.shape}, "
                f"labels of shape {labels.shape}; expected (N, height, width) and (N,)"
            )
    return arrays


def read_idx(path: Path) -> np.ndarray:
    """One IDX file of unsigned bytes, plain or gzipped.

    Raises:
        ValueError: it is damaged or in another format.
    """
    import numpy as np

    data = _unzipped(path) if path.suffix == ".gz" else path.read_bytes()
    if len(data) < 8 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes (starts with {data[:4].hex()})")
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", count=dimensions, offset=4).astype(int)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    if values.size != shape.prod():
        raise ValueError(
            f"{path} is cut off: {values.size} bytes of pixels or labels, expected {shape.prod()}"
        )
    return values.reshape(shape)


def _unzipped(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)  # a few kilobytes can be zipped from any number of bytes
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from None
    if len(data) > LARGEST:
        raise ValueError(f"{path} unzips to more than {LARGEST:,} bytes, and MNIST's to 47,040,016")
    return data


def grey_source(arrays: Mapping[str, np.ndarray], classes: int) -> Source:
    """Arrays as `read_idx_files` gives them, as a data set of grey images."""

    def part(name: str) -> Pixels:
        return Pixels(
            images=arrays[f"{name}_images"][..., None], labels=arrays[f"{name}_labels"].astype("int64")
        )

    return Source(train=part("train"), test=part("test"), classes=classes)
