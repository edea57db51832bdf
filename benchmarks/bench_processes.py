"""What a second process brings to one run: the demo's ResNet-50 in one and in two processes of one thread.

    python benchmarks/bench_processes.py [--repeats 3] [--epochs 3] [--out FILE]

Images per second as the run's own journal has them, at the last epoch, so without the start of the
processes; that is timed by itself: from the call to the first step, and each of two processes imports torch.
The two are measured in turn, so that both see the same load. Two runs side by side bring more on two cores
than two processes for one run: this is for a run that is too large or too long for one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import figures

from harness.runs.folder import RunFolder
from harness.scheduling.base import Job
from harness.scheduling.local import Local, LocalSettings
from harness.spec import FINISHED, Arm, DataSpec, Machine, ModelSpec, Recipe, RunSpec
from harness.training import run_one


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    table = figures.Figures()
    spec = spec_of(options.epochs, tiny=options.tiny)
    rates: dict[int, list[float]] = {1: [], 2: []}
    starts: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.repeats):
        for processes in rates:
            rate, start_s = train(spec, processes)
            rates[processes].append(rate)
            starts[processes].append(start_s)
    for processes, values in rates.items():
        what = "1 process" if processes == 1 else f"{processes} processes"
        table.add(f"{what}: images per second", values, "images/s")
        table.add(f"{what}: from the call to the first step", starts[processes], "s")
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    table.add("2 processes / 1", ratios, "x")
    table.save(options.out)
    if statistics.median(ratios) < 1:
        print(
            "\nTwo processes were slower than one: with steps of milliseconds, the messages of each (one for"
            "\neach batch norm and direction) take longer than the second core saves."
        )


def spec_of(epochs: int, *, tiny: bool) -> RunSpec:
    images = 128 if tiny else 4096
    data = {"classes": 10, "size": 28, "channels": 1, "train": images, "test": 64}
    recipe = Recipe(
        model=ModelSpec(name="resnet50", args={"width": 1 / 8, "depth": (1, 1, 1, 1)}),
        data=DataSpec(name="generated", resolution=32, args=data),
        batch_size=64,
        epochs=epochs,
        optimizer_args={"momentum": 0.9, "nesterov": True},
    )
    return RunSpec(arm=Arm(recipe=recipe), seed=0)


def train(spec: RunSpec, processes: int) -> tuple[float, float]:
    """Images per second of the last epoch, and seconds from the call to the start of the training."""
    with tempfile.TemporaryDirectory() as name:
        machine = Machine(runs_dir=Path(name), data_dir=Path(name), processes=processes)
        called_s = time.time()
        preload = ("harness.training.run",) if processes == 1 else ()
        settings = LocalSettings(machine=machine, workers=1, preload=preload)
        statuses = Local(settings).execute([Job(spec=spec)], run_one, lambda _: None)
        events = RunFolder(machine.runs_dir / spec.run_id).read_events()
    if statuses[spec.run_id] != FINISHED:
        raise SystemExit(f"{processes} processes: {events[-1]}")
    start_s = next(event["time_s"] for event in events if event["kind"] == "attempt")
    rates = [event["images_per_s"] for event in events if event["kind"] == "epoch"]
    return rates[-1], start_s - called_s


if __name__ == "__main__":
    main()
