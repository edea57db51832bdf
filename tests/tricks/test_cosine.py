"""lr(t) = 0.5 (1 + cos(pi t / T)) lr, with T the steps after the warm-up."""

import itertools
import math

import pytest

from harness.training.optim import lr_at, make_schedule
from harness.tricks.cosine import Cosine, cosine_lr
from harness.tricks.warmup import Warmup
from tests.tricks import tiny


def test_it_sets_the_schedule_and_clears_the_milestones_it_makes_meaningless() -> None:
    assert Cosine().edit_recipe(tiny.recipe()) == tiny.recipe(schedule="cosine", milestones=())
    other = tiny.recipe(milestones=(40, 80))
    assert Cosine().edit_recipe(other) == Cosine().edit_recipe(tiny.recipe())


def test_by_hand_and_as_the_training_loop_applies_it() -> None:
    """120 epochs of 10 steps, 5 of warm-up: T = 1150 steps; a third of the way cos is 1/2, half way 0."""
    recipe = Cosine().edit_recipe(Warmup().edit_recipe(tiny.recipe(lr=0.4)))
    schedule = make_schedule(recipe, steps_per_epoch=10)
    assert lr_at(50, schedule) == pytest.approx(0.4)
    assert lr_at(50 + 575, schedule) == pytest.approx(0.2)
    third = 0.4 * 0.5 * (1 + math.cos(math.pi * 383 / 1150))
    assert third == pytest.approx(0.3, abs=2e-3)
    assert lr_at(50 + 383, schedule) == pytest.approx(third)
    assert 0 < lr_at(1199, schedule) < 1e-6
    for step in (0, 100, 575, 1149):
        assert cosine_lr(step, total_steps=1150, lr_peak=0.4) == pytest.approx(lr_at(50 + step, schedule))


def test_it_ends_at_zero_and_never_rises() -> None:
    rates = [cosine_lr(step, total_steps=40, lr_peak=0.1) for step in range(41)]
    assert rates[0] == 0.1
    assert rates[-1] == pytest.approx(0.0, abs=1e-17)
    assert all(earlier > later for earlier, later in itertools.pairwise(rates))
