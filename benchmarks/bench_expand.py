"""Plans a grid of 100,000 runs: load, expand, validate, hash and dedupe. Prints seconds and peak memory.

    python benchmarks/bench_expand.py

Each figure is the median of 3 fresh processes; imports count in the memory, not in the time.
Goal: 3 s and 500 MB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

REPEATS = 3
ROOT = Path(__file__).resolve().parent.parent

STUDY = """\
study: bench
question: How long does it take to plan 100,000 runs?
baseline: {{model: resnet50, recipe: bag_of_tricks_baseline}}
sizes:
  mini:
    data: fashion_mnist
    resolution: 32
    epochs: 4
    models: {{resnet50: {{width: 0.125, depth: [1, 1, 1]}}}}
  gpu: {{data: fashion_mnist, resolution: 32, epochs: 4}}
  paper: {{data: fashion_mnist, resolution: 32, epochs: 4}}
tables:
  grid:
    title: A large grid
    design: grid
    factors:
      batch_size: [{batch_sizes}]
      lr: [{lrs}]
      weight_decay: [{decays}]
      cosine: [off, on]
      label_smoothing.eps: [off, 0.1]
"""


def study_text(arms: int) -> str:
    """A grid of `arms` rows: 10 batch sizes x 50 learning rates x n weight decays x 2 x 2."""
    decays = arms // (10 * 50 * 2 * 2)
    return STUDY.format(
        batch_sizes=", ".join(str(32 * (i + 1)) for i in range(10)),
        lrs=", ".join(f"{0.01 * (i + 1):.2f}" for i in range(50)),
        decays=", ".join(f"{1e-5 * (i + 1):.5f}" for i in range(decays)),
    )


def measure(path: Path, seeds: int) -> None:
    """In a process of its own: print seconds, peak MB and the number of runs."""
    from harness.commands.workspace import build_catalogue
    from harness.study.expand import ExpandOptions, expand, load_study

    catalogue = build_catalogue(path.parent)
    start = time.perf_counter()
    plan = expand(load_study(path, catalogue), catalogue, ExpandOptions(seeds=seeds))
    elapsed_s = time.perf_counter() - start
    distinct = len({run.run_id for run in plan.runs})
    assert distinct == len(plan.runs)
    print(elapsed_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, distinct)


def main() -> None:
    for arms, seeds in ((20_000, 5), (100_000, 1)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.yaml"
            path.write_text(study_text(arms))
            found = [_fresh_process(path, seeds) for _ in range(REPEATS)]
        seconds, megabytes = median(row[0] for row in found), median(row[1] for row in found)
        print(f"{arms:>7} arms x {seeds} seeds = {found[0][2]:.0f} runs: {seconds:.2f} s, {megabytes:.0f} MB")


def _fresh_process(path: Path, seeds: int) -> list[float]:
    command = [sys.executable, __file__, str(path), str(seeds)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return [float(part) for part in output.split()]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if len(sys.argv) == 3:
        measure(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
