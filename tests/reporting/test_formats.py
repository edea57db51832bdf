"""Each format is well formed, safe against any label, and needs nothing from outside."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pikepdf
import pytest

from harness.reporting import html as html_format
from harness.reporting.figures.runs import draw_all
from harness.reporting.latex import to_latex
from harness.reporting.markdown import to_markdown
from harness.reporting.pdf import to_pdf, typeset
from harness.reporting.render import outline
from harness.reporting.sections.tables import main_table
from tests.reporting.edits import edit_tables, only_table

LABELS = ("+ mixup", "<b>bold</b> & co", "50%_x&y", "a|b *c* `d` $e$", "#let x = [y]", "{{ 7 * 7 }} \\textbf")
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Tags in balance, visible cells, attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


@pytest.fixture(scope="module")
def page(rendered) -> str:
    return (rendered / "report.html").read_text()


@pytest.fixture(scope="module")
def nasty(report):
    """One table whose rows are called what breaks naive formats."""

    def rename(table):
        names = dict(zip(dict.fromkeys(cell.row for cell in table.cells), LABELS[:5], strict=False))
        cells = tuple(
            replace(
                cell,
                row=names[cell.row],
                sentence=f"{names[cell.row]}: {LABELS[5]}",
                effect=cell.effect and replace(cell.effect, versus=names[cell.effect.versus]),
            )
            for cell in table.cells
        )
        return replace(table, cells=cells, title=LABELS[5])

    named = edit_tables(only_table(report, "table4"), rename)
    return replace(named, title="<i>50%_x&y</i>")


def test_html_is_balanced_and_its_tables_are_rectangular(page):
    reader = read(page)
    assert reader.open == []
    assert Counter(tag for tag, _ in reader.tags)["table"] >= 10
    scopes = [attributes.get("scope") for tag, attributes in reader.tags if tag == "th"]
    assert set(scopes) == {"col", "colgroup", "row", "rowgroup"}
    for table in re.findall(r"<table>.*?</table>", re.sub(r'<tr class="spans">.*?</tr>', "", page), re.S):
        widths = Counter(len(row) for row in read(table).rows)
        assert len([width for width in widths if width > 1]) == 1


def test_html_loads_nothing_and_runs_only_its_own_script(page):
    own = (Path(html_format.TEMPLATES) / "report.js").read_text()
    assert page.count(f"<script>{own}</script>") == 1
    assert html_format.policy(own) in unescape(page)
    page = page.replace(f"<script>{own}</script>", "")
    assert not re.search(r"""(?:src|href|action|data)\s*=\s*["']?\s*(?:https?:)?//""", page)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", page)
    assert not re.search(r"<(script|link|iframe|object|embed)\b|\son\w+=", page)


def test_html_ids_are_unique_and_every_reference_has_its_target(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert [name for name, n in Counter(ids).items() if n > 1] == []
    targets = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert targets
    assert targets <= set(ids)


def test_every_table_is_a_region_with_a_name_of_its_own(page):
    """What axe calls landmark-unique: a screen reader lists regions by name."""
    names = [a["aria-label"] for _, a in read(page).tags if a.get("role") == "region"]
    assert len(names) > 5
    assert len(set(names)) == len(names)


def test_every_figure_has_an_alternative_text_made_from_its_numbers(report, page):
    pictures = draw_all(only_table(report, "table5"))
    board = next(picture for picture in pictures if picture.key == "scoreboard")
    assert "ResNet-50-C +1.54 [1.00, 2.08] ▲ helps (paper +0.21)" in board.alt
    page = re.sub(r'<figure class="board">.*?</figure>', "", page, flags=re.S)
    alts = [a["aria-label"] for tag, a in read(page).tags if a.get("role") == "img"]
    assert len(alts) == len(re.findall("<figure>", page))
    assert all(len(alt) > 40 for alt in alts)


def test_colours_of_text_have_enough_contrast():
    css = (Path(html_format.TEMPLATES) / "report.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark", 1)
    for part in (light, dark.split("@media (max-width")[0]):
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", part))
        for name in ("ink", "soft", "helps", "hurts", "link"):
            assert contrast(colours[name], colours["paper"]) >= 4.5, name
        assert contrast(colours["banner-ink"], colours["banner"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_labels_survive_markdown(nasty):
    text = to_markdown(outline(nasty, []))
    plain = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)
    for label in (*LABELS, "<i>50%_x&y</i>"):
        assert label in plain
    cells = [row.count("|") - row.count("\\|") for row in text.splitlines() if row.startswith("| ")]
    assert cells
    assert re.search(r"(?<!\\)<", text) is None


def test_labels_survive_html(nasty):
    pictures = draw_all(nasty)
    text = html_format.to_html(outline(nasty, pictures), {p.key: p.svg for p in pictures})
    reader = read(text)
    assert reader.open == []
    assert all(label in reader.text for label in (*LABELS, "<i>50%_x&y</i>"))
    assert "b" not in {tag for tag, _ in reader.tags}


def test_labels_survive_latex(nasty):
    text = to_latex(main_table(nasty.findings.tables[0], nasty.findings.settings))
    assert r"\textless{}b\textgreater{}bold\textless{}/b\textgreater{} \& co" in text
    assert r"50\%\_x\&y" in text
    assert r"a\textbar{}b *c* `d` \$e\$" in text
    body = text.split("\\midrule")[1].split("\\bottomrule")[0]
    outside_math = re.sub(r"(?<!\\)\$[^$]*?(?<!\\)\$", "", body)
    assert not re.search(r"(?<!\\)[%#$_^~]", outside_math)


def test_latex_rows_have_as_many_cells_as_the_column_specification(report):
    for table in report.findings.tables:
        text = to_latex(main_table(table, report.findings.settings))
        spec = re.sub(r">\{[^}]*\}|@\{\}", "", re.search(r"\\begin\{tabular\}\{(.*)\}\n", text).group(1))
        columns = len(re.findall(r"S\[[^]]*\]|p\{[^}]*\}|[lrc]", spec))
        rows = [line for line in text.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
        body = text.split("\\midrule")[1].split("\\bottomrule")[0].splitlines()
        assert len([row for row in rows if row in body]) == len(table.cells)
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}
        assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")


def test_labels_survive_pdf(nasty, tmp_path):
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed: the text of the PDF cannot be read back")
    pictures = draw_all(nasty)
    (tmp_path / "x.pdf").write_bytes(to_pdf(outline(nasty, pictures), {p.key: p.svg for p in pictures}))
    command = ["pdftotext", "-layout", str(tmp_path / "x.pdf"), "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = re.sub(r"\s+", " ", text)
    for label in (*LABELS, "<i>50%_x&y</i>"):
        assert label in words
    assert "This is a mini run on fashion_mnist" in words


def test_pdf_is_tagged_titled_and_claims_accessibility(rendered):
    assert b"pdfuaid" in (rendered / "report.pdf").read_bytes(), "not packed, so that any reader finds it"
    with pikepdf.open(rendered / "report.pdf") as pdf:
        assert pdf.pdf_version == "1.7"
        assert pdf.Root.MarkInfo.Marked
        assert pdf.Root.Lang == "en"
        assert pdf.docinfo["/Title"] == "Bag of Tricks for Image Classification"
        assert len(pdf.Root.StructTreeRoot.K) > 0


def test_a_packed_pdf_has_every_object_and_every_byte_of_its_pages(report):
    pictures = draw_all(only_table(report, "table5"))
    svgs = {picture.key: picture.svg for picture in pictures}
    drawn = outline(only_table(report, "table5"), pictures)
    was, now = typeset(drawn, svgs), to_pdf(drawn, svgs)
    assert len(now) < 0.6 * len(was)
    with pikepdf.open(io.BytesIO(was)) as one, pikepdf.open(io.BytesIO(now)) as other:
        assert kinds_of(one) == kinds_of(other)
        assert kinds_of(one)["/StructElem"] > 100
        pages = [[page.Contents.read_bytes() for page in pdf.pages] for pdf in (one, other)]
        assert pages[0] == pages[1]


def kinds_of(pdf: pikepdf.Pdf) -> Counter[str]:
    """How many dictionaries of each type a PDF has, but those that hold others."""
    types = [str(each.get("/Type", "")) for each in pdf.objects if isinstance(each, pikepdf.Dictionary)]
    return Counter(types)


def test_figures_carry_no_date_and_no_program_name(rendered):
    for path in (rendered / "figures").glob("*.svg"):
        assert "<dc:date>" not in path.read_text()
