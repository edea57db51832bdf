"""Reports side by side, as a document and as files. Which numbers are compared how: analysis/comparing.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.analysis.comparing import ComparedRow, compare
from harness.analysis.findings import Settings
from harness.analysis.settings_apart import recipes_apart, settings_apart
from harness.reporting.csv_tables import csv_text
from harness.reporting.document import Document, Paragraph, Section
from harness.reporting.html import to_html
from harness.reporting.json_report import plain
from harness.reporting.latex import to_latex
from harness.reporting.markdown import to_markdown
from harness.reporting.pdf import to_pdf
from harness.reporting.render import Draft, Rendered, refuse_foreign_folders, write_files
from harness.reporting.sections.comparison import (
    apart_sections,
    compared_tables,
    letters_of,
    level_tables,
    method_section,
    only_in_one,
    opening_section,
)

SCHEMA_VERSION = 1
NOTHING_SHARED = Paragraph(
    "No row is on more than one side: rows are matched by the names of table, row and column."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareInput:
    """The reports, as their report.json has them, and how they are called."""

    names: tuple[str, ...]
    reports: tuple[Mapping[str, Any], ...]

    @property
    def settings(self) -> Settings:
        """The first side's, with the smallest effect of interest that all sides can live with."""
        first = self.reports[0]["findings"]["settings"]
        smallest = min(report["findings"]["settings"]["smallest_effect_pp"] for report in self.reports)
        return Settings(metric=first["metric"], alpha=first["alpha"], smallest_effect_pp=smallest)


def render_comparison(inputs: CompareInput, out_dir: Path) -> Rendered:
    """Write report.{md,html,pdf,json} and tables/*.{csv,tex}; the same input gives the same bytes.

    Raises:
        StudyError: `out_dir` has folders that are not a report's.
        KeyError, TypeError, ValueError: something of a report is not there, or not of its kind.
    """
    refuse_foreign_folders(out_dir)
    rows = compare(inputs.reports, inputs.settings.alpha)
    document = comparison_document(inputs, rows)
    draft = Draft()
    draft.files |= {
        "report.md": to_markdown(document).encode(),
        "report.html": to_html(document, {}).encode(),
        "report.json": _json(inputs, rows).encode(),
        "tables/comparison.csv": _csv(inputs, rows).encode(),
    }
    draft.add("report.pdf", lambda: to_pdf(document, {}))
    for shown in (*compared_tables(rows, inputs.settings), *level_tables(rows, inputs.settings)):
        draft.files[f"tables/{shown.key}.tex"] = to_latex(shown).encode()
    return Rendered(write_files(draft.files, out_dir), tuple(draft.failures))


def comparison_document(inputs: CompareInput, rows: Sequence[ComparedRow]) -> Document:
    """Answer, tables, what differs, rows of one side, method."""
    settings, reports = inputs.settings, inputs.reports
    letters = letters_of(len(reports))
    sections = [
        opening_section(inputs.names, reports, rows),
        Section("Effects side by side", compared_tables(rows, settings) or (NOTHING_SHARED,)),
        Section("Values side by side", level_tables(rows, settings) or (NOTHING_SHARED,)),
        *apart_sections(settings_apart(reports), recipes_apart(reports), letters),
        only_in_one(rows, letters),
        method_section(settings, reports),
    ]
    sides = " · ".join(f"{letter}: {name}" for letter, name in zip(letters, inputs.names, strict=True))
    return Document(
        banner="",
        title=f"{' and '.join(inputs.names)}: side by side",
        question="Which effects are the same on every side, and which differ?",
        scope=sides,
        sections=tuple(section for section in sections if section is not None),
    )


def _json(inputs: CompareInput, rows: Sequence[ComparedRow]) -> str:
    """Keys: schema, kind ("comparison"), sides, settings, recipes, rows."""
    shared, recipes = recipes_apart(inputs.reports)
    data = {
        "schema": SCHEMA_VERSION,
        "kind": "comparison",
        "sides": [
            {"name": name, "study": report["study"], "size": report["size"]}
            for name, report in zip(inputs.names, inputs.reports, strict=True)
        ],
        "settings": [asdict(each) for each in settings_apart(inputs.reports)],
        "recipes": {"shared_rows": shared, "differences": [asdict(each) for each in recipes]},
        "rows": [_plain_row(row) for row in rows],
    }
    return json.dumps(plain(data), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain_row(row: ComparedRow) -> dict[str, Any]:
    table, name, column = row.key
    bare = [side and replace(side, runs=frozenset()) for side in row.sides]
    sides = [side and {k: v for k, v in asdict(side).items() if k != "runs"} for side in bare]
    return {
        "table": table,
        "row": name,
        "column": column,
        "sides": sides,
        "differences": [asdict(each) for each in row.differences],
    }


def _csv(inputs: CompareInput, rows: Sequence[ComparedRow]) -> str:
    """One line per row and side; the first side's lines have no difference."""
    fields = ("mean", "sd", "n", "versus", "estimate", "low", "high", "df", "verdict")
    further = ("estimate", "low", "high", "df", "p", "p_holm", "answer", "why")
    head = ["table", "row", "column", "side", *fields, *(f"difference_{name}" for name in further)]
    lines = []
    for row in rows:
        for place, (name, side) in enumerate(zip(inputs.names, row.sides, strict=True)):
            apart = row.differences[place - 1] if place else None
            values = [*row.key, name, *(getattr(side, f, None) for f in fields)]
            values += [getattr(apart, f, None) for f in further]
            lines.append(values)
    return csv_text(head, lines)
