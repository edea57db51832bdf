"""Linear learning-rate scaling: the peak learning rate grows in proportion to the batch.

Paper: he2019bag, arXiv:1812.01187, Sec. 3.1 (memory); rule from goyal2017accurate, arXiv:1706.02677, Sec.
    2.1 (memory)
Equation: lr = reference_lr * b / reference_batch, with b the images per optimizer step
Acts on: recipe (lr)
Defaults: reference_batch = 256 and reference_lr = 0.1, the baseline of both papers
Differs: nothing known. At a reduced size the batches are scaled after this trick has acted, so that the
    rule is applied to the paper's batch and lr stays the paper's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


def scaled_lr(batch_size: int, *, reference_batch: int, reference_lr: float) -> float:
    """The peak learning rate for a batch of `batch_size` images.

    >>> scaled_lr(1024, reference_batch=256, reference_lr=0.1)
    0.4
    """
    return reference_lr * batch_size / reference_batch


@dataclass(frozen=True, kw_only=True)
class LinearLrScaling(Trick):
    """Set `recipe.lr` from `recipe.batch_size`."""

    name: ClassVar[str] = "linear_lr_scaling"
    reference_batch: int = 256
    reference_lr: float = 0.1

    def __post_init__(self) -> None:
        require(
            self.reference_batch >= 1,
            f"linear_lr_scaling: reference_batch must be an integer >= 1, got {self.reference_batch!r}",
        )
        require(
            self.reference_lr > 0,
            f"linear_lr_scaling: reference_lr must be a number > 0, got {self.reference_lr!r}",
        )

    def edit_recipe(self, recipe: Any) -> Any:
        lr = scaled_lr(
            recipe.batch_size, reference_batch=self.reference_batch, reference_lr=self.reference_lr
        )
        return dataclasses.replace(recipe, lr=lr)
