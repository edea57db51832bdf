"""`harness cancel`: the runs that were meant get a request, the others do not, and what was done is said."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.commands import runs as command
from harness.runs.claims import Claims
from harness.runs.folder import run_state
from harness.scheduling.base import INTERRUPTED, Job
from harness.scheduling.local import Inline
from harness.spec import FINISHED, Machine
from tests.end_to_end.under_way import UnderWay, program, squeue_says, task
from tests.timing import not_waited_out, wait_until

JOBS = {"g1.0": "11", "g2.0": "12", "g3.0": "13"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UnderWay:
    """The tiny study; of Slurm there is only what a test puts into `bin`."""
    for name in [name for name in os.environ if name.startswith(("HARNESS_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    for name in ("cat", "sh"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return UnderWay.begin(tmp_path / "place")


@pytest.fixture
def commands(place: UnderWay, tmp_path: Path) -> Path:
    """The folder of Slurm commands; `scancel` writes down what it was told."""
    folder = tmp_path / "bin"
    program(folder, "scancel", f'echo "$@" >> {folder}/cancelled')
    return folder


@pytest.fixture
def cancel(place: UnderWay, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def ask(*arguments: str, code: int = 0) -> Any:
        assert place.harness("cancel", str(place.study), *arguments) == code
        said = capsys.readouterr().out
        return json.loads(said) if "--json" in arguments else said.splitlines()

    return ask


def requested(place: UnderWay) -> set[str]:
    """The runs with a request to stop."""
    return {path.parent.name for path in place.runs_dir.glob("*/cancel")}


def ids(place: UnderWay, *runs: tuple[str, int]) -> set[str]:
    return {place.run(row, seed).run_id for row, seed in runs}


def test_every_unfinished_run_is_asked_and_what_has_ended_is_left(place, cancel):
    place.end("Baseline", 0)
    place.end("Baseline", 1, "diverged")
    place.attempt("Smoothed", 0)
    with Claims(place.runs_dir) as claims:
        claims.take(place.run("Smoothed", 1).run_id)
        said = cancel()
    asked = ids(place, *((row, seed) for row in ("Smoothed", "Distilled") for seed in (0, 1)))
    assert requested(place) == asked
    assert said == [
        "1 run will write a checkpoint and stop, in about 10 s",
        "3 runs will not start",
        "2 runs had ended, failed or been cancelled before",
        f"`harness run {place.study}` goes on with them",
    ]
    request = json.loads((place.folder("Smoothed", 0).path / "cancel").read_text())
    assert "@" in request["by"]
    assert run_state(place.folder("Smoothed", 0)) == "cancelled"
    assert run_state(place.folder("Baseline", 1)) == "diverged"
    again = cancel("--json")
    assert (again["stopping"], again["not_started"], len(again["done_before"])) == ([], [], 6)
    assert cancel()[-1] == "nothing is left to cancel"


def test_rows_and_seeds_choose_and_students_of_a_cancelled_teacher_are_named(place, cancel):
    place.end("Baseline", 0)
    said = cancel("--row", "Smoothed", "--seed", "1", "--json")
    assert said["not_started"] == [place.run("Smoothed", 1).run_id]
    assert requested(place) == ids(place, ("Smoothed", 1))
    assert said["needed_by"] == {"only / Distilled": 1}
    both = cancel("--row", "Baseline", "--row", "Smoothed")
    assert requested(place) == ids(place, ("Smoothed", 0), ("Smoothed", 1), ("Baseline", 1))
    assert "1 run of only / Distilled cannot start either: it needs one of those" in both


def test_a_student_of_a_student_cannot_start_either(place, cancel):
    second = "arms:\n  second: {add: {distillation: {teacher: teacher}}}\n"
    text = place.study.read_text().replace("arms:\n", second)
    place.study.write_text(text + "      - {label: Twice, add: {distillation: {teacher: second}}}\n")
    said = cancel("--row", "Smoothed", "--json")
    assert said["needed_by"] == {"only / Distilled": 2, "only / Twice": 2}


def test_what_nobody_has_at_the_moment_can_be_cancelled_alone(place, cancel):
    with Claims(place.runs_dir) as claims:
        claims.take(place.run("Baseline", 0).run_id)
        said = cancel("--queued", "--row", "Baseline")
    assert requested(place) == ids(place, ("Baseline", 1))
    assert said[:2] == ["1 run will not start", "1 run at work and left to it (--queued)"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--row", "Smothed"),
            "unknown row 'Smothed'; did you mean 'Smoothed'? Valid: Baseline, Distilled, Smoothed",
        ),
        (("--seed", "7"), "no run has the seed 7. Valid: 0, 1"),
    ],
)
def test_a_row_or_a_seed_that_the_study_does_not_have_changes_nothing(place, capsys, arguments, words):
    assert place.harness("cancel", str(place.study), *arguments) == 2
    assert words in capsys.readouterr().err
    assert not place.runs_dir.exists()


def test_a_group_with_nothing_left_is_taken_out_of_the_queue_and_one_with_other_runs_stays(
    place, cancel, commands
):
    submission = place.submit("0123456789ab", jobs=JOBS)
    squeue_says(
        commands, *(task(submission, group, job) for group, job in (("g1", "11"), ("g2", "12"), ("g3", "13")))
    )
    baseline, smoothed = (submission.group_of(place.run(row, 0).run_id) for row in ("Baseline", "Smoothed"))
    said = cancel("--row", "Baseline", "--json")
    assert said["scancelled"] == [JOBS[f"{baseline}.0"]]
    named = f"--name={submission.job_name(baseline)} --state=PENDING {JOBS[f'{baseline}.0']}\n"
    assert (commands / "cancelled").read_text() == named
    one_seed = cancel("--row", "Smoothed", "--seed", "0", "--json")
    assert one_seed["scancelled"] == [JOBS[f"{baseline}.0"]]  # still in the queue, and nothing else is empty
    place.end("Smoothed", 1)
    (commands / "cancelled").unlink()
    cancel("--row", "Distilled")
    told = {line.split()[-1] for line in (commands / "cancelled").read_text().splitlines()}
    assert told == set(JOBS.values())
    assert smoothed != baseline


def test_agents_at_work_leave_by_themselves_and_a_job_that_has_gone_is_no_trouble(place, cancel, commands):
    submission = place.submit("0123456789ab", jobs=JOBS)
    squeue_says(commands, *(task(submission, f"g{number}", f"1{number}", "RUNNING") for number in (1, 2, 3)))
    assert cancel("--json")["scancelled"] == []
    assert not (commands / "cancelled").exists()
    submission.close()
    place.submit("fedcba987654", jobs=JOBS)
    program(
        commands,
        "scancel",
        "echo 'scancel: error: Kill job error on job id 11: Invalid job id specified' >&2; exit 1",
    )
    said = cancel("--json")
    assert (said["scancelled"], said["left_in_queue"], said["troubles"]) == ([], [], [])


def test_where_slurm_is_not_or_does_not_answer_the_command_for_it_is_said(
    place, cancel, commands, monkeypatch
):
    place.submit("0123456789ab", jobs=JOBS)
    said = cancel("--row", "Baseline")
    by_hand = "scancel --name=harness-0123456789ab-g2 --state=PENDING 12"
    assert any(line.endswith(by_hand) for line in said), said
    assert not (commands / "cancelled").exists()
    squeue_says(commands)
    monkeypatch.setattr(command, "SCANCEL_S", 0.2)
    program(commands, "scancel", "/bin/sleep 1800")
    with not_waited_out():
        said = cancel("--row", "Smoothed", code=1)
    assert "not done: scancel: scancel gave no answer within 0.2 s" in said


def test_no_text_of_a_file_becomes_an_option_of_a_command(place, cancel, commands):
    place.submit("0123456789ab", jobs={"g1.0": "--user=root", "g2.0": "12; ls", "g3.0": "13"})
    squeue_says(commands)
    assert cancel("--json")["scancelled"] == ["13"]
    assert (commands / "cancelled").read_text() == "--name=harness-0123456789ab-g3 --state=PENDING 13\n"


def edit_jobs(submission: Any, **changes: Any) -> None:
    """Change what is written down of its jobs, which were submitted a while ago."""
    file = submission.folder / "jobs.json"
    jobs = {chunk: said | changes for chunk, said in json.loads(file.read_text()).items()}
    file.write_text(
        json.dumps({chunk: said | {"submitted_s": time.time() - 60} for chunk, said in jobs.items()})
    )


def test_what_is_taken_out_of_the_queue_is_what_it_shows_under_the_name_and_not_an_id_that_was_misread(
    place, cancel, commands
):
    """A site's banner said "job 3 of 50"; job 3 is somebody else's."""
    submission = place.submit("0123456789ab", jobs=JOBS)
    edit_jobs(submission, job_id="3")
    others = "3|0|3|PENDING|Priority|somebody"
    squeue_says(commands, others, *(task(submission, f"g{number}", f"410{number}") for number in (1, 2, 3)))
    assert cancel("--json")["scancelled"] == ["4101", "4102", "4103"]
    told = [line.split() for line in (commands / "cancelled").read_text().splitlines()]
    assert [each[-1] for each in told] == ["4101", "4102", "4103"]
    assert [each[0] for each in told] == [f"--name={submission.job_name(f'g{n}')}" for n in (1, 2, 3)]


def test_jobs_on_another_cluster_are_taken_out_of_its_queue(place, cancel, commands):
    submission = place.submit("0123456789ab", jobs=JOBS)
    edit_jobs(submission, cluster="alpha")
    rows = "\n".join(task(submission, f"g{number}", f"1{number}") for number in (1, 2, 3))
    program(commands, "squeue", f"[ $1 = --clusters=alpha ] || exit 1\ncat <<'END'\n{rows}\nEND")
    assert cancel("--json")["scancelled"] == ["11", "12", "13"]
    told = (commands / "cancelled").read_text().splitlines()
    assert [line.split()[0] for line in told] == ["--clusters=alpha"] * 3


def test_runs_that_another_study_submitted_are_named(place, cancel):
    place.submit("0123456789ab", "Baseline", jobs={"g1.0": "11"}, study="another")
    assert cancel("--json")["also_for"] == {"another": 2}


def test_a_folder_that_cannot_be_written_is_said_and_the_others_are_asked(place, cancel, monkeypatch):
    real, bad = command.request_cancel, place.run("Baseline", 0).run_id

    def ask(folder: Any, by: str) -> None:
        if folder.run_id == bad:
            raise OSError(30, "Read-only file system")
        real(folder, by)

    monkeypatch.setattr(command, "request_cancel", ask)
    said = cancel("--row", "Baseline", code=1)
    assert requested(place) == ids(place, ("Baseline", 1))
    assert any(line.startswith("not done: ") and "Read-only file system" in line for line in said)


def test_a_living_controller_stops_the_run_it_has_and_does_not_start_the_others(place, cancel, monkeypatch):
    monkeypatch.setitem(Claims.__init__.__kwdefaults__, "beat_s", 0.1)
    plan = place.plan
    jobs = [Job(spec=plan.spec(run), needs=run.needs) for run in plan.runs]
    scheduler = Inline(Machine(runs_dir=place.runs_dir, data_dir=place.path))
    began, said = [], {}

    def until_stopped(spec: Any, folder: Any, machine: Machine, stop: Callable[[], bool]) -> str:
        began.append(spec.run_id)
        folder.append_event("attempt", device="cpu")
        asking = threading.Thread(target=lambda: said.update(cancel("--json")))
        asking.start()
        wait_until(stop)
        asking.join()
        return INTERRUPTED

    statuses = scheduler.execute(jobs, until_stopped, lambda _: None)
    assert set(statuses.values()) == {INTERRUPTED}
    assert said["stopping"] == began
    assert (len(began), len(said["not_started"])) == (1, 5)
    assert len(requested(place)) == 6
    after = scheduler.execute(jobs, lambda *_: FINISHED, lambda _: None)
    assert set(after.values()) == {FINISHED}  # whoever asks for a run last, decides
    assert requested(place) == set()
