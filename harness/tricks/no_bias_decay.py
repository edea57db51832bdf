"""No bias decay: weight decay acts on the weights of convolutions and linear layers only.

Paper: he2019bag, arXiv:1812.01187, Sec. 3.1; from jia2018highly, arXiv:1807.11205 (memory);
    goyal2017accurate, arXiv:1706.02677, Sec. 5.1: gamma and beta alone
Equation: g_p = dL/dp + wd * p where p is a matrix or a kernel; g_p = dL/dp for biases, gamma and beta
Acts on: parameter_groups
Defaults: exempt = all (he2019bag); norms: biases of convolutions and linear layers are decayed
    (goyal2017accurate)
Differs: "biases, gamma and beta" is taken to be every parameter with at most one dimension, which in the
    networks here is the same set. A bias is one of a layer whose weight has more dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from harness.tricks.base import ParameterGroup, Trick

if TYPE_CHECKING:
    from torch import nn


def split_group(group: ParameterGroup, also_decayed: frozenset[str] = frozenset()) -> list[ParameterGroup]:
    """Part a group into one that is decayed as before and one without decay; empty parts are dropped.

    >>> from types import SimpleNamespace as P
    >>> parts = split_group({"params": [("w", P(ndim=4)), ("gamma", P(ndim=1))], "weight_decay": 1e-4})
    >>> [([name for name, _ in part["params"]], part["weight_decay"]) for part in parts]
    [(['w'], 0.0001), (['gamma'], 0.0)]
    """
    decayed = [(name, p) for name, p in group["params"] if p.ndim > 1 or name in also_decayed]
    free = [(name, p) for name, p in group["params"] if p.ndim <= 1 and name not in also_decayed]
    parts: list[ParameterGroup] = [
        {**group, "params": decayed},
        {**group, "params": free, "weight_decay": 0.0},
    ]
    return [part for part in parts if part["params"]]


def layer_biases(model: nn.Module) -> frozenset[str]:
    """Names of the biases of layers whose weight is a matrix or a kernel."""
    kernels = {name.removesuffix("weight") for name, p in model.named_parameters() if p.ndim > 1}
    return frozenset(name for name, _ in model.named_parameters() if name.removesuffix("bias") in kernels)


@dataclass(frozen=True, kw_only=True)
class NoBiasDecay(Trick):
    """Take every parameter with at most one dimension, or those of norms alone, out of weight decay."""

    name: ClassVar[str] = "no_bias_decay"
    said_if_set: ClassVar[tuple[str, ...]] = ("exempt",)
    exempt: Literal["all", "norms"] = "all"

    def edit_parameter_groups(self, groups: list[ParameterGroup], model: nn.Module) -> list[ParameterGroup]:
        kept = layer_biases(model) if self.exempt == "norms" else frozenset()
        return [part for group in groups for part in split_group(group, kept)]
