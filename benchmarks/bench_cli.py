"""How quickly the command line answers: whole processes, wall seconds, median of several.

Figures: --help, plan and status of the Bag of Tricks study, and status of a study with 1,000 finished runs.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "studies" / "bag_of_tricks.yaml"
HARNESS = (sys.executable, "-P", "-m", "harness.cli")
REPEATS = 7


def environment() -> dict[str, str]:
    """As a user has it: Python may keep what it has compiled."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(ROOT)}


def wall_s(arguments: list[str], cwd: Path) -> float:
    """Median wall seconds of `harness ARGUMENTS` as a fresh process."""
    times = []
    for _ in range(REPEATS):
        start_s = time.perf_counter()
        code = subprocess.call([*HARNESS, *arguments], cwd=cwd, stdout=subprocess.DEVNULL, env=environment())
        times.append(time.perf_counter() - start_s)
        if code:
            raise SystemExit(f"harness {' '.join(arguments)} ended with {code}")
    return statistics.median(times)


def finish_runs(cwd: Path, seeds: int) -> int:
    """Write summaries for every run of the study, so that `status` has finished runs to read."""
    command = [*HARNESS, "plan", str(STUDY), "--seeds", str(seeds), "--json"]
    plan = json.loads(subprocess.check_output(command, cwd=cwd, env=environment()))
    for run in plan["runs"]:
        folder = cwd / "runs" / run["run_id"]
        folder.mkdir(parents=True)
        summary = {
            "run_id": run["run_id"],
            "arm_id": run["arm_id"],
            "seed": run["seed"],
            "status": "finished",
        }
        (folder / "summary.json").write_text(json.dumps(summary))
    return len(plan["runs"])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        print(f"Python {platform.python_version()} on {platform.machine()}, median of {REPEATS}")
        for arguments in (["--help"], ["plan", str(STUDY)], ["status", str(STUDY)], ["tricks"]):
            label = " ".join([*arguments[:1], *(Path(word).name for word in arguments[1:])])
            print(f"harness {label:<40} {wall_s(arguments, cwd):.3f} s")
        runs = finish_runs(cwd, seeds=48)
        for verb in ("plan", "status"):
            time_s = wall_s([verb, str(STUDY), "--seeds", "48"], cwd)
            print(f"harness {verb} with {runs} finished runs {time_s:.3f} s")


if __name__ == "__main__":
    main()
