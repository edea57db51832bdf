"""Asymmetric convolutions: an n x n convolution becomes a 1 x n and an n x 1.

Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 3.2 and Fig. 3: not on early layers, good on grids of 12
    to 20 pixels
Equation: conv n x n -> conv 1 x n, conv n x 1: 2 n weights in place of n^2 per pair of channels
Acts on: recipe (model argument asymmetric)
Defaults: no options
Differs: Inception-v3 has them from the start, so this trick needs a baseline with asymmetric: false.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class AsymmetricConvolutions(Trick):
    """Set the model argument `asymmetric`."""

    name: ClassVar[str] = "asymmetric_convolutions"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "asymmetric_convolutions splits n x n convolutions", asymmetric=True)
