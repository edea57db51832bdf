"""ResNet-C: the 7x7 convolution of the stem becomes three 3x3 convolutions.

Paper: he2019bag, arXiv:1812.01187, Sec. 4.2 and Table 5; idea from szegedy2016rethinking,
    arXiv:1512.00567, Sec. 6
Equation: 7x7/2:64 -> 3x3/2:32, 3x3/1:32, 3x3/1:64, then the 3x3/2 max-pool as before
Acts on: recipe (model argument stem)
Defaults: no options
Differs: the paper's ResNet-C contains ResNet-B; this trick is the stem alone, so a row that means the
    paper's ResNet-C has resnet_b too. The text may be read as two strided convolutions; Fig. 2b and the
    authors' code have one, the first, as here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, require, with_model_args


@dataclass(frozen=True, kw_only=True)
class ResNetC(Trick):
    """Set the model argument `stem` to "deep"."""

    name: ClassVar[str] = "resnet_c"

    def edit_recipe(self, recipe: Any) -> Any:
        purpose = "resnet_c replaces the 7x7 stem of a ResNet"
        stem = recipe.model.args.get("stem", "7x7")
        require(stem in ("7x7", "deep"), f"{purpose}: the stem of {recipe.model.name} is '{stem}'")
        return with_model_args(recipe, purpose, stem="deep")
