"""Measure the error rates of the harness's own statistics on simulated tables, beside their targets.

    python benchmarks/validate_statistics.py           2 to 4 minutes on 2 quiet cores
    python benchmarks/validate_statistics.py --quick   seconds, with wider Monte-Carlo error
    python benchmarks/validate_statistics.py --all     every setting, not only the worst of each kind

Every number printed is computed here by the functions that make the verdicts. Accuracies are in units of the
seed standard deviation (sigma). A target is missed where the rate is more than 2 Monte-Carlo standard errors
beyond it. Exits with 1 if one is missed that `KNOWN_MISSES` does not explain.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import validation_competence
import validation_credit
import validation_fixed
import validation_images
import validation_sequential
from targets import Known, Measured, Misses, explained, print_table, worst_of_each_group

_TOST = "exact smallest effect called no difference"
_NOISY = (
    "the interval of a row with a noisy side covers less than it says where the noise goes unnoticed "
    "(coverage targets .90 and .925), and so do its two one-sided tests; a guard that closes this costs "
    "the power of every row"
)
_WIDE = (
    "too wide, not too short: the interval for new images is never made shorter than the one for new seeds, "
    "which 3 seeds make wide already"
)
KNOWN_MISSES: Misses = {
    ("coverage on new images (T2)", "3 seeds"): Known(why=_WIDE, limit=0.985),
    (_TOST, "unequal noise, 3 seeds"): Known(why=_NOISY, limit=0.065),
    (_TOST, "unequal noise, 5 seeds"): Known(why=_NOISY, limit=0.058),
}

WORKERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Some rows of the table."""

    name: str
    measure: Callable[[int], list[Measured]]
    repetitions: int
    quick: int  # repetitions of the quick validation


CHECKS = (
    Check(name="nulls", measure=validation_fixed.null_tables, repetitions=20_000, quick=1000),
    *(
        Check(
            name=f"adaptive: {scenario.name}",
            measure=partial(validation_sequential.adaptive, scenario),
            repetitions=1000,
            quick=6,
        )
        for scenario in validation_sequential.SCENARIOS
    ),
    Check(name="unequal", measure=validation_sequential.unequal_noise, repetitions=20_000, quick=400),
    Check(name="images", measure=validation_images.new_images_coverage, repetitions=1500, quick=60),
    Check(name="better", measure=validation_fixed.one_run_beats_another, repetitions=5000, quick=150),
    Check(name="credit", measure=validation_credit.credit, repetitions=10_000, quick=400),
    Check(name="coverage", measure=validation_fixed.gaussian_coverage, repetitions=10_000, quick=1000),
    Check(name="mixed", measure=validation_fixed.mixed_tables, repetitions=20_000, quick=2000),
    Check(name="power", measure=validation_fixed.power, repetitions=20_000, quick=2000),
    Check(name="equivalence", measure=validation_fixed.equivalent, repetitions=20_000, quick=1000),
    Check(name="certificates", measure=validation_competence.false_certificates, repetitions=100, quick=8),
    Check(name="lost verdicts", measure=validation_competence.verdicts_lost, repetitions=80, quick=6),
    Check(name="claims", measure=validation_competence.answers_to_claims, repetitions=200, quick=12),
    Check(name="naive", measure=validation_sequential.naive_peeking, repetitions=4000, quick=400),
)


def missed_targets(names: Iterable[str] = (), *, quick: bool = True) -> list[Measured]:
    """The rows of some checks (by default all) whose targets are missed and not known to be."""
    chosen = [check for check in CHECKS if not names or check.name in names]
    return _unexplained(
        row for check in chosen for row in check.measure(check.quick if quick else check.repetitions)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: seconds")
    parser.add_argument("--all", action="store_true", help="every setting, not only the worst of each kind")
    args = parser.parse_args()
    started = time.perf_counter()
    with ProcessPoolExecutor(WORKERS) as pool:
        found = list(pool.map(partial(_run, args.quick), range(len(CHECKS))))
    rows = [row for measured in found for row in measured]
    print_table(rows if args.all else worst_of_each_group(rows), KNOWN_MISSES)
    missed = _unexplained(rows)
    print(f"\n{len(rows)} settings in {time.perf_counter() - started:.0f} s; {len(missed)} targets missed")
    for (quantity, setting), known in KNOWN_MISSES.items():
        print(f"known: {quantity}, {setting}: up to {known.limit:g}; {known.why}")
    return 1 if missed else 0


def _run(quick: bool, place: int) -> list[Measured]:
    check = CHECKS[place]
    return check.measure(check.quick if quick else check.repetitions)


def _unexplained(rows: Iterable[Measured]) -> list[Measured]:
    return [row for row in rows if not row.met and not explained(row, KNOWN_MISSES)]


if __name__ == "__main__":
    sys.exit(main())
