"""What benchmarks/simulated_games.py measures, small and seeded: accuracy and coverage of credits."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from simulated_games import Games, credit_coverage, credit_rmse

MONTE_CARLO = 2 * (0.05 * 0.95 / 3000) ** 0.5  # two standard errors of an error rate of 5 % in 3000 tables


def test_short_designs_recover_the_credit_within_the_target():
    """Six tricks; interactions of three with sd .08 pp: at most .06 pp away, a stack .2 pp."""
    pairs = credit_rmse(Games(), games=200)
    assert max(pairs[name] for name in ("both_ends", "both_ways", "fractional")) < 1e-12
    triples = credit_rmse(Games(triple_sd=0.08), games=400)
    assert triples["both_ends"] == pytest.approx(0.030, abs=0.004)
    assert triples["mean of the ends"] == pytest.approx(0.042, abs=0.005)
    assert triples["both_ways"] == pytest.approx(0.059, abs=0.006)
    assert max(triples[name] for name in ("both_ends", "both_ways", "fractional")) < 0.065
    assert min(triples[name] for name in ("stack", "add_one_in", "leave_one_out")) > 0.15


@pytest.mark.parametrize("design", ["both_ends", "both_ways", "factorial", "fractional"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_and_errors_stay_below_five_percent(design, seeds):
    tricks = 5 if design == "fractional" else 4
    found = credit_coverage(design, tricks, seeds, tables=3000)
    assert found.worst > 0.94 - MONTE_CARLO
    assert found.mean < 0.975 + MONTE_CARLO
    assert found.family_wise <= 0.05 + MONTE_CARLO


@pytest.mark.parametrize("design", ["both_ends", "both_ways", "factorial"])
@pytest.mark.parametrize("arm", [0, 1])
def test_one_arm_three_times_as_noisy_keeps_the_error(design, arm):
    found = credit_coverage(design, 4, 3, sd={arm: 3.0}, tables=3000)
    assert found.family_wise <= 0.05 + MONTE_CARLO
    assert found.worst > 0.90
