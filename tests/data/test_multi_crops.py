"""Boxes of 10, 12 and 144 crops worked out by hand, and each distinct view seen once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.data.augment import CROPS, View, crop_boxes, evaluation_images, views
from harness.data.entry import Split
from harness.data.loading import ArrayImages

VIEW = View(size=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def boxes(height: int, width: int, crops: int, *, eval_crop: float = 0.875) -> list[list[int]]:
    found = crop_boxes(np.array([[height, width]]), crops, eval_crop=eval_crop)
    return [box.tolist() for box in found[:, 0]]


def test_ten_crops_are_four_corners_and_the_centre_of_the_whole_image() -> None:
    """320 x 400: crops of 0.875 * 320 = 280, with 40 rows and 120 columns to spare."""
    assert boxes(320, 400, 10) == [
        [0, 0, 280, 280], [0, 120, 280, 280], [40, 0, 280, 280], [40, 120, 280, 280], [20, 60, 280, 280]
    ]  # fmt: skip
    assert boxes(320, 400, 10, eval_crop=0.5)[3] == [160, 240, 160, 160]


def test_twelve_crops_are_of_the_centre_square_at_the_first_scale() -> None:
    """256 x 384: the square from column 64; crops of 224, with 32 to spare both ways."""
    assert boxes(256, 384, 12) == [
        [0, 64, 224, 224], [0, 96, 224, 224], [32, 64, 224, 224], [32, 96, 224, 224], [16, 80, 224, 224],
        [0, 64, 256, 256],
    ]  # fmt: skip


def test_144_crops_are_four_scales_of_three_squares_of_six() -> None:
    """256 x 384: squares from columns 0, 64 and 128; sides 224, 256 * 224 / 288 = 199, 179 and 163."""
    found = boxes(256, 384, 144)
    assert len(found) == 144 / 2
    assert found[:6] == [
        [0, 0, 224, 224], [0, 32, 224, 224], [32, 0, 224, 224], [32, 32, 224, 224], [16, 16, 224, 224],
        [0, 0, 256, 256],
    ]  # fmt: skip
    assert found[-6:] == [
        [0, 128, 163, 163], [0, 221, 163, 163], [93, 128, 163, 163], [93, 221, 163, 163],
        [46, 174, 163, 163], [0, 128, 256, 256],
    ]  # fmt: skip
    assert [found[first][2] for first in (0, 18, 36, 54)] == [224, 199, 179, 163]
    assert [found[first][1] for first in (0, 6, 12)] == [0, 64, 128]
    assert found[6:12] == boxes(256, 384, 12)


def test_the_squares_of_a_portrait_are_top_centre_and_bottom() -> None:
    whole = [box for box in boxes(384, 256, 144) if box[2] == 256]
    assert whole == [[0, 0, 256, 256], [64, 0, 256, 256], [128, 0, 256, 256]] * 4


@pytest.mark.parametrize("crops", CROPS)
def test_every_box_lies_in_its_image(crops: int) -> None:
    sizes = np.random.default_rng(0).integers(2, 70, (200, 2))
    found = crop_boxes(sizes, crops, eval_crop=0.875)
    assert (found >= 0).all()
    assert (found[..., 2:] >= 1).all()
    assert (found[..., :2] + found[..., 2:] <= sizes).all()


def test_other_numbers_of_crops_are_refused() -> None:
    with pytest.raises(ValueError, match=r"eval_crops must be one of 1, 10, 12, 144, got 11"):
        boxes(9, 9, 11)


def split(height: int, width: int) -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (5, height, width, 3), np.uint8)
    return Split(images=ArrayImages(pixels), labels=torch.arange(5))


def test_one_crop_is_the_image_of_a_plain_evaluation() -> None:
    indices = torch.tensor([3, 1])
    ((images, count),) = views(split(16, 20), indices, 1, eval_crop=0.875, view=VIEW)
    assert count == 1
    assert torch.equal(images, evaluation_images(split(16, 20), indices, eval_crop=0.875, view=VIEW))


@pytest.mark.parametrize(("width", "distinct"), [(32, 2 * (4 * 5 + 1)), (48, 2 * (3 * 4 * 5 + 3))])
def test_a_view_is_seen_once_and_counted_as_often_as_it_occurs(width: int, distinct: int) -> None:
    """Of a square image the three squares coincide; the whole squares do at every scale."""
    indices, source = torch.tensor([0, 4]), split(32, width)
    seen = list(views(source, indices, 144, eval_crop=0.875, view=VIEW))
    assert len(seen) == distinct
    assert sum(count for _, count in seen) == 144
    total = sum(count * images for images, count in seen)
    by_hand = torch.zeros_like(total)
    for box in crop_boxes(source.images.sizes(indices).numpy(), 144, eval_crop=0.875):
        ((cut, _),) = _cut(source, indices, box)
        by_hand += cut + cut.flip(3)
    assert torch.allclose(total, by_hand, atol=1e-3)


def _cut(source: Split, indices: torch.Tensor, box: np.ndarray) -> list[tuple[torch.Tensor, int]]:
    images = source.images.crop_resize(indices, torch.from_numpy(box), VIEW.size)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (VIEW.mean, VIEW.std))
    return [((images - mean) / std, 1)]
