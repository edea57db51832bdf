"""`harness run --on slurm` from the command line, where Slurm's commands are played by scripts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from harness import cli
from harness.runs.folder import RunFolder
from harness.scheduling.local import LocalSettings
from harness.slurm.submission import submissions
from tests.end_to_end.workplace import TINY
from tests.ended import end
from tests.scheduling.fake_slurm import FakeSlurm
from tests.timing import until


class NoMirror:
    def __init__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copy(TINY, folder)
    (folder / "cluster.yaml").write_text("partition: main\nmemory_gb: 2\ntime: 10min\n")
    monkeypatch.setattr("harness.tracking.mirror.LiveMirror", NoMirror)  # MLflow takes seconds to begin
    for name in ("HARNESS_RUNS", "HARNESS_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_dry_run_prints_every_script_and_writes_and_submits_nothing(
    here: Path, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
):
    before = files(here)
    assert (
        cli.main(["run", "tiny.yaml", "--on", "slurm", "--cluster", "cluster.yaml", "--dry-run"]) == cli.DONE
    )
    output = capsys.readouterr().out
    assert [line for line in output.splitlines() if line.startswith("# g")] == [
        "# g1: 2 runs, 2 agents",
        "# g2: 2 runs, 2 agents",
        "# g3: 2 runs, 2 agents",
    ]
    assert output.count("#SBATCH --partition=main\n") == 3
    assert output.count("#SBATCH --mem=2GB\n") == 3
    assert files(here) == before
    assert slurm.calls("sbatch") == []


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ([], "of this machine"),
        (["--on", "slurm", "--cluster", "cluster.yaml", "--dry-run"], "in the cluster file (`gpus:`)"),
    ],
)
def test_nothing_is_compiled_for_a_cpu(
    options: list[str], where: str, here: Path, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["run", "tiny.yaml", "--compile", *options]) == cli.USAGE_ERROR
    assert f"--compile: is for GPUs, and there is none {where}" in capsys.readouterr().err


def test_agents_of_a_job_with_a_gpu_are_told_to_compile(here: Path, slurm: FakeSlurm):
    (here / "cluster.yaml").write_text("partition: main\ngpus: 1\n")
    command = ["run", "tiny.yaml", "--on", "slurm", "--cluster", "cluster.yaml", "--detach"]
    assert cli.main([*command, "--compile"]) == cli.DONE
    (submission,) = submissions(here / "runs")
    assert submission.compile


def test_detached_it_submits_and_leaves(here: Path, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]):
    command = ["run", "tiny.yaml", "--on", "slurm", "--cluster", "cluster.yaml", "--at-most", "3", "--detach"]
    assert cli.main(command) == cli.DONE
    said = capsys.readouterr()
    assert "harness status" in said.out
    assert [row[0] for row in slurm.queue()] == ["101", "102", "103"]
    assert cli.main(command) == cli.DONE
    assert len(slurm.calls("sbatch")) == 3
    assert "6 runs in the queue already (job 101, 102, 103)" in capsys.readouterr().err


def test_detached_an_adaptive_study_is_submitted_block_by_block(
    here: Path, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
):
    """The block that is due, and no other; the words say what to do then."""
    command = [
        "run",
        "tiny.yaml",
        "--on",
        "slurm",
        "--cluster",
        "cluster.yaml",
        "--seeds",
        "1..2",
        "--detach",
    ]
    assert cli.main(command) == cli.DONE
    assert "the same command looks at the results and submits the next block" in capsys.readouterr().out
    assert _submitted(here) == [3]
    for each in submissions(here / "runs"):
        for group in each.groups:
            for job in each.jobs(group):
                end(RunFolder(here / "runs" / job.run_id), job.spec, metrics={"top1": 50.0})
    assert cli.main(command) == cli.DONE
    said = capsys.readouterr().out
    assert "look 1 of 2 (1 seed): 0 of 2 comparisons settled; 2 go on to 2 seeds: 3 further runs" in said
    assert "next block" not in said
    assert _submitted(here) == [3, 3]


def _lines(here: Path) -> list[dict[str, str]]:
    """The runs that were submitted, in any order."""
    files = (here / "runs" / ".submissions").glob("*/runs.jsonl")
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [line for line in found if "run_id" in line]


def _submitted(here: Path) -> list[int]:
    """How many runs each submission has."""
    files = (here / "runs" / ".submissions").glob("*/runs.jsonl")
    return [file.read_text().count('"run_id"') for file in files]


def test_ctrl_c_detaches_with_exit_code_3_and_says_that_the_jobs_go_on(
    here: Path, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
):
    def interrupt_when_submitted() -> None:
        until(lambda: len(slurm.calls("sbatch")) == 3 and len(slurm.queue()) == 6)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_submitted).start()
    assert cli.main(["run", "tiny.yaml", "--on", "slurm", "--cluster", "cluster.yaml"]) == cli.INTERRUPTED
    said = capsys.readouterr().err
    assert "jobs that were submitted go on" in said
    assert "starting Slurm jobs for 6 runs" in said
    assert len(slurm.queue()) == 6


def test_when_all_runs_have_ended_it_is_done(here: Path, slurm: FakeSlurm):
    def finish() -> None:
        until(lambda: len(slurm.calls("sbatch")) == 3)
        [submission] = submissions(here / "runs")
        for group in submission.groups:
            for job in submission.jobs(group):
                end(RunFolder(here / "runs" / job.run_id), job.spec, "diverged")

    threading.Thread(target=finish).start()
    assert cli.main(["run", "tiny.yaml", "--on", "slurm", "--no-report"]) == cli.DONE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cluster", "cluster.yaml"], "--cluster: only with --on slurm"),
        (["--at-most", "3"], "--at-most: only with --on slurm"),
        (["--dry-run"], "--dry-run: only with --on slurm"),
        (["--on", "inline", "--detach"], "--detach: only with --on slurm"),
        (
            ["--on", "slurm", "--workers", "2"],
            "--workers: on Slurm, the cluster file says it:",
        ),
        (["--on", "slurm", "--processes", "2"], "--processes: on Slurm, the cluster file says it: processes"),
        (["--on", "slurm", "--cluster", "clustr.yaml"], "clustr.yaml: no such file"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_is_started(
    here: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    before = files(here)
    assert cli.main(["run", "tiny.yaml", *options]) == cli.USAGE_ERROR
    assert said in capsys.readouterr().err
    assert files(here) == before


def test_processes_of_a_run_are_the_machines_and_leave_room_for_fewer_workers(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    made = []

    class Seen:
        def __init__(self, settings: LocalSettings, *_: object) -> None:
            made.append(settings)

        def warm_up(self) -> None:
            pass

        def execute(self, *_: object) -> dict[str, str]:
            return {"a run": "interrupted"}

    monkeypatch.setattr("harness.scheduling.local.Local", Seen)
    monkeypatch.setattr("harness.scheduling.base.default_workers", lambda *_: 5)
    assert cli.main(["run", "tiny.yaml", "--processes", "2"]) == cli.INTERRUPTED
    assert (made[0].machine.processes, made[0].workers) == (2, 2)


def test_a_partition_that_does_not_exist_is_one_error_that_names_the_file(
    here: Path, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
):
    slurm.says("sbatch.says", "sbatch: error: invalid partition specified: main\n")
    assert cli.main(["run", "tiny.yaml", "--on", "slurm", "--cluster", "cluster.yaml"]) == cli.USAGE_ERROR
    said = capsys.readouterr().err
    assert "cluster.yaml: not accepted: sbatch: error: invalid partition specified: main" in said
    assert "Traceback" not in said
