"""A short form of `tests.fuzz.files`: each file that commands read, damaged in one way, always the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.runs import records
from tests.fuzz.files import Scene, judge_file, quick_reports, scene
from tests.fuzz.records import Bug

FILES = (
    *("summary.json", "spec.json", "events.jsonl", "env.json", "predictions.bin", "open events.jsonl"),
    *("open claim.2", "open cancel", "submission.json", "runs.jsonl", "jobs.json", "agents/7.jsonl"),
    *("declaration.1.json", "calibration", ".queue.json", "report report.json"),
    *("report data/records.zip", "report data/runs.jsonl"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with quick_reports():
        yield scene(tmp_path_factory.mktemp("files") / "scene")


@pytest.mark.parametrize("name", FILES)
def test_no_command_that_looks_ends_in_a_traceback_whatever_file_is_damaged(name: str, made: Scene) -> None:
    judge_file(made, name, 0, seed=5, slow=False)


@pytest.mark.parametrize("name", ["summary.json", "report data/runs.jsonl", "report data/records.zip"])
def test_nor_does_one_that_trains_or_reports(name: str, made: Scene) -> None:
    judge_file(made, name, 0, seed=5)


def test_a_reader_that_checks_nothing_is_found_out(made: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "wrong_with_summary", lambda summary, run_id: "")
    path = made.place.runs_dir / made.ended / "summary.json"
    whole = path.read_text()
    path.write_text(whole.replace('"finished"', '["finished"]'))
    try:
        with pytest.raises(Bug, match=r"(Attribute|Type)Error"):
            made.call("status")
    finally:
        path.write_text(whole)


def test_a_report_is_written_from_a_store_that_can_only_be_read(
    made: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    really = Path.open

    def refuse(self: Path, *rest: Any, **more: Any) -> Any:
        if self.suffix == ".lock":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return really(self, *rest, **more)

    monkeypatch.setattr(Path, "open", refuse)
    out = made.place.path / "out of a read-only store"
    assert made.place.harness("report", "--out", str(out)) == 0
    assert "the report shows what was mirrored before" in capsys.readouterr().err
    assert (out / "report.json").is_file()
    assert made.place.harness("sync") == 2
