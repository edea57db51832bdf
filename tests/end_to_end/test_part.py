"""A part of a study: only its runs are trained, its report says what it is, its verdicts are the whole's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DONE, USAGE_ERROR
from tests.conftest import Once
from tests.end_to_end import scripted
from tests.end_to_end.workplace import Workplace

SAYS = (
    "Part of the study: only (row huge). Its verdicts are those of the whole declared plan, of which"
    " `harness run tiny` trains the rest."
)
HUGE = ("tiny.yaml", "--seeds", "3", "--row", "huge")


@pytest.fixture
def parted(once: Once[Workplace]) -> Workplace:
    """After `harness run --row huge`. Not to be changed."""

    def run(folder: Path) -> Workplace:
        place = scripted.begin(folder / "place")
        done = place.call("run", *HUGE, "--on", "inline")
        assert done.returncode == DONE, done.stderr
        (place.path / "said").write_text(done.stderr)
        return place

    return once("parted", run)


def report_of(place: Workplace, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place.path / "reports" / name / "report.json").read_text())
    return found


def labels(place: Workplace, *arguments: str) -> set[str]:
    plan = place.json("plan", "tiny.yaml", *arguments)
    return {arm["label"] for arm in plan["arms"].values()}


def test_only_the_runs_that_a_row_needs_are_trained_and_the_others_are_named(parted: Workplace) -> None:
    status = parted.json("status", "tiny.yaml", "--seeds", "3")
    states = {(run["arm"], run["seed"]): run["state"] for run in status["runs"]}
    ended = {arm for (arm, _), state in states.items() if state == "finished"}
    assert ended == {"only / plain", "only / huge"}
    assert list(states.values()).count("finished") == len(parted.folders()) == 6
    said = (parted.path / "said").read_text()
    assert "part of the study: only (row huge); 6 of 9 runs; with it only / plain (huge is compared" in said


def test_plan_and_status_of_a_part_show_it_alone(parted: Workplace) -> None:
    assert labels(parted, "--seeds", "3", "--row", "slight") == {"only / plain", "only / slight"}
    status = parted.json("status", *HUGE)
    assert {run["state"] for run in status["runs"]} == {"finished"}
    assert status["part"]["rows"] == ["huge"]
    said = parted.call("status", *HUGE).stdout
    assert "slight" not in said
    assert "declared " in said
    assert "this plan differs" not in said


def test_the_report_of_a_part_is_in_its_own_folder_and_every_form_says_what_it_is(parted: Workplace) -> None:
    folder = parted.path / "reports" / "tiny-part"
    assert not (parted.path / "reports" / "tiny").exists()
    assert (folder / "report.md").read_text().lstrip().startswith(SAYS)
    assert SAYS.partition(" `")[0] in (folder / "report.html").read_text()
    part = report_of(parted, "tiny-part")["part"]
    assert part == {"schema": 1, "tables": [], "rows": ["huge"], "columns": [], "says": SAYS}
    declared = report_of(parted, "tiny-part")["declaration"]
    assert declared["amendments"] == declared["not_recorded"] == []
    done = parted.call("verify", "reports/tiny-part", "--study", "tiny.yaml")
    assert done.returncode == DONE, done.stdout + done.stderr


def test_the_verdict_in_a_part_is_the_one_in_the_whole(once: Once[Workplace]) -> None:
    def run(folder: Path) -> Workplace:
        place = scripted.begin(folder / "place")
        assert place.call("run", "tiny.yaml", "--seeds", "3", "--on", "inline").returncode == DONE
        assert place.call("report", *HUGE).returncode == DONE
        return place

    place = once("whole", run)
    part, whole = report_of(place, "tiny-part"), report_of(place, "tiny")
    of_part, of_whole = part["findings"]["tables"][0], whole["findings"]["tables"][0]
    rows = {cell["row"]: cell for cell in of_whole["cells"]}
    assert {cell["row"] for cell in of_part["cells"]} == {"plain", "huge"}
    assert [cell for cell in of_part["cells"] if cell["row"] == "huge"] == [rows["huge"]]
    assert of_part["contrasts"] == of_whole["contrasts"] == 2
    assert len(part["runs"]) == 6
    assert "part" not in whole


@pytest.mark.parametrize("command", ["run", "plan", "status", "report"])
def test_a_row_that_is_not_there_is_refused_by_every_command(parted: Workplace, command: str) -> None:
    done = parted.call(command, "tiny.yaml", "--row", "hug")
    assert done.returncode == USAGE_ERROR
    assert done.stderr.startswith(
        "tiny.yaml: unknown row 'hug'; did you mean 'huge'? Valid: huge, plain, slight"
    )


@pytest.mark.parametrize("command", ["plan", "report"])
def test_a_part_of_several_studies_is_refused(parted: Workplace, command: str) -> None:
    done = parted.call(command, "tiny.yaml", "tiny.yaml", "--table", "only")
    assert done.returncode == USAGE_ERROR
    assert "--table, --row and --column are for one study; name one" in done.stderr
