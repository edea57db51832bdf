"""Inception-ResNet-v1 and -v2: Inception blocks whose output is added to their input.

Paper: szegedy2017inception, arXiv:1602.07261. Each block computes relu(x + s * linear1x1(concat)); the linear
1x1 convolution has a bias and no batch norm, and there is none after the sum either.

- v1: the figures' 5-10-5 blocks: 22.756 million parameters, 6.206 thousand million multiply-adds.
- v2, layout "released": the stem of Inception-v3 and one Inception block, 10-20-10 residual blocks of which
  the last has no ReLU and is not scaled, and a 1x1 convolution with 1,536 outputs: timm's
  inception_resnet_v2, 55.843 million and 13.156 thousand million.
- v2, layout "figures": the stem of Inception-v4 and what the figures show, 32.434 million and 9.258 thousand
  million with 5-10-5 blocks, 55.284 and 14.142 with 10-20-10.
- scale_a, scale_b, scale_c: s at the three grids. The paper recommends 0.1 to 0.3 for wide networks; the
  defaults 0.17, 0.10 and 0.20 are the released code's.
- residual: false computes relu(linear1x1(concat)), with the same parameters and without a scale.

Differs: the figures print 1,154 and 2,048 channels for the sums at 17 and 8 pixels of v2; their branches add
up to 1,152 and 2,144, and so do ours. A port of v1 adds a sixth block without ReLU at 8 pixels, the figures
do not. `stem` "small", for 32 pixels, pads everything and leaves the stem's last halving out, so the grids
are 8, 4 and 2 pixels where they are 35, 17 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from harness.models.blocks import (
    AVG,
    HALVE,
    Branches,
    Classifier,
    Conv,
    ConvStyle,
    Pool,
    Step,
    check_depth,
    unstrided,
)
from harness.models.inception import Paths, reduction_a_v4
from harness.models.inception import stem_v4 as v4_stem

VALUES = {"version": ("v1", "v2"), "layout": ("released", "figures"), "stem": ("large", "small")}

BEGINNING: dict[str, Step] = {  # 299 -> 71 pixels, 192 channels: as in Inception-v3
    "conv2d_1a": Conv(32, 3, stride=2, pad=0),
    "conv2d_2a": Conv(32, 3, pad=0),
    "conv2d_2b": Conv(64, 3),
    "maxpool_3a": HALVE,
    "conv2d_3b": Conv(80),
    "conv2d_4a": Conv(192, 3, pad=0),
}
MIXED_5B: Paths = {  # 35 pixels, 320 channels
    "branch0": (Conv(96),),
    "branch1": (Conv(48), Conv(64, 5)),
    "branch2": (Conv(64), Conv(96, 3), Conv(96, 3)),
    "branch3": (AVG, Conv(64)),
}


@dataclass(frozen=True, slots=True)
class Stages:
    """The branches of a version: residual blocks at 35, 17 and 8 pixels, and the reductions between them."""

    a: Paths
    reduction_a: Paths
    b: Paths
    reduction_b: Paths
    c: Paths


STAGES = {
    "v1": Stages(
        a={
            "branch0": (Conv(32),),
            "branch1": (Conv(32), Conv(32, 3)),
            "branch2": (Conv(32), Conv(32, 3), Conv(32, 3)),
        },
        reduction_a=reduction_a_v4(192, 192, 256, 384),
        b={"branch0": (Conv(128),), "branch1": (Conv(128), Conv(128, (1, 7)), Conv(128, (7, 1)))},
        reduction_b={
            "branch0": (Conv(256), Conv(384, 3, stride=2, pad=0)),
            "branch1": (Conv(256), Conv(256, 3, stride=2, pad=0)),
            "branch2": (Conv(256), Conv(256, 3), Conv(256, 3, stride=2, pad=0)),
            "branch3": (HALVE,),
        },
        c={"branch0": (Conv(192),), "branch1": (Conv(192), Conv(192, (1, 3)), Conv(192, (3, 1)))},
    ),
    "v2": Stages(
        a={
            "branch0": (Conv(32),),
            "branch1": (Conv(32), Conv(32, 3)),
            "branch2": (Conv(32), Conv(48, 3), Conv(64, 3)),
        },
        reduction_a=reduction_a_v4(256, 256, 384, 384),
        b={"branch0": (Conv(192),), "branch1": (Conv(128), Conv(160, (1, 7)), Conv(192, (7, 1)))},
        reduction_b={
            "branch0": (Conv(256), Conv(384, 3, stride=2, pad=0)),
            "branch1": (Conv(256), Conv(288, 3, stride=2, pad=0)),
            "branch2": (Conv(256), Conv(288, 3), Conv(320, 3, stride=2, pad=0)),
            "branch3": (HALVE,),
        },
        c={"branch0": (Conv(192),), "branch1": (Conv(192), Conv(224, (1, 3)), Conv(256, (3, 1)))},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InceptionResNetConfig:
    """Every choice of the family, as the module's docstring explains them. Raises ValueError."""

    version: str  # v1 | v2
    classes: int
    in_channels: int = 3
    depth: tuple[int, ...] = (10, 20, 10)  # residual blocks at 35, 17 and 8 pixels
    width: float = 1.0  # multiplies every channel count
    stem: str = "large"
    layout: str = "figures"  # v1 has no other
    residual: bool = True
    scale_a: float = 0.17
    scale_b: float = 0.10
    scale_c: float = 0.20
    dropout: float = 0.2  # probability of dropping

    def __post_init__(self) -> None:
        check_depth(self.depth)
        for name, valid in VALUES.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} must be one of {', '.join(valid)}, got {getattr(self, name)!r}")
        if self.version == "v1" and self.layout == "released":
            raise ValueError("Inception-ResNet-v1 has the layout of its figures only")


class ResidualBlock(nn.Module):
    """Branches and a linear 1x1 convolution beside a shortcut: (B, inputs, H, W) -> the same shape.

    Without `scale` there is no shortcut, and the block is relu(linear1x1(concat)).
    """

    def __init__(
        self, inputs: int, paths: Paths, style: ConvStyle, *, scale: float | None, relu: bool = True
    ) -> None:
        super().__init__()
        self.branches = Branches(inputs, paths, style)
        self.conv2d = nn.Conv2d(self.branches.outputs, inputs, 1)
        self.scale = scale
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv2d(self.branches(x))
        return self.relu(change if self.scale is None else x + self.scale * change)


class InceptionResNet(Classifier):
    """(B, in_channels, H, W) -> logits (B, classes)."""

    def __init__(self, config: InceptionResNetConfig) -> None:
        super().__init__(config.in_channels, ConvStyle(width=config.width, keep_edges=config.stem == "small"))
        self.config = config
        stages, released = STAGES[config.version], config.layout == "released"
        self._add_stem()
        self._add_blocks("repeat", stages.a, config.depth[0], config.scale_a)
        self.add("mixed_6a", stages.reduction_a)
        self._add_blocks("repeat_1", stages.b, config.depth[1], config.scale_b)
        self.add("mixed_7a", stages.reduction_b)
        self._add_blocks("repeat_2", stages.c, config.depth[2] - released, config.scale_c)
        if released:
            last_scale = 1.0 if config.residual else None
            self.add(
                "block8", ResidualBlock(self.outputs, stages.c, self.style, scale=last_scale, relu=False)
            )
            self.add("conv2d_7b", Conv(1536))
        self.finish(classes=config.classes, dropout=config.dropout)

    def _add_stem(self) -> None:
        small = self.config.stem == "small"
        if self.config.version == "v2" and self.config.layout == "figures":
            for name, layer in v4_stem(small=small).items():
                self.add(name, layer)
            return
        for name, step in BEGINNING.items():
            self.add(name, step)
        last: Conv | Pool = Conv(256, 3, stride=2, pad=0) if self.config.version == "v1" else HALVE
        name = "conv2d_4b" if self.config.version == "v1" else "maxpool_5a"
        self.add(name, unstrided(last) if small else last)
        if self.config.version == "v2":
            self.add("mixed_5b", MIXED_5B)

    def _add_blocks(self, name: str, paths: Paths, count: int, scale: float) -> None:
        """Residual blocks that keep the shape."""
        used = scale if self.config.residual else None
        blocks = [ResidualBlock(self.outputs, paths, self.style, scale=used) for _ in range(count)]
        self.add(name, nn.Sequential(*blocks))
