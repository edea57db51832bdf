"""Files of arrays: both parts as they are, or one that is split; every wrong file gets one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data import arrays, count_classes, load, look_at_data, missing_data

RNG = np.random.default_rng(0)


def images(count: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, *(shape or (8, 8, 3))), dtype=np.uint8)


def med(**changed: Any) -> dict[str, Any]:
    """As MedMNIST hands them out: labels (N, 1), of type uint8 or int64."""
    parts = {"train": 12, "val": 6, "test": 9}
    made: dict[str, Any] = {f"{part}_images": images(count) for part, count in parts.items()}
    made |= {f"{part}_labels": np.arange(count, dtype=np.uint8)[:, None] % 3 for part, count in parts.items()}
    return {name: value for name, value in (made | changed).items() if value is not None}


def write(folder: Path, **content: Any) -> dict[str, Any]:
    np.savez(folder / "a.npz", **content)
    return {"file": "a.npz"}


def loaded(folder: Path, args: dict[str, Any]) -> Any:
    return load("npz", args, train_images=None, test_images=None, data_dir=folder)


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_file_as_medmnist_has_it(tmp_path: Path, part: str):
    content = med()
    args = write(tmp_path, **content) | {"test": part}
    data = loaded(tmp_path, args)
    assert data.classes == count_classes("npz", args, tmp_path) == 3
    np.testing.assert_array_equal(data.train.images.array, content["train_images"])
    np.testing.assert_array_equal(data.test.images.array, content[f"{part}_images"])
    assert data.test.labels.tolist() == content[f"{part}_labels"][:, 0].tolist()
    pixels = content["train_images"] / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)))


def test_grey_images_have_one_channel_and_one_normalisation(tmp_path: Path):
    grey = {f"{part}_images": images(count, 8, 8) for part, count in (("train", 12), ("test", 9))}
    data = loaded(tmp_path, write(tmp_path, **med(**grey)))
    assert data.train.images.channels == 1
    assert len({*data.mean}) == len({*data.std}) == 1


def test_one_part_is_split_by_class_the_same_for_everyone(tmp_path: Path):
    labels = np.array([0] * 20 + [1] * 10 + [2] * 2 + [3])
    args = write(tmp_path, images=images(33), labels=labels)
    first, again = loaded(tmp_path, args), loaded(tmp_path, dict(args))
    assert np.bincount(first.test.labels, minlength=4).tolist() == [4, 2, 1, 0]
    assert len(first.train.labels) + len(first.test.labels) == 33
    assert first.fingerprint == again.fingerprint
    assert first.left_out == look_at_data("npz", args, tmp_path).notes
    assert first.left_out[0].startswith(
        "a.npz is split: 7 of 33 images, 0.2 of each class drawn by split_seed 0"
    )
    assert first.left_out[0].endswith("; 1 of its classes have one image each, which is trained on")
    assert first.fingerprint != loaded(tmp_path, args | {"split_seed": 1}).fingerprint
    assert len(loaded(tmp_path, args | {"test_share": 0.5}).test.labels) == 10 + 5 + 1
    assert count_classes("npz", args, tmp_path) == 4


def test_which_images_are_held_out_never_changes():
    """Pinned: they are part of what a run is."""
    held = arrays.stratified(np.arange(20) % 2, 0.2, 0)
    assert np.flatnonzero(held).tolist() == PINNED


PINNED = [0, 3, 9, 16]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"train_images": None}, "has no array train_images; arrays of images and labels in it: test_images"),
        (
            {"test_images": images(9).astype(float)},
            r"test_images is \(9, 8, 8, 3\) of type float64; expected",
        ),
        ({"train_images": images(12, 8)}, r"train_images is \(12, 8\) of type uint8; expected"),
        ({"train_images": images(12, 8, 8, 4)}, r"expected \(N, H, W\) or \(N, H, W, 1 or 3\) of uint8"),
        ({"train_images": images(5)}, "5 train_images and 12 train_labels; there must be as many of both"),
        ({"train_labels": np.zeros((12, 14), int)}, "several labels an image are not one class each"),
        ({"train_labels": np.zeros(12)}, "train_labels is of type float64; labels are whole numbers from 0"),
        ({"train_labels": np.full(12, -1)}, "train_labels goes from -1 to -1; labels are classes from 0"),
        ({"test_images": images(9, 8, 8)}, "one part has grey images, the other has colours"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(
    tmp_path: Path, changed: dict[str, Any], says: str
):
    with pytest.raises(ValueError, match=says):
        loaded(tmp_path, write(tmp_path, **med(**changed)))


@pytest.mark.parametrize(
    "content", [b"", b"no zip", b"PK\x03\x04 cut short"], ids=["empty", "other", "cut short"]
)
def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz is no \.npz file of plain arrays"):
        loaded(tmp_path, {"file": "a.npz"})


def test_nothing_is_unpickled(tmp_path: Path):
    args = write(tmp_path, **med(train_labels=np.array([{"a": 1}] * 12, dtype=object)))
    with pytest.raises(ValueError, match="plain arrays: Object arrays"):
        loaded(tmp_path, args)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "file must be the name of a file"),
        ({"file": "a.npz", "test": "train"}, "must be test or val, not 'train'"),
        ({"file": "a.npz", "test_share": 1}, "test_share must be a number between 0 and 1, not 1"),
        ({"file": "a.npz", "split_seed": -1}, "split_seed must be a whole number from 0, not -1"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, args: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        missing_data("npz", args, tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    assert missing_data("npz", {"file": "b.npz"}, tmp_path) == f"npz needs the file {tmp_path / 'b.npz'}"
