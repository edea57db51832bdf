"""GoogLeNet, and BN-GoogLeNet: the same network with batch norm.

Paper: szegedy2015going, arXiv:1409.4842, Table 1 (channels, pools) and the text (auxiliary heads, dropout).

- norm: "none" (the paper: convolutions with a bias) or "batch" (BN-GoogLeNet: convolutions without bias, then
  batch norm with eps 1e-3), also in the auxiliary heads.
- lrn: local response normalisation after the first pool and before the second. Table 1 has no row for it;
  positions and constants (5 channels, alpha 1e-4, beta 0.75, k 1) are those of Caffe's bvlc_googlenet.
- auxiliary: "plain": two heads, after 4a and 4d, whose logits come with the main ones while training; or
  "none".
- dropout: of the main head; that of the auxiliary heads is always 0.7.
- five: kernel of the third branch. "3x3" is torchvision's, for comparison; its last pool also is 2x2.

Differs from the paper:

- The first convolution is a full 7x7 (9,408 weights, 118 M multiply-adds). The printed 2.7 K parameters and
  34 M operations fit only a separable one with depth multiplier 8.
- Filter counts are Table 1's; the parameters printed beside 4a, 4c, 4d, 4e, 5a and 5b are not those that
  these counts give.
- An auxiliary head averages 5x5 windows with stride 3 where that gives 4x4 (at 224 pixels, where its input is
  14x14); elsewhere the windows adapt to give 4x4, so that the layers after it are the same at any input.

Made smaller: `width` multiplies every channel count (to the nearest integer), `depth` keeps the first blocks
of the stages 3a-3b, 4a-4e and 5a-5b; the second head then follows 4d or the last block kept of its stage.
Grids are 28, 14 and 7 pixels wide at 224 and 4, 2 and 1 at 32; stem "small" leaves out the second max-pool:
8, 4 and 2 at 32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from harness.models.blocks import Branches, Conv, Pool, Step, Style, Unit
from harness.models.googlenet_stem import CHANNELS, Stem, check_depth, check_word, halving_pool
from harness.models.outputs import Outputs

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
    def style(self) -> Style:
        return Style(width=self.width)

    @property
    def conv(self) -> Callable[..., Conv]:
        """A convolution of this network: outputs, kernel, stride."""
        return partial(Conv, norm=self.norm == "batch")


class AuxiliaryHead(nn.Module):
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
            self.add_module(head, AuxiliaryHead(outputs_of[name], config))
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
    return F.adaptive_avg_pool2d(x, HEAD_SIDE)


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
