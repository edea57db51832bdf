"""Peak, warm-up and decay of the learning rate, by hand and as the training loop applies them."""

from __future__ import annotations

import itertools
import math

import pytest

from harness.training.optim import lr_at, make_schedule
from harness.tricks.learning_rate import (
    ConstantWarmup,
    Cosine,
    ExponentialDecay,
    LargeBatch,
    LinearLrScaling,
    StepDecay,
    Warmup,
    cosine_lr,
    exponential_lr,
    milestones,
    warmup_lr,
)
from tests.tricks import tiny


@pytest.mark.parametrize(("batch_size", "lr"), [(256, 0.1), (1024, 0.4), (8192, 3.2), (128, 0.05)])
def test_the_papers_learning_rates(batch_size: int, lr: float) -> None:
    edited = LinearLrScaling().edit_recipe(tiny.recipe(batch_size=batch_size, lr=0.1))
    assert edited == tiny.recipe(batch_size=batch_size, lr=pytest.approx(lr, rel=1e-12))


def test_at_the_reference_batch_linear_scaling_is_the_baseline_so_both_are_one_arm() -> None:
    assert LinearLrScaling().edit_recipe(tiny.recipe(batch_size=256)) == tiny.recipe(batch_size=256)


def test_another_reference_batch() -> None:
    """Krizhevsky-style: lr 0.01 at batch 128."""
    edited = LinearLrScaling(reference_batch=128).edit_recipe(tiny.recipe(batch_size=512, lr=0.01))
    assert edited.lr == pytest.approx(0.04)


def test_a_large_batch_then_the_linear_rule() -> None:
    """1,024 images at 0.1 * 1024 / 256 = 0.4, as in He et al. (2019)."""
    large = LargeBatch().edit_recipe(tiny.recipe())
    assert large == tiny.recipe(batch_size=1024)
    assert LinearLrScaling().edit_recipe(large) == tiny.recipe(batch_size=1024, lr=pytest.approx(0.4))


def test_warmup_sets_the_warm_up_and_nothing_else() -> None:
    assert Warmup().edit_recipe(tiny.recipe()) == tiny.recipe(warmup_epochs=5.0, warmup_shape="proportional")


def test_warm_up_by_hand() -> None:
    """Peak 0.4, 10 steps an epoch, 5 epochs: 0.008 times the batch's number, counted from 1 to 50."""
    schedule = make_schedule(Warmup().edit_recipe(tiny.recipe(lr=0.4)), steps_per_epoch=10)
    for step, lr in [(0, 0.008), (1, 0.016), (24, 0.2), (48, 0.392), (49, 0.4)]:
        assert lr_at(step, schedule) == pytest.approx(lr, abs=1e-12)
        assert warmup_lr(step, warmup_steps=50, lr_peak=0.4) == pytest.approx(lr, abs=1e-12)
    assert lr_at(50, schedule) == 0.4


def test_warm_up_from_the_rate_of_the_small_batch() -> None:
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


# lr(t) = 0.5 (1 + cos(pi t / T)) lr, with T the steps after the warm-up.


def test_cosine_sets_the_schedule_and_clears_the_milestones_it_makes_meaningless() -> None:
    assert Cosine().edit_recipe(tiny.recipe()) == tiny.recipe(schedule="cosine", milestones=())
    other = tiny.recipe(milestones=(40, 80))
    assert Cosine().edit_recipe(other) == Cosine().edit_recipe(tiny.recipe())


def test_cosine_by_hand() -> None:
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


def test_cosine_ends_at_zero_and_never_rises() -> None:
    rates = [cosine_lr(step, total_steps=40, lr_peak=0.1) for step in range(41)]
    assert rates[0] == 0.1
    assert rates[-1] == pytest.approx(0.0, abs=1e-17)
    assert all(earlier > later for earlier, later in itertools.pairwise(rates))


def test_exponential_decay_by_hand() -> None:
    """Rethinking: 0.045 for 2 epochs, then 0.0423, after 100 epochs 0.045 * 0.94^49 in the last stair."""
    recipe = ExponentialDecay().edit_recipe(tiny.recipe(lr=0.045, epochs=100.0))
    assert recipe == tiny.recipe(
        lr=0.045, epochs=100.0, schedule="exponential", decay=0.94, decay_every=2.0, milestones=()
    )
    schedule = make_schedule(recipe, steps_per_epoch=10)
    for step, lr in [(0, 0.045), (19, 0.045), (20, 0.0423), (40, 0.039762), (999, 0.045 * 0.94**49)]:
        assert lr_at(step, schedule) == pytest.approx(lr)
        assert exponential_lr(step / 10, lr_peak=0.045, factor=0.94, every=2.0) == pytest.approx(lr)


def test_step_decay_by_hand() -> None:
    """Bag of Tricks: 0.1 at epochs 30, 60, 90 of 120; of 90 epochs, the one at the end is not there."""
    other = tiny.recipe(schedule="cosine", milestones=(), decay=0.5)
    assert StepDecay().edit_recipe(other) == tiny.recipe(milestones=(30.0, 60.0, 90.0), decay=0.1)
    assert milestones(epochs=90.0, every=30.0) == (30.0, 60.0)
    schedule = make_schedule(StepDecay().edit_recipe(tiny.recipe(lr=0.1)), steps_per_epoch=10)
    for step, lr in [(0, 0.1), (299, 0.1), (300, 0.01), (600, 1e-3), (900, 1e-4), (1199, 1e-4)]:
        assert lr_at(step, schedule) == pytest.approx(lr)


def test_a_step_that_never_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="step_decay: 30 epochs do not pass within 20 epochs of training"):
        StepDecay().edit_recipe(tiny.recipe(epochs=20.0))


def test_constant_warm_up_by_hand() -> None:
    """Goyal: 0.1 for 5 epochs, then 3.2 at once, at 8,192 images."""
    recipe = ConstantWarmup().edit_recipe(tiny.recipe(lr=3.2))
    assert recipe == tiny.recipe(lr=3.2, warmup_epochs=5.0, warmup_lr=0.1, warmup_shape="constant")
    schedule = make_schedule(recipe, steps_per_epoch=10)
    for step, lr in [(0, 0.1), (49, 0.1), (50, 3.2), (299, 3.2), (300, 0.32)]:
        assert lr_at(step, schedule) == pytest.approx(lr)


def test_a_constant_warm_up_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match="constant_warmup: 5 epochs of warm-up do not fit into 5 epochs"):
        ConstantWarmup().edit_recipe(tiny.recipe(epochs=5.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ExponentialDecay(factor=1.0),
            r"exponential_decay: factor must be a number in \(0, 1\), got 1",
        ),
        (lambda: ExponentialDecay(every=0.0), "exponential_decay: every must be a number > 0, got 0"),
        (lambda: StepDecay(factor=0.0), r"step_decay: factor must be a number in \(0, 1\), got 0"),
        (lambda: StepDecay(every=-1.0), "step_decay: every must be a number > 0, got -1"),
        (lambda: ConstantWarmup(epochs=0.0), "constant_warmup: epochs must be a number > 0, got 0"),
        (lambda: ConstantWarmup(lr=0.0), "constant_warmup: lr must be a number > 0, got 0"),
        (lambda: LargeBatch(images=0), "large_batch: images must be an integer >= 1, got 0"),
    ],
)
def test_values_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
