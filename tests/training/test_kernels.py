"""The checks of kernels, in an interpreter of their own: planted kernels reach a child only by a fork.

A process in which other tests left threads of a library does not fork (`kernel_probe.can_fork`).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("kernel_checks.py")


@pytest.mark.campaign
def test_the_checks_of_kernels_pass_in_a_fresh_interpreter() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(CHECKS),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=CHECKS.parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "[100%]" in done.stdout
