"""The same tests are collected on every machine, at any time: test processes that disagree run none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.timing import PATIENCE_S

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
