"""`harness logs`: the right run is found, its story is told in order, and its Slurm logs are shown."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.commands.logs import TAIL_BYTES, story, tail
from harness.runs.claims import Claims, request_cancel
from harness.runs.folder import RunFolder, append_line
from harness.spec import FAILED
from tests.end_to_end.under_way import UnderWay


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UnderWay:
    for name in [name for name in os.environ if name.startswith(("HARNESS_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    return UnderWay.begin(tmp_path / "place")


@pytest.fixture
def logs(place: UnderWay, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def ask(*arguments: str) -> Any:
        assert place.harness("logs", *arguments) == 0
        said = capsys.readouterr()
        assert said.err == ""
        return json.loads(said.out) if "--json" in arguments else said.out.splitlines()

    return ask


@pytest.fixture
def refused(place: UnderWay, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def ask(*arguments: str) -> str:
        assert place.harness("logs", *arguments) == 2
        said = capsys.readouterr()
        assert said.out == ""
        return said.err

    return ask


def test_a_run_is_named_by_its_first_characters_or_by_row_and_seed(place, logs):
    folder = place.attempt("Baseline", 1)
    place.attempt("Smoothed", 0)
    for named in (
        (folder.run_id,),
        (folder.run_id[:6],),
        ("Baseline", str(place.study), "--seed", "1"),
        (folder.run_id[:6], str(place.study)),
    ):
        assert logs(*named, "--json")["run_id"] == folder.run_id


def test_what_is_not_one_run_is_said_with_those_it_could_be(place, refused):
    assert "no runs here yet; `harness run STUDY` makes some" in refused("ab12")
    for seed in (0, 1):
        place.attempt("Baseline", seed)
    one, other = sorted(place.folder("Baseline", seed).run_id for seed in (0, 1))
    assert f"2 runs begin with '': {one}, {other}" in refused("")
    assert "no run begins with 'zz'" in refused("zz")
    assert "a row is named with its study" in refused("Baseline")
    assert "a row and a seed need their study" in refused("Baseline", "--seed", "1")
    several = refused("Baseline", str(place.study))
    assert "row 'Baseline' has 2 runs; name one with --seed, or by its run_id" in several
    assert one in several
    assert "did you mean 'Baseline'?" in refused("Baselin", str(place.study))
    assert "no run has the seed 9. Valid: 0, 1" in refused("Baseline", str(place.study), "--seed", "9")


def test_a_run_that_was_never_begun_is_told_as_that(place, logs):
    lines = logs("Baseline", str(place.study), "--seed", "0")
    assert lines[0] == f"run {place.run('Baseline', 0).run_id}: missing"
    assert "no process has begun it yet" in lines
    assert not place.runs_dir.exists()


def events(folder: RunFolder, *lines: dict[str, Any]) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    for second, line in enumerate(lines):
        append_line(folder.events, {"time_s": 1_700_000_000.0 + second, **line})


def epoch(number: int, loss: float, top1: float) -> dict[str, Any]:
    return {"kind": "epoch", "step": 8 * number, "epoch": float(number), "train_loss": loss, "val_top1": top1}


def test_the_story_has_attempts_progress_in_short_stops_deaths_and_failures_in_order(place):
    folder = place.folder("Baseline", 0)
    events(
        folder,
        {"kind": "attempt", "attempt": 1, "device": "cuda:0", "device_name": "H100", "resumed_from_step": 0},
        epoch(1, 2.5, 10.0),
        {"kind": "checkpoint", "step": 8},
        epoch(2, 2.0, 20.0),
        {"kind": "checkpoint", "step": 16},
        {"kind": "worker_died", "message": "its worker was killed (SIGKILL)", "exit_code": -9},
        {
            "kind": "attempt",
            "attempt": 2,
            "device": "cpu",
            "device_name": "Some CPU",
            "resumed_from_step": 16,
        },
        {"kind": "stop", "step": 17},
        {"kind": "new_kind", "what": 7},
        {
            "kind": FAILED,
            "message": "ValueError: \x1b[2Jx",
            "traceback": "Traceback:\n  line\x07\nValueError",
        },
    )
    told = story(folder)
    assert [line.text for line in told] == [
        "attempt 1 on cuda:0 (H100), from step 0, the start",
        "epochs 1 to 2: training loss 2.5 to 2, top-1 10 to 20 %; 2 checkpoints, the last at step 16",
        "the process that trained it died: its worker was killed (SIGKILL)",
        "attempt 2 on cpu (Some CPU), from step 16",
        "stopped at step 17, with a checkpoint to go on from",
        "new_kind: what 7",
        "failed: ValueError: \\x1b[2Jx",
    ]
    assert told[-1].detail == "Traceback:\n  line\\x07\nValueError"
    assert [line.time_s for line in told] == [1_700_000_000.0 + second for second in (0, 4, 5, 6, 7, 8, 9)]


def test_who_had_the_run_and_a_request_to_stop_it_stand_in_their_places(place, logs):
    folder = place.folder("Baseline", 0)
    with Claims(place.runs_dir, job="4711") as claims:
        claims.take(folder.run_id)
        folder.append_event("attempt", attempt=1, device="cpu", resumed_from_step=0)
    with Claims(place.runs_dir, job="4712") as claims:
        claims.take(folder.run_id)
        folder.append_event("attempt", attempt=2, device="cpu", resumed_from_step=3)
    request_cancel(folder, "ann@desk")
    time.sleep(0.01)
    claims = Claims(place.runs_dir)  # that is held still
    claims.take(folder.run_id)
    texts = [line["text"] for line in logs(folder.run_id, "--json")["story"]]
    claims.release(folder.run_id)
    begins = ["attempt 1", "let go by", "attempt 2", "let go by", "ann@desk asked", "taken by"]
    assert [text[: len(begin)] for text, begin in zip(texts, begins, strict=True)] == begins
    assert "(job 4711)" in texts[1]
    assert "(job 4712)" in texts[3]


def test_a_failure_is_shown_with_its_traceback(place, logs):
    folder = place.attempt("Baseline", 0)
    folder.append_event(
        FAILED, message="KeyError: 'x'", traceback="Traceback (most recent call last):\n  there"
    )
    lines = logs(folder.run_id)
    assert lines[-1] == f"files: {folder.path}"
    assert any(line.endswith("  failed: KeyError: 'x'") for line in lines)
    assert "      there" in lines
    said = logs(folder.run_id, "--json")
    assert said["failure"] == {
        "message": "KeyError: 'x'",
        "traceback": "Traceback (most recent call last):\n  there",
    }
    place.attempt("Baseline", 0)  # it goes on
    assert logs(folder.run_id, "--json")["failure"] is None


def test_the_slurm_logs_are_those_of_the_agents_that_had_the_run(place, logs):
    submission = place.submit("0123456789ab", jobs={"g1.0": "11", "g2.0": "12", "g3.0": "13"})
    run = place.run("Baseline", 0)
    group = submission.group_of(run.run_id)
    agents = submission.folder / "agents"
    begun = {"kind": "started", "time_s": 1.0, "node": "n1", "array_job_id": "12", "restart_count": 1}
    append_line(agents / "12.jsonl", begun | {"array_task_id": "0"})  # the last task has the array's own id
    append_line(agents / "12.jsonl", {"kind": "run_started", "run_id": run.run_id})
    append_line(agents / "12.jsonl", {"kind": "left", "time_s": 2.0, "why": "no run of its group is left"})
    append_line(agents / "908.jsonl", begun | {"array_task_id": "1"})
    for task, text in (
        ("0", "line 1\nline 2\nline 3\n"),
        ("1", "of another task\n"),
        ("10", "of the tenth\n"),
    ):
        (submission.folder / "logs" / f"12_{task}_0.out").write_text(text)
    said = logs(run.run_id, str(place.study), "--lines", "2", "--json")
    assert said["submissions"] == [{"token": "0123456789ab", "group": group, "job_ids": ["12"]}]
    assert [(Path(log["file"]).name, log["lines"]) for log in said["logs"]] == [
        ("12_0_0.out", ["line 2", "line 3"])
    ]
    [agent] = said["agents"]
    assert [event["text"] for event in agent["events"]] == [
        "started on n1, life 2",
        "left: no run of its group is left",
    ]
    lines = logs(run.run_id, str(place.study))
    assert f"submission 0123456789ab, group {group}, Slurm jobs: 12" in lines
    assert lines[-5:-1] == ["line 1", "line 2", "line 3", ""]


def test_an_agent_that_has_only_claimed_the_run_is_seen_by_its_claim(place, logs):
    submission = place.submit("0123456789ab", jobs={"g2.0": "12"})
    append_line(
        submission.folder / "agents" / "907.jsonl",
        {"kind": "started", "array_job_id": "12", "array_task_id": "3"},
    )
    (submission.folder / "logs" / "12_3_0.err").write_text("Killed\n")
    folder = place.folder("Baseline", 0)
    with Claims(place.runs_dir, job="907") as claims:
        claims.take(folder.run_id)
    assert [log["lines"] for log in logs(folder.run_id, "--json")["logs"]] == [["Killed"]]


def test_where_no_agent_had_the_run_those_of_its_group_may_say_why(place, logs):
    submission = place.submit("0123456789ab", jobs={"g1.0": "11", "g2.0": "12"})
    for number, (array, text) in enumerate((("11", "of another group\n"), ("12", "exceeded memory limit\n"))):
        event = {"kind": "started", "array_job_id": array, "array_task_id": "0"}
        append_line(submission.folder / "agents" / f"90{number}.jsonl", event)
        (submission.folder / "logs" / f"{array}_0_0.err").write_text(text)
    said = logs("Baseline", str(place.study), "--seed", "0", "--json")
    assert [log["lines"] for log in said["logs"]] == [["exceeded memory limit"]]


def test_no_text_of_an_agent_chooses_a_file_elsewhere(place, logs, tmp_path):
    (tmp_path / "secret_0_0").write_text("secret")
    submission = place.submit("0123456789ab", jobs={"g2.0": "12"})
    run = place.run("Baseline", 0)
    event = {
        "kind": "run_started",
        "run_id": run.run_id,
        "array_job_id": "../../../../../secret",
        "array_task_id": "*",
    }
    append_line(submission.folder / "agents" / "907.jsonl", event)
    assert logs("Baseline", str(place.study), "--seed", "0", "--json")["logs"] == []


def test_the_end_of_a_huge_log_is_read_without_the_rest_and_moves_no_cursor(tmp_path):
    file = tmp_path / "log"
    with file.open("wb") as log:
        log.truncate(100 * TAIL_BYTES)
        log.seek(0, 2)
        log.write(b"\n\xff\xfe bytes\nred \x1b[31m\n")
    tracemalloc.start()
    last = tail(file, 2)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 10 * TAIL_BYTES
    assert last == ["�� bytes", "red \\x1b[31m"]
    assert tail(tmp_path / "absent", 2) == []


def test_a_damaged_folder_is_told_as_far_as_it_can_be_read(place, logs):
    folder = place.attempt("Baseline", 0)
    folder.spec.write_text('{"arm": 3}')
    (folder.path / "claim.1").write_text("")
    (folder.path / "cancel").write_text("{")
    with folder.events.open("a") as file:
        file.write('["no event"]\n{"kind": null}\n{"kind": "epoch", "epoch": "x"}\n')
    said = logs(folder.run_id, "--json")
    assert said["recipe"] is None
    assert len(said["story"]) >= 3
    assert logs(folder.run_id)[0].startswith(f"run {folder.run_id}: ")
