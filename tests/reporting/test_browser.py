"""The HTML report in a real browser: tables sort, no other script runs, and nothing is wider than a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.timing import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NONE = "NOT TRIED IN A BROWSER: no chromium here (package chromium)"
pytestmark = [pytest.mark.campaign, pytest.mark.skipif(CHROMIUM is None, reason=NONE)]
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
FIND_TABLE = """
const table = [...document.querySelectorAll("table")].find((each) => each.querySelector("tr.group"));
for (const each of document.querySelectorAll("details")) each.open = true;
const heads = [...table.tHead.rows[0].cells];
const at = heads.findIndex((each) => each.textContent.startsWith("Effect"));
const shown = () => [...table.tBodies].map((body) => [...body.rows].map(
    (row) => row.cells.length > 1 ? row.cells[at].dataset.value ?? null : row.textContent.trim()));
"""
CLICKS = """
const states = [shown()], said = [];
for (let click = 0; click < 3; click++) {
    heads[at].querySelector("button").click();
    states.push(shown()); said.push(heads[at].getAttribute("aria-sort"));
}
return {states, said};
"""
KEYBOARD = """
const buttons = heads.map((each) => each.querySelector("button"));
buttons[at].focus();
return {focused: document.activeElement === buttons[at], kinds: buttons.map((each) => each.type)};
"""


def in_browser(folder: Path, page: str, script: str = "", *, width: int = 1200) -> str:
    """The page after its scripts have run; what `script` returns is left in its title as JSON."""
    if script:
        ask = f"document.title = JSON.stringify((() => {{{script}}})());"
        page = POLICY.sub("", page).replace("</body>", f"<script>{ask}</script></body>")
    (folder / "page.html").write_text(page)
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder}/profile",
        f"--window-size={width},900",
    ]
    command += ["--virtual-time-budget=5000", "--dump-dom", (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return done.stdout


def answer_of(folder: Path, page: str, script: str):
    title = re.search(r"<title>(.*?)</title>", in_browser(folder, page, script), re.S).group(1)
    return json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def page(rendered) -> str:
    return (rendered / "report.html").read_text()


def numbers(cells: list[str | None]) -> list[float]:
    return [float(cell) for cell in cells[1:] if cell is not None]


def test_a_heading_sorts_up_then_down_then_as_it_was(page, tmp_path):
    found = answer_of(tmp_path, page, FIND_TABLE + CLICKS)
    first, up, down, again = found["states"]
    assert found["said"] == ["ascending", "descending", None]
    assert again == first != up
    for before, ascending, descending in zip(first, up, down, strict=True):
        assert len(numbers(before)) >= 3
        assert numbers(ascending) == sorted(numbers(before))
        assert numbers(descending) == sorted(numbers(before), reverse=True)
        # the group's heading stays on top, and a row without a number at the end
        assert ascending[0] == descending[0] == before[0]
        assert ascending[-1] is descending[-1] is None


def test_headings_are_buttons_that_the_keyboard_reaches(page, tmp_path):
    found = answer_of(tmp_path, page, FIND_TABLE + KEYBOARD)
    assert found["focused"]
    assert set(found["kinds"]) == {"button"}


def test_the_policy_lets_the_pages_own_script_run_and_no_other(page, tmp_path):
    planted = page.replace("</main>", "<script>document.title = 'planted'</script></main>")
    dom = in_browser(tmp_path, planted)
    assert "<title>planted" not in dom
    assert '<button type="button"' in dom


def test_without_a_script_every_row_is_there_and_no_heading_promises_to_sort(page, tmp_path):
    dom = in_browser(tmp_path, re.sub(r"<script>.*?</script>", "", page, flags=re.S))
    assert "<button" not in dom
    assert dom.count("<tr") == page.count("<tr")


def test_a_phone_shows_the_page_without_scrolling_sideways(page, tmp_path):
    tell = (
        "<script>parent.postMessage([document.documentElement.scrollWidth, innerWidth], '*')</script></body>"
    )
    (tmp_path / "inner.html").write_text(POLICY.sub("", page).replace("</body>", tell))
    outer = "<!DOCTYPE html><title></title><body><iframe width=390 height=800 src=inner.html></iframe>"
    outer += "<script>onmessage = (event) => { document.title = JSON.stringify(event.data); }</script></body>"
    title = re.search(r"<title>(.*?)</title>", in_browser(tmp_path, outer)).group(1)
    width, room = json.loads(title)
    assert room <= 390
    assert width <= room


WIDTHS = """
const svgs = [...document.querySelectorAll("figure svg")];
svgs.forEach((svg) => { svg.style.fontFamily = FAMILY; });
return svgs.flatMap((svg) => [...svg.querySelectorAll("text")]).map((text) => {
    const box = text.getBBox();
    return {word: text.textContent, given: text.textLength.baseVal.value, width: box.width};
});
"""


@pytest.mark.parametrize("family", ["DejaVu Sans", "serif", "monospace"])
def test_a_word_in_a_figure_is_as_wide_as_it_was_laid_out_in_any_font(page, tmp_path, family: str):
    found = answer_of(tmp_path, page, WIDTHS.replace("FAMILY", json.dumps(family)))
    assert len(found) > 100
    apart = [each for each in found if abs(each["width"] - each["given"]) > 1.5]
    assert apart == []


AXE = """
axe.run(document, {resultTypes: ["violations"]}).then((found) => {
    document.title = JSON.stringify(found.violations.map((each) => each.id + ": " + each.nodes[0].html));
});
"""
REPORTS = ("bag_of_tricks", "googlenet")  # one with columns and one without


@pytest.mark.parametrize("width", [1200, 500])
@pytest.mark.parametrize("study", REPORTS)
def test_axe_finds_nothing_that_keeps_a_reader_out(study: str, width: int, tmp_path: Path) -> None:
    import axe_core_python

    engine = Path(axe_core_python.__file__).with_name("axe.min.js").read_text()
    page = POLICY.sub("", (ROOT / "reports" / study / "report.html").read_text())
    checked = page.replace("</body>", f"<script>{engine}</script><script>{AXE}</script></body>")
    dom = in_browser(tmp_path, checked, width=width)
    title = re.search(r"<title>(.*?)</title>", dom, re.S)
    assert title is not None
    assert json.loads(html.unescape(title.group(1))) == []
