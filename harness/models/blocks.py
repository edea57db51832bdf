"""What the Inception families are built of: convolutions, branches, auxiliary answers, initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import unknown
from harness.models.entry import scaled_channels

# What a network with auxiliary heads answers while it trains.


class Outputs(NamedTuple):
    """Logits of the main head (B, K), and of each auxiliary head, each (B, K). At evaluation a network
    answers with the main head's logits alone."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...]


# The pieces of the Inception families: convolutions with what follows them, and branches side by side.
#
# Architectures are written as the papers draw them, as steps one after the other. `Conv(64, (1, 7))` is a
# convolution with 64 outputs and a kernel 1 pixel high and 7 wide, padded so that stride 1 keeps the
# resolution; `pad=0` is what the papers mark V. `Pool` is a 3x3 pool, a tuple of convolutions a fork:
# each sees the same input, their outputs stand side by side. Channel counts are the paper's; `ConvStyle`
# scales them.
#
# Weights have torchvision's names: `conv` and `bn` in a unit; in `Branches` the name of the path and the
# number of the convolution in it, branch5x5_1 and branch5x5_2, with a letter in a fork, branch3x3_2a. The
# only convolution of a path has the path's name alone.


NORM_EPS = 1e-3  # of the released code (TF-slim); torch's own default is 1e-5


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution, its batch norm (without one it has a bias), and a ReLU unless it is linear."""

    outputs: int  # the paper's, before `Style.width`
    kernel: int | tuple[int, int] = 1  # (height, width)
    _: KW_ONLY
    stride: int = 1
    pad: int | None = None  # pixels; None: as many as keep the resolution at stride 1
    norm: bool = True
    relu: bool = True
    init_std: float | None = None  # of normally distributed initial weights; None: the scheme's own


@dataclass(frozen=True, slots=True)
class Pool:
    """A 3x3 pool; with stride 1 and one pixel of padding it keeps the resolution."""

    kind: str  # avg | max
    _: KW_ONLY
    stride: int = 1
    pad: int = 1


Step = Conv | Pool | tuple[Conv, ...]
AVG = Pool("avg")
HALVE = Pool("max", stride=2, pad=0)


def unstrided(step: Step) -> Step:
    """The same step at the resolution of its input.

    >>> unstrided(Conv(96, 3, stride=2, pad=0)) == Conv(96, 3)
    True
    """
    if isinstance(step, Pool):
        return replace(step, stride=1, pad=1)
    if isinstance(step, Conv):
        return replace(step, stride=1, pad=None)
    return tuple(replace(each, stride=1, pad=None) for each in step)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvStyle:
    """What holds for every convolution and pool of a network."""

    width: float = 1.0  # multiplies every channel count
    keep_edges: bool = False  # True: `pad` is ignored, nothing is lost at the edges (small inputs)
    count_padding: bool = False  # average pools divide by 9 at the edges too

    def channels(self, count: int) -> int:
        """A channel count of the paper times `width`. Raises ValueError if nothing is left."""
        return scaled_channels(count, self.width)


class Unit(nn.Module):
    """The module of a `Conv`: (B, inputs, H, W) -> (B, outputs, H', W')."""

    def __init__(self, inputs: int, step: Conv, style: ConvStyle) -> None:
        super().__init__()
        self.outputs = style.channels(step.outputs)
        kernel = step.kernel if isinstance(step.kernel, tuple) else (step.kernel, step.kernel)
        padding = (kernel[0] // 2, kernel[1] // 2)
        if step.pad is not None and not style.keep_edges:
            padding = (step.pad, step.pad)
        self.conv = nn.Conv2d(inputs, self.outputs, kernel, step.stride, padding, bias=not step.norm)
        if step.init_std is not None:
            self.conv.__dict__["init_std"] = step.init_std
        self.bn = nn.BatchNorm2d(self.outputs, eps=NORM_EPS) if step.norm else nn.Identity()
        self.relu: nn.Module = nn.ReLU(inplace=True) if step.relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


def pool(step: Pool, style: ConvStyle) -> nn.Module:
    """The module of a `Pool`: (B, C, H, W) -> (B, C, H', W')."""
    padding = 1 if style.keep_edges else step.pad
    if step.kind == "max":
        return nn.MaxPool2d(3, step.stride, padding)
    return nn.AvgPool2d(3, step.stride, padding, count_include_pad=style.count_padding)


class Branches(nn.Module):
    """Paths from one input, their outputs side by side along the channels in the order of `paths`.

    (B, inputs, H, W) -> (B, outputs, H', W'); every path must change H and W alike.
    """

    def __init__(self, inputs: int, paths: Mapping[str, Sequence[Step]], style: ConvStyle) -> None:
        super().__init__()
        self.outputs = 0
        self.paths = [self._add(name, steps, inputs, style) for name, steps in paths.items()]

    def _add(self, path: str, steps: Sequence[Step], inputs: int, style: ConvStyle) -> list[list[str]]:
        """Add the modules of one path; for each step, the names of those that share its input."""
        names: list[list[str]] = []
        channels, number = inputs, 0
        alone = sum(not isinstance(step, Pool) for step in steps) < 2
        for step in steps:
            if isinstance(step, Pool):
                names.append([path if len(steps) == 1 else f"{path}_pool"])
                self.add_module(names[-1][0], pool(step, style))
                continue
            number += 1
            name = path if alone else f"{path}_{number}"
            fork = step if isinstance(step, tuple) else (step,)
            units = [Unit(channels, each, style) for each in fork]
            names.append([name + letter for letter in "abcd"[: len(units)]] if len(units) > 1 else [name])
            for each, unit in zip(names[-1], units, strict=True):
                self.add_module(each, unit)
            channels = sum(unit.outputs for unit in units)
        self.outputs += channels
        return names

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._follow(path, x) for path in self.paths], 1)

    def _follow(self, path: list[list[str]], x: Tensor) -> Tensor:
        for names in path:
            outputs = [getattr(self, name)(x) for name in names]
            x = torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]
        return x


class Classifier(nn.Module):
    """Layers one after the other, then the mean over the map, dropout and a linear layer.

    A family adds its layers with `add` and ends with `finish`. (B, in_channels, H, W) -> logits (B, classes),
    or `Outputs` where a family has an auxiliary head.
    """

    fc: nn.Linear

    def __init__(self, in_channels: int, style: ConvStyle) -> None:
        super().__init__()
        self.style = style
        self.outputs = in_channels  # channels of what was added last
        self.trunk: list[str] = []  # names of the layers, in order

    def add(self, name: str, layer: nn.Module | Step | Mapping[str, Sequence[Step]]) -> None:
        """Add a step, branches (path -> steps), or a module with `outputs` unless it keeps the channels."""
        if isinstance(layer, Conv):
            layer = Unit(self.outputs, layer, self.style)
        elif isinstance(layer, Pool):
            layer = pool(layer, self.style)
        elif isinstance(layer, Mapping):
            layer = Branches(self.outputs, layer, self.style)
        assert isinstance(layer, nn.Module)
        self.add_module(name, layer)
        self.trunk.append(name)
        self.outputs = getattr(layer, "outputs", self.outputs)

    def finish(self, *, classes: int, dropout: float) -> None:
        """Add the classifier; `dropout` is the probability of dropping."""
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.outputs, classes)

    def classify(self, features: Tensor) -> Tensor:
        """(B, outputs, H, W) -> (B, classes)."""
        return self.fc(self.dropout(features.mean(dim=(2, 3))))

    def forward(self, images: Tensor) -> Tensor | Outputs:
        x = images
        for name in self.trunk:
            x = getattr(self, name)(x)
        return self.classify(x)


def check_depth(depth: Sequence[int]) -> None:
    """Raises ValueError unless `depth` names all three stages."""
    if len(depth) != 3:
        raise ValueError(f"depth must name 3 stages (grids of 35, 17 and 8 pixels), got {len(depth)}")


# Initial weights of a network, by one of a few named schemes.
#
# Every scheme sets biases and a batch norm's beta to 0 and its gamma to 1, or to 0 where the norm is marked
# by `starts_at_zero` (zero gamma: goyal2017accurate, Sec. 5.1; he2019bag, Sec. 3.1). Weights of
# convolutions and linear layers, with fan_in = kernel area x input channels / groups and fan_out = kernel
# area x output channels / groups (kernel area 1 for a linear layer):
#
# - he_fan_out: convolutions N(0, 2 / fan_out) (he2015delving, Sec. 2.2, the backward case), linear layers
#   N(0, 0.01^2) (goyal2017accurate, Sec. 5.1).
# - he_average: N(0, 2 / (1 + 0.25^2) / mean(fan_in, fan_out)), linear layers included, fan_out of all groups
#   together: MXNet's MSRAPrelu, with which the authors of he2019bag train (Sec. 2.1 names Xavier's rule).
# - he_fan_in: N(0, 2 / fan_in), linear layers included (he2015delving, Sec. 2.2, the forward case).
# - xavier: uniform in +- sqrt(6 / (fan_in + fan_out)) (glorot2010understanding, Eq. 16). Differs from
#   he2019bag, Sec. 2.1, whose d_in and d_out are the numbers of channels, without the kernel's area.
# - truncated_normal: N(0, s^2), drawn again beyond 2 s; s is the module's `init_std` or 0.1: the rule of
#   the released Inception networks. Differs: torchvision's copy of it cuts at +- 2 whatever s is, which for
#   s = 0.1 cuts nothing.
# - gaussian: N(0, s^2); s is the module's `init_std` or 0.01 (krizhevsky2012imagenet, Sec. 5).
# - own: whatever the constructor did.
#
# Differs: torch's own He rule leaves `groups` out of fan_out, so that torchvision's grouped and depthwise
# convolutions start smaller by sqrt(groups) than here; a batch norm follows them, which takes scale away.


Layer = nn.Conv2d | nn.Linear
Norm = nn.BatchNorm1d | nn.BatchNorm2d

LINEAR_STD = 0.01  # goyal2017accurate, Sec. 5.1
PRELU_SLOPE = 0.25  # he2015delving, Sec. 2.1: where the slope of a PReLU starts
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


def _he_average(layer: Layer) -> None:
    fans = layer.weight[0].numel() + layer.weight[:, 0].numel()
    _normal(layer.weight, math.sqrt(2 / (1 + PRELU_SLOPE**2) / (fans / 2)))


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
    "he_average": _he_average,
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
