"""Which box of each image is used: random area and aspect ratio while training, the centre at evaluation."""

from __future__ import annotations

import numpy as np

TRIES = 10  # as torchvision.transforms.v2.RandomResizedCrop
CROP_DRAWS = 2 * TRIES + 2


def random_boxes(
    sizes: np.ndarray, draws: np.ndarray, *, area: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Random boxes (B, 4) int64 (top, left, height, width) inside images of `sizes` (B, 2) (height, width).

    The rule of torchvision.transforms.v2.RandomResizedCrop (Szegedy et al. 2015, arXiv:1409.4842, Sec. 6): a
    share of the image's area ~ U(area) and a width : height ratio whose logarithm is uniform, the first of 10
    tries that fits, at a uniform place; where none fits, the largest centre box whose ratio is within
    `ratio`. draws: (B, CROP_DRAWS) in [0, 1).
    """
    height, width = (sizes[:, axis, None].astype(np.float64) for axis in (0, 1))
    share = area[0] + (area[1] - area[0]) * draws[:, :TRIES].astype(np.float64)
    low, high = np.log(ratio[0]), np.log(ratio[1])
    aspect = np.exp(low + (high - low) * draws[:, TRIES : 2 * TRIES].astype(np.float64))
    pixels = share * height * width
    widths, heights = np.rint(np.sqrt(pixels * aspect)), np.rint(np.sqrt(pixels / aspect))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    rows, first = np.arange(len(sizes)), fits.argmax(axis=1)
    h, w = heights[rows, first], widths[rows, first]
    place = draws[:, 2 * TRIES :].astype(np.float64)
    top = np.floor(place[:, 0] * (height[:, 0] - h + 1))
    left = np.floor(place[:, 1] * (width[:, 0] - w + 1))
    boxes = np.stack([top, left, h, w], axis=1).astype(np.int64)
    none = ~fits.any(axis=1)
    if none.any():
        boxes[none] = _fallback_boxes(sizes[none], ratio)
    return boxes


def _fallback_boxes(sizes: np.ndarray, ratio: tuple[float, float]) -> np.ndarray:
    """The largest centre box whose width : height ratio is within `ratio`."""
    height, width = sizes[:, 0], sizes[:, 1]
    seen = width / height
    h = np.where(seen < ratio[0], np.rint(width / ratio[0]).astype(np.int64), height)
    w = np.where(seen > ratio[1], np.rint(height * ratio[1]).astype(np.int64), width)
    return np.stack([(height - h) // 2, (width - w) // 2, h, w], axis=1)


def centre_boxes(sizes: np.ndarray, share: float) -> np.ndarray:
    """Centre squares (B, 4) int64 with side `share` times the shorter side, in whole pixels, at least 1."""
    side = np.maximum(np.rint(share * sizes.min(axis=1)).astype(np.int64), 1)
    return np.stack([(sizes[:, 0] - side) // 2, (sizes[:, 1] - side) // 2, side, side], axis=1)
