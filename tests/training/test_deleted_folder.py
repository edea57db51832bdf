"""A run folder that is deleted or replaced while the run trains: nothing ends there; it can be run again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runs.folder import MISSING, FolderGone, RunFolder, run_state, write_json
from harness.scheduling.workers import attempt
from harness.spec import FAILED, FINISHED
from harness.training.run import run_one
from tests.training.runs import folder_of, machine_in, tiny_spec, train

SPEC = tiny_spec(epochs=0.6)  # three steps


def at_step(number: int, act: Callable[[], None]) -> Callable[[], bool]:
    """Never asks to stop, and does this at the n-th question."""
    asked = iter(range(number))

    def stop() -> bool:
        if next(asked, None) is None:
            act()
        return False

    return stop


def delete(folder: RunFolder) -> None:
    shutil.rmtree(folder.path, ignore_errors=True)


def replace(folder: RunFolder) -> None:
    """As another `harness run` would make it anew."""
    if folder.lock.exists() and folder.events.exists():
        shutil.rmtree(folder.path)
        write_json(folder.spec, SPEC.to_json())
        folder.lock.touch()


@pytest.mark.parametrize("interval_s", [0.0, 30.0], ids=["at a checkpoint", "at the end"])
def test_a_deleted_folder_stays_away_and_the_run_is_run_again(
    interval_s: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(SPEC, tmp_path)
    machine = machine_in(tmp_path, checkpoint_every_s=interval_s)
    with caplog.at_level(logging.ERROR):
        status = attempt(run_one, SPEC, machine, at_step(2, lambda: delete(folder)))
    assert status == FAILED
    assert not folder.path.exists()
    assert run_state(folder) == MISSING
    [said] = [record.getMessage() for record in caplog.records]
    assert "was deleted or replaced while the run was trained" in said
    assert train(SPEC, tmp_path) == FINISHED
    assert run_state(folder) == FINISHED


def test_nothing_ends_in_a_folder_that_another_process_made(tmp_path: Path) -> None:
    folder = folder_of(SPEC, tmp_path)
    with pytest.raises(FolderGone):
        train(SPEC, tmp_path, at_step(2, lambda: replace(folder)))
    assert sorted(path.name for path in folder.path.iterdir()) == ["lock", "spec.json"]


def test_an_end_without_its_beginning_is_no_end_and_the_run_is_trained(tmp_path: Path) -> None:
    """As earlier versions left it: the folder was made anew by what was written last."""
    folder = folder_of(SPEC, tmp_path)
    assert train(SPEC, tmp_path) == FINISHED
    whole = folder.summary.read_bytes()
    last = folder.events.read_text().splitlines()[-1]
    for path in (folder.spec, folder.weights, folder.lock):
        path.unlink()
    folder.events.write_text(f"{last}\n")
    assert folder.read_summary() is None
    assert train(SPEC, tmp_path) == FINISHED
    assert folder.weights.exists()
    assert any(event["kind"] == "attempt" for event in folder.read_events())
    assert folder.summary.read_bytes() != whole  # other times


@pytest.mark.parametrize("content", [None, b"{}", b"\x00" * 100], ids=["missing", "another", "zeros"])
def test_a_spec_that_is_lost_is_written_again_and_the_results_are_kept(
    content: bytes | None, tmp_path: Path
) -> None:
    folder = folder_of(SPEC, tmp_path)
    assert train(SPEC, tmp_path) == FINISHED
    spec, summary = folder.spec.read_bytes(), folder.summary.read_bytes()
    folder.spec.unlink()
    if content is not None:
        folder.spec.write_bytes(content)
    assert run_state(folder) != FINISHED
    assert train(SPEC, tmp_path) == FINISHED
    assert folder.spec.read_bytes() == spec
    assert folder.summary.read_bytes() == summary


def test_predictions_that_were_lost_with_the_spec_are_made_again(tmp_path: Path) -> None:
    folder = folder_of(SPEC, tmp_path)
    assert train(SPEC, tmp_path) == FINISHED
    bits = folder.predictions.read_bytes()
    folder.spec.unlink()
    folder.predictions.write_bytes(b"x")
    assert train(SPEC, tmp_path) == FINISHED
    assert folder.predictions.read_bytes() == bits
