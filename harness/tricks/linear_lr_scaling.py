"""Linear learning-rate scaling: the peak learning rate grows in proportion to the batch.

Paper: he2019bag, arXiv:1812.01187, Sec. 3.1; rule from goyal2017accurate, arXiv:1706.02677, Sec.
    2.1
Equation: lr = eta * b / reference_batch, with b the images per optimizer step and eta the recipe's lr
Acts on: recipe (lr)
Defaults: reference_batch = 256, the batch for which the baselines of both papers give eta = 0.1
Differs: nothing known. It reads the batch that the recipe has when it acts, so large_batch comes before
    it in a list. At a reduced size the batches are scaled after this trick has acted, so that the rule is
    applied to the paper's batch and lr stays the paper's. rmsprop gives its own rate, and excludes it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


def scaled_lr(lr: float, *, batch_size: int, reference_batch: int) -> float:
    """The peak learning rate for a batch of `batch_size` images, where `lr` is right for `reference_batch`.

    >>> scaled_lr(0.1, batch_size=1024, reference_batch=256)
    0.4
    """
    return lr * batch_size / reference_batch


@dataclass(frozen=True, kw_only=True)
class LinearLrScaling(Trick):
    """Multiply `recipe.lr` by `recipe.batch_size` / reference_batch."""

    name: ClassVar[str] = "linear_lr_scaling"
    conflicts: ClassVar[tuple[str, ...]] = ("rmsprop",)
    reference_batch: int = 256

    def __post_init__(self) -> None:
        require(
            self.reference_batch >= 1,
            f"linear_lr_scaling: reference_batch must be an integer >= 1, got {self.reference_batch!r}",
        )

    def edit_recipe(self, recipe: Any) -> Any:
        lr = scaled_lr(recipe.lr, batch_size=recipe.batch_size, reference_batch=self.reference_batch)
        return dataclasses.replace(recipe, lr=lr)
