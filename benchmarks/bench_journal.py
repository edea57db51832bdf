"""What the record of a run costs: one line of its learning curve, and its import into MLflow.

    python benchmarks/bench_journal.py [--lines 2000] [--runs 40] [--repeats 3]

- Appending an epoch line through `harness.training.record`, as the training loop does: the median line.
  Goal: 0.2 ms.
- Mirroring finished runs that lie in their folders into a fresh MLflow store (SQLite): wall time per run, the
  median of `--repeats` stores. Creating the store is timed by itself. Goal: 60 ms.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from harness.runs.folder import RunFolder, write_bytes, write_json
from harness.spec import FINISHED, Arm, DataSpec, ModelSpec, Recipe, RunSpec, TrickSpec
from harness.tracking.mirror import Mirror
from harness.tracking.store import Store
from harness.training.checkpoint import TrainingProgress
from harness.training.record import Journal

EPOCHS = 4  # of a finished run
TEST_IMAGES = 10_000
STARTED_S = 1_700_000_000.0


def main() -> None:
    options = parse()
    print(f"Python {platform.python_version()} on {platform.machine()}\n")
    print("| measured | median | range | goal |")
    print("| --- | --- | --- | --- |")
    line_ms = append_times_ms(options.lines)
    high_ms = statistics.quantiles(line_ms, n=20)[-1]
    spread = f"{min(line_ms):.3f} to {high_ms:.3f} ms (95 % of {len(line_ms)} lines)"
    print(f"| append one epoch line | {statistics.median(line_ms):.3f} ms | {spread} | 0.2 ms |")
    stores = [mirror_times_s(options.runs) for _ in range(options.repeats)]
    create_s = [create for create, _ in stores]
    run_ms = [1e3 * sync / options.runs for _, sync in stores]
    print(f"| create an MLflow store | {statistics.median(create_s):.2f} s | {span(create_s)} s | |")
    what = f"mirror one finished run ({options.runs} runs, {EPOCHS} epochs each)"
    print(f"| {what} | {statistics.median(run_ms):.1f} ms | {span(run_ms)} ms | 60 ms |")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def append_times_ms(lines: int) -> list[float]:
    """The time of each append, with the values that the training loop gives."""
    progress = TrainingProgress.start(torch.device("cpu"))
    progress.train_loss = 2 / 3
    times = []
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(RunFolder(Path(name)))
        for epoch in range(1, lines + 1):
            progress.step = 250 * epoch
            started_s = time.perf_counter()
            journal.epoch(progress, epoch=float(epoch), lr=0.1 / 3, val_top1=70 / 3, images_per_s=10000 / 3)
            times.append(1e3 * (time.perf_counter() - started_s))
        written = len(RunFolder(Path(name)).read_events())
    if written != lines:
        raise SystemExit(f"{written} of {lines} lines were written")
    return times


def mirror_times_s(runs: int) -> tuple[float, float]:
    """Seconds to create a store, and to mirror so many finished runs into it."""
    with tempfile.TemporaryDirectory() as name:
        runs_dir = Path(name) / "runs"
        folders = [finished_run(runs_dir, seed) for seed in range(runs)]
        mirror = Mirror(Store.beside(runs_dir), "benchmark", "mini")
        started_s = time.perf_counter()
        mirror.sync([])
        created_s = time.perf_counter()
        count = mirror.sync(folders)
        ended_s = time.perf_counter()
    if count.created != runs:
        raise SystemExit(f"{count.created} of {runs} runs were mirrored")
    return created_s - started_s, ended_s - created_s


def finished_run(runs_dir: Path, seed: int) -> RunFolder:
    """The folder of a run with a curve, predictions and a summary, made up."""
    recipe = Recipe(
        model=ModelSpec(name="resnet50", args={"width": 0.25, "depth": (1, 1, 1, 1)}),
        data=DataSpec(name="generated", resolution=32),
        epochs=EPOCHS,
    )
    spec = RunSpec(
        arm=Arm(recipe=recipe, tricks=(TrickSpec(name="mixup", options={"alpha": 0.2}),)), seed=seed
    )
    folder = RunFolder(runs_dir / spec.run_id)
    write_json(folder.spec, spec.to_json())
    folder.append_event("attempt", attempt=1, device="cpu", device_name="none", threads=1)
    for epoch in range(1, EPOCHS + 1):
        values = {"epoch": float(epoch), "lr": 0.1, "train_loss": 1 / epoch, "val_top1": 50.0 + epoch}
        folder.append_event("epoch", step=250 * epoch, images_per_s=10000 / 3, **values)
    write_bytes(folder.predictions, bytes(TEST_IMAGES // 8))
    write_json(folder.env, {"python": platform.python_version()})
    write_json(folder.summary, summary(spec))
    return folder


def summary(spec: RunSpec) -> dict[str, object]:
    return {
        "schema": 1,
        "run_id": spec.run_id,
        "arm_id": spec.arm.arm_id,
        "seed": spec.seed,
        "status": FINISHED,
        "metrics": {"top1": 200 / 3, "top5": 290 / 3, "loss": 1 / 3},
        "steps": 250 * EPOCHS,
        "train_time_s": 10 / 3,
        "eval_time_s": 1 / 3,
        "wall_time_s": 11 / 3,
        "attempts": 1,
        "started_s": STARTED_S,
        "ended_s": STARTED_S + 4,
        "device": "none",
        "data_fingerprint": "0" * 64,
        "torch": torch.__version__,
    }


def span(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"


if __name__ == "__main__":
    main()
