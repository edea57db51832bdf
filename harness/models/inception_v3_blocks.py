"""The blocks of Inception-v2 and -v3: path -> steps, and the modules that are more than branches.

Paper: szegedy2016rethinking, arXiv:1512.00567, Figs. 2, 5-7, 9 and 10; channel counts of the released code
(the paper leaves them to a file that is not in it). Grids are those of a 299-pixel image.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from harness.models.blocks import AVG, HALVE, Branches, Conv, Pool, Step, Style, Unit, pool, unstrided

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

    def __init__(self, inputs: int, paths: Paths, style: Style, *, grid: str) -> None:
        if grid != "paper":
            paths = {name: tuple(unstrided(step) for step in steps) for name, steps in paths.items()}
        super().__init__(inputs, paths, style)
        halve = pool(Pool("max", stride=2, pad=0), style)
        self.before = halve if grid == "naive" else nn.Identity()
        self.after = halve if grid == "expensive" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(super().forward(self.before(x)))


class AuxiliaryHead(nn.Module):
    """A second classifier on the last 17-pixel map: (B, inputs, H, W) -> (B, classes).

    Its 5x5 convolution sees the whole pooled map: it is the fully connected layer whose batch norm the row
    "BN-auxiliary" of Table 3 adds. Without it, it has a bias. Differs: this reading is ours, the paper does
    not say which layer it is. Below 17 pixels the windows of the pool shrink so that 5 pixels are left, and
    below 5 zeros are added around the map; both are ours, for small images.
    """

    def __init__(self, inputs: int, classes: int, style: Style, *, batch_norm: bool) -> None:
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
