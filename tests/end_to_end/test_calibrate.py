"""`harness calibrate` on runs that are there: the numbers, what is stored, the badge, and every refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main as harness
from harness.commands.calibrate import FOLDER, newest
from harness.commands.workspace import Workspace
from harness.errors import USAGE_ERROR
from harness.study.plan import Plan
from tests.end_to_end.identical import end, make_identical_runs

RUNS = 30
SMALL = ("--trainings", str(RUNS), "--arms", "3", "--tables", "400")


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(runs_dir=tmp_path / "runs", data_dir=tmp_path / "data", tracking_uri=None)


@pytest.fixture
def trained(place: Workspace) -> Plan:
    return make_identical_runs(place, RUNS)


def calibrate(place: Workspace, *arguments: str) -> int:
    return harness(["calibrate", *arguments, "--runs", str(place.runs_dir), "--data", str(place.data_dir)])


def stored(place: Workspace) -> dict[str, Any]:
    [path] = (place.runs_dir / FOLDER).glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_what_is_measured_is_printed_and_stored(place, trained, capsys):
    assert calibrate(place, *SMALL) == 0
    out, found = capsys.readouterr().out, stored(place)
    assert out.startswith("A/A self-test on this machine, 30 identical trainings of “three layers with batch")
    assert "which fill 3 tables without using one twice" in out
    assert (found["runs"], found["arms"], found["seeds"], found["tables"]) == (RUNS, 3, 3, 400)
    assert (found["device"], found["pool"]["runs"]) == ("a cpu", RUNS)
    assert found["rate"] == found["false_alarms"] / 400


def test_json_is_what_is_stored(place, trained, capsys):
    assert calibrate(place, *SMALL, "--json") == 0
    assert json.loads(capsys.readouterr().out) == stored(place)


def test_the_same_runs_give_the_same_numbers(place, trained, capsys):
    calibrate(place, *SMALL, "--json")
    first = json.loads(capsys.readouterr().out)
    calibrate(place, *SMALL, "--json")
    assert {**json.loads(capsys.readouterr().out), "measured": ""} == {**first, "measured": ""}


def test_reports_of_runs_on_the_same_device_find_it(place, trained):
    assert newest(trained, place) is None
    calibrate(place, *SMALL)
    assert newest(trained, place) == stored(place)
    for run in trained.runs:
        summary = place.folder(run.run_id).summary
        summary.write_text(summary.read_text().replace("a cpu", "another cpu"))
    assert newest(trained, place) is None


def test_a_damaged_file_is_no_calibration(place, trained):
    calibrate(place, *SMALL)
    [path] = (place.runs_dir / FOLDER).glob("*.json")
    path.write_text("{")
    assert newest(trained, place) is None


def test_runs_without_a_value_are_left_out_and_said(place, trained, capsys):
    for run in trained.runs[:22]:
        end(place, trained.spec(run), None)
    assert calibrate(place, *SMALL) == USAGE_ERROR
    text = capsys.readouterr().err
    assert "3 arms of 3 seeds need 9 runs, the pool has 8 (22 of 30 trainings have no value)" in text


def test_equal_values_say_nothing_about_noise(place, trained, capsys):
    for run in trained.runs:
        end(place, trained.spec(run), 70.0)
    assert calibrate(place, *SMALL) == USAGE_ERROR
    assert "every run of the pool gave the same value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seeds", "1"), "--seeds: a table with verdicts has at least 3, got 1"),
        (("--arms", "2"), "--arms: a table with verdicts has at least 3, got 2"),
        (("--trainings", "20"), "9 arms of 3 seeds need 27 runs, 20 are not enough for one table"),
        (("--trainings", "1001"), "--trainings: at most 1000, got 1001"),
        (("--row", "three layer"), "'three layer'"),
        (("--size", "mni"), "'mni'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_trained(place, capsys, arguments, words):
    assert calibrate(place, *arguments) == USAGE_ERROR
    assert words in capsys.readouterr().err
    assert not place.runs_dir.exists()
