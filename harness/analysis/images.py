"""The second question (T2): would the effect hold on new test images too, not only on re-training?

Seeds and images are crossed random effects, as readers and cases are in radiology (multi-reader
multi-case analysis; Gallas, Academic Radiology 13, 2006). Mean squares of the two-way table of
d_is = correct(row, image i, seed s) - correct(versus, i, s), a number in {-1, 0, 1}.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.intervals import Estimate, half_width

Differences = NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanSquares:
    """The two-way analysis of variance of d (S, N), in squared fractions of an image."""

    mean: float
    images: float
    seeds: float
    residual: float
    n_seeds: int
    n_images: int


def unpack(predictions: bytes, test_images: int) -> NDArray[np.uint8] | None:
    """The (N,) bits of one run, or None where their number does not fit the number of test images."""
    packed = np.frombuffer(predictions, dtype=np.uint8)
    if test_images < 1 or packed.size != -(-test_images // 8):
        return None
    return np.unpackbits(packed, count=test_images)


def mean_squares(differences: Differences) -> MeanSquares:
    """Mean squares of `differences` (S >= 2 seeds, N >= 2 images)."""
    seeds, images = differences.shape
    by_image, by_seed = (differences.sum(axis=axis, dtype=np.int64) for axis in (0, 1))  # exact sums
    total = float(np.count_nonzero(differences))  # the squares of -1, 0 and 1
    grand = float(by_seed.sum()) ** 2 / (seeds * images)
    over_images = float((by_image**2).sum()) / seeds - grand
    over_seeds = float((by_seed**2).sum()) / images - grand
    left = max(total - grand - over_images - over_seeds, 0.0)
    return MeanSquares(
        mean=float(by_seed.sum()) / (seeds * images),
        images=over_images / (images - 1),
        seeds=over_seeds / (seeds - 1),
        residual=left / ((images - 1) * (seeds - 1)),
        n_seeds=seeds,
        n_images=images,
    )


def crossed(ms: MeanSquares) -> Estimate:
    """The mean of d over new seeds and new images, from these mean squares alone, as a fraction.

    Var = max(MS_images + MS_seeds - MS_residual, MS_images) / (N S), with Satterthwaite's df
    (MS_images + g)^2 / (g^2 / (S - 1) + MS_images^2 / (N - 1)), g = max(MS_seeds - MS_residual, 0).
    """
    extra = max(ms.seeds - ms.residual, 0.0)
    variance = (ms.images + extra) / (ms.n_images * ms.n_seeds)
    below = extra**2 / (ms.n_seeds - 1) + ms.images**2 / (ms.n_images - 1)
    df = (ms.images + extra) ** 2 / below if below else ms.n_seeds - 1.0
    return Estimate(value=np.asarray(ms.mean), se=np.asarray(np.sqrt(variance)), df=np.asarray(df))


def with_images(over_training: Estimate, ms: MeanSquares) -> Estimate:
    """A contrast in percentage points over re-training (T1), taken to new test images too (T2).

    `crossed` with its seed part MS_seeds / (N S), which has only S - 1 df, replaced by the squared standard
    error of the block fit, which has those of the whole table: Var = max(se^2 + 100^2 (MS_images -
    MS_residual) / (N S), 100^2 MS_images / (N S), se^2), with Satterthwaite's df.
    """
    scale = 100.0**2 / (ms.n_images * ms.n_seeds)
    seeds = float(over_training.se) ** 2
    images = max((ms.images - ms.residual) * scale, ms.images * scale - seeds, 0.0)
    parts = seeds**2 / float(over_training.df) + images**2 / (ms.n_images - 1)
    df = (seeds + images) ** 2 / parts if parts else float(over_training.df)
    return Estimate(value=over_training.value, se=np.asarray(np.sqrt(seeds + images)), df=np.asarray(df))


def new_images_half_width(over_training: Estimate, ms: MeanSquares, alpha: float) -> float:
    """Half the 1 - alpha interval for T2, in percentage points.

    Never below that for T1: T2 asks for more, and at 1 or 2 degrees of freedom the image part would
    otherwise shorten the interval by adding degrees of freedom.
    """
    wide = with_images(over_training, ms)
    return max(float(half_width(wide, alpha)), float(half_width(over_training, alpha)))
