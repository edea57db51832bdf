"""Adaptive designs: error over all looks, coverage at the stop, runs saved; and what naive peeking does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from simulated_tables import one_noisy
from targets import Measured

from harness.analysis import calibration, intervals, looks
from harness.analysis.findings import HELPS, HURTS, Settings
from harness.analysis.intervals import Floats

LONG, SHORT = (3, 5, 8, 12, 20), (3, 5, 7, 10)
EQUAL = (1.0,) * 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Eight rows against a baseline; effects and noise in sigma."""

    name: str
    looks: tuple[int, ...]
    smallest_effect: float
    effects: tuple[float, ...] = (0.0,) * 8
    sd: tuple[float, ...] = EQUAL
    saves: float | None = None  # least share of the runs of a fixed design with as many seeds


TYPICAL = Scenario(
    name="typical (0, .5, 1, 2, 3, 4, 6, -2 sigma), to 20",
    looks=LONG,
    smallest_effect=1.33,
    effects=(0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, -2.0),
    saves=0.45,
)
SCENARIOS = (
    TYPICAL,
    Scenario(
        name="hard mix (3 nulls, .33, .67, 1.33, 2.67, -2), to 20",
        looks=LONG,
        smallest_effect=1.33,
        effects=(0.0, 0.0, 0.0, 0.33, 0.67, 1.33, 2.67, -2.0),
    ),
    Scenario(name="no effects, looks 3 5 8 12 20", looks=LONG, smallest_effect=1.33),
    Scenario(name="no effects, looks 3 5 7 10", looks=SHORT, smallest_effect=2.0),
)
NOISE = (  # who is noisier, standard deviations
    ("equal noise", EQUAL),
    ("baseline x1.5", one_noisy(9, 0, 1.5)),
    ("baseline x2", one_noisy(9, 0, 2.0)),
    ("baseline x3", one_noisy(9, 0, 3.0)),
    ("one row x3", one_noisy(9, 1, 3.0)),
    ("one row x10", one_noisy(9, 1, 10.0)),
    ("one row x100", one_noisy(9, 1, 100.0)),
    ("baseline and four rows x2", ((2.0, 1.0) * 5)[:9]),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What R simulated studies of m rows ended with."""

    alarms: Floats  # (R, m) said to help or hurt
    covered: Floats  # (R, m) the repeated interval at the last look holds the true effect
    runs: Floats  # (R,) trained
    fixed_runs: int  # of a fixed design with the last look's seeds


def simulate(scenario: Scenario, studies: int, seed: int = 5) -> Ends:
    """Run adaptive studies to their ends with `looks.settle`."""
    rng = np.random.default_rng(seed)
    settings = Settings(looks=scenario.looks, smallest_effect_pp=scenario.smallest_effect)
    arms, rows = len(scenario.sd), len(scenario.effects)
    pairs = [(arm, 0) for arm in range(1, arms)]
    alarms, covered, runs = np.zeros((studies, rows)), np.zeros((studies, rows)), np.zeros(studies)
    for k in range(studies):
        values = rng.standard_normal((arms, scenario.looks[-1])) * np.array(scenario.sd)[:, None]
        values[1:] += np.array(scenario.effects)[:, None]
        ends = looks.settle(values, pairs, settings)
        runs[k] = sum(end.seeds for end in ends) + max(end.seeds for end in ends)
        for row, (end, effect) in enumerate(zip(ends, scenario.effects, strict=True)):
            alarms[k, row] = end.word in (HELPS, HURTS)
            interval = end.interval
            covered[k, row] = interval is not None and interval[0] <= effect <= interval[1]
    return Ends(alarms=alarms, covered=covered, runs=runs, fixed_runs=arms * scenario.looks[-1])


def adaptive(scenario: Scenario, studies: int) -> list[Measured]:
    """Family-wise error, coverage at the stop (worst row) and runs saved."""
    ends = simulate(scenario, studies)
    null = np.array(scenario.effects) == 0.0
    saved = 1.0 - ends.runs / ends.fixed_runs
    error = float(ends.alarms[:, null].any(axis=1).mean())
    where = {"setting": scenario.name, "repetitions": studies}
    coverage = float(ends.covered.mean(axis=0).min())
    return [
        Measured(quantity="family-wise error, adaptive", value=error, high=0.05, **where),
        Measured(quantity="coverage at the stop, worst row", value=coverage, low=0.95, **where),
        Measured(
            quantity="runs saved",
            setting=scenario.name,
            value=float(saved.mean()),
            se=float(saved.std() / np.sqrt(studies)),
            low=scenario.saves,
        ),
    ]


def first_alarms(values: Floats, steps: tuple[int, ...]) -> NDArray[np.bool_]:
    """(R,) whether some row of R null tables (R, A, S) is said to help or hurt at some look.

    The decision of `looks.settle` where the smallest effect is so small that no row stops as "no detectable
    difference": the most looks that a table can have. A test compares the two table by table.
    """
    pairs = [(arm, 0) for arm in range(1, values.shape[1])]
    levels = intervals.nominal_levels(0.05 / len(pairs), steps)
    ever = np.zeros(len(values), dtype=bool)
    for seeds, level in zip(steps, levels, strict=True):
        found = calibration.judge_tables(values[:, :, :seeds], pairs, 0.05, several_looks=True)
        p = np.stack([intervals.p_value(estimate) for estimate in found.estimates], axis=-1)
        ever |= (p <= level).any(axis=1)
    return ever


def unequal_noise(tables: int) -> list[Measured]:
    """Family-wise error over all looks, no effects, whoever is noisier."""
    rows = []
    for steps in (LONG, SHORT):
        for name, sd in NOISE:
            values = np.random.default_rng(31).standard_normal((tables, len(sd), steps[-1]))
            alarms = first_alarms(values * np.array(sd)[:, None], steps)
            rows.append(
                Measured(
                    quantity="family-wise error, adaptive",
                    setting=f"no effects, looks {' '.join(map(str, steps))}, {name}",
                    value=float(alarms.mean()),
                    repetitions=tables,
                    high=0.05,
                    group=f"no effects, looks {' '.join(map(str, steps))}, equal or unequal noise",
                )
            )
    return rows


def naive_peeking(tables: int) -> list[Measured]:
    """The usual practice, for contrast: stop at the first look at which any row has p < .05."""
    rows = []
    for steps in (LONG, SHORT):
        rng = np.random.default_rng(7)
        values = rng.standard_normal((tables, 9, steps[-1]))
        pairs = [(arm, 0) for arm in range(1, 9)]
        ever = np.zeros(tables, dtype=bool)
        for seeds in steps:
            found = calibration.judge_tables(values[:, :, :seeds], pairs, 0.05)
            p = np.stack([intervals.p_value(estimate) for estimate in found.estimates], axis=-1)
            ever |= (p < 0.05).any(axis=1)
        name = f"no effects, looks {' '.join(map(str, steps))}, 8 rows"
        rows.append(
            Measured(
                quantity="any false alarm with naive peeking",
                setting=name,
                value=float(ever.mean()),
                repetitions=tables,
            )
        )
    return rows
