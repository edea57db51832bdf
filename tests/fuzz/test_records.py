"""Damaged run folders, always the same: every command goes on, and says which file it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from harness.tracking.collect import collect
from harness.tracking.store import Store
from tests.conftest import mostly_campaign
from tests.fuzz.records import call, judge, prepared
from tests.fuzz.workplace import Workplace, nothing_trained

SHORT, LONG = 4, 12
SAID = {  # file -> (what is in it instead, what `harness sync` says)
    "summary.json": ('{"status": "finished"}', "is damaged (it lacks its run_id) and counts as none: "),
    "spec.json": ("{}", "is damaged (no 'schema') and counts as none: "),
    "predictions.bin": ("x", "has changed since the run ended; move summary.json away and "),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return prepared(tmp_path_factory.mktemp("records") / "template")


def copied(template: Workplace, folder: Path) -> Workplace:
    shutil.copytree(template.path, folder)
    return Workplace(folder)


@pytest.mark.parametrize("number", mostly_campaign(range(LONG), *range(SHORT)))
def test_no_command_ends_in_a_traceback(number: int, template: Workplace, tmp_path: Path) -> None:
    judge(template, tmp_path / "damaged", number, seed=2, report=number == 0)


@pytest.mark.parametrize("name", SAID)
def test_a_damaged_file_is_named_with_its_mend_and_the_other_runs_are_mirrored(
    name: str, template: Workplace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content, says = SAID[name]
    place = copied(template, tmp_path / "copy")
    folders = sorted(place.runs_dir.iterdir())
    (folders[0] / name).write_text(content)
    assert place.harness("sync") == 0
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{folders[0] / name} {says}")
    assert "`harness run`" in said
    finished = [run_id for run_id, status in _mirrored(place).items() if status == "finished"]
    assert finished == [folder.name for folder in folders[1:]]
    if "move summary.json away" in said:
        (folders[0] / "summary.json").rename(place.path / "away")
    with nothing_trained() as trained:
        call(place, "run", "--on", "inline", "--no-report")
    assert trained == [folders[0].name]
    caplog.clear()
    assert place.harness("sync") == 0
    assert caplog.records == []
    assert len(_mirrored(place)) == len(folders)


def _mirrored(place: Workplace) -> dict[str, str]:
    """run_id -> status, in the order of the ids."""
    records, _ = collect(Store.beside(place.runs_dir), "tiny", "mini")
    return dict(sorted(zip(records["run_id"], records["status"], strict=True)))


def test_lines_of_events_that_make_no_sense_are_left_out(template: Workplace, tmp_path: Path) -> None:
    place = copied(template, tmp_path / "copy")
    folder = RunFolder(sorted(place.runs_dir.iterdir())[0])
    (folder.path / "summary.json").unlink()
    with folder.events.open("ab") as file:
        for event in (
            {"kind": "epoch", "time_s": 1.0},
            {"kind": "epoch", "step": "x", "time_s": 1.0},
            [],
            None,
            3,
        ):
            file.write(json.dumps(event).encode() + b"\n")
    assert call(place, "sync") == ""
