"""Counter-based draws are uniform, independent between counters, and a pure function of their arguments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.data import augment
from harness.data.augment import normals, uniforms

INDICES = np.arange(20_000)


def test_uniforms_pass_kolmogorov_smirnov_along_images_and_along_draws() -> None:
    along_images = uniforms(1, 0, INDICES, 3, "a")
    assert along_images.dtype == np.float32
    assert along_images.min() >= 0
    assert along_images.max() < 1
    for column in along_images.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert stats.kstest(uniforms(1, 0, np.array([17]), 20_000, "a")[0], "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    "other",
    [
        lambda: uniforms(2, 0, INDICES, 1, "a"),  # next seed
        lambda: uniforms(1, 1, INDICES, 1, "a"),  # next epoch
        lambda: uniforms(1, 0, INDICES + 1, 1, "a"),  # next image
        lambda: uniforms(1, 0, INDICES, 2, "a")[:, 1:],  # next draw
        lambda: uniforms(1, 0, INDICES, 1, "b"),  # another stream
    ],
)
def test_neighbouring_counters_are_independent(other) -> None:
    first, second = uniforms(1, 0, INDICES, 1, "a")[:, 0], other()[:, 0]
    assert abs(stats.pearsonr(first, second).statistic) < 4 / len(INDICES) ** 0.5
    table, _, _ = np.histogram2d(first, second, bins=10, range=[[0, 1], [0, 1]])
    assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_draws_do_not_depend_on_the_batch_or_on_how_many_are_drawn() -> None:
    whole = uniforms(3, 4, INDICES, 5, "crop")
    np.testing.assert_array_equal(uniforms(3, 4, INDICES[[900, 2]], 5, "crop"), whole[[900, 2]])
    np.testing.assert_array_equal(uniforms(3, 4, INDICES, 2, "crop"), whole[:, :2])


def test_the_bits_are_pinned() -> None:
    """A change of these numbers changes every result ever recorded."""
    got = uniforms(0, 0, np.array([0, 1, 2**40]), 2, "crop") * 2**24
    assert got.astype(int).tolist() == [[6705403, 9183641], [4563613, 961915], [6285077, 6576086]]


def test_the_hash_is_splitmix64() -> None:
    """The published first outputs of SplitMix64 for the seed 1234567."""
    counters = np.arange(1, 4, dtype=np.uint64)
    outputs = augment._mix(np.uint64(1234567) + counters * augment.GOLDEN_GAMMA)
    assert outputs.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_normals_are_standard_normal_and_independent() -> None:
    draws = normals(1, 0, INDICES, 3, "pca")
    assert draws.shape == (len(INDICES), 3)
    for column in draws.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 4 / len(INDICES) ** 0.5
