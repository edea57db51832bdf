"""Every augmentation step equals torchvision.transforms.v2 on float images, or Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import augment
from harness.data.augment import (
    CROP_DRAWS,
    View,
    centre_boxes,
    crop_resize,
    evaluation_images,
    flip,
    normalise,
    random_boxes,
    training_images,
    window_places,
)
from harness.data.entry import Split
from harness.data.torchvision_import import torchvision
from harness.spec import AugmentSpec
from tests.data.sets import array_split, random_pixels

F = torchvision.transforms.v2.functional
BOXES = torch.tensor([[0, 0, 37, 53], [5, 7, 9, 40], [30, 50, 7, 3], [0, 20, 37, 33], [36, 0, 1, 1]])
AUGMENT = AugmentSpec()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 32, 64])
def test_crop_resize_equals_torchvision_on_float_images(channels: int, size: int) -> None:
    pixels = torch.from_numpy(random_pixels(len(BOXES), 37, 53, channels))
    ours = crop_resize(pixels, BOXES, size)
    for image, box, got in zip(pixels, BOXES.tolist(), ours, strict=True):
        planes = image.permute(2, 0, 1).float() / 255
        want = F.resized_crop(planes, *box, [size, size], antialias=True)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_crop_resize_equals_pillow_within_one_level(size: int) -> None:
    pixels = random_pixels(len(BOXES), 37, 53, 3)
    ours = crop_resize(torch.from_numpy(pixels), BOXES, size) * 255
    for image, (top, left, height, width), got in zip(pixels, BOXES.tolist(), ours, strict=True):
        crop = Image.fromarray(image).crop((left, top, left + width, top + height))
        want = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR)).astype(np.float32)
        assert np.abs(got.permute(1, 2, 0).numpy() - want).max() <= 1.0


FACTORS = torch.tensor([0.0, 0.6, 1.0, 1.25, 1.4])


def float_images(channels: int = 3) -> torch.Tensor:
    """Random colours, and some exact greys, blacks and ties, where hue is undefined."""
    images = torch.rand(len(FACTORS), channels, 9, 11, generator=torch.Generator().manual_seed(0))
    images[:, :, 0] = 0.5
    images[:, :, 1] = 0.0
    images[:, 0, 2] = images[:, -1, 2]
    return images


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (augment.brightness, "adjust_brightness", FACTORS),
        (augment.saturation, "adjust_saturation", FACTORS),
        (augment.hue, "adjust_hue", torch.tensor([-0.5, -0.2, 0.0, 0.13, 0.2])),
    ],
)
def test_colour_steps_equal_torchvision(ours, theirs: str, factors: torch.Tensor) -> None:
    images = float_images()
    got = ours(images, factors)
    assert got.std() > 0.05
    for image, factor, mine in zip(images, factors.tolist(), got, strict=True):
        torch.testing.assert_close(mine, getattr(F, theirs)(image, factor), rtol=0, atol=2e-6)


def test_flip_mirrors_exactly_the_marked_images() -> None:
    images = float_images()
    marked = torch.tensor([True, False, True, False, False])
    got = flip(images, marked)
    torch.testing.assert_close(got[marked], F.horizontal_flip(images[marked]), rtol=0, atol=0)
    torch.testing.assert_close(got[~marked], images[~marked], rtol=0, atol=0)


def test_normalise_equals_torchvision_and_repeats_a_single_channel() -> None:
    view = View(size=9, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    for channels in (1, 3):
        images = float_images(channels)
        want = F.normalize(images.expand(-1, 3, -1, -1).clone(), list(view.mean), list(view.std))
        torch.testing.assert_close(normalise(images, view), want, rtol=0, atol=2e-6)


def test_pca_shift_is_the_lighting_formula_of_krizhevsky_2012() -> None:
    # Section 4.1: [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T is added to every pixel.
    a = np.array([0.1, -0.05, 0.2], np.float32)
    p, values = augment.PCA_EIGENVECTORS, augment.PCA_EIGENVALUES
    by_hand = [sum(p[c][k] * a[k] * values[k] for k in range(3)) / 255 for c in range(3)]
    np.testing.assert_allclose(augment.pca_shift(a[None])[0], by_hand, rtol=1e-5)
    np.testing.assert_allclose(p.T @ p, np.eye(3), atol=2e-3)  # principal directions are orthonormal


def test_training_images_is_the_chain_of_the_reference_operations() -> None:
    """The whole pipeline, one image at a time with torchvision, from the same draws."""
    from harness.data.augment import normals, uniforms

    split = array_split(random_pixels(6, 20, 30, 3))
    view = View(size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), seed=5, epoch=3)
    which = torch.tensor([4, 0, 3])
    got = training_images(split, which, spec=AUGMENT, view=view)
    index = which.numpy()
    boxes = random_boxes(
        np.full((3, 2), (20, 30)),
        uniforms(5, 3, index, CROP_DRAWS, "crop"),
        area=AUGMENT.crop_area,
        ratio=AUGMENT.crop_ratio,
    )
    mirrored = uniforms(5, 3, index, 1, "flip")[:, 0] < 0.5
    factors = 1 + 0.4 * (2 * uniforms(5, 3, index, 3, "colour") - 1)
    shifts = torch.from_numpy(augment.pca_shift(0.1 * normals(5, 3, index, 3, "pca")))
    for row in range(3):
        image = torch.from_numpy(split.images.array[index[row]]).permute(2, 0, 1).float() / 255
        image = F.resized_crop(image, *boxes[row].tolist(), [16, 16], antialias=True)
        image = F.horizontal_flip(image) if mirrored[row] else image
        image = F.adjust_brightness(image, float(factors[row, 0]))
        image = F.adjust_saturation(image, float(factors[row, 1]))
        image = F.adjust_hue(image, float(factors[row, 2] - 1) / 2)
        image = F.normalize(image + shifts[row][:, None, None], list(view.mean), list(view.std))
        # 1e-5 before the hue step grows where a pixel is nearly grey
        torch.testing.assert_close(got[row], image, rtol=0, atol=2e-3)
        assert (got[row] - image).abs().mean() < 1e-4


def test_grey_images_equal_the_same_images_stored_as_three_channels() -> None:
    grey = random_pixels(5, 28, 28, 1)
    view = View(size=32, mean=(0.3, 0.3, 0.3), std=(0.35, 0.35, 0.35), seed=1)
    one = training_images(array_split(grey), torch.arange(5), spec=AUGMENT, view=view)
    three = training_images(array_split(grey.repeat(3, axis=3)), torch.arange(5), spec=AUGMENT, view=view)
    # torchvision's grey weights sum to 0.9999, so its saturation step darkens grey by up to 4e-5
    torch.testing.assert_close(one, three, rtol=0, atol=2e-4)


def test_an_image_does_not_depend_on_its_batch_and_changes_with_seed_and_epoch() -> None:
    split: Split = array_split(random_pixels(40, 28, 28, 1))
    view = View(size=32, mean=(0.3,) * 3, std=(0.3,) * 3, seed=7, epoch=2)
    whole = training_images(split, torch.arange(40), spec=AUGMENT, view=view)
    part = training_images(split, torch.tensor([33, 5]), spec=AUGMENT, view=view)
    torch.testing.assert_close(part, whole[[33, 5]], rtol=0, atol=1e-6)
    for other in (
        View(size=32, mean=view.mean, std=view.std, seed=8, epoch=2),
        View(size=32, mean=view.mean, std=view.std, seed=7, epoch=3),
    ):
        changed = training_images(split, torch.arange(40), spec=AUGMENT, view=other)
        assert ((changed - whole).abs().amax(dim=(1, 2, 3)) > 0.05).all()


def test_everything_off_only_resizes_and_normalises() -> None:
    pixels = random_pixels(4, 24, 24, 3)
    off = AugmentSpec(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, pca_noise=0.0)
    view = View(size=24, mean=(0.0,) * 3, std=(1.0,) * 3)
    got = training_images(array_split(pixels), torch.arange(4), spec=off, view=view)
    want = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_padded_crops_are_torchvisions_at_every_place_with_the_mean_colour_around() -> None:
    """he2016deep, Sec. 4.2: 4 pixels on each side, then a random crop of the image's size."""
    pixels = random_pixels(400, 12, 12, 3)
    padded = AugmentSpec(
        crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, pca_noise=0.0, crop_pad=2
    )
    view = View(size=12, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), seed=5)
    got = training_images(array_split(pixels), torch.arange(400), spec=padded, view=view)
    plain = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    around = F.pad(F.normalize(plain, list(view.mean), list(view.std)), [2], fill=0.0)
    seen = set()
    for image, want in zip(got, around, strict=True):
        windows = {(y, x): F.crop(want, y, x, 12, 12) for y in range(5) for x in range(5)}
        places = [place for place, window in windows.items() if torch.allclose(image, window, atol=1e-5)]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 25


def test_places_of_windows_are_each_equally_likely() -> None:
    places = window_places(np.random.default_rng(0).random((9000, 2)).astype(np.float32), 1)
    counts = np.histogram2d(*places.T, bins=3)[0]
    assert counts.sum() == 9000
    assert np.abs(counts - 1000).max() < 5 * 1000**0.5


def test_evaluation_is_the_centre_crop() -> None:
    pixels = random_pixels(3, 40, 48, 3)
    view = View(size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    got = evaluation_images(array_split(pixels), torch.arange(3), eval_crop=0.8, view=view)
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    want = F.resize(F.center_crop(planes, [32, 32]), [16, 16], antialias=True)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_random_boxes_follow_torchvisions_rule() -> None:
    """Same shape statistics as RandomResizedCrop.make_params over many draws, and always inside the image."""
    count, height, width = 4000, 60, 100
    draws = np.random.default_rng(0).random((count, CROP_DRAWS))
    boxes = random_boxes(np.full((count, 2), (height, width)), draws, area=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, 0] + boxes[:, 2] <= height).all()
    assert (boxes[:, 1] + boxes[:, 3] <= width).all()
    torch.manual_seed(0)
    transform = torchvision.transforms.v2.RandomResizedCrop(8)
    image = torch.zeros(3, height, width)
    theirs = [transform.make_params([image]) for _ in range(count)]
    for column, name in enumerate(("top", "left", "height", "width")):
        reference = np.array([box[name] for box in theirs], float)
        spread = reference.std() / count**0.5
        assert abs(boxes[:, column].mean() - reference.mean()) < 5 * spread, name
        assert abs(boxes[:, column].std() / reference.std() - 1) < 0.06, name


def test_random_boxes_fall_back_to_the_centre() -> None:
    """A strip so narrow that no try fits: width kept, height from the ratio bound, as torchvision does."""
    draws = np.full((1, CROP_DRAWS), 0.9)
    boxes = random_boxes(np.array([[300, 8]]), draws, area=(0.9, 1.0), ratio=(3 / 4, 4 / 3))
    assert boxes.tolist() == [[(300 - 11) // 2, 0, 11, 8]]
    boxes = random_boxes(np.array([[8, 300]]), draws, area=(0.9, 1.0), ratio=(3 / 4, 4 / 3))
    assert boxes.tolist() == [[0, (300 - 11) // 2, 8, 11]]


def test_centre_boxes() -> None:
    sizes = np.array([[28, 28], [375, 500]])
    assert centre_boxes(sizes, 0.875).tolist() == [[2, 2, 24, 24], [23, 86, 328, 328]]


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_the_hue_of_a_gpu_has_the_bits_of_a_cpu_s(last: bool) -> None:
    images = torch.rand(16, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    images[0] = 0.5  # grey: no hue
    images[1, :2] = images[1, 2]
    turn = torch.linspace(-0.7, 0.7, 16)
    if last:
        images = images.contiguous(memory_format=torch.channels_last)
    at_once = augment._hue_at_once(images, turn, torch.empty_like(images))
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        # kernels without AVX2 round the two ways differently
        torch.testing.assert_close(augment.hue(images, turn), at_once, rtol=0, atol=4e-7)
    else:
        assert torch.equal(augment.hue(images, turn), at_once)
