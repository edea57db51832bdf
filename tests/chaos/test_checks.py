"""Every check finds what it is for: a fault planted in what a study left behind, without any training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from tests.chaos.checks import Undisturbed, lost_work, violations
from tests.chaos.orders import ENVIRONMENT
from tests.chaos.place import Place, results
from tests.chaos.victims import living
from tests.ended import end
from tests.timing import PATIENCE_S, wait_until
from tests.tracking.folders import run_spec

SPEC = run_spec()
RUN = SPEC.run_id
CURVE = {"epoch": 1.0, "lr": 0.1, "train_loss": 2.0, "val_top1": 50.0}


def finished(place: Place) -> RunFolder:
    """A folder like that of a run that has ended, and its audit."""
    folder = RunFolder(place.runs_dir / RUN)
    folder.path.mkdir(parents=True)
    folder.append_event("epoch", step=8, **CURVE)
    folder.weights.write_bytes(b"weights")
    folder.predictions.write_bytes(b"predictions")
    end(folder, SPEC, metrics={"top1": 50.0}, steps=8)
    for name in ("weights.pt", "summary.json"):
        audit(place, 100, name)
    return folder


def audit(place: Place, pid: int, name: str, time_s: float = 0.0) -> None:
    entry = {"time_s": time_s, "pid": pid, "op": "replace", "path": f"runs/{RUN}/{name}"}
    with (place.control.path / "audit.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


PLANTED: dict[str, tuple[Callable[[Place, RunFolder], object], str]] = {
    "no summary": (lambda place, folder: folder.summary.unlink(), f"lost: {RUN}"),
    "another status": (
        lambda place, folder: end(folder, SPEC, "diverged", steps=8),
        "wrong: status",
    ),
    "a bit of a weight": (lambda place, folder: folder.weights.write_bytes(b"weighti"), "wrong: weights.pt"),
    "a bit of a prediction": (
        lambda place, folder: folder.predictions.write_bytes(b"predictionz"),
        "wrong: predictions.bin",
    ),
    "a point of the curve": (lambda place, folder: folder.events.write_text(""), "wrong: curve"),
    "a run of nobody": (lambda place, folder: (place.runs_dir / ("b" * 32)).mkdir(), f"wrong: {'b' * 32}"),
    "a second summary": (lambda place, folder: audit(place, 100, "summary.json"), "duplicated: the summary"),
    "turns": (
        lambda place, folder: [audit(place, 200, "checkpoint.pt"), audit(place, 100, "checkpoint.pt")],
        "duplicated: processes took turns",
    ),
    "a damaged line": (
        lambda place, folder: folder.events.write_text('{"ki\n' + folder.events.read_text()),
        "journal: a line",
    ),
    "a cut line": (
        lambda place, folder: folder.events.write_text(folder.events.read_text() + '{"ki'),
        "journal: the last line",
    ),
    "a double point": (
        lambda place, folder: folder.append_event("epoch", step=8, **CURVE),
        "journal: points",
    ),
    "a draft": (lambda place, folder: (folder.path / ".env.json.h.1.draft").touch(), "leftover: runs/"),
    "a checkpoint": (lambda place, folder: folder.checkpoint.touch(), "leftover: "),
    "a traceback": (
        lambda place, folder: (place.base / "errors.txt").write_text("Traceback (most recent call last):\n"),
        "traceback: 1",
    ),
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place").prepare()


@pytest.mark.parametrize("what", PLANTED)
def test_the_checks_find_a_planted_fault_and_nothing_else(place: Place, what):
    folder = finished(place)
    undisturbed = Undisturbed({RUN: results(folder)}, {})
    assert violations(place, undisturbed, store=False) == []
    plant, beginning = PLANTED[what]
    plant(place, folder)
    found = violations(place, undisturbed, store=False)
    assert any(sentence.startswith(beginning) for sentence in found), found
    assert {sentence.split(":")[0] for sentence in found} == {beginning.split(":")[0]}


def test_the_checks_find_an_orphan_and_a_missing_store(place: Place, monkeypatch):
    monkeypatch.setattr("tests.chaos.checks.ENDS_S", 0.2)
    undisturbed = Undisturbed({RUN: results(finished(place))}, {})
    environment = {**os.environ, ENVIRONMENT: str(place.control.path)}
    orphan = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment)
    try:
        # its environment can be read a moment after it has begun
        assert wait_until(lambda: living(place.control.path), PATIENCE_S)
        found = violations(place, undisturbed)
    finally:
        orphan.kill()
        orphan.wait()
    assert [sentence.split(":")[0] for sentence in found] == ["orphan", "mirror"]


def test_work_done_again_is_counted_from_the_checkpoint_that_was_gone_on_from(place: Place):
    steps = place.control.path / "steps"
    (steps / f"{RUN}.100.1").write_text("0 30 1000.0 1003.0\n")  # killed at step 30, its checkpoint at 20
    (steps / f"{RUN}.200.2").write_text("20 50 1005.0 1008.0\n")
    audit(place, 100, "checkpoint.pt", time_s=1001.0)
    audit(place, 100, "checkpoint.pt", time_s=1002.0)
    [lost] = lost_work(place)
    assert (lost.steps, lost.time_s) == (10, 1.0)
