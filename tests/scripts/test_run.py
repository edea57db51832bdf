"""One run of a script: every way in which it ends, what it may leave behind, and who goes on with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.runs.folder import RunFolder, is_locked, run_state
from harness.runs.provenance import keep_places
from harness.scripts.run import run_script, share_of
from harness.spec import ScriptRun
from tests.scripts.studies import WRITES, execute, machine, planned, reason, study
from tests.timing import until, wait_until

ROOT = Path(__file__).parents[2]
TO_LAST_LINE = "; its last lines: "


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_a_run_is_recorded_with_its_result_its_log_and_its_code(tmp_path):
    path = study(tmp_path, {'top1: "r.csv: acc"': 'top1: "r.csv: acc", loss: "log.txt: /did ([0-9])/"'})
    status, folder = execute(path, row=3)
    assert status == "finished"
    summary = folder.read_summary()
    assert summary is not None
    assert (summary["metrics"], summary["seed"]) == ({"top1": 71.0, "loss": 1.0}, 1)
    assert (folder.path / "log.txt").read_text() == f"did 1 {folder.path}/output --lr 0.1 --flip=0.5 --amp\n"
    assert summary["command"] == "sh train.sh {seed} {folder} --lr 0.1 --flip=0.5 --amp"
    assert "train.sh" in json.loads(folder.env.read_text())["files"]
    before = folder.events.read_bytes()
    assert execute(path, row=3)[0] == "finished"
    assert folder.events.read_bytes() == before


def test_it_has_its_seed_its_folder_and_no_input(tmp_path):
    script = 'cat; pwd; echo "$HARNESS_SEED $HARNESS_FOLDER $PWD"; ' + WRITES
    _, folder = execute(study(tmp_path, script=script))
    assert f"0 {folder.path}/output {tmp_path}" in (folder.path / "log.txt").read_text()


ENDS = {  # what the script does -> the beginning of what is said
    "a code": ("echo one; echo two; exit 3", "the command ended with exit code 3; its last lines: one | two"),
    "a signal": ("kill -SEGV $$", "the command was ended by signal 11; it printed nothing"),
    "nothing": ("echo hello", "no result: the command ended well and wrote no r.csv into its folder (top1)"),
    "another file": (
        "echo > $2/s.csv",
        "no result: the command ended well and wrote no r.csv; it wrote s.csv",
    ),
    "a head alone": ("echo epoch,acc > $2/r.csv", "no result: r.csv has no line below its head"),
    "another column": (
        "printf 'a,b\\n1,2\\n' > $2/r.csv",
        "no result: the column acc is not in r.csv (a, b)",
    ),
    "a column twice": ("printf 'acc,acc\\n1,2\\n' > $2/r.csv", "no result: the column acc is twice in r.csv"),
    "half a line": (
        "printf 'epoch,acc\\n0,70\\n1' > $2/r.csv",
        "no result: the last line of r.csv has 1 of 2",
    ),
    "a word": ("printf 'acc\\nhigh\\n' > $2/r.csv", "no result: top1 is 'high' in r.csv, which is no number"),
    "not a number": ("printf 'acc\\nnan\\n' > $2/r.csv", "no finite value of top1: it is nan in r.csv"),
    "infinity": ("printf 'acc\\n-inf\\n' > $2/r.csv", "no finite value of top1: it is -inf in r.csv"),
    "no percentage": ("printf 'acc\\n170\\n' > $2/r.csv", "top1 is 170 in r.csv, which is no percentage"),
    "bytes": ("printf '\\377\\376' > $2/r.csv", "no result: r.csv cannot be read (it is no text)"),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_other_end_is_a_failure_in_one_sentence(tmp_path, end):
    script, said = ENDS[end]
    status, folder = execute(study(tmp_path, script=script + "\n"))
    assert status == "failed"
    assert reason(folder).startswith(said)
    assert run_state(folder) == "failed"
    assert not folder.summary.exists()


@pytest.mark.parametrize(
    ("device", "visible", "seen"), [("cuda:1", None, "1"), ("cuda:1", "4,6", "6"), ("cpu", "4,6", "4,6")]
)
def test_the_command_sees_the_one_gpu_of_its_worker(tmp_path, monkeypatch, device, visible, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    plan = planned(study(tmp_path, script='echo "sees $CUDA_VISIBLE_DEVICES"; ' + WRITES))
    keep_places(tmp_path / "runs", plan.places)
    spec = plan.spec(plan.runs[0])
    folder = RunFolder(tmp_path / "runs" / spec.run_id)
    assert isinstance(spec, ScriptRun)
    run_script(spec, folder, replace(machine(tmp_path), device=device), lambda: False)
    assert (folder.path / "log.txt").read_text().splitlines()[0] == f"sees {seen}"


def test_a_script_that_fills_the_disk_is_told_so_and_how_much_of_it_is_its_own(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=4096)
    monkeypatch.setattr("harness.scripts.run.shutil.disk_usage", lambda path: usage)
    path = study(tmp_path, script="head -c 2000000 /dev/zero > $2/big; exit 1\n")
    said = "the command ended with exit code 1; the disk is full, 2.0 MB of it with what this command wrote; "
    assert reason(execute(path)[1]) == said + "it printed nothing"
    usage.free = 1 << 30
    assert reason(execute(path)[1]) == "the command ended with exit code 1; it printed nothing"


PLACES = {  # where the result is -> what the script writes, and the value or what is said
    "r.json: test.acc": ('{"test": {"acc": 71}}', 71.0),
    "r.json: test.1.acc": ('{"test": [{}, {"acc": "71"}]}', 71.0),
    "r.jsonl: acc * 100": ('{"acc": 0.5}\n{"acc": 0.71}\n', 71.0),
    "r.txt: /acc=([0-9.]+)/": ("acc=70 acc=71", 71.0),
    "r.txt: /acc=([0-9.]+)/ first": ("acc=71 acc=70", 71.0),
    "r.txt: /acc=([0-9.nan]+)/ max": ("acc=9 acc=71 acc=nan acc=10", 71.0),
    "r.txt: /acc=([0-9.]+)/ only": ("acc=70 acc=71", "two results where one was asked for: r.txt matches"),
    "*.txt: /acc=([0-9.]+)/ min": ("acc=71", 71.0),
    "r.txt: /err=([0-9.]+)/": ("acc=71", "no result: nothing in r.txt matches /err=([0-9.]+)/ (top1)"),
    "r.json: acc": ('{"acc": 7', "no result: r.json is cut off, or no JSON"),
    "r.json: test.top": ('{"test": {"acc": 71}}', "no result: r.json has no top at test (acc)"),
    "r.json: acc.top": ('{"acc": 71}', "no result: r.json has no top at acc"),
    "r.json: ok": ('{"ok": true}', "no result: top1 is 'True' in r.json, which is no number"),
}


@pytest.mark.parametrize("place", PLACES)
def test_results_are_read_where_the_study_says(tmp_path, place):
    content, wanted = PLACES[place]
    (tmp_path / "content").write_text(content)
    name = place.partition(":")[0].replace("*", "r")
    script = f"cp content $2/{name}\n"
    path = study(tmp_path, {'"r.csv: acc"': f"'{place}'"}, script)
    status, folder = execute(path)
    if isinstance(wanted, str):
        assert reason(folder).startswith(wanted)
    else:
        assert status == "finished"
        assert (folder.read_summary() or {})["metrics"] == {"top1": wanted}


def test_two_files_where_one_was_asked_for_are_refused(tmp_path):
    path = study(tmp_path, {"r.csv": "*/r.csv"}, "mkdir $2/a $2/b; touch $2/a/r.csv $2/b/r.csv\n")
    assert reason(execute(path)[1]).startswith("2 files where one was asked for: */r.csv is a/r.csv, b/r.csv")


def test_nothing_of_an_earlier_attempt_is_taken_for_a_result(tmp_path):
    path = study(tmp_path, script=WRITES + "exit 1\n")
    _, folder = execute(path)
    assert (folder.path / "output" / "r.csv").exists()
    marker = folder.path / "output" / "old"
    marker.write_text("")
    execute(path)
    assert not marker.exists()
    assert (folder.path / "log.1.txt").exists()


COUNTS = 'echo run >> count; printf "epoch,acc,loss\\n0,50,2\\n1,7$1,1\\n" > "$2/r.csv"; echo "did $*"\n'


def count_of(folder: Path) -> int:
    """How often the script was executed."""
    return len((folder / "count").read_text().splitlines())


@pytest.mark.parametrize("first", ["no.csv: acc", "r.csv: loss"], ids=["unreadable", "another result"])
def test_only_how_results_are_read_has_changed_so_they_are_read_and_nothing_is_executed(tmp_path, first):
    _, before = execute(study(tmp_path, {"r.csv: acc": first}, COUNTS), row=3)
    status, folder = execute(study(tmp_path, script=COUNTS), row=3)
    assert (status, count_of(tmp_path)) == ("finished", 1)
    shutil.rmtree(before.path)
    summary = folder.read_summary()
    assert summary is not None
    assert summary["metrics"] == {"top1": 71.0}
    assert (folder.path / "log.txt").read_text().startswith("did 1 ")
    assert (folder.path / "output" / "r.csv").is_file()
    attempt = next(event for event in folder.read_events() if event["kind"] == "attempt")
    assert (attempt["read_from"], attempt["attempt"]) == (before.run_id, 1)
    assert summary["ended_s"] < attempt["time_s"], "it was executed then"
    assert json.loads(folder.env.read_text())["files"]


@pytest.mark.parametrize("end", ["exit 3", "kill -SEGV $$"])
def test_what_did_not_end_well_is_executed_again_when_results_are_read_otherwise(tmp_path, end):
    script = COUNTS + end
    execute(study(tmp_path, {"r.csv: acc": "no.csv: acc"}, script))
    execute(study(tmp_path, script=script))
    assert count_of(tmp_path) == 2


def test_a_result_that_is_not_found_when_read_anew_is_executed_the_next_time(tmp_path):
    execute(study(tmp_path, {"r.csv: acc": "no.csv: acc"}, COUNTS))
    path = study(tmp_path, {"r.csv: acc": "neither.csv: acc"}, COUNTS)
    status, folder = execute(path)
    assert (status, count_of(tmp_path)) == ("failed", 1)
    assert reason(folder).startswith("no result: the command ended well and wrote no neither.csv")
    execute(path)
    assert count_of(tmp_path) == 2


def test_a_run_that_was_killed_before_its_first_event_is_no_earlier_execution(tmp_path):
    _, before = execute(study(tmp_path, {"r.csv: acc": "no.csv: acc"}, COUNTS))
    before.events.unlink()
    assert execute(study(tmp_path, script=COUNTS))[0] == "finished"
    assert count_of(tmp_path) == 2


def test_another_seed_row_or_script_is_no_earlier_execution(tmp_path):
    execute(study(tmp_path, {"r.csv: acc": "no.csv: acc"}, COUNTS), row=0)
    mended = study(tmp_path, script=COUNTS)
    for row in (1, 3):
        execute(mended, row=row)
    assert count_of(tmp_path) == 3
    execute(study(tmp_path, script=COUNTS + "# as before\n"), row=0)
    assert count_of(tmp_path) == 4


def test_a_script_that_changed_since_the_plan_is_not_run(tmp_path):
    """Also within the same tick of the file system's clock, which is 10 ms on some machines."""
    path = study(tmp_path)
    plan, script = planned(path), tmp_path / "train.sh"
    before = script.stat()
    script.write_text("exit 0\n")
    os.utime(script, ns=(before.st_atime_ns, before.st_mtime_ns))
    keep_places(tmp_path / "runs", plan.places)
    spec = plan.spec(plan.runs[0])
    folder = RunFolder(tmp_path / "runs" / spec.run_id)
    with pytest.raises(ValueError, match=r"train\.sh changed since this run was planned"):
        run_script(spec, folder, machine(tmp_path), lambda: False)  # type: ignore[arg-type]


STOPPED = 'echo "$$" > pid; trap "exit 0" TERM; ' + WRITES + "while :; do sleep 0.05; done\n"


def stop_when(file: Path) -> threading.Event:
    """Set once the script has written the file."""
    asked = threading.Event()
    threading.Thread(target=lambda: wait_until(file.exists) and asked.set(), daemon=True).start()
    return asked


def test_a_run_that_is_stopped_has_not_ended_whatever_it_wrote(tmp_path):
    status, folder = execute(study(tmp_path, script=STOPPED), stop_when(tmp_path / "pid").is_set)
    assert status == "interrupted"
    assert not alive(int((tmp_path / "pid").read_text()))
    assert run_state(folder) == "stopped"


def test_a_script_that_ignores_sigterm_is_killed_after_its_grace(tmp_path):
    script = 'trap "" TERM; echo "$$" > pid; while :; do sleep 0.05; done\n'
    path = study(tmp_path, {"script:": "script:\n  grace: 0.2"}, script)
    status, folder = execute(path, stop_when(tmp_path / "pid").is_set)
    assert status == "interrupted"
    assert folder.read_events()[-1]["killed"]
    assert not alive(int((tmp_path / "pid").read_text()))


def test_it_goes_on_where_the_file_is_that_resume_names(tmp_path):
    script = '[ "$7" = --resume ] && cat "$8" > "$2/r.csv" && exit 0\n'
    script += 'printf "acc\\n42\\n" > "$2/last.pth"; touch begun; sleep 600\n'
    changed = {"script:": "script:\n  resume: --resume {folder}/last.pth"}
    path = study(tmp_path, changed, script)
    assert execute(path, stop_when(tmp_path / "begun").is_set)[0] == "interrupted"
    status, folder = execute(path)
    assert status == "finished"
    assert (folder.read_summary() or {})["metrics"] == {"top1": 42.0}
    assert [event["resumed"] for event in folder.read_events() if event["kind"] == "attempt"] == [False, True]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets orphans be adopted")
def test_a_daemon_is_found_and_ended(tmp_path):
    script = "setsid sh -c 'setsid sleep 600 & echo $! > daemon' < /dev/null; " + WRITES
    status, folder = execute(study(tmp_path, script=script))
    assert status == "finished"
    assert not alive(int((tmp_path / "daemon").read_text()))
    assert any(event["kind"] == "left_behind" for event in folder.read_events())


KILLED = """
import sys
from pathlib import Path
from tests.scripts.studies import execute
execute(Path(sys.argv[1]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets orphans be adopted")
def test_what_a_killed_worker_started_ends_before_the_run_begins_anew(tmp_path):
    script = "[ -e again ] && { [ -e ended ] || exit 7; " + WRITES.replace("\n", "; ") + "exit 0; }\n"
    script += "trap 'sleep 1.5; touch ended; exit 1' TERM\n"  # longer than the next attempt takes to begin
    script += 'sleep 600 & echo "$$ $!" > pids.tmp; mv pids.tmp pids; wait\n'
    path = study(tmp_path, script=script)
    worker = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
    pids = [
        int(pid)
        for pid in until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text()).split()
    ]
    folder = RunFolder(tmp_path / "runs" / planned(path).runs[0].run_id)
    (tmp_path / "again").touch()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert execute(path)[0] == "finished"  # it waits for the lock, which is held until all have ended
    assert not any(map(alive, pids))
    assert not is_locked(folder.lock)


def test_progress_is_read_from_what_is_printed():
    assert share_of(["1/10", "5/10"]) == 0.5
    assert [share_of([text]) for text in ("0.3", "30%", "3 of 10", "4/0", "x", "7/5")] == [
        0.3,
        0.3,
        0.3,
        None,
        None,
        None,
    ]
