"""Two 3x3 in place of a 5x5: the same receptive field with 28 % fewer weights.

Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 3.1 and Fig. 2: a ReLU between the two is better than
    none, 77.2 % against 76.2 % top-1
Equation: conv 5x5 -> conv 3x3, f, conv 3x3, with f = relu, or the identity where linear; (9 + 9) / 25 = 0.72
Acts on: recipe (model argument five)
Defaults: linear = False (the better one in the paper)
Differs: the paper's experiment replaces the convolutions of a network of its own; here those of
    Inception-v3's first blocks, where the released code kept its 5x5. Batch normalisation stays between
    the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class Two3x3(Trick):
    """Set the model argument `five`."""

    name: ClassVar[str] = "two_3x3"
    linear: bool = False

    def edit_recipe(self, recipe: Any) -> Any:
        five = "two_3x3_linear" if self.linear else "two_3x3"
        return with_model_args(recipe, "two_3x3 replaces 5x5 convolutions", five=five)
