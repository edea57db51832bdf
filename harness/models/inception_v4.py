"""Inception-v4: the blocks of Inception-v3, made uniform, behind a wider stem.

Paper: szegedy2017inception, arXiv:1602.07261; Reduction-A's counts (192, 224, 256, 384) are the released
code's. The network is timm's inception_v4: 42.680 million parameters, 12.254 thousand million multiply-adds
at 299 pixels.

Differs: whether a row (1x7, 1x3) or a column comes first is as in the ported code, which is not everywhere as
the figures have it. `stem` "small", for 32 pixels, pads everything and leaves the stem's last halving out, so
that the grids are 8, 4 and 2 pixels where they are 35, 17 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.models.blocks import AVG, HALVE, Classifier, Conv, Step, Style, check_depth, unstrided

Paths = dict[str, tuple[Step, ...]]
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
        super().__init__(config.in_channels, Style(width=config.width, keep_edges=small))
        for name, layer in stem(small=small).items():
            self.add(name, layer)
        reductions: tuple[Paths | None, ...] = (reduction_a(192, 224, 256, 384), REDUCTION_B, None)
        for letter, block, count, reduction in zip("ABC", (A, B, C), config.depth, reductions, strict=True):
            for index in range(count):
                self.add(f"Inception_{letter}{index + 1}", block)
            if reduction is not None:
                self.add(f"Reduction_{letter}", reduction)
        self.finish(classes=config.classes, dropout=config.dropout)


def stem(*, small: bool) -> Layers:
    """The layers before the first block; `small` leaves the last halving out."""
    last = STEM["Mixed_5a"]
    assert isinstance(last, dict)
    kept: Paths = {name: tuple(unstrided(step) for step in steps) for name, steps in last.items()}
    return {**STEM, "Mixed_5a": kept} if small else STEM


def reduction_a(k: int, l: int, m: int, n: int) -> Paths:  # noqa: E741 (the paper's letters)
    """From 35 to 17 pixels, with the counts that the paper's Table 1 names so."""
    return {
        "branch0": (Conv(n, 3, stride=2, pad=0),),
        "branch1": (Conv(k), Conv(l, 3), Conv(m, 3, stride=2, pad=0)),
        "branch2": (HALVE,),
    }
