"""BF16: forward and backward in bfloat16, with FP32 master weights and no loss scaling.

Paper: kalamkar2019study, arXiv:1905.12322; the place it takes is that of FP16 in he2019bag,
    arXiv:1812.01187, Sec. 3.2
Equation: none: bfloat16 has the exponent range of FP32, so that gradients need no scale
Acts on: recipe (precision)
Defaults: no options
Differs: not a trick of he2019bag, whose rows are FP16. It has 8 significant bits where FP16 has 11, so its
    effect is reported under its own name. On a CPU it is emulated, as FP16 is.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick


@dataclass(frozen=True, kw_only=True)
class Bf16(Trick):
    """Set `recipe.precision` to "bf16"; the training loop applies it."""

    name: ClassVar[str] = "bf16"
    conflicts: ClassVar[tuple[str, ...]] = ("fp16",)

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(recipe, precision="bf16")
