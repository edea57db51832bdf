"""What a campaign has found, in its smallest form."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from harness.tracking.content import read_tail
from tests.chaos.orders import SHORT, Order
from tests.chaos.place import Place

OPEN = """
from pathlib import Path
from harness.tracking.store import Store
Store.beside(Path("runs")).client().create_experiment("study")
"""


@pytest.mark.campaign
def test_an_mlflow_store_whose_creation_was_killed_half_way_is_created_again(tmp_path: Path):
    place = Place(tmp_path / "place").prepare()
    for order in ([Order(point="sql CREATE mlflow.db", nth=60)], []):
        place.control.give(1, order)
        done = subprocess.run(
            [sys.executable, "-c", OPEN],
            cwd=place.work,
            env=place.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == (-signal.SIGKILL if order else 0), done.stderr
        assert (place.work / "mlflow.db").exists() is not bool(order)
    assert not list(place.work.glob(".mlflow.db*"))


@pytest.mark.parametrize("cut", [b'{"kind": "epo', b'{"kind": "epoch", "step": 3', b"", b"17", b"\xff\xfe"])
def test_the_mirror_passes_over_half_a_line_that_the_next_writer_closed(tmp_path: Path, cut: bytes):
    folder = RunFolder(tmp_path)
    folder.append_event("stop", step=3)
    with folder.events.open("ab") as file:
        file.write(cut)
    folder.append_event("worker_died", message="killed")
    assert [event["kind"] for event in read_tail(folder, 0).events] == ["stop", "worker_died"]
    assert read_tail(folder, 0).offset == folder.events.stat().st_size
    assert [event["kind"] for event in folder.read_events()] == ["stop", "worker_died"]


def test_a_summary_cut_in_the_middle_is_no_end_for_the_mirror(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.summary.write_text(json.dumps({"status": "finished"})[:9])
    assert folder.read_end() == (None, "")
    assert not folder.has_ended()


def test_an_event_of_which_a_full_disk_takes_only_a_part_is_an_error_not_a_silent_loss(tmp_path: Path):
    place = Place(tmp_path / "place").prepare()
    code = "from harness.runs.folder import *; RunFolder(Path('.')).append_event('epoch', step=1)"
    place.control.give(1, [Order(point="write events.jsonl", do=SHORT)])
    done = subprocess.run([sys.executable, "-c", code], cwd=place.work, env=place.environment())
    written = RunFolder(place.work).read_events()
    assert (done.returncode == 0) == bool(written), "it is written, or it is an error"


def test_a_run_that_was_killed_after_its_summary_keeps_no_checkpoint(tmp_path: Path):
    from tests.training.runs import folder_of, tiny_spec, train

    spec = tiny_spec()
    train(spec, tmp_path)
    folder_of(spec, tmp_path).checkpoint.write_bytes(b"left")
    assert train(spec, tmp_path) == "finished"
    assert not folder_of(spec, tmp_path).checkpoint.exists()
