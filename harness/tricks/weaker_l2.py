"""Weaker L2: the weight decay is divided.

Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1
Equation: weight_decay' = weight_decay / divide_by
Acts on: recipe (weight_decay)
Defaults: divide_by = 5.0 (the paper)
Differs: nothing known. The paper does not give the weight decay that it divides.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


@dataclass(frozen=True, kw_only=True)
class WeakerL2(Trick):
    """Divide `recipe.weight_decay`."""

    name: ClassVar[str] = "weaker_l2"
    divide_by: float = 5.0

    def __post_init__(self) -> None:
        require(self.divide_by > 0, f"weaker_l2: divide_by must be a number > 0, got {self.divide_by!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(recipe, weight_decay=recipe.weight_decay / self.divide_by)
