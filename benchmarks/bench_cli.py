"""How quickly the command line answers: whole processes, CPU seconds (user and system), median of several.

Figures: --help, tricks, and plan and status of the Bag of Tricks study, without runs, with its 153 finished
and with 1,071 finished ones. CPU seconds, because wall seconds measure what else the machine does.

`--beside DIR` times the checkout in DIR too, in turn: the ratio holds on any machine. `--then S S S S` says
what that checkout took elsewhere, for help, tricks, plan and status; the estimate is that times the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STUDY = "studies/bag_of_tricks.yaml"
ASKED = (("--help",), ("tricks",), ("plan", STUDY), ("status", STUDY))
GOAL_S = {"--help": 0.1, "tricks": 0.2, "plan": 0.3, "status": 0.3}  # on a core of 2 GHz


def harness(tree: Path, arguments: tuple[str, ...], runs: Path) -> subprocess.CompletedProcess[str]:
    """One command of a checkout, as a user has it: Python may keep what it compiled, the harness how quick
    this machine is."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, "-P", "-m", "harness.cli", *arguments],
        cwd=tree,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={
            **kept,
            "PYTHONPATH": str(tree),
            "HARNESS_RUNS": str(runs),
            "HARNESS_CACHE": str(runs.parent / "cache"),
        },
        check=True,
    )


def cpu_s(tree: Path, arguments: tuple[str, ...], runs: Path) -> float:
    """User and system seconds of one command, its interpreter included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    harness(tree, arguments, runs)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# What a run leaves behind that a plan or a state reads, beside its names.
SUMMARY = {
    "status": "finished", "attempts": 1, "model": "resnet50", "precision": "fp32", "device": "a CPU",
    "started_s": 1.7e9, "ended_s": 1.7e9 + 50, "train_time_s": 45.0, "eval_time_s": 2.0, "wall_time_s": 50.0,
    "images_per_s": 1700.0, "epochs": 8.0, "macs": 4_000_000, "params": 90_000, "steps": 2496, "threads": 1,
    "images_seen": 79_872, "batch_size": 32, "classes": 10, "test_images": 10_000, "data": "fashion_mnist",
    "data_fingerprint": "0" * 64, "metrics": {"top1": 90.0, "top5": 99.5, "loss": 0.3, "train_loss": 0.2},
}  # fmt: skip


def finished(tree: Path, runs: Path, seeds: int) -> Path:
    """The folder, in which now every run of the tree's study has ended.

    Raises:
        SystemExit: the checkout calls one of the records damaged: then this would not time finished runs.
    """
    asked = ("plan", STUDY, "--seeds", str(seeds))
    plan = json.loads(harness(tree, (*asked, "--json"), runs).stdout)
    for run in plan["runs"]:
        folder = runs / run["run_id"]
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text("{}")  # looked at where it is newer than the summary
        (folder / "env.json").write_text('{"device": "cpu"}')
        names = {name: run[name] for name in ("run_id", "arm_id", "seed")}
        (folder / "summary.json").write_text(json.dumps(names | SUMMARY))
    says = harness(tree, asked, runs)
    if "damaged" in says.stderr or f"{len(plan['runs'])} done" not in " ".join(says.stdout.split()):
        raise SystemExit(
            f"{tree}: the records made here are not taken for finished runs: {says.stderr[:300]}"
        )
    return runs


def cases(trees: list[Path], place: Path) -> Iterator[tuple[str, tuple[str, ...], list[Path]]]:
    """What is asked: a label, the arguments, and a folder of runs for each checkout."""
    empty = [place / "empty"] * len(trees)
    yield from ((arguments[0], arguments, empty) for arguments in ASKED)
    for seeds in (3, 21):
        folders = [finished(tree, place / f"{number}-{seeds}", seeds) for number, tree in enumerate(trees)]
        for verb in ("plan", "status"):
            label = f"{verb}, {len(os.listdir(folders[0]))} finished runs"
            yield label, (verb, STUDY, "--seeds", str(seeds)), folders


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beside", type=Path, metavar="DIR", help="another checkout, timed in turn")
    parser.add_argument("--then", type=float, nargs=4, metavar="S", help="what that one took elsewhere")
    parser.add_argument("--repeats", type=int, default=9, help="processes each (default: 9)")
    return parser.parse_args()


def main() -> None:
    told = arguments()
    trees = [ROOT] if told.beside is None else [ROOT, told.beside.resolve()]
    elsewhere = dict(zip(ASKED, told.then or (), strict=False))
    print(
        f"Python {platform.python_version()} on {platform.machine()}, CPU seconds, median of {told.repeats}"
    )
    with tempfile.TemporaryDirectory() as place:
        for label, asked, runs in cases(trees, Path(place)):
            # The first of each compiles, and measures the machine's speed.
            rounds = [
                [cpu_s(tree, asked, folder) for tree, folder in zip(trees, runs, strict=True)]
                for _ in range(told.repeats + 1)
            ][1:]
            medians = [statistics.median(each) for each in zip(*rounds, strict=True)]
            line = f"harness {label:<28} {medians[0]:.3f} s (goal {GOAL_S[asked[0]]})"
            if len(trees) == 2:
                line += f"   beside {medians[1]:.3f} s   ratio {medians[0] / medians[1]:.2f}"
            then_s = elsewhere.get((asked[0], *asked[1:2]))
            if then_s:
                line += f"   there {then_s} s -> {then_s * medians[0] / medians[1]:.3f} s"
            print(line, flush=True)


if __name__ == "__main__":
    main()
