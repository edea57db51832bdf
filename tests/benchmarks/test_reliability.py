"""The benchmarks of submitting, claiming, checkpointing and training in two processes, in small."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_checkpoint
import bench_claims
import bench_many_runs
import bench_processes
import figures

from tests.training.runs import tiny_spec

SMALL_STUDY = Path(__file__).parents[2] / "studies" / "batch_norm_mnist.yaml"


def rows_of(
    module: Any, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, Any]]:
    """What the benchmark wrote: figure -> row."""
    out = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments, "--out", str(out)])
    module.main()
    return {row["what"]: row for row in json.loads(out.read_text())["rows"]}


def test_a_row_says_whether_its_median_meets_the_goal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = figures.Figures()
    table.add("quick", [0.5, 1.0, 9.0], "s", 1)
    table.add("slow", [2.0], "s", 1)
    table.add("free", [2.0], "s")
    table.save(tmp_path / "figures.json")
    said = json.loads((tmp_path / "figures.json").read_text())
    assert [(row["median"], row["high"], row["within"]) for row in said["rows"]] == [
        (1.0, 9.0, True),
        (2.0, 2.0, False),
        (2.0, 2.0, None),
    ]
    assert {"date", "cpu", "cores", "load", "python"} == set(said["about"])
    assert "| slow | 2 s |  | 1 s (missed) |" in capsys.readouterr().out


@pytest.mark.campaign
def test_many_runs_are_submitted_in_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_many_runs, "STUDY", SMALL_STUDY)
    commands = bench_many_runs.fake_commands(tmp_path / "bin")
    done = bench_many_runs.submit(tmp_path, 5, commands, at_most=16)
    files = list((tmp_path / "submitting" / "runs" / ".submissions").glob("*/*"))
    assert done.files == sum(file.is_file() for file in files)
    assert 4 <= done.files < 10
    assert done.arrays == sum(file.suffix == ".sh" for file in files) == 1
    assert done.wall_s > 0
    assert done.cpu_s > 0


@pytest.mark.campaign
def test_reading_many_runs_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_many_runs, "STUDY", SMALL_STUDY)
    table = figures.Figures()
    bench_many_runs.read_rows(table, tmp_path, seeds=5, repeats=1)
    goals = {row.what: row.goal for row in table.rows}
    assert goals["reconcile 10 run folders"] == 3
    assert goals["`harness status`, 10 runs"] == 1
    assert all(row.median > 0 for row in table.rows)


@pytest.mark.slow
def test_the_files_do_not_grow_with_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(bench_many_runs, ["--runs", "400", "--repeats", "1"], tmp_path, monkeypatch)
    [files] = [row["median"] for name, row in rows.items() if name.startswith("files of")]
    assert files == rows["the same for a tenth of the runs"]["median"]


def test_the_folders_it_reads_are_in_every_state(tmp_path: Path) -> None:
    from harness.runs.folder import RunFolder, run_state

    runs = [tiny_spec(seed=seed) for seed in range(100)]
    bench_many_runs.write_folders(tmp_path, runs)
    states = [run_state(RunFolder(tmp_path / run.run_id)) for run in runs]
    assert {state: states.count(state) for state in set(states)} == {
        "finished": 85,
        "stopped": 5,
        "failed": 5,
        "missing": 5,
    }


def test_claims_are_timed_and_each_run_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(bench_claims, ["--runs", "30", "--processes", "3"], tmp_path, monkeypatch)
    assert set(rows) >= {"take a run, one process", "one try to take a run, 3 processes, 30 runs"}
    assert all(row["median"] > 0 for row in rows.values())


def test_a_run_taken_twice_ends_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that do not know of each other: each takes everything."""
    script = tmp_path / "bench.py"
    script.write_text(
        "import json, sys; names = [f'{i:032x}' for i in range(3)]; print('ready', flush=True);"
        "sys.stdin.readline(); print(json.dumps({'taken': names, 'try_ms': 1}), flush=True)"
    )
    monkeypatch.setattr(bench_claims, "__file__", str(script))
    with pytest.raises(SystemExit, match="3 of 3 runs were taken, 3 twice"):
        bench_claims.together(tmp_path, 3, 2)


def test_a_checkpoint_is_a_share_of_the_default_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(bench_checkpoint, ["--tiny", "--repeats", "2"], tmp_path, monkeypatch)
    save_ms = next(row["median"] for name, row in rows.items() if "demo: a checkpoint" in name)
    every_s = rows["ResNet-50 of the demo: from one checkpoint to the next"]["median"]
    share = rows["ResNet-50 of the demo: share of the time"]
    assert every_s >= 30
    assert share["median"] == pytest.approx(100 * save_ms / 1e3 / every_s, rel=0.05)
    assert (share["goal"], share["within"]) == (1.0, True)
    assert len(rows) == 8


@pytest.mark.slow
def test_two_processes_are_compared_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(bench_processes, ["--tiny", "--repeats", "1", "--epochs", "1"], tmp_path, monkeypatch)
    rates = [rows[f"{what}: images per second"]["median"] for what in ("1 process", "2 processes")]
    assert rows["2 processes / 1"]["median"] == pytest.approx(rates[1] / rates[0])
