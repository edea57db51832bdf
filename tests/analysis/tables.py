"""Small studies made by hand: tables, records and bits for the tests of `harness.analysis`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis import decide
from harness.analysis.findings import CellFinding, Settings, TableFinding
from harness.study.plan import Cell, PaperValue, PlanTable


def cell(row: str, arm: str | None, versus: str | None, **more: Any) -> Cell:
    return Cell(row=row, column=more.pop("column", None), arm_id=arm, tricks=(), versus=versus, **more)


def star(arms: Sequence[str]) -> list[Cell]:
    """Every arm against the first; labels are the arms' names."""
    return [cell(arm, arm, None if arm == arms[0] else arms[0]) for arm in arms]


def table(cells: Sequence[Cell]) -> PlanTable:
    columns = tuple(dict.fromkeys(each.column for each in cells))
    return PlanTable(key="t", title="T", design="rows", columns=columns, cells=tuple(cells))


def printed(value: float, status: str = "verified") -> Mapping[str, PaperValue]:
    return {"top1": PaperValue(value=value, status=status)}


def record(arm: str, seed: int, top1: float | None, **more: Any) -> dict[str, Any]:
    bits = more.pop("bits", None)
    return {
        "run_id": f"{arm}-{seed}",
        "arm_id": arm,
        "seed": seed,
        "status": "finished" if top1 is not None else "failed",
        "top1": top1,
        "top5": None if top1 is None else min(top1 + 15.0, 100.0),
        "loss": 0.5,
        "predictions": None if bits is None else np.packbits(bits).tobytes(),
        "test_images": 10000 if bits is None else len(bits),
        **more,
    }


def records(values: Mapping[str, Sequence[float | None]]) -> list[dict[str, Any]]:
    """Finished runs of seeds 0, 1, ...; None leaves a run out."""
    return [
        record(arm, seed, value)
        for arm, row in values.items()
        for seed, value in enumerate(row)
        if value is not None
    ]


def found(
    cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]], seeds: int, settings: Settings | None = None
) -> TableFinding:
    """The findings on one table."""
    findings = decide(
        [table(cells)],
        pd.DataFrame(list(rows)),
        settings or Settings(),
        study="s",
        size="mini",
        seeds=tuple(range(seeds)),
    )
    return findings.tables[0]


def by_row(finding: TableFinding) -> dict[str, CellFinding]:
    return {each.row: each for each in finding.cells}


QUIET = {  # seed effects of -.1, 0, .1 and noise of about .02
    "base": [70.00, 70.10, 70.21],
    "up": [71.02, 71.10, 71.19],
    "down": [69.01, 69.10, 69.22],
    "same": [70.01, 70.12, 70.19],
    "other": [70.52, 70.60, 70.73],
}


def quiet(**changes: Sequence[float | None]) -> dict[str, CellFinding]:
    """The clear table, by row."""
    return by_row(found(star(list(QUIET)), records({**QUIET, **changes}), 3))


def plain(finding: Any) -> Any:
    """Findings as JSON data; fails on NaN and infinity."""
    return json.loads(json.dumps(dataclasses.asdict(finding), allow_nan=False))
