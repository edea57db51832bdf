"""A table as CSV: full precision, plain minus signs, one line per cell of the paper's table.

A spreadsheet takes a text that starts with = + - @ (or a tab or a carriage return) for a formula. Such a
text, for example the label "+ mixup", is written with one space before it; numbers are written as they are.
Whoever matches labels takes that space off again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import fields

from harness.analysis.findings import (
    CellFinding,
    ClaimFinding,
    Effect,
    Level,
    SpeedFinding,
    SpeedRow,
    TableFinding,
)
from harness.study.plan import Claim

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_LEVEL = tuple(f.name for f in fields(Level) if f.name not in ("secondary", "values", "without_value"))
_EFFECT = tuple(f.name for f in fields(Effect) if f.name != "differences")


def to_csv(table: TableFinding) -> str:
    """Every number of the findings. An absent number is an empty field.

    Columns: row, column, arm_id, tricks, then the fields of `Level`, the other metrics, one column per seed
    (`seed_0`, ...), the paper's values with their status, and the fields of `Effect` (prefix `effect_`).
    """
    metrics = sorted({name for cell in table.cells if cell.level for name in cell.level.secondary})
    seeds = sorted({seed for cell in table.cells if cell.level for seed in cell.level.values})
    printed = sorted({name for cell in table.cells for name in cell.paper})
    head = ["row", "column", "arm_id", "tricks", *_LEVEL, *metrics, *(f"seed_{seed}" for seed in seeds)]
    head += [text for name in printed for text in (f"paper_{name}", f"paper_{name}_status")]
    head += [f"effect_{name}" for name in _EFFECT]
    return csv_text(
        head,
        ([*_level(cell, metrics, seeds), *_paper(cell, printed), *_effect(cell)] for cell in table.cells),
    )


def claims_to_csv(claims: Sequence[ClaimFinding]) -> str:
    """One line per claim: the claim's own fields, then the finding's, then one column per seed."""
    said = [f.name for f in fields(Claim) if f.name not in ("column", "versus_column")]
    found = [f.name for f in fields(ClaimFinding) if f.name not in ("claim", "differences")]
    seeds = sorted({seed for claim in claims for seed in claim.differences})
    rows = (
        [
            *(getattr(claim.claim, name) for name in said),
            *(getattr(claim, name) for name in found),
            *(claim.differences.get(seed) for seed in seeds),
        ]
        for claim in claims
    )
    return csv_text([*said, *found, *(f"seed_{seed}" for seed in seeds)], rows)


def speed_to_csv(speed: SpeedFinding) -> str:
    """One line per row: steps to the target, one column per seed (empty: not reached, or not run)."""
    names = [f.name for f in fields(SpeedRow) if f.name not in ("row", "steps", "paper", "paper_factor")]
    rows = [(panel, row) for panel in speed.panels for row in panel.rows]
    seeds = sorted({seed for _, row in rows for seed in row.steps})
    head = ["row", "column", "target_top1", *names, *(f"steps_seed_{seed}" for seed in seeds)]
    head += ["paper_steps_m", "paper_status", "paper_factor"]
    lines = (
        [
            row.row,
            panel.column,
            panel.target_top1,
            *(getattr(row, name) for name in names),
            *(row.steps.get(seed) for seed in seeds),
            *((row.paper.value, row.paper.status) if row.paper else (None, None)),
            row.paper_factor,
        ]
        for panel, row in rows
    )
    return csv_text(head, lines)


def csv_text(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Every CSV of a report: the one place where fields that others wrote are made safe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([safe_text(value) for value in head])
    writer.writerows([safe_text(value) for value in row] for row in rows)
    return buffer.getvalue()


def safe_text(value: object) -> object:
    """A field that no spreadsheet takes for a formula; anything but a text is returned as it is.

    >>> safe_text("+ mixup"), safe_text("=1+1"), safe_text(-0.5), safe_text("ResNet-50")
    (' + mixup', ' =1+1', -0.5, 'ResNet-50')
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # a bare one is not quoted, and begins a line
    return f" {text}" if value.startswith(FORMULA_STARTS) else text


def _level(cell: CellFinding, metrics: list[str], seeds: list[int]) -> list[object]:
    first: list[object] = [cell.row, cell.column, cell.arm_id, " ".join(cell.tricks)]
    if cell.level is None:
        return first + [None] * (len(_LEVEL) + len(metrics) + len(seeds))
    level = cell.level
    return [
        *first,
        *(getattr(level, name) for name in _LEVEL),
        *(level.secondary.get(name) for name in metrics),
        *(level.values.get(seed) for seed in seeds),
    ]


def _paper(cell: CellFinding, printed: list[str]) -> list[object]:
    values = [cell.paper.get(name) for name in printed]
    return [item for value in values for item in ((value.value, value.status) if value else (None, None))]


def _effect(cell: CellFinding) -> list[object]:
    if cell.effect is None:
        return [None] * len(_EFFECT)
    return [getattr(cell.effect, name) for name in _EFFECT]
