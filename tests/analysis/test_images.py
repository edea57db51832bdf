"""T2: mean squares by brute force, the MRMC variance, and coverage over new images."""

import numpy as np
import pytest
from scipy import stats

from harness.analysis.intervals import (
    Estimate,
    crossed,
    half_width,
    mean_squares,
    new_images_half_width,
    unpack,
    with_images,
)


def some_differences(seeds=4, images=50):
    return np.random.default_rng(0).integers(-1, 2, size=(seeds, images)).astype(np.int8)


def test_mean_squares_equal_the_two_way_table_summed_by_hand():
    d = some_differences()
    ms = mean_squares(d)
    seeds, images = d.shape
    grand = d.mean()
    by_image = [d[:, i].mean() for i in range(images)]
    by_seed = [d[s].mean() for s in range(seeds)]
    residual = sum(
        (d[s, i] - by_image[i] - by_seed[s] + grand) ** 2 for s in range(seeds) for i in range(images)
    )
    assert ms.images == pytest.approx(seeds * sum((m - grand) ** 2 for m in by_image) / (images - 1))
    assert ms.seeds == pytest.approx(images * sum((m - grand) ** 2 for m in by_seed) / (seeds - 1))
    assert ms.residual == pytest.approx(residual / ((images - 1) * (seeds - 1)))
    assert ms.mean == pytest.approx(grand)


def test_crossed_variance_and_df_by_hand():
    ms = mean_squares(some_differences())
    extra = max(ms.seeds - ms.residual, 0.0)
    estimate = crossed(ms)
    assert estimate.se**2 == pytest.approx(max(ms.images + ms.seeds - ms.residual, ms.images) / 200)
    assert estimate.df == pytest.approx((ms.images + extra) ** 2 / (extra**2 / 3 + ms.images**2 / 49))


def test_without_any_spread_between_seeds_t2_is_the_spread_of_the_images():
    d = np.repeat(some_differences(1), 3, axis=0)
    theirs = stats.sem(d[0])
    assert crossed(mean_squares(d)).se == pytest.approx(theirs)
    still = Estimate(value=np.asarray(1.0), se=np.asarray(1e-9), df=np.asarray(4.0))
    assert with_images(still, mean_squares(d)).se == pytest.approx(100 * theirs, rel=1e-6)


def test_t2_is_never_narrower_than_t1():
    for df, se in ((1.2, 0.5), (2.0, 3.0), (16.0, 10.0)):
        t1 = Estimate(value=np.asarray(0.3), se=np.asarray(se), df=np.asarray(df))
        assert new_images_half_width(t1, mean_squares(some_differences()), 0.05) >= half_width(t1, 0.05)


def test_t2_covers_over_seeds_and_images_where_t1_does_not():
    rng = np.random.default_rng(2)
    hits = np.zeros(2)
    for _ in range(400):
        image = rng.normal(0, 0.3, size=300)  # of d: the same in every seed; the true mean is 0
        d = np.clip(np.rint(image + rng.normal(0, 0.6, size=(5, 300)) + rng.normal(0, 0.01, (5, 1))), -1, 1)
        per_seed = 100 * d.mean(axis=1)
        se = per_seed.std(ddof=1) / np.sqrt(5)
        t1 = Estimate(value=per_seed.mean(), se=se, df=np.asarray(4.0))
        t2 = new_images_half_width(t1, mean_squares(d.astype(np.int8)), 0.05)
        hits += [abs(t1.value) <= half_width(t1, 0.05), abs(t1.value) <= t2]
    assert hits[0] / 400 < 0.91
    assert 0.93 <= hits[1] / 400 <= 0.995


def test_bits_survive_packing_and_a_wrong_count_is_refused():
    bits = np.random.default_rng(1).integers(0, 2, 21).astype(np.uint8)
    packed = np.packbits(bits).tobytes()
    assert (unpack(packed, 21) == bits).all()
    assert unpack(packed, 30) is None
    assert unpack(b"", 0) is None
