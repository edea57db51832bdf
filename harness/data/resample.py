"""Cut a box out of each image and resize it, for a whole batch with two matrix products.

Antialiased bilinear resampling as Pillow's BILINEAR filter and torchvision.transforms.v2 with antialias=True
do it: a triangle filter whose support grows with the down-scaling factor, weights normalised to sum 1, no
pixel outside the box. It is separable and linear, so per image: out = Wv @ image @ Wh^T, with weights that
are zero outside the image's box.
"""

from __future__ import annotations

import torch
from torch import Tensor


def resize_weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Weights (B, size, side) float32 that resize the pixels [start, start + length) of a side to `size`.

    start, length: (B,) integer, in pixels, 0 <= start and start + length <= side.
    """
    start, length = start[:, None].float(), length[:, None].float()
    scale = length / size
    width = scale.clamp(min=1.0)  # of half the triangle, in pixels
    out = torch.arange(size, device=start.device) + 0.5
    pixel = torch.arange(side, device=start.device) + 0.5
    centre = start + scale * out
    distance = (pixel - centre[:, :, None]).div_(width[:, :, None])
    weights = distance.abs_().neg_().add_(1.0).clamp_(min=0.0)
    weights.mul_(((pixel > start) & (pixel < start + length))[:, None, :])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def crop_resize(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resize the box of each image to size x size.

    images: (B, H, W, C) uint8. boxes: (B, 4) integer (top, left, height, width), on the device of `images`.
    Returns (B, C, size, size) float32 in [0, 1].
    """
    count, height, width, channels = images.shape
    vertical = resize_weights(boxes[:, 0], boxes[:, 2], height, size)
    horizontal = resize_weights(boxes[:, 1], boxes[:, 3], width, size).mul_(1 / 255)
    rows = torch.bmm(vertical, images.reshape(count, height, width * channels).float())
    if channels > 1:
        rows = rows.view(count, size, width, channels).permute(0, 3, 1, 2)
    rows = rows.reshape(count, channels * size, width)
    return torch.bmm(rows, horizontal.transpose(1, 2)).view(count, channels, size, size)
