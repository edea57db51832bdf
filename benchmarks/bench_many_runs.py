"""What a study of 10,000 runs costs at the command line, without training any of them.

    python benchmarks/bench_many_runs.py [--runs 10000] [--repeats 3] [--out FILE]

Bag of Tricks with so many seeds that it has at least `--runs` runs. Each figure is the median of `--repeats`:

- submitting all of them: `harness run --on slurm --detach` as a fresh process, with an sbatch, squeue and
  scontrol that answer at once, less the time of those. Beside it how many files the submission has, for a
  tenth of the runs and for all, and for agents of one array and of several;
- reconciling: what is done, from run folders of which 85 in 100 have ended;
- `harness status` of the same folders as a fresh process, with the submission and its agents in the queue.

The folders have been written just before: they are read from memory, not from a disk or a network.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import figures

from harness.runs.folder import write_json
from harness.slurm.submission import submissions
from harness.spec import RunSpec

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "studies" / "bag_of_tricks.yaml"
HARNESS = [sys.executable, "-P", "-m", "harness.cli"]
SBATCH = r"""echo >> "$CALLS"
job=$(wc -l < "$CALLS")
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$1")
task=0
while [ "$task" -le "${last:-0}" ]; do
  echo "$job|$task|$job$task|RUNNING|None|$name" >> "$CALLS.queue"
  task=$((task + 1))
done
echo "Submitted batch job $job"
"""
SQUEUE = 'cat "$CALLS.queue" 2> /dev/null; exit 0'
FAKES = {"sbatch": SBATCH, "squeue": SQUEUE, "scontrol": "echo MaxArraySize = 1001", "sacct": "exit 0"}
EPOCHS = 8


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        seeds = seeds_for(options.runs, place)
        table = figures.Figures()
        submit_rows(table, place, seeds, options.repeats)
        read_rows(table, place, seeds, options.repeats)
    table.save(options.out)


def parse() -> argparse.Namespace:
    parser = figures.parser(__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def seeds_for(runs: int, cwd: Path) -> int:
    """So many seeds that the study has at least so many runs."""
    return math.ceil(runs / len(planned(1, cwd)))


def planned(seeds: int, cwd: Path) -> list[dict[str, object]]:
    """The runs of the study's plan."""
    command = [*HARNESS, "plan", str(STUDY), "--seeds", str(seeds), "--json"]
    return json.loads(subprocess.check_output(command, cwd=cwd, env=environment()))["runs"]


def environment(**more: str) -> dict[str, str]:
    """As a user has it: Python may keep what it has compiled."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def slurm_environment(commands: Path, calls: Path) -> dict[str, str]:
    """Where the fake commands are found, and keep their queue beside `calls`."""
    return environment(PATH=f"{commands}:{os.environ['PATH']}", CALLS=str(calls))


def submit_rows(table: figures.Figures, place: Path, seeds: int, repeats: int) -> None:
    commands = fake_commands(place / "bin")
    runs = len(planned(seeds, place))
    all_runs = [submit(place, seeds, commands, at_most=16) for _ in range(repeats)]
    table.add(f"submit {runs:,} runs, beyond sbatch's own time", [each.wall_s for each in all_runs], "s", 5)
    table.add("the same, CPU time", [each.cpu_s for each in all_runs], "s")
    tenth, files, arrays = (
        submit(place, max(1, seeds // 10), commands, at_most=16),
        all_runs[-1].files,
        all_runs[-1].arrays,
    )
    table.add("submit a tenth of them, CPU time", [tenth.cpu_s], "s")
    table.add(f"files of the submission ({arrays} arrays)", [files], "")
    table.add("the same for a tenth of the runs", [tenth.files], "")
    many = submit(place, seeds, commands, at_most=2500)
    what = f"files for each further array ({arrays} arrays -> {many.arrays})"
    table.add(what, [(many.files - files) / max(1, many.arrays - arrays)], "", 1)


def fake_commands(folder: Path) -> Path:
    """A folder with a Slurm that takes everything and answers at once."""
    folder.mkdir(exist_ok=True)
    for name, script in FAKES.items():
        file = folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What one submission took: client seconds without those of sbatch, files in its folder, arrays."""

    wall_s: float
    cpu_s: float
    files: int
    arrays: int


def submit(place: Path, seeds: int, commands: Path, *, at_most: int) -> Submitted:
    """Submit the whole study in a fresh folder."""
    cwd = place / "submitting"
    shutil.rmtree(cwd, ignore_errors=True)
    cwd.mkdir()
    (cwd / "cluster.yaml").write_text("cpus: 1\n")
    calls = cwd / "calls"
    fake = slurm_environment(commands, calls)
    what = ["run", str(STUDY), "--seeds", str(seeds), "--on", "slurm", "--detach"]
    resources = ["--cluster", "cluster.yaml", "--at-most", str(at_most)]
    command = [*HARNESS, *what, *resources]
    wall_s, cpu_s = timed(lambda: subprocess.check_output(command, cwd=cwd, env=fake, stderr=subprocess.PIPE))
    arrays = len(calls.read_text().splitlines())
    elsewhere = fake | {"CALLS": str(cwd / "again")}
    [submission] = [each for each in (cwd / "runs" / ".submissions").iterdir() if each.is_dir()]
    sbatch = str(commands / "sbatch")
    again = [
        timed(partial(subprocess.check_output, [sbatch, script], env=elsewhere))
        for script in submission.glob("*.sh")
    ]
    return Submitted(
        wall_s=wall_s - sum(each[0] for each in again),
        cpu_s=cpu_s - sum(each[1] for each in again),
        files=sum(file.is_file() for file in submission.rglob("*")),
        arrays=arrays,
    )


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds of a call, and CPU seconds of the processes that it started."""
    before, start_s = os.times(), time.perf_counter()
    call()
    wall_s, after = time.perf_counter() - start_s, os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return wall_s, cpu_s


def read_rows(table: figures.Figures, place: Path, seeds: int, repeats: int) -> None:
    commands = fake_commands(place / "bin")
    submit(place, seeds, commands, at_most=16)
    cwd = place / "submitting"
    runs = planned(seeds, cwd)
    write_folders(cwd / "runs", specs_of(cwd / "runs"))
    slurm = slurm_environment(commands, cwd / "calls")
    code = (
        "import argparse, time; from pathlib import Path; from harness.commands.workspace import *;"
        "from harness.runs.state import reconcile; from harness.cli import build_parser;"
        "import sys; args = build_parser().parse_args(sys.argv[1:]); place = workspace(args);"
        "plan = expand_plan(args, place); start = time.perf_counter();"
        "reconcile(plan, place.runs_dir); print(time.perf_counter() - start)"
    )
    status = ["status", str(STUDY), "--seeds", str(seeds)]
    reconcile_s = [float(output([sys.executable, "-c", code, *status], cwd, slurm)) for _ in range(repeats)]
    table.add(f"reconcile {len(runs):,} run folders", reconcile_s, "s", 3)
    asked = [timed(lambda: output([*HARNESS, *status], cwd, slurm)) for _ in range(repeats)]
    table.add(f"`harness status`, {len(runs):,} runs", [wall_s for wall_s, _ in asked], "s", 1)
    table.add("the same, CPU time", [cpu_s for _, cpu_s in asked], "s")
    one = ["status", str(STUDY), "--seeds", "1"]
    asked = [timed(lambda: output([*HARNESS, *one], cwd, slurm)) for _ in range(repeats)]
    table.add("`harness status`, one seed, in the same folder, CPU time", [cpu for _, cpu in asked], "s")


def output(command: Sequence[str], cwd: Path, variables: Mapping[str, str]) -> str:
    return subprocess.check_output(command, cwd=cwd, env=variables, text=True)


def specs_of(runs_dir: Path) -> list[RunSpec]:
    """The runs of the newest submission."""
    submission = submissions(runs_dir)[-1]
    return [job.spec for group in submission.groups for job in submission.jobs(group)]


def write_folders(runs_dir: Path, specs: Sequence[RunSpec]) -> None:
    """Of 100 runs, 85 have ended, 5 were stopped in the middle, 5 have failed, 5 are missing."""
    for index, spec in enumerate(specs):
        kind = index % 100
        if kind >= 95:
            continue
        folder = runs_dir / spec.run_id
        folder.mkdir(parents=True)
        events = [{"kind": "attempt", "time_s": 1.7e9, "attempt": 1, "device": "cpu"}]
        done = EPOCHS if kind < 85 else EPOCHS // 2
        events += [
            {"kind": "epoch", "time_s": 1.7e9 + epoch, "step": 80 * epoch, "epoch": float(epoch), "lr": 0.1}
            for epoch in range(1, done + 1)
        ]
        if kind >= 90:
            events.append({"kind": "failed", "time_s": 1.8e9, "message": "RuntimeError: made up"})
        (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        (folder / "lock").touch()
        write_json(folder / "spec.json", spec.to_json())
        if kind < 85:
            (folder / "summary.json").write_text(json.dumps(summary(spec)))


def summary(spec: RunSpec) -> dict[str, object]:
    times = {"train_time_s": 9.0, "eval_time_s": 1.0, "wall_time_s": 10.0, "steps": 640, "attempts": 1}
    when = {"started_s": 1.7e9, "ended_s": 1.7e9 + 10}
    metrics = {"metrics": {"top1": 80.0, "top5": 99.0, "loss": 0.5}, "device": "cpu"}
    same = {"run_id": spec.run_id, "arm_id": spec.arm.arm_id, "seed": spec.seed}
    return {"schema": 1, "status": "finished", **same, **times, **when, **metrics}


if __name__ == "__main__":
    main()
