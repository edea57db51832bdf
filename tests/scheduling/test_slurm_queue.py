"""Asking Slurm: seldom, with a limit on the time, for all processes at once; no answer is never evidence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.slurm import queue as asking
from harness.slurm.evidence import Evidence, decide
from harness.slurm.queue import FILE, Accounting, Ended, Task, ask_queue, locked, read_queue
from tests.scheduling.fake_slurm import FakeSlurm
from tests.timing import not_waited_out, until

ROWS = """\
101|0|101|RUNNING|None|harness-0123456789ab-g1
101|1|102|PENDING|Priority|harness-0123456789ab-g1
205|N/A|205|RUNNING|None|somebody|else's
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def test_the_queue_has_our_tasks_and_no_others(slurm: FakeSlurm, tmp_path: Path):
    slurm.says("queue", ROWS)
    queue = ask_queue(tmp_path)
    assert queue is not None
    assert queue.tasks == (
        Task("101", "0", "101", "RUNNING", "None", "harness-0123456789ab-g1"),
        Task("101", "1", "102", "PENDING", "Priority", "harness-0123456789ab-g1"),
    )
    assert [task.is_running for task in queue.tasks] == [True, False]


@pytest.mark.parametrize(
    ("index", "expanded"),
    [("3", ["3"]), ("[0-2]", ["0", "1", "2"]), ("[0,4-5%2]", ["0", "4", "5"]), ("0-4:2", ["0", "2", "4"])],
)
def test_a_line_that_stands_for_several_tasks_is_expanded(
    slurm: FakeSlurm, tmp_path: Path, index: str, expanded: list[str]
):
    slurm.says("queue", f"7|{index}|7|PENDING|Priority|harness-0123456789ab-g1\n")
    queue = ask_queue(tmp_path)
    assert queue is not None
    assert [task.index for task in queue.tasks] == expanded


def test_processes_that_ask_at_once_cost_one_query(slurm: FakeSlurm, tmp_path: Path):
    slurm.says("queue", ROWS)
    squeue = slurm.path / "bin" / "squeue"
    squeue.write_text(squeue.read_text() + "sleep 0.7\n")  # as long as all of them need to begin
    code = (
        "from pathlib import Path; from harness.slurm.queue import ask_queue;"
        f"print(len(ask_queue(Path({str(tmp_path)!r})).tasks))"
    )
    several = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(4)]
    assert [each.communicate()[0] for each in several] == [b"2\n"] * 4
    assert len(slurm.calls("squeue")) == 1


def test_a_query_that_failed_counts_as_one_and_means_unknown(slurm: FakeSlurm, tmp_path: Path):
    slurm.says("squeue.fails")
    assert ask_queue(tmp_path) is None
    asked = len(slurm.calls("squeue"))
    assert ask_queue(tmp_path) is None
    assert len(slurm.calls("squeue")) == asked == 2  # --me, and -u for old versions
    assert "--me" in slurm.calls("squeue")[0]


def test_the_next_query_is_made_when_the_last_is_old(slurm: FakeSlurm, tmp_path: Path):
    ask_queue(tmp_path, every_s=0.05)
    slurm.says("queue", ROWS)
    queue = until(lambda: (answer := ask_queue(tmp_path, every_s=0.05)) and answer.tasks and answer)
    assert len(queue.tasks) == 2


def test_a_slurm_that_hangs_is_given_up(slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.2)
    (slurm.path / "bin" / "squeue").write_text("#!/bin/sh\nexec sleep 1800\n")
    with not_waited_out():
        assert ask_queue(tmp_path) is None


def test_without_slurm_the_queue_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_queue(tmp_path) is None
    assert Accounting().ask({"": ["1"]}) is None


def test_the_answer_of_another_user_is_not_ours(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slurm.says("queue", ROWS)
    ask_queue(tmp_path)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert read_queue(tmp_path) is None
    slurm.says("queue")
    assert ask_queue(tmp_path) is not None
    assert len(json.loads((tmp_path / FILE).read_text())) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"0": 3}', '{"0": {"asked_s": "x"}}', "\x00"])
def test_a_damaged_file_of_answers_is_asked_again(slurm: FakeSlurm, tmp_path: Path, content: str):
    (tmp_path / FILE).write_text(content.replace('"0"', f'"{asking._user()}"'))
    slurm.says("queue", ROWS)
    queue = ask_queue(tmp_path)
    assert queue is not None
    assert len(queue.tasks) == 2


def test_reading_the_answer_asks_nobody(slurm: FakeSlurm, tmp_path: Path):
    assert read_queue(tmp_path) is None
    assert slurm.calls("squeue") == []
    assert list(tmp_path.glob(".queue*")) == []


def test_a_lock_that_is_held_is_waited_for_only_so_long(tmp_path: Path):
    with locked(tmp_path / "lock", 0) as first, locked(tmp_path / "lock", 0.1) as second:
        assert (first, second) == (True, False)


def test_sacct_says_how_tasks_ended_and_is_asked_about_all_arrays_at_once(slurm: FakeSlurm):
    slurm.says(
        "sacct",
        "7_0|9|COMPLETED|0:0|a\n7_1|10|CANCELLED by 1000|0:15|a\n7_2|11|RUNNING|0:0|a\n"
        "8_0|8|OUT_OF_ME+|0:125|b|c\n8_[1-3]|12|PENDING|0:0|b\n8_[4-5%2]|13|CANCELLED by 0|0:0|b\nnonsense\n"
        "9+1|10|TIMEOUT|0:0|b\n9_1|11|REQUEUE_HOLD|0:0|b\n9_2|12|REVOKED|0:0|b\n9_3|12||0:0|b\n",
    )
    assert Accounting().ask({"": ["7", "8"]}) == [
        Ended("7", "9", "COMPLETED", "0:0", "", "a"),
        Ended("7", "10", "CANCELLED", "0:15", "1000", "a"),
        Ended("8", "8", "OUT_OF_ME", "0:125", "", "b|c"),
        Ended("8", "13", "CANCELLED", "0:0", "0", "b"),
        Ended("9", "10", "TIMEOUT", "0:0", "", "b"),
    ]
    assert slurm.calls("sacct") == ["-X -n -P -o JobID,JobIDRaw,State,ExitCode,JobName -j 7,8"]


def test_an_agent_that_was_killed_for_memory_before_it_trained_says_so_of_all_runs():
    ended = [Ended("7", "7", "OUT_OF_MEMORY", "0:125")]
    decision = decide(["a", "b"], Evidence(ended=ended, began=1, memory_hint="raise memory_gb"))
    assert sorted(decision.failed) == ["a", "b"]
    assert "raise memory_gb" in decision.failed["a"]


def test_one_of_several_agents_cancelled_is_enough_to_stop():
    ended = [Ended("7", "7", "COMPLETED"), Ended("7", "8", "CANCELLED", "0:15", "0")]
    decision = decide(["a"], Evidence(ended=ended, began=2))
    assert (
        decision.interrupted == {"a": "its job was cancelled by root"} or "you" in decision.interrupted["a"]
    )
    assert decision.again == []
