"""The injector sees every way of writing, and does what is ordered: else a campaign would prove nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.orders import BROKEN_DISK, CUT, KILL, NO_SPACE, SHORT, Order
from tests.chaos.place import Place

WRITES = """
import os
from pathlib import Path
from harness.runs.folder import RunFolder, write_json

folder = RunFolder(Path("runs") / ("a" * 32))
folder.path.mkdir(parents=True)
folder.append_event("attempt", attempt=1)
write_json(folder.summary, {"status": "finished"})
handle = os.open(folder.path / "claim.1", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
os.write(handle, b"0123456789")
os.close(handle)
import sqlite3
with sqlite3.connect("mlflow.db") as store:
    store.execute("CREATE TABLE t (x)")
    store.execute("INSERT INTO t VALUES (1)")
"""
POINTS = [  # in the order in which the program comes by them
    "mkdir runs/N",
    "open events.jsonl",
    "write events.jsonl",
    "open summary.json",
    "write summary.json",
    "fsync summary.json",
    "replace summary.json",
    "create claim.N",
    "write claim.N",
    "sql CREATE mlflow.db",
    "sql INSERT mlflow.db",
    "sql COMMIT mlflow.db",
]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place").prepare()


def run(place: Place, *orders: Order) -> subprocess.CompletedProcess[str]:
    place.control.give(1, orders)
    return subprocess.run(
        [sys.executable, "-c", WRITES],
        cwd=place.work,
        env=place.environment(),
        capture_output=True,
        text=True,
    )


def only_file(place: Place, pattern: str) -> Path:
    [path] = place.runs_dir.glob(f"*/{pattern}")
    return path


def test_every_kind_of_write_is_seen_once_in_its_order(place: Place):
    from tests.chaos.injector import name_of

    assert run(place).returncode == 0
    watch = f"{place.work}/"
    seen = [f"{entry['op']} {name_of(watch + entry['path'], watch)}" for entry in place.control.audit()]
    assert [point for point in dict.fromkeys(seen) if point != "mkdir runs"] == POINTS


@pytest.mark.parametrize("point", POINTS)
def test_a_process_can_be_killed_at_every_write_point(place: Place, point):
    done = run(place, Order(point=point))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [said["point"] for said in place.control.fired(1)] == [point]


def test_killed_in_the_middle_of_a_write_half_of_the_bytes_are_there(place: Place):
    assert run(place, Order(point="write claim.N", phase="half")).returncode == -signal.SIGKILL
    assert only_file(place, "claim.1").read_bytes() == b"01234"


def test_killed_before_and_after_a_rename(place: Place):
    assert run(place, Order(point="replace summary.json")).returncode == -signal.SIGKILL
    assert only_file(place, ".summary.json.*.draft").stat().st_size > 10
    after = Place(place.base.parent / "after").prepare()
    assert run(after, Order(point="replace summary.json", phase="after")).returncode == -signal.SIGKILL
    assert only_file(after, "summary.json").stat().st_size > 10


@pytest.mark.parametrize("kind", [NO_SPACE, BROKEN_DISK])
def test_a_write_fails_with_the_error_of_the_system(place: Place, kind):
    done = run(place, Order(point="write summary.json", do=kind))
    assert done.returncode == 1
    assert {NO_SPACE: "No space left on device", BROKEN_DISK: "Input/output error"}[kind] in done.stderr


def test_a_short_write_says_how_much_it_wrote_and_python_writes_the_rest(place: Place):
    assert run(place, Order(point="write claim.N", do=SHORT)).returncode == 0
    assert only_file(place, "claim.1").read_bytes() == b"01234", "os.write leaves that to its caller"
    again = Place(place.base.parent / "again").prepare()
    assert run(again, Order(point="write summary.json", do=SHORT)).returncode == 0
    assert only_file(again, "summary.json").read_text() == '{\n "status": "finished"\n}\n'


def test_a_cut_write_loses_its_second_half_in_silence(place: Place):
    assert run(place, Order(point="write claim.N", phase="half", do=CUT)).returncode == 0
    assert only_file(place, "claim.1").read_bytes() == b"01234"


def test_of_several_processes_one_obeys_and_a_process_outside_the_study_none(place: Place):
    assert run(place, Order(point="create claim.N", do=KILL)).returncode == -signal.SIGKILL
    os.rename(place.runs_dir, place.work / "elsewhere")
    again = subprocess.run([sys.executable, "-c", WRITES], cwd=place.work, env=place.environment())
    assert again.returncode == 0, "the order has been obeyed"
