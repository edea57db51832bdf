"""What becomes of a study when the command that submitted it dies, is given twice, or cannot submit."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.end_to_end.workplace import Workplace
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import LONG, SHORT
from tests.slurm.place import PATIENCE_S, SlurmPlace, copy_of_the_code, read_json, wait_until

At = Callable[..., SlurmPlace]


def test_after_kill_9_of_the_command_the_study_goes_on_and_the_next_command_only_reports(
    cluster: Cluster, at: At, undisturbed: Workplace
):
    place = at(cluster)
    place.resources(sbatch=["--hold"])
    process = place.start_submitting()
    wait_until(place.is_submitted, lambda: f"nothing was submitted: {process.poll()} {place.story()}")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert set(place.tasks().values()) == {"PENDING"}, "it was killed before anything began"
    cluster.ask("scontrol", "release", *place.job_ids())
    wait_until(lambda: not place.tasks(), place.story)
    assert place.results() == undisturbed.results(), place.story()

    done = place.harness("run", "--on", "slurm", "--cluster", "cluster.yaml")
    assert done.returncode == 0, done.stderr
    assert (place.report_dir / "report.md").exists()
    assert set(place.attempts().values()) == {1}, "nothing was trained again"
    assert len(place.submissions()) == 1


def test_after_kill_9_in_the_middle_of_submitting_the_next_command_submits_the_rest(
    cluster: Cluster, at: At, undisturbed: Workplace, tmp_path: Path, monkeypatch
):
    place, second = at(cluster), tmp_path / "second"
    with monkeypatch.context() as patch:
        again = f"echo $$ > {second}.draft; mv {second}.draft {second}; sleep 1800"
        hangs = f"[ -e {tmp_path}/first ] && {{ {again}; }}"
        site_says(tmp_path, patch, f'{hangs}\n: > {tmp_path}/first\nsbatch "$@"')
        process = place.start_submitting()
        wait_until(second.exists, lambda: f"{process.poll()} {place.story()}")
        os.killpg(process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):  # it may be of the same group
            os.killpg(os.getpgid(int(second.read_text())), signal.SIGKILL)
        process.communicate()
    assert len(place.job_ids()) == 1
    assert not place.is_submitted()
    done = place.submit()
    assert done.returncode == 0, done.stderr + place.story()
    assert place.results() == undisturbed.results()
    assert set(place.attempts().values()) == {1}


def test_two_commands_at_once_train_each_run_once(cluster: Cluster, at: At, undisturbed: Workplace):
    place = at(cluster)
    processes = [place.start_submitting() for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors + place.story()
    assert place.results() == undisturbed.results()
    assert set(place.attempts().values()) == {1}


def test_slurm_and_this_machine_at_once_train_each_run_once(cluster: Cluster, at: At, undisturbed: Workplace):
    place = at(cluster)
    processes = [place.start_submitting(), place.start("run", "tiny.yaml", "--no-report")]
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors + place.story()
    assert place.results() == undisturbed.results()
    assert set(place.attempts().values()) == {1}


def test_ctrl_c_leaves_the_jobs_running_and_the_same_command_attaches_again(
    cluster: Cluster, at: At, undisturbed: Workplace
):
    place = at(cluster)
    place.resources(sbatch=["--hold"])
    process = place.start_submitting()
    wait_until(place.is_submitted, place.story)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3, errors
    assert "go on without this command" in errors
    assert "Traceback" not in errors
    assert set(place.tasks().values()) == {"PENDING"}, "they are still there"
    cluster.ask("scontrol", "release", *place.job_ids())
    done = place.submit()
    assert done.returncode == 0, done.stderr + place.story()
    assert place.results() == undisturbed.results()
    assert set(place.attempts().values()) == {1}
    assert len(place.submissions()) == 1


def test_a_partition_that_does_not_exist_is_one_clear_error_and_nothing_looks_submitted(
    cluster: Cluster, at: At
):
    place = at(cluster)
    place.resources(partition="gpus")
    done = place.submit()
    assert done.returncode == 2, done.stdout + done.stderr
    assert "gpus" in done.stderr
    assert "Traceback" not in done.stderr
    assert place.tasks() == {}
    assert place.job_ids() == []

    place.resources()
    mended = place.submit("--detach")
    assert mended.returncode == 0, mended.stderr
    assert place.tasks(), "the same command submits once that is mended"


SITES = {  # what a site's sbatch prints, in place of what Slurm's says
    "a banner": 'echo "this is job 3 of 50 allowed"; sbatch "$@"',
    "no id": 'sbatch "$@" > /dev/null; echo "Auftrag angenommen"',
    "a failure after success": 'sbatch "$@"; echo "no quota file" >&2; exit 3',
    "the sentence": 'sbatch --quiet "$@" | sed "s/^/Submitted batch job /"',
}


def site_says(folder: Path, patch: pytest.MonkeyPatch, words: str) -> None:
    """Let the site have an sbatch of its own, which calls Slurm's."""
    real = shutil.which("sbatch")
    (folder / "bin").mkdir()
    (folder / "bin" / "sbatch").write_text("#!/bin/bash\n" + words.replace("sbatch ", f"{real} ") + "\n")
    (folder / "bin" / "sbatch").chmod(0o755)
    patch.setenv("PATH", str(folder / "bin"), prepend=":")


@pytest.mark.parametrize("words", SITES.values(), ids=SITES)
def test_whatever_a_site_prints_every_run_is_submitted_once(
    cluster: Cluster, at: At, undisturbed: Workplace, tmp_path: Path, monkeypatch, words: str
):
    site_says(tmp_path, monkeypatch, words)
    place = at(cluster)
    done = place.submit()
    assert done.returncode == 0, done.stderr + place.story()
    assert place.results() == undisturbed.results()
    assert set(place.attempts().values()) == {1}
    assert len(place.submissions()) == 1
    assert len(place.job_ids()) == 3, "one array for each group"


def test_jobs_of_a_cluster_that_is_named_are_watched_and_cancelled_there(cluster: Cluster, at: At):
    place = at(cluster)
    place.resources(sbatch=["--clusters=test", "--hold"])
    assert place.submit("--detach").returncode == 0
    (folder,) = place.submissions()
    assert {job["cluster"] for job in read_json(folder / "jobs.json").values()} == {"test"}
    status = json.loads(place.harness("status", "--json").stdout)
    assert {
        group["agents_pending"] for each in status["queue"]["submissions"] for group in each["groups"]
    } == {2}
    cancelled = json.loads(place.harness("cancel", "--json").stdout)
    assert sorted(cancelled["scancelled"]) == sorted(place.job_ids()), cancelled
    assert place.tasks() == {}


def test_a_job_of_another_name_is_never_cancelled(cluster: Cluster, at: At):
    """The number in `jobs.json` is that of somebody else's job."""
    other = cluster.sbatch("--hold", "--wrap=true")
    place = at(cluster)
    place.resources(sbatch=["--hold"])
    assert place.submit("--detach").returncode == 0
    mine = place.job_ids()
    file = place.submissions()[0] / "jobs.json"
    file.write_text(json.dumps({chunk: said | {"job_id": other} for chunk, said in read_json(file).items()}))
    place.harness("cancel")
    assert cluster.ask("squeue", "-h", "-j", other, "-o", "%T").strip() == "PENDING"
    cluster.ask("scancel", other, *mine)


def test_a_dry_run_prints_the_scripts_and_submits_nothing(cluster: Cluster, at: At):
    place = at(cluster)
    done = place.submit("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --partition=main" in done.stdout
    assert place.submissions() == []


def test_a_failed_line_of_setup_is_named_and_the_same_command_goes_on_once_it_is_mended(
    cluster: Cluster, at: At, undisturbed_baseline: Workplace
):
    place = at(cluster, **SHORT)
    place.resources(setup=["echo loading", "echo no such module >&2; exit 4"])
    done = place.submit()
    assert done.returncode == 3, done.stderr + place.story()
    line = "the setup line 'echo no such module >&2; exit 4' failed with exit code 4: no such module"
    assert line in done.stdout + done.stderr
    assert not place.folders(), "no run was started"
    place.resources(setup=["export LOADED=yes", 'test "$LOADED" = yes'])
    done = place.submit()
    assert done.returncode == 0, done.stderr + place.story()
    assert place.results() == undisturbed_baseline.results(), "setup is no part of a run's identity"


def test_doctor_says_what_a_job_finds_and_leaves_nothing_behind(cluster: Cluster, at: At):
    place = at(cluster)
    place.resources(setup=["echo a banner"])
    done = place.call("doctor", "--on", "slurm", "--cluster", "cluster.yaml", "--json")
    said = json.loads(done.stdout)
    found = {check["name"].partition(": ")[2]: check for check in said["checks"]}
    assert {"job", "folder", "clock", "python", "torch", "disk", "file system"} <= found.keys(), done.stderr
    assert found["clock"]["level"] == "ok"
    assert not list((place.runs_dir / ".submissions").glob("doctor-*"))

    place.resources(gpus=1)
    done = place.call("doctor", "--on", "slurm", "--cluster", "cluster.yaml")
    assert done.returncode == 1
    assert "1 GPU asked for, CUDA_VISIBLE_DEVICES='0', but n" in done.stdout


def test_a_budget_of_gpu_hours_cuts_and_the_same_command_goes_on(
    cluster: Cluster, at: At, tmp_path: Path, undisturbed_long: Workplace
):
    """This cluster's GPUs are none: the agents of a changed checkout train on the CPU in their place."""
    agent = copy_of_the_code(tmp_path / "code") / "harness" / "slurm" / "agent.py"
    text = agent.read_text().replace("detect_devices() if resources.gpus else", "").replace(
        "if seen < resources.gpus:", "if False:"
    )  # fmt: skip
    agent.write_text(text)
    place = at(cluster, code=tmp_path / "code", **LONG)
    place.resources(gpus=1)
    budget = 0.002
    # Until the agents of this machine come to a first step within it.
    while not any(place.events("checkpoint").values()):
        done = place.submit("--budget", f"{budget}gpu-hours")
        assert done.returncode == 3, done.stderr + place.story()
        assert "the budget is spent" in done.stdout + done.stderr
        assert len(place.results()) < len(undisturbed_long.results()), "it was cut"
        wait_until(lambda: not place.tasks(), place.story)
        budget *= 2
    done = place.submit()
    assert done.returncode == 0, done.stderr + place.story()
    assert place.results() == undisturbed_long.results()
    assert max(place.resumed_from()) > 0
