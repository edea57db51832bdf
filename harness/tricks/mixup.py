"""Mixup: train on convex combinations of pairs of images and of their labels.

Paper: zhang2018mixup, arXiv:1710.09412, Sec. 2 (the formula has no number in v1); he2019bag,
    arXiv:1812.01187, Sec. 5.4
Equation: x' = lam * x_i + (1 - lam) * x_j,   y' = lam * y_i + (1 - lam) * y_j,   lam ~ Beta(alpha, alpha)
Acts on: batch (images, targets)
Defaults: alpha = 0.2 (he2019bag, and the ResNet-50 rows of zhang2018mixup)
Differs: one lam per batch, as in both papers' code. The partner of image i is image B - 1 - i of the same
    batch, as in the authors' code of he2019bag (per GPU there, per batch here); zhang2018mixup draws a
    permutation (memory). The middle image of an odd batch is its own partner. he2019bag trains 200 epochs
    with mixup instead of 120: that is the study's to say, and the reason for its control row. Smoothed
    labels are mixed as they come: label_smoothing and mixup commute. The training loss is that of the mixed
    targets, and training accuracy would mean nothing: only accuracy on test images is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.tricks.base import Batch, Context, Trick, require

if TYPE_CHECKING:
    from torch import Generator


def mix(a: Any, b: Any, lam: float) -> Any:
    """The convex combination of two tensors of one shape, or of two numbers.

    >>> mix(0.0, 10.0, lam=0.25)
    7.5
    """
    return lam * a + (1 - lam) * b


def draw_lam(alpha: float, rng: Generator) -> float:
    """One draw of Beta(alpha, alpha).

    torch draws Beta only from its global generator, so `rng` gives a seed and numpy's Generator the draw.
    """
    import numpy as np
    import torch

    seed = int(torch.randint(2**63 - 1, (), generator=rng))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


@dataclass(frozen=True, kw_only=True)
class Mixup(Trick):
    """Mix each batch with itself in reversed order."""

    name: ClassVar[str] = "mixup"
    alpha: float = 0.2

    def __post_init__(self) -> None:
        require(self.alpha > 0, f"mixup: alpha must be a number > 0, got {self.alpha!r}")

    def edit_batch(self, batch: Batch, rng: Generator, context: Context) -> Batch:
        lam = draw_lam(self.alpha, rng)
        return Batch(
            images=mix(batch.images, batch.images.flip(0), lam),
            targets=mix(batch.targets, batch.targets.flip(0), lam),
        )
