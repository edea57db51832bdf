"""Large batch: more images in each optimizer step.

Paper: he2019bag, arXiv:1812.01187, Sec. 3.1: 1,024; goyal2017accurate, arXiv:1706.02677, Table 1:
    8,192
Equation: batch_size = images
Acts on: recipe (batch_size)
Defaults: images = 1024 (he2019bag)
Differs: nothing known. The learning rate stays as it is: linear_lr_scaling, which reads the batch, comes
    after this trick in a list. At a reduced size the batch is scaled by batch_scale.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


@dataclass(frozen=True, kw_only=True)
class LargeBatch(Trick):
    """Set `recipe.batch_size`."""

    name: ClassVar[str] = "large_batch"
    images: int = 1024

    def __post_init__(self) -> None:
        require(self.images >= 1, f"large_batch: images must be an integer >= 1, got {self.images!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(recipe, batch_size=self.images)
