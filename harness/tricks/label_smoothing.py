"""Label smoothing: a share eps of each target is spread over the classes.

Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 7; he2019bag, arXiv:1812.01187, Sec. 5.2
Equation: uniform: y' = (1 - eps) * y + eps / K;   off_target: y' = (1 - eps) * y + eps * (1 - y) / (K - 1)
Acts on: batch (targets)
Defaults: eps = 0.1 (both papers); form = uniform (szegedy2016rethinking, the authors' code of he2019bag and
    torch.nn.CrossEntropyLoss)
Differs: he2019bag prints 1 - eps on the true class and eps / (K - 1) on the others, its authors' code has
    the uniform form; form = off_target is the printed one. Both are affine in y and keep the sum of a row,
    so that smoothing before mixup and smoothing after it give the same targets up to rounding. The training
    loss contains the smoothed targets' entropy and cannot be compared with that of a run without the trick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.tricks.base import Batch, Context, Trick, require

if TYPE_CHECKING:
    from torch import Generator


def smooth_uniform(y: Any, eps: float, classes: int) -> Any:
    """Mix targets y (B, K), or one entry of them, with the uniform distribution.

    >>> [round(smooth_uniform(y, eps=0.1, classes=5), 4) for y in (0.0, 1.0)]
    [0.02, 0.92]
    """
    return (1 - eps) * y + eps / classes


def smooth_off_target(y: Any, eps: float, classes: int) -> Any:
    """Mix targets y (B, K), or one entry of them, with the uniform distribution over the other classes.

    >>> [round(smooth_off_target(y, eps=0.1, classes=5), 4) for y in (0.0, 1.0)]
    [0.025, 0.9]
    """
    return (1 - eps) * y + eps * (1 - y) / (classes - 1)


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Trick):
    """Smooth the soft targets of each batch."""

    name: ClassVar[str] = "label_smoothing"
    per_image: ClassVar[bool] = True
    eps: float = 0.1
    form: Literal["uniform", "off_target"] = "uniform"

    def __post_init__(self) -> None:
        require(0 <= self.eps < 1, f"label_smoothing: eps must be a number in [0, 1), got {self.eps!r}")

    def edit_batch(self, batch: Batch, rng: Generator, context: Context) -> Batch:
        smooth = smooth_uniform if self.form == "uniform" else smooth_off_target
        return batch._replace(targets=smooth(batch.targets, self.eps, context.classes))
