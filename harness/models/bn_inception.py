"""BN-Inception: the network of the batch norm paper, with batch norm and without.

Paper: ioffe2015batch, arXiv:1502.03167, Fig. 5 (the architecture's table) and Fig. 3 (what was trained).

- layout: "slim" or "fig5". Slim is TF-slim's reading of the figure: projections of 96 channels in 4c and 4d,
  so that 4c, 4d and 4e give the printed 576, 576 and 1024 channels, and a separable first convolution with
  depth multiplier 8, as the figure has it. Fig5 has the column's 128 channels in 4c and 4d (608, 608 and
  1056), and a plain 7x7 first convolution.
- norm: "batch" (convolutions without bias, then batch norm with eps 1e-3) or "none" (convolutions with a
  bias): "Inception" of Fig. 3, which is this network and not GoogLeNet.
- activation: every nonlinearity, "relu" or "sigmoid" (BN-x5-Sigmoid).
- lrn: local response normalisation where GoogLeNet has it. From BN-x5 on the paper removes it, and dropout
  (0.4 in "Inception").

Differs from the paper:

- The text says 13.6 M parameters; the figure gives 11.188 M (slim) or 11.285 M (fig5).
- No auxiliary head: the transcribed figure has none.
- The strided max-pools in 3c and 4e are padded like the convolutions beside them, and average pools do not
  count their padding: our choices, the figure does not say.

Made smaller: `width` multiplies every channel count (to the nearest integer, at least 1), `depth` keeps the
first blocks of the stages 3a-3c, 4a-4e and 5a-5b, of which 3c and 4e, which halve the grid, always stay.
Grids are 28, 14 and 7 pixels wide at 224 and 4, 2 and 1 at 32; stem "small" leaves out the second max-pool:
8, 4 and 2 at 32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from harness.models.blocks import Branches, Conv, Pool, Step, Style, Unit
from harness.models.googlenet_stem import CHANNELS, Stem, check_depth, check_word


class Row(NamedTuple):
    """Output channels of a block, as the columns of Fig. 5; `double`: of two 3x3 convolutions in a row."""

    n1x1: int  # 0: the block has no 1x1 branch, its others have stride 2, its pool no projection
    reduce3x3: int
    n3x3: int
    reduce_double: int
    double: int
    pool: str  # avg | max
    projection: int


FIGURE_5: tuple[Mapping[str, Row], ...] = (
    {
        "3a": Row(64, 64, 64, 64, 96, "avg", 32),
        "3b": Row(64, 64, 96, 64, 96, "avg", 64),
        "3c": Row(0, 128, 160, 64, 96, "max", 0),
    },
    {
        "4a": Row(224, 64, 96, 96, 128, "avg", 128),
        "4b": Row(192, 96, 128, 96, 128, "avg", 128),
        "4c": Row(160, 128, 160, 128, 160, "avg", 128),
        "4d": Row(96, 128, 192, 160, 192, "avg", 128),
        "4e": Row(0, 128, 192, 192, 256, "max", 0),
    },
    {
        "5a": Row(352, 192, 320, 160, 224, "avg", 128),
        "5b": Row(352, 192, 320, 192, 224, "max", 128),
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
    def style(self) -> Style:
        return Style(width=self.width)

    @property
    def conv(self) -> Callable[..., Conv]:
        """A convolution of this network: outputs, kernel, stride."""
        return partial(Conv, norm=self.norm == "batch")

    def rows(self) -> dict[str, Row]:
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
            block = Branches(outputs, _paths(row, config.conv), config.style)
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


def _paths(row: Row, conv: Callable[..., Conv]) -> dict[str, Sequence[Step]]:
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
