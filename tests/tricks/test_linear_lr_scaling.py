"""lr = 0.1 b / 256 (He et al. 2019; Goyal et al. 2017)."""

import pytest

from harness.tricks.linear_lr_scaling import LinearLrScaling
from tests.tricks import tiny


@pytest.mark.parametrize(("batch_size", "lr"), [(256, 0.1), (1024, 0.4), (8192, 3.2), (128, 0.05)])
def test_the_papers_learning_rates(batch_size: int, lr: float) -> None:
    edited = LinearLrScaling().edit_recipe(tiny.recipe(batch_size=batch_size, lr=0.1))
    assert edited == tiny.recipe(batch_size=batch_size, lr=pytest.approx(lr, rel=1e-12))


def test_at_the_reference_batch_it_is_the_baseline_so_both_are_one_arm() -> None:
    assert LinearLrScaling().edit_recipe(tiny.recipe(batch_size=256)) == tiny.recipe(batch_size=256)


def test_another_reference() -> None:
    """Krizhevsky-style: lr 0.01 at batch 128."""
    edited = LinearLrScaling(reference_batch=128).edit_recipe(tiny.recipe(batch_size=512, lr=0.01))
    assert edited.lr == pytest.approx(0.04)
