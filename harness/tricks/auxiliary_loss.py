"""Auxiliary loss: how much the loss of each auxiliary head counts.

Paper: szegedy2015going, arXiv:1409.4842, Sec. 5: 0.3; szegedy2016rethinking, arXiv:1512.00567,
    whose released code has 0.4
Equation: L = loss(main head) + weight * sum over the auxiliary heads of their cross-entropy
Acts on: recipe (auxiliary_weight)
Defaults: weight = 0.4 (the released code of szegedy2016rethinking; its text gives no number)
Differs: nothing known. The heads learn from the batch's own targets, smoothed and mixed where tricks do
    that; the released code smooths them too. A distilled loss acts on the main head only.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require


@dataclass(frozen=True, kw_only=True)
class AuxiliaryLoss(Trick):
    """Set `recipe.auxiliary_weight`."""

    name: ClassVar[str] = "auxiliary_loss"
    weight: float = 0.4

    def __post_init__(self) -> None:
        require(self.weight >= 0, f"auxiliary_loss: weight must be a number >= 0, got {self.weight!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        require(
            "auxiliary" in recipe.model.args,
            f"auxiliary_loss weighs auxiliary heads: {recipe.model.name} has no argument 'auxiliary'",
        )
        return dataclasses.replace(recipe, auxiliary_weight=self.weight)
