"""What `tests.held_up` runs does stand still, goes on, and keeps its exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.timing import PATIENCE_S

ROOT = Path(__file__).parents[1]
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
while open(f"/proc/{child.pid}/stat").read().rpartition(")")[2].split()[0] != "T":
    pass
child.communicate(b"seen")
sys.exit(7 + child.returncode)
"""
CHILD = "import sys; sys.exit(sys.stdin.read() != 'seen')"


@pytest.mark.campaign
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_a_child_stands_still_goes_on_and_the_command_ends_as_it_does_alone() -> None:
    command = [sys.executable, "-m", "tests.held_up", "--longest", "0.5", "--", sys.executable, "-c", PARENT]
    done = subprocess.run([*command, CHILD], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 7, done.stderr
    assert not done.stderr.startswith("0 times")
