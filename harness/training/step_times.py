"""How long a step of training and an evaluated image take here, measured: `python -m ...`.

Reads one JSON object from standard input: {"budget_s" (CPU time), "limit_s" (wall time), "data_dir",
"questions": [{"key", "spec"}]}, specs as `RunSpec.to_json`. Prints one JSON line per question that was
measured in time: {"key", "step_s", "eval_s", "start_s", "views"}, or {"key", "error"}. The same code trains
and evaluates as in a run.

eval_s: per view of a test image. start_s: building, and what the first step takes longer. views: crops -> how
many different views of a test image they are; small images have fewer.

Times are CPU seconds of one thread: what else the machine does now is not in them.

By the clock instead: {"rate": {"spec", "device", "exact", "compile", "time_s"}, "data_dir"}. Trains until
steps are those of a long run, prints "ready", waits for a second line, trains for time_s, and prints how
many images a second these were, while others do the same on the device.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch.optim loads it when first used: not while a step is measured
from torch import Tensor

from harness.data.augment import CROPS, views
from harness.spec import Machine, RunSpec, Stop
from harness.training.checkpoint import TrainingProgress
from harness.training.environment import configured
from harness.training.evaluate import EVAL_BATCH, Answers
from harness.training.graphs import CHECKED, WARM_UP
from harness.training.loop import Step, train
from harness.training.setup import Setup, build, load_data

STEPS = 3  # measured, after the first one
ENOUGH_S = 0.1  # so long measured is enough
LIKE_ALL = WARM_UP + CHECKED + 2  # after so many steps, those that follow are like all others


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    if "rate" in asked:
        _rate(asked["rate"], Path(asked["data_dir"]))
        return
    with tempfile.TemporaryDirectory() as runs_dir:
        machine = Machine(runs_dir=Path(runs_dir), data_dir=Path(asked["data_dir"]))
        wall_s, cpu_s = time.monotonic(), time.process_time()
        with configured(machine):
            for question in asked["questions"]:
                answer = _answer(question, machine)
                print(json.dumps({"key": question["key"], **answer}), flush=True)
                spent_s = time.process_time() - cpu_s
                if spent_s > asked["budget_s"] or time.monotonic() - wall_s > asked["limit_s"]:
                    return


def _rate(asked: dict[str, Any], data_dir: Path) -> None:
    """See `harness.scheduling.local.images_per_s`."""
    spec = RunSpec.from_json(asked["spec"])
    names = {name: asked[name] for name in ("device", "exact", "compile")}
    with tempfile.TemporaryDirectory() as runs_dir:
        machine = Machine(runs_dir=Path(runs_dir), data_dir=data_dir, **names)
        with configured(machine):
            setup = build(spec, machine)
            # A training that does not end meanwhile.
            setup = replace(setup, schedule=replace(setup.schedule, total_steps=10**9))
            progress = TrainingProgress.start(setup.device)
            step = Step(setup, progress)

            def make(until: Stop) -> None:
                train(setup, progress, until, lambda _: None, lambda: False, step)
                if setup.device.type == "cuda":
                    torch.cuda.synchronize()

            make(lambda: progress.step >= LIKE_ALL)
            print("ready", flush=True)
            sys.stdin.readline()
            began_s, first = time.perf_counter(), progress.step
            make(lambda: time.perf_counter() - began_s > asked["time_s"])
            took_s = time.perf_counter() - began_s
    print((progress.step - first) * spec.arm.recipe.batch_size / took_s, flush=True)


def _answer(question: dict[str, Any], machine: Machine) -> dict[str, Any]:
    try:
        return measure(RunSpec.from_json(question["spec"]), machine)
    except Exception as error:  # whatever it is, the run itself will say it better
        return {"error": f"{type(error).__name__}: {error}"}


def measure(spec: RunSpec, machine: Machine) -> dict[str, Any]:
    """CPU seconds: `step_s` per step, `eval_s` per view of an image, `start_s` per run; and `views`."""
    load_data(spec.arm.recipe, machine)  # once per process, not once per run
    start_s = time.process_time()
    setup = build(spec, machine)
    build_s = time.process_time() - start_s
    first_s, step_s = _steps(setup)
    return {
        "step_s": step_s,
        "eval_s": _eval_s(setup),
        "start_s": build_s + max(0.0, first_s - step_s),
        "views": {str(crops): _count_views(setup, crops) for crops in CROPS},
    }


def _count_views(setup: Setup, crops: int) -> int:
    view, crop = setup.feed.view(0), setup.recipe.eval_crop
    return sum(1 for _ in views(setup.data.test, torch.arange(1), crops, eval_crop=crop, view=view))


def _steps(setup: Setup) -> tuple[float, float]:
    """The first step, which makes the kernels ready, and one after it."""
    stamps: list[float] = []

    def stop() -> bool:
        stamps.append(time.process_time())
        return len(stamps) > 2 and (len(stamps) > STEPS + 1 or stamps[-1] - stamps[1] > ENOUGH_S)

    train(setup, TrainingProgress.start(setup.device), stop, lambda _: None, lambda: False)
    stamps.append(time.process_time())
    times = [after - before for before, after in pairwise(stamps)][:-1]
    return times[0], min(times[1:] or times)


@torch.no_grad()
def _eval_s(setup: Setup) -> float:
    answers = setup.curve_answers()
    indices = torch.arange(min(EVAL_BATCH, len(setup.data.test.labels)))
    times = [_time_s(answers, indices)]
    if times[0] < ENOUGH_S:
        times.append(_time_s(answers, indices))
    return min(times) / len(indices)


def _time_s(answers: Answers, indices: Tensor) -> float:
    start_s = time.process_time()
    answers(indices)
    return time.process_time() - start_s


if __name__ == "__main__":
    main()
