"""The floor of a study's data: measured once beside its runs, kept in its folder, written into its report."""

import json
import re
from argparse import Namespace

import pytest

from harness.commands.floors import AfterTheFirstBlock
from harness.commands.workspace import Workspace, first_plan
from harness.reporting.frames import read_extra
from harness.scheduling.base import Progress
from tests.end_to_end.workplace import TINY, Workplace


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("floors"))
    place.study.write_text(TINY.read_text().replace("epochs: 6", "epochs: 1"))
    assert place.harness("run").returncode == 0
    return place


def kept(place):
    (path,) = (place.runs_dir / ".floors").glob("*.json")
    return path, json.loads(path.read_text())


def test_a_floor_is_kept_beside_the_runs_and_in_the_report(done):
    _, floor = kept(done)
    assert floor["problem"] is None
    assert 10 < floor["linear"] < 90
    assert read_extra(done.report_dir)["floors"] == {"schema": 1, "why": "", "floors": [floor]}
    report = json.loads((done.report_dir / "report.json").read_text())
    assert (report["schema"], report["floors"]["floors"]) == (2, [floor])
    assert {run["data_fingerprint"] for run in report["runs"]} == {floor["fingerprint"]}


def test_a_report_with_floors_is_verified_without_measuring_them_again(done, monkeypatch):
    monkeypatch.setattr("harness.data.floor.measure", None)
    checked = done.call("verify", "reports/tiny", "--study", "tiny.yaml")
    assert (checked.returncode, "verified" in checked.stdout) == (0, True), checked.stdout


@pytest.mark.parametrize(
    "damage", [lambda text: text[:40], lambda text: text.replace('"schema": 1', '"schema": 7')]
)
def test_a_damaged_floor_is_measured_again(done, damage):
    path, floor = kept(done)
    text = path.read_text()
    path.write_text(damage(text))
    assert done.harness("report").returncode == 0
    assert kept(done)[1] == floor


def test_a_floor_of_another_setting_is_measured_again(done):
    path, floor = kept(done)
    path.write_text(json.dumps({**floor, "setting": "{}", "linear": 1.0}))
    assert done.harness("report").returncode == 0
    assert kept(done)[1] == floor


def test_a_study_whose_baseline_is_below_the_floor_says_so_after_its_first_block(done):
    shown = done.harness("status").stdout
    says = r"only: “Baseline” \(after 2 seeds\), [\d.]+ %, is below a linear classifier on the same images, "
    assert re.search(says, shown)
    assert "nothing that is compared with it can be tested" in shown
    assert json.loads(done.harness("status", "--json").stdout)["below_floor"]


def test_every_verdict_of_networks_below_the_floor_is_replaced_in_every_format(done):
    """Three networks of one epoch on 256 images: all below logistic regression."""
    report = json.loads((done.report_dir / "report.json").read_text())
    (table,) = report["findings"]["tables"]
    words = {cell["effect"]["verdict"] for cell in table["cells"] if cell["effect"]}
    assert words == {"cannot be tested here"}
    for name in ("report.md", "report_short.md", "report.html", "tables/only.csv", "tables/only.tex"):
        assert "cannot be tested here" in (done.report_dir / name).read_text(), name
    text = (done.report_dir / "details.md").read_text()
    assert "## What can be tested" in text
    assert not re.search(r"(helps|hurts|no detectable difference) (by|against|over)", text)


def test_a_plan_says_before_the_first_run_what_cannot_be_tested(done):
    """256 images at batch 32 are 8 updates an epoch."""
    shown = done.harness("plan").stdout
    assert "cannot be tested at this size: 2 of 2 comparisons: runs of fewer than 500 updates" in shown
    (line,) = json.loads(done.harness("plan", "--json").stdout)["cannot_be_tested"]
    assert "(the shortest has 8)" in line


def test_what_is_below_the_floor_is_said_once_when_every_row_has_a_result(done):
    place = Workspace(runs_dir=done.runs_dir, data_dir=done.path / "data", tracking_uri=None)
    plan = first_plan(Namespace(study=done.study, size="mini", seeds=None, smoke=False), place)
    notes: list[str] = []
    watch = AfterTheFirstBlock(plan, place, lambda progress: notes.append(progress.note))
    first = [run.run_id for run in plan.runs if run.seed == 0]
    for ended in (first[:-1], first, first):
        watch(Progress(waiting=0, running=(), ended=dict.fromkeys(ended, "finished")))
    assert ["is below a linear classifier" in note for note in notes] == [False, True, False]


def test_a_floor_of_other_data_is_measured_again_and_one_of_these_data_is_not(done, monkeypatch):
    from harness.data import floor

    measured = []
    right = floor.measure
    monkeypatch.setattr(floor, "measure", lambda *given: measured.append(given) or right(*given))
    assert done.harness("report").returncode == 0
    assert measured == []
    monkeypatch.setattr("harness.commands.floors.fingerprint_now", lambda *_: "of other images")
    assert done.harness("report").returncode == 0
    assert len(measured) == 1
