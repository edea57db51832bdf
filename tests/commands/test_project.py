"""A command from another folder finds the project that has the study's runs, and begins no second one."""

from __future__ import annotations

import json
import os
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from harness.cli import main
from harness.commands.workspace import project_folder, workspace
from harness.study.yaml import shipped_studies
from tests.end_to_end.workplace import TINY


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which a study was run, beside an empty folder, which is the current one."""
    for name in ("HARNESS_RUNS", "HARNESS_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "project"
    for place in ("runs/.studies", "studies", "sub"):
        (folder / place).mkdir(parents=True)
    for place in ("tiny.yaml", "studies/tiny.yaml"):
        shutil.copy(TINY, folder / place)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


@pytest.mark.parametrize("file", ["tiny.yaml", "studies/tiny.yaml"])
@pytest.mark.parametrize("here", [".", "../project/sub"])
def test_runs_data_and_reports_are_those_beside_the_study(project: Path, file: str, here: str):
    os.chdir(here)
    study = Path(os.path.relpath(project / file))
    place = workspace(Namespace(study=study, runs=None, data=None, tracking_uri=None))
    assert place.runs_dir == project / "runs"
    assert place.data_dir == project / "data"
    assert project_folder([study, study]).resolve() == project


def test_the_current_folder_wins_once_it_has_runs(project: Path):
    Path("runs/.studies").mkdir(parents=True)
    assert project_folder(project / "tiny.yaml") == Path()


def test_what_is_said_wins(project: Path, monkeypatch: pytest.MonkeyPatch):
    asked = Namespace(study=project / "tiny.yaml", runs=Path("mine"), data=None, tracking_uri=None)
    assert workspace(asked).runs_dir == Path("mine").resolve()
    monkeypatch.setenv("HARNESS_RUNS", "own")
    asked.runs = None
    assert workspace(asked).runs_dir == Path("own").resolve()


def test_a_study_without_runs_and_one_that_ships_are_run_where_one_is(project: Path):
    shutil.rmtree(project / "runs")
    (project / "runs").mkdir()
    assert project_folder(project / "tiny.yaml") == Path(), "runs/ may be that of another program"
    assert project_folder(shipped_studies() / "mixup.yaml") == Path()
    assert project_folder(None) == Path()


def test_status_from_another_folder_sees_the_runs(project: Path, capsys: pytest.CaptureFixture[str]):
    os.chdir(project)
    assert main(["status", "tiny.yaml", "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    os.chdir(project / "sub")
    assert main(["status", "../tiny.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == there
    assert list((project / "sub").iterdir()) == []
