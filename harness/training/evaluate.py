"""Evaluation on the test set: percentages, the loss, and which images were classified correctly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.tricks.base import Predict

EVAL_BATCH = 250  # fixed: the batch of a convolution can change the last bits of its result

ReadImages = Callable[[Tensor], Tensor]  # indices (B,) int64 -> test images (B, 3, S, S), on the device


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What one pass over test images gave."""

    top1: float  # percent
    top5: float  # percent; top-k with k = min(5, classes)
    loss: float  # cross entropy on the hard labels, nats, mean over the images
    correct: Tensor  # (N,) bool on the CPU: the top-1 answer was right

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss)

    def packed(self) -> bytes:
        """One bit per image, the first image in the highest bit of the first byte (numpy.packbits)."""
        return np.packbits(self.correct.numpy()).tobytes()


@torch.no_grad()
def evaluate(predict: Predict, read_images: ReadImages, labels: Tensor, indices: Tensor) -> Evaluation:
    """Classify the test images at `indices` (N,) int64; `labels` are those of the whole test set."""
    ranks, losses = [], []
    for chunk in indices.split(EVAL_BATCH):
        images = read_images(chunk).contiguous(memory_format=torch.channels_last)
        truth = labels[chunk].to(images.device)
        logits = predict(images).float()
        ranks.append(rank_of_truth(logits, truth))
        losses.append(functional.cross_entropy(logits, truth, reduction="sum").double())
    rank = torch.cat(ranks).cpu()
    return Evaluation(
        top1=percent(rank < 1),
        top5=percent(rank < 5),
        loss=float(torch.stack(losses).sum()) / len(indices),
        correct=rank < 1,
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


def curve_subset(images: int, at_most: int = 1000) -> Tensor:
    """(M,) int64: a fixed, evenly spaced part of the test set for learning curves, never for a result."""
    return torch.arange(min(images, at_most)) * images // min(images, at_most)
