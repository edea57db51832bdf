"""Half precision in the forward and the backward pass."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick


@dataclass(frozen=True, kw_only=True)
class Fp16(Trick):
    """FP16: forward and backward in half precision, with FP32 master weights and loss scaling.

    Paper: he2019bag, arXiv:1812.01187, Sec. 3.2; method from micikevicius2018mixed, arXiv:1710.03740,
        Sec. 3 (memory)
    Equation: g = grad(S * loss) / S with activations and gradients in FP16; the weights are updated in FP32
    Acts on: recipe (precision)
    Defaults: no options
    Differs: torch.autocast decides per operator what runs in FP16 and keeps FP32 weights as the masters,
        where the paper holds an FP16 copy of all parameters; the scale S is dynamic (torch.amp.GradScaler);
        he2019bag calls a scalar that multiplies the loss "also a practical solution", without saying that it
        was used. On a CPU every half value is an FP32 one rounded to FP16 (harness/models/half.py), so that
        the row means the same on any machine.
    """

    name: ClassVar[str] = "fp16"
    conflicts: ClassVar[tuple[str, ...]] = ("bf16",)

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(recipe, precision="fp16")


@dataclass(frozen=True, kw_only=True)
class Bf16(Trick):
    """BF16: forward and backward in bfloat16, with FP32 master weights and no loss scaling.

    Paper: kalamkar2019study, arXiv:1905.12322; the place it takes is that of FP16 in he2019bag,
        arXiv:1812.01187, Sec. 3.2
    Equation: none: bfloat16 has the exponent range of FP32, so that gradients need no scale
    Acts on: recipe (precision)
    Defaults: no options
    Differs: not a trick of he2019bag, whose rows are FP16. It has 8 significant bits where FP16 has 11, so
        its effect is reported under its own name. On a CPU it is emulated, as FP16 is.
    """

    name: ClassVar[str] = "bf16"
    conflicts: ClassVar[tuple[str, ...]] = ("fp16",)

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(recipe, precision="bf16")
