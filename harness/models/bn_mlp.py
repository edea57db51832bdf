"""The small network of the batch norm paper's first experiment, with batch norm and without.

Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.1 and Fig. 1: 28x28 binary digits (the data set mnist with
`binary: true`), three fully connected hidden layers of 100 sigmoid units, ten outputs, weights from a small
Gaussian.

- norm: "none", or "batch": batch norm (eps 1e-3) between the linear part of each hidden layer and its
  nonlinearity; the linear part then has no bias, which the norm's beta replaces.
- activation: "sigmoid" or "relu".

Differs from the paper:

- The standard deviation of the Gaussian is not stated: 0.1 (`init_std`, for the initialisation schemes that
  draw from a Gaussian).
- Images with several channels are averaged to grey, and images of more than 28 pixels a side average-pooled
  to 28x28, so that the same network serves any data set.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

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
