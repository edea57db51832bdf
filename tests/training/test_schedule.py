"""The learning rate at steps worked out by hand."""

from __future__ import annotations

import math

import pytest

from harness.training.optim import Schedule, lr_at, make_schedule
from tests.training.runs import tiny_recipe


def test_warm_up_rises_linearly_from_zero_per_step() -> None:
    schedule = Schedule(kind="constant", lr_peak=0.4, total_steps=20, warmup_steps=4)
    assert [lr_at(step, schedule) for step in range(6)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4])


def test_cosine_leaves_warm_up_out_and_ends_at_zero() -> None:
    """0.5 (1 + cos(pi t / T)) with T = 12 - 2: half of the peak at step 7, zero one step after the last."""
    schedule = Schedule(kind="cosine", lr_peak=0.4, total_steps=12, warmup_steps=2)
    assert lr_at(2, schedule) == pytest.approx(0.4)
    assert lr_at(7, schedule) == pytest.approx(0.2)
    assert lr_at(11, schedule) == pytest.approx(0.2 * (1 + math.cos(0.9 * math.pi)))
    assert lr_at(12, schedule) == pytest.approx(0)


def test_step_decays_at_milestones_counted_from_the_start() -> None:
    """The papers' 30, 60, 90 of 120 epochs, at 10 steps an epoch and 5 epochs of warm-up."""
    recipe = tiny_recipe(epochs=120, lr=0.1, milestones=(30, 60, 90), schedule="step", warmup_epochs=5)
    schedule = make_schedule(recipe, steps_per_epoch=10)
    steps = (49, 50, 299, 300, 599, 600, 899, 900, 1199)
    expected = (0.098, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 1e-4, 1e-4)
    assert [lr_at(step, schedule) for step in steps] == pytest.approx(expected)
    assert schedule.total_steps == 1200


def test_gradual_warm_up_of_goyal_2017() -> None:
    """8k images: from the rate of one worker, 0.1, to 3.2 over 5 epochs of 156 steps (1,281,167 // 8,192)."""
    recipe = tiny_recipe(schedule="step", lr=3.2, warmup_epochs=5, warmup_lr=0.1, milestones=(30, 60, 80))
    schedule = make_schedule(recipe, steps_per_epoch=156)
    expected = {
        0: 0.1,
        1: 0.1 + 3.1 / 780,
        156: 0.72,
        390: 1.65,
        780: 3.2,
        4679: 3.2,
        4680: 0.32,
        12480: 0.0032,
    }
    assert {step: lr_at(step, schedule) for step in expected} == pytest.approx(expected)


def test_constant_warm_up_of_goyal_2017_ends_at_once() -> None:
    recipe = tiny_recipe(
        schedule="step", lr=3.2, warmup_epochs=5, warmup_lr=0.1, warmup_shape="constant", milestones=(30,)
    )
    schedule = make_schedule(recipe, steps_per_epoch=156)
    assert [lr_at(step, schedule) for step in (0, 779, 780, 4680)] == pytest.approx([0.1, 0.1, 3.2, 0.32])


def test_the_staircase_of_the_inception_papers() -> None:
    """0.045 * 0.94 ** (epoch // 2) of 50 x 32 images a step: 800 steps an epoch."""
    recipe = tiny_recipe(schedule="exponential", lr=0.045, decay=0.94, decay_every=2.0, epochs=100)
    schedule = make_schedule(recipe, steps_per_epoch=800)
    expected = {
        0: 0.045, 1599: 0.045, 1600: 0.0423, 3199: 0.0423, 3200: 0.039762, 79_999: 0.045 * 0.94**49
    }  # fmt: skip
    assert {step: lr_at(step, schedule) for step in expected} == pytest.approx(expected, rel=1e-12)


def test_bn_x5_decays_six_times_faster_from_a_five_times_higher_rate() -> None:
    """0.96 every 8 epochs, as GoogLeNet's, and every 8 / 6 from 0.0075: after 8 epochs one stair and six."""
    slow = tiny_recipe(schedule="exponential", lr=0.0015, decay=0.96, decay_every=8.0)
    fast = tiny_recipe(schedule="exponential", lr=0.0075, decay=0.96, decay_every=8 / 6)
    schedules = [make_schedule(recipe, steps_per_epoch=300) for recipe in (slow, fast)]
    assert [lr_at(2400, schedule) for schedule in schedules] == pytest.approx([0.00144, 0.0075 * 0.96**6])
    assert [lr_at(399, schedules[1]), lr_at(400, schedules[1])] == pytest.approx([0.0075, 0.0072])


def test_a_staircase_counts_from_the_start_of_training_warm_up_included() -> None:
    recipe = tiny_recipe(schedule="exponential", lr=1.0, decay=0.5, decay_every=2, warmup_epochs=3)
    schedule = make_schedule(recipe, steps_per_epoch=10)
    assert [lr_at(step, schedule) for step in (15, 29, 30, 39, 40)] == pytest.approx(
        [0.5, 29 / 30, 0.5, 0.5, 0.25]
    )


def test_a_stair_between_two_steps_ends_at_the_nearer_one() -> None:
    schedule = Schedule(kind="exponential", lr_peak=1.0, total_steps=9, decay=0.5, decay_steps=2.4)
    assert [lr_at(step, schedule) for step in range(6)] == [1, 1, 0.5, 0.5, 0.5, 0.25]  # at 2.4 and 4.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_shape": "linar"}, "unknown shape of warm-up 'linar'; did you mean 'linear'"),
        ({"schedule": "exponential", "decay_every": 0}, "decay_every must be a number of epochs above 0"),
    ],
)
def test_what_is_no_schedule_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_schedule(tiny_recipe(**changes), steps_per_epoch=5)


@pytest.mark.parametrize(("epochs", "steps"), [(2, 10), (1.5, 8), (0.01, 1), (0.5, 2)])
def test_a_fractional_epoch_is_rounded_to_the_nearest_step(epochs: float, steps: int) -> None:
    assert make_schedule(tiny_recipe(epochs=epochs), steps_per_epoch=5).total_steps == steps


def test_an_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'cosin'; did you mean 'cosine'"):
        make_schedule(tiny_recipe(schedule="cosin"), steps_per_epoch=5)
