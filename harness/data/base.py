"""What a loaded data set is: images that can be cropped in batches, labels, and a fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Images(Protocol):
    """Decoded on demand or held as one uint8 array; either way read in batches of crops."""

    channels: int  # 1: grey (colour augmentation cannot change it), 3: RGB

    def __len__(self) -> int: ...

    def sizes(self, indices: Tensor) -> Tensor:
        """Height and width in pixels, (B, 2) int64, of the images at `indices` (B,)."""
        ...

    def crop_resize(self, indices: Tensor, boxes: Tensor, size: int, device: str = "cpu") -> Tensor:
        """Cut `boxes` (B, 4) int64 (top, left, height, width) and resize each to size x size, bilinear with
        antialias as Pillow and torchvision.transforms.v2 do it. Returns (B, channels, size, size) float32 in
        [0, 1] on `device`."""
        ...


@dataclass(frozen=True, slots=True)
class Split:
    """One part of a data set. labels: (N,) int64."""

    images: Images
    labels: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A data set, ready to be read."""

    name: str
    train: Split
    test: Split
    classes: int
    mean: tuple[float, float, float]  # of [0, 1] pixels, per channel
    std: tuple[float, float, float]
    fingerprint: str  # sha256 over labels and bytes of both parts (`harness.data.contents`)
    part_fingerprints: tuple[str, str]  # the same of the training and of the test part
    left_out: tuple[str, ...] = ()  # sentences about files that were found and are not read
