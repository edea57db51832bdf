"""The simulated tables of `validate_statistics.py`: how noisy, how large, what is compared with what."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.intervals import Floats


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Simulated tables: noise per arm, true effects, which runs are missing, what is compared with what."""

    name: str
    seeds: int
    sd: tuple[float, ...]  # one per arm; the first arm is the reference of a star
    effects: tuple[float, ...] = ()  # () : all null
    chain: bool = False  # each row against the one above instead of all against the first
    noise: str = "normal"  # normal | t3 | exponential, all with unit variance
    block_sd: float = 0.0  # of the seed's own effect
    missing: tuple[tuple[int, int], ...] = ()  # (arm, seed)

    @property
    def kind(self) -> str:
        """Equal or unequal noise, or what else is special about it."""
        if self.noise != "normal":
            return f"{self.noise} noise"
        if self.missing:
            return "runs missing"
        return "equal noise" if len(set(self.sd)) == 1 else "unequal noise"

    @property
    def present(self) -> NDArray[np.bool_]:
        """(A, S) which runs there are."""
        mask = np.ones((len(self.sd), self.seeds), dtype=bool)
        for arm, seed in self.missing:
            mask[arm, seed] = False
        return mask

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return [(arm, arm - 1 if self.chain else 0) for arm in range(1, len(self.sd))]

    def truth(self) -> Floats:
        effects = np.zeros(len(self.sd)) if not self.effects else np.asarray(self.effects)
        return np.array([effects[arm] - effects[versus] for arm, versus in self.pairs])

    def draw(self, rng: np.random.Generator, tables: int) -> Floats:
        """(R, A, S) values."""
        shape = (tables, len(self.sd), self.seeds)
        if self.noise == "normal":
            errors = rng.standard_normal(shape)
        elif self.noise == "t3":
            errors = rng.standard_t(3, shape) / math.sqrt(3.0)
        else:
            errors = rng.exponential(size=shape) - 1.0
        values = errors * np.asarray(self.sd)[:, None]
        values += self.block_sd * rng.standard_normal((tables, 1, self.seeds))
        return values + (np.asarray(self.effects)[:, None] if self.effects else 0.0)


def null_settings() -> Iterator[tuple[Setting, float]]:
    """Settings without a true effect, each with the least coverage that its worst row may have."""
    for seeds in (3, 5, 10):
        yield from nine_arms(seeds)
    for arms, seeds in ((3, 3), (4, 3), (13, 3), (3, 5)):
        for chain in (False, True):
            kind = "chain, one arm x3" if chain else "reference x3"
            name = f"{arms} arms, {seeds} seeds, {kind}"
            sd = one_noisy(arms, arms // 2 if chain else 0, 3.0)
            yield Setting(name=name, seeds=seeds, sd=sd, chain=chain), noisy_coverage(seeds)
    for seeds in (3, 4, 5, 8):
        yield from other_patterns(seeds)
    missing = ((0, 3), (2, 0), (5, 1))
    yield Setting(name="9 arms, 4 seeds, 3 runs missing", seeds=4, sd=(1.0,) * 9, missing=missing), 0.94


def nine_arms(seeds: int) -> Iterator[tuple[Setting, float]]:
    """A baseline and eight rows: equal and unequal noise, seed effects, skew and heavy tails."""
    equal, title, noisy = (1.0,) * 9, f"9 arms, {seeds} seeds", noisy_coverage(seeds)
    yield Setting(name=f"{title}, equal sd", seeds=seeds, sd=equal), 0.94
    yield Setting(name=f"{title}, seed correlation .5", seeds=seeds, sd=equal, block_sd=1.0), 0.94
    for times in (2.0, 3.0, 4.0):
        yield Setting(name=f"{title}, reference x{times:g}", seeds=seeds, sd=one_noisy(9, 0, times)), noisy
    yield Setting(name=f"{title}, one row x3", seeds=seeds, sd=one_noisy(9, 1, 3.0)), noisy
    for times in (10.0, 100.0):  # a collapsed recipe
        yield Setting(name=f"{title}, one row x{times:g}", seeds=seeds, sd=one_noisy(9, 1, times)), noisy
    yield Setting(name=f"{title}, two rows x100", seeds=seeds, sd=(1.0, 100.0, 100.0, *[1.0] * 6)), noisy
    yield Setting(name=f"{title}, two rows x3", seeds=seeds, sd=(1.0, 3.0, 3.0, *[1.0] * 6)), noisy
    middle, mild = one_noisy(9, 4, 3.0), tuple(np.linspace(0.5, 1.5, 9))
    yield Setting(name=f"{title}, chain, one arm x3", seeds=seeds, sd=middle, chain=True), noisy
    yield Setting(name=f"{title}, chain, sd .5 to 1.5", seeds=seeds, sd=mild, chain=True), noisy
    yield Setting(name=f"{title}, exponential noise", seeds=seeds, sd=equal, noise="exponential"), 0.87
    yield Setting(name=f"{title}, t3 noise", seeds=seeds, sd=equal, noise="t3"), 0.94


def other_patterns(seeds: int) -> Iterator[tuple[Setting, float]]:
    """Patterns that the guard's constants were chosen with, beside those of `nine_arms`."""
    noisy = noisy_coverage(seeds)
    for times in (1.5, 2.5):
        sd = one_noisy(9, 0, times)
        yield Setting(name=f"9 arms, {seeds} seeds, reference x{times:g}", seeds=seeds, sd=sd), noisy
    sd = one_noisy(5, 0, 2.0)
    yield Setting(name=f"5 arms, {seeds} seeds, reference x2", seeds=seeds, sd=sd), noisy
    sd = ((1.0, 2.0) * 5)[:9]
    yield Setting(name=f"9 arms, {seeds} seeds, four rows x2", seeds=seeds, sd=sd), noisy
    sd = ((2.0, 1.0) * 5)[:9]
    yield Setting(name=f"9 arms, {seeds} seeds, reference and four rows x2", seeds=seeds, sd=sd), noisy
    sd = one_noisy(6, 3, 2.0)
    yield Setting(name=f"6 arms, {seeds} seeds, chain, one arm x2", seeds=seeds, sd=sd, chain=True), noisy


def one_noisy(arms: int, which: int, times: float) -> tuple[float, ...]:
    """Standard deviations of 1 but for one arm."""
    return tuple(times if arm == which else 1.0 for arm in range(arms))


def noisy_coverage(seeds: int) -> float:
    """The protocol's target for the worst row where arms are unequally noisy."""
    return 0.90 if seeds == 3 else 0.925
