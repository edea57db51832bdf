"""How test images are answered: by one network or several, from one view of each image or many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.data.augment import View
from harness.data.base import DataSet
from harness.data.multi_crops import views
from harness.study.spec import Recipe
from harness.training.evaluate import Answers
from harness.tricks.base import Predict


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a network sees a test image."""

    resolution: int  # pixels
    eval_crop: float  # of the shorter side, for 1 and 10 crops

    @staticmethod
    def of(recipe: Recipe) -> Look:
        return Look(resolution=recipe.data.resolution, eval_crop=recipe.eval_crop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """A network as it is evaluated."""

    predict: Predict
    look: Look


def make_answers(
    answerers: Sequence[Answerer], data: DataSet, *, crops: int, device: torch.device
) -> Answers:
    """Indices (B,) int64 of test images -> logits (B, K) of all networks and crops together.

    Several networks or crops answer with the logarithm of the mean of their softmax probabilities
    (Szegedy et al. 2015, Sec. 7); one network on one crop with its own logits, bit for bit.
    """
    by_look: dict[Look, list[Predict]] = {}  # so that networks alike share the work of cutting
    for answerer in answerers:
        by_look.setdefault(answerer.look, []).append(answerer.predict)

    def answers(indices: Tensor) -> Tensor:
        total = None
        for look, predicts in by_look.items():
            view = View(size=look.resolution, mean=data.mean, std=data.std, device=str(device))
            seen = views(data.test, indices, crops, eval_crop=look.eval_crop, view=view)
            for images, count in seen:
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
