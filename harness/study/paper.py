"""The printed values of a row: numbers, each marked `verified` or `memory`.

top1 and top5 are accuracies in percent, which the analysis reads. The others are carried along and shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.study.drafts import Row
from harness.study.plan import PaperValue
from harness.study.problems import Location, ProblemList, unknown

METRICS = ("top1", "top5")  # accuracy in percent
SHOWN = {  # positive numbers -> what they are, as a heading
    "top1_std": "std of top-1, points",
    "params_m": "parameters, millions",
    "gflops": "multiply-adds, billions",
    "cost": "cost relative to the first row",
    "cost_bn_ops": "multiply-adds, billions, as the paper counts them",
    "epoch_minutes": "minutes per epoch",
    "steps_to_target_m": "steps to the target, millions",
}
STATUSES = ("verified", "memory")


def paper_values(
    row: Row, columns: tuple[str | None, ...], at: Location, problems: ProblemList
) -> dict[str | None, dict[str, PaperValue]]:
    """Column -> metric -> value. `at` is where the row's printed values are in the file."""
    if columns == (None,):
        return {None: _cell(row.paper, at, problems)} if row.paper else {}
    found: dict[str | None, dict[str, PaperValue]] = {}
    for column, cell in row.paper.items():
        if column not in columns:
            problems.add((*at, column), unknown("column", str(column), [str(name) for name in columns]))
        elif not isinstance(cell, Mapping):
            problems.add((*at, column), f"expected {{top1: ..., status: ...}}, got {cell!r}")
        else:
            found[column] = _cell(cell, (*at, column), problems)
    return found


def _cell(cell: Mapping[str, Any], at: Location, problems: ProblemList) -> dict[str, PaperValue]:
    status = cell.get("status")
    values: dict[str, PaperValue] = {}
    for metric, value in cell.items():
        if metric == "status" or value is None:  # null: not printed
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if metric not in METRICS and metric not in SHOWN:
            problems.add((*at, metric), unknown("metric", str(metric), (*METRICS, *SHOWN, "status")))
        elif metric in METRICS and not (number and 0 <= value <= 100):
            problems.add((*at, metric), f"{metric} must be a percentage from 0 to 100, got {value!r}")
        elif metric in SHOWN and not (number and 0 < value < math.inf):
            problems.add((*at, metric), f"{metric} must be a number greater than 0, got {value!r}")
        else:
            mark = status.get(metric) if isinstance(status, Mapping) else status
            values[metric] = PaperValue(value=float(value), status=_mark(metric, mark, at, problems))
    return values


def _mark(metric: str, mark: Any, at: Location, problems: ProblemList) -> str:
    if mark is None:
        problems.add(at, f"the printed {metric} has no status; say 'status: verified' or 'status: memory'")
    elif mark not in STATUSES:
        problems.add((*at, "status"), unknown("status", str(mark), STATUSES))
    return str(mark)
