"""The controller on Slurm, with Slurm's commands played by scripts: what is submitted, taken over, recovered.

tests/slurm does the same with a real cluster and real agents.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.commands import doctor
from harness.commands.machine import FAIL, OK, WARN, Finding
from harness.errors import StudyError
from harness.runs.claims import Claims, request_cancel
from harness.runs.folder import write_json
from harness.scheduling.base import INTERRUPTED
from harness.slurm import queue
from harness.slurm.cluster import Cluster, Resources, Shape
from harness.slurm.submission import submissions
from harness.spec import FAILED, FINISHED
from tests.scheduling.fake_slurm import FakeSlurm, Place, with_resources
from tests.scheduling.fakes import job
from tests.timing import wait_until


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path / "runs", FakeSlurm(tmp_path / "slurm", monkeypatch))


def gone(place: Place, array_id: str, state: str | None = "COMPLETED", exit_code: str = "0:0"):
    """A step: that array is in the queue, begins nothing more and leaves."""

    def step() -> bool:
        if array_id not in place.slurm.arrays():
            return False
        place.slurm.end(array_id, state, exit_code)
        return True

    return step


def resubmitted(place: Place, array_id: str):
    """A step: wait for that array."""
    return lambda: array_id in place.slurm.arrays()


def test_runs_are_submitted_once_and_end_as_their_folders_say(place: Place):
    jobs = [job(1), job(2), job(3)]
    statuses = place.execute(jobs, lambda: place.finish(*jobs[:2]), lambda: place.finish(jobs[2]))
    assert statuses == {each.run_id: FINISHED for each in jobs}
    assert len(place.slurm.calls("sbatch")) == 1
    assert place.submission().job_ids() == {"g1.0": "101"}
    assert len(place.slurm.queue()) == 3


def test_what_agents_of_an_earlier_command_do_is_not_submitted_again(place: Place):
    jobs = [job(1), job(2)]
    first = place.execute(jobs, detach=True)
    assert set(first.values()) == {INTERRUPTED}
    statuses = place.execute([*jobs, job(3)], lambda: place.finish(*jobs, job(3)))
    assert set(statuses.values()) == {FINISHED}
    assert "2 runs in the queue already (job 101)" in place.said
    assert [len(each.run_ids()) for each in submissions(place.runs_dir)] == [2, 1]


def test_a_controller_killed_after_sbatch_and_before_its_answer_was_written_loses_and_doubles_nothing(
    place: Place,
):
    jobs = [job(1), job(2)]
    place.execute(jobs, detach=True)
    (place.submission().folder / "jobs.json").unlink()
    statuses = place.execute(jobs, lambda: place.finish(*jobs))
    assert set(statuses.values()) == {FINISHED}
    assert len(place.slurm.calls("sbatch")) == 1
    assert place.submission().job_ids() == {"g1.0": "101"}
    assert "taken over" in place.said


def test_a_controller_killed_before_sbatch_is_made_up_for(place: Place):
    jobs = [job(1), job(2)]
    place.execute(jobs, detach=True)
    (place.submission().folder / "jobs.json").unlink()
    place.slurm.end("101")
    statuses = place.execute(jobs, lambda: place.finish(*jobs))
    assert set(statuses.values()) == {FINISHED}
    first, second = submissions(place.runs_dir)
    assert first.is_closed
    assert second.job_ids() == {"g1.0": "102"}


def test_a_silent_slurm_changes_nothing_and_what_was_lost_meanwhile_is_recovered_after(place: Place):
    run = job(1)

    def silent_for_long() -> bool:
        return len(place.slurm.calls("squeue")) >= 8

    statuses = place.execute(
        [run],
        lambda: (place.slurm.says("squeue.fails"), place.slurm.end("101", "NODE_FAIL")),
        silent_for_long,
        lambda: (len(place.slurm.calls("sbatch")) == 1) and place.slurm.takes_back("squeue.fails"),
        resubmitted(place, "102"),
        lambda: place.finish(run),
    )
    assert statuses == {run.run_id: FINISHED}
    assert place.said.count("Slurm does not answer") == 1
    assert "Slurm answers again" in place.said


def test_while_slurm_is_silent_what_was_submitted_counts_as_being_in_the_queue(place: Place):
    run = job(1)
    place.execute([run], detach=True)
    place.slurm.says("squeue.fails")
    statuses = place.execute([run], lambda: place.finish(run))
    assert statuses == {run.run_id: FINISHED}
    assert len(place.slurm.calls("sbatch")) == 1
    assert not place.submission().is_closed


@pytest.mark.parametrize("state", ["COMPLETED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "FAILED", None])
def test_runs_whose_agents_have_gone_are_submitted_again_in_the_same_submission(place: Place, state: str):
    run = job(1)
    statuses = place.execute(
        [run],
        lambda: place.begin("101", run),
        gone(place, "101", state),
        resubmitted(place, "102"),
        lambda: place.finish(run),
    )
    assert statuses == {run.run_id: FINISHED}
    assert place.submission().job_ids() == {"g1.0": "101", "g1.1": "102"}
    assert len(place.events(run, "resubmitted")) == 1
    assert f"Slurm says {state}" in place.said or state is None


def test_a_sacct_that_does_not_answer_stops_no_recovery(place: Place):
    run = job(1)
    place.slurm.says("sacct.fails")
    statuses = place.execute(
        [run],
        lambda: place.begin("101", run),
        gone(place, "101"),
        resubmitted(place, "102"),
        lambda: place.finish(run),
    )
    assert statuses == {run.run_id: FINISHED}
    assert "Slurm does not say how its jobs ended" in place.said


def test_after_three_submissions_without_progress_the_runs_fail_with_reason_and_log(place: Place):
    run = job(1)

    def dies(array_id: str):
        begin = lambda: resubmitted(place, array_id)() and place.begin(array_id, run)  # noqa: E731
        log = lambda: place.log(array_id, f"Traceback\nno such driver on {array_id}\n")  # noqa: E731
        return begin, log, gone(place, array_id, "FAILED", "1:0")

    statuses = place.execute([run], *dies("101"), *dies("102"), *dies("103"))
    assert statuses == {run.run_id: FAILED}
    assert place.slurm.arrays() == []
    (failed,) = place.events(run, "failed")
    assert "3 times without coming further (Slurm says FAILED 1:0)" in failed["message"]
    assert "no such driver on 103" in failed["message"]


def test_progress_of_a_run_starts_the_count_again(place: Place):
    run = job(1)

    def dies(array_id: str, step: int):
        begin = lambda: resubmitted(place, array_id)() and place.begin(array_id, run)  # noqa: E731
        return begin, lambda: place.come_further(run, step), gone(place, array_id, "TIMEOUT")

    lives = [each for place_ in range(5) for each in dies(str(101 + place_), place_ + 1)]
    statuses = place.execute([run], *lives, resubmitted(place, "106"), lambda: place.finish(run))
    assert statuses == {run.run_id: FINISHED}


def test_what_was_cancelled_is_left_alone_and_said(place: Place):
    begun, waiting = job(1), job(2)
    statuses = place.execute(
        [begun, waiting],
        lambda: place.begin("101", begun),
        gone(place, "101", f"CANCELLED by {os.getuid()}"),
    )
    assert statuses == {begun.run_id: INTERRUPTED, waiting.run_id: INTERRUPTED}
    assert len(place.slurm.calls("sbatch")) == 1
    assert "2 runs left for another `harness run`: its job was cancelled by you" in place.said
    assert place.events(begun, "interrupted")[0]["message"] == "its job was cancelled by you"
    place.execute([begun, waiting], detach=True)  # the next command submits them
    assert place.slurm.arrays() == ["102"]


@pytest.mark.parametrize("cgroups", [True, False])
def test_out_of_memory_fails_the_runs_that_were_trained_and_says_what_to_raise(place: Place, cgroups: bool):
    place.cluster = with_resources(memory_gb=2.0)
    large, small = job(1), job(2)
    state = "OUT_OF_MEMORY" if cgroups else "FAILED"
    log = "" if cgroups else "slurmstepd: error: StepId=7.0 exceeded memory limit (9 > 8), being killed\n"
    statuses = place.execute(
        [large, small],
        lambda: (place.begin("101", large), place.log("101", log)),
        gone(place, "101", state),
        resubmitted(place, "102"),
        lambda: place.finish(small),
    )
    assert statuses == {large.run_id: FAILED, small.run_id: FINISHED}
    assert "raise memory_gb (now 2) in my_cluster.yaml" in place.events(large, "failed")[0]["message"]


def test_agents_that_end_before_they_begin_are_tried_twice(place: Place):
    run = job(1)
    statuses = place.execute(
        [run],
        lambda: place.log("101", "slurmstepd: error: execve(): no such interpreter\n"),
        gone(place, "101", "FAILED", "2:0"),
        resubmitted(place, "102"),
        lambda: place.log("102", "slurmstepd: error: execve(): no such interpreter\n"),
        gone(place, "102", "FAILED", "2:0"),
    )
    assert statuses == {run.run_id: FAILED}
    assert len(place.slurm.calls("sbatch")) == 2
    message = place.events(run, "failed")[0]["message"]
    assert "ended before they began, 2 times" in message
    assert "no such interpreter" in message


def test_a_line_of_setup_that_fails_fails_no_run_and_is_named_at_once(place: Place):
    jobs, lines = [job(1), job(2)], ("module load cuda/13",)
    place.cluster = with_resources(setup=lines)

    def fails(array_id: str) -> None:
        said = place.submission().folder / "setup"
        said.mkdir(exist_ok=True)
        for task in (0, 1):
            (said / f"{array_id}_{task}.1.1").write_text("loading\nLmod: cuda/13 is unknown\n")
        place.slurm.end(array_id, "FAILED", "1:0")

    statuses = place.execute(jobs, lambda: fails("101"))
    assert set(statuses.values()) == {INTERRUPTED}
    assert len(place.slurm.calls("sbatch")) == 1
    assert (
        "2 runs left for another `harness run`: the setup line 'module load cuda/13' failed with exit code 1:"
        " Lmod: cuda/13 is unknown (in 2 jobs); no run was started" in place.said
    )
    assert not any((place.runs_dir / each.run_id).exists() for each in jobs)


def test_where_other_agents_began_a_failed_line_is_one_of_the_reasons(place: Place):
    jobs = [job(1), job(2)]
    place.cluster = with_resources(setup=("module load cuda/13",))

    def one_begins() -> None:
        place.begin("101", jobs[0])
        said = place.submission().folder / "setup"
        said.mkdir()
        (said / "101_1.1.1").write_text("no such module\n")
        place.slurm.end("101", "FAILED", "1:0")

    def others_do_it() -> None:
        place.begin("102", *jobs)
        place.finish(*jobs)

    steps = (one_begins, resubmitted(place, "102"), others_do_it)
    assert set(place.execute(jobs, *steps).values()) == {FINISHED}
    assert "the setup line 'module load cuda/13' failed with exit code 1: no such module" in place.said


def test_a_run_that_a_living_process_has_elsewhere_is_waited_for(place: Place):
    run, lost = job(1), job(2)
    with Claims(place.runs_dir) as claims:
        statuses = place.execute(
            [run, lost],
            lambda: claims.take(run.run_id) and place.begin("101", lost),
            gone(place, "101"),
            resubmitted(place, "102"),
            lambda: place.finish(run, lost),
        )
    assert set(statuses.values()) == {FINISHED}
    assert "1 run lost their agents" in place.said


def test_students_wait_for_the_jobs_of_their_teachers(place: Place):
    teacher, other = job(1), job(2)
    student = job(3, needs=(teacher,))
    place.execute([student, other, teacher], detach=True)
    submission = place.submission()
    assert [submission.group_of(each.run_id) for each in (teacher, other, student)] == ["g1", "g2", "g3"]
    texts = {name: (submission.folder / f"{name}.0.sh").read_text() for name in submission.groups}
    assert [name for name, text in texts.items() if "--dependency=afterany:101\n" in text] == ["g3"]


def test_lost_teachers_are_submitted_again_before_their_students(place: Place):
    teacher = job(1)
    student = job(2, needs=(teacher,))
    statuses = place.execute(
        [student, teacher],
        lambda: (place.begin("101", teacher), place.slurm.end("101", "NODE_FAIL")),
        gone(place, "102"),
        resubmitted(place, "104"),
        lambda: place.finish(teacher, student),
    )
    assert set(statuses.values()) == {FINISHED}
    assert place.submission().job_ids() == {"g1.0": "101", "g2.0": "102", "g1.1": "103", "g2.1": "104"}
    assert "--dependency=afterany:103\n" in (place.submission().folder / "g2.1.sh").read_text()
    assert "vain" not in place.said.split("the runs they need had not ended")[1]


def test_a_teacher_of_another_submission_is_waited_for_too(place: Place):
    teacher = job(1)
    place.execute([teacher], detach=True)
    place.execute([teacher, job(2, needs=(teacher,))], detach=True)
    second = submissions(place.runs_dir)[1]
    assert "--dependency=afterany:101\n" in (second.folder / "g1.0.sh").read_text()


def test_students_are_not_submitted_again_while_a_dying_process_still_holds_their_teacher(place: Place):
    teacher = job(1)
    student = job(2, needs=(teacher,))
    claims = Claims(place.runs_dir)

    def looked_at_often() -> bool:
        return len(place.slurm.calls("sacct")) >= 6

    statuses = place.execute(
        [student, teacher],
        lambda: (
            claims.take(teacher.run_id),
            place.slurm.end("101", "NODE_FAIL"),
            place.slurm.end("102", "COMPLETED"),
        ),
        looked_at_often,
        lambda: len(place.slurm.calls("sbatch")) == 2 and claims.release(teacher.run_id),
        resubmitted(place, "104"),
        lambda: place.finish(teacher, student),
    )
    assert set(statuses.values()) == {FINISHED}
    assert "--dependency=afterany:103\n" in (place.submission().folder / "g2.1.sh").read_text()


def test_students_of_a_failed_teacher_fail_without_being_submitted_again(place: Place):
    teacher = job(1)
    student = job(2, needs=(teacher,))

    def fails() -> None:
        place.begin("101", teacher)
        folder = place.runs_dir / teacher.run_id
        with (folder / "events.jsonl").open("a") as file:
            file.write('{"kind": "failed", "time_s": 9e9, "message": "no"}\n')
        place.slurm.end("101", "COMPLETED")

    statuses = place.execute([student, teacher], fails, gone(place, "102"))
    assert set(statuses.values()) == {FAILED}
    assert len(place.slurm.calls("sbatch")) == 2
    assert f"{teacher.run_id}, which it needs, failed" in place.events(student, "failed")[0]["message"]


def test_students_of_a_cancelled_teacher_are_left_with_it(place: Place):
    teacher = job(1)
    student = job(2, needs=(teacher,))
    statuses = place.execute(
        [student, teacher],
        lambda: (place.begin("101", teacher), place.slurm.end("101", "CANCELLED by 0")),
        lambda: "left for another" in place.said and place.slurm.end("102", "COMPLETED"),
    )
    assert set(statuses.values()) == {INTERRUPTED}
    assert len(place.slurm.calls("sbatch")) == 2
    assert place.events(student, "failed") == []


def test_a_run_that_failed_under_living_agents_is_submitted_anew(place: Place):
    bad, good = job(1), job(2)
    place.execute([bad, good], detach=True)
    place.begin("101", bad)
    (place.runs_dir / bad.run_id / "events.jsonl").open("a").write('{"kind": "failed", "time_s": 9e9}\n')
    place.execute([bad, good], detach=True)
    assert [each.run_ids() for each in submissions(place.runs_dir)][1] == (bad.run_id,)


def test_a_cancelled_run_is_interrupted_and_the_next_command_wants_it_again(place: Place):
    run = job(1)

    def cancel() -> None:
        place.begin("101", run)
        request_cancel(folder_of(place, run), by="me@here")
        place.slurm.end("101", "COMPLETED")

    assert place.execute([run], cancel) == {run.run_id: INTERRUPTED}
    assert "cancelled" in place.said
    place.execute([run], detach=True)
    assert not (place.runs_dir / run.run_id / "cancel").exists()
    assert place.slurm.arrays() == ["102"]


def folder_of(place: Place, run):
    from harness.runs.folder import RunFolder

    return RunFolder(place.runs_dir / run.run_id)


def test_ctrl_c_leaves_the_jobs_alone(place: Place):
    run = job(1)
    statuses = place.execute([run], lambda: os.kill(os.getpid(), signal.SIGINT))
    assert statuses == {run.run_id: INTERRUPTED}
    assert place.slurm.arrays() == ["101"]
    assert not place.submission().is_closed


def test_what_sbatch_refuses_is_one_error_that_names_the_cluster_file(place: Place):
    place.slurm.says("sbatch.says", "sbatch: error: invalid partition specified: gpuu\n")
    with pytest.raises(StudyError, match=r"my_cluster\.yaml: not accepted: .*invalid partition .*gpuu"):
        place.execute([job(1)], detach=True)
    assert place.submission().is_closed
    assert list(place.submission().folder.glob("*.sh")) == []


def test_where_one_of_several_groups_is_refused_the_others_run(place: Place):
    small = Resources(partition="tiny")
    shape = Shape(match={"model": ("sleep",)}, resources=small)
    place.cluster = Cluster(path="my_cluster.yaml", resources=Resources(partition="gpuu"), shapes=(shape,))
    place.slurm.says("refused", "partition=gpuu")
    bad, good = job(1), job(2, "sleep", time_s=1)
    student = job(3, "sleep", needs=(bad,), time_s=1)
    statuses = place.execute([bad, good, student], lambda: place.finish(good))
    assert statuses == {bad.run_id: INTERRUPTED, good.run_id: FINISHED, student.run_id: INTERRUPTED}
    assert "Invalid partition (my_cluster.yaml)" in place.said
    assert len(place.slurm.calls("sbatch")) == 2


def test_a_command_inside_a_job_hands_nothing_of_that_job_to_the_new_ones(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    for name in ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "SBATCH_JOB_NAME", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "of the job")
    place.execute([job(1)], detach=True)
    said = (place.slurm.path / "sbatch.env").read_text()
    assert said == "SBATCH_ACCOUNT=of the job\nSLURM_CONF=of the job\n"


def test_a_limit_on_submitted_tasks_means_fewer_agents(place: Place):
    place.slurm.says("most_tasks", "5")
    jobs = [job(seed) for seed in range(16)]
    place.execute(jobs, detach=True)
    assert len(place.slurm.queue()) == 4
    assert place.submission().chunks()["g1.0"]["tasks"] == 4


def test_more_agents_than_an_array_may_have_are_several_arrays(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.slurm.sbatch.SURE_MAX_ARRAY_SIZE", 3)
    place.slurm.says("max_array_size", "4")
    scheduler = place.scheduler(at_most=9, detach=True)
    scheduler.execute([job(seed) for seed in range(20)], lambda *_: "", lambda _: None)
    assert [row[0] for row in place.slurm.queue()] == ["101"] * 4 + ["102"] * 4 + ["103"]
    assert place.slurm.calls("scontrol") == ["show config"]
    assert place.submission().job_ids() == {"g1.0": "101", "g1.1": "102", "g1.2": "103"}


def test_an_sbatch_whose_answer_is_lost_is_found_in_the_queue(place: Place):
    run = job(1)
    place.slurm.says("sbatch.ends", "sbatch: error: Batch job submission failed: Socket timed out\n")
    statuses = place.execute(
        [run],
        lambda: place.submission().job_ids() == {"g1.0": "101"},
        lambda: place.finish(run),
    )
    assert statuses == {run.run_id: FINISHED}
    assert len(place.slurm.calls("sbatch")) == 1
    assert "Slurm does not answer" in place.said
    assert "taken over" in place.said


def test_where_slurm_is_down_the_runs_are_submitted_once_it_is_back(place: Place):
    run = job(1)
    place.slurm.says("sbatch.says", "sbatch: error: Unable to contact slurm controller\n")
    statuses = place.execute(
        [run],
        lambda: place.slurm.takes_back("sbatch.says"),
        resubmitted(place, "101"),
        lambda: place.finish(run),
    )
    assert statuses == {run.run_id: FINISHED}
    assert "vain" not in place.said


def test_a_submission_of_which_nothing_is_left_is_closed(place: Place):
    run, last = job(1), job(2)
    place.cluster = replace(
        place.cluster, shapes=(Shape(match={"model": ("sleep",)}, resources=Resources(cpus=2)),)
    )
    place.execute([run], detach=True)
    other = job(3, "sleep", time_s=1)
    place.execute(
        [run, last, other],
        lambda: (place.finish(run), place.slurm.end("101")),
        lambda: submissions(place.runs_dir)[0].is_closed,
        lambda: place.finish(last, other),
    )
    assert [each.is_closed for each in submissions(place.runs_dir)] == [True, False]


def test_the_jobs_of_another_user_are_not_ours_to_judge(place: Place, monkeypatch: pytest.MonkeyPatch):
    run = job(1)
    place.execute([run], detach=True)
    place.slurm.end("101")
    monkeypatch.setattr("os.getuid", lambda: 12345)
    place.execute([run], detach=True)
    assert not submissions(place.runs_dir)[0].is_closed


NOBODY_SAYS = "Auftrag angenommen\n"  # no id


@pytest.mark.parametrize(
    "words", ["%ID%\n", "this is job 3 of 50 allowed\nSubmitted batch job %ID%\n", "3\n%ID%\n"]
)
def test_whatever_a_site_prints_the_job_has_slurms_id(place: Place, words: str):
    place.slurm.says("sbatch.prints", words)
    run = job(1)
    assert place.execute([run], lambda: place.finish(run)) == {run.run_id: FINISHED}
    assert place.submission().job_ids() == {"g1.0": "101"}
    assert list(place.submission().folder.glob("*.answer")) == []


@pytest.mark.parametrize("words", ["%ID%;alpha\n", "Submitted batch job %ID% on cluster alpha\n"])
def test_the_cluster_that_sbatch_names_is_kept_and_every_later_question_goes_to_it(place: Place, words: str):
    place.slurm.says("sbatch.prints", words)
    place.slurm.says("elsewhere", "alpha")
    teacher = job(1)
    student = job(2, needs=(teacher,))
    statuses = place.execute(
        [teacher, student],
        lambda: (place.begin("101", teacher), place.slurm.end("101", "TIMEOUT")),
        resubmitted(place, "103"),
        lambda: place.finish(teacher, student),
    )
    assert set(statuses.values()) == {FINISHED}
    assert {said["cluster"] for said in place.submission().chunks().values()} == {"alpha"}
    first, *others = place.slurm.calls("sbatch")
    assert "--clusters" not in first
    assert all("--clusters=alpha" in each for each in others), "what waits for it must be where it is"
    asked = [*place.slurm.calls("squeue"), *place.slurm.calls("sacct")]
    assert {each.split()[0] for each in asked} == {"--clusters=alpha"}


def test_a_teacher_on_another_cluster_takes_its_students_there(place: Place):
    place.slurm.says("sbatch.prints", "%ID%;alpha\n")
    place.slurm.says("elsewhere", "alpha")
    teacher = job(1)
    place.execute([teacher], detach=True)
    place.execute([teacher, job(2, needs=(teacher,))], detach=True)
    second = submissions(place.runs_dir)[1]
    assert "--dependency=afterany:101\n" in (second.folder / "g1.0.sh").read_text()
    assert place.slurm.calls("sbatch")[1].startswith("--parsable --clusters=alpha ")


def test_a_job_without_an_id_is_found_by_its_name_and_not_submitted_twice(place: Place):
    place.slurm.says("sbatch.prints", NOBODY_SAYS)
    teacher = job(1)
    place.execute([teacher, job(2, needs=(teacher,))], detach=True)
    assert place.submission().job_ids() == {"g1.0": "101", "g2.0": "102"}
    assert "--dependency=afterany:101\n" in (place.submission().folder / "g2.0.sh").read_text()


def test_a_job_without_an_id_is_found_by_its_name_later_too(place: Place):
    place.slurm.says("sbatch.prints", NOBODY_SAYS)
    place.slurm.says("squeue.fails")
    run = job(1)
    statuses = place.execute(
        [run],
        lambda: place.slurm.takes_back("squeue.fails"),
        lambda: place.submission().job_ids() == {"g1.0": "101"},
        lambda: place.finish(run),
    )
    assert statuses == {run.run_id: FINISHED}
    assert len(place.slurm.calls("sbatch")) == 1
    assert "it is not known whether it was submitted (sbatch names no job; it says: Auftrag" in place.said


def test_a_job_without_an_id_that_no_queue_shows_is_left_to_the_user(place: Place):
    """It may be on a cluster that nobody thought of asking. Its runs do not fail, nor are they submitted
    again in this session."""
    place.slurm.says("sbatch.prints", NOBODY_SAYS)
    place.slurm.says("elsewhere", "alpha")
    run = job(1)
    assert place.execute([run]) == {run.run_id: INTERRUPTED}
    assert len(place.slurm.calls("sbatch")) == 1
    name = place.submission().job_name("g1")
    assert f"Slurm shows no job {name}, so it is not known what became of it" in place.said
    assert place.events(run, "failed") == []
    place.slurm.says("elsewhere")
    place.execute([run], lambda: place.finish(run))
    assert len(place.slurm.calls("sbatch")) == 1, "the next command asks again before it submits"


def test_runs_never_fail_because_slurm_says_nothing(place: Place):
    """An empty queue, no sacct, no agent, no log: twice a job was in the queue, and then nothing is known."""
    run = job(1)
    place.slurm.says("sacct.fails")
    in_queue = lambda: "1 queued" in place.seen[-1].queue  # noqa: E731
    statuses = place.execute(
        [run],
        in_queue,
        gone(place, "101", None),
        lambda: "102" in place.slurm.arrays() and in_queue(),
        gone(place, "102", None),
    )
    assert statuses == {run.run_id: INTERRUPTED}
    assert "left the queue and Slurm does not say how, 2 times" in place.said
    assert place.events(run, "failed") == []


def test_an_id_that_was_misread_is_corrected_by_the_name_and_anothers_end_is_no_evidence(place: Place):
    """A site's wrapper prints a ticket number; sacct knows a job of that number, which is somebody else's."""
    run = job(1)
    place.slurm.says("sbatch.prints", "17\n")
    place.slurm.says("sacct", "17|17|OUT_OF_MEMORY|0:125|somebody\n")
    statuses = place.execute(
        [run],
        lambda: place.submission().job_ids() == {"g1.0": "101"},
        lambda: place.begin("101", run),
        gone(place, "101", "TIMEOUT"),
        lambda: place.submission().job_ids() == {"g1.0": "101", "g1.1": "102"},
        lambda: place.finish(run),
    )
    assert statuses == {run.run_id: FINISHED}
    assert "is what sbatch called 17; corrected" in place.said


@pytest.mark.parametrize("state", ["OUT_OF_MEMORY", "CANCELLED by 0", "FAILED", "COMPLETED"])
def test_the_end_of_somebody_elses_job_decides_nothing(place: Place, state: str):
    """The id was misread, and no queue shows the job: sacct speaks of another one's."""
    run = job(1)
    place.slurm.says("sbatch.prints", "17\n")
    place.slurm.says("elsewhere", "alpha")
    place.slurm.says("sacct", f"17|17|{state}|0:125|somebody\n")
    assert place.execute([run]) == {run.run_id: INTERRUPTED}
    assert "Slurm shows no job 17 (harness-" in place.said
    assert len(place.slurm.calls("sbatch")) == 1


def test_the_answer_of_an_sbatch_whose_controller_was_killed_is_read_though_no_queue_shows_the_job(
    place: Place,
):
    run = job(1)
    place.execute([run], detach=True)
    folder = place.submission().folder
    (folder / "jobs.json").unlink()
    (folder / "g1.0.answer").write_text("this is job 3 of 50 allowed\n101\n")
    place.slurm.end("101")
    place.begin("101", run)
    place.execute([run], lambda: place.finish(run))
    assert submissions(place.runs_dir)[0].job_ids() == {"g1.0": "101"}


def test_while_an_sbatch_may_be_under_way_nothing_is_submitted_in_its_place(place: Place):
    """Its controller was killed: the file for its answer is there, and empty."""
    run = job(1)
    place.execute([run], detach=True)
    folder = place.submission().folder
    (folder / "jobs.json").unlink()
    sbatch = (folder / "g1.0.answer").open("wb")
    fcntl.flock(sbatch, fcntl.LOCK_EX)  # as long as it runs
    rows = (place.slurm.path / "queue").read_text()
    place.slurm.says("queue")
    statuses = place.execute(
        [run],
        lambda: len(place.slurm.calls("squeue")) > 8,
        lambda: place.slurm.says("queue", rows),
        lambda: place.submission().job_ids() == {"g1.0": "101"},
        lambda: place.finish(run),
    )
    sbatch.close()
    assert statuses == {run.run_id: FINISHED}
    assert len(place.slurm.calls("sbatch")) == 1


def test_what_an_sbatch_that_was_killed_too_did_not_submit_is_submitted(place: Place):
    """Controller and sbatch were killed at once: nobody holds the answer's lock, no queue shows the job."""
    run = job(1)
    place.execute([run], detach=True)
    folder = place.submission().folder
    (folder / "jobs.json").unlink()
    (folder / "g1.0.answer").write_text("")
    place.slurm.says("queue")
    statuses = place.execute([run], lambda: len(place.slurm.calls("sbatch")) == 2, lambda: place.finish(run))
    assert statuses == {run.run_id: FINISHED}


def test_a_users_own_settings_of_slurms_commands_hide_nothing(place: Place, monkeypatch: pytest.MonkeyPatch):
    """SQUEUE_PARTITION would make jobs of other partitions seem to have gone."""
    for name in ("SQUEUE_PARTITION", "SQUEUE_STATES", "SACCT_FEDERATION", "SLURM_CLUSTERS"):
        monkeypatch.setenv(name, "other")
    for name in ("squeue", "sacct"):
        program = place.slurm.path / "bin" / name
        program.write_text(program.read_text().replace("cd ", "env | grep -q =other && exit 1\ncd ", 1))
    run = job(1)
    place.slurm.says("sbatch.prints", "%ID%;other\n")
    place.slurm.says("elsewhere", "other")
    finish = lambda: place.finish(run) if place.seen[-1].queue else False  # noqa: E731
    assert place.execute([run], finish) == {run.run_id: FINISHED}
    assert "SLURM_CLUSTERS=other" in (place.slurm.path / "sbatch.env").read_text(), "the user's own choice"


def test_a_job_that_was_given_up_too_early_is_taken_over_and_no_other_record_is_lost(place: Place):
    run = job(1)
    place.execute([run], detach=True)
    said = place.submission().chunks()["g1.0"] | {"job_id": "77"}
    (place.submission().folder / "jobs.json").write_text(json.dumps({"g1.0": said}))
    place.log("77", "it began\n")
    wanted = {"g1.0": "77", "g1.1": "101"}
    place.execute([run], lambda: place.submission().job_ids() == wanted, lambda: place.finish(run))
    assert "had no record; taken over" in place.said


def job_that(place: Place, does: Callable[[Path], Any]) -> threading.Thread:
    """Plays the job that `harness doctor` submits: it does that in the folder of the submission."""

    def work() -> None:
        wait_until(lambda: place.slurm.arrays())
        (folder,) = (place.runs_dir / ".submissions").glob("doctor-*")
        does(folder)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def doctor_says(place: Place, does: Callable[[Path], Any], cluster: str = "cpus: 1\n") -> dict[str, Finding]:
    file = place.runs_dir.parent / "cluster.yaml"
    file.write_text(cluster)
    at = SimpleNamespace(runs_dir=place.runs_dir, data_dir=place.runs_dir / "data")
    job = job_that(place, does)
    found = {each.name: each for each in doctor.in_a_job(at, file)}
    job.join()
    assert not list((place.runs_dir / ".submissions").glob("doctor-*")), "nothing is left behind"
    return found


def test_doctor_says_what_a_job_found_and_how_its_clock_differs(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(doctor, "CHECKS", (("python", lambda _: iter([Finding("python", OK, "3.11")]), 9.0),))
    monkeypatch.setenv("SLURMD_NODENAME", "a7")
    at = SimpleNamespace(runs_dir=place.runs_dir, data_dir=None)

    def runs_slow_clock(folder: Path) -> None:
        doctor.answer_into(folder / "answer.json", at)
        said = json.loads((folder / "answer.json").read_text())
        write_json(folder / "found.json", {**said, "skew_s": said["skew_s"] + 40.0})

    found = doctor_says(place, runs_slow_clock, "gpus: 2\n")
    assert found["on a7: python"].says == "3.11"
    clock = found["on a7: clock"]
    assert (clock.level, clock.says) == (WARN, "40 s behind this machine's")
    assert found["on a7: gpus"].level == FAIL
    assert "2 GPUs asked for" in found["on a7: gpus"].says
    assert not place.slurm.calls("scancel")


def test_doctor_names_the_line_of_setup_that_failed(place: Place):
    def fails(folder: Path) -> None:
        (folder / "setup").mkdir()
        (folder / "setup" / "101_0.1.1").write_text("no such module\n")

    found = doctor_says(place, fails, "setup: [module load cuda/13]\n")
    assert found["slurm job"].level == FAIL
    line = "the setup line 'module load cuda/13' failed with exit code 1: no such module"
    assert found["slurm job"].says == f"job 101: {line}"


def test_doctor_says_where_a_job_left_without_a_word(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "UNSEEN_S", 0.0)
    monkeypatch.setattr(queue, "EVERY_S", 0.1)
    says = doctor_says(place, lambda _: place.slurm.end("101"))["slurm job"].says
    assert "it ended and left nothing in" in says
    place.slurm.says("sbatch.says", "sbatch: error: Invalid account")
    file = place.runs_dir.parent / "cluster.yaml"
    at = SimpleNamespace(runs_dir=place.runs_dir, data_dir=None)
    (refused,) = doctor.in_a_job(at, file)
    assert (refused.says, refused.mend) == ("not accepted: sbatch: error: Invalid account", f"correct {file}")
