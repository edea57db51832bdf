"""BN-auxiliary: the fully connected part of the auxiliary head is batch-normalised as well.

Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 10 and Table 3, row "Inception-v2 BN-auxiliary"
    (this is Inception-v3); batch normalisation from ioffe2015batch, arXiv:1502.03167, Alg. 1
Equation: y = gamma * (x - mean) / sqrt(var + eps) + beta, on the outputs of the head's last hidden layer
Acts on: recipe (model argument auxiliary)
Defaults: no options
Differs: the paper says that the auxiliary head's fully connected layer is normalised, not just its
    convolutions; its released head has no hidden fully connected layer, so the 5x5 convolution of 768
    channels, which covers its whole input, is taken for it. This reading is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class BnAuxiliary(Trick):
    """Set the model argument `auxiliary` to "bn"."""

    name: ClassVar[str] = "bn_auxiliary"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "bn_auxiliary normalises an auxiliary head", auxiliary="bn")
