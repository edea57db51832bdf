"""What checkpoints cost: the time of one beside that of a step, and as a share of the training's time.

    python benchmarks/bench_checkpoint.py [--repeats 10] [--folder DIR] [--out FILE]

For the demo's ResNet-50 (size mini) and for the whole ResNet-50 with its momentum: the median time of a step
and of a checkpoint (written, flushed to the disk, renamed) in `--folder`, and what share of the training's
time one checkpoint in the default interval takes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import figures
import torch

from harness.spec import Arm, DataSpec, Machine, ModelSpec, Recipe, RunSpec
from harness.training.checkpoint import TrainingProgress, save_checkpoint
from harness.training.loop import train
from harness.training.record import checkpoint_interval_s
from harness.training.setup import build

GOAL_PERCENT = 1.0
NETWORKS = {
    "ResNet-50 of the demo": {"width": 1 / 8, "depth": (1, 1, 1, 1)},
    "ResNet-50": {"width": 1.0, "depth": (3, 4, 6, 3)},
}


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument(
        "--folder", type=Path, help="where checkpoints are written (default: a temporary one)"
    )
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = figures.Figures()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for label, model in NETWORKS.items():
            shrunken = {"width": 1 / 16, "depth": (1, 1, 1, 1)} if options.tiny else model
            measure(table, label, spec_of(shrunken), Path(name), options.repeats)
    table.save(options.out)


def spec_of(model: dict[str, object]) -> RunSpec:
    """A run with the demo's batches and optimizer; how its images came to be is of no account."""
    images = {"classes": 10, "size": 28, "channels": 1, "train": 1024, "test": 64}
    recipe = Recipe(
        model=ModelSpec(name="resnet50", args=model),
        data=DataSpec(name="generated", resolution=32, args=images),
        batch_size=64,
        epochs=100,
        optimizer_args={"momentum": 0.9, "nesterov": True},
    )
    return RunSpec(arm=Arm(recipe=recipe), seed=0)


def measure(table: figures.Figures, label: str, spec: RunSpec, folder: Path, repeats: int) -> None:
    machine = Machine(runs_dir=folder, data_dir=folder)
    setup, progress = build(spec, machine), TrainingProgress.start(torch.device("cpu"))
    file = folder / "checkpoint.pt"
    steps_s, saves_s = [], []
    for _ in range(repeats + 1):
        start_s, before = time.perf_counter(), progress.step
        train(setup, progress, lambda before=before: progress.step > before, lambda _: None, lambda: False)
        stepped_s = time.perf_counter()
        save_checkpoint(file, setup, progress)
        steps_s.append(stepped_s - start_s)
        saves_s.append(time.perf_counter() - stepped_s)
    size = f"{file.stat().st_size / 1e6:.0f} MB"
    table.add(f"{label}: a step", [1e3 * each for each in steps_s[1:]], "ms")  # the first one warms up
    table.add(f"{label}: a checkpoint of {size}", [1e3 * each for each in saves_s[1:]], "ms")
    intervals_s = [checkpoint_interval_s(machine, each) for each in saves_s[1:]]
    table.add(f"{label}: from one checkpoint to the next", intervals_s, "s")
    shares = [100 * save_s / every_s for save_s, every_s in zip(saves_s[1:], intervals_s, strict=True)]
    table.add(f"{label}: share of the time", shares, "%", GOAL_PERCENT)


if __name__ == "__main__":
    main()
