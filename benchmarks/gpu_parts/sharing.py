"""K runs sharing one device: runs per minute of a recipe like the one of the size `mini`.

The network, batch and resolution are those of the Bag of Tricks baseline at `mini`, the training is cut to
200 steps and the images are generated with Fashion-MNIST's shape. The runs go through the scheduler that
`harness run` uses, in its default exact mode. The rate is that of warm workers: it is counted from the end of
the K-th run, when the processes have started and initialised the device, to the end of the last.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gpu_parts.rows import Add, Row, guarded
from gpu_parts.settings import Settings
from harness.runs.folder import RunFolder
from harness.scheduling.base import Job
from harness.scheduling.local import Local, LocalSettings, worth_beside
from harness.spec import FINISHED, Arm, DataSpec, ModelSpec, Recipe, RunSpec
from harness.training import run_one

RUNS_PER_WORKER = 4  # the first of them starts the worker up


def measure(settings: Settings, add: Add) -> None:
    rates: dict[int, float] = {}
    for workers in settings.pick((1, 2, 4, 8), (1, 2)):
        what = f"{workers} run{'s' * (workers > 1)} at a time"
        if settings.is_late:
            add(Row(what=what, skipped="no time left within the section's bound"))
            continue
        rate = guarded(add, what, partial(runs_per_minute, settings, workers))
        if rate is None:
            continue
        rates[workers] = rate
        beside = f"{rate / rates[1]:.2f} x one at a time; " if workers > 1 and 1 in rates else ""
        recipe = arm(settings).recipe
        steps = int(recipe.epochs * recipe.data.args["train"] / recipe.batch_size)
        add(Row(what=what, value=rate, unit="runs/min", note=f"{beside}{steps} steps of {recipe.batch_size}"))
    if len(rates) > 1 and 1 in rates:
        count, _ = worth_beside(lambda workers: rates.get(workers, 0.0), max(rates))
        share = f"{rates[count] / max(rates.values()):.2f} of the best rate (target .9)"
        add(Row(what="by the rule of --per-gpu auto", value=f"{count} at a time", note=share))


def arm(settings: Settings) -> Arm:
    images = settings.pick(3200, 64)
    args = {"classes": 10, "size": 28, "channels": 1, "train": images, "test": settings.pick(1000, 50)}
    width = settings.pick(0.25, 1 / 16)
    return Arm(
        recipe=Recipe(
            model=ModelSpec(name="resnet50", args={"depth": (1, 1, 1, 1), "width": width}),
            data=DataSpec(name="generated", resolution=32, args=args),
            epochs=settings.pick(2, 1),
            batch_size=32,
            lr=0.1,
            milestones=(1,),
        )
    )


def runs_per_minute(settings: Settings, workers: int) -> float:
    """Train `RUNS_PER_WORKER` runs per worker, each with a seed of its own.

    Raises:
        RuntimeError: a run did not finish.
    """
    machine = settings.machine(f"sharing/{workers}")
    local = LocalSettings(
        machine=machine, workers=workers, devices=(settings.device,), per_device=workers, retries=0
    )
    jobs = [Job(spec=RunSpec(arm=arm(settings), seed=seed)) for seed in range(RUNS_PER_WORKER * workers)]
    ended = Local(local).execute(jobs, run_one, lambda progress: None)
    if set(ended.values()) != {FINISHED}:
        raise RuntimeError(first_failure(machine.runs_dir / next(iter(not_finished(ended)))))
    times = [RunFolder(machine.runs_dir / run_id).read_summary()["ended_s"] for run_id in ended]
    return warm_rate(times, workers)


def warm_rate(ended_s: list[float], workers: int) -> float:
    """Runs per minute from the end of the first `workers` runs to the end of the last.

    >>> warm_rate([12.0, 10.0, 14.0, 18.0, 16.0, 22.0], workers=2)
    24.0
    """
    times = sorted(ended_s)
    return 60 * (len(times) - workers) / (times[-1] - times[workers - 1])


def not_finished(ended: dict[str, str]) -> list[str]:
    return [run_id for run_id, status in ended.items() if status != FINISHED]


def first_failure(path: Path) -> str:
    """What the events of a run say about its end."""
    messages = [event["message"] for event in RunFolder(path).read_events() if event["kind"] == "failed"]
    return f"run {path.name}: {messages[0] if messages else 'did not finish'}"
