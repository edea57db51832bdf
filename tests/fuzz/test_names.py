"""Names through every place where a user writes one: refused in one line, or whole in every format.

Each name is a function of its number: reserved ones, every category of Unicode, control characters, markup.
"""

from __future__ import annotations

import csv
import html
import json
import unicodedata
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from harness import cli
from harness.reporting import latex, markdown
from harness.reporting.figures.style import fonts_for
from harness.reporting.frames import safe_text
from harness.study.reserved import METRICS, TRICKS, looks_like
from tests.fuzz import workplace
from tests.fuzz.corpus import TINY, plain

MARKUP = (
    *("a|b", "`x`", "<b>x</b>", "[x](http://y)", "![x](y)", "$x_1$ #1 ~a^b \\foo {z}", "100% & more", "# x"),
    *("=1+1", "+ x", "-2", "@x", "..", "../x", "/etc", "a/b", "C:\\x", "con", "NUL.txt", "lpt1", "x.", " x "),
    *(
        "{{ 7 * 7 }}",
        "#read(1)",
        "' OR 1=1",
        '"',
        "''",
        "-->",
        "]]>",
        "&amp;",
        "null",
        "true",
        "1e5",
        "~",
        "x" * 300,
    ),
)
PLACES = (
    "study",
    "size",
    "table",
    "row",
    "column",
    "arm",
    "metric",
    "trick",
    "option",
    "folder",
    "question",
    "note",
)


@cache
def characters() -> dict[str, list[str]]:
    """Category of Unicode -> its characters, of all planes."""
    found: dict[str, list[str]] = {}
    for code in range(0x110000):
        found.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    return found


def name(number: int) -> str:
    """The name of this number."""
    random = Random(f"names/{number}")
    kind = number % 5
    if kind == 0:
        return random.choice(sorted(METRICS | TRICKS))
    if kind == 1:
        return random.choice(MARKUP)
    if kind == 2:
        return f"x{random.choice([*map(chr, (*range(32), *range(0x7F, 0x85), *range(0x86, 0xA0)))])}y"
    categories = sorted(characters())
    chosen = random.choices(categories, k=1 if kind == 3 else random.randint(2, 8))
    text = "".join(random.choice(characters()[each]) for each in chosen)
    return text.replace("\x85", "")  # YAML reads it as the end of a line, which it folds into a space


def study_with(place: str, text: str) -> dict[str, Any]:
    """The small study with the name in one place."""
    data = plain(TINY)
    first: dict[str, Any] = {"label": text if place == "row" else "first"}
    second: dict[str, Any] = {"label": "second", "set": {"lr": 0.01}}
    table = {"title": "T", "design": "rows", "rows": [first, second]}
    sizes = data["sizes"]
    edits: dict[str, tuple[dict[str, Any], dict[Any, Any]]] = {  # place -> what is changed, and to what
        "study": (data, {"study": text}),
        "question": (data, {"question": text}),
        "metric": (data, {"metric": text}),
        "size": (sizes, {text: sizes["mini"]}),
        "folder": (sizes["mini"], {"data": {"imagefolder": {"folder": text}}}),
        "column": (table, {"columns": {text: {}, "other": {"set": {"lr": 0.02}}}}),
        "trick": (second, {"add": text}),
        "option": (second, {"add": {"mixup": {text: 0.2}}}),
        "note": (second, {"note": text}),
        "arm": (second, {"start_from": text}),
    }
    if place in edits:
        changed, values = edits[place]
        changed.update(values)
    if place == "arm":
        data["arms"] = {text: {"set": {"lr": 0.3}}}
    return {**data, "tables": {text if place == "table" else "t": table}}


def written(folder: Path, data: Any) -> workplace.Workplace:
    text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    (folder / TINY.name).write_bytes(text.encode("utf-8", "surrogatepass"))
    return workplace.Workplace(folder)


def refused(folder: Path, place: str, text: str, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether a plan with the name there is refused, which must be in whole sentences with their lines."""
    code = written(folder, study_with(place, text)).harness("plan")
    said = capsys.readouterr()
    assert code in (cli.DONE, cli.USAGE_ERROR), (place, text)
    if code == cli.DONE:
        return False
    *problems, last = said.err.split("\n")[:-1]
    assert problems, (place, text)
    assert all(f"{TINY.name}" in line for line in problems), (place, text, said.err)
    assert last.endswith("nothing was started."), (place, text)
    return True


def check_places(numbers: range, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Every name in every place, planned. Returns those that may be labels, which a report must then show."""
    labels: dict[str, str] = {}
    for number in numbers:
        text = name(number)
        outcomes = {place: refused(folder, place, text, capsys) for place in PLACES}
        assert not outcomes["question"] or outcomes["row"], text
        if not outcomes["row"]:
            labels.setdefault(looks_like(text).casefold(), text)
    return [text for key, text in labels.items() if key]


def check_report(labels: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report whose rows are called so has each of them whole in every format."""
    data = plain(TINY)
    rows = [{"label": text, "set": {"lr": (k + 1) / 1000}} for k, text in enumerate(labels)]
    data |= {"question": labels[0], "tables": {"t": {"title": labels[-1], "design": "rows", "rows": rows}}}
    place = written(folder, data)
    for spec in place.specs():
        workplace.write_run(spec, place.runs_dir)
    out = folder / "report"
    assert place.harness("report", "--out", str(out)) == cli.DONE, capsys.readouterr().err
    lacking = fonts_for("".join(labels)).missing
    assert (lacking == "") == ("no font here has" not in capsys.readouterr().err)
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF-")
    read = {kind: (out / f"report.{kind}").read_text(encoding="utf-8") for kind in ("md", "html", "json")}
    report, tex = json.loads(read["json"]), (out / "tables" / "t.tex").read_text(encoding="utf-8")
    with (out / "tables" / "t.csv").open(encoding="utf-8", newline="") as file:
        fields = {row["row"] for row in csv.DictReader(file)}
    assert [cell["row"] for cell in report["findings"]["tables"][0]["cells"]] == labels
    flat = " ".join(tex.split())
    for text in labels:
        assert markdown.inline(text) in read["md"], text
        assert html.escape(text, quote=False) in read["html"].replace("&#39;", "'").replace("&#34;", '"'), (
            text
        )
        assert safe_text(text) in fields, text
        assert all(latex.escape(word) in flat for word in text.split()), text


@pytest.mark.parametrize(
    "numbers", [range(3), pytest.param(range(30), marks=pytest.mark.campaign)], ids=["3 names", "30 names"]
)
def test_a_name_is_refused_in_one_line_or_whole_in_every_format(numbers, tmp_path: Path, capsys):
    check_report(check_places(numbers, tmp_path, capsys), tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(30, 330, 50))
def test_300_names(first: int, tmp_path: Path, capsys):
    check_report(check_places(range(first, first + 50), tmp_path, capsys), tmp_path, capsys)
