"""The controller as its user sees it: started from a script, killed with -9, signalled with its group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from harness.spec import FINISHED
from tests.scheduling.fakes import events, go, has_begun, job
from tests.timing import PATIENCE_S, wait_until

# A script as a user may write it, without `if __name__ == "__main__"`: a worker must not run it again.
CONTROLLER = """
import sys
from pathlib import Path
from harness.scheduling.local import Local, LocalSettings
from harness.spec import Machine
from tests.scheduling.fakes import job, run_fake

runs_dir, runs, task = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
options, preload = eval(sys.argv[4]), sys.argv[5]
with (runs_dir / "started.txt").open("a") as file:
    file.write("started\\n")
machine = Machine(runs_dir=runs_dir, data_dir=runs_dir)
settings = LocalSettings(machine=machine, workers=2, preload=(preload,), grace_s=600)
jobs = [job(seed, task, **options) for seed in range(runs)]
ended = Local(settings).execute(jobs, run_fake, lambda progress: None)
print(*ended.values())
"""


def start(
    runs_dir: Path,
    task: str = "count",
    *,
    runs: int = 2,
    preload: str = "tests.scheduling.fakes",
    script: str = CONTROLLER,
    **options: float,
) -> subprocess.Popen[str]:
    """Start the script in a process group of its own, away from the directory of the tests."""
    runs_dir.mkdir(exist_ok=True)
    file = runs_dir / "controller.py"
    root = Path(__file__).parents[2]
    file.write_text(f"import sys\nsys.path[:0] = {[str(root), str(runs_dir)]}\n{script}")
    arguments = [str(runs_dir), str(runs), task, repr(options), preload]
    return subprocess.Popen(
        [sys.executable, str(file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        cwd=runs_dir,
    )


def group_of(process: subprocess.Popen[str]) -> list[int]:
    """The living processes of a group: the controller, its fork server and its workers."""
    alive = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = file.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == process.pid and state != "Z":
            alive.append(int(file.parent.name))
    return alive


def folders(runs_dir: Path, task: str = "count", *, runs: int = 2, **options: float) -> list[RunFolder]:
    return [RunFolder(runs_dir / job(seed, task, **options).run_id) for seed in range(runs)]


def all_started(all_folders: list[RunFolder]) -> Callable[[], bool]:
    return lambda: all(has_begun(folder) for folder in all_folders)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc")


@needs_proc
def test_after_kill_9_no_process_stays_and_the_next_execute_ends_in_the_same_results(tmp_path):
    steps = 20
    killed = start(tmp_path / "killed", steps=steps)
    running = folders(tmp_path / "killed", steps=steps)
    assert wait_until(all_started(running))
    assert len(group_of(killed)) >= 4
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert wait_until(lambda: group_of(killed) == []), "workers notice that the controller is gone"
    for folder in running:
        assert not folder.summary.exists()
        assert len(events(folder, "checkpoint")) == 1

    for runs_dir in (tmp_path / "killed", tmp_path / "undisturbed"):
        go(runs_dir)
        output, errors = start(runs_dir, steps=steps).communicate(timeout=PATIENCE_S)
        assert output.split() == [FINISHED, FINISHED], errors
    for folder, undisturbed in zip(running, folders(tmp_path / "undisturbed", steps=steps), strict=True):
        assert folder.summary.read_bytes() == undisturbed.summary.read_bytes()


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_lets_the_workers_checkpoint(tmp_path, number):
    process = start(tmp_path / "runs", steps=20)
    running = folders(tmp_path / "runs", steps=20)
    assert wait_until(all_started(running))
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert output.split() == ["interrupted", "interrupted"]
    assert errors == ""
    assert process.returncode == 0
    assert all(len(events(folder, "checkpoint")) == 1 for folder in running)
    assert wait_until(lambda: group_of(process) == [])


@needs_proc
def test_when_the_fork_server_is_killed_its_runs_are_retried_and_end(tmp_path):
    process = start(tmp_path / "runs", steps=20)
    running = folders(tmp_path / "runs", steps=20)
    assert wait_until(all_started(running))
    workers = {events(folder, "started")[0]["pid"] for folder in running}
    [server] = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in workers}
    os.kill(server, signal.SIGKILL)
    assert wait_until(lambda: all(events(folder, "worker_died") for folder in running))
    go(tmp_path / "runs")
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert output.split() == [FINISHED, FINISHED], errors
    assert [len(events(folder, "worker_died")) for folder in running] == [1, 1]
    assert not any(events(folder, "checkpoint") for folder in running), "the lost workers were killed"
    assert wait_until(lambda: group_of(process) == [])


def test_a_script_without_a_main_guard_runs_once_and_leaves_no_warning(tmp_path):
    output, errors = start(tmp_path / "runs", "quick", runs=3).communicate(timeout=PATIENCE_S)
    assert output.split() == [FINISHED] * 3
    assert errors == ""
    assert (tmp_path / "runs" / "started.txt").read_text() == "started\n"


def test_modules_are_imported_once_in_the_server_and_found_by_every_worker(tmp_path):
    _, errors = start(tmp_path / "runs", "see", runs=4).communicate(timeout=PATIENCE_S)
    assert errors == ""
    seen = [folder.read_events() for folder in folders(tmp_path / "runs", "see", runs=4)]
    importers = {event["imported_in"] for _, event in seen}
    workers = {event["pid"] for event, _ in seen}
    assert len(importers) == 1
    assert not importers & workers


def test_a_preloaded_module_that_raises_is_named_and_does_not_stop_the_runs(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "explodes.py").write_text("raise RuntimeError('no licence')")
    script = CONTROLLER.replace("lambda progress: None", "lambda progress: print(progress.note)")
    process = start(tmp_path / "runs", "sleep", time_s=0.2, preload="explodes", script=script)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert "explodes (RuntimeError: no licence)" in output
    assert output.split()[-2:] == [FINISHED, FINISHED]


def test_a_function_of_the_main_script_is_found_and_a_broken_import_is_a_failed_run(tmp_path):
    script = CONTROLLER.replace("import job, run_fake", "import job").replace("ended = ", "    ended = ")
    script = script.replace("print(*", "    print(*").replace(
        "    ended", "def run_fake(*_):\n    return 'diverged'\n\nif __name__ == '__main__':\n    ended", 1
    )
    output, errors = start(tmp_path / "own", "quick", script=script).communicate(timeout=PATIENCE_S)
    assert output.split() == ["diverged", "diverged"], errors

    script = CONTROLLER.replace("ended = ", "import vanishes\nrun_fake = vanishes.run_one\nended = ")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "vanishes.py").write_text(
        "from pathlib import Path\nPath(__file__).unlink()\ndef run_one(*_): pass\n"
    )
    output, errors = start(tmp_path / "gone", "quick", script=script).communicate(timeout=PATIENCE_S)
    assert output.split() == ["failed", "failed"], errors
    [event] = folders(tmp_path / "gone", "quick")[0].read_events()
    assert event["message"] == "ModuleNotFoundError: No module named 'vanishes'"


SLOW = """
from pathlib import Path
from tests.timing import until

until((Path(__file__).parent / "returned").exists)
(Path(__file__).parent / "imported").touch()
"""


def test_warming_up_imports_in_the_background_while_the_caller_goes_on(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "slow.py").write_text(SLOW)
    script = CONTROLLER.replace(
        "ended = ",
        "from tests.timing import until\nLocal(settings).warm_up()\n"
        "(runs_dir / 'returned').touch()\nuntil((runs_dir / 'imported').exists)\nended = ",
    )
    output, errors = start(tmp_path / "runs", "quick", preload="slow", script=script).communicate(
        timeout=PATIENCE_S
    )
    assert output.split() == [FINISHED, FINISHED], errors
