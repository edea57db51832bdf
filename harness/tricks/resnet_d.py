"""ResNet-D: the shortcut of a down-sampling block averages before its 1x1 convolution.

Paper: he2019bag, arXiv:1812.01187, Sec. 4.2 and Table 5
Equation: shortcut 1x1/2 convolution -> 2x2/2 average pool, 1x1/1 convolution
Acts on: recipe (model argument shortcut)
Defaults: no options
Differs: the paper's ResNet-D contains ResNet-B and ResNet-C; this trick is the shortcut alone, so a row
    that means the paper's ResNet-D has resnet_b and resnet_c too. Pooling rounds up and does not count
    padding, as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class ResNetD(Trick):
    """Set the model argument `shortcut` to "avgpool"."""

    name: ClassVar[str] = "resnet_d"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(
            recipe, "resnet_d changes the shortcut of a residual block", shortcut="avgpool"
        )
