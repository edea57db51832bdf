"""Every committed LaTeX table is compiled, with booktabs and siunitx and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TABLES = sorted((Path(__file__).resolve().parents[2] / "reports").glob("*/tables/*.tex"))
HEAD = r"\documentclass{article}\usepackage{booktabs}\usepackage{siunitx}\begin{document}"

NONE = "NOT COMPILED: no pdflatex here (packages texlive-latex-recommended and texlive-science)"
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason=NONE)


def compile_in(folder: Path, body: str) -> str:
    """What pdflatex says at its first error, or ""."""
    (folder / "all.tex").write_text(f"{HEAD}\n{body}\n\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else done.stdout[-1500:]


@needs_latex
def test_every_committed_table_compiles(tmp_path: Path):
    assert len(TABLES) > 40
    for number, table in enumerate(TABLES):
        shutil.copy(table, tmp_path / f"t{number}.tex")
    body = "\n".join(rf"\input{{t{number}}}\clearpage" for number in range(len(TABLES)))
    assert compile_in(tmp_path, body) == ""


@needs_latex
def test_a_broken_table_does_not_compile(tmp_path: Path):
    (tmp_path / "t0.tex").write_text(TABLES[0].read_text().replace(r"\bottomrule", r"\bottomrul"))
    assert "Undefined control sequence" in compile_in(tmp_path, r"\input{t0}")
