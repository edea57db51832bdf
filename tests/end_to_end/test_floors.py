"""The floor of a study's data: measured once beside its runs, kept in its folder, written into its report."""

import json

import pytest

from harness.reporting.frames import read_extra
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
