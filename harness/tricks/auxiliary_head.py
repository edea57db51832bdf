"""Auxiliary head: a small classifier in the middle of the network that is trained along.

Paper: szegedy2015going, arXiv:1409.4842, Sec. 5; szegedy2016rethinking, arXiv:1512.00567, Sec. 4
Equation: L = loss(main head) + auxiliary_weight * sum over the auxiliary heads of their cross-entropy
Acts on: recipe (model argument auxiliary)
Defaults: kind = plain (no batch normalisation in the head's fully connected layer)
Differs: nothing known. It gives heads to a network without any, and leaves those that a network has; the
    networks of the papers have them from the start. They are dropped at evaluation, and not part of its
    cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class AuxiliaryHead(Trick):
    """Set the model argument `auxiliary` where it is "none"."""

    name: ClassVar[str] = "auxiliary_head"
    kind: Literal["plain"] = "plain"

    def edit_recipe(self, recipe: Any) -> Any:
        has = recipe.model.args.get("auxiliary", "none")
        kind = self.kind if has == "none" else has
        return with_model_args(recipe, "auxiliary_head needs a place for a head", auxiliary=kind)
