"""Several views of each test image, whose predictions are averaged: 1, 10, 12 or 144 crops.

Boxes are in pixels of the original image. A paper resizes the shorter side to, say, 256 and cuts 224 x 224:
here the box with a side of 224/256 of the shorter side is cut and resized, which is one resampling and not
two (as `harness.data.augment` does it for one crop, and with the difference stated there).

- 1: the centre box.
- 10: the four corners and the centre of the resized image, and their mirrors (krizhevsky2012imagenet, Sec.
  4.1; memory). Corners of the whole image: where it was first cut to its central square, as in that paper,
  they lie further in.
- 144: four scales, the shorter side resized to 256, 288, 320 and 352 for crops of 224; of each the left,
  centre and right square (top, centre and bottom of a portrait); of each square its four corners, its centre
  and the whole square; and their mirrors: 4 x 3 x 6 x 2 (szegedy2015going, Sec. 7).
- 12: the scale 256 and the centre square of the 144: 6 x 2. szegedy2016rethinking and szegedy2017inception
  evaluate 12 crops and do not say which: this is our choice.

For other resolutions than 224 the scales grow in proportion. 10 crops follow the recipe's `eval_crop`; 12 and
144 have the paper's scales whatever it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from harness.data.augment import View, normalise
from harness.data.base import Split
from harness.data.crops import centre_boxes

CROPS = (1, 10, 12, 144)
SHARES = (224 / 256, 224 / 288, 224 / 320, 224 / 352)  # side of a crop over the shorter side, per scale


def crop_boxes(sizes: np.ndarray, crops: int, *, eval_crop: float) -> np.ndarray:
    """Boxes (V, B, 4) int64 (top, left, height, width) of images of `sizes` (B, 2) (height, width).

    V is 1, 5, 6 or 72: mirrors have the same boxes. eval_crop: in (0, 1], of the shorter side.

    Raises:
        ValueError: another number of crops than those of `CROPS`.
    """
    if crops not in CROPS:
        raise ValueError(f"eval_crops must be one of {', '.join(map(str, CROPS))}, got {crops}")
    if crops == 1:
        return centre_boxes(sizes, eval_crop)[None]
    whole = np.concatenate([np.zeros_like(sizes), sizes], axis=1)
    if crops == 10:
        return np.stack(_corners_and_centre(whole, eval_crop))
    squares = _squares(sizes)
    if crops == 12:
        return np.stack(_six(squares[1], SHARES[0]))
    return np.stack([box for share in SHARES for square in squares for box in _six(square, share)])


def views(
    split: Split, indices: Tensor, crops: int, *, eval_crop: float, view: View
) -> Iterator[tuple[Tensor, int]]:
    """Each distinct view of the images at `indices` (B,) int64, and for how many of the crops it stands.

    Images are normalised, (B, 3, size, size) float32 on the device. The counts sum to `crops`; of square
    images many boxes coincide (the three squares of the 144), and are seen once.
    """
    boxes = crop_boxes(split.images.sizes(indices).numpy(), crops, eval_crop=eval_crop)
    distinct, counts = np.unique(boxes.reshape(len(boxes), -1), axis=0, return_counts=True)
    for box, count in zip(distinct, counts.tolist(), strict=True):
        cut = split.images.crop_resize(indices, torch.from_numpy(box.reshape(-1, 4)), view.size, view.device)
        images = normalise(cut, view)
        yield images, count
        if crops > 1:
            yield images.flip(3), count


def _squares(sizes: np.ndarray) -> list[np.ndarray]:
    """Left (or top), centre and right (or bottom) square of the shorter side, each (B, 4)."""
    side = sizes.min(axis=1)
    room = sizes - side[:, None]
    ends = np.stack([side, side], axis=1)
    return [np.concatenate([offset, ends], axis=1) for offset in (np.zeros_like(room), room // 2, room)]


def _six(squares: np.ndarray, share: float) -> list[np.ndarray]:
    """Of each square the four corners, the centre and the whole."""
    return [*_corners_and_centre(squares, share), squares]


def _corners_and_centre(areas: np.ndarray, share: float) -> list[np.ndarray]:
    """Top left, top right, bottom left, bottom right and centre square inside areas (B, 4), each (B, 4); the
    side is `share` of the area's shorter one, in whole pixels, at least 1."""
    centre = centre_boxes(areas[:, 2:], share)
    place, side = areas[:, :2], centre[:, 2:]
    room = areas[:, 2:] - side
    offsets = [room * np.array(corner) for corner in ((0, 0), (0, 1), (1, 0), (1, 1))]
    return [np.concatenate([place + offset, side], axis=1) for offset in (*offsets, centre[:, :2])]
