"""Data sets, listed by hand. Importing this package imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.entry import Entry, Look
from harness.errors import CodeTable, unknown

if TYPE_CHECKING:
    from harness.data.entry import DataSet

TORCHVISION = (
    *("CIFAR10", "CIFAR100", "Country211", "DTD", "EMNIST", "EuroSAT", "FGVCAircraft", "FashionMNIST"),
    *("Flowers102", "Food101", "GTSRB", "Imagenette", "KMNIST", "MNIST", "OxfordIIITPet", "RenderedSST2"),
    *("STL10", "SUN397", "SVHN", "StanfordCars", "USPS"),
)
DATASETS: CodeTable[Entry] = CodeTable(
    __name__,
    {
        "fashion_mnist": "sets.ENTRY",
        "imagefolder": "imagefolder.IMAGEFOLDER",
        "cifar10": "sets.CIFAR10",
        "cifar100": "sets.CIFAR100",
        "csv": "tables.CSV",
        "huggingface": "huggingface.HUGGINGFACE",
        "imagenet": "imagefolder.IMAGENET",
        "mnist": "sets.MNIST",
        "npz": "arrays.NPZ",
        "packed": "packed.PACKED",
        "places365": "imagefolder.PLACES365",
        "generated": "sets.GENERATED",
        **{f"torchvision/{name}": "arrays.TORCHVISION" for name in TORCHVISION},
    },
)


def validate_data(name: str, args: Mapping[str, Any]) -> None:
    """Check a data set's name and arguments without touching its files.

    Raises:
        ValueError: in words for the user: what is wrong, the nearest valid name, the valid ones.
    """
    if name not in DATASETS:
        raise ValueError(unknown("data set", name, DATASETS))
    entry = DATASETS[name]
    for key in args:
        if key not in entry.args:
            raise ValueError(unknown(f"argument of the data set {name}", key, entry.args))
    entry.validate({**entry.args, **args})


def missing_data(name: str, args: Mapping[str, Any], data_dir: Path) -> str | None:
    """None where the data set is ready on this machine, else what to put where."""
    validate_data(name, args)
    entry = DATASETS[name]
    return entry.missing({**entry.args, **args}, data_dir)


def look_at_data(name: str, args: Mapping[str, Any], data_dir: Path) -> Look:
    """What is wrong or worth knowing about files that are here; nothing where no look is needed."""
    validate_data(name, args)
    entry = DATASETS[name]
    filled = {**entry.args, **args}
    if entry.look is None or entry.missing(filled, data_dir) is not None:
        return Look()
    try:
        return entry.look(filled, data_dir)
    except (OSError, ValueError) as error:
        return Look(problems=(f"{name}: {error}",))


def count_classes(name: str, args: Mapping[str, Any], data_dir: Path) -> int:
    """The number of classes; lists folders at most, reads no image."""
    validate_data(name, args)
    entry = DATASETS[name]
    return entry.count_classes({**entry.args, **args}, data_dir)


class ImageCounts:
    """How many images a data set has: as is known of it, else of the user's files, whose names are listed
    once for each set."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._found: dict[str, tuple[int | None, int | None]] = {}

    def __call__(self, name: str, args: Mapping[str, Any]) -> tuple[int | None, int | None]:
        """Training and test images; None where the files are not here, not in order, or have to be read."""
        if name not in DATASETS:
            return None, None
        _, train, test = DATASETS[name].facts(args)
        if train and test:
            return train, test
        key = f"{name} {sorted(args.items())}"
        if key not in self._found:
            self._found[key] = self._listed(DATASETS[name], {**DATASETS[name].args, **args})
        listed = self._found[key]
        return train or listed[0], test or listed[1]

    def _listed(self, entry: Entry, args: Mapping[str, Any]) -> tuple[int | None, int | None]:
        if entry.listed is None or entry.missing(args, self._data_dir) is not None:
            return None, None
        try:
            source = entry.listed(args, self._data_dir)
        except (OSError, ValueError):  # said when a run reads them
            return None, None
        return len(source.train.labels), len(source.test.labels)


def load(
    name: str,
    args: Mapping[str, Any],
    *,
    train_images: int | None,
    test_images: int | None,
    data_dir: Path,
) -> DataSet:
    """Load a data set; a second call with the same arguments in one process returns the same object.

    `train_images`, `test_images`: None for all, else a fixed class-balanced subset: the first of each class
    in the set's own order, kept in that order.

    Raises:
        ValueError: unknown name or argument, a subset larger than the set, or a damaged file.
        FileNotFoundError: the data is not there; the message says what to put where.
    """
    validate_data(name, args)
    from harness.data.loading import load_cached

    filled = {**DATASETS[name].args, **args}
    return load_cached(DATASETS[name], filled, (train_images, test_images), Path(data_dir).resolve())
