"""Order-free credit: distance from the true Shapley values, and the intervals of the credits."""

from __future__ import annotations

from simulated_games import Games, credit_coverage, credit_rmse
from targets import Measured

THREE_WAY = 0.1  # sd of interactions of three tricks, in percentage points
TARGETS = {"both_ends": 0.06, "fractional": 0.06}  # the defaults; the others are shown for comparison
NOISY = {0: 3.0}  # the baseline, three times as noisy


def credit(repetitions: int) -> list[Measured]:
    """Six tricks."""
    return [*_distance(repetitions), *_intervals(repetitions)]


def _distance(games: int) -> list[Measured]:
    rows = []
    for triple_sd, text in ((0.0, "pairs of tricks interact"), (THREE_WAY, "threes interact too")):
        for design, value in credit_rmse(Games(triple_sd=triple_sd), games).items():
            least = TARGETS.get(design)
            name = f"{design}, {text}"
            rows.append(Measured(quantity="credit RMSE, pp", setting=name, value=value, high=least))
    return rows


def _intervals(tables: int) -> list[Measured]:
    rows = []
    for design in ("both_ends", "fractional"):
        for seeds in (3, 5):
            for text, sd in (("equal noise", {}), ("baseline x3", NOISY)):
                found = credit_coverage(design, 6, seeds, sd=sd, tables=tables)
                name = f"{design}, {seeds} seeds, {text}"
                where = {"setting": name, "repetitions": tables, "group": f"credit, {text}"}
                low = 0.94 if not sd else 0.90 if seeds == 3 else 0.925
                rows.append(
                    Measured(quantity="coverage of credit, worst trick", value=found.worst, low=low, **where)
                )
                rows.append(
                    Measured(
                        quantity="family-wise error of credit", value=found.family_wise, high=0.05, **where
                    )
                )
    return rows
