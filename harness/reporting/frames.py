"""Findings as pandas frames: one row per cell, per run of a row, per claim. For Python and notebooks."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from harness.analysis.findings import CellFinding, ClaimFinding, TableFinding
from harness.study.plan import Claim

if TYPE_CHECKING:
    from pandas import DataFrame

LEVEL = ("n", "diverged", "missing", "missing_reason", "mean", "sd")
EFFECT = (  # fields of `Effect`, in the order of the frame; `effect` is its estimate
    "versus",
    "effect",
    "low",
    "high",
    "adjusted_low",
    "adjusted_high",
    "p",
    "p_holm",
    "verdict",
    "qualifier",
    "fragile",
    "new_images_low",
    "new_images_high",
    "detectable",
    "prob_better",
    "more_seeds",
    "settled_at",
    "exploratory",
    "paper",
    "paper_status",
    "gap",
    "gap_low",
    "gap_high",
    "agreement",
)
TEXTS = frozenset(  # every other column is a number
    {"row", "column", "tricks", "missing_reason", "versus", "verdict", "qualifier", "fragile", "exploratory"}
    | {"paper_status", "agreement"}
)
COUNTS = frozenset({"n", "diverged", "missing", "more_seeds", "settled_at"})
NAMED = {"effect": "estimate"}  # column -> field, where they differ
RENAMED = {"paper": "paper_effect"}  # field -> column, where the name is another cell's


def cells_frame(table: TableFinding, metric: str) -> DataFrame:
    """One row per cell of the table, in reading order.

    Columns: row, column, tricks, n, diverged, missing, missing_reason, mean, sd, mean_low and mean_high (95 %
    t interval of the mean), paper (the printed value of the metric), then those of `EFFECT`. Accuracies are
    in percent and effects in percentage points; absent numbers are NaN, absent texts None.
    """
    import pandas as pd

    frame = pd.DataFrame([_cell(cell, metric) for cell in table.cells])
    return frame.astype({name: _kind(str(name)) for name in frame if name not in TEXTS})


def _kind(column: str) -> str:
    return "Int64" if column in COUNTS else "float64"  # Int64 has a place for "there is none"


def _cell(cell: CellFinding, metric: str) -> dict[str, Any]:
    printed = cell.paper.get(metric)
    row: dict[str, Any] = {"row": cell.row, "column": cell.column, "tricks": ", ".join(cell.tricks)}
    row |= {name: getattr(cell.level, name, None) for name in LEVEL}
    row |= {"mean_low": getattr(cell.level, "low", None), "mean_high": getattr(cell.level, "high", None)}
    row["paper"] = None if printed is None else printed.value
    found = {
        RENAMED.get(name, name): getattr(cell.effect, NAMED.get(name, name), None)
        for name in EFFECT
        if cell.effect is None or hasattr(cell.effect, NAMED.get(name, name))
    }
    return row | found


def seeds_frame(table: TableFinding, metric: str) -> DataFrame:
    """One row per cell and seed: row, column, seed, the metric, and its difference from the compared row.

    `difference` is NaN where the other row has no value for the seed.
    """
    import pandas as pd

    rows = [
        {
            "row": cell.row,
            "column": cell.column,
            "seed": seed,
            metric: value,
            "difference": float("nan") if cell.effect is None else cell.effect.differences.get(seed),
        }
        for cell in table.cells
        if cell.level is not None
        for seed, value in sorted(cell.level.values.items())
    ]
    frame = pd.DataFrame(rows, columns=["row", "column", "seed", metric, "difference"])
    return frame.astype({metric: "float64", "difference": "float64"})


def claims_frame(claims: tuple[ClaimFinding, ...]) -> DataFrame:
    """One row per claim of the paper: the fields of the claim, then those of `ClaimFinding`."""
    import pandas as pd

    said = [each.name for each in fields(Claim) if each.name not in ("column", "versus_column")]
    found = [each.name for each in fields(ClaimFinding) if each.name not in ("claim", "differences")]
    rows = [
        {name: getattr(each.claim, name) for name in said} | {name: getattr(each, name) for name in found}
        for each in claims
    ]
    return pd.DataFrame(rows, columns=[*said, *found])
