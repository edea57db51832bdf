"""Measure the error rates of the harness's own statistics on simulated tables, beside their targets.

    python benchmarks/validate_statistics.py           about a minute on 2 cores
    python benchmarks/validate_statistics.py --quick   seconds, with wider Monte-Carlo error

Every number printed is computed here by the functions that make the verdicts. Accuracies are in units of the
seed standard deviation (sigma). Exits with 1 if a target is missed by more than 2
Monte-Carlo standard errors.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from simulated_tables import Setting, null_settings

from harness.analysis.blockfit import BlockDesign, fit
from harness.analysis.equivalence import is_equivalent
from harness.analysis.guard import LEAST, contrast, guard, thresholds
from harness.analysis.images import crossed, mean_squares, new_images_half_width
from harness.analysis.intervals import Estimate, Floats, half_width, holm, p_value, welch

ALPHA = 0.05
PAIRED_T, WELCH, PLAIN_GUARD, HARNESS = "paired t", "Welch", "guard .10", "harness"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What was measured over R tables."""

    family_error: float | None  # at least one true null rejected; None without a true null
    worst_coverage: float  # of the unadjusted 95 % intervals, the worst row
    power: float | None  # of the first row with an effect, after Holm


def measure(setting: Setting, tables: int, method: str = HARNESS) -> Rates:
    """Simulate `tables` tables and analyse each with `method`."""
    values = setting.draw(np.random.default_rng(20260101), tables)
    estimates = (
        _harness(setting, values, method)
        if method in (HARNESS, PLAIN_GUARD)
        else _pairwise(setting, values, method)
    )
    truth = setting.truth()
    rejected = holm(np.stack([p_value(e) for e in estimates], axis=-1), ALPHA).p <= ALPHA
    covered = [
        float((np.abs(e.value - true) <= half_width(e, 0.05)).mean())
        for e, true in zip(estimates, truth, strict=True)
    ]
    null = truth == 0
    return Rates(
        family_error=float(rejected[:, null].any(axis=1).mean()) if null.any() else None,
        worst_coverage=min(covered),
        power=float(rejected[:, ~null][:, 0].mean()) if (~null).any() else None,
    )


def _harness(setting: Setting, values: Floats, method: str) -> list[Estimate]:
    mask = np.ones(values.shape[1:], dtype=bool)
    for arm, seed in setting.missing:
        mask[arm, seed] = False
    fitted = fit(BlockDesign.of(mask), values)
    threshold = thresholds(fitted.own_df, setting.pairs)
    if method == PLAIN_GUARD:
        threshold = np.full_like(threshold, LEAST)
    guarded = guard(fitted, threshold)
    estimates = [contrast(fitted, guarded, *pair) for pair in setting.pairs]
    return [estimate for estimate in estimates if estimate is not None]


def _pairwise(setting: Setting, values: Floats, method: str) -> list[Estimate]:
    out = []
    for arm, versus in setting.pairs:
        one, other = values[:, arm], values[:, versus]
        if method == PAIRED_T:
            d, n = one - other, one.shape[1]
            out.append(
                Estimate(value=d.mean(1), se=d.std(1, ddof=1) / math.sqrt(n), df=np.full(len(d), n - 1.0))
            )
            continue
        singles = [welch(a, b) for a, b in zip(one, other, strict=True)]
        out.append(Estimate(**{k: np.array([getattr(s, k) for s in singles]) for k in ("value", "se", "df")}))
    return out


class Table:
    """Prints rows as they are measured and remembers which targets were missed."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def row(self, name: str, cells: Sequence[str]) -> None:
        print(f"{name:<52}" + "".join(f"{cell:>26}" for cell in cells), flush=True)

    def at_most(self, name: str, rate: float, target: float, repetitions: int) -> str:
        slack = 2.0 * math.sqrt(target * (1.0 - target) / repetitions)
        return self._cell(name, rate, f"<={target:.3f}", rate <= target + slack)

    def at_least(self, name: str, rate: float, target: float, repetitions: int) -> str:
        slack = 2.0 * math.sqrt(target * (1.0 - target) / repetitions)
        return self._cell(name, rate, f">={target:.3f}", rate >= target - slack)

    def _cell(self, name: str, rate: float, target: str, good: bool) -> str:
        if not good:
            self.missed.append(f"{name}: {rate:.4f}, target {target}")
        return f"{rate:.4f} ({target}{'' if good else ' MISSED'})"


def validate_nulls(table: Table, tables: int) -> None:
    table.row("global null", ["FWER (Holm)", "worst-row 95 % coverage", "FWER, guard .10 for all"])
    for setting, coverage in null_settings():
        rates, plain = measure(setting, tables), measure(setting, tables, PLAIN_GUARD)
        assert rates.family_error is not None
        table.row(
            setting.name,
            [
                table.at_most(f"FWER, {setting.name}", rates.family_error, ALPHA, tables),
                table.at_least(f"coverage, {setting.name}", rates.worst_coverage, coverage, tables),
                f"{plain.family_error:.4f}",
            ],
        )


def validate_power(table: Table, tables: int) -> None:
    table.row("\npower of one row of 3 sigma among 8", ["harness", "guard .10 for all", "Welch / paired t"])
    for seeds, chain in ((3, False), (5, False), (10, False), (3, True), (5, True)):
        effects = tuple(float(arm >= 4) * 3.0 for arm in range(9)) if chain else (0.0, 3.0, *[0.0] * 7)
        kind = "chain" if chain else "against one reference"
        setting = Setting(
            name=f"{seeds} seeds, {kind}", seeds=seeds, sd=(1.0,) * 9, effects=effects, chain=chain
        )
        powers = [measure(setting, tables, method).power for method in (HARNESS, PLAIN_GUARD)]
        few = min(tables, 1000)
        singles = [measure(setting, few, method).power for method in (WELCH, PAIRED_T)]
        table.row(
            setting.name, [f"{powers[0]:.3f}", f"{powers[1]:.3f}", f"{singles[0]:.3f} / {singles[1]:.3f}"]
        )


def validate_equivalence(table: Table, tables: int) -> None:
    """P(a true effect of exactly the margin is called "no detectable difference"), worst margin and row."""
    table.row("\ntrue effect of exactly delta called no difference", ["worst over delta, row"])
    for seeds in (3, 5, 10):
        worst = 0.0
        for margin in (1.0, 2.0, 4.0):
            effects = (0.0, *[margin] * 8)
            setting = Setting(name="", seeds=seeds, sd=(1.0,) * 9, effects=effects)
            values = setting.draw(np.random.default_rng(7), tables)
            rates = [float(is_equivalent(e, margin).mean()) for e in _harness(setting, values, HARNESS)]
            worst = max(worst, *rates)
        table.row(f"{seeds} seeds", [table.at_most(f"TOST, {seeds} seeds", worst, 0.05, tables)])


def validate_images(table: Table, repetitions: int) -> None:
    """Coverage of the effect over new seeds and new images, both random, by per-image bits (2,000 images)."""
    table.row(
        "\neffect on new images too (T2), 5 arms", ["harness", "MRMC, one pair alone", "seeds only (T1)"]
    )
    for seeds in (3, 5, 10):
        hits = np.zeros(3)
        rng = np.random.default_rng(11)
        for _ in range(repetitions):
            hits += _image_table(rng, seeds)
        rates = hits / repetitions
        target = table.at_least(f"T2, {seeds} seeds", float(rates[0]), 0.94, repetitions)
        table.row(f"{seeds} seeds", [target, f"{rates[1]:.3f}", f"{rates[2]:.3f}"])


def _image_table(rng: np.random.Generator, seeds: int, arms: int = 5, images: int = 2000) -> Floats:
    """Whether three intervals for the first row cover its true effect, which is 0 by exchangeability."""
    ease = rng.normal(2.0, 2.0, images)
    logits = ease + rng.normal(0.0, 1.0, (arms, 1, images)) + rng.normal(0.0, 0.03, (arms, seeds, 1))
    right = rng.random((arms, seeds, images)) < 1.0 / (1.0 + np.exp(-logits))
    fitted = fit(BlockDesign.of(np.ones((arms, seeds))), 100.0 * right.mean(axis=2))
    guarded = guard(fitted, thresholds(fitted.own_df, [(arm, 0) for arm in range(1, arms)]))
    estimate = contrast(fitted, guarded, 1, 0)
    assert estimate is not None
    ms = mean_squares(right[1].astype(np.int8) - right[0].astype(np.int8))
    pair = crossed(ms)
    return np.array(
        [
            abs(estimate.value) <= new_images_half_width(estimate, ms, 0.05),
            abs(pair.value) <= half_width(pair, 0.05),
            abs(estimate.value) <= half_width(estimate, 0.05),
        ],
        dtype=float,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="10 times fewer repetitions")
    quick = parser.parse_args().quick
    tables, repetitions = (2000, 100) if quick else (20000, 600)
    started = time.perf_counter()
    table = Table()
    print(f"{tables:,} tables per setting, alpha {ALPHA}; in brackets: the target\n")
    validate_nulls(table, tables)
    validate_power(table, tables)
    validate_equivalence(table, tables)
    validate_images(table, repetitions)
    print(f"\n{time.perf_counter() - started:.0f} s")
    print("\n".join(["", "missed targets:", *table.missed]) if table.missed else "every target met")
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
