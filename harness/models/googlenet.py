"""The networks of the batch norm paper: GoogLeNet, BN-GoogLeNet and BN-Inception, the stem that they share,
and the small network of its first experiment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.models.blocks import Branches, Conv, ConvStyle, Outputs, Pool, Step, Unit

# What GoogLeNet and BN-Inception have in common: the layers before the first Inception block, and checks.


CHANNELS = 64  # of the first convolution, as the paper counts


class Stem(nn.Module):
    """First convolution, pool, 1x1:64, 3x3:192, pool (szegedy2015going, Table 1), response normalisation
    after the first pool and before the second if `lrn`.

    (B, C, H, W) -> (B, self.outputs, H / 8, W / 8), rounded up or down; H / 4 and W / 4 with size "small",
    which leaves out the second pool. `conv1` halves H and W and gives 64 channels, scaled.
    """

    def __init__(self, conv1: nn.Module, style: ConvStyle, *, size: str, lrn: bool, norm: bool) -> None:
        super().__init__()
        self.conv1 = conv1
        self.maxpool1 = halving_pool()
        self.conv2 = Unit(style.channels(CHANNELS), Conv(CHANNELS, norm=norm), style)
        self.conv3 = Unit(self.conv2.outputs, Conv(192, 3, norm=norm), style)
        self.maxpool2 = halving_pool() if size == "large" else nn.Identity()
        self.lrn = LocalResponse() if lrn else nn.Identity()
        self.outputs = self.conv3.outputs

    def forward(self, images: Tensor) -> Tensor:
        x = self.lrn(self.maxpool1(self.conv1(images)))
        return self.maxpool2(self.lrn(self.conv3(self.conv2(x))))


class LocalResponse(nn.Module):
    """Local response normalisation across channels (krizhevsky2012imagenet).

    Divides by (k + alpha / n * sum of the squares of the n nearest channels) ** 0.75, with the constants of
    Caffe's bvlc_googlenet: the values of torch.nn.LocalResponseNorm(5), in a third of its time.
    """

    n, alpha, k = 5, 1e-4, 1.0

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        channels = x.shape[1]
        squares = F.pad(x * x, (0, 0, 0, 0, self.n // 2, self.n // 2))
        total = squares[:, :channels]
        for shift in range(1, self.n):
            total = total + squares[:, shift : shift + channels]
        root = torch.rsqrt(self.k + self.alpha / self.n * total)
        return x * (root * root.sqrt())


def halving_pool() -> nn.MaxPool2d:
    """3x3 max-pool with stride 2, the last window cut short: 112 -> 56 -> 28 -> 14 -> 7. Needs 2 pixels."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def check_depth(depth: tuple[int, ...], full: tuple[int, ...]) -> None:
    """Raises ValueError unless every stage keeps at least one of its blocks and no more than it has."""
    fits = len(depth) == len(full) and all(1 <= kept <= most for kept, most in zip(depth, full, strict=True))
    if not fits:
        words = ", ".join(f"1 to {most}" for most in full)
        raise ValueError(f"depth must name the blocks kept of each stage ({words}), got {depth}")


def check_word(name: str, value: str, *words: str) -> None:
    """Raises ValueError unless `value` is one of `words`."""
    if value not in words:
        raise ValueError(f"{name} must be {' or '.join(map(repr, words))}, got {value!r}")


# GoogLeNet, and BN-GoogLeNet: the same network with batch norm.
#
# Paper: szegedy2015going, arXiv:1409.4842, Table 1 (channels, pools) and the text (auxiliary heads,
# dropout).
#
# - norm: "none" (the paper: convolutions with a bias) or "batch" (BN-GoogLeNet: convolutions without bias,
# then
#   batch norm with eps 1e-3), also in the auxiliary heads.
# - lrn: local response normalisation after the first pool and before the second. Table 1 has no row for it;
#   positions and constants (5 channels, alpha 1e-4, beta 0.75, k 1) are those of Caffe's bvlc_googlenet.
# - auxiliary: "plain": two heads, after 4a and 4d, whose logits come with the main ones while training; or
#   "none".
# - dropout: of the main head; that of the auxiliary heads is always 0.7.
# - five: kernel of the third branch. "3x3" is torchvision's, for comparison; its last pool also is 2x2.
#
# Differs from the paper:
#
# - The first convolution is a full 7x7 (9,408 weights, 118 M multiply-adds). The printed 2.7 K parameters
# and
#   34 M operations fit only a separable one with depth multiplier 8.
# - Filter counts are Table 1's; the parameters printed beside 4a, 4c, 4d, 4e, 5a and 5b are not those that
#   these counts give.
# - An auxiliary head averages 5x5 windows with stride 3 where that gives 4x4 (at 224 pixels, where its
# input is
#   14x14); elsewhere the windows adapt to give 4x4, so that the layers after it are the same at any input.
#
# Made smaller: `width` multiplies every channel count (to the nearest integer), `depth` keeps the first
# blocks of the stages 3a-3b, 4a-4e and 5a-5b; the second head then follows 4d or the last block kept of its
# stage. Grids are 28, 14 and 7 pixels wide at 224 and 4, 2 and 1 at 32; stem "small" leaves out the second
# max-pool: 8, 4 and 2 at 32.


# Output channels: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection. A max-pool comes before each stage.
TABLE_1: tuple[Mapping[str, tuple[int, int, int, int, int, int]], ...] = (
    {
        "3a": (64, 96, 128, 16, 32, 32),
        "3b": (128, 128, 192, 32, 96, 64),
    },
    {
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
    },
    {
        "5a": (256, 160, 320, 32, 128, 128),
        "5b": (384, 192, 384, 48, 128, 128),
    },
)
SECOND_HEAD_AFTER = 4  # blocks of the second stage
HEAD_HIDDEN, HEAD_DROPOUT = 1024, 0.7
HEAD_SIDE, HEAD_WINDOW, HEAD_STRIDE = 4, 5, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogLeNetConfig:
    """Every number of a GoogLeNet. Raises ValueError where the parts do not fit together."""

    classes: int
    in_channels: int = 3
    depth: tuple[int, ...] = (2, 5, 2)  # blocks kept of each stage
    width: float = 1.0  # multiplies every channel count
    stem: str = "large"  # large | small: without the second max-pool
    norm: str = "none"  # none | batch
    lrn: bool = True
    auxiliary: str = "plain"  # plain | none
    dropout: float = 0.4  # before the last fully connected layer
    five: str = "5x5"  # 5x5 | 3x3

    def __post_init__(self) -> None:
        check_depth(self.depth, tuple(len(stage) for stage in TABLE_1))
        check_word("stem", self.stem, "large", "small")
        check_word("norm", self.norm, "none", "batch")
        check_word("auxiliary", self.auxiliary, "plain", "none")
        check_word("five", self.five, "5x5", "3x3")

    @property
    def style(self) -> ConvStyle:
        return ConvStyle(width=self.width)

    @property
    def conv(self) -> Callable[..., Conv]:
        """A convolution of this network: outputs, kernel, stride."""
        return partial(Conv, norm=self.norm == "batch")


class GoogLeNetHead(nn.Module):
    """Average pool, 1x1 convolution, two fully connected layers with dropout 0.7 between them."""

    def __init__(self, inputs: int, config: GoogLeNetConfig) -> None:
        super().__init__()
        hidden = config.style.channels(HEAD_HIDDEN)
        self.conv = Unit(inputs, config.conv(128), config.style)
        self.fc1 = nn.Linear(self.conv.outputs * HEAD_SIDE**2, hidden)
        self.fc2 = nn.Linear(hidden, config.classes)
        self.dropout = nn.Dropout(HEAD_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> logits (B, classes)."""
        x = self.conv(four_by_four(x)).flatten(1)
        return self.fc2(self.dropout(self.fc1(x).relu()))


class GoogLeNet(nn.Module):
    """Images (B, in_channels, H, W) -> logits (B, classes); with auxiliary heads, in training: Outputs."""

    def __init__(self, config: GoogLeNetConfig) -> None:
        super().__init__()
        conv1 = Unit(config.in_channels, config.conv(CHANNELS, 7, stride=2), config.style)
        self.stem = Stem(conv1, config.style, size=config.stem, lrn=config.lrn, norm=config.norm == "batch")
        self.maxpool3, self.maxpool4 = halving_pool(), halving_pool()
        self.stages = tuple(tuple(stage)[:kept] for stage, kept in zip(TABLE_1, config.depth, strict=True))
        outputs = self.stem.outputs
        outputs_of = {}
        for stage, names in zip(TABLE_1, self.stages, strict=True):
            for name in names:
                block = Branches(outputs, _paths(stage[name], config), config.style)
                self.add_module(f"inception{name}", block)
                outputs = outputs_of[name] = block.outputs
        self.heads: dict[str, str] = {}  # head -> the block after which it stands
        if config.auxiliary == "plain":
            middle = self.stages[1]
            self.heads = {"aux1": middle[0], "aux2": middle[:SECOND_HEAD_AFTER][-1]}
        for head, name in self.heads.items():
            self.add_module(head, GoogLeNetHead(outputs_of[name], config))
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(outputs, config.classes)

    def forward(self, images: Tensor) -> Tensor | Outputs:
        x = self.stem(images)
        auxiliary: list[Tensor] = []
        for pool, names in zip((nn.Identity(), self.maxpool3, self.maxpool4), self.stages, strict=True):
            x = pool(x)
            for name in names:
                x = getattr(self, f"inception{name}")(x)
                if self.training:
                    auxiliary += [getattr(self, head)(x) for head, at in self.heads.items() if at == name]
        logits = self.fc(self.dropout(x.mean(dim=(2, 3))))
        return Outputs(logits, tuple(auxiliary)) if auxiliary else logits


def four_by_four(x: Tensor) -> Tensor:
    """Average pool (B, C, H, W) -> (B, C, 4, 4): 5x5 windows with stride 3 where those give 4x4.

    Where 4 divides both sides, the windows stand side by side: the values of the general case, and, unlike
    its own, a gradient that is deterministic on a GPU.
    """
    height, width = x.shape[-2:]
    if all((side - HEAD_WINDOW) // HEAD_STRIDE + 1 == HEAD_SIDE for side in (height, width)):
        return F.avg_pool2d(x, HEAD_WINDOW, HEAD_STRIDE)
    if height % HEAD_SIDE == 0 and width % HEAD_SIDE == 0:
        return F.avg_pool2d(x, (height // HEAD_SIDE, width // HEAD_SIDE))
    if x.device.type == "cpu":
        return F.adaptive_avg_pool2d(x, HEAD_SIDE)
    return mean_windows(x, HEAD_SIDE)


def mean_windows(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side): `adaptive_avg_pool2d` up to rounding, from operators that torch
    does not refuse on a GPU in exact mode.

    >>> x = torch.arange(36.0).view(1, 1, 6, 6)
    >>> torch.equal(mean_windows(x, 4), F.adaptive_avg_pool2d(x, 4))
    True
    """
    height, width = x.shape[-2:]
    rows = [slice(i * height // side, -(-(i + 1) * height // side)) for i in range(side)]
    columns = [slice(i * width // side, -(-(i + 1) * width // side)) for i in range(side)]
    means = [x[..., row, column].mean((-2, -1)) for row in rows for column in columns]
    return torch.stack(means, dim=-1).unflatten(-1, (side, side))


def _paths(row: Sequence[int], config: GoogLeNetConfig) -> dict[str, Sequence[Step]]:
    """The four branches of a row of Table 1."""
    conv, five = config.conv, int(config.five[0])
    n1x1, reduce3x3, n3x3, reduce5x5, n5x5, projection = row
    return {
        "branch1": [conv(n1x1)],
        "branch2": [conv(reduce3x3), conv(n3x3, 3)],
        "branch3": [conv(reduce5x5), conv(n5x5, five)],
        "branch4": [Pool("max"), conv(projection)],
    }


# BN-Inception: the network of the batch norm paper, with batch norm and without.
#
# Paper: ioffe2015batch, arXiv:1502.03167, Fig. 5 (the architecture's table) and Fig. 3 (what was trained).
#
# - layout: "slim" or "fig5". Slim is TF-slim's reading of the figure: projections of 96 channels in 4c and
# 4d,
#   so that 4c, 4d and 4e give the printed 576, 576 and 1024 channels, and a separable first convolution
# with
#   depth multiplier 8, as the figure has it. Fig5 has the column's 128 channels in 4c and 4d (608, 608 and
#   1056), and a plain 7x7 first convolution.
# - norm: "batch" (convolutions without bias, then batch norm with eps 1e-3) or "none" (convolutions with a
#   bias): "Inception" of Fig. 3, which is this network and not GoogLeNet.
# - activation: every nonlinearity, "relu" or "sigmoid" (BN-x5-Sigmoid).
# - lrn: local response normalisation where GoogLeNet has it. From BN-x5 on the paper removes it, and
# dropout
#   (0.4 in "Inception").
#
# Differs from the paper:
#
# - The text says 13.6 M parameters; the figure gives 11.188 M (slim) or 11.285 M (fig5).
# - No auxiliary head: the transcribed figure has none.
# - The strided max-pools in 3c and 4e are padded like the convolutions beside them, and average pools do
# not
#   count their padding: our choices, the figure does not say.
#
# Made smaller: `width` multiplies every channel count (to the nearest integer, at least 1), `depth` keeps
# the first blocks of the stages 3a-3c, 4a-4e and 5a-5b, of which 3c and 4e, which halve the grid, always
# stay. Grids are 28, 14 and 7 pixels wide at 224 and 4, 2 and 1 at 32; stem "small" leaves out the second
# max-pool: 8, 4 and 2 at 32.


class BlockRow(NamedTuple):
    """Output channels of a block, as the columns of Fig. 5; `double`: of two 3x3 convolutions in a row."""

    n1x1: int  # 0: the block has no 1x1 branch, its others have stride 2, its pool no projection
    reduce3x3: int
    n3x3: int
    reduce_double: int
    double: int
    pool: str  # avg | max
    projection: int


FIGURE_5: tuple[Mapping[str, BlockRow], ...] = (
    {
        "3a": BlockRow(64, 64, 64, 64, 96, "avg", 32),
        "3b": BlockRow(64, 64, 96, 64, 96, "avg", 64),
        "3c": BlockRow(0, 128, 160, 64, 96, "max", 0),
    },
    {
        "4a": BlockRow(224, 64, 96, 96, 128, "avg", 128),
        "4b": BlockRow(192, 96, 128, 96, 128, "avg", 128),
        "4c": BlockRow(160, 128, 160, 128, 160, "avg", 128),
        "4d": BlockRow(96, 128, 192, 160, 192, "avg", 128),
        "4e": BlockRow(0, 128, 192, 192, 256, "max", 0),
    },
    {
        "5a": BlockRow(352, 192, 320, 160, 224, "avg", 128),
        "5b": BlockRow(352, 192, 320, 192, 224, "max", 128),
    },
)
SLIM_PROJECTION = {"4c": 96, "4d": 96}
DEPTH_MULTIPLIER = 8  # of the separable first convolution


@dataclass(frozen=True, slots=True, kw_only=True)
class BNInceptionConfig:
    """Every number of a BN-Inception. Raises ValueError where the parts do not fit together."""

    classes: int
    in_channels: int = 3
    depth: tuple[int, ...] = (3, 5, 2)  # blocks kept of each stage
    width: float = 1.0  # multiplies every channel count
    stem: str = "large"  # large | small: without the second max-pool
    layout: str = "slim"  # slim | fig5
    norm: str = "batch"  # batch | none
    activation: str = "relu"  # relu | sigmoid
    lrn: bool = False
    dropout: float = 0.0  # before the fully connected layer

    def __post_init__(self) -> None:
        check_depth(self.depth, tuple(len(stage) for stage in FIGURE_5))
        check_word("stem", self.stem, "large", "small")
        check_word("layout", self.layout, "slim", "fig5")
        check_word("norm", self.norm, "batch", "none")
        check_word("activation", self.activation, "relu", "sigmoid")

    @property
    def style(self) -> ConvStyle:
        return ConvStyle(width=self.width)

    @property
    def conv(self) -> Callable[..., Conv]:
        """A convolution of this network: outputs, kernel, stride."""
        return partial(Conv, norm=self.norm == "batch")

    def rows(self) -> dict[str, BlockRow]:
        """The blocks that are kept, in order, as the layout has them."""
        kept = {}
        for stage, count in zip(FIGURE_5, self.depth, strict=True):
            strided = [name for name, row in stage.items() if not row.n1x1]
            others = [name for name in stage if name not in strided]
            kept.update({name: stage[name] for name in [*others[: count - len(strided)], *strided]})
        if self.layout == "slim":
            for name in SLIM_PROJECTION.keys() & kept.keys():
                kept[name] = kept[name]._replace(projection=SLIM_PROJECTION[name])
        return kept


class Separable(nn.Module):
    """A 7x7 convolution with stride 2 of each channel by itself, then 1x1:64. Nothing stands between the two.

    (B, inputs, H, W) -> (B, 64 scaled, ceil(H / 2), ceil(W / 2)).
    """

    def __init__(self, inputs: int, config: BNInceptionConfig) -> None:
        super().__init__()
        outputs = inputs * max(1, math.floor(DEPTH_MULTIPLIER * config.width + 0.5))
        self.depthwise = nn.Conv2d(inputs, outputs, 7, stride=2, padding=3, groups=inputs, bias=False)
        self.pointwise = Unit(outputs, config.conv(CHANNELS), config.style)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class BNInception(nn.Module):
    """Images (B, in_channels, H, W) -> logits (B, classes)."""

    def __init__(self, config: BNInceptionConfig) -> None:
        super().__init__()
        if config.layout == "slim":
            conv1: nn.Module = Separable(config.in_channels, config)
        else:
            conv1 = Unit(config.in_channels, config.conv(CHANNELS, 7, stride=2), config.style)
        self.stem = Stem(conv1, config.style, size=config.stem, lrn=config.lrn, norm=config.norm == "batch")
        outputs = self.stem.outputs
        self.inception = nn.Sequential()
        for name, row in config.rows().items():
            block = Branches(outputs, _bn_paths(row, config.conv), config.style)
            self.inception.add_module(name, block)
            outputs = block.outputs
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(outputs, config.classes)
        if config.activation == "sigmoid":
            for module in self.modules():
                if isinstance(module, Unit):
                    module.relu = nn.Sigmoid()  # the only nonlinearities of this network

    def forward(self, images: Tensor) -> Tensor:
        x = self.inception(self.stem(images))
        return self.fc(self.dropout(x.mean(dim=(2, 3))))


def _bn_paths(row: BlockRow, conv: Callable[..., Conv]) -> dict[str, Sequence[Step]]:
    """The branches of a row of Fig. 5."""
    if not row.n1x1:
        return {
            "branch2": [conv(row.reduce3x3), conv(row.n3x3, 3, stride=2)],
            "branch3": [conv(row.reduce_double), conv(row.double, 3), conv(row.double, 3, stride=2)],
            "branch4": [Pool(row.pool, stride=2)],
        }
    return {
        "branch1": [conv(row.n1x1)],
        "branch2": [conv(row.reduce3x3), conv(row.n3x3, 3)],
        "branch3": [conv(row.reduce_double), conv(row.double, 3), conv(row.double, 3)],
        "branch4": [Pool(row.pool), conv(row.projection)],
    }


# The small network of the batch norm paper's first experiment, with batch norm and without.
#
# Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.1 and Fig. 1: 28x28 binary digits (the data set mnist with
# `binary: true`), three fully connected hidden layers of 100 sigmoid units, ten outputs, weights from a small
# Gaussian.
#
# - norm: "none", or "batch": batch norm (eps 1e-3) between the linear part of each hidden layer and its
#   nonlinearity; the linear part then has no bias, which the norm's beta replaces.
# - activation: "sigmoid" or "relu".
#
# Differs from the paper:
#
# - The standard deviation of the Gaussian is not stated: 0.1 (`init_std`, for the initialisation schemes that
#   draw from a Gaussian).
# - Images with several channels are averaged to grey, and images of more than 28 pixels a side average-pooled
#   to 28x28, so that the same network serves any data set.


SIDE = 28  # pixels
WEIGHT_STD = 0.1
NORM_EPS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class BNMLPConfig:
    """Every number of the network. Raises ValueError where the parts do not fit together."""

    classes: int
    in_channels: int = 3
    hidden: tuple[int, ...] = (100, 100, 100)  # units of each hidden layer
    norm: str = "none"  # none | batch
    activation: str = "sigmoid"  # sigmoid | relu

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(
                f"hidden must name at least one layer, each of at least 1 unit, got {self.hidden}"
            )
        if self.norm not in ("none", "batch"):
            raise ValueError(f"norm must be 'none' or 'batch', got {self.norm!r}")
        if self.activation not in ("sigmoid", "relu"):
            raise ValueError(f"activation must be 'sigmoid' or 'relu', got {self.activation!r}")


class BNMLP(nn.Module):
    """Images (B, C, H, W), H and W at least 28 -> logits (B, classes). Raises ValueError for smaller ones."""

    def __init__(self, config: BNMLPConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = SIDE**2
        for units in config.hidden:
            layers.append(_linear(inputs, units, bias=config.norm == "none"))
            if config.norm == "batch":
                layers.append(nn.BatchNorm1d(units, eps=NORM_EPS))
            layers.append(nn.Sigmoid() if config.activation == "sigmoid" else nn.ReLU())
            inputs = units
        self.hidden = nn.Sequential(*layers)
        self.fc = _linear(inputs, config.classes, bias=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.hidden(grey_28(images).flatten(1)))


def grey_28(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, 28, 28): the mean of the channels, average-pooled where it is larger.

    Raises:
        ValueError: the images are smaller.
    """
    if min(images.shape[-2:]) < SIDE:
        height, width = images.shape[-2:]
        raise ValueError(f"bn_mlp needs images of at least {SIDE}x{SIDE} pixels, got {height}x{width}")
    return F.adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), SIDE)


def _linear(inputs: int, outputs: int, *, bias: bool) -> nn.Linear:
    """A fully connected layer that says with which standard deviation it starts."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    layer.init_std = WEIGHT_STD  # type: ignore[assignment]  # read by the initialisation schemes
    return layer
