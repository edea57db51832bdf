"""Every committed LaTeX table is compiled with booktabs, tabularx and siunitx alone, and fits the page."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.reporting.document import TextCell, TextRow
from harness.reporting.latex import paper_to_latex, to_latex
from harness.reporting.render import outline
from harness.reporting.sections.paper import paper_tables
from tests.reporting.edits import comparable, edit_cells
from tests.reporting.large import large_report
from tests.reporting.lint import tables_of
from tests.timing import PATIENCE_S

TABLES = sorted((Path(__file__).resolve().parents[2] / "reports").glob("*/tables/*.tex"))
HEAD = r"\documentclass{article}\usepackage{booktabs,tabularx}\usepackage{siunitx}\begin{document}"
TWO_COLUMNS = HEAD.replace(r"\documentclass", r"\documentclass[twocolumn]")

WIDE, MOST_PT = re.compile(r"Overfull \\hbox \(([\d.]+)pt"), 5.0
NONE = "NOT COMPILED: no pdflatex here (packages texlive-latex-recommended and texlive-science)"
pytestmark = pytest.mark.campaign
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason=NONE)


def compile_in(folder: Path, body: str, head: str = HEAD) -> str:
    """What pdflatex says at its first error, of boxes wider than the line or pages too short, or ""."""
    (folder / "all.tex").write_text(f"{head}\n{body}\n\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    if done.returncode:
        return done.stdout[-1500:]
    wide = [line for line in done.stdout.splitlines() if float((WIDE.search(line) or "00")[1]) > MOST_PT]
    return "\n".join(wide + re.findall(r"Float too large.*", done.stdout))


@needs_latex
def test_every_committed_table_compiles(tmp_path: Path):
    assert len(TABLES) > 40
    for number, table in enumerate(TABLES):
        shutil.copy(table, tmp_path / f"t{number}.tex")
    body = "\n".join(rf"\input{{t{number}}}\clearpage" for number in range(len(TABLES)))
    assert compile_in(tmp_path, body) == ""


@needs_latex
@pytest.mark.parametrize("head", [HEAD, TWO_COLUMNS], ids=["article", "two columns"])
def test_tables_in_the_papers_shape_fit_one_column_and_two(report, tmp_path: Path, head: str):
    long = edit_cells(report, lambda cell: replace(cell, row=f"{cell.row} and a name that goes on and on"))
    made = [
        paper_to_latex(shown)
        for each in (report, large_report(), long)
        for table in each.findings.tables
        for shown in paper_tables(table, each.findings.settings, each.records)
    ]
    assert any("{table*}" in tex for tex in made)
    assert any("{table}" in tex for tex in made)
    for number, tex in enumerate(made):
        (tmp_path / f"t{number}.tex").write_text(tex)
    body = "\n".join(rf"\input{{t{number}}}\clearpage" for number in range(len(made)))
    assert compile_in(tmp_path, body, head) == ""


@needs_latex
def test_tables_of_any_shape_fit_on_a_page(report, tmp_path: Path):
    documents = [outline(each, []) for each in (report, comparable(report), large_report())]
    tables = [table for document in documents for table in tables_of(document)]
    results = [table for table in tables if re.match(r"(table|figure)\d.*_|paper_claims", table.key)]
    assert len(results) > 25
    many = replace(results[3], rows=results[3].rows * 40)
    for number, table in enumerate([*results, many]):
        (tmp_path / f"t{number}.tex").write_text(to_latex(table))
    body = "\n".join(rf"\input{{t{number}}}\clearpage" for number in range(len(results) + 1))
    assert compile_in(tmp_path, body) == ""


@needs_latex
def test_a_table_that_is_too_wide_is_noticed(report, tmp_path: Path):
    table = next(table for table in tables_of(outline(report, [])) if table.key == "table5_effects")
    long = TextRow((*table.rows[0].cells[:2], TextCell("8" * 90), *table.rows[0].cells[3:]))
    (tmp_path / "t0.tex").write_text(to_latex(replace(table, rows=(long,))))
    assert "Overfull" in compile_in(tmp_path, r"\input{t0}")


@needs_latex
def test_a_broken_table_does_not_compile(tmp_path: Path):
    (tmp_path / "t0.tex").write_text(TABLES[0].read_text().replace(r"\bottomrule", r"\bottomrul"))
    assert "Undefined control sequence" in compile_in(tmp_path, r"\input{t0}")
