"""The one table: its rows, how a section hands them over, and how they are printed. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import statistics
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure. `failed` and `skipped` say why there is none."""

    what: str
    value: float | str | None = None
    unit: str = ""
    low: float | None = None  # of the rounds
    high: float | None = None
    note: str = ""
    failed: str | None = None
    skipped: str | None = None
    section: str = ""  # filled in by `RowFile`


Add = Callable[[Row], None]


@dataclass(frozen=True)
class RowFile:
    """Rows as JSON lines: what a section has measured is there even when it is stopped afterwards."""

    path: Path
    section: str

    def add(self, row: Row) -> None:
        line = json.dumps(dataclasses.asdict(dataclasses.replace(row, section=self.section)))
        with self.path.open("a") as file:
            file.write(line + "\n")

    def read(self) -> list[Row]:
        """Every complete row; none where the section wrote nothing."""
        text = self.path.read_text() if self.path.exists() else ""
        return [Row(**json.loads(line)) for line in text.split("\n")[:-1]]


def measured(what: str, values: Sequence[float], unit: str, note: str = "") -> Row:
    """The median of several rounds and their range."""
    rounds = f"{len(values)} rounds"
    return Row(
        what=what,
        value=statistics.median(values),
        unit=unit,
        low=min(values),
        high=max(values),
        note=f"{rounds}; {note}" if note else rounds,
    )


def guarded(add: Add, what: str, measure: Callable[[], Any]) -> Any:
    """The result of `measure`; None where it raised, with the reason in a row of its own, and all of it among
    what the section says."""
    try:
        return measure()
    except Exception as error:
        traceback.print_exc()
        add(Row(what=what, failed=reason(error)))
        return None


def reason(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return f"{type(error).__name__}: {text}"[:300]


def table(rows: Iterable[Row], *, titles: bool = True) -> str:
    """The rows as a Markdown table, or as its next lines."""
    heads = ["| section | measured | result | range | note |", "| --- | --- | --- | --- | --- |"]
    lines = heads if titles else []
    for row in rows:
        cells = (row.section, row.what, result(row), spread(row), row.note)
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def result(row: Row) -> str:
    """The cell that is read first.

    >>> result(Row(what="a", value=1234.56, unit="images/s")), result(Row(what="a", failed="no memory"))
    ('1,235 images/s', 'failed: no memory')
    """
    if row.failed is not None:
        return f"failed: {row.failed}"
    if row.skipped is not None:
        return f"not measured: {row.skipped}"
    text = row.value if isinstance(row.value, str) else number(row.value or 0.0)
    return f"{text} {row.unit}".strip()


def spread(row: Row) -> str:
    if row.low is None or row.high is None:
        return ""
    return f"{number(row.low)} to {number(row.high)}"


def number(value: float) -> str:
    """Three significant digits below 100, none after the point above.

    >>> number(0.012345), number(12.345), number(2345.6)
    ('0.0123', '12.3', '2,346')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
