"""Agents as Slurm runs them: processes with its environment and signals, and a scontrol that notes calls."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cli import build_parser, main
from harness.runs.folder import (
    RunFolder,
    append_line,
    holder_of,
    newest_number,
    read_claim,
    read_lines,
    run_state,
)
from harness.scheduling import ranks
from harness.scheduling.base import Job
from harness.slurm import agent
from harness.slurm.cluster import Resources
from harness.slurm.submission import Group, Order, Submission, draft, read_submission, write_submission
from harness.spec import DIVERGED, FINISHED, Machine
from tests.scheduling.fakes import events, go, has_begun, job, run_fake
from tests.timing import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
AGENT = """
import sys
from pathlib import Path
from harness.slurm.agent import run_agent
from harness.slurm.submission import read_submission
from tests.scheduling.fakes import run_fake

submission = read_submission(Path(sys.argv[1]), sys.argv[2])
sys.exit(run_agent(submission, submission.groups["g"], run_fake, ("tests.scheduling.fakes",)))
"""
SCONTROL = """#!/bin/sh
echo "$@" >> {calls}
if [ "$1" = show ]; then /bin/cat {show}; exit 0; fi
while [ "$1" = requeue ] && [ -e {hold} ]; do /bin/sleep 0.05; done
echo answered >> {calls}
echo slurm_update error: Invalid job id >&2
exit {code}
"""
RUNNING = "JobId=105 ArrayJobId=100 JobState=RUNNING Requeue=1 PreemptTime={time} SuspendTime=None"


class Cluster:
    """A folder of runs, a scontrol, and the agents that a test starts."""

    def __init__(self, path: Path) -> None:
        self.runs_dir, self.bin, self.calls_file = path / "runs", path / "bin", path / "calls.txt"
        self.show, self.hold = path / "show.txt", path / "hold"  # while `hold` exists a requeue hangs
        self.bin.mkdir()
        self.started: list[subprocess.Popen[str]] = []
        self.show.write_text(RUNNING.format(time="None"))
        self.scontrol()

    def scontrol(self, *, code: int = 0) -> None:
        text = SCONTROL.format(calls=self.calls_file, show=self.show, code=code, hold=self.hold)
        (self.bin / "scontrol").write_text(text)
        (self.bin / "scontrol").chmod(0o755)

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    def submission(self, jobs: Sequence[Job], token: str = "0123456789ab", **resources: Any) -> Submission:
        group = Group(name="g", resources=Resources(**resources), level=0, width=1)
        order = Order(
            study="s", size="mini", data_dir="data", exact=True, python=sys.executable, snapshot=str(ROOT)
        )
        folder = self.runs_dir / ".submissions" / token
        by_id = {each.run_id: each for each in jobs}
        return write_submission(draft(folder, order, [group]), folder, by_id, dict.fromkeys(by_id, "g"), "")

    def start(self, submission: Submission, task: int = 3, *, restarts: int = 0) -> subprocess.Popen[str]:
        """An array task in a process group of its own. Slurm signals all processes of a task."""
        environment = {
            **os.environ,
            "PATH": str(self.bin),
            "PYTHONPATH": str(ROOT),
            "SLURM_JOB_ID": f"{102 + task}",
            "SLURM_JOB_NAME": submission.job_name("g"),
            "SLURM_ARRAY_JOB_ID": "100",
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_NODEID": "0",
            **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}),
        }
        self.started.append(
            subprocess.Popen(
                [sys.executable, "-c", AGENT, str(self.runs_dir), submission.token],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                process_group=0,
            )
        )
        return self.started[-1]

    def folder(self, each: Job) -> RunFolder:
        return RunFolder(self.runs_dir / each.run_id)


@pytest.fixture
def cluster(tmp_path: Path):
    place = Cluster(tmp_path)
    yield place
    for process in place.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def end(process: subprocess.Popen[str], submission: Submission) -> list[dict[str, object]]:
    """Wait for an agent. Returns the events of the last life of agent 105."""
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    lines = read_lines(submission.folder / "agents" / "105.jsonl")
    first = max(index for index, event in enumerate(lines) if event["kind"] == "started")
    return lines[first:]


def start_in_the_middle(
    cluster: Cluster, jobs: Sequence[Job], **options: int
) -> tuple[Submission, subprocess.Popen[str]]:
    """An agent that is training all of the jobs."""
    submission = cluster.submission(jobs, runs_side_by_side=len(jobs))
    process = cluster.start(submission, **options)
    until(lambda: all(has_begun(cluster.folder(each)) for each in jobs))
    return submission, process


def kinds(lines: Sequence[dict[str, object]]) -> list[object]:
    return [line["kind"] for line in lines]


def test_an_agent_trains_its_group_writes_what_it_did_and_leaves(cluster):
    jobs = [job(0), job(1, "diverge"), job(2, "crash"), job(3, "sleep", time_s=0.2)]
    submission = cluster.submission(jobs)
    lines = end(cluster.start(submission), submission)
    assert [run_state(cluster.folder(each)) for each in jobs] == [FINISHED, DIVERGED, "failed", FINISHED]
    first, last = lines[0], lines[-1]
    assert first.items() >= {"kind": "started", "restart_count": 0, "array_job_id": "100"}.items()
    assert {"host", "pid", "array_task_id", "node", "time_s"} <= first.keys()
    assert (last["kind"], last["exit"]) == ("left", 0)
    trained = [(line["run_id"], line["status"]) for line in lines if line["kind"] == "run_ended"]
    assert sorted(trained) == sorted((each.run_id, run_state(cluster.folder(each))) for each in jobs)
    claim = read_claim(cluster.folder(jobs[0]).path, 1)
    assert (claim.job, claim.released) == ("105", True)
    assert cluster.calls() == []


def test_usr2_checkpoints_every_run_requeues_this_task_and_the_next_life_ends_in_the_same_results(cluster):
    jobs = [job(seed, "count", steps=20) for seed in range(2)]
    submission, process = start_in_the_middle(cluster, jobs)
    os.killpg(process.pid, signal.SIGUSR2)
    lines = end(process, submission)
    assert cluster.calls() == ["requeue 100_3", "answered"], "the task: 100 would be the whole array"
    assert kinds(lines)[-2:] == ["run_ended", "requeued"]
    assert [line["why"] for line in lines if line["kind"] == "stopping"] == ["SIGUSR2"]
    for each in jobs:
        assert len(events(cluster.folder(each), "checkpoint")) == 1
        assert newest_number(cluster.folder(each).path) == 1
        assert holder_of(cluster.folder(each)) is None
        assert not events(cluster.folder(each), "worker_died")

    go(cluster.runs_dir)
    lines = end(cluster.start(submission, restarts=1), submission)
    assert (lines[0]["restart_count"], lines[-1]["kind"]) == (1, "left")
    for each in jobs:
        value = each.spec.seed
        for step in range(20):
            value = (value * 31 + step) % 10_007
        assert cluster.folder(each).read_summary()["metrics"]["value"] == value


@pytest.mark.parametrize(
    ("said", "calls", "last"),
    [
        (RUNNING.format(time="2024-05-01T10:00:00"), ["show job -o 100_3", "requeue 100_3"], "requeued"),
        (RUNNING.format(time="None"), ["show job -o 100_3"], "left"),
        ("JobState=CANCELLED PreemptTime=2024-05-01T10:00:00", ["show job -o 100_3"], "left"),
    ],
)
def test_sigterm_requeues_what_was_preempted_and_nothing_else(cluster, said, calls, last):
    cluster.show.write_text(said)
    jobs = [job(0, "count", steps=20)]
    submission, process = start_in_the_middle(cluster, jobs)
    os.killpg(process.pid, signal.SIGTERM)
    lines = end(process, submission)
    assert [call for call in cluster.calls() if call != "answered"] == calls
    assert lines[-1]["kind"] == last
    assert len(events(cluster.folder(jobs[0]), "checkpoint")) == 1
    assert run_state(cluster.folder(jobs[0])) == "stopped"


def test_without_scontrol_and_where_it_refuses_the_agent_says_so_and_leaves(cluster):
    jobs = [job(0, "count", steps=20)]
    cluster.scontrol(code=1)
    submission, process = start_in_the_middle(cluster, jobs)
    os.killpg(process.pid, signal.SIGUSR2)
    last = end(process, submission)[-1]
    assert cluster.calls().count("requeue 100_3") == 2, "one retry"
    assert (last["kind"], last["exit"]) == ("left", 0)
    assert "Invalid job id" in last["why"]

    (cluster.bin / "scontrol").unlink()
    process = cluster.start(submission, restarts=1)
    until(lambda: len(events(cluster.folder(jobs[0]), "started")) == 2)
    os.killpg(process.pid, signal.SIGUSR2)
    last = end(process, submission)[-1]
    assert last["kind"] == "left"
    assert "FileNotFoundError" in last["why"]
    assert run_state(cluster.folder(jobs[0])) == "stopped"


def test_the_sigterm_of_a_requeue_ends_neither_scontrol_nor_the_agent(cluster):
    cluster.hold.touch()
    submission, process = start_in_the_middle(cluster, [job(0, "count", steps=20)])
    os.killpg(process.pid, signal.SIGUSR2)
    until(cluster.calls)
    os.killpg(process.pid, signal.SIGTERM)
    cluster.hold.unlink()
    assert end(process, submission)[-1]["kind"] == "requeued"
    assert cluster.calls() == ["requeue 100_3", "answered"]


@pytest.mark.parametrize("name", ["interactive", ""])
def test_a_job_of_another_name_is_not_requeued(cluster, monkeypatch, name: str):
    """Somebody started the agent by hand inside a job of theirs, whose number the environment has."""
    cluster.show.write_text("JobId=100 JobName=interactive JobState=RUNNING")
    jobs = [job(0, "count", steps=20)]
    submission = cluster.submission(jobs)
    with monkeypatch.context() as patch:
        patch.setattr(Submission, "job_name", lambda *_: name)  # what the environment says; "": nothing
        process = cluster.start(submission)
    until(lambda: has_begun(cluster.folder(jobs[0])))
    os.killpg(process.pid, signal.SIGUSR2)
    last = end(process, submission)[-1]
    assert "requeue 100_3" not in cluster.calls()
    assert f"job 100_3 is called interactive, not {submission.job_name('g')}" in str(last["why"])


def test_a_third_life_that_brings_no_run_further_is_the_last(cluster):
    jobs = [job(0, "count", steps=20)]
    submission, process = start_in_the_middle(cluster, jobs)
    until((cluster.folder(jobs[0]).path / "middle").exists)
    os.killpg(process.pid, signal.SIGUSR2)
    assert end(process, submission)[-1].items() >= {"kind": "requeued", "progress": True}.items()
    file = submission.folder / "agents" / "105.jsonl"
    append_line(file, {"kind": "requeued", "progress": False})
    for restarts, last in ((1, "requeued"), (2, "left")):
        process = cluster.start(submission, restarts=restarts)
        until(lambda number=restarts + 1: len(events(cluster.folder(jobs[0]), "started")) == number)
        os.killpg(process.pid, signal.SIGUSR2)
        line = end(process, submission)[-1]
        assert line["kind"] == last
    assert "3 lives in a row" in line["why"]
    assert cluster.calls().count("requeue 100_3") == 2


@pytest.mark.campaign
def test_agents_of_one_group_train_each_run_once(cluster):
    jobs = [job(9, "sleep", time_s=1.5, cost=9)] + [job(seed, "sleep", time_s=0.1) for seed in range(12)]
    submission = cluster.submission(jobs)
    processes = [cluster.start(submission, task) for task in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
    assert [run_state(cluster.folder(each)) for each in jobs] == [FINISHED] * 13
    assert [len(events(cluster.folder(each), "started")) for each in jobs] == [1] * 13
    assert len(submission.agents()) == 4


def test_a_killed_agent_is_followed_and_its_death_is_recorded(cluster):
    jobs = [job(0, "count", steps=20)]
    submission, process = start_in_the_middle(cluster, jobs)
    os.killpg(process.pid, signal.SIGKILL)
    go(cluster.runs_dir)
    lines = end(cluster.start(submission, restarts=1), submission)
    assert lines[-1]["kind"] == "left"
    [death] = events(cluster.folder(jobs[0]), "worker_died")
    assert f"process {process.pid} on {os.uname().nodename} (job 105) is gone" in death["message"]
    assert run_state(cluster.folder(jobs[0])) == FINISHED


def test_a_run_that_kills_every_agent_is_given_up_without_a_controller(cluster):
    jobs = [job(0, "count", steps=20)]
    submission = cluster.submission(jobs)
    for life in range(3):
        process = cluster.start(submission, restarts=life)
        until(lambda number=life + 1: len(events(cluster.folder(jobs[0]), "started")) == number)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    end(cluster.start(submission, restarts=3), submission)
    assert run_state(cluster.folder(jobs[0])) == "failed"
    assert "given up after 3 attempts" in events(cluster.folder(jobs[0]), "failed")[0]["message"]


def test_a_run_that_failed_is_tried_again_by_a_later_submission_only(cluster):
    jobs = [job(0, "crash")]
    submission = cluster.submission(jobs)
    for life in range(2):
        end(cluster.start(submission, restarts=life), submission)
    assert len(events(cluster.folder(jobs[0]), "failed")) == 1
    later = cluster.submission(jobs, token="ba9876543210")
    end(cluster.start(later), later)
    assert len(events(cluster.folder(jobs[0]), "failed")) == 2


def test_students_of_a_teacher_that_was_interrupted_are_left_for_later_and_of_a_failed_one_fail(cluster):
    stopped, failed = job(0), job(1)
    cluster.folder(stopped).path.mkdir(parents=True)
    cluster.folder(failed).path.mkdir()
    cluster.folder(stopped).append_event("checkpoint", step=1)
    cluster.folder(failed).append_event("failed", message="x")
    student, orphan = job(2, needs=(stopped,)), job(3, needs=(failed,))
    grandchild, free = job(4, needs=(student,)), job(5)
    submission = cluster.submission([student, orphan, grandchild, free])
    lines = end(cluster.start(submission), submission)
    states = [run_state(cluster.folder(each)) for each in (student, orphan, grandchild, free)]
    assert states == ["missing", "failed", "missing", FINISHED]
    [left_out] = [line for line in lines if line["kind"] == "left_out"]
    assert left_out["run_ids"] == sorted([student.run_id, grandchild.run_id])
    assert left_out["needs"] == [stopped.run_id]


def test_other_nodes_of_a_job_follow_the_first(cluster, monkeypatch):
    submission = cluster.submission([job(0)], nodes=2, processes=4)
    followed = []
    monkeypatch.setattr(ranks, "follow", lambda *arguments: followed.append(arguments))
    for name, value in {"SLURM_JOB_ID": "105", "SLURM_NODEID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert agent.run_agent(submission, submission.groups["g"], run_fake, ()) == 0
    [(orders, node, run_one, machine, stop)] = followed
    assert (orders, node, run_one) == (submission.folder / "orders" / "105", 1, run_fake)
    assert (machine.processes, machine.devices, machine.device) == (4, ("cpu", "cpu"), "cpu")
    assert stop() is False
    assert not (submission.folder / "agents" / "105.jsonl").exists()


def test_an_agent_on_whose_gpu_nothing_can_be_begun_says_so_and_fails_no_run(cluster, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    jobs = [job(0, "unusable"), job(1, "unusable")]
    submission = cluster.submission(jobs)
    lines = end(cluster.start(submission), submission)
    assert lines[-1]["why"].startswith("nothing can be begun on its GPUs")
    kinds = {event["kind"] for each in jobs for event in cluster.folder(each).read_events()}
    assert kinds <= {"started", "device_lost"}


def test_gpus_are_those_that_slurm_gave(cluster, monkeypatch):
    monkeypatch.setattr(agent, "detect_devices", lambda: ("cuda:0", "cuda:1"))
    settings = [
        agent.agent_settings(cluster.submission([job(0)], token, **each), group_of(cluster, token), ())
        for token, each in (
            ("a" * 12, {"gpus": 2, "processes": 2}),
            ("b" * 12, {"gpus": 2, "runs_side_by_side": 4}),
            ("c" * 12, {"gpus": 0}),
        )
    ]
    machines = [(each.machine.device, each.machine.devices, each.machine.processes) for each in settings]
    assert machines == [("cuda:0", ("cuda:0", "cuda:1"), 2), ("cuda:0", (), 1), ("cpu", (), 1)]
    assert [(each.workers, each.devices) for each in settings[1:]] == [
        (4, ("cuda:0", "cuda:1")),
        (1, ("cpu",)),
    ]


def test_an_agent_measures_how_many_runs_share_its_gpus_with_those_that_are_left(
    cluster, monkeypatch, capsys
):
    asked: list[Any] = []

    def beside(machine: Machine, devices: Sequence[str], jobs: Sequence[Job]) -> tuple[int, str]:
        asked.append((machine.device, devices, [each.run_id for each in jobs]))
        return 3, "1: 100, 2: 190, 4: 200 images/s"

    monkeypatch.setattr(agent, "detect_devices", lambda: ("cuda:0", "cuda:1"))
    monkeypatch.setattr(agent, "runs_beside", beside)
    done, left = job(0), job(1)
    submission = cluster.submission([done, left], gpus=2, cpus=8, runs_side_by_side=0)
    monkeypatch.setattr(
        agent, "run_state", lambda folder: "finished" if folder.run_id == done.run_id else None
    )
    found = agent.agent_settings(submission, submission.groups["g"], ())
    assert asked == [("cuda:0", ("cuda:0", "cuda:1"), [left.run_id])]
    assert (found.workers, found.per_device) == (6, 3)
    assert capsys.readouterr().out == "runs that share a GPU: 3 (1: 100, 2: 190, 4: 200 images/s)\n"


def test_each_of_two_nodes_has_the_devices_of_its_own_processes(cluster, monkeypatch):
    monkeypatch.setattr(agent, "detect_devices", lambda: ("cuda:0",))
    submission = cluster.submission([job(0)], "d" * 12, gpus=1, nodes=2, processes=2)
    [worker] = agent.agent_settings(submission, submission.groups["g"], ()).worker_settings(b"", ())
    assert (worker.machine.device, worker.machine.devices) == ("cuda:0", ("cuda:0",))


def test_an_agent_that_was_given_no_gpu_says_so_and_trains_nothing_on_the_cpu(cluster, monkeypatch):
    monkeypatch.setattr(agent, "detect_devices", lambda: ("cpu",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURMD_NODENAME", "a7")
    submission = cluster.submission([job(0)], "e" * 12, gpus=1)
    with pytest.raises(ValueError, match="1 GPU asked for, CUDA_VISIBLE_DEVICES='3', but a7 shows no NVIDIA"):
        agent.agent_settings(submission, submission.groups["g"], ())


def test_an_agent_that_was_given_fewer_gpus_than_asked_for_says_so(cluster, monkeypatch):
    monkeypatch.setattr(agent, "detect_devices", lambda: ("cuda:0",))
    submission = cluster.submission([job(0)], "e" * 12, gpus=2, gpu_type="a100")
    said = r"2 a100 GPUs asked for, .* shows 1 NVIDIA device; choose a partition"
    with pytest.raises(ValueError, match=said):
        agent.agent_settings(submission, submission.groups["g"], ())


def test_a_gpu_that_slurm_gave_and_nobody_asked_for_is_not_left_idle_without_a_word(cluster, monkeypatch):
    """A site's own option, or its submission plug-in: the harness cannot know them all."""
    monkeypatch.setenv("SLURM_STEP_GPUS", "2,3")
    submission = cluster.submission([job(0)], "e" * 12)
    said = r"SLURM_STEP_GPUS='2,3'\) that the cluster file .*; write gpus: 2 there"
    with pytest.raises(ValueError, match=said):
        agent.agent_settings(submission, submission.groups["g"], ())


def group_of(cluster: Cluster, token: str) -> Group:
    return read_submission(cluster.runs_dir, token).groups["g"]


def test_the_command_is_hidden_and_says_in_words_what_it_does_not_find(cluster, capsys):
    assert "agent" not in build_parser().format_help()
    submission = cluster.submission([job(0)])
    assert main(["agent", str(cluster.runs_dir), submission.token, "gg"]) == 2
    assert main(["agent", str(cluster.runs_dir), "0" * 12, "g"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'g'" in said or "valid: g" in said
    assert "no submission.json" in said
