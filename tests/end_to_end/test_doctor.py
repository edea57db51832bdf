"""`harness doctor`: what is broken on purpose is named with its mend, and nothing hangs."""

from __future__ import annotations

import errno
import http.server
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.commands import doctor, machine, probes
from harness.commands.machine import FAIL, OK, WARN, Finding
from harness.commands.workspace import Workspace
from tests.end_to_end.workplace import Workplace
from tests.timing import FOREVER_S, PATIENCE_S, not_waited_out, wait_until

Broken = Callable[..., Any]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A runs folder on this machine, without settings of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith(("HARNESS_", "SLURM_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "runs").mkdir()
    return Workspace(runs_dir=tmp_path / "runs", data_dir=tmp_path / "data", tracking_uri=None)


def only(findings: Iterator[Finding], name: str) -> Finding:
    [finding] = [finding for finding in findings if finding.name == name]
    return finding


@pytest.mark.campaign
def test_every_part_has_a_line_the_exit_code_says_whether_one_failed_and_no_file_is_left(fresh: Workplace):
    before = fresh.files()
    done = fresh.call("doctor")
    lines = done.stdout.splitlines()
    assert {line[:5] for line in lines[:-1]} <= {"ok   ", "warn ", "fail "}
    names = [line[5:].split(":")[0] for line in lines[:-1]]
    expected = {"python", "torch", "machine", "disk", "file system", *machine.TESTS, "clock"}
    expected |= {"speed", "submissions", "slurm", "mlflow", "data fashion_mnist", "pdf", "environment"}
    assert expected <= set(names)
    assert done.returncode == (1 if any(line.startswith("fail") for line in lines) else 0)
    failed = sum(line.startswith("fail") for line in lines[:-1])
    assert lines[-1].endswith(f"{failed} fail")
    assert done.stderr == ""
    assert fresh.files() == before
    assert sorted(path.name for path in fresh.path.iterdir()) == ["tiny.yaml"]


def test_a_check_that_hangs_costs_its_limit_and_one_that_breaks_a_line_and_the_others_answer(place):
    def hangs(_place: Workspace) -> Iterator[Finding]:
        time.sleep(FOREVER_S)
        yield Finding("hangs", OK, "")

    def breaks(_place: Workspace) -> Iterator[Finding]:
        yield Finding("before", OK, "seen")
        raise RuntimeError("of its own")

    def answers(_place: Workspace) -> Iterator[Finding]:
        yield Finding("answers", OK, "still there")

    checks = (("hangs", hangs, 0.2), ("breaks", breaks, PATIENCE_S), ("answers", answers, PATIENCE_S))
    with not_waited_out():
        found = list(doctor.examine(place, checks))
    assert [(each.name, each.level) for each in found] == [
        ("hangs", FAIL),
        ("before", OK),
        ("breaks", FAIL),
        ("answers", OK),
    ]
    assert found[0].says == "no answer within 0.2 s"
    assert "RuntimeError: of its own" in found[2].says


def program(folder: Path, name: str, text: str) -> None:
    """A command of that name, as a shell script."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Slurm commands, the only ones on PATH, that answer as a healthy cluster."""
    folder = tmp_path / "bin"
    for name in (*doctor.NEEDED, *doctor.ALSO):
        program(folder, name, "exit 0")
    config = "ClusterName = lab\nMaxArraySize = 1001\nPreemptType = preempt/qos\nPreemptMode = REQUEUE"
    program(folder, "scontrol", f"echo '{config}'")
    program(folder, "sinfo", "echo 'n1 idle'; echo 'n2 down*'; echo 'n2 down*'")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_a_healthy_cluster_is_described_with_its_limits(place, cluster):
    found = {each.name: each for each in doctor.slurm(place)}
    assert {each.level for each in found.values()} == {OK}
    assert "cluster lab: MaxArraySize 1001, PreemptMode REQUEUE" in found["slurm"].says
    assert doctor.NO_USR2 in found["slurm"].says
    assert found["slurm nodes"].says == "1 down*, 1 idle"
    assert found["slurm jobs"].says == "a job without options would be accepted"
    settings = {"PreemptType": "preempt/qos", "SlurmctldParameters": "preempt_send_user_signal"}
    assert doctor.NO_USR2 not in doctor.controller(settings).says


def test_a_machine_without_slurm_is_in_order_and_one_with_half_of_it_is_not(place, cluster, monkeypatch):
    (cluster / "scancel").unlink()
    half = only(doctor.slurm(place), "slurm")
    assert (half.level, half.says) == (WARN, "sbatch is here, but not scancel")
    monkeypatch.setenv("PATH", "")
    assert only(doctor.slurm(place), "slurm").level == OK


def test_a_command_that_hangs_is_ended_with_all_that_it_started(place, cluster, tmp_path, monkeypatch):
    written = f"echo $! > {tmp_path}/draft; /bin/mv {tmp_path}/draft {tmp_path}/pid"
    program(cluster, "sinfo", f"/bin/sleep 1800 & {written}; wait")
    answer_of, started = machine.answer_of, subprocess.Popen

    def within(command: Sequence[str], limit_s: float) -> str:
        return answer_of(command, 0.3 if command[0] == "sinfo" else PATIENCE_S)

    def begun(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        process = started(command, **options)
        assert command[0] != "sinfo" or wait_until((tmp_path / "pid").exists)
        return process

    monkeypatch.setattr(doctor, "answer_of", within)
    monkeypatch.setattr(machine.subprocess, "Popen", begun)
    with not_waited_out():
        found = {each.name: each for each in doctor.slurm(place)}
    monkeypatch.undo()
    assert (found["slurm nodes"].level, found["slurm"].level) == (FAIL, OK)
    assert found["slurm nodes"].says == "sinfo gave no answer within 0.3 s"
    child = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not is_running(child))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_controller_that_does_not_answer_fails_and_commands_without_a_cluster_are_a_remark(
    place, cluster, monkeypatch
):
    program(cluster, "scontrol", "echo 'slurm_load_ctl_conf error: Unable to contact' >&2; exit 1")
    assert "Unable to contact" in only(doctor.slurm(place), "slurm").says
    assert only(doctor.slurm(place), "slurm").level == FAIL
    program(cluster, "scontrol", f"echo 'fatal: {doctor.NOT_CONFIGURED}' >&2; exit 1")
    monkeypatch.setattr(doctor, "SYSTEM_CONFIGURATION", cluster / "slurm.conf")
    assert only(doctor.slurm(place), "slurm").level == WARN
    monkeypatch.setenv("SLURM_CONF", "lost.conf")
    assert only(doctor.slurm(place), "slurm").level == FAIL


def test_refused_jobs_no_usable_node_and_no_accounting_are_remarks_with_the_reason(place, cluster):
    program(cluster, "sbatch", "echo 'allocation failure: invalid account' >&2; exit 1")
    program(cluster, "sinfo", "echo 'n1 drained'")
    program(cluster, "sacct", "echo 'Connection refused' >&2; exit 1")
    found = {each.name: each for each in doctor.slurm(place)}
    assert {name: each.level for name, each in found.items()} == {
        "slurm": OK,
        "slurm nodes": WARN,
        "slurm jobs": WARN,
        "slurm accounting": WARN,
    }
    assert "invalid account" in found["slurm jobs"].says
    assert "cluster file" in found["slurm jobs"].mend


def database(path: Path, version: str | None = "abc", rows: int = 5000) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (name TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?)", [("x" * 100,)] * rows)
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        if version:
            connection.execute("INSERT INTO alembic_version VALUES (?)", (version,))
        connection.commit()


@pytest.fixture
def mlflow_of_schema_abc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "probe", lambda name: {"mlflow": "3.0", "schema": "abc"})


@pytest.mark.usefixtures("mlflow_of_schema_abc")
def test_a_store_of_this_version_is_fine_and_an_absent_one_is_not_made(place, tmp_path, monkeypatch):
    path = tmp_path / "mlflow.db"
    finding = only(doctor.store(place), "mlflow")
    assert finding.level == OK
    assert "first `harness run`" in finding.says
    assert not path.exists()
    database(path)
    before = path.read_bytes()
    opened = []

    def connect(name: str, **options: Any) -> sqlite3.Connection:
        opened.append((name, options.get("uri")))
        return sqlite3.Connection(name, **options)

    monkeypatch.setattr(doctor.sqlite3, "connect", connect)
    assert only(doctor.store(place), "mlflow").level == OK
    assert opened == [(f"{path.as_uri()}?mode=ro", True)]
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mlflow.db", "runs"]


@pytest.mark.usefixtures("mlflow_of_schema_abc")
@pytest.mark.parametrize("damage", ["no database", "cut", "overwritten pages", "another schema", "no schema"])
def test_a_damaged_or_foreign_store_fails_and_is_said_to_be_a_mirror(place, tmp_path, damage):
    path = tmp_path / "mlflow.db"
    database(path, {"another schema": "xyz", "no schema": "abc"}.get(damage, "abc"))
    if damage == "no database":
        path.write_text("this is no database, and long enough to have had a header of one\n" * 50)
    elif damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "overwritten pages":
        with path.open("r+b") as file:
            file.seek(40 * 4096)
            file.write(b"\xff" * 4096 * 4)
    elif damage == "no schema":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE alembic_version")
    finding = only(doctor.store(place), "mlflow")
    assert finding.level == FAIL, finding
    assert finding.mend == f"it is a mirror: delete {path} and run `harness sync`"


@pytest.mark.campaign
def test_the_installed_mlflow_says_which_schema_it_writes(place, tmp_path):
    database(tmp_path / "mlflow.db", "xyz", rows=1)
    finding = only(doctor.store(place), "mlflow")
    assert finding.level == FAIL
    written = finding.says.rpartition("writes ")[2]
    assert len(written) == 12
    assert int(written, 16) >= 0


class Answers(http.server.BaseHTTPRequestHandler):
    """A tracking server that says what its class says."""

    status, body = 200, b"OK"

    def do_GET(self) -> None:
        allowed = self.headers["Authorization"] == "Basic bWU6c2VjcmV0" and self.path == "/health"
        self.send_response(self.status if allowed else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(place: Workspace) -> Iterator[Callable[..., Finding]]:
    servers = []

    def ask(status: int = 200, body: bytes = b"OK") -> Finding:
        handler = type("Handler", (Answers,), {"status": status, "body": body})
        server = http.server.HTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return asked(place, f"http://me:secret@127.0.0.1:{server.server_port}")

    yield ask
    for server in servers:
        server.shutdown()
        server.server_close()


def asked(place: Workspace, uri: str) -> Finding:
    at = Workspace(runs_dir=place.runs_dir, data_dir=place.data_dir, tracking_uri=uri)
    finding = only(doctor.store(at), "mlflow")
    assert "secret" not in f"{finding.says} {finding.mend}"
    return finding


def test_a_tracking_server_is_asked_for_its_health(served):
    assert served().level == OK
    refused = served(401)
    assert (refused.level, refused.mend[:6]) == (FAIL, "MLFLOW")
    assert "answers 401" in refused.says
    assert served(500).level == FAIL
    assert served(body=b"<html>").level == WARN


def test_a_server_that_is_down_or_silent_fails_in_time_and_says_that_nothing_is_lost(place, monkeypatch):
    monkeypatch.setattr(doctor, "ANSWER_S", 0.3)
    with socket.socket() as silent, not_waited_out():
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        down = asked(place, f"http://127.0.0.1:{port}")
        silent.listen()
        mute = asked(place, f"http://127.0.0.1:{port}")
    assert "refused" in down.says
    assert "timed out" in mute.says
    for finding in (down, mute):
        assert finding.level == FAIL
        assert doctor.NOTHING_LOST in finding.mend


def test_a_database_server_is_asked_for_its_schema_and_its_password_is_never_shown(place, monkeypatch):
    uri = "postgresql://me:secret@db.example.org/mlflow"

    def refused(name: str, **_: str) -> dict[str, Any]:
        raise machine.ProgramError("OperationalError: no password 'secret' for postgresql://me:secret@db")

    monkeypatch.setattr(doctor, "probe", refused)
    assert "does not answer: OperationalError" in asked(place, uri).says
    monkeypatch.setattr(doctor, "probe", lambda name, **_: {"mlflow": "3.0", "schema": "a", "found": "b"})
    assert "db upgrade" in asked(place, uri).mend
    monkeypatch.setattr(doctor, "probe", lambda name, **_: {"mlflow": "3.0", "schema": "a", "found": None})
    assert asked(place, uri).level == OK


def test_a_database_whose_driver_is_absent_says_what_to_install(monkeypatch, capsys):
    def absent() -> dict[str, Any]:
        raise ModuleNotFoundError("No module named 'pymysql'", name="pymysql")

    monkeypatch.setitem(probes.PROBES, "database", absent)
    assert probes.main("database") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["error"].endswith("No module named 'pymysql'; install it with pip install pymysql")


def file_system(place: Workspace, name: str) -> Finding:
    found = list(machine.file_system(place))
    assert list(place.runs_dir.iterdir()) == []  # the scratch folder is gone
    return only(iter(found), name)


def test_the_file_system_of_the_tests_is_sound(place, monkeypatch):
    monkeypatch.setattr(machine, "SLOW_FSYNC_S", PATIENCE_S)  # how quick it is does not matter
    assert {each.level for each in machine.file_system(place)} == {OK}


def test_a_machine_that_was_held_up_for_a_moment_has_neither_coarse_times_nor_a_wrong_clock(
    place, monkeypatch
):
    steps_s, late_s, now_s = iter((7.0, 0.004, 0.004)), iter((5.0,)), time.time
    monkeypatch.setattr(machine, "_step_s", lambda _: next(steps_s))
    monkeypatch.setattr(machine.time, "time", lambda: now_s() - next(late_s, 0.0))
    assert {each.level for each in machine.file_system(place) if each.name in ("beat", "clock")} == {OK}
    monkeypatch.setattr(machine, "_step_s", lambda _: 7.0)
    assert file_system(place, "beat").level == WARN


def test_a_mount_where_two_create_the_same_file_fails(place, monkeypatch):
    real = os.open

    def careless(path: Any, flags: int, *mode: int, **at: Any) -> int:
        return real(path, flags & ~os.O_EXCL, *mode, **at)

    monkeypatch.setattr(machine.os, "open", careless)
    finding = file_system(place, "exclusive create")
    assert finding.level == FAIL
    assert "8 of 8 created the same new file" in finding.says


def test_a_mount_where_a_rename_is_a_copy_that_can_be_seen_half_done_fails(place, monkeypatch):
    monkeypatch.setattr(machine.Path, "replace", lambda draft, target: target.write_bytes(b"") and None)
    assert file_system(place, "rename").level == FAIL


@pytest.mark.parametrize(
    ("flock", "says"),
    [
        (OSError(errno.ENOLCK, "No locks available"), "not on this mount (ENOLCK)"),
        (None, "does not exclude a second holder"),
    ],
)
def test_a_mount_without_flock_is_a_remark_because_claims_guard_the_runs(place, monkeypatch, flock, says):
    def faulty(*_: Any) -> None:
        if flock:
            raise flock

    monkeypatch.setattr(machine.fcntl, "flock", faulty)
    finding = file_system(place, "flock")
    assert (finding.level, finding.says) == (WARN, says)


def test_coarse_times_a_slow_disk_and_a_wrong_clock_are_remarks(place, monkeypatch):
    monkeypatch.setattr(machine, "COARSE_S", -0.9)  # anything is too coarse, looked for 0.1 s
    assert file_system(place, "beat").level == WARN
    monkeypatch.setattr(machine, "SLOW_FSYNC_S", 0.0)
    assert file_system(place, "fsync").level == WARN
    monkeypatch.setattr(machine.time, "time", lambda: 1000.0)
    ahead = file_system(place, "clock")
    assert ahead.level == WARN
    assert "ahead of this machine's" in ahead.says
    monkeypatch.setattr(machine.time, "time", lambda: 1e10)
    assert "behind this machine's" in file_system(place, "clock").says


def test_a_mount_that_cannot_be_written_fails_without_a_traceback_and_the_rest_is_checked(place, monkeypatch):
    def refuse(**_: Any) -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(machine.tempfile, "mkdtemp", refuse)
    checks = tuple(check for check in doctor.CHECKS if check[0] in ("disk", "file system", "submissions"))
    found = {each.name: each for each in doctor.examine(place, checks)}
    assert {name: each.level for name, each in found.items()} == {
        "disk": found["disk"].level,
        "file system": FAIL,
        "submissions": OK,
    }
    assert "Read-only file system" in found["file system"].says
    assert "reading (status, logs, plan) works" in found["file system"].mend


def test_a_runs_folder_that_is_not_there_yet_is_judged_by_the_folder_above(place, tmp_path):
    later = Workspace(runs_dir=tmp_path / "a" / "b", data_dir=tmp_path, tracking_uri=None)
    assert only(machine.file_system(later), "file system").says.endswith(str(tmp_path))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("free_gb", "level"), [(0.5, FAIL), (5, WARN), (50, OK)])
def test_little_room_is_a_remark_and_hardly_any_a_failure(place, monkeypatch, free_gb, level):
    usage = shutil._ntuple_diskusage(100 * machine.GB, 0, free_gb * machine.GB)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    finding = only(machine.space(place), "disk")
    assert finding.level == level
    assert bool(finding.mend) == (level != OK)


def test_a_submission_that_others_can_read_fails_with_the_command_that_closes_it(place):
    assert only(machine.privacy(place), "submissions").says == "none yet"
    folder = place.runs_dir / ".submissions" / "0123456789ab"
    folder.mkdir(parents=True, mode=0o700)
    assert only(machine.privacy(place), "submissions").level == OK
    folder.chmod(0o750)
    finding = only(machine.privacy(place), "submissions")
    assert (finding.level, finding.mend) == (FAIL, f"chmod 700 {folder}")


def test_a_misspelt_variable_is_named_with_the_nearest_and_passwords_are_not_shown(place, monkeypatch):
    monkeypatch.setenv("HARNESS_RUN", "x")
    monkeypatch.setenv("HARNESS_DATA", "here")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@example.org")
    misspelt, read = machine.environment(place)
    assert misspelt.level == WARN
    assert "did you mean 'HARNESS_RUNS'?" in misspelt.mend
    assert read.says == "HARNESS_DATA=here, MLFLOW_TRACKING_URI=https://***@example.org"


def test_a_variable_with_a_wrong_value_is_a_failure(place, monkeypatch):
    monkeypatch.setenv("HARNESS_SHARED_MEMORY", "lots")
    wrong, read = machine.environment(place)
    assert wrong.level == FAIL
    assert wrong.says.endswith("from 0 to 1 (0: none), not 'lots'")
    assert (read.level, read.says) == (OK, "HARNESS_SHARED_MEMORY=lots")


TORCH = {"torch": "2.7.1", "torchvision": "0.22.0", "torchvision_error": None, "cuda": "12.6", "gpus": []}
GPU = {"name": "H100", "memory_gb": 79.0, "error": None}


def test_torch_and_torchvision_must_be_a_pair_and_both_must_load():
    assert machine.versions(TORCH).level == OK
    other = machine.versions(TORCH | {"torchvision": "0.21.0+cpu"})
    assert (other.level, other.mend) == (
        WARN,
        "they are not a pair: torch 2.7 goes with torchvision 0.22",
    )
    assert machine.versions(TORCH | {"torchvision": None, "torchvision_error": "ImportError"}).level == FAIL


@pytest.mark.parametrize(
    ("facts", "driver", "level", "says"),
    [
        ({}, None, OK, "none; runs train on the CPU"),
        ({"cuda": None}, "550.1", WARN, "torch was built without CUDA"),
        ({}, "470.1", WARN, "finds no GPU it can use"),
        ({"gpus": [GPU]}, "550.1", OK, "cuda:0 is H100, 79 GB; CUDA 12.6, driver 550.1"),
        ({"gpus": [GPU | {"error": "no kernel image"}]}, "550.1", FAIL, "fails: no kernel image"),
    ],
)
def test_gpus_are_told_as_torch_can_use_them(facts, driver, level, says):
    [finding] = machine.gpus(TORCH | facts, driver)
    assert finding.level == level
    assert says in finding.says


def test_a_torch_that_does_not_import_and_a_typst_that_does_not_set_fail_with_the_mend(place, monkeypatch):
    def broken(name: str) -> dict[str, Any]:
        raise machine.ProgramError("ImportError: libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(machine, "probe", broken)
    for check, name in ((machine.torch, "torch"), (machine.typesetting, "pdf")):
        finding = only(check(place), name)
        assert finding.level == FAIL
        assert finding.says.startswith("ImportError: libcudart")
        assert finding.mend.startswith("pip install")


def test_little_memory_is_a_remark_that_says_how_many_workers_fit(place, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "available_cores", lambda: 8)
    monkeypatch.setattr(machine, "MEMORY", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   3145728 kB\n")
    finding = only(machine.cores_and_memory(place), "machine")
    assert (finding.level, finding.mend) == (WARN, "a worker needs about 1 GB: use --workers 3")


def test_a_data_set_that_is_not_here_is_no_fault_and_a_damaged_one_is(place, monkeypatch):
    levels = {each.name: (each.level, bool(each.mend)) for each in doctor.data(place)}
    assert levels["data fashion_mnist"] == (OK, False)
    assert levels["data imagenet"] == (OK, True)

    def missing(*_: Any) -> str:
        raise ValueError("cut in the middle")

    monkeypatch.setattr(doctor, "DATASETS", {"mine": SimpleNamespace(args={}, missing=missing)})
    [finding] = doctor.data(place)
    assert (finding.level, finding.says) == (FAIL, "cut in the middle")


def test_a_probe_says_why_it_could_not_answer(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://")
    with pytest.raises(machine.ProgramError, match="KeyError"):
        machine.probe("no_such_probe")
    with pytest.raises(machine.ProgramError, match="cannot be started"):
        machine.answer_of(["no-such-program"], 1)
    assert machine.answer_of(["/bin/echo", "hello"], 5) == "hello\n"


@pytest.mark.parametrize(
    ("environment", "cpu", "cores", "says"),
    [
        ({}, "flags\t\t: fpu sse2 avx\n", 2, "this CPU has no AVX2"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "", 2, "ONEDNN_MAX_CPU_ISA=AVX2 caps the instructions"),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, "", 2, "ATEN_CPU_CAPABILITY=avx2 caps the instructions"),
        ({}, "", 1, "1 core: runs train one after another"),
        ({"PYTHONDONTWRITEBYTECODE": "1"}, "", 2, "every command compiles its imports again"),
        ({"HARNESS_MEASURE": "0"}, "", 2, "plans do not measure"),
    ],
)
def test_what_makes_this_machine_slow_is_a_warning_that_says_what(environment, cpu, cores, says):
    [finding] = machine._slow(environment, cpu, cores)
    assert finding.level == "warn"
    assert says in finding.says
    assert finding.mend


def test_a_machine_without_anything_slow_has_no_such_warning():
    assert list(machine._slow({}, "flags\t: sse2 avx2 fma\n", 2)) == []
    assert list(machine._slow({}, "", 2)) == []


@pytest.mark.parametrize(
    ("facts", "level", "says"),
    [
        (
            {"known": 9, "wrong": {}, "unchecked": []},
            OK,
            "9 kinds of layers examined on this CPU, none computed",
        ),
        ({"known": 9, "wrong": {"conv2d 1x1": "contiguous"}, "unchecked": []}, OK, "conv2d 1x1: contiguous"),
        ({"known": 9, "wrong": {"conv2d 1x1": ""}, "unchecked": []}, WARN, "conv2d 1x1: no form is exact"),
        ({"known": 9, "wrong": {}, "unchecked": ["no child"]}, WARN, "not checked: no child"),
    ],
    ids=["right", "wrong", "refused", "unchecked"],
)
def test_kernels_that_are_wrong_are_listed_with_what_is_done(place, monkeypatch, facts, level, says):
    monkeypatch.setattr(machine, "probe", lambda _name: facts)
    (finding,) = machine.kernels(place)
    assert finding.level == level
    assert says in finding.says
