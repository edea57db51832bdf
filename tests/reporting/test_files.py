"""What `render` writes, and that it writes the same bytes for the same input."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

import pytest

from harness.reporting import render
from harness.reporting.frames import to_csv, to_json
from tests.conftest import mostly_campaign
from tests.reporting.edits import only_table
from tests.reporting.sample import SEEDS

ABSENT = re.compile(r"(?<![A-Za-z])(nan|NaN|None|inf|undefined)(?![A-Za-z])")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_format_of_every_table_and_figure_is_written(rendered):
    names = set(files(rendered))
    assert {"report.md", "details.md", "report_short.md", "report.html", "report.pdf", "report.json"} <= names
    for table in ("table2", "table3", "table4", "table5", "table6"):
        assert {f"tables/{table}.csv", f"tables/{table}.tex"} <= names
    assert {"tables/table5_effects.tex", "tables/table5_values.tex", "tables/table5_details.tex"} <= names
    figures = {Path(name).stem for name in names if name.startswith("figures/")}
    assert {"scoreboard", "table6_curves", "runs"} <= figures
    assert all(f"figures/{stem}.svg" in names for stem in figures)
    assert {Path(name).suffix for name in names if name.startswith("figures/")} == {".svg", ".csv"}
    assert [name for name in names if name.startswith("data/")] == ["data/records.zip"]


@pytest.mark.campaign
def test_two_renderings_are_the_same_bytes_in_every_format(report, rendered, tmp_path):
    render(report, tmp_path)
    again, first = files(tmp_path), files(rendered)
    assert list(again) == list(first)
    assert [name for name in first if first[name] != again[name]] == []


def test_the_order_of_the_frames_changes_nothing_in_the_json(report):
    shuffled = replace(report, records=report.records.sample(frac=1, random_state=3))
    assert to_json(shuffled) == to_json(report)


def test_render_returns_its_files_and_leaves_no_file_of_an_older_report(report, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "gone.csv").write_text("an older table")
    (tmp_path / "report.json").write_text("{}")  # without it, the folder would not be a report's
    (tmp_path / "notes.txt").write_text("the user's own file")
    paths = render(only_table(report, "table3"), tmp_path).paths
    assert {str(path.relative_to(tmp_path)) for path in paths} == set(files(tmp_path)) - {"notes.txt"}


def test_a_full_disk_leaves_the_old_report_whole(report, tmp_path, monkeypatch):
    small = only_table(report, "table3")
    render(small, tmp_path)
    before = files(tmp_path)
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "report.json":
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        render(replace(small, title="Another title"), tmp_path)
    monkeypatch.undo()
    assert files(tmp_path) == before


MAKERS = {  # what makes a format -> the files that are not there when it fails
    "draw_all": {"figures/*"},
    "outline": {"report.md", "details.md", "report.html", "report.pdf"},
    "to_markdown": {"report.md"},
    "to_short": {"report_short.md"},
    "to_html": {"report.html"},
    "to_pdf": {"report.pdf"},
    "to_json": {"report.json"},
    "to_latex": {"tables/*_*.tex"},
    "paper_to_latex": {"tables/table3.tex"},
    "details_to_markdown": {"details.md"},
    "to_csv": {"tables/table3.csv"},
}


@pytest.mark.parametrize("maker", mostly_campaign(MAKERS, "outline", "to_html", "to_json", "to_csv"))
def test_one_format_that_fails_stops_no_other_and_leaves_no_old_one(maker, report, tmp_path, monkeypatch):
    small = only_table(report, "table3")
    if maker != "draw_all":
        monkeypatch.setattr(import_module("harness.reporting.render"), "draw_all", lambda _: [])
    render(small, tmp_path)
    before = files(tmp_path)

    def fail(*_: object) -> None:
        raise RuntimeError("no \x1b[31mglyph\nsecond line")

    monkeypatch.setattr(import_module("harness.reporting.render"), maker, fail)
    rendered = render(replace(small, title="Another title"), tmp_path)
    after = files(tmp_path)
    gone = {name for name in before if any(fnmatch(name, each) for each in MAKERS[maker])}
    assert gone
    assert set(after) == set(before) - gone
    assert len(rendered.failures) == (len(gone) if maker == "to_latex" else 1)
    for said in rendered.failures:
        assert said.endswith("cannot be made: RuntimeError: no \\x1b[31mglyph; the other formats are written")
    assert "Another title" in after.get("report.html", after.get("report.json", b"")).decode()


def test_no_text_shows_an_absent_number_as_nan_or_none(rendered):
    for name, content in files(rendered).items():
        if name.endswith((".md", ".csv", ".tex", ".json")):
            assert not ABSENT.search(content.decode()), name
    visible = re.sub(
        r"<style>.*?</style>|<script>.*?</script>|<svg.*?</svg>|<[^>]+>",
        "",
        (rendered / "report.html").read_text(),
        flags=re.S,
    )
    assert not ABSENT.search(visible)


def test_the_json_has_every_finding_every_run_and_nothing_of_the_moment(report):
    data = json.loads(to_json(report))
    said = ["schema", "title", "study", "size", "header", "notes", "arms", "runs", "provenance"]
    said += ["looks", "arm_seeds", "declaration", "costs"]
    assert sorted(data) == sorted([*said, "findings", "claims", "speed"])
    assert data["schema"] == 1
    for found, table in zip(data["findings"]["tables"], report.findings.tables, strict=True):
        assert [cell["sentence"] for cell in found["cells"]] == [cell.sentence for cell in table.cells]
    cell = data["findings"]["tables"][3]["cells"][1]
    assert cell["level"]["values"] == {
        str(s): v for s, v in report.findings.tables[3].cells[1].level.values.items()
    }
    assert [run["run_id"] for run in data["runs"]] == [run.run_id for run in report.plan.runs]
    assert {run["status"] for run in data["runs"]} == {"finished", "diverged", "failed"}
    assert [run["top1"] for run in data["runs"] if run["status"] == "diverged"] == [None]
    assert "predictions" not in data["runs"][0]
    assert set(data["arms"]) == set(report.plan.arms)


def test_a_run_without_a_record_is_in_the_json_as_not_run(report):
    fewer = replace(report, records=report.records.iloc[1:])
    runs = {run["run_id"]: run for run in json.loads(to_json(fewer))["runs"]}
    assert runs[report.records.iloc[0]["run_id"]]["status"] == "not run"


def test_csv_numbers_are_those_of_the_findings(report):
    for table in report.findings.tables:
        rows = list(csv.DictReader(to_csv(table).splitlines()))
        # a label that a spreadsheet would take for a formula has one space before it
        assert [row["row"].removeprefix(" ") for row in rows] == [cell.row for cell in table.cells]
        assert not [value for row in rows for value in row.values() if value.startswith(("=", "+", "@"))]
        for row, cell in zip(rows, table.cells, strict=True):
            if cell.level is None:
                assert row["mean"] == row["n"] == ""
            else:
                assert float(row["mean"]) == cell.level.mean
                assert int(row["n"]) == cell.level.n
                shown = {seed: float(row[f"seed_{seed}"]) for seed in SEEDS if row.get(f"seed_{seed}")}
                assert shown == cell.level.values
            if cell.effect is None:
                assert row["effect_estimate"] == row["effect_verdict"] == ""
            else:
                assert float(row["effect_low"]) == cell.effect.low
                assert row["effect_verdict"] == cell.effect.verdict
            for metric, value in cell.paper.items():
                assert (float(row[f"paper_{metric}"]), row[f"paper_{metric}_status"]) == (
                    value.value,
                    value.status,
                )
