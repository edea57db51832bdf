"""Of the processes that run the tests: all collect the same ones, and none loses what makes them quick."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.timing import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[1]
HERE = {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"}
ELSEWHERE = {"PYTHONHASHSEED": "2", "TZ": "Pacific/Pago_Pago", "ATEN_CPU_CAPABILITY": "default"}


def collect(environment: dict[str, str], *options: str) -> subprocess.Popen[str]:
    """Collect every test there is in a process of its own; ids go to its standard output."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "--assert=plain",
            "-p",
            "no:cacheprovider",
            *options,
        ],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_two_machines_collect_the_same_tests() -> None:
    """Another day, time zone, hash seed, instruction set, number of cores and order of files change no id."""
    processes = [collect(HERE), collect(ELSEWHERE, "-p", "tests.elsewhere")]
    here, elsewhere = [process.communicate(timeout=PATIENCE_S)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(here[-20:] + elsewhere[-20:])
    ids = [line for line in here if "::" in line]
    assert len(ids) > 1000, "one line per test"
    assert ids == [line for line in elsewhere if "::" in line]


@pytest.mark.skipif(
    "PYTEST_XDIST_WORKER" not in os.environ, reason="threads are counted in workers of pytest"
)
def test_layers_are_examined_in_forks_whatever_was_tested_before() -> None:
    """Else each takes a new interpreter: threads of a library that a test left, such as those of typst."""
    import typst

    from harness.training.kernel_probe import can_fork

    typst.compile(b"")
    assert wait_until(can_fork, 60), "a test left threads that `threading` does not know, see conftest.py"
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(can_fork), "nor may one that was forked"
