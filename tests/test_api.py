"""The Python API: the numbers of the report, in frames; light to import, and reading writes nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.api import Results
from tests.fuzz.workplace import Workplace, finished_study

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import run_notebook

REPOSITORY = Path(__file__).resolve().parents[1]
REPORT = REPOSITORY / "reports" / "batch_norm"
NOTEBOOK = REPOSITORY / "examples" / "results.ipynb"
MOST_BYTES = 300_000


@pytest.fixture(scope="module")
def results() -> Results:
    return harness.open_report(REPORT)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A small study, finished and mirrored."""
    place = finished_study(tmp_path_factory.mktemp("api"))
    assert place.harness("sync") == 0
    return place


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_importing_harness_loads_nothing_heavy_and_loading_a_study_no_torch_mlflow_or_pandas():
    code = (
        "import sys, harness\n"
        "heavy = {'torch', 'mlflow', 'pandas', 'numpy', 'scipy', 'matplotlib', 'pydantic', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        f"harness.load({str(REPOSITORY / 'studies' / 'mixup.yaml')!r}).plan()\n"
        "late = heavy - {'yaml', 'numpy'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_table_has_the_numbers_of_the_reports_json(results: Results):
    stored = json.loads((REPORT / "report.json").read_text())["findings"]["tables"]
    assert list(results.tables) == [table["key"] for table in stored]
    for table in stored:
        frame = results.table(table["key"])
        assert list(frame["row"]) == [cell["row"] for cell in table["cells"]]
        for row, cell in zip(frame.to_dict("records"), table["cells"], strict=True):
            if cell["level"] is not None:
                assert (row["n"], row["mean"]) == (cell["level"]["n"], cell["level"]["mean"])
                assert row["mean_high"] == pytest.approx(cell["level"]["high"], rel=1e-9, nan_ok=True)
            if cell["effect"] is not None:
                effect = cell["effect"]
                assert (row["versus"], row["verdict"]) == (effect["versus"], effect["verdict"])
                for name, field in (("effect", "estimate"), ("low", "low"), ("p_holm", "p_holm")):
                    wanted = np.nan if effect[field] is None else effect[field]
                    assert row[name] == pytest.approx(wanted, rel=1e-6, nan_ok=True)
                assert row["paper_effect"] == pytest.approx(effect["paper"] or np.nan, nan_ok=True)


def test_the_effect_is_the_mean_of_the_seeds_differences_and_the_seeds_are_the_runs(results: Results):
    table, seeds = results.table("figure3"), results.seeds("figure3")
    by_row = seeds.groupby("row")["difference"].mean()
    for row in table[table["effect"].notna()].itertuples():
        assert by_row[row.row] == pytest.approx(row.effect)
    top1 = results.runs.query("status == 'finished'").set_index(["arm_id", "seed"])["top1"]
    cells = {cell.row: cell.arm_id for cell in results.findings.tables[0].cells}
    for row in seeds.itertuples():
        assert top1[cells[row.row], row.seed] == row.top1


def test_claims_curves_and_findings_are_those_of_the_report(results: Results):
    assert list(results.claims["answer"]) == [claim.answer for claim in results.findings.claims]
    assert list(results.claims["says"]) == [claim.claim.says for claim in results.findings.claims]
    assert set(results.curves["run_id"]) <= set(results.runs["run_id"])
    copy = results.runs
    copy["top1"] = 0.0  # nobody can change what the report is written from
    assert results.runs["top1"].max() > 0


def test_a_figure_has_its_bytes_a_caption_and_words(results: Results):
    figure = results.figure("figure3")
    assert figure.svg.startswith(b"<?xml")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "BN-Baseline" in figure.alt
    assert figure.caption


def test_a_notebook_sees_the_tables_as_they_are_in_the_report(results: Results):
    html = results._repr_html_()
    assert html.count("<table>") == len(results.tables)
    assert '<th scope="row">BN-Baseline</th>' in html
    assert "∅ cannot be tested here" in html
    assert "<script" not in html


def test_the_frames_of_a_study_are_read_from_its_store_and_reading_writes_nothing(mirrored: Workplace):
    before = files(mirrored.path)
    study = harness.load(mirrored.study, runs=mirrored.runs_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = study.results()
    assert {key for key in found.tables} == {table.key for table in study.plan().tables}
    key = next(iter(found.tables))
    assert found.table(key)["n"].sum() == sum(
        len(cell.level.values) for cell in found.findings.tables[0].cells
    )
    assert "runs are done" in repr(study)
    assert files(mirrored.path) == before


def test_without_a_store_the_mend_is_named(tmp_path: Path):
    place = finished_study(tmp_path)
    with pytest.raises(harness.StudyError, match=r"there is no MLflow store at .*: run `harness sync`"):
        harness.load(place.study, runs=place.runs_dir).results()


def test_runs_that_are_not_mirrored_yet_are_counted_and_sync_reads_them(mirrored: Workplace, tmp_path: Path):
    place = Workplace(tmp_path / "copy")
    shutil.copytree(mirrored.path, place.path)
    with closing(sqlite3.connect(place.path / "mlflow.db")) as store:
        store.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE rowid IN (1, 2)")
        store.commit()
    study = harness.load(place.study, runs=place.runs_dir)
    with pytest.warns(UserWarning, match="2 runs that have ended are not in the tracking store"):
        few = study.results()
    found = study.results(sync=True)
    assert set(found.runs["run_id"]) == {run.run_id for run in study.plan().runs}
    assert len(few.runs) == len(found.runs) - 2


def test_the_report_of_the_api_is_the_one_of_the_command_line(mirrored: Workplace, tmp_path: Path):
    assert (
        mirrored.harness("report", "--out", str(tmp_path / "cli")) == 0
    )  # measures floors, which the api reads
    written = harness.load(mirrored.study, runs=mirrored.runs_dir).results().report(tmp_path / "api")
    assert written == tmp_path / "api" / "report.md"
    for name in ("report.md", "report.json", "report.html", "data/records.zip"):
        assert (tmp_path / "api" / name).read_bytes() == (tmp_path / "cli" / name).read_bytes()
    opened = harness.open_report(tmp_path / "api", study=mirrored.study)
    assert opened.findings == harness.load(mirrored.study, runs=mirrored.runs_dir).results().findings


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda results: results.table("figure_3"), "unknown table 'figure_3'; did you mean 'figure3'?"),
        (lambda results: results.seeds("nothing"), "unknown table 'nothing'. Valid: figure3, figure4"),
        (lambda _: harness.open_report(REPOSITORY / "docs"), "report.json: is not there; give the folder"),
        (lambda _: harness.load(REPOSITORY / "studies" / "mixpu.yaml"), "did you mean 'mixup'?"),
        (lambda _: harness.load(REPOSITORY / "studies" / "mixup.yaml", size="tiny"), "unknown size 'tiny'"),
        (lambda _: harness.load(REPOSITORY / "studies" / "mixup.yaml", seeds="many"), "a number of seeds"),
    ],
)
def test_a_mistake_is_said_in_the_words_of_the_command_line(results: Results, mistake, says: str):
    with pytest.raises(harness.StudyError) as caught:
        mistake(results)
    assert says in str(caught.value)


def test_the_notebook_shows_what_its_cells_give_today_and_is_small():
    stored = json.loads(NOTEBOOK.read_text())
    assert run_notebook.differences(stored, run_notebook.execute(stored, NOTEBOOK.parent)) == []
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in code)
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"])


def test_a_changed_output_of_the_notebook_is_seen():
    cell = {"cell_type": "code", "metadata": {}, "source": ["x = 1\n", "print(x)\n", "x + 1"], "outputs": []}
    executed = run_notebook.execute({"cells": [cell]}, REPOSITORY)
    assert list(run_notebook.texts(executed["cells"][0])) == ["1\n", "2"]
    again = run_notebook.execute(executed, REPOSITORY)
    assert run_notebook.differences(executed, again) == []
    executed["cells"][0]["outputs"][1]["data"]["text/plain"] = ["3"]
    assert run_notebook.differences(executed, again) == ["cell 1 shows other text than it did"]
