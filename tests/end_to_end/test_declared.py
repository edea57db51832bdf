"""`harness run` records what a study declares before it submits anything; reports say what was recorded."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest

from harness.commands.plan import declare, history_of
from harness.commands.workspace import load_plan, workspace
from harness.study.declaration import exploratory
from tests.conftest import Once
from tests.end_to_end.conftest import Finished, copy_of
from tests.end_to_end.workplace import Workplace
from tests.reporting.edits import loosen

FOLDER = "runs/.studies/tiny-mini"


def records(place: Workplace) -> list[dict[str, object]]:
    paths = sorted((place.path / FOLDER).glob("declaration.*.json"))
    return [json.loads(path.read_text()) for path in paths]


def text_of(place: Workplace) -> str:
    return (place.report_dir / "details.md").read_text()


def test_the_plan_is_recorded_before_the_first_run_and_the_report_says_so(finished: Finished):
    [record] = records(finished.place)
    assert (record["ended"], record["runs"], record["seen"]) == (0, 6, 0)
    short = str(record["plan_hash"])[:8]
    assert f"plan hash {short}, when 0 of 6 runs had ended" in finished.output
    text = text_of(finished.place)
    assert f"The plan (hash {short}) was recorded on" in text
    assert "before any of its 6 runs had ended." in text
    assert "Amendments to the plan" not in text
    events = [folder.events.stat().st_mtime_ns for folder in finished.place.folders()]
    assert (finished.place.path / FOLDER / "declaration.1.json").stat().st_mtime_ns < min(events)


def test_plan_and_status_say_it_and_write_nothing(copy: Workplace):
    before = copy.files()
    short = str(records(copy)[0]["plan_hash"])[:8]
    for command in ("plan", "status"):
        assert f"plan hash {short}" in copy.harness(command).stdout
    assert copy.files() == before
    shutil.rmtree(copy.path / "runs/.studies")
    assert "not declared yet" in copy.harness("plan").stdout
    assert not (copy.path / "runs/.studies").exists()


def test_a_study_that_was_trained_before_it_was_recorded_is_honest_about_that(copy: Workplace):
    shutil.rmtree(copy.path / "runs/.studies")
    again = copy.harness("run")  # the runs are as they were; the report is another
    assert "when 6 of 6 runs had ended" in again.stdout
    assert "when all of its 6 runs had ended: nothing here shows" in text_of(copy)


@pytest.fixture(scope="module")
def amended(finished: Finished, once: Once[Workplace]) -> Workplace:
    """A row was added when all had ended, and its runs were trained."""
    return once("amended", partial(amend, finished))


def amend(finished: Finished, folder: Path) -> Workplace:
    place = copy_of(finished, folder / "copy")
    place.add_row("{label: Warmer, add: {distillation: {teacher: teacher, temperature: 5}}}")
    text = "this plan differs: row “Warmer” of only added"
    assert text in place.harness("plan").stdout
    done = place.harness("run", "--on", "inline")
    assert done.returncode == 0, done.stderr
    assert "recorded as an amendment: row “Warmer” of only added" in done.stdout
    return place


def test_a_later_change_is_an_amendment_and_its_verdicts_exploratory(amended: Workplace):
    first, second = records(amended)
    assert (first["ended"], second["ended"], second["runs"], second["seen"]) == (0, 6, 8, 0)
    part = text_of(amended).split("## Amendments to the plan")[1].split("\n## ")[0]
    assert "when 6 of its 8 runs had ended: row “Warmer” of only added." in part
    assert "1 verdict marked as exploratory" in part
    cells = json.loads((amended.report_dir / "report.json").read_text())["findings"]["tables"][0]["cells"]
    tags = {cell["row"]: cell["effect"]["exploratory"] for cell in cells if cell["effect"]}
    assert [row for row, tag in tags.items() if tag] == ["Warmer"]


def test_such_a_report_is_computed_again_from_what_lies_beside_it(amended: Workplace, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(
        amended.path, elsewhere, ignore=shutil.ignore_patterns("runs", "mlflow.db", "mlartifacts")
    )
    away = Workplace(elsewhere).call("verify", "reports/tiny", "--study", "tiny.yaml")
    assert away.returncode == 0, away.stdout + away.stderr
    loosen(elsewhere / "reports/tiny")
    path = elsewhere / "reports/tiny/data/declaration.json"
    for old, new, code, says in (
        ('"ended": 6', '"ended": 0', 1, "details.md: "),
        ('"smoke": false', '"smoke": true', 2, "declaration.json: declaration 1 was changed by hand"),
    ):
        text = path.read_text()
        path.write_text(text.replace(old, new))
        done = Workplace(elsewhere).call("verify", "reports/tiny", "--study", "tiny.yaml")
        assert done.returncode == code, done.stdout
        assert says in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        path.write_text(text)


def test_a_damaged_record_stops_a_run_with_a_sentence(copy: Workplace):
    path = copy.path / FOLDER / "declaration.1.json"
    path.write_text(path.read_text().replace('"smallest_effect": ', '"smallest_effect": 1'))
    done = copy.harness("run")
    assert done.returncode == 2
    assert "declaration.1.json was changed by hand" in done.stderr
    assert "Restore it from a copy" in done.stderr
    assert "Traceback" not in done.stderr
    assert "declaration.1.json was changed by hand" in copy.harness("plan").stdout


def test_results_of_recipes_that_were_all_replaced_are_remembered(copy: Workplace):
    text = copy.study.read_text()
    copy.study.write_text(text.replace("epochs: 6", "epochs: 5"))
    done = copy.harness("plan")
    assert "this plan differs: recipe of 3 rows" in done.stdout
    args = Namespace(
        study=copy.study, size="mini", seeds=None, smoke=False,
        runs=copy.runs_dir, data=None, tracking_uri=None,
    )  # fmt: skip
    place = workspace(args)
    plan = load_plan(args, place)
    said = declare(plan, place)
    assert "when 0 of 6 runs had ended (amendment 1)" in said
    assert records(copy)[1]["seen"] == 6
    history = history_of(plan, place)
    assert history is not None
    assert {row for _, _, row in exploratory(plan, history["declarations"])} == {"Smoothed", "Distilled"}
