"""`harness status`: what it says of every run, of the queue and of what waits is true; it writes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.commands import overview
from harness.commands.overview import Overview
from harness.runs import state
from harness.runs.claims import Claims, request_cancel
from harness.runs.folder import MISSING, RunFolder, run_state, write_json
from harness.runs.state import reconcile
from harness.spec import DIVERGED, FAILED
from harness.study.plan import Plan
from tests.end_to_end.under_way import UnderWay, program, squeue_says, task
from tests.ended import end
from tests.timing import not_waited_out

Says = Callable[..., Any]
JOBS = {"g1.0": "11", "g2.0": "12", "g3.0": "13"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UnderWay:
    """The tiny study; of Slurm there is only what a test puts into `bin`."""
    for name in [name for name in os.environ if name.startswith(("HARNESS_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv(
        "PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin" if not shutil.which("squeue") else str(tmp_path / "bin")
    )
    monkeypatch.setenv("COLUMNS", "200")
    return UnderWay.begin(tmp_path / "place")


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """The folder of Slurm commands."""
    for name in ("cat", "sh", "sleep"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name, path="/usr/bin:/bin") or "/bin/sh")
    return tmp_path / "bin"


@pytest.fixture
def status(place: UnderWay, capsys: pytest.CaptureFixture[str]) -> Says:
    def ask(*arguments: str) -> Any:
        assert place.harness("status", str(place.study), *arguments) == 0
        said = capsys.readouterr()
        assert said.err == ""
        return json.loads(said.out) if "--json" in arguments else said.out.splitlines()

    return ask


def state_of(said: dict[str, Any], row: str, seed: int) -> str:
    [run] = [run for run in said["runs"] if run["arm"].endswith(row) and run["seed"] == seed]
    return run["state"]


def files(place: UnderWay) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in place.path.rglob("*")}


def shapes(plan: Plan, runs_dir: Path) -> Claims:
    """The runs of a plan in every shape a folder can have, one after another; the claims keep one running."""
    folders = [RunFolder(runs_dir / run.run_id) for run in plan.runs]
    _missing, stopped, failed, cancelled, both, held, locked, cut, *more, died = folders
    claims = Claims(runs_dir)
    for folder in (stopped, failed, cancelled, both, held, locked, cut):
        folder.path.mkdir(parents=True)
        folder.append_event("attempt", attempt=1, device="cpu")
    died.path.mkdir(parents=True)
    died.append_event("worker_died", message="before its first attempt")
    for folder in (failed, both):
        folder.append_event(FAILED, message="ValueError: it [broke]\x1b[31m")
    for folder in (cancelled, both):
        request_cancel(folder, "me@here")
    claims.take(held.run_id)
    cut.events.write_bytes(cut.events.read_bytes() + b'{"kind": "failed"}')  # without its line end
    specs = {run.run_id: plan.spec(run) for run in plan.runs}
    for folder in more:
        end(folder, specs[folder.run_id], "diverged")
    for folder, text in zip(more[1:], ('{"half', "[]", "", '{"no": 1}'), strict=False):
        folder.summary.write_text(text)
    return claims


def test_the_fast_look_at_a_folder_agrees_with_the_state_of_one_run(place):
    place.study.write_text(place.study.read_text().replace("seeds: 2", "seeds: 5"))
    plan = place.plan
    with shapes(plan, place.runs_dir), (place.runs_dir / plan.runs[6].run_id / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        views = state.look(plan, place.runs_dir, reconcile(plan, place.runs_dir))
        for run in plan.runs:
            assert views[run.run_id].state == run_state(RunFolder(place.runs_dir / run.run_id)), run
        seen = [views[run.run_id].state for run in plan.runs[:9]]
    expected = [
        "missing",
        "stopped",
        "failed",
        "cancelled",
        "failed",
        "running",
        "running",
        "stopped",
        "diverged",
    ]
    assert seen == expected
    messages = {view.message for view in views.values() if view.message}
    assert messages == {"ValueError: it [broke]\\x1b[31m"}


@pytest.mark.parametrize("released", [True, False])
def test_a_claim_that_is_released_or_stale_holds_nothing(place, monkeypatch, released):
    plan = place.plan
    folder = place.attempt("Baseline", 0)
    claims = Claims(place.runs_dir)
    claims.take(folder.run_id)
    look = lambda: state.look(plan, place.runs_dir, {})[folder.run_id].state  # noqa: E731
    assert look() == "running"
    if released:
        claims.release(folder.run_id)
    else:
        claims.__exit__(None, None, None)
        content = json.loads((folder.path / "claim.1").read_text()) | {"released": False, "host": "elsewhere"}
        (folder.path / "claim.1").write_text(json.dumps(content))
        assert look() == "running"
        os.utime(folder.path / "claim.1", (time.time() - 91, time.time() - 91))
    assert look() == "stopped"


def test_rows_are_named_with_a_word_per_seed_and_rows_that_share_runs_point_to_the_first(place, status):
    place.study.write_text(place.study.read_text() + "      - {label: Once more, add: label_smoothing}\n")
    place.end("Baseline", 0)
    place.end("Baseline", 1, DIVERGED)
    with Claims(place.runs_dir) as claims:
        folder = place.attempt("Smoothed", 0, epoch=3.0)
        claims.take(folder.run_id)
        lines = status()
        said = status("--json")
    assert lines[0] == "only: The only table"
    assert lines[1].split() == ["row", "seed", "0", "seed", "1"]
    assert lines[2].split() == ["Baseline", "finished", "diverged"]
    assert lines[3].split() == ["Smoothed", "running", "50%", "missing"]
    assert lines[5] == "Once more  as only / Smoothed"
    assert "1 finished, 1 diverged, 1 running, 3 missing" in lines
    assert any(line.startswith("at work: process ") and line.endswith(": 1 run") for line in lines)
    assert said["counts"] == {"finished": 1, "diverged": 1, "running": 1, "missing": 3}
    once_more = {"table": "only", "row": "Once more", "column": None, "arm": "only / Smoothed"}
    assert {**once_more, "seeds": 2} in said["rows"]
    [running] = [run for run in said["runs"] if run["state"] == "running"]
    assert running["progress"] == 0.5
    assert "process" in running["holder"]


HOLD = """
import sys
from pathlib import Path
from harness.runs.claims import Claims
with Claims(Path(sys.argv[1])) as claims:
    claims.take(sys.argv[2])
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_controller_that_was_stopped_is_said_to_be_and_promises_no_end(place, status):
    place.end("Baseline", 0)
    run_id = place.attempt("Smoothed", 0).run_id
    command = [sys.executable, "-c", HOLD, str(place.runs_dir), run_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert status("--json")["eta_s"] is not None
        other.send_signal(signal.SIGSTOP)
        os.waitpid(other.pid, os.WUNTRACED)
        lines, said = status(), status("--json")
        other.send_signal(signal.SIGCONT)
        other.communicate("")
    assert (said["workers"], said["eta_s"]) == (0, None)
    assert lines[-1].endswith("of one worker left; none is at work")
    [halted] = [line for line in lines if line.startswith("halted: ")]
    assert halted.endswith(f"holds 1 run; kill -CONT {other.pid} lets it go on")


def test_what_was_spent_and_what_is_left_come_from_the_records(place, status):
    place.end("Baseline", 0, wall_time_s=3600.0)
    write_json(place.folder("Baseline", 0).env, {"device": "cpu"})
    place.end("Baseline", 1, wall_time_s=7200.0, device="Some GPU")
    write_json(place.folder("Baseline", 1).env, {"device": "cuda:0", "processes": 2})
    place.attempt("Smoothed", 0, took_s=1800.0, device="cuda:1", processes=4)
    said = status("--json")
    assert said["used_worker_s"] == pytest.approx(3600 + 7200 + 1800)
    assert said["used_gpu_s"] == pytest.approx(2 * 7200 + 4 * 1800)
    assert said["eta_s"] is None
    plan = place.plan
    reconcile(plan, place.runs_dir)
    times = {run.run_id: run.time_s for run in plan.runs if not run.done}
    half = place.run("Smoothed", 0).run_id
    assert said["work_s"] == pytest.approx(sum(times.values()) - times[half] / 2)
    lines = status()
    assert "cost so far: 3.5 hours of workers, 6.0 hours of GPUs" in lines
    assert lines[-1].endswith("of one worker left; none is at work")
    with Claims(place.runs_dir) as claims:
        claims.take(place.run("Smoothed", 0).run_id)
        claims.take(place.run("Smoothed", 1).run_id)
        two = status("--json")
        assert status()[-1].endswith("with 2 workers at work")
    longest = max(times[place.run(row, 1).run_id] for row in ("Smoothed", "Distilled"))
    assert two["eta_s"] == pytest.approx(max(longest, two["work_s"] / 2))


def test_the_last_run_is_not_shared_among_workers(place):
    plan = place.plan
    views = {run.run_id: state.RunView(state="finished") for run in plan.runs}
    for run, time_s in zip(plan.runs, (100.0, 10.0), strict=False):
        run.time_s = time_s
        views[run.run_id] = state.RunView(state="running", progress=0.5)
    assert Overview(plan, views, overview.QueueView()).eta_s == 50.0


def test_an_attempt_that_was_killed_and_one_after_it_count_without_the_time_between(place, status):
    place.attempt("Baseline", 0, took_s=5000.0)
    events = place.folder("Baseline", 0).events
    first = [
        json.loads(line) | {"time_s": at}
        for line, at in zip(events.read_text().splitlines(), (0.0, 40.0), strict=True)
    ]
    second = [line | {"time_s": line["time_s"] + 9000.0} for line in first]
    events.write_text("".join(json.dumps(line) + "\n" for line in first + second))
    assert status("--json")["used_worker_s"] == pytest.approx(80.0)


def test_a_failure_has_one_line_with_its_reason_and_how_to_see_more(place, status):
    folder = place.attempt("Baseline", 0)
    folder.append_event(FAILED, message="ValueError: no [/such] thing")
    lines = [line for line in status() if line.startswith("failed:")]
    assert lines == [
        f"failed: only / Baseline, seed 0: ValueError: no [/such] thing (harness logs {folder.run_id[:12]})"
    ]
    [failed] = [run for run in status("--json")["runs"] if run["message"]]
    assert failed["message"] == "ValueError: no [/such] thing"


def test_reading_writes_nothing_not_even_with_a_submission_where_no_slurm_is(place, status):
    place.attempt("Baseline", 0)
    place.submit("0123456789ab", jobs=JOBS)
    before = files(place)
    lines = status()
    assert files(place) == before
    assert "Slurm's queue: unknown; no Slurm commands here, and no answer in the folder" in lines


def test_without_an_answer_of_slurm_nothing_is_taken_for_ended(place, status):
    submission = place.submit("0123456789ab", jobs=JOBS)
    assert status("--json")["counts"] == {"queued": 6}
    submission.close()
    assert status("--json")["counts"] == {"missing": 6}


def test_agents_are_counted_and_every_reason_is_said_in_words(place, status, commands):
    submission = place.submit("0123456789ab", jobs=JOBS)
    running = task(submission, "g1", "11", "RUNNING", "None")
    waiting = [task(submission, "g2", "12", reason=reason) for reason in ("Priority", "Dependency")]
    squeue_says(commands, running, *waiting)
    said, lines = status("--json"), status()
    groups = {group["group"]: group for group in said["queue"]["submissions"][0]["groups"]}
    assert (groups["g1"]["agents_running"], groups["g1"]["agents_pending"]) == (1, 0)
    assert groups["g2"]["reasons"] == {"Priority": 1, "Dependency": 1}
    assert said["workers"] == 1
    assert "0123456789ab/g2: 1 agent waiting for Priority: other jobs go first" in lines
    after = ", ".join(groups["g2"]["after"])
    assert f"0123456789ab/g2: 1 agent waiting for Dependency: other jobs must end first ({after})" in lines
    assert any("for a place with its 1 agent" in line for line in lines)
    assert any(line.startswith("Slurm's queue: as it was ") for line in lines)
    assert (commands / "asked").read_text() == "asked\n"  # the second time the shared answer was read


def test_a_group_whose_agents_are_gone_is_not_queued_and_says_what_submits_it_again(
    place, status, commands, monkeypatch
):
    monkeypatch.setattr(overview, "LATE_S", -60.0)  # the submission is not new
    submission = place.submit("0123456789ab", jobs=JOBS)
    squeue_says(commands, task(submission, "g1", "11"))
    said = status("--json")
    left = {group["group"]: group["left"] for group in said["queue"]["submissions"][0]["groups"]}
    assert said["counts"] == {"queued": left["g1"], "missing": left["g2"] + left["g3"]}
    gone = [line for line in said["waits"] if "no agent" in line]
    assert [line.partition(":")[0] for line in gone] == ["0123456789ab/g2", "0123456789ab/g3"]
    assert f"{left['g2']} runs wait and no agent is in the queue: `harness run`" in gone[0]


def test_an_old_answer_does_not_know_of_a_new_submission(place, status, commands):
    squeue_says(commands)
    first = place.submit("0123456789ab", "Baseline", jobs={"g1.0": "11"})
    status()
    queue = json.loads((place.runs_dir / ".queue.json").read_text())
    assert next(iter(queue.values()))["tasks"] == []
    first.close()
    place.submit("fedcba987654", jobs={"g1.0": "21", "g2.0": "22"})
    assert status("--json")["counts"] == {"queued": 6}


def test_from_a_machine_without_slurm_the_answer_of_another_is_read_with_its_age(place, status, commands):
    submission = place.submit("0123456789ab", jobs=JOBS)
    squeue_says(commands, task(submission, "g1", "11", "RUNNING"))
    status()
    (commands / "squeue").unlink()
    file = place.runs_dir / ".queue.json"
    said = json.loads(file.read_text())
    [own] = said.values()
    own["asked_s"] -= 7200.0
    file.write_text(json.dumps(said))
    lines = status()
    assert "Slurm's queue: as it was 2 h 0 min ago; there are no Slurm commands here to ask again" in lines
    found = status("--json")["queue"]
    assert (found["can_ask"], round(found["age_s"], -1)) == (False, 7200)


def test_a_slurm_that_hangs_is_waited_for_only_so_long_and_changes_no_state(
    place, status, commands, monkeypatch
):
    monkeypatch.setattr("harness.slurm.queue.TIMEOUT_S", 0.2)
    place.submit("0123456789ab", jobs=JOBS)
    program(commands, "squeue", "sleep 1800")
    with not_waited_out():
        lines = status()
    assert "Slurm's queue: it does not answer" in lines
    assert "6 queued" in lines


def test_a_student_says_which_teacher_it_waits_for_and_in_which_state_that_is(place, status):
    place.end("Smoothed", 0)
    needs = place.run("Distilled", 1).needs
    assert needs == (place.run("Smoothed", 1).run_id,)
    assert status("--json")["waits"] == []  # nothing is at work: everything waits for `harness run`
    with Claims(place.runs_dir) as claims:
        claims.take(place.run("Smoothed", 1).run_id)
        assert status("--json")["waits"] == [
            "only / Distilled: 1 run waits for the teacher, only / Smoothed (1 running)"
        ]
    place.attempt("Smoothed", 1).append_event(FAILED, message="x")
    assert status("--json")["waits"] == [
        "only / Distilled: 1 run waits for the teacher, only / Smoothed (1 failed)"
    ]


def test_a_run_that_failed_before_it_was_submitted_again_is_queued_and_one_that_failed_since_is_not(
    place, status
):
    before = place.attempt("Baseline", 0)
    before.append_event(FAILED, message="a bad node")
    time.sleep(0.01)
    place.submit("0123456789ab", jobs=JOBS)
    assert state_of(status("--json"), "Baseline", 0) == "queued"
    place.attempt("Baseline", 1).append_event(FAILED, message="again")
    assert state_of(status("--json"), "Baseline", 1) == "failed"


def test_a_submission_of_another_study_that_has_the_runs_is_seen_and_one_without_them_is_not(place, status):
    place.submit("0123456789ab", "Baseline", jobs={"g1.0": "11"}, study="another")
    said = status("--json")
    assert said["counts"] == {"queued": 2, "missing": 4}
    assert said["queue"]["submissions"][0]["study"] == "another"


def test_a_submission_that_cannot_be_read_is_named_and_the_rest_is_shown(place, status):
    folder = place.runs_dir / ".submissions" / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / "submission.json").write_text("{}")
    assert status("--json")["counts"] == {"missing": 6}
    assert any(line.startswith("a submission that cannot be read here: ") for line in status())


@pytest.mark.parametrize("columns", [1, 20, 60, 300])
def test_no_width_of_the_terminal_loses_a_row(place, status, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = " ".join(status())
    for word in ("Baseline", "Smoothed", "Distilled", "6 missing"):
        assert word in text


def test_the_cost_of_ten_thousand_runs_is_a_few_file_operations_each(place, monkeypatch):
    """Not a time, which depends on the machine: how often files are opened and folders listed."""
    opened: list[str] = []
    real_open, real_listdir = os.open, os.listdir
    for row in ("Baseline", "Smoothed"):
        place.end(row, 0)
        write_json(place.folder(row, 0).env, {"device": "cpu"})
    place.attempt("Baseline", 1)
    plan = place.plan
    summaries = reconcile(plan, place.runs_dir)

    def counted_open(name: Any, *rest: Any, **more: Any) -> Any:
        opened.append(str(name))
        return real_open(name, *rest, **more)

    def counted_listdir(name: Any) -> list[str]:
        opened.append(str(name))
        return real_listdir(name)

    monkeypatch.setattr(state.os, "open", counted_open)
    monkeypatch.setattr(state.os, "listdir", counted_listdir)
    views = state.look(plan, place.runs_dir, summaries)
    assert views[place.run("Distilled", 0).run_id].state == MISSING
    inside = [name for name in opened if name != str(place.runs_dir)]
    unfinished = [name for name in inside if place.folder("Baseline", 1).run_id in name]
    assert len(unfinished) == 2  # its listing and its events
    assert len(inside) - len(unfinished) == 1  # env.json of one run: that device is a CPU
    assert len(opened) == len(inside) + 1
