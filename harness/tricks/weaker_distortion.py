"""Weaker photometric distortion: fewer examples are seen, so they should look more like real ones.

Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1
Equation: jitter' = factor * jitter,   pca_noise' = factor * pca_noise
Acts on: recipe (augment: jitter, pca_noise)
Defaults: factor = 0.5 (our choice: the paper says reduced, and gives no number)
Differs: by how much the paper reduces which distortion is not known.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


@dataclass(frozen=True, kw_only=True)
class WeakerDistortion(Trick):
    """Multiply `recipe.augment.jitter` and `recipe.augment.pca_noise`."""

    name: ClassVar[str] = "weaker_distortion"
    factor: float = 0.5

    def __post_init__(self) -> None:
        require(
            0 <= self.factor <= 1,
            f"weaker_distortion: factor must be a number in [0, 1], got {self.factor!r}",
        )

    def edit_recipe(self, recipe: Any) -> Any:
        augment = recipe.augment
        weaker = dataclasses.replace(
            augment, jitter=augment.jitter * self.factor, pca_noise=augment.pca_noise * self.factor
        )
        return dataclasses.replace(recipe, augment=weaker)
