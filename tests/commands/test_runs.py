"""`harness list` shows the run folders; `harness clean` deletes what no study here needs and nobody cites."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from harness.cli import main
from harness.commands import runs
from harness.commands.plan import declare
from harness.commands.workspace import first_plan, workspace
from harness.runs.folder import RunFolder
from harness.study.plan import Plan
from tests.end_to_end.test_json import PAGE, documented, emitted, is_kind
from tests.end_to_end.workplace import TINY
from tests.ended import end


def ended(study: Path, smoothing: str | None = None) -> Plan:
    """Every run of the study has ended; `smoothing` makes its second row another recipe first."""
    if smoothing:
        study.write_text(TINY.read_text().replace("add: label_smoothing, p", f"add: {smoothing}, p"))
    place = workspace(Namespace(runs=None, data=None, tracking_uri=None))
    plan = first_plan(Namespace(study=study, size="mini", seeds=None, smoke=False), place)
    declare(plan, place)
    for run in plan.runs:
        folder = RunFolder(place.runs_dir / run.run_id)
        folder.path.mkdir(exist_ok=True)
        end(folder, plan.spec(run), metrics={"top1": 50.0 + run.seed})
    return plan


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study that was run, then changed in one row and run again."""
    for name in ("HARNESS_RUNS", "HARNESS_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(TINY, tmp_path)
    return tmp_path


def here_now(folder: Path) -> set[str]:
    return {path.name for path in (folder / "runs").glob("[!.]*")}


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(argv) == 0
    return capsys.readouterr().out


@pytest.fixture
def changed(here: Path) -> tuple[set[str], set[str]]:
    """The runs that the study needs, and those that it needed before it was changed."""
    before = {run.run_id for run in ended(here / "tiny.yaml", "{label_smoothing: {eps: 0.3}}").runs}
    now = {run.run_id for run in ended(here / "tiny.yaml", "{label_smoothing: {eps: 0.2}}").runs}
    assert len(before - now) == 2
    return now, before - now


def test_runs_are_listed_with_what_they_are(here: Path, capsys: pytest.CaptureFixture[str]):
    plan = ended(here / "tiny.yaml")
    data = json.loads(said(capsys, "list", "--json"))
    assert {run["run_id"] for run in data["runs"]} == {run.run_id for run in plan.runs}
    for run in data["runs"]:
        assert (run["state"], run["model"], run["data"]) == ("finished", "resnet50", "fashion_mnist")
        assert run["studies"] == ["tiny-mini"]
        assert run["metrics"] == {"top1": 50.0 + run["seed"]}
    keys = documented(PAGE.read_text(), "list")
    found = list(emitted(data, keys))
    assert {key for key, _ in found} == keys.keys()
    assert all(is_kind(value, keys[key]) for key, value in found)


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("--of", "tiny"), 6),
        (("--of", "tiny-mini"), 6),
        (("--of", "tin"), 0),
        (("--state", "failed"), 0),
        (("--model", "resnet50", "--dataset", "fashion_mnist"), 6),
        (("--model", "vgg"), 0),
    ],
)
def test_filters_all_have_to_fit(
    here: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], count: int
):
    ended(here / "tiny.yaml")
    assert len(json.loads(said(capsys, "list", "--json", *words))["runs"]) == count


def test_a_state_that_there_is_not_is_refused(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["list", "--state", "finishd"]) == 2
    assert "--state: unknown state 'finishd'; did you mean 'finished'?" in capsys.readouterr().err


def test_what_no_study_needs_is_shown_and_goes_only_when_somebody_agrees(
    here: Path, changed: tuple[set[str], set[str]], capsys: pytest.CaptureFixture[str]
):
    needed, old = changed
    shown = said(capsys, "clean")
    assert "to delete: 2 runs that no study here needs" in shown
    assert all(run_id[:8] in shown for run_id in old)
    assert "to delete them: --yes\nnothing was deleted" in shown
    assert here_now(here) == needed | old
    assert "2 runs deleted" in said(capsys, "clean", "--yes")
    assert here_now(here) == needed
    assert list((here / "runs").glob(".deleted*")) == []
    assert "nothing to delete" in said(capsys, "clean", "--yes")


def test_a_run_that_a_report_cites_stays(
    here: Path, changed: tuple[set[str], set[str]], capsys: pytest.CaptureFixture[str]
):
    needed, (cited, other) = changed[0], sorted(changed[1])
    (here / "reports/old").mkdir(parents=True)
    (here / "reports/old/report.json").write_text(json.dumps({"runs": [{"run_id": cited}]}))
    assert "kept: 1 run that a report cites" in said(capsys, "clean", "--yes")
    assert here_now(here) == needed | {cited}
    (here / "reports/old/report.json").write_text("{")
    assert main(["clean", "--yes"]) == 2
    assert "reports/old/report.json: cannot be read, so nobody knows" in capsys.readouterr().err
    assert other not in here_now(here)


def test_a_run_under_way_stays(
    here: Path, changed: tuple[set[str], set[str]], monkeypatch: pytest.MonkeyPatch
):
    needed, (running, _) = changed[0], sorted(changed[1])
    states = runs.run_state
    monkeypatch.setattr(runs, "run_state", lambda f: "running" if f.run_id == running else states(f))
    assert main(["clean", "--yes"]) == 0
    assert here_now(here) == needed | {running}


def test_runs_of_a_study_whose_file_is_elsewhere_stay_until_it_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
):
    ended(here / "tiny.yaml")
    text = TINY.read_text().replace("study: tiny", "study: other").replace("seeds: 2", "seeds: 3")
    (here / "away").mkdir()
    (here / "away/other.yaml").write_text(text.replace("epochs: 6", "epochs: 5"))
    before = here_now(here)
    ended(here / "away/other.yaml")
    both = here_now(here)
    assert "kept: 9 runs of other-mini, whose file is not here" in said(capsys, "clean", "--yes")
    assert here_now(here) == both
    assert "nothing to delete" in said(capsys, "clean", "--yes", "away/other.yaml")
    assert main(["clean", "--yes", "--of", "othr"]) == 2
    assert "--of: unknown study 'othr'; did you mean 'other'?" in capsys.readouterr().err
    assert "9 runs deleted" in said(capsys, "clean", "--yes", "--of", "other")
    assert here_now(here) == before


def test_without_a_study_or_with_a_broken_one_nothing_goes(here: Path, capsys: pytest.CaptureFixture[str]):
    ended(here / "tiny.yaml")
    before = here_now(here)
    (here / "tiny.yaml").write_text(TINY.read_text().replace("label_smoothing", "label_smothing"))
    assert main(["clean", "--yes"]) == 2
    assert "unknown trick 'label_smothing'" in capsys.readouterr().err
    (here / "tiny.yaml").unlink()
    assert main(["clean", "--yes"]) == 2
    assert "no study here, so every run would go" in capsys.readouterr().err
    assert here_now(here) == before
