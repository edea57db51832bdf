"""Damaged run folders, always the same: every command goes on, and says which file it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.study.records import RunFolder
from harness.tracking.collect import collect
from harness.tracking.store import Store
from tests.fuzz.records import call, judge, prepared
from tests.fuzz.workplace import Workplace, nothing_trained

CASES = 12
SAID = {  # file -> (what is in it instead, what `harness sync` says)
    "summary.json": (
        '{"status": "finished"}',
        "is damaged (its metrics are not numbers); delete summary.json and",
    ),
    "spec.json": ("{}", "is not the spec of a run (no 'schema'); delete the folder"),
    "predictions.bin": ("x", "has changed since the run ended; delete summary.json and"),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return prepared(tmp_path_factory.mktemp("records") / "template")


def copied(template: Workplace, folder: Path) -> Workplace:
    shutil.copytree(template.path, folder)
    return Workplace(folder)


@pytest.mark.parametrize("number", range(CASES))
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
    assert said.endswith("`harness run` does the run again. Other runs are not affected.")
    assert len(_mirrored(place)) == len(folders) - 1
    _mend(folders[0], says)
    with nothing_trained() as trained:
        call(place, "run", "--on", "inline", "--no-report")
    assert trained == [folders[0].name]
    caplog.clear()
    assert place.harness("sync") == 0
    assert caplog.records == []
    assert len(_mirrored(place)) == len(folders)


def _mirrored(place: Workplace) -> list[str]:
    records, _ = collect(Store.beside(place.runs_dir), "tiny", "mini")
    return list(records["run_id"])


def _mend(folder: Path, says: str) -> None:
    """What the message tells to do."""
    if "delete summary.json" in says:
        (folder / "summary.json").unlink()
    else:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


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
