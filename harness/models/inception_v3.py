"""Inception-v2 and Inception-v3, with a switch for each change that the paper describes.

Paper: szegedy2016rethinking, arXiv:1512.00567, Table 1 (outline), Table 2 (first layer), Table 3 (the
changes), Figs. 2 and 5-10 (blocks).

- layout: "code", the released Inception-v3, or "table1", Table 1 to the letter: 3x3 convolutions with 80, 192
  (stride 2) and 288 outputs where the code has a 1x1, a 3x3 and a pool, the last one padded (as the printed
  35x35 needs), so that all blocks at 35 pixels see 288 channels. Table 1 has five blocks at 17 pixels.
- five: a "5x5" convolution in the blocks at 35 pixels, "two_3x3", or "two_3x3_linear" without a ReLU between.
- asymmetric: rows and columns (1xn, nx1) or, false, nxn convolutions in their place, in every block.
- factorized_7x7: three 3x3 convolutions at the start, or one 7x7 with stride 2 and the outputs of the third.
- auxiliary: "bn", a second classifier while training, batch-normalised throughout; "plain", without that of
  its fully connected part; "none".
- grid: how the two reductions halve the grid: "paper", "naive", "expensive".
- first_layer: Table 2 at nearly the same cost: "stride2_pool" for 299 pixels, "stride1_pool" for 151, and
  "stride1", without the first pool, for 79.
- stem: "large", or "small" for 32 pixels: everything is padded and the stem's last halving is left out, so
  that the grids are 8, 4 and 2 pixels where they are 35, 17 and 8.

With its defaults it is torchvision's inception_v3, names of weights included. Differs from the paper: the
code keeps the 5x5 convolution that Fig. 5 replaces; has 23.8 million parameters and 5.7 thousand million
multiply-adds where the text says under 25 and 5, and Table 3 4.8; and divides by 9 at the edges in average
pools (TF-slim by the pixels that are there). Blocks at 17 pixels have 128 inner channels in the first, 192 in
the last and 160 between; a single one has 128.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from harness.models.blocks import HALVE, Classifier, Conv, Step, Style, check_depth, unstrided
from harness.models.inception_v3_blocks import (
    AuxiliaryHead,
    Paths,
    Reduction,
    block_a,
    block_b,
    block_c,
    reduction_a,
    reduction_b,
    symmetric,
)
from harness.models.outputs import Outputs

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
        style = Style(width=config.width, keep_edges=config.stem == "small", count_padding=True)
        super().__init__(config.in_channels, style)
        for name, step in stem(config).items():
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
            self.AuxLogits = AuxiliaryHead(self.outputs, config.classes, style, batch_norm=norm)
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


def stem(config: InceptionV3Config) -> dict[str, Step]:
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
