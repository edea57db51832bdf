"""What the local scheduler costs, and what a second worker brings.

    python benchmarks/bench_scheduling.py [--repeats 5] [--run-s 0.5] [--runs 20] [--work loop|torch]

Each number is the median of `--repeats`:

- time from `execute` to the first line of the first run, in a fresh process, with torch preloaded;
- overhead per run of runs that take no time, one worker: wall time from first start to last end, per run;
- overhead per run of runs that sleep `--run-s`, two workers: what the wall time exceeds the sleeping by. The
  overhead of a run does not depend on its length, so its share of a 5 s run is also printed; `--run-s 5`
  measures that directly;
- throughput of two one-thread workers relative to one, on CPU-bound runs (a Python loop, or with
  `--work torch` a small convolution, forward and backward); beside it the same for two plain processes.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.runs.folder import RunFolder
from harness.scheduling.base import Job
from harness.scheduling.local import Local, LocalSettings
from harness.spec import FINISHED, Arm, DataSpec, Machine, ModelSpec, Recipe, RunSpec, Stop

WORK_S = 2.0  # about how long one CPU-bound run takes


def run_one(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
    """Note the time, do the work that the spec names, note the time."""
    folder.append_event("started")
    model = spec.arm.recipe.model
    WORK[model.name](model.args["amount"])
    folder.append_event("ended")
    return FINISHED


def loop(amount: float) -> None:
    value = 1
    for _ in range(int(amount)):
        value = (value * 31 + 7) % 10_007


def convolve(amount: float) -> None:
    import torch

    torch.set_num_threads(1)
    layer = torch.nn.Conv2d(16, 16, 3, padding=1)
    images = torch.randn(32, 16, 32, 32)
    for _ in range(int(amount)):
        layer(images).square().mean().backward()


WORK: dict[str, Callable[[float], None]] = {"sleep": time.sleep, "loop": loop, "torch": convolve}


def main() -> None:
    options = parse()
    if options.first_job:
        print(seconds_to_first_run())
        return
    first = [
        float(subprocess.check_output([sys.executable, __file__, "--first-job"]))
        for _ in range(options.repeats)
    ]
    empty = [span("sleep", 0.0, 200, workers=1) / 200 for _ in range(options.repeats)]
    ideal_s = options.run_s * options.runs / 2
    excess = [
        (span("sleep", options.run_s, options.runs) - ideal_s) * 2 / options.runs
        for _ in range(options.repeats)
    ]
    amount = calibrate(WORK[options.work])
    ratios, bare = [], []
    for _ in range(options.repeats):  # in turn, so that both see the same load
        ratios.append(speed_up(options.work, amount))
        bare.append(speed_up_of_plain_processes(options.work, amount))

    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| measured | median | of all |")
    print("| --- | --- | --- |")
    show("time to the first run, torch preloaded", first, "s")
    show("overhead per run, runs of 0 s, 1 worker", [1e3 * each for each in empty], "ms")
    show(f"overhead per run, runs of {options.run_s:g} s, 2 workers", [1e3 * each for each in excess], "ms")
    show("the same as a share of a 5 s run", [100 * each / 5 for each in excess], "%")
    show(f"throughput of 2 workers / 1 worker ({options.work})", ratios, "x")
    show("the same, two plain processes / one: what the machine can give", bare, "x")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, default=20, help="runs of --run-s each")
    parser.add_argument("--run-s", type=float, default=0.5)
    parser.add_argument("--work", choices=("loop", "torch"), default="loop")
    parser.add_argument("--first-job", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def execute(runs_dir: Path, task: str, amount: float, runs: int, workers: int) -> list[RunFolder]:
    import bench_scheduling  # by this name the workers import it; as __main__ they would run the script again

    recipe = Recipe(
        model=ModelSpec(name=task, args={"amount": amount}), data=DataSpec(name="none", resolution=1)
    )
    jobs = [Job(spec=RunSpec(arm=Arm(recipe=recipe), seed=seed)) for seed in range(runs)]
    machine = Machine(runs_dir=runs_dir, data_dir=runs_dir)
    settings = LocalSettings(machine=machine, workers=workers, preload=("torch", "bench_scheduling"))
    ended = Local(settings).execute(jobs, bench_scheduling.run_one, lambda progress: None)
    assert set(ended.values()) == {FINISHED}, ended
    return [RunFolder(runs_dir / run_id) for run_id in ended]


def span(task: str, amount: float, runs: int, workers: int = 2) -> float:
    """Seconds from the start of the first run to the end of the last."""
    with tempfile.TemporaryDirectory() as runs_dir:
        times = [
            event["time_s"]
            for folder in execute(Path(runs_dir), task, amount, runs, workers)
            for event in folder.read_events()
        ]
    return max(times) - min(times)


def seconds_to_first_run() -> float:
    called_s = time.time()
    with tempfile.TemporaryDirectory() as runs_dir:
        [folder] = execute(Path(runs_dir), "sleep", 0.0, 1, 1)
        return folder.read_events()[0]["time_s"] - called_s


def speed_up(task: str, amount: float) -> float:
    """Wall time of four runs on one worker over that on two."""
    return span(task, amount, 4, workers=1) / span(task, amount, 4, workers=2)


def speed_up_of_plain_processes(task: str, amount: float) -> float:
    """The same without the scheduler: a busy or throttled machine shows here, too."""

    def wall_s(processes: int, share: float) -> float:
        code = f"import bench_scheduling; bench_scheduling.{WORK[task].__name__}({share})"
        started_s = time.perf_counter()
        command = [sys.executable, "-c", code]
        running = [subprocess.Popen(command, cwd=Path(__file__).parent) for _ in range(processes)]
        assert [process.wait() for process in running] == [0] * processes
        return time.perf_counter() - started_s

    return wall_s(1, 4 * amount) / wall_s(2, 2 * amount)


def calibrate(work: Callable[[float], None]) -> float:
    """The amount of work that takes about `WORK_S` here."""
    amount = 8.0
    while True:
        started_s = time.perf_counter()
        work(amount)
        took_s = time.perf_counter() - started_s
        if took_s > WORK_S / 4:
            return amount * WORK_S / took_s
        amount *= 2


def show(what: str, values: list[float], unit: str) -> None:
    low, high = min(values), max(values)
    print(f"| {what} | {statistics.median(values):.3g} {unit} | {low:.3g} to {high:.3g} |")


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
