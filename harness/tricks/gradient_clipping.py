"""Gradient clipping: a gradient that is too long is cut before the optimizer sees it.

Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 8: threshold 2.0
Equation: norm: g' = g * min(1, threshold / ||g||_2), one norm over all parameters;   value: g'_i =
    min(max(g_i, -threshold), threshold)
Acts on: recipe (clip_norm, clip_value)
Defaults: threshold = 2.0 (the paper); by = norm (the paper does not say which; the usual reading)
Differs: nothing known beyond that choice.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.tricks.base import Trick, require


@dataclass(frozen=True, kw_only=True)
class GradientClipping(Trick):
    """Set `recipe.clip_norm` or `recipe.clip_value`, and the other to 0."""

    name: ClassVar[str] = "gradient_clipping"
    threshold: float = 2.0
    by: Literal["norm", "value"] = "norm"

    def __post_init__(self) -> None:
        require(
            self.threshold > 0, f"gradient_clipping: threshold must be a number > 0, got {self.threshold!r}"
        )

    def edit_recipe(self, recipe: Any) -> Any:
        norm, value = (self.threshold, 0.0) if self.by == "norm" else (0.0, self.threshold)
        return dataclasses.replace(recipe, clip_norm=norm, clip_value=value)
