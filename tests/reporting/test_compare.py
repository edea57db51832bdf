"""`harness report A B`: every format, the same bytes, and one clear error for whatever cannot be compared."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.reporting.frames import safe_text
from tests.reporting.test_files import files


@pytest.fixture(scope="module")
def sides(rendered, tmp_path_factory) -> tuple[Path, Path]:
    """The sample, and the same study trained again: other results, another learning rate, one row less."""
    base = tmp_path_factory.mktemp("sides")
    for name in ("before", "after"):
        (base / name).mkdir()
        shutil.copy(rendered / "report.json", base / name / "report.json")
    path = base / "after" / "report.json"
    report = json.loads(path.read_text())
    for run in report["runs"]:
        run["loss"] = 0.5
    for arm in report["arms"].values():
        arm["recipe"]["weight_decay"] = 0.5
    table = report["findings"]["tables"][3]
    gone = table["cells"].pop()
    table["cells"][1]["effect"].update(estimate=30.0, low=29.0, high=31.0)
    assert gone["row"] == "ResNet-50-D"
    path.write_text(json.dumps(report))
    return base / "before", base / "after"


@pytest.fixture(scope="module")
def compared(sides, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("compared")
    assert main(["report", *map(str, sides), "--out", str(out)]) == 0
    return out


def test_a_comparison_has_every_format(compared):
    names = set(files(compared))
    assert {"report.md", "report.html", "report.pdf", "report.json", "tables/comparison.csv"} <= names
    assert {"tables/table5_sides.tex", "tables/table5_levels.tex"} <= names
    assert (compared / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_two_comparisons_are_the_same_bytes(compared, sides, tmp_path):
    assert main(["report", *map(str, sides), "--out", str(tmp_path)]) == 0
    assert files(tmp_path) == files(compared)


def test_it_says_which_effects_differ_what_else_differs_and_what_one_side_lacks(compared):
    text = (compared / "report.md").read_text()
    assert "1 ≠ differ" in text
    assert "| ResNet-50-B |" in text
    assert "recipe.weight_decay" in text
    assert "Table 5: ResNet-50-D: only in A." in text
    assert "before" in text.splitlines()[0]
    rows = json.loads((compared / "report.json").read_text())["rows"]
    (changed,) = [row for row in rows if row["differences"][0]["answer"] == "differ"]
    assert (changed["table"], changed["row"]) == ("table5", "ResNet-50-B")


def test_the_csv_has_a_line_per_row_and_side(compared):
    with (compared / "tables" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["side"] for row in rows} == {"before", "after"}
    assert [row["difference_answer"] for row in rows if row["side"] == "before"] == [""] * (len(rows) // 2)


def test_the_same_report_under_two_names_is_not_tested(rendered, tmp_path, capsys):
    shutil.copytree(rendered, tmp_path / "copy")
    assert main(["report", str(rendered), str(tmp_path / "copy"), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "the same runs" in text
    assert "nothing could be tested" in text
    assert "No setting, version or recipe differs." in text


def edit(folder: Path, change) -> Path:
    path = folder / "report.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps(change(report) or report))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["findings"]["settings"].update(metric="top5"), "measure different things"),
        (lambda r: r.update(schema=99), "is of schema 99"),
        (lambda r: r.pop("runs") and None, "`runs` is not there"),
        (lambda r: [1], "is not the report of a study"),
        (lambda r: r["findings"].pop("tables") and None, "cannot be compared"),
        (lambda r: r["findings"]["tables"][0]["cells"].append(7), "cannot be compared"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_error(rendered, tmp_path, capsys, change, said):
    (tmp_path / "other").mkdir()
    shutil.copy(rendered / "report.json", tmp_path / "other" / "report.json")
    other = edit(tmp_path / "other", change)
    assert main(["report", str(rendered), str(other), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "1 problem;" in error
    assert not (tmp_path / "out").exists()


def test_a_study_without_a_report_a_damaged_file_and_the_same_folder_twice_are_errors(
    rendered, tmp_path, capsys
):
    assert main(["report", str(rendered), "studies/nothing.yaml", "--out", str(tmp_path / "out")]) == 2
    assert "has no report in reports/nothing" in capsys.readouterr().err
    (tmp_path / "report.json").write_text("{")
    assert main(["report", str(rendered), str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["report", str(rendered), str(rendered), "--out", str(tmp_path / "out")]) == 2
    assert "is given twice" in capsys.readouterr().err


def test_texts_that_a_spreadsheet_would_take_for_formulas_get_a_space_and_numbers_do_not():
    for text in ("=1+1", "+ mixup", "-x", "@SUM(A1)", "\tx"):
        assert safe_text(text) == f" {text}"
    assert safe_text("\rx") == " \nx"
    for value in (-0.5, 3, None, True, "mixup", " = x"):
        assert safe_text(value) is value


def test_studies_that_share_no_row_are_told_so_in_words(rendered, tmp_path):
    (tmp_path / "other").mkdir()
    report = json.loads((rendered / "report.json").read_text())
    for table in report["findings"]["tables"]:
        table["key"] = f"x_{table['key']}"
    (tmp_path / "other" / "report.json").write_text(json.dumps(report))
    assert main(["report", str(rendered), str(tmp_path / "other"), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "No row is on more than one side" in text
    assert "0 shared rows" in text
    assert "only in B." in text
