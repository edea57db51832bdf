"""Runs a command whose processes stand still for seconds now and then, as on a busy machine.

    python -m tests.held_up [--longest 2.5] [--seed 1] -- python -m pytest -n 2 tests/scheduling

A test that fails so, and not otherwise, hopes where it should wait for an event. It takes no core: SIGSTOP
does it, to processes of any depth, found by a mark in their environment (Linux). The first process, which is
pytest's own, goes on. What stands still already is left alone.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "HARNESS_TEST_HELD_UP"
SHARE = 0.35  # of the processes that stand still at a time
PAUSE_S = (0.1, 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a command whose processes stand still now and then.")
    parser.add_argument("--longest", type=float, default=2.5, help="seconds (default 2.5)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    mark = f"{MARK}={os.getpid()}"
    first = subprocess.Popen(asked.command, env={**os.environ, MARK: str(os.getpid())})
    rng, stops = random.Random(asked.seed), 0
    while first.poll() is None:
        time.sleep(rng.uniform(*PAUSE_S))
        chosen = [pid for pid in marked(mark) if pid != first.pid and rng.random() < SHARE]
        stops += sum(sent(pid, signal.SIGSTOP) for pid in chosen)
        try:
            time.sleep(rng.uniform(0, asked.longest))
        finally:
            for pid in chosen:
                sent(pid, signal.SIGCONT)
    print(f"{stops} times a process stood still", file=sys.stderr)
    return first.returncode


def marked(mark: str) -> Iterator[int]:
    """The processes with that variable in their environment that do not stand still already."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                if state in "RSD":
                    yield int(process.name)


def sent(pid: int, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
