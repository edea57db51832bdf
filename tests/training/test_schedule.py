"""The learning rate at steps worked out by hand."""

from __future__ import annotations

import math

import pytest

from harness.training.schedule import Schedule, lr_at, make_schedule
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


@pytest.mark.parametrize(("epochs", "steps"), [(2, 10), (1.5, 8), (0.01, 1), (0.5, 2)])
def test_a_fractional_epoch_is_rounded_to_the_nearest_step(epochs: float, steps: int) -> None:
    assert make_schedule(tiny_recipe(epochs=epochs), steps_per_epoch=5).total_steps == steps


def test_an_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'cosin'; did you mean 'cosine'"):
        make_schedule(tiny_recipe(schedule="cosin"), steps_per_epoch=5)
