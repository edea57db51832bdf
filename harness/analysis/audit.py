"""What a published table could and could not have detected.

Each row is compared with the one it names: improvement, 95 % t interval, Holm's correction over the table.
The variance of a row is what the table states (sd; or the sd that a standard error or an interval implies) or
what is assumed for it. Where neither is there, nothing can be said, and that is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.analysis.equivalence import is_equivalent
from harness.analysis.intervals import Estimate, half_width, holm, p_value, quantile, satterthwaite
from harness.analysis.power import MOST_SEEDS, POWER, detectable_effect
from harness.study.printed_table import AssumedSd, PrintedRow, PrintedTable

BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no detectable difference"
NOT_SETTLED, CANNOT_TELL = "not settled", "cannot be told"
ALPHA = 0.05
NO_SPREAD = 1e-9  # in the table's units; less than any digit that is printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The seed-to-seed standard deviation of one row, and how well it is known."""

    sd: float
    df: int
    assumed: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedRow:
    """One comparison of the table, in the units of its metric; positive is better."""

    label: str
    versus: str
    improvement: float
    runs: int
    versus_runs: int
    low: float | None  # 95 % interval over re-training; None where no variance is known
    high: float | None
    p_holm: float | None
    detectable: float | None  # the true effect it would have found with 80 % power, at Holm's first level
    images_width: (
        float | None
    )  # half of the 95 % interval over test images if the two nets erred independently
    word: str
    why: str
    status: str  # memory where either number is


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The whole table."""

    table: PrintedTable
    rows: tuple[AuditedRow, ...]
    seeds_for_smallest: int | None  # per row, to find the smallest effect of interest; None: unknown


def audit(table: PrintedTable) -> Audit:
    """Judge every comparison of the table."""
    by_label = {row.label: row for row in table.rows}
    pairs = [(row, by_label[row.versus]) for row in table.rows if row.versus is not None]
    estimates = [_estimate(row, versus, table) for row, versus in pairs]
    family = len(pairs)
    raw = [1.0 if estimate is None else float(p_value(estimate)) for estimate in estimates]
    adjusted = holm(raw, ALPHA).p if raw else np.empty(0)
    rows = [
        _row(row, versus, estimate, float(p), table)
        for (row, versus), estimate, p in zip(pairs, estimates, adjusted, strict=True)
    ]
    return Audit(table=table, rows=tuple(rows), seeds_for_smallest=_seeds_for_smallest(table, family))


def spread_of(row: PrintedRow, assumed: AssumedSd | None) -> Spread | None:
    """sd as printed; se sqrt(n); a 95 % interval's half over t_{.975, n-1} times sqrt(n).

    A plus-minus of unknown kind is read as a standard error, which implies the largest variance of the usual
    readings. A spread printed for one run, or for an unstated number, says nothing about re-training; nor
    does a spread of 0, which was rounded away.
    """
    runs = row.runs or 1
    if row.plus_minus is not None and runs >= 2 and row.plus_minus > NO_SPREAD:
        factor = {"sd": 1.0, "se": math.sqrt(runs), "unknown": math.sqrt(runs)}.get(row.spread)
        if factor is None:
            factor = math.sqrt(runs) / float(quantile(0.975, runs - 1))
        note = "its ± is of unknown kind and read as a standard error" if row.spread == "unknown" else ""
        return Spread(sd=row.plus_minus * factor, df=runs - 1, assumed=False, note=note)
    if assumed is None:
        return None
    return Spread(sd=assumed.value, df=assumed.runs - 1, assumed=True)


def _estimate(row: PrintedRow, versus: PrintedRow, table: PrintedTable) -> Estimate | None:
    """Welch's comparison; two assumed standard deviations are one estimate, not two."""
    one, other = spread_of(row, table.assume_sd), spread_of(versus, table.assume_sd)
    if one is None or other is None:
        return None
    sign = 1.0 if table.better == "higher" else -1.0
    parts = np.array([one.sd**2 / (row.runs or 1), other.sd**2 / (versus.runs or 1)])
    df = np.array([one.df, other.df], dtype=float)
    if one.assumed and other.assumed:
        parts, df = parts.sum(keepdims=True), df[:1]
    return Estimate(
        value=np.asarray(sign * (row.value - versus.value)),
        se=np.asarray(math.sqrt(parts.sum())),
        df=satterthwaite(parts, df),
    )


def _row(
    row: PrintedRow, versus: PrintedRow, estimate: Estimate | None, p_holm: float, table: PrintedTable
) -> AuditedRow:
    sign = 1.0 if table.better == "higher" else -1.0
    improvement = sign * (row.value - versus.value)
    width = None if estimate is None else float(half_width(estimate, ALPHA))
    comparisons = sum(each.versus is not None for each in table.rows)
    word, why = _word(improvement, estimate, p_holm, table)
    return AuditedRow(
        label=row.label,
        versus=versus.label,
        improvement=improvement,
        runs=row.runs or 1,
        versus_runs=versus.runs or 1,
        low=None if width is None else improvement - width,
        high=None if width is None else improvement + width,
        p_holm=None if estimate is None else p_holm,
        detectable=None if estimate is None else detectable_effect(estimate, ALPHA / comparisons),
        images_width=_images_width(row, versus, table),
        word=word,
        why="; ".join(filter(None, [why, *_remarks(row, versus, table)])),
        status="memory" if "memory" in (row.status, versus.status) else "verified",
    )


def _word(
    improvement: float, estimate: Estimate | None, p_holm: float, table: PrintedTable
) -> tuple[str, str]:
    if estimate is None:
        return CANNOT_TELL, "no spread over runs is stated and none is assumed"
    if p_holm < ALPHA:
        return (BETTER if improvement > 0 else WORSE), ""
    if table.smallest_effect is not None and bool(is_equivalent(estimate, table.smallest_effect)):
        return NO_DIFFERENCE, f"smaller than {table.smallest_effect:g}"
    return NOT_SETTLED, ""


def _remarks(row: PrintedRow, versus: PrintedRow, table: PrintedTable) -> list[str]:
    remarks = []
    if row.runs is None or versus.runs is None:
        remarks.append("the number of runs is not stated and counted as 1")
    spreads = [spread_of(each, table.assume_sd) for each in (row, versus)]
    if any(spread is not None and spread.assumed for spread in spreads):
        remarks.append("with the assumed spread")
    remarks += sorted({spread.note for spread in spreads if spread is not None and spread.note})
    for each in (row, versus):
        if each.plus_minus is not None and each.plus_minus <= NO_SPREAD:
            remarks.append(f"the ± of '{each.label}' is 0: a spread that was rounded away, or none")
        elif each.plus_minus is not None and (each.runs or 1) < 2:
            remarks.append(f"the ± of '{each.label}' cannot be over re-training: one run, or none stated")
    return remarks


def _images_width(row: PrintedRow, versus: PrintedRow, table: PrintedTable) -> float | None:
    """1.96 sqrt((p q + p' q') / N) in percentage points: an upper bound, for two networks err together."""
    if table.test_images is None or not table.in_percent:
        return None
    shares = [each.value / 100.0 for each in (row, versus)]
    if not all(0.0 <= share <= 1.0 for share in shares):
        return None
    variance = sum(share * (1.0 - share) for share in shares) / table.test_images
    return 100.0 * float(special.ndtri(0.975)) * math.sqrt(variance)


def _seeds_for_smallest(table: PrintedTable, family: int) -> int | None:
    """Runs per row of median spread to find the smallest effect with 80 % power at Holm's first level."""
    known = [spread for row in table.rows if (spread := spread_of(row, table.assume_sd))]
    if not known or table.smallest_effect is None or not family:
        return None
    sd = float(np.median([spread.sd for spread in known]))  # one collapsed row is not the rule
    for runs in range(2, MOST_SEEDS):
        df = 2.0 * (runs - 1)
        t = float(quantile(1.0 - ALPHA / family / 2.0, df) + quantile(POWER, df))
        if t * sd * math.sqrt(2.0 / runs) <= table.smallest_effect:
            return max(3, runs)
    return None
