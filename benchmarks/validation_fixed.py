"""Fixed designs: coverage, family-wise error, power, equivalence, P(A > B), with the guard as it is."""

from __future__ import annotations

import numpy as np
from scipy import special
from simulated_tables import Setting, null_settings, one_noisy
from targets import Measured

from harness.analysis import calibration, intervals, verdicts
from harness.analysis.intervals import Estimate

ALPHA = 0.05
SEED = 20261122  # not that of the search for the constants of the guard
GAUSSIAN = (  # arms, seeds, seed correlation
    (3, 3, 0.0),
    (3, 5, 0.5),
    (5, 3, 0.7),
    (5, 20, 0.0),
    (9, 3, 0.5),
    (9, 5, 0.0),
    (9, 10, 0.7),
    (13, 3, 0.0),
    (13, 5, 0.5),
    (13, 20, 0.7),
)


def judged(setting: Setting, tables: int) -> calibration.ManyTables:
    """The harness's decision on `tables` simulated tables."""
    values = setting.draw(np.random.default_rng(SEED), tables)
    return calibration.judge_tables(values, setting.pairs, ALPHA, setting.present)


def gaussian_coverage(tables: int) -> list[Measured]:
    """Per row, equal noise: the mean over rows of the coverage of the unadjusted 95 % interval."""
    rows = []
    for arms, seeds, correlation in GAUSSIAN:
        name = f"{arms} arms, {seeds} seeds, correlation {correlation:g}"
        block_sd = float(np.sqrt(correlation / (1.0 - correlation)))
        setting = Setting(name=name, seeds=seeds, sd=(1.0,) * arms, block_sd=block_sd)
        per_table = judged(setting, tables).covered(setting.truth(), ALPHA).mean(axis=1)
        rows.append(
            Measured(
                quantity="coverage, per row",
                setting=name,
                value=float(per_table.mean()),
                se=float(per_table.std() / np.sqrt(tables)),
                low=0.94,
                high=0.97,
                group="equal noise, 3 seeds" if seeds == 3 else "equal noise, 5 to 20 seeds",
            )
        )
    return rows


def null_tables(tables: int) -> list[Measured]:
    """Family-wise error, and coverage of the worst row, in every pattern of variances; no true effect."""
    rows = []
    for setting, coverage in null_settings():
        found = judged(setting, tables)
        error = float(found.rejected(ALPHA).any(axis=1).mean())
        covered = float(found.covered(setting.truth(), ALPHA).mean(axis=0).min())
        seeds = "3 seeds" if setting.seeds == 3 else "4 to 10 seeds"
        where = {"setting": setting.name, "repetitions": tables, "group": f"{setting.kind}, {seeds}"}
        rows.append(Measured(quantity="family-wise error", value=error, high=ALPHA, **where))
        rows.append(Measured(quantity="coverage, worst row", value=covered, low=coverage, **where))
    return rows


def mixed_tables(tables: int) -> list[Measured]:
    """Family-wise error over the true nulls where other rows have large effects (strong control)."""
    rows = []
    for seeds in (3, 5):
        for name, sd in (("equal", (1.0,) * 9), ("reference x2", one_noisy(9, 0, 2.0))):
            effects = (0.0, 6.0, 6.0, -6.0, *[0.0] * 5)
            setting = Setting(name=name, seeds=seeds, sd=sd, effects=effects)
            null = setting.truth() == 0.0
            alarms = judged(setting, tables).rejected(ALPHA)[:, null].any(axis=1)
            rows.append(
                Measured(
                    quantity="family-wise error",
                    setting=f"3 of 8 rows have effects, {seeds} seeds, {name}",
                    value=float(alarms.mean()),
                    repetitions=tables,
                    high=ALPHA,
                    group="3 of 8 rows have effects",
                )
            )
    return rows


def power(tables: int) -> list[Measured]:
    """Of one row of 3 sigma among 8, after Holm."""
    rows = []
    for seeds, least in ((3, None), (5, 0.85), (10, None)):
        setting = Setting(name="", seeds=seeds, sd=(1.0,) * 9, effects=(0.0, 3.0, *[0.0] * 7))
        found = float(judged(setting, tables).rejected(ALPHA)[:, 0].mean())
        name = f"{seeds} seeds, 8 rows"
        rows.append(
            Measured(quantity="power, 3 sigma", setting=name, value=found, repetitions=tables, low=least)
        )
    return rows


def equivalent(tables: int) -> list[Measured]:
    """P(a true effect of exactly the smallest of interest is called "no detectable difference")."""
    rows = []
    noise = (
        ("equal noise", (1.0,) * 9),
        ("baseline x3", one_noisy(9, 0, 3.0)),
        ("a row x3", one_noisy(9, 1, 3.0)),
    )
    for seeds in (3, 5, 10):
        for name, sd in noise:
            for margin in (1.0, 2.0, 4.0, 8.0):
                setting = Setting(name="", seeds=seeds, sd=sd, effects=(0.0, *[margin] * 8))
                called = judged(setting, tables).estimates
                rows.append(
                    Measured(
                        quantity="exact smallest effect called no difference",
                        setting=f"{seeds} seeds, {margin:g} sigma, {name}",
                        value=max(float(intervals.is_equivalent(each, margin).mean()) for each in called),
                        repetitions=tables,
                        high=ALPHA,
                        group="equal noise" if name == "equal noise" else f"unequal noise, {seeds} seeds",
                    )
                )
    return rows


def one_run_beats_another(tables: int) -> list[Measured]:
    """Coverage of the interval of P(A > B); one row's interval of each table is computed."""
    rows = []
    for seeds in (3, 5, 10):
        for name, sd in (("equal", (1.0,) * 9), ("reference x2", one_noisy(9, 0, 2.0))):
            for effect in (0.0, 1.5):
                setting = Setting(name=name, seeds=seeds, sd=sd, effects=(0.0, effect, *[0.0] * 7))
                rows.append(_better_coverage(setting, effect, tables))
    return rows


def _better_coverage(setting: Setting, effect: float, tables: int) -> Measured:
    found = judged(setting, tables)
    truth = effect / float(np.hypot(setting.sd[0], setting.sd[1]))  # on the scale of the normal quantile
    true_p = float(special.ndtr(truth))
    first, spread = found.estimates[0], np.sqrt(found.variances[:, [0, 1]].sum(axis=1))
    hits = 0
    for k in range(tables):
        one = Estimate(value=first.value[k], se=first.se[k], df=first.df[k])
        interval = verdicts.better_interval(one, float(spread[k]))
        hits += interval is not None and interval[0] <= true_p <= interval[1]
    return Measured(
        quantity="coverage of P(A > B)",
        setting=f"{setting.seeds} seeds, {effect:g} sigma, {setting.name}",
        value=hits / tables,
        repetitions=tables,
        low=0.94 if setting.name == "equal" else 0.90 if setting.seeds == 3 else 0.925,
        group=f"{setting.name} noise"
        if setting.name == "equal"
        else f"{setting.name}, {setting.seeds} seeds",
    )
