"""Several processes that train one run: started, stopped, killed; none is ever left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from harness.runs.folder import RunFolder, read_json
from harness.scheduling import base, ranks
from harness.scheduling.base import INTERRUPTED, Job
from harness.scheduling.local import Local, LocalSettings
from harness.scheduling.rank import load, machine_from_json, machine_to_json, name_of
from harness.scheduling.ranks import Orders, RankDied, RankFailed, follow, leading, run_ranks
from harness.scheduling.workers import attempt
from harness.spec import FAILED, FINISHED, Arm, DataSpec, Machine, Member, ModelSpec, Recipe, RunSpec
from tests.scheduling.rank_fakes import STEP_S, run_rank
from tests.timing import FOREVER_S, PATIENCE_S, not_waited_out, until


def never() -> bool:
    return False


def spec(task: str, **options: float) -> RunSpec:
    recipe = Recipe(model=ModelSpec(name=task, args=options), data=DataSpec(name="none", resolution=1))
    return RunSpec(arm=Arm(recipe=recipe), seed=1)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Of two processes; their temporary folders lie in `tmp_path/tmp`."""
    base.start_server((), threads=1)  # its socket needs a short path, and so comes first
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return Machine(runs_dir=tmp_path / "runs", data_dir=tmp_path, processes=2)


@pytest.fixture(autouse=True)
def nobody_is_left(tmp_path: Path) -> Iterator[None]:
    """After every test: no rank of it lives, and no private folder is left."""
    yield
    until(lambda: not living_ranks(tmp_path))
    assert list((tmp_path / "tmp").glob("harness-ranks-*")) == []


def living_ranks(tmp_path: Path) -> list[int]:
    """The processes that are ranks of runs below `tmp_path`: they carry its name in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_rank = b"harness.scheduling.rank" in (process / "cmdline").read_bytes()
            if is_rank and str(tmp_path).encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # ended meanwhile
            continue
    return found


def folder_of(run: RunSpec, machine: Machine) -> RunFolder:
    folder = RunFolder(machine.runs_dir / run.run_id)
    folder.path.mkdir(parents=True, exist_ok=True)
    return folder


def seen(folder: RunFolder, rank: int) -> dict[str, Any] | None:
    return read_json(folder.path / f"rank.{rank}.json")


def pids(folder: RunFolder, count: int = 2) -> list[int]:
    return [until(lambda rank=rank: seen(folder, rank))["pid"] for rank in range(count)]


def in_background(target: Callable[[], Any]) -> Callable[[], Any]:
    """Start it; the function that is returned waits for its answer, or raises what it raised."""
    answer: list[Any] = []

    def work() -> None:
        try:
            answer.append(target())
        except Exception as error:
            answer.append(error)

    thread = Thread(target=work, daemon=True)
    thread.start()

    def ask() -> Any:
        thread.join(PATIENCE_S)
        assert answer, "it does not end"
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    return ask


def test_every_rank_has_torchruns_environment_and_its_own_device(machine: Machine) -> None:
    machine = replace(machine, devices=("cpu", "meta"), threads=3)
    run = spec("count", steps=1)
    folder = folder_of(run, machine)
    assert run_ranks(run_rank, run, machine, never) == FINISHED
    first, second = seen(folder, 0), seen(folder, 1)
    assert first is not None
    assert second is not None
    alike = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "3",
        "processes": 2,
        "mode": "0o700",
    }
    for rank, each in enumerate((first, second)):
        assert {name: each[name] for name in alike} == alike
        assert (each["RANK"], each["LOCAL_RANK"]) == (str(rank), str(rank))
    assert (first["device"], second["device"]) == ("cpu", "meta")
    assert first["HARNESS_STORE"] == second["HARNESS_STORE"]
    assert len({first["pid"], second["pid"], os.getpid()}) == 3


def test_a_machine_survives_the_way_through_json(machine: Machine) -> None:
    machine = replace(machine, devices=("cuda:0", "cuda:1"), exact=False, checkpoint_every_s=2.5)
    assert machine_from_json(json.loads(json.dumps(machine_to_json(machine)))) == machine


def test_a_function_travels_by_name_and_one_without_a_name_is_refused(machine: Machine) -> None:
    assert load(name_of(run_rank)) is run_rank
    with pytest.raises(TypeError, match="function at the top of a module"):
        run_ranks(lambda *_: FINISHED, spec("count"), machine, never)


def test_only_rank_0s_answer_counts(machine: Machine) -> None:
    assert attempt(run_rank, spec("differ"), machine, never) == FINISHED


def test_a_rank_that_does_not_end_after_rank_0_has_is_ended(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "ENDING_S", 0.5)
    assert attempt(run_rank, spec("linger"), machine, never) == FINISHED


def test_stopped_in_the_middle_rank_0_is_told_and_the_next_attempt_goes_on(machine: Machine) -> None:
    run = spec("count", steps=50, waits=1)
    folder = folder_of(run, machine)
    stop = lambda: seen(folder, 0) is not None and seen(folder, 1) is not None  # noqa: E731
    assert run_ranks(run_rank, run, machine, stop) == INTERRUPTED
    assert [read_json(folder.path / f"ended.{rank}.json") for rank in (0, 1)] == [
        {"status": INTERRUPTED, "stop": True},
        {"status": INTERRUPTED, "stop": False},
    ]
    reached = read_json(folder.checkpoint)
    assert reached is not None
    assert 0 <= reached["step"] < 50
    (folder.path / "over.json").unlink()
    (machine.runs_dir / "go").touch()
    assert run_ranks(run_rank, replace(run), machine, never) == FINISHED


def test_asked_to_stop_before_it_began_nothing_is_started(machine: Machine) -> None:
    run = spec("count", steps=1)
    assert run_ranks(run_rank, run, machine, lambda: True) == INTERRUPTED
    assert not (machine.runs_dir / run.run_id).exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_a_rank_ends_the_others_and_says_which_it_was(machine: Machine, rank: int) -> None:
    run = spec("count", steps=FOREVER_S / STEP_S)
    ask = in_background(lambda: run_ranks(run_rank, run, machine, never))
    processes = pids(folder_of(run, machine))
    os.kill(processes[rank], signal.SIGKILL)
    with pytest.raises(RankDied, match=rf"^rank {rank} of 2 was killed by SIGKILL \(out of memory\?\)$"):
        ask()
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)


def test_a_rank_that_leaves_without_a_word_has_died(machine: Machine) -> None:
    folder_of(spec("leave"), machine)
    with pytest.raises(RankDied, match="rank 1 of 2 exited with code 0 before its run had ended"):
        run_ranks(run_rank, spec("leave"), machine, never)


def test_an_exception_is_the_runs_failure_and_the_cause_is_told_not_its_echo(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "SETTLE_S", FOREVER_S)
    run = spec("crash", silent_s=0.1)
    with not_waited_out():  # once every rank has said what it knows
        assert attempt(run_rank, run, machine, never) == FAILED
    event = folder_of(run, machine).read_events()[-1]
    assert event["kind"] == "failed"
    assert event["message"] == "KeyError: 'the cause' (rank 1 of 2)"
    assert 'raise KeyError("the cause")' in event["traceback"]


def test_ranks_that_lost_each_other_are_a_death_not_a_failure_of_the_run(machine: Machine) -> None:
    folder_of(spec("lose"), machine)
    with pytest.raises(RankDied, match=r"the ranks lost each other: RuntimeError: .*closed by peer"):
        run_ranks(run_rank, spec("lose"), machine, never)


def test_a_rank_that_lost_its_gpu_has_died(machine: Machine) -> None:
    folder_of(spec("lose_device"), machine)
    with pytest.raises(RankDied, match=r"cuda:1 cannot be used by this process any more: .*rank 1 of 2"):
        run_ranks(run_rank, spec("lose_device"), machine, never)


def start_parent(run: RunSpec, machine: Machine, grace_s: float) -> subprocess.Popen[bytes]:
    order = {"spec": run.to_json(), "machine": machine_to_json(machine), "grace_s": grace_s}
    code = "from tests.scheduling.rank_fakes import lead_from_command_line as lead; lead()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", code, json.dumps(order)], env=environment)


def test_where_the_parent_is_killed_rank_0_checkpoints_and_all_ranks_end(
    machine: Machine, tmp_path: Path
) -> None:
    run = spec("count", steps=FOREVER_S / STEP_S)
    folder = folder_of(run, machine)
    with start_parent(run, machine, grace_s=PATIENCE_S) as parent:
        assert sorted(pids(folder)) == sorted(living_ranks(tmp_path))
        parent.kill()
    until(lambda: not living_ranks(tmp_path))
    assert read_json(folder.checkpoint) is not None


def test_where_the_parent_is_killed_ranks_that_come_to_no_step_end_after_a_grace(
    machine: Machine, tmp_path: Path
) -> None:
    run = spec("deaf")
    folder = folder_of(run, machine)
    with start_parent(run, machine, grace_s=0.5) as parent:
        pids(folder)
        parent.kill()
    until(lambda: not living_ranks(tmp_path))


def test_signals_that_reach_every_process_of_a_job_do_not_end_a_rank(machine: Machine) -> None:
    run = spec("count", steps=50, waits=1)
    ask = in_background(lambda: run_ranks(run_rank, run, machine, never))
    for pid in pids(folder_of(run, machine)):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(pid, number)
    (machine.runs_dir / "go").touch()
    assert ask() == FINISHED


def test_a_folder_named_harness_in_the_working_directory_is_not_the_code(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text("raise SystemExit('the wrong code')\n")
    monkeypatch.chdir(tmp_path)
    folder_of(spec("differ"), machine)
    assert run_ranks(run_rank, spec("differ"), machine, never) == FINISHED


def execute(run: RunSpec, machine: Machine) -> tuple[str, list[dict[str, Any]]]:
    settings = LocalSettings(machine=machine, workers=1, preload=())
    statuses = Local(settings).execute([Job(spec=run)], run_rank, lambda _: None)
    return statuses[run.run_id], folder_of(run, machine).read_events()


def test_a_scheduler_retries_a_run_whose_rank_died(machine: Machine) -> None:
    run = spec("die", dying=1, times=1)
    status, events = execute(run, machine)
    assert status == FINISHED
    assert [event["kind"] for event in events] == ["rank_died", "worker_died"]
    assert events[0]["message"] == "rank 1 of 2 was killed by SIGKILL (out of memory?)"


def test_a_scheduler_gives_a_run_up_whose_rank_dies_every_time(machine: Machine) -> None:
    status, events = execute(spec("die", dying=0, times=99), machine)
    assert status == FAILED
    assert [event["kind"] for event in events].count("rank_died") == 3


def test_where_no_worker_could_die_a_ranks_death_is_a_failure(machine: Machine) -> None:
    run = spec("die", dying=1, times=99)
    assert attempt(run_rank, run, machine, never) == FAILED
    kinds = [event["kind"] for event in folder_of(run, machine).read_events()]
    assert kinds == ["rank_died", "failed"]


def note_machine(run: RunSpec, folder: RunFolder, machine: Machine, stop: object) -> str:
    folder.append_event("seen", processes=machine.processes, device=machine.device, pid=os.getpid())
    return FINISHED


def test_runs_that_train_nothing_or_have_their_own_trainer_take_one_process(machine: Machine) -> None:
    machine = replace(machine, device="meta", devices=("cpu", "meta"))
    plain = spec("count")
    observing = replace(plain, arm=replace(plain.arm, observes=(Member(arm="0" * 32, runs=1),)))
    own = replace(plain, arm=replace(plain.arm, recipe=replace(plain.arm.recipe, trainer="mine")))
    for run in (observing, own):
        assert attempt(note_machine, run, machine, never) == FINISHED
        [event] = folder_of(run, machine).read_events()
        assert (event["processes"], event["device"], event["pid"]) == (1, "cpu", os.getpid())


# Several nodes, here with one folder each in the same machine.


@pytest.fixture
def orders_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_ORDERS", str(tmp_path / "orders"))
    monkeypatch.setattr(ranks, "ORDERS_POLL_S", 0.05)
    return tmp_path / "orders"


def on_node_1(orders_dir: Path, machine: Machine) -> Callable[[], Any]:
    return in_background(lambda: follow(orders_dir, 1, run_rank, machine, never))


@pytest.fixture
def half(machine: Machine) -> Machine:
    """One of two nodes with a process each."""
    return replace(machine, devices=("cpu",))


def test_two_nodes_train_one_run_and_the_second_leaves_at_the_end(orders_dir: Path, half: Machine) -> None:
    runs = [spec("count", steps=steps) for steps in (1, 2)]
    node_1 = on_node_1(orders_dir, half)
    with leading(orders_dir):
        for run in runs:
            folder = folder_of(run, half)
            assert run_ranks(run_rank, run, half, never) == FINISHED
            first, second = seen(folder, 0), until(lambda folder=folder: seen(folder, 1))
            assert first is not None
            for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
                assert first[name] == second[name]
            assert (second["RANK"], second["LOCAL_RANK"], second["GROUP_RANK"]) == ("1", "0", "1")
            assert (first["WORLD_SIZE"], first["HARNESS_STORE"]) == ("2", None)
            assert int(first["MASTER_PORT"]) > 0
    assert node_1() is None


def test_the_death_of_a_rank_on_another_node_is_told_by_its_number(orders_dir: Path, half: Machine) -> None:
    run = spec("count", steps=FOREVER_S / STEP_S)
    node_1 = on_node_1(orders_dir, half)
    with leading(orders_dir):
        ask = in_background(lambda: run_ranks(run_rank, run, half, never))
        os.kill(pids(folder_of(run, half))[1], signal.SIGKILL)
        with pytest.raises(RankDied, match="rank 1 of 2 was killed by SIGKILL"):
            ask()
    node_1()


def test_where_rank_0_dies_the_ranks_of_the_other_nodes_are_ended(
    orders_dir: Path, half: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "ENDING_S", 0.5)
    run = spec("count", steps=FOREVER_S / STEP_S)
    node_1 = on_node_1(orders_dir, half)
    with leading(orders_dir):
        ask = in_background(lambda: run_ranks(run_rank, run, half, never))
        first, second = pids(folder_of(run, half))
        os.kill(first, signal.SIGKILL)
        with pytest.raises(RankDied, match="rank 0 of 2"):
            ask()
        until(lambda: not Path(f"/proc/{second}").exists())
    node_1()


def test_a_node_that_cannot_start_its_ranks_says_so(
    orders_dir: Path, half: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = spec("deaf")
    folder_of(run, half)
    node_1 = in_background(lambda: follow(orders_dir, 1, run_rank, replace(half, threads=1), never))
    with leading(orders_dir):
        original = ranks.RankGroup.__enter__

        def refuse(group: Any) -> Any:
            if group.place.node == 1:
                raise OSError(28, "No space left on device")
            return original(group)

        monkeypatch.setattr(ranks.RankGroup, "__enter__", refuse)
        monkeypatch.setattr(ranks, "SETTLE_NODES_S", 0.2)
        with pytest.raises(RankFailed, match=r"node 1: OSError: .*No space left"):
            run_ranks(run_rank, run, half, never)
    node_1()


def test_a_requeued_job_does_not_follow_the_orders_of_its_former_life(
    orders_dir: Path, half: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Orders(orders_dir).give({"schema": 1, "not": "to be followed"})
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    test_two_nodes_train_one_run_and_the_second_leaves_at_the_end(orders_dir, half)


def test_a_node_leaves_where_the_first_one_beats_no_more(
    orders_dir: Path, half: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "LEADER_GONE_S", 0.3)
    orders = Orders(orders_dir)
    orders.path.mkdir(parents=True)
    (orders.path / "beat").touch()
    started_s = time.monotonic()
    assert on_node_1(orders_dir, half)() is None
    assert time.monotonic() - started_s > 0.3


def test_processes_that_do_not_fit_the_devices_are_refused_in_words(machine: Machine) -> None:
    with pytest.raises(ValueError, match="3 processes on 2 devices; give each process a device"):
        run_ranks(run_rank, spec("count"), replace(machine, processes=3, devices=("cpu",) * 2), never)
