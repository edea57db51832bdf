"""Grid reduction: convolution and pooling, both with stride 2, beside each other.

Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 5 and Figs. 9, 10
Equation: paper: [conv/2(x), pool/2(x)], concatenated;   naive: conv(pool/2(x)), cheap, with a bottleneck;
    expensive: pool/2(conv(x)), four times the multiply-adds of the convolution
Acts on: recipe (model argument grid)
Defaults: kind = paper (the paper's proposal; the other two are what it argues against)
Differs: nothing known; the number of channels after the reduction is the same for all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class GridReduction(Trick):
    """Set the model argument `grid`."""

    name: ClassVar[str] = "grid_reduction"
    kind: Literal["paper", "naive", "expensive"] = "paper"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(
            recipe, "grid_reduction changes how an Inception network halves its grid", grid=self.kind
        )
