"""Residual networks: He et al.'s original, its refinements B, C and D, ResNeXt; and those for CIFAR.

Papers: he2016deep, arXiv:1512.03385, Table 1 (depths, channels) and Fig. 5 (blocks);
xie2017aggregated, arXiv:1611.05431, Table 1 (groups);
he2019bag, arXiv:1812.01187, Sec. 4 and Fig. 2 (the refinements):

- stride_in: the convolution of a bottleneck's main path that halves the resolution: the first "1x1" (He et
  al.) or the "3x3" (ResNet-B). A basic block has no 1x1 convolution, its stride is always in its first 3x3;
  the models with basic blocks therefore have no such argument, and ResNet-B does not exist for them.
- stem: one "7x7" convolution with stride 2, or "deep": three 3x3 convolutions, the first with stride 2, with
  32, 32 and 64 channels (ResNet-C). Either is followed by a 3x3 max-pool with stride 2.
- shortcut: where a block changes its shape, "conv": a 1x1 convolution with the block's stride, or "avgpool":
  a 2x2 average pool with that stride, then a 1x1 convolution with stride 1 (ResNet-D).

So B is stride_in="3x3", C is B with stem="deep", D is C with shortcut="avgpool". Settings that the papers
leave open are GluonCV's: the average pool keeps the odd last row and column (ceil_mode) and does not count
padding. B is torchvision's resnet50; names of parameters and buffers are torchvision's as well (timm's for C
and D), so weights trained there load here without a key map.

ResNeXt's bottlenecks have `groups` x `group_width` channels instead of 64 in the 3x3 convolutions of stage 1,
twice as many in each later stage, and their 3x3 convolutions are split into `groups`; their outputs are as
wide as ResNet's. With 32 x 4 and stride_in="3x3" this is torchvision's resnext50_32x4d.

At 32 pixels the feature maps have sides 16 (stem), 8 (max-pool and stage 1), 4, 2 and 1. A depth of three
numbers leaves stage 4 out, for inputs so small that it would see a single pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from harness.models.blocks import starts_at_zero
from harness.models.entry import CIFAR_CHANNELS, RESNET_CHANNELS, groups_divide_channels, scaled_channels

STEM_CHANNELS = 64
FIRST_STAGE_STRIDE, LATER_STAGE_STRIDE = 1, 2  # the max-pool comes before the first stage


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetConfig:
    """Every number of a residual network. Raises ValueError where the parts do not fit together."""

    depth: tuple[int, ...]  # blocks in each stage; fewer than four stages leave the last ones out
    block: str  # bottleneck | basic
    classes: int
    width: float = 1.0  # multiplies every channel count, see `channels`
    stem: str = "7x7"  # 7x7 | deep
    stride_in: str | None = None  # 1x1 | 3x3; None with basic blocks
    shortcut: str = "conv"  # conv | avgpool
    zero_gamma: bool = False  # the last batch norm of each residual block starts at 0
    groups: int = 1  # of each 3x3 convolution of a bottleneck; ResNeXt's cardinality
    group_width: int = 64  # channels of each group in the first stage
    in_channels: int = 3

    def __post_init__(self) -> None:
        if not 1 <= len(self.depth) <= len(RESNET_CHANNELS):
            raise ValueError(f"depth must name 1 to {len(RESNET_CHANNELS)} stages, got {len(self.depth)}")
        if self.block not in BLOCKS:
            raise ValueError(f"block must be 'bottleneck' or 'basic', got {self.block!r}")
        if self.stem not in ("7x7", "deep"):
            raise ValueError(f"stem must be '7x7' or 'deep', got {self.stem!r}")
        if self.shortcut not in ("conv", "avgpool"):
            raise ValueError(f"shortcut must be 'conv' or 'avgpool', got {self.shortcut!r}")
        if self.block == "bottleneck" and self.stride_in not in ("1x1", "3x3"):
            raise ValueError(f"stride_in must be '1x1' or '3x3', got {self.stride_in!r}")
        if self.block == "basic" and self.stride_in is not None:
            raise ValueError("a basic block has no stride_in: its stride is always in its first 3x3")
        if self.block == "basic" and (self.groups, self.group_width) != (1, RESNET_CHANNELS[0]):
            raise ValueError("a basic block has no groups")
        groups_divide_channels({"depth": self.depth, "width": self.width, **self._groups})

    @property
    def _groups(self) -> dict[str, int]:
        return {"groups": self.groups, "group_width": self.group_width}

    def channels(self, count: int) -> int:
        """A channel count of the paper times `width`. Raises ValueError: nothing is left."""
        return scaled_channels(count, self.width)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (he2016deep, Fig. 5 right)."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        outputs = self.expansion * config.channels(channels)
        inner = config.channels(channels * config.groups * config.group_width // RESNET_CHANNELS[0])
        stride_1x1, stride_3x3 = (stride, 1) if config.stride_in == "1x1" else (1, stride)
        self.conv1 = _conv(inputs, inner, kernel=1, stride=stride_1x1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv(inner, inner, kernel=3, stride=stride_3x3, groups=config.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _conv(inner, outputs, kernel=1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride=stride, kind=config.shortcut)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm whose gamma `zero_gamma` sets to 0."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return self.relu(out)


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut (he2016deep, Fig. 5 left)."""

    expansion = 1

    def __init__(
        self, inputs: int, channels: int, stride: int, config: ResNetConfig | CifarResNetConfig
    ) -> None:
        super().__init__()
        inner = config.channels(channels)
        self.conv1 = _conv(inputs, inner, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv(inner, inner, kernel=3)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _basic_shortcut(inputs, inner, stride=stride, kind=config.shortcut)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm whose gamma `zero_gamma` sets to 0."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, inner, ceil(H / stride), ceil(W / stride))."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            out += self.downsample(x)
        return self.relu(out)


BLOCKS: Mapping[str, type[Bottleneck] | type[Basic]] = {"bottleneck": Bottleneck, "basic": Basic}


class ResNet(nn.Module):
    """Images (B, in_channels, H, W) -> logits (B, classes)."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        width = config.channels(STEM_CHANNELS)
        self.conv1 = _stem(config)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.stages = tuple(f"layer{index + 1}" for index in range(len(config.depth)))
        for index, name in enumerate(self.stages):
            stage, width = _stage(index, width, config)
            self.add_module(name, stage)
        self.fc = nn.Linear(width, config.classes)
        if config.zero_gamma:
            for block in self.modules():
                if isinstance(block, Bottleneck | Basic):
                    starts_at_zero(block.last_norm)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(x.mean(dim=(2, 3)))


def _conv(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Without bias: a batch norm follows. Padded so that stride 1 keeps the resolution."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def _stem(config: ResNetConfig) -> nn.Module:
    """The convolutions up to the stem's last batch norm; halves the resolution."""
    half, full = config.channels(STEM_CHANNELS // 2), config.channels(STEM_CHANNELS)
    if config.stem == "7x7":
        return _conv(config.in_channels, full, kernel=7, stride=2)
    return nn.Sequential(
        _conv(config.in_channels, half, kernel=3, stride=2),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        _conv(half, half, kernel=3),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        _conv(half, full, kernel=3),
    )


def _stage(index: int, inputs: int, config: ResNetConfig) -> tuple[nn.Sequential, int]:
    """The blocks of one stage, and how many channels come out."""
    block = BLOCKS[config.block]
    channels = RESNET_CHANNELS[index]
    outputs = config.channels(channels) * block.expansion
    stride = LATER_STAGE_STRIDE if index else FIRST_STAGE_STRIDE
    first = block(inputs, channels, stride, config)
    others = [block(outputs, channels, 1, config) for _ in range(config.depth[index] - 1)]
    return nn.Sequential(first, *others), outputs


def _basic_shortcut(inputs: int, outputs: int, *, stride: int, kind: str) -> nn.Module | None:
    """As `_shortcut`; or without a parameter, "pad"; or "none", of a plain network."""
    if kind == "none":
        return None
    if kind == "pad" and (stride > 1 or inputs != outputs):
        return PaddedIdentity(outputs - inputs, stride)
    return _shortcut(inputs, outputs, stride=stride, kind=kind)


def _shortcut(inputs: int, outputs: int, *, stride: int, kind: str) -> nn.Module:
    """The identity where a block keeps its shape, else a projection with a batch norm."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "conv":
        return nn.Sequential(_conv(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm2d(outputs))
    halve = nn.AvgPool2d(2, stride=2, ceil_mode=True, count_include_pad=False)
    pool = halve if stride == 2 else nn.Identity()
    return nn.Sequential(pool, _conv(inputs, outputs, kernel=1), nn.BatchNorm2d(outputs))


# Residual networks for CIFAR's images of 32 pixels (he2016deep, Sec. 4.2): 6n + 2 layers.
#
# A 3x3 convolution with 16 channels, then three stages of n basic blocks with 16, 32 and 64 channels on maps
# of 32, 16 and 8 pixels. Shortcuts are option A: the identity, where a stage begins every other pixel of it
# and zeros in the new channels, so that they have no parameter. shortcut="none" is the plain network of
# Fig. 6 (left) with as many parameters, "conv" option B. Where the zeros go is not said: here they come last.


@dataclass(frozen=True, slots=True, kw_only=True)
class CifarResNetConfig:
    """Every number of a CIFAR network. Raises ValueError where the parts do not fit together."""

    depth: tuple[int, ...]  # blocks in each stage, n of each in the paper
    classes: int
    width: float = 1.0  # multiplies every channel count, see `channels`
    shortcut: str = "pad"  # pad | conv | none
    zero_gamma: bool = False  # the last batch norm of each block starts at 0
    in_channels: int = 3

    def __post_init__(self) -> None:
        if not 1 <= len(self.depth) <= len(CIFAR_CHANNELS):
            raise ValueError(f"depth must name 1 to {len(CIFAR_CHANNELS)} stages, got {len(self.depth)}")
        if self.shortcut not in ("pad", "conv", "none"):
            raise ValueError(f"shortcut must be 'pad', 'conv' or 'none', got {self.shortcut!r}")

    def channels(self, count: int) -> int:
        """A channel count of the paper times `width`. Raises ValueError: nothing is left."""
        return scaled_channels(count, self.width)


class PaddedIdentity(nn.Module):
    """Option A: (B, C, H, W) -> (B, C + zeros, ceil(H / stride), ceil(W / stride)), without parameters."""

    def __init__(self, zeros: int, stride: int) -> None:
        super().__init__()
        self.zeros, self.stride = zeros, stride

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.zeros))


class CifarResNet(nn.Module):
    """Images (B, in_channels, H, W) -> logits (B, classes)."""

    def __init__(self, config: CifarResNetConfig) -> None:
        super().__init__()
        inputs = config.channels(CIFAR_CHANNELS[0])
        self.conv1 = _conv(config.in_channels, inputs, kernel=3)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.stages = tuple(f"layer{index + 1}" for index in range(len(config.depth)))
        for index, name in enumerate(self.stages):
            stride = LATER_STAGE_STRIDE if index else FIRST_STAGE_STRIDE
            blocks = []
            for block in range(config.depth[index]):
                blocks.append(Basic(inputs, CIFAR_CHANNELS[index], 1 if block else stride, config))
                inputs = config.channels(CIFAR_CHANNELS[index])
            self.add_module(name, nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, config.classes)
        if config.zero_gamma:
            for module in self.modules():
                if isinstance(module, Basic):
                    starts_at_zero(module.last_norm)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(x.mean(dim=(2, 3)))


# The pre-activation ResNet-18 for 32 pixels that zhang2018mixup, Sec. 3.2, trains "as implemented in (Liu,
# 2017)": kuangliu's pytorch-cifar. Batch norm and ReLU come before the convolutions (he2016identity,
# arXiv:1603.05027, Fig. 1b); a projecting shortcut sees what they give, and has no batch norm of its own.
# As in that code, and unlike in he2016identity, no batch norm and ReLU follow the last block: final_norm.
# dropout: between the two convolutions, after the ReLU (zhang2018mixup, Sec. 3.4).


@dataclass(frozen=True, slots=True, kw_only=True)
class PreActConfig:
    """Every number of a pre-activation network. Raises ValueError where the parts do not fit together."""

    depth: tuple[int, ...]  # blocks in each stage; fewer than four stages leave the last ones out
    classes: int
    width: float = 1.0  # multiplies every channel count, see `channels`
    dropout: float = 0.0  # the share of values that each block drops
    final_norm: bool = False  # a batch norm and a ReLU after the last block
    in_channels: int = 3

    def __post_init__(self) -> None:
        if not 1 <= len(self.depth) <= len(RESNET_CHANNELS):
            raise ValueError(f"depth must name 1 to {len(RESNET_CHANNELS)} stages, got {len(self.depth)}")

    def channels(self, count: int) -> int:
        """A channel count of the paper times `width`. Raises ValueError: nothing is left."""
        return scaled_channels(count, self.width)


class PreActBasic(nn.Module):
    """Twice batch norm, ReLU and a 3x3 convolution, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, kernel=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _conv(outputs, outputs, kernel=3)
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Sequential(_conv(inputs, outputs, kernel=1, stride=stride)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        activated = self.bn1(x).relu_()
        out = self.dropout(self.bn2(self.conv1(activated)).relu_())
        out = self.conv2(out)
        out += x if self.shortcut is None else self.shortcut(activated)
        return out


class PreActResNet(nn.Module):
    """Images (B, in_channels, H, W) -> logits (B, classes)."""

    def __init__(self, config: PreActConfig) -> None:
        super().__init__()
        inputs = config.channels(RESNET_CHANNELS[0])
        self.conv1 = _conv(config.in_channels, inputs, kernel=3)
        self.stages = tuple(f"layer{index + 1}" for index in range(len(config.depth)))
        for index, name in enumerate(self.stages):
            stride = LATER_STAGE_STRIDE if index else FIRST_STAGE_STRIDE
            outputs = config.channels(RESNET_CHANNELS[index])
            blocks = [PreActBasic(inputs, outputs, stride, config.dropout)]
            blocks += [
                PreActBasic(outputs, outputs, 1, config.dropout) for _ in range(config.depth[index] - 1)
            ]
            self.add_module(name, nn.Sequential(*blocks))
            inputs = outputs
        self.bn = nn.BatchNorm2d(inputs) if config.final_norm else None
        self.linear = nn.Linear(inputs, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images)
        for name in self.stages:
            x = getattr(self, name)(x)
        if self.bn is not None:
            x = self.bn(x).relu_()
        return self.linear(x.mean(dim=(2, 3)))
