"""Findings, frames and figures of one study for Python and notebooks; `harness.api` makes them.

It reads what it was made from, and nothing else; only `Results.report` writes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.study.plan import Plan
from harness.study.problems import Problem, StudyError, unknown

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.analysis.findings import Findings, TableFinding
    from harness.reporting import ReportInput
    from harness.reporting.cells import Table
    from harness.reporting.figures.gallery import Picture


class Results:
    """Findings, frames and figures of a study. In a notebook it shows its tables."""

    def __init__(self, report: ReportInput) -> None:
        self._report = report

    @property
    def findings(self) -> Findings:
        """Every number with its n, typed (`harness.analysis.findings`)."""
        return self._report.findings

    @property
    def plan(self) -> Plan:
        """The plan that the results belong to."""
        return self._report.plan

    @property
    def runs(self) -> DataFrame:
        """One row per run: run_id, arm_id, seed, status, top1 and top5 (percent), loss, times (s), ..."""
        return self._report.records.copy()

    @property
    def curves(self) -> DataFrame:
        """One row per point of a curve: run_id, arm_id, seed, epoch, step, val_top1 (percent), ..."""
        return self._report.curves.copy()

    @property
    def tables(self) -> dict[str, str]:
        """Key -> title of every table."""
        return {table.key: table.title for table in self.findings.tables}

    @property
    def claims(self) -> DataFrame:
        """One row per claim of the paper, with its answer."""
        from harness.reporting.frames import claims_frame

        return claims_frame(self.findings.claims)

    def table(self, key: str) -> DataFrame:
        """One row per cell: n, mean, sd, effect with interval, Holm-adjusted p, verdict, the paper's numbers.

        Raises:
            StudyError: there is no such table.
        """
        from harness.reporting.frames import cells_frame

        return cells_frame(self._table(key), self.findings.settings.metric)

    def seeds(self, key: str) -> DataFrame:
        """One row per cell and seed: the metric, and its difference from the row it is compared with.

        Raises:
            StudyError: there is no such table.
        """
        from harness.reporting.frames import seeds_frame

        return seeds_frame(self._table(key), self.findings.settings.metric)

    def figure(self, key: str) -> Picture:
        """A figure with its caption, alt text, and `svg` and `png` as bytes; a notebook shows it.

        key: that of a table for its effects, or of any figure, as in the folder figures/ of a report.

        Raises:
            StudyError: there is no such figure.
        """
        from harness.reporting.figures.gallery import draw_table

        owner = next((table for table in self.findings.tables if f"{key}_".startswith(f"{table.key}_")), None)
        few = [] if owner is None else draw_table(self._report, owner)
        for picture in few:
            if picture.key in (key, f"{key}_effects"):
                return picture
        found = {picture.key: picture for picture in self._pictures}
        return found[_known("figure", key, found)]

    def report(self, out_dir: str | Path) -> Path:
        """Write the report in every format, as `harness report --out` does; returns the Markdown file.

        A format that cannot be written is a warning.

        Raises:
            StudyError: a folder in `out_dir` that a report would replace is not a report's.
        """
        from harness.reporting import render

        for text in (rendered := render(self._report, Path(out_dir))).failures + rendered.notes:
            warnings.warn(text, stacklevel=2)
        return Path(out_dir) / "report.md"

    @cached_property
    def _pictures(self) -> list[Picture]:
        from harness.reporting.figures.gallery import draw_all

        return draw_all(self._report)

    def _table(self, key: str) -> TableFinding:
        found = {table.key: table for table in self.findings.tables}
        return found[_known("table", key, found)]

    def __repr__(self) -> str:
        found = self.findings
        return (
            f"<results of {found.study}, size {found.size}: {len(self._report.records)} runs, {self.tables}>"
        )

    def _repr_html_(self) -> str:
        from harness.reporting.places import place_labels
        from harness.reporting.sections.results import main_table

        labels = place_labels(self.plan)
        shown = [main_table(table, self.findings.settings, labels) for table in self.findings.tables]
        heads = [f"<h4>{escape(table.title)}</h4>" for table in self.findings.tables]
        return "".join(head + _html(table) for head, table in zip(heads, shown, strict=True))


def _html(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column.title)}</th>' for column in table.columns)
    rows = []
    for row in table.rows:
        first, *rest = (escape(cell.joined) for cell in row.cells)
        cells = "".join(f"<td>{text}</td>" for text in rest)
        rows.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    below = f"<ul>{notes}</ul>" if notes else ""
    return f"<table><caption>{escape(table.caption)}</caption>{body}</table>{below}"


def _known(kind: str, key: str, valid: Mapping[str, Any]) -> str:
    if key not in valid:
        raise StudyError([Problem("harness", 0, unknown(kind, key, valid))])
    return key
