"""RMSProp: each step is divided by a running root mean square of the gradient.

Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 8 and Table 3, row "Inception-v2 RMSProp"
Equation: v_n = decay * v_{n-1} + (1 - decay) * g_n^2;   tf: v_0 = 1, b_n = momentum * b_{n-1} + lr * g_n
    / sqrt(v_n + eps), w_n = w_{n-1} - b_n;   torch: v_0 = 0, b_n = momentum * b_{n-1} + g_n / (sqrt(v_n)
    + eps), w_n = w_{n-1} - lr * b_n
Acts on: recipe (optimizer, optimizer_args, lr)
Defaults: decay = 0.9, eps = 1.0 and lr = 0.045 (the paper); momentum = 0.9 (the paper's released code);
    form = tf (the paper was trained with TensorFlow)
Differs: 50 replicas made the paper's steps; here each is made from the whole batch, as in TensorFlow's
    released synchronous trainer. With eps = 1.0 the place of eps matters: a first gradient of 0.1 moves a
    weight by 0.072 lr with form = tf and by 0.097 lr with form = torch. The rate is an option of this
    trick, so tricks that scale the rate exclude it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.tricks.base import Trick, require


def first_step(gradient: float, *, decay: float, eps: float, form: str) -> float:
    """How far the first step moves a weight, in units of the learning rate.

    The optimizers have their own code; this is the equation they must agree with.

    >>> [round(first_step(g, decay=0.9, eps=1.0, form="tf"), 4) for g in (0.1, 1.0)]
    [0.0725, 0.7071]
    >>> [round(first_step(g, decay=0.9, eps=1.0, form="torch"), 4) for g in (0.1, 1.0)]
    [0.0969, 0.7597]
    """
    square = decay * (1.0 if form == "tf" else 0.0) + (1 - decay) * gradient**2
    return gradient / (math.sqrt(square + eps) if form == "tf" else math.sqrt(square) + eps)


@dataclass(frozen=True, kw_only=True)
class RmsProp(Trick):
    """Replace the optimizer, its arguments and the peak learning rate."""

    name: ClassVar[str] = "rmsprop"
    conflicts: ClassVar[tuple[str, ...]] = ("linear_lr_scaling", "higher_lr")
    decay: float = 0.9
    eps: float = 1.0
    momentum: float = 0.9
    form: Literal["tf", "torch"] = "tf"
    lr: float = 0.045

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, f"rmsprop: decay must be a number in [0, 1), got {self.decay!r}")
        require(self.eps > 0, f"rmsprop: eps must be a number > 0, got {self.eps!r}")
        require(
            0 <= self.momentum < 1, f"rmsprop: momentum must be a number in [0, 1), got {self.momentum!r}"
        )
        require(self.lr > 0, f"rmsprop: lr must be a number > 0, got {self.lr!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(
            recipe,
            optimizer="rmsprop_tf" if self.form == "tf" else "rmsprop",
            optimizer_args={"alpha": self.decay, "eps": self.eps, "momentum": self.momentum},
            lr=self.lr,
        )
