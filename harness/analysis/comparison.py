"""Two or more reports side by side: whether their effects differ, and what else does."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# Two or more reports side by side: the same rows elsewhere, and whether their effects differ.
#
# Each side's effects, standard errors and degrees of freedom are those of its own report. The difference of
# two effects is tested with Welch's t: SE^2 = SE_1^2 + SE_2^2, df = SE^4 / (SE_1^4 / df_1 + SE_2^4 / df_2)
# (Welch 1947, Satterthwaite 1946). That holds for independent sides. Where both sides count the same runs
# nothing is tested. Where they trained the same recipes with the same seeds, results that go together make
# the interval wider than needed.
from harness.spec import FINISHED

DIFFER, AGREE, OPEN, UNTESTED = "differ", "agree", "not settled", "not tested"
RowKey = tuple[str, str, str | None]  # table, row, column


def _t() -> Any:
    """Student's distribution, imported when reports are compared: half a second of those that are not."""
    from scipy import stats

    return stats.t


@dataclass(frozen=True, slots=True, kw_only=True)
class SideRow:
    """What one report says about one row. Percent and percentage points, or the metric's own unit."""

    mean: float | None
    sd: float | None
    n: int
    versus: str | None
    estimate: float | None
    low: float | None  # of the report's 95 % interval
    high: float | None
    df: float | None
    verdict: str | None
    runs: frozenset[str]  # behind the effect: of the row and of the row it is compared with; see `_identity`

    @property
    def standard_error(self) -> float | None:
        """From the half-width of the 95 % interval; None where there is none."""
        if self.low is None or self.high is None or not self.df:
            return None
        return float((self.high - self.low) / 2 / _t().ppf(0.975, self.df))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The effect on a later side minus that on the first one."""

    estimate: float | None = None
    low: float | None = None  # 95 %
    high: float | None = None
    df: float | None = None
    p: float | None = None
    p_holm: float | None = None  # over all rows that these two sides share
    answer: str = (
        UNTESTED  # differ | agree (90 % interval within the smallest effect) | not settled | not tested
    )
    why: str = ""  # why nothing is tested


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """One row: what each side says (None: it has no such row), and each later side against the first."""

    key: RowKey
    sides: tuple[SideRow | None, ...]
    differences: tuple[Difference, ...]


def compare(reports: Sequence[Mapping[str, Any]], alpha: float = 0.05) -> tuple[ComparedRow, ...]:
    """Rows matched by table, row and column label, in the order of the first report that has them.

    Args:
        reports: at least two, as report.json has them, of the same metric.

    Raises:
        KeyError, TypeError: one of them has no findings.
    """
    sides = [rows_of(report) for report in reports]
    delta = min(float(report["findings"]["settings"]["smallest_effect_pp"]) for report in reports)
    keys = list(dict.fromkeys(key for side in sides for key in side))
    columns = [_against(keys, sides[0], other, (alpha, delta)) for other in sides[1:]]
    return tuple(
        ComparedRow(
            key=key,
            sides=tuple(side.get(key) for side in sides),
            differences=tuple(column[key] for column in columns),
        )
        for key in keys
    )


def rows_of(report: Mapping[str, Any]) -> dict[RowKey, SideRow]:
    """Every trained row of a report."""
    metric = report["findings"]["settings"]["metric"]
    runs: dict[str, set[str]] = {}
    for run in report["runs"]:
        if run["status"] == FINISHED:
            runs.setdefault(run["arm_id"], set()).add(_identity(run, metric))
    rows = {}
    for table in report["findings"]["tables"]:
        arms = {(cell["row"], cell["column"]): cell["arm_id"] for cell in table["cells"]}
        for cell in table["cells"]:
            if cell["level"] is not None:
                other = arms.get(((cell["effect"] or {}).get("versus"), cell["column"]))
                behind = runs.get(cell["arm_id"], set()) | runs.get(other or "", set())
                rows[table["key"], cell["row"], cell["column"]] = _row(cell, frozenset(behind))
    return rows


def difference(first: SideRow, other: SideRow) -> Difference:
    """Welch's interval for the difference of two effects, without a word yet."""
    if first.versus != other.versus or first.versus is None:
        return Difference(why="compared with different rows" if first.versus != other.versus else "reference")
    if first.estimate is None or other.estimate is None:
        return Difference(why="a side has no effect")
    errors, estimate = (first.standard_error, other.standard_error), other.estimate - first.estimate
    if shared := first.runs & other.runs:
        same = first.runs == other.runs
        why = "the same runs" if same else f"{len(shared)} runs are the same: not independent"
        return Difference(estimate=estimate, why=why)
    if errors[0] is None or errors[1] is None or not first.df or not other.df:
        return Difference(estimate=estimate, why="a side has no interval")
    variance = errors[0] ** 2 + errors[1] ** 2
    if variance == 0:
        return Difference(estimate=estimate, why="no spread")
    df = variance**2 / (errors[0] ** 4 / first.df + errors[1] ** 4 / other.df)
    half = float(_t().ppf(0.975, df)) * math.sqrt(variance)
    p = float(2 * _t().sf(abs(estimate) / math.sqrt(variance), df))
    return Difference(estimate=estimate, low=estimate - half, high=estimate + half, df=df, p=p, answer=OPEN)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _row(cell: Mapping[str, Any], runs: frozenset[str]) -> SideRow:
    level, effect = cell["level"], cell["effect"] or {}
    return SideRow(
        mean=level["mean"],
        sd=level["sd"],
        n=level["n"],
        runs=runs,
        **{name: effect.get(name) for name in ("versus", "estimate", "low", "high", "df", "verdict")},
    )


def _identity(run: Mapping[str, Any], metric: str) -> str:
    """A run and its result: a run trained again elsewhere has the same id, and in general other numbers."""
    return f"{run['run_id']} {run.get(metric)!r} {run.get('loss')!r}"


def _against(
    keys: Sequence[RowKey],
    first: Mapping[RowKey, SideRow],
    other: Mapping[RowKey, SideRow],
    limits: tuple[float, float],
) -> dict[RowKey, Difference]:
    found = {
        key: difference(first[key], other[key])
        if key in first and key in other
        else Difference(why="one side only")
        for key in keys
    }
    tested = [key for key in keys if found[key].p is not None]
    adjusted = holm([float(found[key].p or 0.0) for key in tested])
    for key, p_holm in zip(tested, adjusted, strict=True):
        found[key] = replace(found[key], p_holm=p_holm, answer=_word(found[key], p_holm, limits))
    return found


def _word(found: Difference, p_holm: float, limits: tuple[float, float]) -> str:
    alpha, delta = limits
    assert found.estimate is not None
    assert found.df is not None
    assert found.high is not None
    if p_holm <= alpha:
        return DIFFER
    error = (found.high - found.estimate) / float(_t().ppf(0.975, found.df))
    half = float(_t().ppf(0.95, found.df)) * error
    return AGREE if abs(found.estimate) + half < delta else OPEN


# What differs between reports besides results: settings, versions, data, and the recipes of shared rows.


OF_THE_MOMENT = ("inputs", "records")  # digests in the provenance that differ whenever anything does
REFERENCES = (
    "teacher",
    "source",
    "observes",
    "arm_id",
    "label",
)  # name other arms, which have lines of their own
ABSENT = "not there"


@dataclass(frozen=True, slots=True)
class Apart:
    """One setting: its value on every side, and in how many shared rows (None: of the whole report)."""

    name: str
    values: tuple[str, ...]
    rows: int | None = None


def settings_apart(reports: Sequence[Mapping[str, Any]]) -> tuple[Apart, ...]:
    """Settings of the reports as a whole that are not the same on every side."""
    flats = [flat_settings(_of_report(report)) for report in reports]
    return tuple(Apart(name, values) for name, values in _unequal(flats))


def recipes_apart(reports: Sequence[Mapping[str, Any]]) -> tuple[int, tuple[Apart, ...]]:
    """How many rows all sides share, and each field of their recipes that differs, with the rows counted."""
    arms = [_arms_by_row(report) for report in reports]
    shared = [key for key in arms[0] if all(key in side for side in arms)]
    found: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for key in shared:
        found.update(_unequal([side[key] for side in arms]))
    return len(shared), tuple(Apart(name, values, rows) for (name, values), rows in found.items())


def flat_settings(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `a.b` -> text; lists as JSON.

    >>> flat_settings({"data": {"name": "mnist"}, "milestones": [1, 2]})
    {'data.name': 'mnist', 'milestones': '[1, 2]'}
    """
    flat: dict[str, str] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            )
    return flat


def _of_report(report: Mapping[str, Any]) -> dict[str, Any]:
    findings = report["findings"]
    settings = findings["settings"]
    return {
        "study": report["study"],
        "size": report["size"],
        "seeds": len(findings["seeds"]),
        "smallest effect": settings["smallest_effect_pp"],
        "alpha": settings["alpha"],
        "tables": len(findings["tables"]),
        "provenance": {k: v for k, v in report["provenance"].items() if k not in OF_THE_MOMENT},
    }


def _arms_by_row(report: Mapping[str, Any]) -> dict[tuple[str, str, str | None], dict[str, str]]:
    flats = {
        arm_id: flat_settings({name: value for name, value in arm.items() if name not in REFERENCES})
        for arm_id, arm in report["arms"].items()
    }
    return {
        (table["key"], cell["row"], cell["column"]): flats[cell["arm_id"]]
        for table in report["findings"]["tables"]
        for cell in table["cells"]
        if cell["arm_id"] in flats
    }


def _unequal(flats: Sequence[Mapping[str, str]]) -> list[tuple[str, tuple[str, ...]]]:
    names = dict.fromkeys(name for flat in flats for name in flat)
    values = {name: tuple(flat.get(name, ABSENT) for flat in flats) for name in names}
    return [(name, each) for name, each in values.items() if len(set(each)) > 1]
