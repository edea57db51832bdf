"""What Ioffe & Szegedy (2015) change beside batch normalisation."""

from __future__ import annotations

import dataclasses

import pytest

from harness.spec import AugmentSpec
from harness.tricks.batch_norm import FasterDecay, HigherLr, ShardShuffling, WeakerDistortion, WeakerL2
from tests.tricks import tiny


@pytest.mark.parametrize(("times", "lr"), [(5.0, 0.0075), (30.0, 0.045)])
def test_the_learning_rates_of_bn_x5_and_bn_x30(times: float, lr: float) -> None:
    edited = HigherLr(times=times).edit_recipe(tiny.recipe(lr=0.0015))
    assert edited == tiny.recipe(lr=pytest.approx(lr, rel=1e-12))


def test_weight_decay_is_divided_by_five() -> None:
    assert WeakerL2().edit_recipe(tiny.recipe(weight_decay=1e-5)).weight_decay == pytest.approx(2e-6)


def test_stairs_come_six_times_as_often() -> None:
    """0.96 every 8 epochs becomes 0.96 every 4/3 epochs: after 8 epochs 0.96^6, not 0.96 / 6."""
    before = tiny.recipe(schedule="exponential", decay=0.96, decay_every=8.0, milestones=())
    assert FasterDecay().edit_recipe(before) == dataclasses.replace(before, decay_every=pytest.approx(8 / 6))


def test_milestones_come_six_times_as_soon() -> None:
    before = tiny.recipe(milestones=(30.0, 60.0, 90.0))
    assert FasterDecay().edit_recipe(before) == tiny.recipe(milestones=(5.0, 10.0, 15.0))
    assert FasterDecay(times=2).edit_recipe(before) == tiny.recipe(milestones=(15.0, 30.0, 45.0))


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_schedule_without_stairs_does_not_fall_faster(schedule: str) -> None:
    with pytest.raises(ValueError, match=f"faster_decay needs .* the recipe has '{schedule}'"):
        FasterDecay().edit_recipe(tiny.recipe(schedule=schedule))


def test_photometric_distortions_are_halved_and_crops_stay() -> None:
    before = AugmentSpec(crop_area=(0.1, 0.9), flip=0.3, jitter=0.4, pca_noise=0.1)
    edited = WeakerDistortion().edit_recipe(tiny.recipe(augment=before))
    expected = AugmentSpec(crop_area=(0.1, 0.9), flip=0.3, jitter=0.2, pca_noise=0.05)
    assert edited == tiny.recipe(augment=expected)


def test_shards_are_shuffled_within() -> None:
    edited = ShardShuffling().edit_recipe(tiny.recipe(shuffle="shards"))
    assert edited == tiny.recipe(shuffle="within_shards")


def test_a_recipe_that_shuffles_all_images_is_not_made_worse() -> None:
    with pytest.raises(ValueError, match=r"shard_shuffling needs .* this one has shuffle: images"):
        ShardShuffling().edit_recipe(tiny.recipe(shuffle="images"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HigherLr(times=0), "higher_lr: times must be a number > 0, got 0"),
        (lambda: WeakerL2(divide_by=0), "weaker_l2: divide_by must be a number > 0, got 0"),
        (lambda: FasterDecay(times=-1), "faster_decay: times must be a number > 0, got -1"),
        (
            lambda: WeakerDistortion(factor=2),
            r"weaker_distortion: factor must be a number in \[0, 1\], got 2",
        ),
    ],
)
def test_values_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
