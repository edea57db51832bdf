"""Every table of every format keeps the rules: nothing bold, labelled ± and CI, n, reasons, digits."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from harness.reporting.document import TextCell, TextRow, ordered
from harness.reporting.html import to_html
from harness.reporting.latex import to_latex
from harness.reporting.markdown import table_to_markdown
from harness.reporting.render import outline
from harness.reporting.sections.tables import main_table
from tests.reporting.edits import comparable
from tests.reporting.large import large_report
from tests.reporting.lint import faults, tables_of

FIXED = re.compile(r"(\d+)\.(\d+) ± (\d+)\.(\d+)")


@pytest.fixture(scope="module")
def documents(report):
    return [outline(each, []) for each in (report, comparable(report), large_report())]


def test_no_table_of_a_report_has_a_fault(documents):
    tables = [table for document in documents for table in tables_of(document)]
    assert len(tables) > 40
    assert [fault for table in tables for fault in faults(table) if "macro" not in fault] == []


@pytest.mark.parametrize(
    ("column", "cell", "fault"),
    [
        (3, TextCell("—"), "does not say why"),
        (3, TextCell("+0.3 ± 0.1", "[0.1, 0.5]"), "does not call sd"),
        (3, TextCell("+0.30", "± 0.1"), "line of the interval"),
        (3, TextCell("+0.305", "[0.1, 0.5]"), "different numbers of decimals"),
        (2, TextCell("80.12 ± 0.3"), "different numbers of decimals"),
        (4, TextCell(""), "is empty"),
        (1, TextCell("**3**"), "is bold"),
    ],
)
def test_the_lint_finds_a_planted_fault(report, column, cell, fault):
    table = main_table(report.findings.tables[3], report.findings.settings)
    assert list(faults(table)) == []
    cells = list(table.rows[1].cells)
    cells[column] = cell
    planted = replace(table, rows=(TextRow(tuple(cells)), *table.rows[1:]))
    assert any(fault in found for found in faults(planted))


def test_a_table_without_n_is_a_fault(report):
    table = main_table(report.findings.tables[3], report.findings.settings)
    renamed = [replace(column, title="k") if column.title == "n" else column for column in table.columns]
    assert list(faults(replace(table, columns=tuple(renamed)))) == ["table5_effects has no n"]


def test_the_digits_of_a_mean_follow_its_standard_error(report):
    seen = set()
    for table in report.findings.tables:
        means = {cell.row: cell.level for cell in ordered(table) if cell.level and cell.level.sd}
        for row in main_table(table, report.findings.settings).rows:
            found, level = FIXED.match(row.cells[2].text), means.get(row.cells[0].text)
            if found and level and len(table.columns) == 1:
                digits = min(max(math.ceil(-math.log10(level.sd / math.sqrt(level.n))) + 1, 0), 2)
                assert len(found.group(2)) == len(found.group(4)) == digits
                seen.add(row.cells[0].text)
    assert len(seen) > 8


def test_no_format_makes_a_number_bold(documents):
    page = to_html(documents[0], {})
    for body in re.findall(r"<tbody>.*?</tbody>", page, re.S):
        assert not re.search(r"<(b|strong)\b", body)
    for table in tables_of(documents[0]):
        tex = to_latex(table)
        assert not re.search(r"\\(textbf|bfseries|mathbf)", tex)
        lines = [line for line in table_to_markdown(table).splitlines() if "**" in line]
        assert all(re.fullmatch(r"\| \*\*[^|]+\*\* \|(  \|)+", line) for line in lines)


def test_latex_gives_the_reason_of_every_missing_cell(documents):
    for table in tables_of(documents[0]):
        tex = to_latex(table)
        for row in tex.splitlines():
            for dash in re.findall(r"---([^&]*)", row) if " & " in row else []:
                assert re.match(r"\\textsuperscript\{[a-z]+\}| ?\(|.*\(", dash), row
