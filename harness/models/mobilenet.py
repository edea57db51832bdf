"""MobileNet v1: depthwise separable convolutions in a straight line.

Paper: howard2017mobilenets, arXiv:1704.04861, Table 1 (layers), Sec. 3.3 (width multiplier), Tables 4 to 7
(the networks it compares).

- width: the paper's multiplier of every channel count; base_width: a second one, by which a study's size
  makes all its networks smaller while its rows compare widths.
- shallow: without the five blocks of 512 channels and stride 1 at 14x14 pixels (Table 5).
- full_conv: a standard 3x3 convolution in place of each depthwise one and the 1x1 one after it (Table 4).
- depth: separable convolutions at each resolution; fewer numbers leave the last stages out.
- stem "small": the first convolution has stride 1, for images of 32 pixels: the grids of 256, 512 and 1,024
  channels then have sides 8, 4 and 2.

Differs: the last depthwise convolution has stride 1, where Table 1 prints 2 for 7x7 to 7x7 pixels (the
printed output sizes and 569 M multiply-adds leave no other). Batch norm's epsilon is torch's 1e-5, as timm's;
the paper names none. Every layer is padded so that stride 1 keeps the resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from harness.models.entry import MOBILENET_DEPTH, SHALLOW_STAGE, scaled_channels, shallow_removes_something

STEM_CHANNELS = 32  # Howard et al. 2017, Table 1
STAGE_CHANNELS = (64, 128, 256, 512, 1024)  # each stage but the first begins with stride 2
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6}


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNetConfig:
    """Every number of a MobileNet. Raises ValueError where the parts do not fit together."""

    classes: int
    depth: tuple[int, ...] = MOBILENET_DEPTH  # separable convolutions in each stage
    width: float = 1.0
    base_width: float = 1.0
    shallow: bool = False
    full_conv: bool = False
    activation: str = "relu"  # relu | relu6
    stem: str = "large"  # large | small
    in_channels: int = 3

    def __post_init__(self) -> None:
        if not 1 <= len(self.depth) <= len(STAGE_CHANNELS):
            raise ValueError(f"depth must name 1 to {len(STAGE_CHANNELS)} stages, got {len(self.depth)}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be 'relu' or 'relu6', got {self.activation!r}")
        if self.stem not in ("large", "small"):
            raise ValueError(f"stem must be 'large' or 'small', got {self.stem!r}")
        shallow_removes_something({"depth": self.depth, "shallow": self.shallow})

    def channels(self, count: int) -> int:
        """A channel count of the paper times both widths. Raises ValueError: nothing is left."""
        return scaled_channels(count, self.width * self.base_width)

    def blocks(self, stage: int) -> int:
        """Separable convolutions in a stage, counted from 0."""
        return 1 if self.shallow and stage == SHALLOW_STAGE else self.depth[stage]


class MobileNet(nn.Module):
    """Images (B, in_channels, H, W) -> logits (B, classes)."""

    def __init__(self, config: MobileNetConfig) -> None:
        super().__init__()
        channels = config.channels(STEM_CHANNELS)
        act = ACTIVATIONS[config.activation]
        self.stem = _layer(config.in_channels, channels, act, stride=2 if config.stem == "large" else 1)
        self.stages = nn.Sequential()
        block = _standard if config.full_conv else _separable
        for stage in range(len(config.depth)):
            outputs = config.channels(STAGE_CHANNELS[stage])
            blocks = nn.Sequential()
            for index in range(config.blocks(stage)):
                blocks.append(block(channels, outputs, act, stride=2 if stage and index == 0 else 1))
                channels = outputs
            self.stages.append(blocks)
        self.fc = nn.Linear(channels, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.stages(self.stem(images)).mean(dim=(2, 3)))


def _separable(inputs: int, outputs: int, act: type[nn.Module], *, stride: int) -> nn.Sequential:
    """A 3x3 convolution in each channel, then a 1x1 across them (Howard et al. 2017, Fig. 3 right)."""
    return nn.Sequential(
        _layer(inputs, inputs, act, stride=stride, groups=inputs), _layer(inputs, outputs, act, kernel=1)
    )


def _standard(inputs: int, outputs: int, act: type[nn.Module], *, stride: int) -> nn.Sequential:
    """One 3x3 convolution across all channels (Howard et al. 2017, Fig. 3 left)."""
    return _layer(inputs, outputs, act, stride=stride)


def _layer(
    inputs: int, outputs: int, act: type[nn.Module], *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act(inplace=True))
