"""Training and evaluation images for a batch: crop, flip, colour, normalise, all batched and counter-based.

Paper: he2019bag, arXiv:1812.01187, Sec. 2.1: (1) random area and aspect ratio, resized to a square, (2)
horizontal flip, (3) hue, saturation and brightness scaled by coefficients ~ U[0.6, 1.4], (4) PCA noise with
coefficients ~ N(0, 0.1), (5) normalisation. Every draw is a pure function of (seed, epoch, image).

Differs:
- "Scale hue" has no single meaning. Here the hue is turned by (c - 1) / 2 of a full turn, i.e. by +-0.2 for
  c ~ U[0.6, 1.4]; the authors' published code jitters brightness, contrast and saturation instead.
- The order of the colour steps is fixed: brightness, saturation, hue.
- A grey set (one channel) has no saturation or hue: both are exact identities there and are skipped; PCA
  noise still tints the three equal channels.
- Evaluation cuts a centre box and resizes it once, instead of resizing the whole image and cutting then; the
  two differ only where the antialiasing filter reaches over the edge of the box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from harness.data import colour
from harness.data.base import Split
from harness.data.counter import normals, uniforms
from harness.data.crops import CROP_DRAWS, centre_boxes, random_boxes


class AugmentLike(Protocol):
    """What is read of harness.study.spec.AugmentSpec."""

    @property
    def crop_area(self) -> tuple[float, float]: ...
    @property
    def crop_ratio(self) -> tuple[float, float]: ...
    @property
    def flip(self) -> float: ...
    @property
    def jitter(self) -> float: ...
    @property
    def pca_noise(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How images are seen: side in pixels, normalisation of [0, 1] pixels, place in the random sequence."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    seed: int = 0  # not used by evaluation_images
    epoch: int = 0
    device: str = "cpu"


def training_images(split: Split, indices: Tensor, *, spec: AugmentLike, view: View) -> Tensor:
    """Augmented images of `split` at `indices` (B,) int64 on the CPU: (B, 3, size, size) float32 on the
    device.

    An image's result depends on its index, the seed and the epoch only, not on the rest of the batch.
    """
    which = indices.numpy()
    sizes = split.images.sizes(indices).numpy()
    draws = uniforms(view.seed, view.epoch, which, CROP_DRAWS, "crop")
    boxes = torch.from_numpy(random_boxes(sizes, draws, area=spec.crop_area, ratio=spec.crop_ratio))
    images = split.images.crop_resize(indices, boxes, view.size, view.device)
    if spec.flip > 0:
        mirrored = uniforms(view.seed, view.epoch, which, 1, "flip")[:, 0] < spec.flip
        images = flip(images, torch.from_numpy(mirrored).to(view.device))
    if spec.jitter > 0:
        draws = uniforms(view.seed, view.epoch, which, 3, "colour")
        images = colour.jitter(images, _to(1 + spec.jitter * (2 * draws - 1), view))
    shift = np.zeros((len(which), 3), np.float32)
    if spec.pca_noise > 0:
        shift = colour.pca_shift(spec.pca_noise * normals(view.seed, view.epoch, which, 3, "pca"))
    return normalise(images, view, _to(shift, view))


def evaluation_images(split: Split, indices: Tensor, *, eval_crop: float, view: View) -> Tensor:
    """The centre box of side eval_crop * shorter side, resized: (B, 3, size, size) float32 on the device.

    indices: (B,) int64 on the CPU. eval_crop: in (0, 1].
    """
    boxes = torch.from_numpy(centre_boxes(split.images.sizes(indices).numpy(), eval_crop))
    return normalise(split.images.crop_resize(indices, boxes, view.size, view.device), view)


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the images (B, C, H, W) whose flag in `mirrored` (B,) is set, left to right."""
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def normalise(images: Tensor, view: View, shift: Tensor | None = None) -> Tensor:
    """(images + shift - mean) / std with three channels, in one multiply-add.

    images: (B, 1 or 3, H, W) in [0, 1]; a single channel is repeated. shift: (B, 3), per image and channel.
    """
    mean = torch.tensor(view.mean, device=images.device)
    scale = 1 / torch.tensor(view.std, device=images.device)
    offset = (-mean if shift is None else shift - mean) * scale
    return torch.addcmul(offset.view(-1, 3, 1, 1), images, scale.view(1, 3, 1, 1))


def _to(values: np.ndarray, view: View) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(view.device, non_blocking=True)
