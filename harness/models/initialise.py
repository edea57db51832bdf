"""Initial weights of a network, by one of a few named schemes.

Every scheme sets biases and a batch norm's beta to 0 and its gamma to 1, or to 0 where the norm is marked by
`starts_at_zero` (zero gamma: goyal2017accurate, Sec. 5.1; he2019bag, Sec. 3.1). Weights of convolutions and
linear layers, with fan_in = kernel area x input channels / groups and fan_out = kernel area x output channels
/ groups (kernel area 1 for a linear layer):

- he_fan_out: convolutions N(0, 2 / fan_out) (he2015delving, Sec. 2.2, the backward case), linear layers
  N(0, 0.01^2) (goyal2017accurate, Sec. 5.1). he2019bag, Sec. 2.1, names Xavier's rule, its authors' code a
  variant of He's.
- he_fan_in: N(0, 2 / fan_in), linear layers included (he2015delving, Sec. 2.2, the forward case).
- xavier: uniform in +- sqrt(6 / (fan_in + fan_out)) (glorot2010understanding, Eq. 16).
- truncated_normal: N(0, s^2), drawn again beyond 2 s; s is the module's `init_std` or 0.1: the rule of
  the released Inception networks. Differs: torchvision's copy of it cuts at +- 2 whatever s is, which for
  s = 0.1 cuts nothing.
- gaussian: N(0, s^2); s is the module's `init_std` or 0.01 (krizhevsky2012imagenet, Sec. 5).
- own: whatever the constructor did.

Differs: torch's own He rule leaves `groups` out of fan_out, so that torchvision's grouped and depthwise
convolutions start smaller by sqrt(groups) than here; a batch norm follows them, which takes scale away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from harness.models.entry import unknown

Layer = nn.Conv2d | nn.Linear
Norm = nn.BatchNorm1d | nn.BatchNorm2d

LINEAR_STD = 0.01  # goyal2017accurate, Sec. 5.1
TRUNCATED_STD, GAUSSIAN_STD = 0.1, 0.01  # of modules without `init_std`


def initialise(net: nn.Module, scheme: str) -> None:
    """Fill every parameter of `net`, drawing from torch's default generator in the order of the modules.

    Raises:
        ValueError: an unknown scheme.
    """
    if scheme not in SCHEMES:
        raise ValueError(unknown("initialisation", scheme, SCHEMES))
    fill = SCHEMES[scheme]
    if fill is None:
        return
    for module in net.modules():
        if isinstance(module, Layer):
            fill(module)
            _zero(module.bias)
        elif isinstance(module, Norm) and module.affine:
            nn.init.constant_(module.weight, 0.0 if getattr(module, "zero_gamma", False) else 1.0)
            _zero(module.bias)


def starts_at_zero(norm: nn.Module) -> None:
    """Mark a batch norm: `initialise` sets its gamma to 0 and not to 1."""
    norm.__dict__["zero_gamma"] = True


def _he_fan_out(layer: Layer) -> None:
    _normal(layer.weight, LINEAR_STD if isinstance(layer, nn.Linear) else _he_std(_fans(layer)[1]))


def _he_fan_in(layer: Layer) -> None:
    _normal(layer.weight, _he_std(_fans(layer)[0]))


def _xavier(layer: Layer) -> None:
    bound = math.sqrt(6 / sum(_fans(layer)))
    nn.init.uniform_(layer.weight, -bound, bound)


def _truncated_normal(layer: Layer) -> None:
    std = getattr(layer, "init_std", TRUNCATED_STD)
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)


def _gaussian(layer: Layer) -> None:
    _normal(layer.weight, getattr(layer, "init_std", GAUSSIAN_STD))


SCHEMES: Mapping[str, Callable[[Layer], None] | None] = {
    "he_fan_out": _he_fan_out,
    "he_fan_in": _he_fan_in,
    "xavier": _xavier,
    "truncated_normal": _truncated_normal,
    "gaussian": _gaussian,
    "own": None,
}


def _fans(layer: Layer) -> tuple[int, int]:
    """How many inputs make one output, and how many outputs one input feeds (with stride 1)."""
    groups = getattr(layer, "groups", 1)
    return layer.weight[0].numel(), layer.weight[:, 0].numel() // groups


def _he_std(fan: int) -> float:
    return math.sqrt(2) / math.sqrt(fan)  # in torch's order of operations, so that the bits are torch's


def _normal(weight: Tensor, std: float) -> None:
    nn.init.normal_(weight, std=std)


def _zero(bias: Tensor | None) -> None:
    if bias is not None:
        nn.init.zeros_(bias)
