"""Inception-v2, -v3, with a switch for each change that the paper makes, and Inception-v4."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from harness.models.blocks import (
    AVG,
    HALVE,
    Branches,
    Classifier,
    Conv,
    ConvStyle,
    Outputs,
    Pool,
    Step,
    Unit,
    check_depth,
    pool,
    unstrided,
)

# The blocks of Inception-v2 and -v3: path -> steps, and the modules that are more than branches.
#
# Paper: szegedy2016rethinking, arXiv:1512.00567, Figs. 2, 5-7, 9 and 10; channel counts of the released
# code (the paper leaves them to a file that is not in it). Grids are those of a 299-pixel image.


Paths = dict[str, tuple[Step, ...]]
AUXILIARY_SIDE = 5  # of the map under the auxiliary head's 5x5 convolution
AUXILIARY_POOLED_SIDE = 17  # smallest map that 5x5 windows 3 pixels apart reduce to it


def block_a(pooled: int, five: str) -> Paths:
    """At 35 pixels (Fig. 5 with two 3x3 convolutions); `pooled` are the outputs of the branch with the pool.

    `five` is what stands in the second branch: "5x5", or two 3x3 convolutions with as many outputs, the first
    followed by a ReLU ("two_3x3") or by its batch norm alone ("two_3x3_linear", Fig. 2).
    """
    between = Conv(64, 3, relu=five == "two_3x3")
    return {
        "branch1x1": (Conv(64),),
        "branch5x5": (Conv(48), Conv(64, 5)) if five == "5x5" else (Conv(48), between, Conv(64, 3)),
        "branch3x3dbl": (Conv(64), Conv(96, 3), Conv(96, 3)),
        "branch_pool": (AVG, Conv(pooled)),
    }


def reduction_a() -> Paths:
    """From 35 to 17 pixels (Fig. 10)."""
    return {
        "branch3x3": (Conv(384, 3, stride=2, pad=0),),
        "branch3x3dbl": (Conv(64), Conv(96, 3), Conv(96, 3, stride=2, pad=0)),
        "branch_pool": (HALVE,),
    }


def block_b(inner: int) -> Paths:
    """At 17 pixels (Fig. 6 with n = 7); `inner` are the channels between the convolutions."""
    row, column = Conv(inner, (1, 7)), Conv(inner, (7, 1))
    return {
        "branch1x1": (Conv(192),),
        "branch7x7": (Conv(inner), row, Conv(192, (7, 1))),
        "branch7x7dbl": (Conv(inner), column, row, column, Conv(192, (1, 7))),
        "branch_pool": (AVG, Conv(192)),
    }


def reduction_b() -> Paths:
    """From 17 to 8 pixels."""
    return {
        "branch3x3": (Conv(192), Conv(320, 3, stride=2, pad=0)),
        "branch7x7x3": (Conv(192), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, stride=2, pad=0)),
        "branch_pool": (HALVE,),
    }


def block_c() -> Paths:
    """At 8 pixels (Fig. 7): row and column side by side."""
    both = (Conv(384, (1, 3)), Conv(384, (3, 1)))
    return {
        "branch1x1": (Conv(320),),
        "branch3x3": (Conv(384), both),
        "branch3x3dbl": (Conv(448), Conv(384, 3), both),
        "branch_pool": (AVG, Conv(192)),
    }


def symmetric(paths: Paths) -> Paths:
    """One nxn convolution in place of each pair of a row and a column, in sequence or side by side.

    It has as many outputs as the pair, so the block keeps its outputs.

    >>> symmetric({"branch": (Conv(128), Conv(128, (1, 7)), Conv(192, (7, 1)))})["branch"] == (
    ...     Conv(128), Conv(192, 7))
    True
    """
    return {name: tuple(_symmetric(steps)) for name, steps in paths.items()}


def _symmetric(steps: tuple[Step, ...]) -> list[Step]:
    merged: list[Step] = []
    is_second = False
    for step in steps:
        if isinstance(step, tuple):
            assert isinstance(step[0].kernel, tuple)
            merged.append(Conv(sum(each.outputs for each in step), max(step[0].kernel)))
        elif isinstance(step, Conv) and isinstance(step.kernel, tuple):
            if is_second:
                merged[-1] = replace(step, kernel=max(step.kernel))
            else:
                merged.append(step)
            is_second = not is_second
        else:
            merged.append(step)
    return merged


class Reduction(Branches):
    """Halves the grid, in one of three ways with the same parameters (Figs. 9 and 10).

    - paper: in the last convolution of each branch, beside a pool.
    - naive: by a pool before the branches: cheap, but a bottleneck.
    - expensive: by a pool after them.

    Differs: the paper draws the last two with one wide Inception block; here it has the branches of the
    first, with stride 1.
    """

    def __init__(self, inputs: int, paths: Paths, style: ConvStyle, *, grid: str) -> None:
        if grid != "paper":
            paths = {name: tuple(unstrided(step) for step in steps) for name, steps in paths.items()}
        super().__init__(inputs, paths, style)
        halve = pool(Pool("max", stride=2, pad=0), style)
        self.before = halve if grid == "naive" else nn.Identity()
        self.after = halve if grid == "expensive" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(super().forward(self.before(x)))


class InceptionHead(nn.Module):
    """A second classifier on the last 17-pixel map: (B, inputs, H, W) -> (B, classes).

    Its 5x5 convolution sees the whole pooled map: it is the fully connected layer whose batch norm the row
    "BN-auxiliary" of Table 3 adds. Without it, it has a bias. Differs: this reading is ours, the paper does
    not say which layer it is. Below 17 pixels the windows of the pool shrink so that 5 pixels are left, and
    below 5 zeros are added around the map; both are ours, for small images.
    """

    def __init__(self, inputs: int, classes: int, style: ConvStyle, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv0 = Unit(inputs, Conv(128), style)
        full = Conv(768, AUXILIARY_SIDE, pad=0, norm=batch_norm, init_std=0.01)
        self.conv1 = Unit(self.conv0.outputs, full, replace(style, keep_edges=False))
        self.fc = nn.Linear(self.conv1.outputs, classes)
        self.fc.__dict__["init_std"] = 0.001

    def forward(self, x: Tensor) -> Tensor:
        height, width = (_window(side) for side in x.shape[2:])
        x = F.avg_pool2d(x, (height[0], width[0]), (height[1], width[1]))
        x = self.conv0(x)
        x = F.pad(x, (*_margins(x.shape[3]), *_margins(x.shape[2])))
        return self.fc(self.conv1(x).mean(dim=(2, 3)))


def _window(side: int) -> tuple[int, int]:
    """Size and stride of pooling windows that leave 5 of `side` pixels, or more of more than 19.

    >>> [_window(side) for side in (17, 35, 12, 5, 4)]
    [(5, 3), (5, 3), (4, 2), (1, 1), (1, 1)]
    """
    if side >= AUXILIARY_POOLED_SIDE:
        return 5, 3
    stride = max(1, side // AUXILIARY_SIDE)
    return max(1, side - (AUXILIARY_SIDE - 1) * stride), stride


def _margins(side: int) -> tuple[int, int]:
    """How many zeros to add before and after `side` pixels to make at least 5."""
    missing = max(0, AUXILIARY_SIDE - side)
    return missing // 2, missing - missing // 2


# Inception-v2 and Inception-v3, with a switch for each change that the paper describes.
#
# Paper: szegedy2016rethinking, arXiv:1512.00567, Table 1 (outline), Table 2 (first layer), Table 3 (the
# changes), Figs. 2 and 5-10 (blocks).
#
# - layout: "code", the released Inception-v3, or "table1", Table 1 to the letter: 3x3 convolutions with 80,
# 192
#   (stride 2) and 288 outputs where the code has a 1x1, a 3x3 and a pool, the last one padded (as the
# printed
#   35x35 needs), so that all blocks at 35 pixels see 288 channels. Table 1 has five blocks at 17 pixels.
# - five: a "5x5" convolution in the blocks at 35 pixels, "two_3x3", or "two_3x3_linear" without a ReLU
# between.
# - asymmetric: rows and columns (1xn, nx1) or, false, nxn convolutions in their place, in every block.
# - factorized_7x7: three 3x3 convolutions at the start, or one 7x7 with stride 2 and the outputs of the
# third.
# - auxiliary: "bn", a second classifier while training, batch-normalised throughout; "plain", without that
# of
#   its fully connected part; "none".
# - grid: how the two reductions halve the grid: "paper", "naive", "expensive".
# - first_layer: Table 2 at nearly the same cost: "stride2_pool" for 299 pixels, "stride1_pool" for 151, and
#   "stride1", without the first pool, for 79.
# - stem: "large", or "small" for 32 pixels: everything is padded and the stem's last halving is left out,
# so
#   that the grids are 8, 4 and 2 pixels where they are 35, 17 and 8.
#
# With its defaults it is torchvision's inception_v3, names of weights included. Differs from the paper: the
# code keeps the 5x5 convolution that Fig. 5 replaces; has 23.8 million parameters and 5.7 thousand million
# multiply-adds where the text says under 25 and 5, and Table 3 4.8; and divides by 9 at the edges in
# average pools (TF-slim by the pixels that are there). Blocks at 17 pixels have 128 inner channels in the
# first, 192 in the last and 160 between; a single one has 128.


VALUES = {
    "layout": ("code", "table1"),
    "five": ("5x5", "two_3x3", "two_3x3_linear"),
    "auxiliary": ("bn", "plain", "none"),
    "grid": ("paper", "naive", "expensive"),
    "first_layer": ("stride2_pool", "stride1_pool", "stride1"),
    "stem": ("large", "small"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InceptionV3Config:
    """Every choice of the family, as the module's docstring explains them. Raises ValueError."""

    classes: int
    in_channels: int = 3
    depth: tuple[int, ...] = (3, 4, 2)  # blocks at 35, 17 and 8 pixels
    width: float = 1.0  # multiplies every channel count
    stem: str = "large"
    layout: str = "code"
    five: str = "5x5"
    asymmetric: bool = True
    factorized_7x7: bool = True
    auxiliary: str = "bn"
    grid: str = "paper"
    first_layer: str = "stride2_pool"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_depth(self.depth)
        for name, valid in VALUES.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} must be one of {', '.join(valid)}, got {getattr(self, name)!r}")

    def arranged(self, paths: Paths) -> Paths:
        """A block's paths, with nxn convolutions unless the network is asymmetric."""
        return paths if self.asymmetric else symmetric(paths)


class InceptionV3(Classifier):
    """(B, in_channels, H, W) -> logits (B, classes); `Outputs` while a net with an auxiliary head trains."""

    def __init__(self, config: InceptionV3Config) -> None:
        style = ConvStyle(width=config.width, keep_edges=config.stem == "small", count_padding=True)
        super().__init__(config.in_channels, style)
        for name, step in stem_v3(config).items():
            self.add(name, step)
        at_35, at_17, at_8 = config.depth
        for index in range(at_35):
            first = index == 0 and config.layout == "code"
            self.add(_name(5, index), block_a(32 if first else 64, config.five))
        self._add_reduction("Mixed_6a", reduction_a(), config)
        for index, inner in enumerate(inner_channels(at_17)):
            self.add(_name(6, index), config.arranged(block_b(inner)))
        self.auxiliary_after = self.trunk[-1]
        self.AuxLogits = None
        if config.auxiliary != "none":
            norm = config.auxiliary == "bn"
            self.AuxLogits = InceptionHead(self.outputs, config.classes, style, batch_norm=norm)
        self._add_reduction("Mixed_7a", config.arranged(reduction_b()), config)
        for index in range(at_8):
            self.add(_name(7, index), config.arranged(block_c()))
        self.finish(classes=config.classes, dropout=config.dropout)

    def _add_reduction(self, name: str, paths: Paths, config: InceptionV3Config) -> None:
        self.add(name, Reduction(self.outputs, paths, self.style, grid=config.grid))

    def forward(self, images: Tensor) -> Tensor | Outputs:
        x, auxiliary = images, None
        for name in self.trunk:
            x = getattr(self, name)(x)
            if name == self.auxiliary_after and self.training and self.AuxLogits is not None:
                auxiliary = self.AuxLogits(x)
        logits = self.classify(x)
        return logits if auxiliary is None else Outputs(logits, (auxiliary,))


def stem_v3(config: InceptionV3Config) -> dict[str, Step]:
    """The layers before the first Inception block, by torchvision's names."""
    stride = 2 if config.first_layer == "stride2_pool" else 1
    steps: dict[str, Step]
    if config.factorized_7x7:
        steps = {
            "Conv2d_1a_3x3": Conv(32, 3, stride=stride, pad=0),
            "Conv2d_2a_3x3": Conv(32, 3, pad=0),
            "Conv2d_2b_3x3": Conv(64, 3),
        }
    else:  # the same grid comes out: two pixels less than the input at stride 1 on each side
        steps = {"Conv2d_1a_7x7": Conv(64, 7, stride=stride, pad=0 if stride == 2 else 1)}
    if config.first_layer != "stride1":
        steps["maxpool1"] = HALVE
    if config.layout == "code":
        last = "maxpool2"
        steps |= {"Conv2d_3b_1x1": Conv(80), "Conv2d_4a_3x3": Conv(192, 3, pad=0), last: HALVE}
    else:
        last = "Conv2d_4a_3x3"
        steps |= {"Conv2d_3b_3x3": Conv(80, 3, pad=0), last: Conv(192, 3, stride=2, pad=0)}
        steps["Conv2d_4b_3x3"] = Conv(288, 3)
    if config.stem == "small":
        steps[last] = unstrided(steps[last])
    return steps


def inner_channels(blocks: int) -> list[int]:
    """Channels between the 7-pixel convolutions of each block.

    >>> inner_channels(4), inner_channels(1)
    ([128, 160, 160, 192], [128])
    """
    return [128, *[160] * (blocks - 2), *[192] * (blocks > 1)]


def _name(grid: int, index: int) -> str:
    """Mixed_5b, Mixed_5c, ...: a is the reduction before them."""
    return f"Mixed_{grid}{'bcdefghijklmnopqrstuvwxyz'[index]}"


# Inception-v4: the blocks of Inception-v3, made uniform, behind a wider stem.
#
# Paper: szegedy2017inception, arXiv:1602.07261; Reduction-A's counts (192, 224, 256, 384) are the released
# code's. The network is timm's inception_v4: 42.680 million parameters, 12.254 thousand million multiply-
# adds at 299 pixels.
#
# Differs: whether a row (1x7, 1x3) or a column comes first is as in the ported code, which is not
# everywhere as the figures have it. `stem` "small", for 32 pixels, pads everything and leaves the stem's
# last halving out, so that the grids are 8, 4 and 2 pixels where they are 35, 17 and 8.


Layers = dict[str, Conv | Paths]

STEM: Layers = {  # 299 -> 35 pixels, 384 channels
    "Conv2d_1a_3x3": Conv(32, 3, stride=2, pad=0),
    "Conv2d_2a_3x3": Conv(32, 3, pad=0),
    "Conv2d_2b_3x3": Conv(64, 3),
    "Mixed_3a": {"branch0": (HALVE,), "branch1": (Conv(96, 3, stride=2, pad=0),)},
    "Mixed_4a": {
        "branch0": (Conv(64), Conv(96, 3, pad=0)),
        "branch1": (Conv(64), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, 3, pad=0)),
    },
    "Mixed_5a": {"branch0": (Conv(192, 3, stride=2, pad=0),), "branch1": (HALVE,)},
}

A: Paths = {  # 35 pixels
    "branch0": (Conv(96),),
    "branch1": (Conv(64), Conv(96, 3)),
    "branch2": (Conv(64), Conv(96, 3), Conv(96, 3)),
    "branch3": (AVG, Conv(96)),
}

B: Paths = {  # 17 pixels
    "branch0": (Conv(384),),
    "branch1": (Conv(192), Conv(224, (1, 7)), Conv(256, (7, 1))),
    "branch2": (
        Conv(192),
        Conv(192, (7, 1)),
        Conv(224, (1, 7)),
        Conv(224, (7, 1)),
        Conv(256, (1, 7)),
    ),
    "branch3": (AVG, Conv(128)),
}

REDUCTION_B: Paths = {  # from 17 to 8 pixels
    "branch0": (Conv(192), Conv(192, 3, stride=2, pad=0)),
    "branch1": (Conv(256), Conv(256, (1, 7)), Conv(320, (7, 1)), Conv(320, 3, stride=2, pad=0)),
    "branch2": (HALVE,),
}

BOTH = (Conv(256, (1, 3)), Conv(256, (3, 1)))
C: Paths = {  # 8 pixels
    "branch0": (Conv(256),),
    "branch1": (Conv(384), BOTH),
    "branch2": (Conv(384), Conv(448, (3, 1)), Conv(512, (1, 3)), BOTH),
    "branch3": (AVG, Conv(256)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InceptionV4Config:
    """Every choice of the family. Raises ValueError."""

    classes: int
    in_channels: int = 3
    depth: tuple[int, ...] = (4, 7, 3)  # blocks A, B and C
    width: float = 1.0  # multiplies every channel count
    stem: str = "large"  # large | small
    dropout: float = 0.2  # probability of dropping

    def __post_init__(self) -> None:
        check_depth(self.depth)
        if self.stem not in ("large", "small"):
            raise ValueError(f"stem must be 'large' or 'small', got {self.stem!r}")


class InceptionV4(Classifier):
    """(B, in_channels, H, W) -> logits (B, classes)."""

    def __init__(self, config: InceptionV4Config) -> None:
        small = config.stem == "small"
        super().__init__(config.in_channels, ConvStyle(width=config.width, keep_edges=small))
        for name, layer in stem_v4(small=small).items():
            self.add(name, layer)
        reductions: tuple[Paths | None, ...] = (reduction_a_v4(192, 224, 256, 384), REDUCTION_B, None)
        for letter, block, count, reduction in zip("ABC", (A, B, C), config.depth, reductions, strict=True):
            for index in range(count):
                self.add(f"Inception_{letter}{index + 1}", block)
            if reduction is not None:
                self.add(f"Reduction_{letter}", reduction)
        self.finish(classes=config.classes, dropout=config.dropout)


def stem_v4(*, small: bool) -> Layers:
    """The layers before the first block; `small` leaves the last halving out."""
    last = STEM["Mixed_5a"]
    assert isinstance(last, dict)
    kept: Paths = {name: tuple(unstrided(step) for step in steps) for name, steps in last.items()}
    return {**STEM, "Mixed_5a": kept} if small else STEM


def reduction_a_v4(k: int, l: int, m: int, n: int) -> Paths:  # noqa: E741 (the paper's letters)
    """From 35 to 17 pixels, with the counts that the paper's Table 1 names so."""
    return {
        "branch0": (Conv(n, 3, stride=2, pad=0),),
        "branch1": (Conv(k), Conv(l, 3), Conv(m, 3, stride=2, pad=0)),
        "branch2": (HALVE,),
    }
