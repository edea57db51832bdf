"""A published table for `harness audit`: values, what is said of their spread, how many runs are behind them.

YAML with the keys of `KEYS` and rows of `ROW_KEYS`, or CSV with a header of `ROW_KEYS` and nothing else.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import Location, Problem, ProblemList, StudyError, unknown
from harness.study.yaml import read_source, read_text

SPREADS = ("sd", "se", "ci95", "unknown")  # what the number after a plus-minus sign may be
PREVIOUS = "previous"
KEYS = (
    "title", "source", "metric", "better", "test_images", "runs", "spread", "assume_sd", "smallest_effect",
    "versus", "note", "rows",
)  # fmt: skip
ROW_KEYS = ("label", "value", "plus_minus", "runs", "spread", "versus", "status")
BETTER = ("higher", "lower")
LARGEST = 1e60  # of any number: beyond it, squares of variances overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class AssumedSd:
    """The standard deviation over seeds where the table has none, from elsewhere."""

    value: float
    runs: int  # that it was estimated from
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedRow:
    """One row as printed."""

    label: str
    value: float
    plus_minus: float | None = None
    runs: int | None = None  # None: not stated
    spread: str = "unknown"  # one of SPREADS
    versus: str | None = None  # label of the row it is compared with
    status: str = "verified"  # verified | memory


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedTable:
    """A published table. `test_images` and percentages let the noise of the test set be computed."""

    title: str
    rows: tuple[PrintedRow, ...]
    source: str = ""
    metric: str = "top-1 accuracy, percent"
    better: str = "higher"
    test_images: int | None = None
    assume_sd: AssumedSd | None = None
    smallest_effect: float | None = None
    note: str = ""

    @property
    def in_percent(self) -> bool:
        return "percent" in self.metric or "%" in self.metric


def read_printed_table(path: Path) -> PrintedTable:
    """
    Raises:
        StudyError: every mistake in the file, with its line.
    """
    if path.suffix == ".csv":
        return _from_csv(path)
    problems: list[Problem] = []
    source = read_source(path, problems)
    if problems:
        raise StudyError(problems)
    found = source.problem_list()
    table = _Reader(found).table(source.data, path)
    found.raise_if_any()
    assert table is not None
    return table


def _from_csv(path: Path) -> PrintedTable:
    reader = csv.DictReader(read_text(path).splitlines())
    rows = [{key: text for key, text in row.items() if text not in (None, "")} for row in reader]
    found = ProblemList(str(path), lambda place: int(place[1]) + 2 if len(place) > 1 else 1)
    if None in (reader.fieldnames or ()) or any(None in row for row in rows):
        found.add((), "a line has more cells than the header")
    plain = [{key: _number_or_text(text) for key, text in row.items() if key is not None} for row in rows]
    table = _Reader(found).table({"title": path.stem.replace("_", " "), "rows": plain}, path)
    found.raise_if_any()
    assert table is not None
    return table


def _number_or_text(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class _Reader:
    """Plain data to a table; every mistake is noted, nothing is guessed."""

    def __init__(self, problems: ProblemList) -> None:
        self.problems = problems

    def table(self, data: Any, path: Path) -> PrintedTable | None:
        if not isinstance(data, dict) or not isinstance(data.get("rows"), list) or not data["rows"]:
            self.problems.add((), "a table for the audit needs `rows`, a list of at least one row")
            return None
        self.known((), data, KEYS, "key")
        self.choice(("better",), data, BETTER)
        self.choice(("spread",), data, SPREADS)
        for key in ("test_images", "runs"):
            self.number((key,), data, least=1, whole=True)
        self.number(("smallest_effect",), data, above=0)
        rows = [self.row(("rows", index), row, data) for index, row in enumerate(data["rows"])]
        assumed = self.assumed(data)
        if len(self.problems):
            return None
        linked = self.linked([row for row in rows if row is not None], data)
        return PrintedTable(
            title=str(data.get("title", path.stem)),
            rows=linked,
            source=str(data.get("source", "")),
            metric=str(data.get("metric", "top-1 accuracy, percent")),
            better=data.get("better", "higher"),
            test_images=data.get("test_images"),
            assume_sd=assumed,
            smallest_effect=data.get("smallest_effect"),
            note=str(data.get("note", "")),
        )

    def row(self, place: Location, row: Any, table: Mapping[str, Any]) -> PrintedRow | None:
        if not isinstance(row, dict) or "label" not in row or "value" not in row:
            self.problems.add(place, "a row needs `label` and `value`")
            return None
        self.known(place, row, ROW_KEYS, "key of a row")
        self.choice((*place, "spread"), row, SPREADS)
        self.choice((*place, "status"), row, ("verified", "memory"))
        self.number((*place, "value"), row)
        self.number((*place, "plus_minus"), row, least=0)
        self.number((*place, "runs"), row, least=1, whole=True)
        given = {key: row.get(key, table.get(key)) for key in ("runs", "spread")}
        return PrintedRow(
            label=str(row["label"]),
            value=row["value"],
            plus_minus=row.get("plus_minus"),
            runs=given["runs"],
            spread=given["spread"] or "unknown",
            versus=None if row.get("versus") is None else str(row["versus"]),
            status=row.get("status", "verified"),
        )

    def linked(self, rows: list[PrintedRow], table: Mapping[str, Any]) -> tuple[PrintedRow, ...]:
        """The rows with what each is compared with; labels are checked."""

        labels = [row.label for row in rows]
        default = table.get("versus", PREVIOUS)
        for index, label in enumerate(labels):
            if label in labels[:index]:
                self.problems.add(("rows", index), f"two rows are labelled '{label}'")
        out = []
        for index, row in enumerate(rows):
            versus = row.versus if row.versus is not None else str(default)
            if versus == PREVIOUS:
                versus = labels[index - 1] if index else ""
            if versus in ("none", "", row.label):
                out.append(dataclasses.replace(row, versus=None))
                continue
            if versus not in labels:
                place: Location = ("rows", index) if row.versus is not None else ("versus",)
                self.problems.add(place, unknown("row", versus, [*labels, PREVIOUS, "none"]))
            out.append(dataclasses.replace(row, versus=versus))
        return tuple(out)

    def assumed(self, table: Mapping[str, Any]) -> AssumedSd | None:
        given = table.get("assume_sd")
        if given is None:
            return None
        place = ("assume_sd",)
        if not isinstance(given, dict) or set(given) != {"value", "runs", "source"}:
            text = "assume_sd needs `value` (sd over seeds), `runs` (it was estimated from) and `source`"
            self.problems.add(place, text)
            return None
        self.number((*place, "value"), given, above=0)
        self.number((*place, "runs"), given, least=2, whole=True)
        return AssumedSd(value=given["value"], runs=given["runs"], source=str(given["source"]))

    def known(self, place: Location, data: Mapping[str, Any], valid: tuple[str, ...], what: str) -> None:
        for key in data:
            if key not in valid:
                self.problems.add((*place, key), unknown(what, str(key), valid))

    def choice(self, place: Location, data: Mapping[str, Any], valid: tuple[str, ...]) -> None:
        value = data.get(str(place[-1]))
        if value is not None and value not in valid:
            self.problems.add(place, unknown(str(place[-1]), str(value), valid))

    def number(
        self, place: Location, data: Mapping[str, Any], *, least: float | None = None,
        above: float | None = None, whole: bool = False,
    ) -> None:  # fmt: skip
        value, name = data.get(str(place[-1])), place[-1]
        if value is None and name != "value":
            return
        kind = int if whole else (int, float)
        if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value):
            self.problems.add(place, f"{name} must be a {'whole ' if whole else ''}number, got {value!r}")
        elif abs(value) > LARGEST:
            self.problems.add(place, f"{name} is {value:.3g}: too large for a result")
        elif least is not None and value < least:
            self.problems.add(place, f"{name} must be at least {least:g}, got {value:g}")
        elif above is not None and value <= above:
            self.problems.add(place, f"{name} must be greater than {above:g}, got {value:g}")
