"""What GoogLeNet and BN-Inception have in common: the layers before the first Inception block, and checks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.models.blocks import Conv, Style, Unit

CHANNELS = 64  # of the first convolution, as the paper counts


class Stem(nn.Module):
    """First convolution, pool, 1x1:64, 3x3:192, pool (szegedy2015going, Table 1), response normalisation
    after the first pool and before the second if `lrn`.

    (B, C, H, W) -> (B, self.outputs, H / 8, W / 8), rounded up or down; H / 4 and W / 4 with size "small",
    which leaves out the second pool. `conv1` halves H and W and gives 64 channels, scaled.
    """

    def __init__(self, conv1: nn.Module, style: Style, *, size: str, lrn: bool, norm: bool) -> None:
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
