"""The floor: what logistic regression and the five nearest neighbours make of a study's own images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from harness.data import floor
from harness.data.floor import NoFloor, measure
from harness.spec import DataSpec
from harness.study.conditions import wrong_with_floor
from tests.data.sets import array_split

NOWHERE = Path("nowhere")


def drawn(count, features, classes, seed):
    """Points around one centre per class, and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = np.random.default_rng(0).normal(size=(classes, features))
    return torch.from_numpy(centres[labels] + rng.normal(size=(count, features))).float(), torch.from_numpy(
        labels
    )


@pytest.fixture(params=["at once", "in parts"])
def memory(request, monkeypatch):
    """Tables of all images, and of some at a time, as of many images."""
    if request.param == "in parts":
        monkeypatch.setattr(floor, "MOST_NUMBERS", 3 * 3 * 150)


def test_the_nearest_images_are_those_of_all_distances(memory):
    train, test = drawn(300, 12, 3, 1)[0], drawn(40, 12, 3, 2)[0]
    distances = ((test[:, None].double() - train[None].double()) ** 2).sum(2)
    wanted = distances.topk(floor.NEIGHBOURS, largest=False).indices
    found = floor.nearest(train, test)
    assert [set(row) for row in found.tolist()] == [set(row) for row in wanted.tolist()]


def test_logistic_regression_is_at_the_optimum_of_its_loss(memory):
    images, labels = drawn(400, 6, 3, 3)
    images -= images.mean(0)
    x, y = images.double().numpy(), labels.numpy()

    def loss(flat):
        weights, intercepts = flat[:18].reshape(6, 3), flat[18:]
        scores = x @ weights + intercepts
        log_all = np.log(np.exp(scores).sum(1))
        return (log_all - scores[np.arange(len(y)), y]).mean() + floor.L2 / 2 * (weights**2).sum()

    best = minimize(loss, np.zeros(21), method="BFGS")
    found = floor.logistic_regression(images, labels, 3)
    ours = loss(np.concatenate([found[:-1].double().numpy().ravel(), found[-1].double().numpy()]))
    assert ours == pytest.approx(best.fun, abs=1e-5)


def test_the_floor_of_the_embedded_images_is_the_one_measured_elsewhere():
    """With 3,000 training images at 28 pixels: 5 nearest 78.7, logistic regression 81.9."""
    spec = DataSpec(name="fashion_mnist", resolution=28, train_images=3000)
    found = measure(spec, NOWHERE)
    assert (found.classes, found.train_images, found.test_images, found.channels) == (10, 3000, 10_000, 1)
    assert found.neighbours == pytest.approx(78.7, abs=0.3)
    assert found.linear == pytest.approx(81.9, abs=0.3)
    assert (found.chance, found.guessing) == (10.0, pytest.approx(10.49, abs=0.01))


def test_the_same_data_have_the_same_floor_and_threads_stay_as_they_were():
    threads = torch.get_num_threads()
    spec = DataSpec(name="fashion_mnist", resolution=16, train_images=200, test_images=300)
    assert measure(spec, NOWHERE) == measure(spec, NOWHERE)
    assert torch.get_num_threads() == threads


def test_images_above_32_pixels_are_seen_at_32():
    large = measure(DataSpec(name="generated", resolution=224, args={"size": 40}), NOWHERE)
    assert (large.pixels, large.linear) == (32, 100.0)


def test_the_square_in_the_middle_is_seen():
    pixels = np.zeros((1, 4, 8, 1), np.uint8)
    pixels[:, :, 2:6] = 255
    assert floor.pixels_of(array_split(pixels).images, 4).eq(1.0).all()


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"classes": 20_000, "train": 40_000}, "20,000 classes are more than 1,000"),
        ({"classes": 30, "train": 30}, "30 training images of 30 classes are fewer than 2 a class"),
        ({"size": 32, "train": 60_000, "test": 60_000}, "60,000 x 60,000 images at 32 pixels are too many"),
    ],
)
def test_data_without_a_floor_are_refused_in_words(args, why, monkeypatch):
    def sized(name, args, **_):
        part = type("Part", (), {"labels": torch.zeros(args["train"]), "images": Images})
        other = type("Part", (), {"labels": torch.zeros(args.get("test", 10)), "images": Images})
        return type("Data", (), {"train": part, "test": other, "classes": args.get("classes", 10)})

    class Images:
        channels = 3

    monkeypatch.setattr(floor, "load", sized)
    with pytest.raises(NoFloor, match=why):
        measure(DataSpec(name="generated", resolution=32, args=args), NOWHERE)


def test_one_class_has_no_floor(monkeypatch):
    part = type("Part", (), {"labels": torch.zeros(10)})
    data = type("Data", (), {"train": part, "test": part, "classes": 1})
    monkeypatch.setattr(floor, "load", lambda *_, **__: data)
    with pytest.raises(NoFloor, match="1 class: every answer is right"):
        measure(DataSpec(name="generated", resolution=32), NOWHERE)


GOOD = {
    "schema": 1, "setting": "{}", "data": "x", "problem": None, "fingerprint": "ab", "classes": 2,
    "train_images": 3, "test_images": 3, "channels": 1, "pixels": 8, "chance": 50.0, "guessing": 60.0,
    "neighbours": 70.0, "linear": 80.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"linear": 101.0}, "`linear` is no percentage"),
        ({"linear": None}, "`linear` is no percentage"),
        ({"linear": None, "problem": "too large"}, ""),
        ({"classes": 2.5}, "`classes` is no count"),
        ({"schema": 9}, "it is of schema 9, this version reads 1"),
        ({"fingerprint": 3}, "`fingerprint` is no text"),
    ],
)
def test_a_kept_floor_is_checked_when_it_is_read(change, why):
    assert wrong_with_floor({**GOOD, **change}) == why
