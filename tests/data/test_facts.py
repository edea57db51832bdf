"""What a data set says of itself before it is read, and the two halves of Fashion-MNIST."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import DATASETS, count_classes, load, sets
from harness.data.entry import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    DataSet,
    Entry,
    Pixels,
    Source,
    no_arguments_to_check,
)
from harness.data.loading import load_cached
from tests.data.sets import write_idx

NOWHERE = Path("no-such-folder")


def halves() -> tuple[DataSet, DataSet, DataSet]:
    every, first, last = (
        load("fashion_mnist", {"part": part}, train_images=None, test_images=None, data_dir=NOWHERE)
        for part in ("all", "first5", "last5")
    )
    return every, first, last


def test_the_two_parts_have_no_class_in_common_and_are_the_whole_set() -> None:
    every, first, last = halves()
    for half, start in ((first, 0), (last, 5)):
        assert half.classes == 5
        for part, whole in ((half.train, every.train), (half.test, every.test)):
            inside = (whole.labels >= start) & (whole.labels < start + 5)
            assert torch.equal(part.labels, whole.labels[inside] - start)
            np.testing.assert_array_equal(part.images.array, whole.images.array[inside.numpy()])
    assert len(first.train.labels) + len(last.train.labels) == len(every.train.labels)
    assert len({every.fingerprint, first.fingerprint, last.fingerprint}) == 3


def test_images_held_out_for_tuning_are_the_last_training_images_of_each_class() -> None:
    every, tuning = (
        load("fashion_mnist", args, train_images=None, test_images=None, data_dir=NOWHERE)
        for args in ({}, {"held_out": 2000})
    )
    assert (len(tuning.train.labels), len(tuning.test.labels)) == (8000, 2000)
    assert tuning.fingerprint != every.fingerprint
    for label in range(10):
        whole = every.train.images.array[(every.train.labels == label).numpy()]
        kept = tuning.train.images.array[(tuning.train.labels == label).numpy()]
        held = tuning.test.images.array[(tuning.test.labels == label).numpy()]
        np.testing.assert_array_equal(np.concatenate([kept, held]), whole)


@pytest.mark.parametrize("held", [-10, 5, 10_000, True, 2.0, "2000"])
def test_what_cannot_be_held_out_is_refused(held: object) -> None:
    with pytest.raises(ValueError, match=r"held_out must be a multiple of the 10 classes from 0 to 9,990"):
        DATASETS["fashion_mnist"].validate({**DATASETS["fashion_mnist"].args, "held_out": held})


@pytest.mark.parametrize(
    "args", [{}, {"part": "all"}, {"part": "first5"}, {"part": "last5"}, {"held_out": 100, "part": "last5"}]
)
def test_the_facts_are_those_of_the_loaded_set(args: dict) -> None:
    data = load("fashion_mnist", args, train_images=None, test_images=None, data_dir=NOWHERE)
    facts = (data.classes, len(data.train.labels), len(data.test.labels))
    assert DATASETS["fashion_mnist"].facts(args) == facts
    assert count_classes("fashion_mnist", args, NOWHERE) == data.classes


def test_a_subset_of_a_part_is_balanced_over_its_five_classes() -> None:
    data = load("fashion_mnist", {"part": "last5"}, train_images=100, test_images=50, data_dir=NOWHERE)
    assert torch.bincount(data.train.labels).tolist() == [20] * 5
    more = load("fashion_mnist", {"part": "last5"}, train_images=5001, test_images=None, data_dir=NOWHERE)
    assert torch.bincount(more.train.labels).tolist() == [1000] * 5


def test_facts_follow_the_arguments_and_are_unknown_for_the_users_files() -> None:
    assert DATASETS["fashion_mnist"].facts({"full": True}) == (10, 60_000, 10_000)
    assert DATASETS["generated"].facts({"train": 7}) == (10, 7, 256)
    assert DATASETS["imagefolder"].facts({"folder": "pets"}) == (None, None, None)
    assert DATASETS["places365"].facts({}) == (365, 1_803_460, 36_500)
    for name, entry in DATASETS.items():
        if entry.counts is not None and name != "generated":
            assert entry.facts({}) == (entry.classes, entry.train_images, entry.test_images)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_read_plain_and_gzipped(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "mnist").mkdir()
    arrays = {
        "train_images": np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "train_labels": np.arange(20, dtype=np.uint8) % 10,
        "test_images": np.zeros((10, 28, 28), np.uint8),
        "test_labels": np.arange(10, dtype=np.uint8),
    }
    for key, name in sets.FILES.items():
        write_idx(tmp_path / "mnist" / f"{name}{suffix}", arrays[key])
    data = load("mnist", {}, train_images=None, test_images=None, data_dir=tmp_path)
    np.testing.assert_array_equal(data.train.images.array[..., 0], arrays["train_images"])
    assert data.train.labels.tolist() == arrays["train_labels"].tolist()
    assert (data.classes, data.train.images.channels) == (10, 1)
    binary = load("mnist", {"binary": True}, train_images=None, test_images=None, data_dir=tmp_path)
    white = arrays["train_images"] >= 128
    np.testing.assert_array_equal(binary.train.images.array[..., 0], np.where(white, 255, 0))
    assert not binary.test.images.array.any()


def test_whether_mnist_is_binary_is_in_a_runs_identity_only_where_it_is() -> None:
    """The argument came after runs on grey digits, whose ids stay (docs/decisions/0022)."""
    assert DATASETS["mnist"].said_if_set == {"binary"}
    assert DATASETS["mnist"].args == {"binary": False}


IDX_LABELS = b"\x00\x00\x08\x01"
DAMAGED_IDX = {
    "cut gzip": (lambda: gzip.compress(bytes(100))[:20], "is not a whole gzip file"),
    "no gzip": (lambda: b"plain text", "is not a whole gzip file"),
    "three bytes": (lambda: gzip.compress(IDX_LABELS[:3]), "is not an IDX file"),
    "images, short header": (lambda: gzip.compress(b"\x00\x00\x08\x03" + bytes(5)), "is not an IDX file"),
    "five of nine labels": (
        lambda: gzip.compress(IDX_LABELS + b"\x00\x00\x00\x09" + bytes(5)),
        "is cut off: 5 bytes",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED_IDX)
def test_damaged_idx_files_are_refused_in_words(tmp_path: Path, damage: str) -> None:
    content, words = DAMAGED_IDX[damage]
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(content())
    with pytest.raises(ValueError, match=words):
        sets.read_idx(path)


def test_idx_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    for key, name in sets.FILES.items():
        shape = (4, 28, 28) if key.endswith("images") else (4 if key.startswith("train") else 3,)
        write_idx(tmp_path / name, np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="the test files do not belong together"):
        sets.read_idx_files(tmp_path)


def from_arrays(labels: list[int], classes: int, images: int | None = None) -> DataSet:
    part = Pixels(
        images=np.zeros((len(labels) if images is None else images, 8, 8, 3), np.uint8),
        labels=np.array(labels, np.int64),
    )
    entry = Entry(
        name=f"mine{labels}{classes}{images}",
        args={},
        channels=3,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        missing=lambda args, data_dir: None,
        load=lambda args, data_dir: Source(train=part, test=part, classes=classes),
        validate=no_arguments_to_check,
        count_classes=lambda args, data_dir: classes,
    )
    return load_cached(entry, {}, (None, None), NOWHERE)


def test_labels_that_do_not_fit_are_refused_before_training() -> None:
    assert from_arrays([0, 1, 2], 3).classes == 3
    with pytest.raises(ValueError, match=r"labels go from 0 to 3; with 3 classes they must lie in 0\.\.2"):
        from_arrays([0, 1, 3], 3)
    with pytest.raises(ValueError, match="labels go from -1 to 1"):
        from_arrays([-1, 1], 2)
    with pytest.raises(ValueError, match="has 3 images and 2 labels"):
        from_arrays([0, 1], 2, images=3)
    with pytest.raises(ValueError, match="has 0 images and 0 labels"):
        from_arrays([], 2)


def folder_with_broken_files(root: Path) -> None:
    for part in ("train", "val"):
        for label in ("ant", "bee"):
            (root / part / label).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (9, 9)).save(root / part / label / f"{number}.png")
    for broken in ("ant/1.png", "bee/0.png"):
        (root / "train" / broken).write_bytes(b"not a picture")
    (root / "train" / "ant" / "._2.png").write_bytes(b"what macOS leaves beside a file")


def test_unreadable_files_are_named_and_counted(tmp_path: Path) -> None:
    folder_with_broken_files(tmp_path / "pets")
    data = load("imagefolder", {"folder": "pets"}, train_images=None, test_images=None, data_dir=tmp_path)
    assert len(data.train.labels) == 6
    words = r"ant/1\.png.* \(of the 6 files 2 cannot be read\)"
    with pytest.raises(ValueError, match=words):
        data.train.images.sizes(torch.arange(6))
    at_side = {"folder": "pets", "side": 8}
    with pytest.raises(ValueError, match=r"ant/1\.png.* \(of 6 files 2 cannot be read\)"):
        load("imagefolder", at_side, train_images=None, test_images=None, data_dir=tmp_path)
