"""What a plug-in's loader may hand over: what means the same is converted, the rest is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.data.entry import Entry, Files, Pixels, Source, SourceError, no_arguments_to_check
from harness.data.loading import load_cached
from harness.training.feed import one_hot

RIGHT = [0, 1, 0, 1]
HERE = Path(__file__)


def entry(train: Any, classes: int = 2) -> Entry:
    def load(args: Any, data_dir: Path) -> Any:
        return train if classes == 0 else Source(train=train, test=train, classes=classes)

    return Entry(
        name="mine", args={}, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3,
        missing=lambda args, data_dir: None, load=load,
        validate=no_arguments_to_check, count_classes=lambda args, data_dir: 2,
    )  # fmt: skip


def labels_of(labels: Any) -> list[int]:
    part = Pixels(images=np.zeros((4, 8, 8, 3), np.uint8), labels=labels)
    found = load_cached(entry(part), {}, (None, None), Path("nowhere")).train.labels
    assert found.dtype == torch.int64
    return found.tolist()


@pytest.mark.parametrize(
    "labels",
    [
        RIGHT, tuple(RIGHT), np.array(RIGHT, np.uint8), np.array(RIGHT, np.uint64), np.array(RIGHT, float),
        np.array(RIGHT, bool), np.array(RIGHT)[:, None], torch.tensor(RIGHT),
        torch.tensor(RIGHT).float()[:, None],
    ],
    ids=["list", "tuple", "uint8", "uint64", "whole floats", "bool", "(N, 1)", "tensor", "float tensor"],
)  # fmt: skip
def test_labels_that_mean_the_same_are_converted(labels: Any) -> None:
    assert labels_of(labels) == RIGHT


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0.6, 1, 0.6, 1]), "labels are float64, and label 0 is 0.6; give one class number"),
        ([0, 1, float("nan"), 1], "label 2 is nan"),
        (np.eye(2)[RIGHT], r"labels have the form \(4, 2\), one-hot; give labels.argmax\(1\)"),
        (np.ones((4, 3), int), r"labels have the form \(4, 3\); .*several classes per image are not known"),
        (["ant", "bee", "ant", "bee"], "labels are str96, for example .*ant.*; number the classes from 0"),
        ([[0], [1, 2], [0], [1]], "labels are lists of unequal length"),
        ([0, None, 0, 1], "labels are object"),
        ([0, 1, 0], "it has 4 images and 3 labels"),
        ([0, -1, 0, 1], r"labels go from -1 to 1; with 2 classes they must lie in 0\.\.1"),
        ([1, 2, 1, 2], r"labels go from 1 to 2; with 2 classes they must lie in 0\.\.1"),
        (np.array([2**64 - 1, 0, 0, 0], np.uint64), "labels go from 0 to 18446744073709551615"),
        (np.int64(3), r"labels have the form \(\)"),
    ],
    ids=[
        "fractions", "nan", "one-hot", "multi-label", "text", "ragged", "None", "too few", "negative",
        "from 1", "huge", "one number",
    ],
)  # fmt: skip
def test_other_labels_are_one_sentence_with_file_and_line(labels: Any, words: str) -> None:
    with pytest.raises(SourceError, match=rf"^{HERE}:\d+: mine: the training part: .*{words}") as caught:
        labels_of(labels)
    assert "\n" not in str(caught.value)
    line = int(str(caught.value).split(":")[1])
    assert "def load(" in HERE.read_text().splitlines()[line - 1]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((4, 8, 8, 3)), r"images are float64 of form \(4, 8, 8, 3\); give uint8"),
        (np.zeros((4, 3, 8, 8), np.uint8), r"images are uint8 of form \(4, 3, 8, 8\)"),
        ([1, 2, 3, 4], "images are list"),
    ],
    ids=["float", "channels first", "list"],
)
def test_other_images_are_one_sentence(images: Any, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        load_cached(entry(Pixels(images=images, labels=RIGHT)), {}, (None, None), Path("nowhere"))


@pytest.mark.parametrize("form", [(4, 8, 8), (4, 8, 8, 1)])
def test_grey_images_have_one_channel(form: tuple[int, ...]) -> None:
    part = Pixels(images=torch.zeros(form, dtype=torch.uint8), labels=RIGHT)
    data = load_cached(entry(part), {}, (None, None), Path("nowhere"))
    assert (data.train.images.channels, len(data.train.images)) == (1, 4)


@pytest.mark.parametrize("form", [str, Path, lambda path: path.name, lambda path: Path(path.name)])
def test_paths_may_be_text_and_relative_to_the_root(form: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for path in paths:
        path.write_bytes(b"x")
    part = Files(root=tmp_path, paths=[form(path) for path in paths], labels=RIGHT)  # type: ignore[arg-type]
    assert load_cached(entry(part), {}, (None, None), tmp_path).train.images.paths == tuple(paths)


def test_other_paths_and_other_things_are_one_sentence(tmp_path: Path) -> None:
    outside = Files(root=tmp_path / "a", paths=(tmp_path / "b.png",), labels=np.array([0]))
    for thing, words in (
        (outside, "does not lie in the root .*; make root the folder above all files"),
        (Files(root=tmp_path, paths=(3,), labels=np.array([0])), "a path is neither a Path nor text"),
        ((1, 2), "it is tuple; use Pixels or Files"),
    ):
        with pytest.raises(SourceError, match=words):
            load_cached(entry(thing), {}, (None, None), tmp_path)
    with pytest.raises(
        SourceError, match=r"its loader returned NoneType; return a harness.data.entry.Source"
    ):
        load_cached(entry(None, classes=0), {}, (None, None), tmp_path)


def test_targets_of_a_batch_are_rows_of_the_unit_matrix_and_no_matrix_is_kept() -> None:
    labels = torch.tensor([3, 0, 6, 6])
    assert torch.equal(one_hot(labels, 7), torch.eye(7)[labels])
    many = one_hot(torch.tensor([20_000, 21_840]), 21_841)
    assert many.untyped_storage().nbytes() == 2 * 21_841 * 4
