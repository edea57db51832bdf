"""How far the seconds of `harness plan` are from what runs take, for every shipped study at size mini.

    python benchmarks/bench_estimate.py [STUDY ...]

Measures this machine as a first plan does, then trains the arms with the most work, cut to few epochs, and
divides what was predicted for these cut runs by what they took. Both are CPU seconds of one thread, so other
work on the machine disturbs less. Runs that need others are left out; their evaluations cost what those of
the trained ones do. Goal: within a factor of 1.5.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from harness.commands import step_times
from harness.commands.workspace import Workspace, first_plan, workspace
from harness.spec import Arm, RunSpec
from harness.study.plan import Plan, PlannedRun

STUDIES = Path(__file__).parents[1] / "studies"
TRAIN = """
import json, sys, time, torch
from pathlib import Path
from harness.spec import Machine
from harness.runs.folder import RunFolder
from harness.spec import RunSpec
from harness.training.run import run_one
from harness.training.setup import load_data
asked = json.load(sys.stdin)
torch.set_num_threads(1)
runs_dir, times = Path(asked["runs_dir"]), []
machine = Machine(runs_dir=runs_dir, data_dir=Path(asked["data_dir"]))
for data in asked["specs"]:
    spec = RunSpec.from_json(data)
    load_data(spec.arm.recipe, machine)
    start_s = time.process_time()
    assert run_one(spec, RunFolder(runs_dir / spec.run_id), machine, lambda: False) != "interrupted"
    times.append(time.process_time() - start_s)
print(json.dumps(times))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", default=sorted(path.stem for path in STUDIES.glob("*.yaml")))
    parser.add_argument("--arms", type=int, default=3, help="of each study")
    parser.add_argument("--seconds", type=float, default=4.0, help="to cut a run to, as predicted")
    args = parser.parse_args()
    print("study                measured  predicted s  took s  ratio  of each arm")
    for name in args.studies:
        print(_line(name, args), flush=True)


def _line(name: str, args: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory() as folder:
        place = workspace(Namespace(runs=Path(folder), data=None, tracking_uri=None))
        how = Namespace(study=STUDIES / f"{name}.yaml", size="mini", seeds=None, smoke=False)
        plan = first_plan(how, place)
        step_times.estimate(plan, place.data_dir, measure=True)
        questions = step_times._questions(plan, plan.runs)
        known = step_times._read(step_times.cache_file())
        asked = {each.key for each in questions.values()}
        cut = [_cut(plan, run, args.seconds) for run in _sample(plan, questions, args.arms)]
        times = step_times._times(questions, known)
        predicted = [_predicted(plan, run, arm, times) for run, arm in cut]
        took = _train([RunSpec(arm=arm, seed=run.seed) for run, arm in cut], place)
    ratios = " ".join(f"{guess / real:.2f}" for guess, real in zip(predicted, took, strict=True))
    share = f"{sum(known.get(key) is not None for key in asked)}/{len(asked)}"
    total = f"{sum(predicted):11.1f} {sum(took):7.1f} {sum(predicted) / sum(took):6.2f}"
    return f"{name:20} {share:>8}  {total}  {ratios}"


def _sample(plan: Plan, questions: dict[str, step_times.Question], count: int) -> list[PlannedRun]:
    """One run of those arms that train alone and take most, spread over the list."""
    first = {run.arm_id: run for run in reversed(plan.runs)}
    alone = [run for arm_id, run in first.items() if arm_id in questions and not run.needs and run.time_s]
    ranked = sorted(alone, key=lambda run: -(run.time_s or 0.0))
    places = {index * (len(ranked) - 1) // max(1, count - 1) for index in range(count)}
    return [ranked[place] for place in sorted(places)]


def _cut(plan: Plan, run: PlannedRun, at_most_s: float) -> tuple[PlannedRun, Arm]:
    arm = plan.arms[run.arm_id]
    epochs = max(1.0, round(arm.recipe.epochs * min(1.0, at_most_s / (run.time_s or 1.0))))
    recipe = replace(arm.recipe, epochs=epochs, warmup_epochs=0.0, milestones=(), schedule="constant")
    return run, replace(arm, recipe=recipe)


def _predicted(plan: Plan, run: PlannedRun, arm: Arm, times: dict[str, step_times.Times]) -> float:
    alone = replace(plan, arms={**plan.arms, run.arm_id: arm})
    return step_times._time_s(alone, run, times) or 0.0


def _train(specs: list[RunSpec], place: Workspace) -> list[float]:
    asked = {
        "runs_dir": str(place.runs_dir),
        "data_dir": str(place.data_dir),
        "specs": [spec.to_json() for spec in specs],
    }
    command = [sys.executable, "-c", TRAIN]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


if __name__ == "__main__":
    main()
