"""What claiming a run costs, and that many processes at once never take the same one.

    python benchmarks/bench_claims.py [--runs 1000] [--processes 64] [--out FILE]

- taking and releasing runs that nobody else wants, one process: the median of `--runs`;
- `--processes` processes, started before the clock is, each try to take every one of `--runs` runs: the time
  of the median try, and the time until the last process has tried the last run. Each run must have been
  taken once.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import figures

from harness.runs.claims import Claims, Taken


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--runs-dir", type=Path, help="of a process that competes")
    options = parser.parse_args()
    if options.runs_dir:
        compete(options.runs_dir, options.runs)
        return
    table = figures.Figures()
    with tempfile.TemporaryDirectory() as name:
        take_ms, release_ms = alone(Path(name), options.runs)
    table.add("take a run, one process", take_ms, "ms")
    table.add("release it", release_ms, "ms")
    with tempfile.TemporaryDirectory() as name:
        tries_ms, wall_s = together(Path(name), options.runs, options.processes)
    count = f"{options.processes} processes, {options.runs} runs"
    table.add(f"one try to take a run, {count}", tries_ms, "ms")
    table.add(f"until each run is taken, once, and every process has tried all, {count}", [wall_s], "s")
    table.save(options.out)


def names(runs: int) -> list[str]:
    return [f"{index:032x}" for index in range(runs)]


def alone(runs_dir: Path, runs: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each taking and each releasing."""
    take_ms, release_ms = [], []
    with Claims(runs_dir) as claims:
        for run_id in names(runs):
            start_s = time.perf_counter()
            claims.take(run_id)
            taken_s = time.perf_counter()
            claims.release(run_id)
            take_ms.append(1e3 * (taken_s - start_s))
            release_ms.append(1e3 * (time.perf_counter() - taken_s))
    return take_ms, release_ms


def together(runs_dir: Path, runs: int, processes: int) -> tuple[list[float], float]:
    """Milliseconds of a process's median try, for each process, and wall seconds of the whole.

    Raises:
        SystemExit: a run was taken twice or by nobody.
    """
    command = [sys.executable, __file__, "--runs-dir", str(runs_dir), "--runs", str(runs)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
    start_s = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = []
    for process in started:  # each holds what it has taken until all have tried
        assert process.stdout is not None
        ended.append(json.loads(process.stdout.readline()))
    wall_s = time.perf_counter() - start_s
    for process in started:
        process.communicate("\n")
    counts = Counter(run_id for each in ended for run_id in each["taken"])
    if set(counts) != set(names(runs)) or set(counts.values()) != {1}:
        raise SystemExit(f"{len(counts)} of {runs} runs were taken, {counts.total() - len(counts)} twice")
    return [each["try_ms"] for each in ended], wall_s


def compete(runs_dir: Path, runs: int) -> None:
    """Try every run, in the order of all others, and keep what was free."""
    taken, tries_ms = [], []
    with Claims(runs_dir) as claims:
        print("ready", flush=True)
        sys.stdin.readline()
        for run_id in names(runs):
            start_s = time.perf_counter()
            if isinstance(claims.take(run_id), Taken):
                taken.append(run_id)
            tries_ms.append(1e3 * (time.perf_counter() - start_s))
        print(json.dumps({"taken": taken, "try_ms": statistics.median(tries_ms)}), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
