"""T2: coverage of the effect over new seeds and new images, both random, by per-image bits."""

from __future__ import annotations

import numpy as np
from targets import Measured

from harness.analysis import intervals
from harness.analysis.calibration import judge_tables

SETTINGS = ((3, 3000), (5, 3000), (10, 3000), (3, 10_000), (5, 50_000))  # seeds, images


def new_images_coverage(repetitions: int) -> list[Measured]:
    """Five arms whose true effects are 0 by exchangeability. Fewer repetitions with more images."""
    rows = []
    for seeds, count in SETTINGS:
        times = max(8, round(repetitions * min(1.0, 6000 / count)))
        rng = np.random.default_rng(11)
        hits = np.mean([_covered(rng, seeds, count) for _ in range(times)], axis=0)
        name = f"{seeds} seeds, {count:,} images"
        found = {"setting": name, "repetitions": times}
        rows.append(
            Measured(
                quantity="coverage on new images (T2)", value=float(hits[0]), low=0.94, high=0.97, **found
            )
        )
        rows.append(Measured(quantity="the same by seeds alone (T1)", value=float(hits[1]), **found))
    return rows


def _covered(rng: np.random.Generator, seeds: int, count: int, arms: int = 5) -> tuple[bool, bool]:
    """Whether the intervals of the first row cover its true effect."""
    ease = rng.standard_normal(count, dtype=np.float32) * 2.0 + 2.0
    taste = rng.standard_normal((arms, 1, count), dtype=np.float32)
    luck = rng.standard_normal((arms, seeds, 1), dtype=np.float32) * 0.03
    chance = 1.0 / (1.0 + np.exp(-(ease + taste + luck)))
    right = rng.random((arms, seeds, count), dtype=np.float32) < chance
    table = 100.0 * right.mean(axis=2)[None]
    found = judge_tables(table, [(arm, 0) for arm in range(1, arms)], 0.05)
    estimate = intervals.Estimate(**{k: getattr(found.estimates[0], k)[0] for k in ("value", "se", "df")})
    ms = intervals.mean_squares(right[1].astype(np.int8) - right[0].astype(np.int8))
    width = intervals.new_images_half_width(estimate, ms, 0.05)
    seeds_only = float(intervals.half_width(estimate, 0.05))
    return bool(abs(estimate.value) <= width), bool(abs(estimate.value) <= seeds_only)
