"""ResNet-B: the down-sampling block halves the resolution in its 3x3 convolution.

Paper: he2019bag, arXiv:1812.01187, Sec. 4.2 and Table 5
Equation: path A of a down-sampling block: strides (2, 1, 1) of its 1x1, 3x3, 1x1 convolutions become (1, 2,
    1)
Acts on: recipe (model argument stride_in)
Defaults: no options
Differs: nothing known. torchvision's resnet50 is already this network; the baseline here is He's original.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class ResNetB(Trick):
    """Set the model argument `stride_in` to "3x3"."""

    name: ClassVar[str] = "resnet_b"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "resnet_b moves the stride of a bottleneck block", stride_in="3x3")
