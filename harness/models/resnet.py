"""Residual networks: He et al.'s original, its refinements B, C and D, and ResNeXt in one family.

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
from harness.models.entry import RESNET_CHANNELS, groups_divide_channels, scaled_channels

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

    def __init__(self, inputs: int, channels: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        inner = config.channels(channels)
        self.conv1 = _conv(inputs, inner, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv(inner, inner, kernel=3)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, inner, stride=stride, kind=config.shortcut)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm whose gamma `zero_gamma` sets to 0."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, inner, ceil(H / stride), ceil(W / stride))."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
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


def _shortcut(inputs: int, outputs: int, *, stride: int, kind: str) -> nn.Module:
    """The identity where a block keeps its shape, else a projection with a batch norm."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "conv":
        return nn.Sequential(_conv(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm2d(outputs))
    halve = nn.AvgPool2d(2, stride=2, ceil_mode=True, count_include_pad=False)
    pool = halve if stride == 2 else nn.Identity()
    return nn.Sequential(pool, _conv(inputs, outputs, kernel=1), nn.BatchNorm2d(outputs))
