"""lr rises to its peak over the first epochs, step by step."""

import pytest

from harness.training.optim import lr_at, make_schedule
from harness.tricks.warmup import Warmup, warmup_lr
from tests.tricks import tiny


def test_it_sets_the_warm_up_and_nothing_else() -> None:
    assert Warmup().edit_recipe(tiny.recipe()) == tiny.recipe(warmup_epochs=5.0, warmup_shape="proportional")


def test_by_hand_and_as_the_training_loop_applies_it() -> None:
    """Peak 0.4, 10 steps an epoch, 5 epochs: 0.008 times the batch's number, counted from 1 to 50."""
    schedule = make_schedule(Warmup().edit_recipe(tiny.recipe(lr=0.4)), steps_per_epoch=10)
    for step, lr in [(0, 0.008), (1, 0.016), (24, 0.2), (48, 0.392), (49, 0.4)]:
        assert lr_at(step, schedule) == pytest.approx(lr, abs=1e-12)
        assert warmup_lr(step, warmup_steps=50, lr_peak=0.4) == pytest.approx(lr, abs=1e-12)
    assert lr_at(50, schedule) == 0.4


def test_from_the_rate_of_the_small_batch() -> None:
    """Goyal: from 0.1 to 3.2 in 50 steps of 0.062 each."""
    recipe = Warmup(start_lr=0.1).edit_recipe(tiny.recipe(lr=3.2, warmup_shape="constant"))
    assert recipe == tiny.recipe(lr=3.2, warmup_epochs=5.0, warmup_lr=0.1)
    schedule = make_schedule(recipe, steps_per_epoch=10)
    for step, lr in [(0, 0.1), (1, 0.162), (25, 1.65), (49, 3.138), (50, 3.2)]:
        assert lr_at(step, schedule) == pytest.approx(lr)
        assert warmup_lr(step, warmup_steps=50, lr_peak=3.2, start_lr=0.1) == pytest.approx(lr)
    with pytest.raises(ValueError, match="warmup: start_lr must be a number >= 0, got -1"):
        Warmup(start_lr=-1.0)


def test_a_warm_up_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup: 5 epochs of warm-up do not fit into 3 epochs of training"):
        Warmup().edit_recipe(tiny.recipe(epochs=3))
