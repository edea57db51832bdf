"""Colour changes of a batch, one coefficient per image: brightness, saturation, hue, PCA lighting noise.

Brightness, saturation and hue are the operations of torchvision.transforms.v2.functional on float images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Krizhevsky et al. 2012 (ImageNet Classification with Deep CNNs), Sec. 4.1: principal components of
# ImageNet's RGB values on 0-255 pixels, with the numbers that MXNet and GluonCV use
# (mxnet.image.CreateAugmenter).
PCA_EIGENVALUES = np.array([55.46, 4.794, 1.148], np.float32)
PCA_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
)
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601 weights of R, G, B


def jitter(images: Tensor, coefficients: Tensor) -> Tensor:
    """Scale brightness, then saturation, then turn the hue by (c - 1) / 2 of a full turn.

    images: (B, 1 or 3, H, W) in [0, 1]. coefficients: (B, 3) for brightness, saturation, hue.
    """
    images = brightness(images, coefficients[:, 0])
    if images.shape[1] == 1:
        return images
    return hue(saturation(images, coefficients[:, 1]), (coefficients[:, 2] - 1) / 2)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Each image (B, C, H, W) times its factor (B,), clamped to [0, 1]."""
    return (images * factor[:, None, None, None]).clamp_(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image (B, 3, H, W) with its grey version (0: grey, 1: unchanged), clamped to [0, 1]."""
    red, green, blue = images.unbind(1)
    grey = (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]
    return torch.lerp(grey, images, factor[:, None, None, None]).clamp_(0, 1)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the HSV hue of each image (B, 3, H, W) by `turn` (B,) in full turns; saturation and value stay.

    Back from HSV by f(n) = V - chroma * clamp(min(k, 4 - k), 0, 1), k = (n + 6 hue) mod 6, n = 5, 3, 1 for R,
    G, B.
    """
    red, green, blue = images.unbind(1)
    low, high = torch.aminmax(images, dim=1)
    chroma = high - low
    divisor = torch.where(chroma == 0, 1.0, chroma)
    sextant = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sextant = sextant + 6 * turn[:, None, None]
    n = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    k = (n + sextant[:, None]).remainder_(6)
    share = torch.minimum(k, 4 - k).clamp_(0, 1)
    return torch.addcmul(high[:, None], chroma[:, None], share, value=-1)


def pca_shift(coefficients: np.ndarray) -> np.ndarray:
    """What PCA noise adds to R, G and B of [0, 1] pixels, (B, 3), for coefficients (B, 3) ~ N(0, sigma)."""
    return (coefficients * PCA_EIGENVALUES) @ PCA_EIGENVECTORS.T / np.float32(255)
