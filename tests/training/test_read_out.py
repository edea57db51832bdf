"""The read-out of several epochs, the points of a curve, extra metrics, unreadable images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from harness.plugins.install import METRICS
from harness.spec import DataSpec
from tests.training.runs import assert_same_bits, folder_of, load, results, stop_after, tiny_spec, train


@pytest.mark.parametrize(("epochs", "kept"), [(6.6, 5), (3, 3)])
def test_the_result_is_the_median_of_the_last_five_epochs(epochs: float, kept: int, tmp_path: Path) -> None:
    """With 30 test images the curve reads all of them, so its points are the evaluations."""
    spec, plain = (
        tiny_spec(epochs=epochs, read_out=name, lr=0.2, schedule="constant")
        for name in ("median_of_last_5", "last_epoch")
    )
    for each in (spec, plain):
        assert train(each, tmp_path) == "finished"
    folder = folder_of(spec, tmp_path)
    curve = [event["val_top1"] for event in folder.read_events() if event["kind"] == "epoch"]
    last = sorted(curve[-kept:])
    summary = folder.read_summary()
    assert summary is not None
    assert summary["metrics"]["top1"] == last[(kept - 1) // 2]
    bits = np.unpackbits(np.frombuffer(folder.predictions.read_bytes(), np.uint8), count=30)
    assert summary["metrics"]["top1"] == pytest.approx(100 * bits.mean())
    assert last[0] < last[-1]  # else any of them would do
    assert_same_bits(load(folder.weights), load(folder_of(plain, tmp_path).weights))


def test_a_curve_has_as_many_points_an_epoch_as_asked_and_changes_no_result(tmp_path: Path) -> None:
    plain, fine = tiny_spec(epochs=1.6), tiny_spec(epochs=1.6, curve_points=2)
    for spec in (plain, fine):
        train(spec, tmp_path)
    events = [event for event in folder_of(fine, tmp_path).read_events() if event["kind"] == "epoch"]
    assert [(event["step"], event["epoch"]) for event in events] == [(2, 0.4), (5, 1.0), (7, 1.4), (8, 1.6)]
    assert [event["train_loss"] is None for event in events] == [True, False, True, False]
    assert all(0 <= event["val_top1"] <= 100 for event in events)
    first, second = (results(folder_of(spec, tmp_path)) for spec in (plain, fine))
    assert [point for point in second.pop("curve") if point[3] is not None] == first.pop("curve")
    assert_same_bits(first, second)


def test_extra_metrics_of_the_recipe_are_in_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mean_rank_of_first(logits: Tensor, labels: Tensor) -> float:
        assert (logits.shape, labels.shape) == ((30, 4), (30,))
        return float((logits.argmax(1) == labels).double().mean())

    spec = tiny_spec(epochs=0.2, metrics=("share",))
    with pytest.raises(ValueError, match="unknown metric 'share'"):
        train(spec, tmp_path)
    monkeypatch.setitem(METRICS, "share", mean_rank_of_first)
    train(spec, tmp_path)
    metrics = folder_of(spec, tmp_path).read_summary()["metrics"]
    assert metrics["share"] == pytest.approx(metrics["top1"] / 100)


def test_a_run_interrupted_in_its_last_five_epochs_keeps_what_it_evaluated(tmp_path: Path) -> None:
    spec = tiny_spec(epochs=6, read_out="median_of_last_5", lr=0.2, schedule="constant")
    train(spec, tmp_path / "a")
    assert train(spec, tmp_path / "b", stop_after(17)) == "interrupted"
    assert len(load(folder_of(spec, tmp_path / "b").checkpoint)["progress"]["kept"]) == 2  # epochs 2 and 3
    train(spec, tmp_path / "b")
    assert_same_bits(*(results(folder_of(spec, tmp_path / each)) for each in "ab"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "data" / "own" / part / name
            folder.mkdir(parents=True)
            for index in range(8):
                pixels = np.full((40, 40, 3), 60 * label + index, np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "data" / "own"


@pytest.mark.parametrize("where", ["train", "val"])
def test_an_unreadable_image_fails_its_run_in_words_and_no_other(
    where: str, images: Path, tmp_path: Path
) -> None:
    broken = images / where / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:70])
    own = tiny_spec(epochs=1, data=DataSpec(name="imagefolder", resolution=32, args={"folder": "own"}))
    with pytest.raises(ValueError, match=r"cannot decode the image file .*cat/3\.png"):
        train(own, tmp_path)
    assert folder_of(own, tmp_path).read_summary() is None
    assert train(tiny_spec(epochs=0.2), tmp_path) == "finished"


def test_an_empty_class_fails_its_run_in_words(images: Path, tmp_path: Path) -> None:
    for path in (images / "train" / "dog").iterdir():
        path.unlink()
    own = tiny_spec(epochs=1, data=DataSpec(name="imagefolder", resolution=32, args={"folder": "own"}))
    with pytest.raises(ValueError, match=r"class 'dog': .* has no image files"):
        train(own, tmp_path)
