"""No bias decay: weight decay acts on the weights of convolutions and linear layers only.

Paper: he2019bag, arXiv:1812.01187, Sec. 3.1 (memory); from jia2018highly, arXiv:1807.11205 (memory)
Equation: g_p = dL/dp + wd * p where p is a matrix or a kernel; g_p = dL/dp for biases, gamma and beta
Acts on: parameter_groups
Defaults: no options
Differs: "biases, gamma and beta" is taken to be every parameter with at most one dimension, which in the
    networks here is the same set. goyal2017accurate leaves out gamma and beta only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.tricks.base import ParameterGroup, Trick

if TYPE_CHECKING:
    from torch import nn


def split_group(group: ParameterGroup) -> list[ParameterGroup]:
    """Part a group into one that is decayed as before and one without decay; empty parts are dropped.

    >>> from types import SimpleNamespace as P
    >>> parts = split_group({"params": [("w", P(ndim=4)), ("gamma", P(ndim=1))], "weight_decay": 1e-4})
    >>> [([name for name, _ in part["params"]], part["weight_decay"]) for part in parts]
    [(['w'], 0.0001), (['gamma'], 0.0)]
    """
    decayed = [(name, p) for name, p in group["params"] if p.ndim > 1]
    free = [(name, p) for name, p in group["params"] if p.ndim <= 1]
    parts: list[ParameterGroup] = [
        {**group, "params": decayed},
        {**group, "params": free, "weight_decay": 0.0},
    ]
    return [part for part in parts if part["params"]]


@dataclass(frozen=True, kw_only=True)
class NoBiasDecay(Trick):
    """Take every parameter with at most one dimension out of weight decay."""

    name: ClassVar[str] = "no_bias_decay"

    def edit_parameter_groups(self, groups: list[ParameterGroup], model: nn.Module) -> list[ParameterGroup]:
        return [part for group in groups for part in split_group(group)]
