"""What half precision costs on a CPU: the demo's FP16 runs beside the same runs in FP32.

    python benchmarks/bench_half.py [--rounds 3] [--out FILE]

Each network and batch size that Bag of Tricks trains in FP16 at size mini is trained whole, from building to
the record, in FP16 and in FP32 in turn: one thread, CPU time. Shown is the ratio of each round; a first,
short run of each is left out: 5 minutes. ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 caps the CPU's
instructions.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import figures
import torch

import harness
from harness.runs.folder import RunFolder
from harness.spec import Machine, RunSpec
from harness.training.run import run_one

REPOSITORY = Path(__file__).parents[1]
GOAL = 1.3


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"instruction set: {torch.backends.cpu.get_cpu_capability()}")
    table = figures.Figures()
    for spec in efficient_runs():
        recipe = spec.arm.recipe
        pair = (spec, in_fp32(spec))
        for each in pair:
            cpu_time_s(shortened(each))
        ratios = [cpu_time_s(pair[0]) / cpu_time_s(pair[1]) for _ in range(options.rounds)]
        table.add(f"{recipe.model.name}, batch {recipe.batch_size}: FP16 / FP32", ratios, "x", goal=GOAL)
    table.save(options.out)


def efficient_runs() -> Iterator[RunSpec]:
    """One FP16 run of each network and batch size at size mini, without teacher or source."""
    plan = harness.load(REPOSITORY / "studies" / "bag_of_tricks.yaml").plan()
    seen = set()
    for run in plan.runs:
        spec = plan.spec(run)
        recipe = spec.arm.recipe
        if (
            recipe.precision == "fp16"
            and not run.needs
            and (recipe.model.name, recipe.batch_size) not in seen
        ):
            seen.add((recipe.model.name, recipe.batch_size))
            yield spec


def in_fp32(spec: RunSpec) -> RunSpec:
    tricks = tuple(trick for trick in spec.arm.tricks if trick.name != "fp16")
    recipe = dataclasses.replace(spec.arm.recipe, precision="fp32")
    return dataclasses.replace(spec, arm=dataclasses.replace(spec.arm, recipe=recipe, tricks=tricks))


def shortened(spec: RunSpec) -> RunSpec:
    recipe = dataclasses.replace(spec.arm.recipe, epochs=1)
    return dataclasses.replace(spec, arm=dataclasses.replace(spec.arm, recipe=recipe))


def cpu_time_s(spec: RunSpec) -> float:
    """Of one run, in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        machine = Machine(runs_dir=Path(name), data_dir=Path(name))
        started_s = time.process_time()
        run_one(spec, RunFolder(Path(name) / spec.run_id), machine, lambda: False)
        return time.process_time() - started_s


if __name__ == "__main__":
    main()
