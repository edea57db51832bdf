"""Data sets in a few files: CIFAR, MNIST, the IDX format, and generated pixels for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.entry import IMAGENET_MEAN, IMAGENET_STD, RGB, Entry, Facts, Pixels, Source
from harness.errors import unknown

if TYPE_CHECKING:
    import numpy as np

# Labels replaced by random ones, to see how much a network memorises: the argument `corrupt`.
#
# Paper: zhang2018mixup, arXiv:1710.09412, Sec. 3.4, after Zhang et al. 2017, arXiv:1611.03530: in the code
# that both use, each training label is replaced with probability `corrupt` by one that is drawn uniformly
# from all classes, its own among them. Test labels stay. The draws are a function of the image's number in
# the training part: every seed trains on the same labels, and what is replaced at 0.2 is so at 0.5 too.


def validate_corrupt(name: str, share: Any) -> None:
    """Raises:
    ValueError: it is no number from 0 to 1.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(
            f"{name}: corrupt, the share of training labels that are replaced, must be a number from 0 to 1, "
            f"not {share!r}"
        )


def corrupted(source: Source, share: float) -> Source:
    """The same data set with a share of its training labels replaced."""
    if not share:
        return source
    assert isinstance(source.train, Pixels)
    labels = replaced_labels(source.train.labels, share, source.classes)
    return replace(source, train=replace(source.train, labels=labels))


def replaced_labels(labels: np.ndarray, share: float, classes: int) -> np.ndarray:
    """Labels (N,) int64, each replaced with probability `share` by a uniform draw from `classes`."""
    import numpy as np

    from harness.data.augment import uniforms

    chance, drawn = uniforms(0, 0, np.arange(len(labels)), 2, "corrupt").T
    return np.where(chance < share, (drawn * classes).astype(np.int64), labels)


# CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32x32 pixels, from the user's files.
#
# Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", technical report,
# Toronto. Nothing is downloaded; torchvision checks the files' md5 before it reads them.


FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}


def _missing_cifar(name: str, data_dir: Path) -> str | None:
    folder = data_dir / name / FOLDERS[name]
    if folder.is_dir():
        return None
    return (
        f"{name} needs the folder {folder}: unpack {ARCHIVES[name]} "
        f"(from www.cs.toronto.edu/~kriz/cifar.html) into {data_dir / name}"
    )


def _load_cifar(name: str, classes: int, data_dir: Path) -> Source:
    from harness.data.loading import decoded_once

    def part(split: str) -> Pixels:
        cache = data_dir / name / ".decoded"
        images = decoded_once(cache / f"{split}_images.npy", lambda: _read(name, split, data_dir)[0])
        labels = decoded_once(cache / f"{split}_labels.npy", lambda: _read(name, split, data_dir)[1])
        return Pixels(images=images, labels=labels)

    return Source(train=part("train"), test=part("test"), classes=classes)


def _read(name: str, split: str, data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    from harness.data.torchvision_import import torchvision

    dataset = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name]
    try:
        made = getattr(torchvision.datasets, dataset)(
            root=str(data_dir / name), train=split == "train", download=False
        )
    except RuntimeError as error:
        raise ValueError(f"{data_dir / name / FOLDERS[name]} is incomplete or damaged: {error}") from error
    return made.data, np.array(made.targets, np.int64)


def _entry(name: str, classes: int, mean: RGB, std: RGB) -> Entry:
    def missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
        return _missing_cifar(name, data_dir)

    def load(args: Mapping[str, Any], data_dir: Path) -> Source:
        return corrupted(_load_cifar(name, classes, data_dir), args["corrupt"])

    def validate(args: Mapping[str, Any]) -> None:
        validate_corrupt(name, args["corrupt"])

    return Entry(
        name=name,
        args={"corrupt": 0.0},
        channels=3,
        mean=mean,
        std=std,
        missing=missing,
        load=load,
        validate=validate,
        count_classes=lambda args, data_dir: classes,
        classes=classes,
        train_images=50_000,
        test_images=10_000,
        said_if_set=frozenset({"corrupt"}),
        of_a_row=frozenset({"corrupt"}),
    )


# mean and std: over the pixels of the 50,000 training images
CIFAR10 = _entry("cifar10", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = _entry("cifar100", 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


# Generated pixels for benchmarks and tests, never for a report: a pattern per class under uniform noise.


PATTERN_CELLS = 4  # the pattern of a class has 4 x 4 cells
PATTERN_SEED = 20190601


def draw_images(labels: np.ndarray, args: Mapping[str, Any], part: int) -> np.ndarray:
    """(N, size, size, channels) uint8: half the pattern of the label's class, half noise; a pure function."""
    import numpy as np

    side, channels = args["size"], args["channels"]
    patterns = np.random.Generator(np.random.Philox(PATTERN_SEED)).integers(
        0, 128, (args["classes"], PATTERN_CELLS, PATTERN_CELLS, channels), dtype=np.uint8
    )
    cell = np.arange(side) * PATTERN_CELLS // side
    noise = np.random.Generator(np.random.Philox([PATTERN_SEED, part + 1])).integers(
        0, 128, (len(labels), side, side, channels), dtype=np.uint8
    )
    return patterns[:, cell][:, :, cell][labels] + noise


def _load_generated(args: Mapping[str, Any], data_dir: Path) -> Source:
    import numpy as np

    def part(number: int, count: int) -> Pixels:
        labels = np.arange(count, dtype=np.int64) % args["classes"]
        return Pixels(images=draw_images(labels, args, number), labels=labels)

    return Source(train=part(0, args["train"]), test=part(1, args["test"]), classes=args["classes"])


def _validate_generated(args: Mapping[str, Any]) -> None:
    for key in ("classes", "size", "train", "test"):
        if not isinstance(args[key], int) or isinstance(args[key], bool) or args[key] < 1:
            raise ValueError(f"generated: {key} must be a whole number of at least 1, not {args[key]!r}")
    if args["channels"] not in (1, 3):
        raise ValueError(f"generated: channels must be 1 or 3, not {args['channels']!r}")
    if args["classes"] < 2:
        raise ValueError("generated: classes must be at least 2")


GENERATED = Entry(
    name="generated",
    args={"classes": 10, "size": 32, "channels": 3, "train": 1024, "test": 256},
    channels=3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    missing=lambda args, data_dir: None,
    load=_load_generated,
    validate=_validate_generated,
    count_classes=lambda args, data_dir: args["classes"],
    for_reports=False,
    counts=lambda args: (args["classes"], args["train"], args["test"]),
    is_fixed=lambda args: True,
)


# The IDX format of MNIST and its kin: one file of images and one of labels, for training and for testing.
#
# Format: LeCun, Cortes and Burges, "The MNIST database of handwritten digits": two zero bytes, the type of
# the values (0x08: unsigned bytes), the number of dimensions, each dimension as a big-endian 32-bit number,
# values.


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
    import gzip
    import zlib

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


# MNIST: 28x28 grey images of handwritten digits in 10 classes, 60,000 + 10,000, from the user's files.
#
# Source: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition",
# Proceedings of the IEEE 86(11). Nothing is downloaded.
#
# - binary: every pixel is black or white, white from half of the largest value on (ioffe2015batch, Sec. 4.1,
#   says "binary" and gives no threshold).


CLASSES = 10
WHITE_FROM = 128  # of 0..255


def _missing_mnist(args: Mapping[str, Any], data_dir: Path) -> str | None:
    folder = data_dir / "mnist"
    absent = absent_idx(folder)
    if not absent:
        return None
    return (
        f"mnist needs the {len(FILES)} original files in {folder}, each plain or with .gz at its end: "
        f"{', '.join(FILES.values())}. Not there: {', '.join(absent)}. Nothing is downloaded here; "
        "torchvision.datasets.MNIST leaves them in its folder MNIST/raw."
    )


def _load_mnist(args: Mapping[str, Any], data_dir: Path) -> Source:
    arrays = read_idx_files(data_dir / "mnist")
    if args["binary"]:
        for part in ("train", "test"):
            arrays[f"{part}_images"] = black_and_white(arrays[f"{part}_images"])
    return grey_source(arrays, CLASSES)


def black_and_white(images: np.ndarray) -> np.ndarray:
    """Pixels of 0..255, any shape, uint8 -> 0 and 255."""
    return (images >= WHITE_FROM).astype("uint8") * 255


def _validate_mnist(args: Mapping[str, Any]) -> None:
    if not isinstance(args["binary"], bool):
        raise ValueError(f"mnist: binary must be true or false, not {args['binary']!r}")


# mean and std: over the pixels of the 60,000 training images, of the grey ones for binary ones too
MNIST = Entry(
    name="mnist",
    args={"binary": False},
    channels=1,
    mean=(0.1307, 0.1307, 0.1307),
    std=(0.3081, 0.3081, 0.3081),
    missing=_missing_mnist,
    load=_load_mnist,
    validate=_validate_mnist,
    count_classes=lambda args, data_dir: CLASSES,
    classes=CLASSES,
    train_images=60_000,
    test_images=10_000,
    said_if_set=frozenset({"binary"}),
)


# Fashion-MNIST: 28x28 grey photographs of clothes in 10 balanced classes.
#
# Source: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
# Learning Algorithms", arXiv:1708.07747. Licence: MIT, Zalando SE (embedded/LICENSE).
#
# Embedded: the first 1,000 training images of each class in file order (10,000, kept in file order) and the
# whole test set (10,000), written by scripts/make_fashion_mnist_subset.py. With `full: true` the 60,000
# training images are read from the four original files in the user's data folder.
#
# `part` keeps five of the ten classes, renumbered 0-4: two parts without a class in common, for fine-tuning.
#
# `held_out` is for tuning, which may never see the test set: so many training images, equally many of each
# class and the last of it in file order, are the test set, and training does without them.
#
# `corrupt` comes last: the labels of the test part, held out or not, are the true ones.


EMBEDDED = Path(__file__).parent / "embedded" / "fashion_mnist.npz"
EMBEDDED_SHA256 = "fd850ae6f2cbae2aebb9fe0219b3c2bf96211d289d42bc1b3a010d26a5848699"
IMAGES_PER_CLASS = 1000
FASHION_CLASSES = 10
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
    chosen = np.sort(
        np.concatenate([np.flatnonzero(labels == c)[:IMAGES_PER_CLASS] for c in range(FASHION_CLASSES)])
    )
    return {
        **arrays,
        "train_images": arrays["train_images"][chosen],
        "train_labels": labels[chosen],
    }


def content_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, shapes and bytes, so that it does not depend on the compressor's version."""
    import hashlib  # of whole arrays: OpenSSL is several times faster, and takes 3 ms to load

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


def hold_out(arrays: Mapping[str, np.ndarray], per_class: int) -> dict[str, np.ndarray]:
    """The training images alone: the last `per_class` of each class, in file order, become the test set."""
    import numpy as np

    images, labels = arrays["train_images"], arrays["train_labels"]
    last = np.concatenate([np.flatnonzero(labels == label)[-per_class:] for label in np.unique(labels)])
    held = np.zeros(len(labels), dtype=bool)
    held[last] = True
    return {
        "train_images": images[~held],
        "train_labels": labels[~held],
        "test_images": images[held],
        "test_labels": labels[held],
    }


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
    if len(classes) < FASHION_CLASSES:
        arrays = keep_classes(arrays, classes)
    if args["held_out"]:
        arrays = hold_out(arrays, args["held_out"] // len(classes))
    return corrupted(grey_source(arrays, len(classes)), args["corrupt"])


def _validate(args: Mapping[str, Any]) -> None:
    if not isinstance(args["full"], bool):
        raise ValueError(f"fashion_mnist: full must be true or false, not {args['full']!r}")
    if args["part"] not in list(PARTS):
        raise ValueError(f"fashion_mnist: {unknown('part', str(args['part']), PARTS)}")
    validate_corrupt("fashion_mnist", args["corrupt"])
    classes, train_images, _ = _all_counts(args)
    held = args["held_out"]
    most = train_images - classes
    if isinstance(held, bool) or not isinstance(held, int) or held % classes or not 0 <= held <= most:
        raise ValueError(
            f"fashion_mnist: held_out must be a multiple of the {classes} classes from 0 to {most:,}, "
            f"got {held!r}"
        )


def _all_counts(args: Mapping[str, Any]) -> tuple[int, int, int]:
    classes = len(PARTS[args["part"]])
    per_class = FULL_PER_CLASS if args["full"] else IMAGES_PER_CLASS
    return classes, classes * per_class, classes * TEST_PER_CLASS


def _counts(args: Mapping[str, Any]) -> Facts:
    classes, train_images, test_images = _all_counts(args)
    held = args["held_out"]
    return classes, train_images - held, held or test_images


# mean and std: over the pixels of the 60,000 training images, for the parts too: one normalisation for all
ENTRY = Entry(
    name="fashion_mnist",
    args={"full": False, "part": "all", "held_out": 0, "corrupt": 0.0},
    channels=1,
    mean=(0.2860, 0.2860, 0.2860),
    std=(0.3530, 0.3530, 0.3530),
    missing=_missing,
    load=_load,
    validate=_validate,
    count_classes=lambda args, data_dir: len(PARTS[args["part"]]),
    classes=FASHION_CLASSES,
    train_images=IMAGES_PER_CLASS * FASHION_CLASSES,
    test_images=TEST_PER_CLASS * FASHION_CLASSES,
    counts=_counts,
    is_fixed=lambda args: not args["full"],
    said_if_set=frozenset({"held_out", "corrupt"}),
    of_a_row=frozenset({"corrupt"}),
)
