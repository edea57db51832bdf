"""Evaluation on the test set: percentages, the loss, and which images were classified correctly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.data.augment import View, evaluation_images, send, views
from harness.data.entry import DataSet
from harness.spec import PER_CLASS, Recipe
from harness.training.parallel import ALONE, World
from harness.tricks.base import Predict

EVAL_BATCH = 250  # fixed: the batch of a convolution can change the last bits of its result

Answers = Callable[[Tensor], Tensor]  # indices (B,) int64 of test images -> logits (B, K)
Metric = Callable[[Tensor, Tensor], float]  # logits (N, K) float32, labels (N,) int64, both on the CPU
NO_METRICS: Mapping[str, Metric] = {}


# Metrics in which every class counts the same, in percent; a study asks for them with `metric` or `metrics`.


def require_every_class(names: Iterable[str], labels: Tensor, classes: int) -> None:
    """
    Raises:
        ValueError: one of these metrics is asked for, and a class has no test image: its mean over the
            classes does not exist.
    """
    asked = [name for name in names if name in MEASURED]
    counts = torch.bincount(labels, minlength=classes)
    empty = torch.nonzero(counts == 0).flatten().tolist()
    if asked and empty:
        more = f" and {len(empty) - 1} more classes have" if len(empty) > 1 else " has"
        raise ValueError(
            f"{asked[0]} is a mean over {classes} classes, and class {empty[0]}{more} no test image; use a "
            "test set with images of every class, or another metric"
        )


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """The mean over the classes of the share of their images that are classified correctly (their recall).

    Logits (N, K), labels (N,) int64; NaN where a logit is not finite. Raises as `require_every_class`.
    """
    return _over_classes(logits, labels, "balanced_accuracy", lambda right, true, answered: right / true)


def f1(logits: Tensor, labels: Tensor) -> float:
    """The mean over the classes of F1 = 2 right / (true + answered), the harmonic mean of precision and
    recall ("macro"); 0 for a class that is never answered. As `balanced_accuracy` otherwise."""
    return _over_classes(logits, labels, "f1", lambda right, true, answered: 2 * right / (true + answered))


def auroc(logits: Tensor, labels: Tensor) -> float:
    """The area under the ROC curve: of one class against the rest by its probability, the mean over the
    classes ("macro, one versus rest"). With two classes both have the same area, the usual one.

    It is P(s_i > s_j) + P(s_i = s_j) / 2 for an image i of the class and j of another one (Mann and Whitney's
    U), from the ranks of the scores. As `balanced_accuracy` otherwise.
    """
    require_every_class(["auroc"], labels, logits.shape[1])
    if logits.shape[1] < 2:
        raise ValueError("auroc needs two classes or more")
    if not logits.isfinite().all():
        return math.nan
    areas = [_area(score, labels == k) for k, score in enumerate(logits.double().log_softmax(1).T)]
    return 100 * sum(areas) / len(areas)


def _area(score: Tensor, own: Tensor) -> float:
    ranked, positive = score.sort().values, score[own].contiguous()
    below, up_to = (torch.searchsorted(ranked, positive, right=right) for right in (False, True))
    ranks = (below + up_to + 1).double() / 2  # of equal scores, the mean of their ranks
    count, others = len(positive), len(score) - len(positive)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * others))


def _over_classes(
    logits: Tensor, labels: Tensor, name: str, of_class: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> float:
    """`of_class` takes the images of every class that were right, are there, were answered: (K,) each."""
    classes = logits.shape[1]
    require_every_class([name], labels, classes)
    if not logits.isfinite().all():
        return math.nan
    answer = logits.argmax(1)
    counts = [torch.bincount(each, minlength=classes) for each in (labels[answer == labels], labels, answer)]
    return 100 * float(of_class(*(each.double() for each in counts)).mean())


MEASURED: Mapping[str, Metric] = dict(zip(PER_CLASS, (balanced_accuracy, f1, auroc), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What one pass over test images gave."""

    top1: float  # percent
    top5: float  # percent; top-k with k = min(5, classes)
    loss: float  # cross entropy on the hard labels, nats, mean over the images
    correct: Tensor  # (N,) bool on the CPU: the top-1 answer was right
    extra: Mapping[str, float] = field(default_factory=dict)  # of the metrics asked for beside these

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss)

    @property
    def metrics(self) -> dict[str, float | None]:
        """Every number by its name; None for an extra one that is NaN or infinite, which JSON has not."""
        extra = {name: value if math.isfinite(value) else None for name, value in self.extra.items()}
        return {**extra, "top1": self.top1, "top5": self.top5, "loss": self.loss}

    def packed(self) -> bytes:
        """One bit per image, the first image in the highest bit of the first byte (numpy.packbits)."""
        return np.packbits(self.correct.numpy()).tobytes()

    def state_dict(self) -> dict[str, Any]:
        """Plain data and a tensor, for a checkpoint."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "extra": dict(self.extra)}


@torch.no_grad()
def evaluate(
    answers: Answers,
    labels: Tensor,
    indices: Tensor,
    extra: Mapping[str, Metric] = NO_METRICS,
    *,
    world: World = ALONE,
) -> Evaluation:
    """Classify the test images at `indices` (N,) int64; `labels` are those of the whole test set.

    `extra`: further metrics by name, each of all logits and labels; without any, no logits are kept.
    Several processes answer a part of the chunks each and all get the whole, of the bits of one process.
    """
    chunks = indices.split(EVAL_BATCH)
    first, end = (-(-rank * len(chunks) // world.size) for rank in (world.rank, world.rank + 1))
    ranks, losses, kept = [], [], []
    for chunk in chunks[first:end]:
        logits = answers(chunk).float()
        truth = send({"truth": labels[chunk]}, str(logits.device))["truth"]
        ranks.append(rank_of_truth(logits, truth))
        losses.append(functional.cross_entropy(logits, truth, reduction="sum").double())
        if extra:
            kept.append(logits)
    start = first * EVAL_BATCH
    rank = world.assemble(ranks, start, len(indices)).cpu()
    loss = world.assemble([each[None] for each in losses], first, len(chunks)).sum()
    every = world.assemble(kept, start, len(indices)).cpu() if extra else torch.empty(0)
    return Evaluation(
        top1=percent(rank < 1),
        top5=percent(rank < 5),
        loss=float(loss) / len(indices),
        correct=rank < 1,
        extra={name: float(metric(every, labels[indices])) for name, metric in extra.items()},
    )


def rank_of_truth(logits: Tensor, truth: Tensor) -> Tensor:
    """How many classes are answered before the true one: logits (B, K), truth (B,) int64 -> (B,) int64.

    Of equal logits (frequent in bf16) the lower class counts first, as in argmax; NaN never counts as right.

    >>> rank_of_truth(torch.tensor([[1.0, 3.0, 2.0], [2.0, 2.0, 2.0]]), torch.tensor([2, 1])).tolist()
    [1, 1]
    """
    own = logits.gather(1, truth[:, None])
    not_below = (~(logits < own)).sum(1)
    classes = torch.arange(logits.shape[1], device=logits.device)
    itself_or_later = ((logits == own) & (classes >= truth[:, None])).sum(1)
    return not_below - itself_or_later


def percent(right: Tensor) -> float:
    """The share of True in percent."""
    return 100 * int(right.sum()) / len(right)


def median(evaluations: list[Evaluation]) -> Evaluation:
    """The evaluation whose top-1 is the median; of an even number the lower of the two in the middle.

    Of equal ones the earlier.
    """
    return sorted(evaluations, key=lambda each: each.top1)[(len(evaluations) - 1) // 2]


def curve_subset(images: int, at_most: int = 1000) -> Tensor:
    """(M,) int64: a fixed, evenly spaced part of the test set for learning curves, never for a result."""
    return torch.arange(min(images, at_most)) * images // min(images, at_most)


# How test images are answered: by one network or several, from one view of each image or many.


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """How a network sees a test image."""

    resolution: int  # pixels
    eval_crop: float  # of the shorter side, for 1 and 10 crops

    @staticmethod
    def of(recipe: Recipe) -> Viewing:
        return Viewing(resolution=recipe.data.resolution, eval_crop=recipe.eval_crop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """A network as it is evaluated."""

    predict: Predict
    look: Viewing


def _seen(
    data: DataSet, indices: Tensor, crops: int, look: Viewing, view: View
) -> Iterable[tuple[Tensor, int]]:
    """As `views`. A single one needs no search for those that coincide, which takes half as long as cutting
    small images."""
    if crops == 1:
        return [(evaluation_images(data.test, indices, eval_crop=look.eval_crop, view=view), 1)]
    return views(data.test, indices, crops, eval_crop=look.eval_crop, view=view)


def make_answers(
    answerers: Sequence[Answerer], data: DataSet, *, crops: int, device: torch.device
) -> Answers:
    """Indices (B,) int64 of test images -> logits (B, K) of all networks and crops together.

    Several networks or crops answer with the logarithm of the mean of their softmax probabilities
    (Szegedy et al. 2015, Sec. 7); one network on one crop with its own logits, bit for bit.
    """
    by_look: dict[Viewing, list[Predict]] = {}  # so that networks alike share the work of cutting
    for answerer in answerers:
        by_look.setdefault(answerer.look, []).append(answerer.predict)

    def answers(indices: Tensor) -> Tensor:
        total = None
        for look, predicts in by_look.items():
            view = View(size=look.resolution, mean=data.mean, std=data.std, device=str(device))
            for images, count in _seen(data, indices, crops, look, view):
                images = images.contiguous(memory_format=torch.channels_last)
                for predict in predicts:
                    logits = predict(images).float()
                    if len(answerers) * crops == 1:
                        return logits
                    part = logits.log_softmax(1) + math.log(count)
                    total = part if total is None else torch.logaddexp(total, part)
        assert total is not None
        return total - math.log(len(answerers) * crops)

    return answers
