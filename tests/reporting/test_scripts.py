"""Labels in any script: every format is written, and what no font has is replaced and named."""

from __future__ import annotations

import io
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which

import matplotlib
import pikepdf
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from harness.reporting import render
from harness.reporting.document import Document, FigureBlock, Paragraph, Section
from harness.reporting.figures import style as fonts_module
from harness.reporting.figures.style import OWN, REPLACEMENT, fonts_for, house_style, new_figure, to_svg
from harness.reporting.latex import escape
from harness.reporting.pdf import to_pdf
from tests.reporting.edits import edit_tables, only_table

SCRIPTS = {
    "chinese": "\u6807\u7b7e\u5e73\u6ed1",
    "japanese": "\u3089\u3079\u308b \u5e73\u6ed1\u5316",
    "korean": "\ud55c\uad6d\uc5b4",
    "thai": "\u0e17\u0e14\u0e2a\u0e2d\u0e1a",
    "hebrew": "\u05e2\u05d1\u05e8\u05d9\u05ea",
    "arabic": "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "devanagari": "\u0939\u093f\u0928\u094d\u0926\u0940",
    "emoji": "\U0001f680\U0001f600\U0001f468\u200d\U0001f469",
    "combining": "e\u0301 Z\u0351\u0343",
    "rare": "\U00020000\U0001d49c\ue000",
}
ALL = " ".join(SCRIPTS.values())


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts_module, "_system_fonts", tuple)


def font_with(characters: str, path: Path) -> Path:
    """A font whose every glyph is a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = {ord(each): f"u{ord(each):04X}" for each in characters}
    glyphs = [".notdef", *names.values()]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys(glyphs, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (750, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular", "psName": "Squares"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def page(text: str) -> Document:
    section = Section("A section", (Paragraph(text),))
    return Document(title=text, question=text, scope="", banner="", sections=(section,))


def with_figure(text: str) -> tuple[Document, dict[str, bytes]]:
    """A page in Latin letters with a figure that says the text."""
    with house_style(text):
        figure = new_figure(1.0)
        figure.text(0.1, 0.5, text)
        svg = to_svg(figure)
    section = Section("A section", (FigureBlock("one", "A caption", "What the figure shows"),))
    plain = Document(title="Title", question="", scope="", banner="", sections=(section,))
    return plain, {"one": svg}


def fonts_in(pdf: bytes) -> str:
    """The names of the fonts of a PDF."""
    with pikepdf.open(io.BytesIO(pdf)) as document:
        dictionaries = [each for each in document.objects if isinstance(each, pikepdf.Dictionary)]
        return " ".join(str(each["/BaseFont"]) for each in dictionaries if "/BaseFont" in each)


def read_back(pdf: bytes, folder: Path) -> str:
    if which("pdftotext") is None:
        pytest.skip("pdftotext is not installed: the text of the PDF cannot be read back")
    (folder / "x.pdf").write_bytes(pdf)
    command = ["pdftotext", str(folder / "x.pdf"), "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_page_in_any_script_is_made_where_no_font_has_it(script: str, no_system_fonts: None):
    pdf = to_pdf(page(SCRIPTS[script]), {})
    assert pdf.startswith(b"%PDF-")
    assert b"pdfuaid" in pdf, "the replacement is a glyph, so that the page still claims PDF/UA-1"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_figure_in_any_script_is_in_a_pdf_where_no_font_has_it(script: str, no_system_fonts: None):
    assert b"pdfuaid" in to_pdf(*with_figure(SCRIPTS[script]))


@pytest.mark.parametrize("script", ["hebrew", "arabic"])
def test_the_words_of_a_figure_can_be_searched_for_in_a_pdf(
    script: str, tmp_path: Path, no_system_fonts: None
):
    text = read_back(to_pdf(*with_figure(f"{SCRIPTS[script]} + mixup")), tmp_path)
    assert "+ mixup" in text
    assert SCRIPTS[script] in text


def test_what_no_font_has_is_replaced_in_the_figures_of_a_pdf_whose_other_words_stay(
    tmp_path: Path, no_system_fonts: None
):
    assert f"{REPLACEMENT} + mixup" in read_back(to_pdf(*with_figure("\u732b + mixup")), tmp_path)


def test_marks_that_no_glyph_holds_are_outlines_in_a_pdf(tmp_path: Path, no_system_fonts: None):
    """typst 0.15 refuses them as text: https://github.com/typst/typst/issues/7432."""
    pdf = to_pdf(*with_figure("Z\u0351\u0343 + mixup"))
    assert b"pdfuaid" in pdf
    assert "mixup" not in read_back(pdf, tmp_path)


def test_a_font_of_the_system_is_in_the_figures_of_a_pdf(tmp_path: Path, monkeypatch):
    chinese = SCRIPTS["chinese"]
    squares = font_with(f"{chinese}+ mixup", tmp_path / "Squares.ttf")
    monkeypatch.setattr(fonts_module, "_system_fonts", lambda: (squares,))
    pdf = to_pdf(*with_figure(f"{chinese} + mixup"))
    assert "Squares" in fonts_in(pdf)
    assert chinese in read_back(pdf, tmp_path)


def test_what_matplotlib_s_own_font_has_is_shown_without_a_search(no_system_fonts: None):
    for script in ("hebrew", "arabic", "combining"):
        assert fonts_for(SCRIPTS[script]) == fonts_module.Fonts()


def test_a_font_of_the_system_shows_what_the_harness_s_fonts_lack(tmp_path: Path, monkeypatch):
    chinese = SCRIPTS["chinese"]
    squares = font_with(chinese, tmp_path / "Squares.ttf")
    other = font_with("\u0e17", tmp_path / "other.ttf")
    monkeypatch.setattr(fonts_module, "_system_fonts", lambda: (other, squares))
    found = fonts_for(f"{chinese} and Latin")
    assert (found.files, found.families, found.missing) == ((squares,), ("Squares",), "")
    assert found.sentence() == ""
    pdf = to_pdf(page(chinese), {})
    assert b"pdfuaid" in pdf
    assert "Squares" in fonts_in(pdf)
    with house_style(chinese):
        assert matplotlib.rcParams["font.family"] == [OWN, "Squares"]
    with house_style("Latin"):
        assert matplotlib.rcParams["font.family"] == [OWN]


def test_a_bold_heading_in_a_font_without_a_bold_cut_is_no_message(tmp_path: Path, monkeypatch, caplog):
    chinese = SCRIPTS["chinese"]
    squares = font_with(chinese, tmp_path / "Squares.ttf")
    monkeypatch.setattr(fonts_module, "_system_fonts", lambda: (squares,))
    with house_style(chinese):
        figure = new_figure(1.0)
        figure.text(0.5, 0.5, chinese, fontweight="bold")
        assert to_svg(figure)
    assert [record.getMessage() for record in caplog.records] == []


def test_a_file_that_is_no_font_is_passed_over(tmp_path: Path, monkeypatch):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(
        fonts_module, "_system_fonts", lambda: (tmp_path / "broken.ttf", tmp_path / "gone.ttf")
    )
    assert fonts_for("\u732b").missing == "\u732b"


def test_what_no_font_has_is_named_in_one_sentence(no_system_fonts: None):
    few, many = fonts_for("a\u732b b"), fonts_for("".join(map(chr, range(0x4E00, 0x4E20))))
    assert few.replaced("a\u732b b") == f"a{REPLACEMENT} b"
    assert few.sentence().startswith(
        "no font here has \u732b (U+732B): report.pdf shows \ufffd in their place; install"
    )
    assert "\u4e0b (U+4E0B) and 20 more: report.pdf" in many.sentence()
    assert "\n" not in many.sentence()


def test_pages_of_the_shipped_studies_need_no_font_of_the_machine():
    for path in sorted(Path(__file__).parents[2].glob("reports/*/report.md")):
        assert fonts_for(path.read_text()) == fonts_module.Fonts(), path


def test_a_report_in_every_script_is_whole_in_every_format(report, tmp_path: Path, no_system_fonts: None):
    table = only_table(report, "table3")
    labelled = edit_tables(
        table,
        lambda found: replace(found, cells=(replace(found.cells[0], row=ALL), *found.cells[1:])),
    )
    rendered = render(replace(labelled, title=ALL), tmp_path)
    assert rendered.failures == ()
    assert len(rendered.notes) == 1
    assert re.match("no font here has .* more: report.pdf shows", rendered.notes[0])
    for name in ("report.md", "report.html", "report.json", "tables/table3.csv"):
        assert ALL in (tmp_path / name).read_text(encoding="utf-8"), name
    tex = (tmp_path / "tables" / "table3.tex").read_text()
    assert all(ord(each) < 0x250 for each in tex)
    assert "[U+6807]" in tex
    text = read_back((tmp_path / "report.pdf").read_bytes(), tmp_path)
    assert SCRIPTS["hebrew"] in text or SCRIPTS["hebrew"][::-1] in text


@pytest.mark.parametrize("script", SCRIPTS)
def test_latex_has_no_letter_that_it_cannot_set(script: str):
    assert all(ord(each) < 0x250 for each in escape(SCRIPTS[script]))
