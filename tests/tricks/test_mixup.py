"""Mixed images and targets by hand, and the distribution of lam."""

import pytest
import torch

from harness.tricks.base import Batch
from harness.tricks.mixup import Mixup, draw_lam, mix
from tests.tricks import tiny


def test_images_and_targets_are_mixed_with_the_reversed_batch_by_one_lam() -> None:
    """x_i' = lam x_i + (1 - lam) x_{B-1-i}, entry by entry; the same for the targets."""
    given = tiny.batch(size=5)
    out = Mixup().edit_batch(given, torch.Generator().manual_seed(7), tiny.context())
    lam = draw_lam(0.2, torch.Generator().manual_seed(7))
    assert 0 < lam < 1
    for i in range(5):
        torch.testing.assert_close(out.images[i], lam * given.images[i] + (1 - lam) * given.images[4 - i])
        torch.testing.assert_close(out.targets[i], lam * given.targets[i] + (1 - lam) * given.targets[4 - i])
    torch.testing.assert_close(out.images[2], given.images[2])  # the middle one is its own partner


def test_two_images_three_to_one() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert mix(a, b, lam=0.75).tolist() == [0.75, 0.25]
    assert mix(b, a, lam=0.75).tolist() == [0.25, 0.75]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lam_is_beta_alpha_alpha(alpha: float) -> None:
    """Kolmogorov-Smirnov distance of 800 draws, one per step's own generator, from the distribution."""
    from scipy.stats import beta, kstest

    draws = [draw_lam(alpha, torch.Generator().manual_seed(seed)) for seed in range(800)]
    assert kstest(draws, beta(alpha, alpha).cdf).pvalue > 0.01
    assert kstest(draws, beta(2 * alpha, 2 * alpha).cdf).pvalue < 1e-4


def test_successive_draws_of_one_generator_differ() -> None:
    rng = torch.Generator().manual_seed(0)
    assert len({draw_lam(0.2, rng) for _ in range(50)}) == 50


def test_cross_entropy_of_mixed_targets_is_the_mixture_of_the_cross_entropies() -> None:
    """lam * CE(y_i) + (1 - lam) * CE(y_j): the form in which mixup is often written for hard labels."""
    given = tiny.batch(size=4)
    out = Mixup().edit_batch(given, torch.Generator().manual_seed(3), tiny.context())
    lam = draw_lam(0.2, torch.Generator().manual_seed(3))
    logits = tiny.net().eval()(out.images)
    reversed_targets = Batch(given.images, given.targets.flip(0))
    expected = lam * tiny.cross_entropy(logits, given) + (1 - lam) * tiny.cross_entropy(
        logits, reversed_targets
    )
    torch.testing.assert_close(tiny.cross_entropy(logits, out), expected)
