"""Accuracies, loss and correctness bits against numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as scores
from torch import Tensor

from harness.data.augment import View, views
from harness.spec import DataSpec
from harness.training.evaluate import (
    EVAL_BATCH,
    MEASURED,
    NO_METRICS,
    Answerer,
    Evaluation,
    Metric,
    Viewing,
    curve_subset,
    evaluate,
    make_answers,
    median,
    rank_of_truth,
)
from harness.training.setup import build, load_data
from tests.training.runs import DATA_ARGS, machine_in, tiny_spec


def evaluated(  # type: ignore[no-untyped-def]
    logits: Tensor, labels: Tensor, indices: Tensor | None = None, extra: Mapping[str, Metric] = NO_METRICS
):
    """Evaluate a "network" that looks its answer up."""
    everything = torch.arange(len(labels)) if indices is None else indices
    return evaluate(lambda chunk: logits[chunk], labels, everything, extra)


def test_metrics_agree_with_numpy_over_several_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    images = 2 * EVAL_BATCH + 13
    logits = torch.randn(images, 8, generator=generator)
    labels = torch.randint(8, (images,), generator=generator)
    result = evaluated(logits, labels)
    z, y = logits.double().numpy(), labels.numpy()
    order = np.argsort(-z, axis=1)
    assert result.top1 == pytest.approx(100 * np.mean(order[:, 0] == y))
    assert result.top5 == pytest.approx(100 * np.mean((order[:, :5] == y[:, None]).any(axis=1)))
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    assert abs(result.loss - -log_p[np.arange(images), y].mean()) < 1e-6
    assert result.correct.numpy().tolist() == (order[:, 0] == y).tolist()
    assert 5 < result.top1 < 25
    assert 50 < result.top5 < 75


def test_bits_are_packed_first_image_highest() -> None:
    labels = torch.zeros(10, dtype=torch.int64)
    right = [1, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    logits = torch.tensor([[1.0, 0.0] if each else [0.0, 1.0] for each in right])
    packed = evaluated(logits, labels).packed()
    assert packed == bytes([0b10000001, 0b10000000])
    assert np.unpackbits(np.frombuffer(packed, np.uint8), count=10).tolist() == right


def test_with_fewer_than_five_classes_top5_counts_all() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0]] * 3)
    result = evaluated(logits, torch.tensor([0, 1, 2]))
    assert (result.top1, result.top5) == (100 / 3, 100.0)


def test_of_equal_logits_the_lower_class_is_the_answer() -> None:
    """As argmax; frequent in bf16, where the answer must not depend on how a sort breaks ties."""
    logits = torch.randint(3, (500, 6), generator=torch.Generator().manual_seed(0)).float()
    labels = torch.arange(500) % 6
    rank = rank_of_truth(logits, labels)
    expected = np.argsort(-logits.numpy(), axis=1, kind="stable")
    assert rank.tolist() == [row.tolist().index(label) for row, label in zip(expected, labels, strict=True)]


def test_a_network_that_answers_nan_has_nothing_right() -> None:
    result = evaluated(torch.full((4, 3), float("nan")), torch.tensor([0, 1, 2, 0]))
    assert result.top1 == 0
    assert not result.is_finite


def test_the_curve_reads_a_fixed_spread_of_at_most_1000_images() -> None:
    assert curve_subset(30).tolist() == list(range(30))
    subset = curve_subset(10_500)
    assert len(subset) == len(set(subset.tolist())) == 1000
    assert (subset[0], subset[-1]) == (0, 10_489)


def test_extra_metrics_see_all_logits_and_the_labels_of_the_images_asked_for() -> None:
    logits, labels = torch.randn(600, 4, generator=torch.Generator().manual_seed(0)), torch.arange(600) % 4
    every_second = torch.arange(0, 600, 2)

    def mean_of_truth(z: Tensor, y: Tensor) -> float:
        return float(z.gather(1, y[:, None]).double().mean())

    result = evaluated(
        logits, labels, every_second, {"truth": mean_of_truth, "worst": lambda z, y: float("nan")}
    )
    expected = logits[every_second].gather(1, labels[every_second, None]).double().mean()
    assert result.metrics["truth"] == pytest.approx(float(expected))
    assert result.metrics["worst"] is None
    assert result.metrics["top1"] == result.top1


@pytest.mark.parametrize(
    ("top1", "expected"), [([7.0], 7), ([3, 9, 4, 8, 5], 5), ([4.0, 1, 3, 2], 2), ([6.0, 5], 5)]
)
def test_the_median_is_by_top1_and_of_an_even_number_the_lower(top1: list[float], expected: float) -> None:
    made = [Evaluation(top1=each, top5=0, loss=each, correct=torch.zeros(1)) for each in top1]
    assert median(made).loss == expected


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("different", [20, 400], ids=["ties", "distinct"])
def test_metrics_per_class_agree_with_scikit_learn(classes: int, different: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(different, classes, generator=generator).repeat(400 // different, 1)
    rare = torch.randint(classes**2, (400,), generator=generator).sqrt().long()  # class 0 is the rarest
    labels = torch.cat([torch.arange(classes), rare])[:400]
    truth, answer, p = labels.numpy(), logits.argmax(1).numpy(), logits.double().softmax(1).numpy()
    score = p[:, 1] if classes == 2 else p
    expected = {
        "balanced_accuracy": scores.balanced_accuracy_score(truth, answer),
        "f1": scores.f1_score(truth, answer, average="macro"),
        "auroc": scores.roc_auc_score(truth, score, multi_class="ovr"),
    }
    found = evaluated(logits, labels, extra=MEASURED).metrics
    assert {name: found[name] for name in expected} == pytest.approx(
        {name: 100 * value for name, value in expected.items()}, abs=1e-9
    )


def test_metrics_per_class_of_one_answer_of_perfect_answers_and_of_nan() -> None:
    labels = torch.tensor([0] * 98 + [1, 2])
    always_0 = torch.tensor([[1.0, 0.0, 0.0]]).expand(100, 3)
    found = evaluated(always_0, labels, extra=MEASURED).metrics
    assert found["top1"] == 98.0
    f1_of_0 = 100 * 2 * 98 / (98 + 100)
    expected = {"balanced_accuracy": 100 / 3, "f1": f1_of_0 / 3, "auroc": 50.0}
    assert {name: found[name] for name in MEASURED} == pytest.approx(expected)
    sure = 1000.0 * torch.nn.functional.one_hot(labels, 3)
    assert [metric(sure, labels) for metric in MEASURED.values()] == [100.0] * 3
    sure[5, 1] = float("nan")
    assert {evaluated(sure, labels, extra=MEASURED).metrics[name] for name in MEASURED} == {None}


@pytest.mark.parametrize("name", MEASURED)
def test_a_class_without_test_images_is_refused_in_words(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is a mean over 4 classes, and class 1 has no test image"):
        MEASURED[name](torch.randn(6, 4), torch.tensor([0, 2, 3, 0, 2, 3]))
    data = DataSpec(name="generated", resolution=32, args={**DATA_ARGS, "test": 2})
    with pytest.raises(ValueError, match=rf"^{name} is a mean over 4 classes, and class . and 1 more"):
        build(tiny_spec(metrics=(name,), data=data), machine_in(tmp_path))
    build(tiny_spec(data=data), machine_in(tmp_path))


def test_auroc_of_one_class_does_not_exist() -> None:
    with pytest.raises(ValueError, match="two classes"):
        MEASURED["auroc"](torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))


def test_a_single_crop_is_what_the_views_of_one_crop_are(tmp_path: Path) -> None:
    recipe, shown = tiny_spec().arm.recipe, list[Tensor]()
    data, indices = load_data(recipe, machine_in(tmp_path)), torch.tensor([3, 0, 5])

    def predict(images: Tensor) -> Tensor:
        shown.append(images)
        return images.mean((2, 3))

    answerer = Answerer(predict=predict, look=Viewing(resolution=recipe.data.resolution, eval_crop=0.8))
    make_answers([answerer], data, crops=1, device=torch.device("cpu"))(indices)
    view = View(size=recipe.data.resolution, mean=data.mean, std=data.std)
    ((expected, count),) = views(data.test, indices, 1, eval_crop=0.8, view=view)
    assert count == 1
    assert len(shown) == 1
    assert torch.equal(shown[0], expected)
