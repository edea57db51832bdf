"""torchvision's sets as they lie on disk: what is read is what torchvision's own classes give."""

from __future__ import annotations

import bz2
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from harness.data import DATASETS, arrays, load, look_at_data, missing_data
from harness.data.sets import FILES
from harness.data.torchvision_import import torchvision
from tests.data.sets import random_pixels, write_idx

COUNT = 6  # images of a part


def photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_pixels(1, 9, 12, 3, seed)[0]).save(path, "PNG")  # no loss, whatever it is called
    return path


def photos(root: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        photo(root / name, seed)


def lines(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts))


def mnist(root: Path) -> None:
    for seed, file in enumerate(FILES.values()):
        (root / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
        is_images = "images" in file
        array = (
            random_pixels(COUNT, 28, 28, 1, seed)[..., 0] if is_images else np.arange(COUNT, dtype=np.uint8)
        )
        write_idx(root / "MNIST" / "raw" / file, array)


def cifar(root: Path) -> None:
    for seed, file in enumerate(("train", "test", "meta")):
        (root / "cifar-100-python").mkdir(exist_ok=True)
        data = random_pixels(COUNT, 1, 1, 3072, seed).reshape(COUNT, -1)
        content = {
            "data": data,
            "fine_labels": list(range(COUNT)),
            "fine_label_names": list(map(str, range(100))),
        }
        (root / "cifar-100-python" / file).write_bytes(pickle.dumps(content))


def svhn(root: Path) -> None:
    for seed, part in enumerate(("train", "test")):
        pixels = random_pixels(COUNT, 32, 32, 3, seed).transpose(1, 2, 3, 0)
        savemat(root / f"{part}_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [2], [3], [9], [10]])})


def stl10(root: Path) -> None:
    (root / "stl10_binary").mkdir()
    for seed, part in enumerate(("train", "test")):
        random_pixels(COUNT, 96, 96, 3, seed).tofile(root / "stl10_binary" / f"{part}_X.bin")
        np.arange(1, COUNT + 1, dtype=np.uint8).tofile(root / "stl10_binary" / f"{part}_y.bin")


def usps(root: Path) -> None:
    for seed, name in enumerate(("usps.bz2", "usps.t.bz2")):
        values = np.random.default_rng(seed).uniform(-1, 1, (COUNT, 256))
        rows = [f"{label} " + " ".join(f"{i}:{v:.6f}" for i, v in enumerate(each, 1)) + " \n"
                for label, each in enumerate(values, 1)]  # fmt: skip
        (root / name).write_bytes(bz2.compress("".join(rows).encode()))


def dtd(root: Path) -> None:
    names = [f"{texture}/{texture}_{n}.jpg" for texture in ("dotted", "banded") for n in range(3)]
    photos(root / "dtd" / "dtd" / "images", names)
    for part in ("train1", "test1"):
        lines(root / "dtd" / "dtd" / "labels" / f"{part}.txt", names if part == "train1" else names[::-1])


def flowers(root: Path) -> None:
    folder = root / "flowers-102"
    photos(folder / "jpg", [f"image_{number:05d}.jpg" for number in range(1, 7)])
    savemat(folder / "setid.mat", {"trnid": [[1, 3, 5]], "valid": [[2]], "tstid": [[6, 4]]})
    savemat(folder / "imagelabels.mat", {"labels": [[1, 2, 3, 102, 5, 6]]})


def food(root: Path) -> None:
    names = {"pie": ["pie/1", "pie/2"], "soup": ["soup/1"]}
    photos(root / "food-101" / "images", [f"{name}.jpg" for each in names.values() for name in each])
    for part in ("train", "test"):
        lines(root / "food-101" / "meta" / f"{part}.json", [json.dumps(names)])


def signs(root: Path) -> None:
    photos(root / "gtsrb" / "GTSRB" / "Training", [f"{label:05d}/0.ppm" for label in range(3)])
    photos(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images", ["0.ppm", "1.ppm"])
    lines(root / "gtsrb" / "GT-final_test.csv", ["Filename;ClassId", "0.ppm;2", "1.ppm;0"])


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    photos(folder / "images", ["Abyssinian_1.jpg", "pug_2.jpg"])
    for part in ("trainval", "test"):
        lines(folder / "annotations" / f"{part}.txt", ["Abyssinian_1 1 1 1", "pug_2 2 2 1"])


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    photos(data / "images", ["1.jpg", "2.jpg"])
    lines(data / "variants.txt", ["707-320", "A 340"])
    for part in ("trainval", "test"):
        lines(data / f"images_variant_{part}.txt", ["1 A 340", "2 707-320"])


def by_class(place: str, parts: Sequence[str], names: Sequence[str], suffix: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for part in parts:
            photos(root / place / part, [f"{name}/{n}.{suffix}" for name in names for n in range(2)])

    return write


def scenes(root: Path) -> None:
    photos(root / "SUN397", [f"{name}/sun_{n}.jpg" for name in ("a/abbey", "z/zoo/in") for n in "ba"])
    lines(root / "SUN397" / "ClassName.txt", ["/a/abbey", "/z/zoo/in"])


def cars(root: Path) -> None:
    folder = root / "stanford_cars"
    kind = [("fname", object), ("class", object)]
    for part, place in (("train", "devkit/cars_train_annos"), ("test", "cars_test_annos_withlabels")):
        photos(folder / f"cars_{part}", ["1.jpg", "2.jpg"])
        (folder / "devkit").mkdir(exist_ok=True)
        savemat(folder / f"{place}.mat", {"annotations": np.array([("1.jpg", 2), ("2.jpg", 1)], kind)})
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["a", "b"], object)})


MAKE = {
    "CIFAR100": cifar, "DTD": dtd, "EuroSAT": by_class("eurosat", ("2750",), ("Forest", "River"), "jpg"),
    "Country211": by_class("country211", ("train", "valid", "test"), ("AD", "ZW"), "jpg"),
    "FGVCAircraft": aircraft, "Flowers102": flowers, "Food101": food, "GTSRB": signs, "MNIST": mnist,
    "Imagenette": by_class("imagenette2", ("train", "val"), ("n01440764", "n03888257"), "jpeg"),
    "OxfordIIITPet": pets, "STL10": stl10, "SUN397": scenes, "SVHN": svhn, "StanfordCars": cars, "USPS": usps,
    "RenderedSST2": by_class("rendered-sst2", ("train", "test"), ("negative", "positive"), "png"),
}  # fmt: skip


def no_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's md5 checks, which small files cannot pass."""
    for name in ("CIFAR10", "SVHN", "STL10", "Flowers102"):
        monkeypatch.setattr(getattr(torchvision.datasets, name), "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_load_meta", lambda self: None)


@pytest.mark.parametrize("name", MAKE)
def test_what_is_read_is_what_torchvision_reads(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_checksums(monkeypatch)
    place = tmp_path / arrays.SHELVES[name].place
    says = missing_data(f"torchvision/{name}", {}, tmp_path) or ""
    assert says.startswith(f"torchvision/{name} needs {place}, as torchvision.datasets.{name}(")
    MAKE[name](tmp_path)
    args = {"test_share": 0.5} if arrays.SHELVES[name].parts == arrays.ALL else {}
    data = load(f"torchvision/{name}", args, train_images=None, test_images=None, data_dir=tmp_path)
    theirs: list[tuple[Any, int]] = []
    for words in arrays.SHELVES[name].parts:
        theirs += list(getattr(torchvision.datasets, name)(str(tmp_path), **words))
    ours = [
        (pixels_of(part.images, index), int(part.labels[index]))
        for part in (data.train, data.test)
        for index in range(len(part.labels))
    ]
    assert len(ours) == len(theirs) > 1
    if args:  # in another order
        assert {each[0].tobytes() for each in ours} == {np.asarray(each[0]).tobytes() for each in theirs}
        assert "is split: 2 of 4 images" in data.left_out[0]
        assert look_at_data(f"torchvision/{name}", args, tmp_path).notes == data.left_out
        assert "has no test part; `test_share: 0.2`" in (
            missing_data(f"torchvision/{name}", {}, tmp_path) or ""
        )
        return
    for (pixels, label), (image, said) in zip(ours, theirs, strict=True):
        assert label == said
        np.testing.assert_array_equal(pixels, np.asarray(image))


def pixels_of(images: Any, index: int) -> np.ndarray:
    if not hasattr(images, "array"):
        return images.pixels(index)
    found = images.array[index]
    return found[..., 0] if found.shape[-1] == 1 else found


def test_a_damaged_set_is_one_sentence_and_every_entry_has_its_facts(tmp_path: Path) -> None:
    mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / FILES["test_labels"]).unlink()
    with pytest.raises(ValueError, match=r"MNIST/raw is incomplete or damaged: Dataset not found"):
        load("torchvision/MNIST", {}, train_images=None, test_images=None, data_dir=tmp_path)
    for name, shelf in arrays.SHELVES.items():
        assert hasattr(torchvision.datasets, name)
        assert DATASETS[f"torchvision/{name}"].facts({}) == shelf.facts
    with pytest.raises(ValueError, match="did you mean 'torchvision/CIFAR10"):
        missing_data("torchvision/cifar10", {}, tmp_path)
