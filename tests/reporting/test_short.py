"""The short form: the answer and the leading tables, never longer than a comment may be."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from harness.reporting.markdown import MOST_BYTES, to_short
from tests.reporting.edits import edit_cells
from tests.reporting.large import large_report


def rows_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]


def test_the_short_form_has_the_answer_every_sentence_and_every_leading_table(report, rendered):
    text = to_short(report)
    assert (rendered / "report_short.md").read_text() == text
    for table in report.findings.tables:
        assert f"{table.title}\n" in text
    sentences = re.findall(r"^- [·▲▼≈?—] ", text, re.M)
    assert len(sentences) == sum(len(table.cells) for table in report.findings.tables)
    assert "Verdicts on" in text
    assert "report.html" in text
    assert "![" not in text


@pytest.mark.parametrize("most", [MOST_BYTES, 20_000, 9_000, 3_000, 700])
def test_it_is_never_longer_than_it_may_be_and_says_what_it_leaves_out(most):
    report = large_report()
    whole, text = to_short(report, 10**9), to_short(report, most)
    assert len(text.encode()) <= most
    if len(whole.encode()) > most:
        said = re.findall(r"(\d+) further (row|table)s?|Cut here", text)
        assert said or len(rows_of(text)) == len(rows_of(whole))  # only sentences went
    assert re.search(r"full report", text, re.I)


def test_what_is_left_out_is_counted(report):
    text = to_short(report, 4_000)
    tables = sum(f"{table.title}\n" in text for table in report.findings.tables)
    missing = report.findings.tables[tables:]
    assert missing
    rows = sum(len(table.cells) for table in missing)
    assert re.search(rf"{len(missing)} further tables? with {rows} rows", text)


def test_labels_of_any_length_cannot_break_the_limit(report):
    long = edit_cells(report, lambda cell: replace(cell, row=cell.row * 400, sentence=cell.sentence * 300))
    assert len(to_short(long).encode()) <= MOST_BYTES
