"""benchmarks/run_all.py runs every benchmark and reports the ones that fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import run_all

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def write_scripts(folder: Path, failing: str | None = None) -> None:
    for name in run_all.BENCHMARKS:
        text = "import sys\nprint('ran', *sys.argv[1:])\n"
        (folder / f"{name}.py").write_text(text + ("sys.exit(3)\n" if name == failing else ""))


def test_every_script_is_there() -> None:
    assert [name for name in run_all.BENCHMARKS if not (BENCHMARKS / f"{name}.py").is_file()] == []


def test_all_run_under_headings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_scripts(tmp_path)
    assert run_all.main([], tmp_path) == 0
    out = capfd.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("## ")] == [
        "## bench_cli.py",
        "## bench_expand.py",
        "## bench_scheduling.py",
        "## bench_journal.py",
        "## bench_claims.py",
        "## bench_checkpoint.py",
        "## bench_half.py --rounds 1",
        "## bench_processes.py --repeats 1",
        "## bench_many_runs.py --repeats 1",
        "## bench_analysis.py --repeats 1",
        "## bench_collect.py --repeats 1",
        "## validate_statistics.py --quick",
    ]
    assert out.count("ran") == 12
    assert "ran --quick" in out


def test_one_failure_fails_the_whole_after_the_others_have_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_scripts(tmp_path, failing="bench_expand")
    assert run_all.main([], tmp_path) == 1
    out = capfd.readouterr().out
    assert out.count("ran") == 12
    assert "failed: bench_expand" in out


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["bench_clu"]) == 2
    assert "Valid: bench_cli" in capsys.readouterr().err
