"""Higher learning rate: the peak rate is multiplied, which batch normalisation allows.

Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1 and Fig. 3: BN-x5 and BN-x30
Equation: lr' = lr * times; from 0.0015: 0.0075 (x 5), 0.045 (x 30)
Acts on: recipe (lr)
Defaults: times = 5.0 (BN-x5; BN-x30 has 30)
Differs: nothing known.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


@dataclass(frozen=True, kw_only=True)
class HigherLr(Trick):
    """Multiply `recipe.lr`."""

    name: ClassVar[str] = "higher_lr"
    conflicts: ClassVar[tuple[str, ...]] = ("rmsprop",)
    times: float = 5.0

    def __post_init__(self) -> None:
        require(self.times > 0, f"higher_lr: times must be a number > 0, got {self.times!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(recipe, lr=recipe.lr * self.times)
