"""Factorized 7x7: the first convolution becomes three convolutions of 3x3.

Paper: szegedy2016rethinking, arXiv:1512.00567, Secs. 6, 10 and Table 3, row "Inception-v2 Factorized 7x7"
Equation: conv 7x7/2 -> conv 3x3/2, conv 3x3, conv 3x3
Acts on: recipe (model argument factorized_7x7)
Defaults: no options
Differs: the row "includes" the first layer (Sec. 10) and probably more: its printed cost rises from 3.8 to
    4.8 thousand million operations, ours from 5.3 to 5.7. Here it is the first layer only: the 1x7 and
    7x1 convolutions at the middle grid are another switch (asymmetric_convolutions). Inception-v3 contains
    this change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class Factorized7x7(Trick):
    """Set the model argument `factorized_7x7`."""

    name: ClassVar[str] = "factorized_7x7"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(
            recipe, "factorized_7x7 splits the 7x7 stem of Inception-v2", factorized_7x7=True
        )
