"""One run at size mini beside the plain loop that a user would write, and where the time of a step goes.

    python benchmarks/bench_engine.py [--images 2000] [--epochs 2] [--rounds 3] [--out FILE]
    python benchmarks/bench_engine.py --study [--images 2000] [--epochs 2] [--rounds 1]
    python benchmarks/bench_engine.py --profile inception_v3 [--rounds 40]

The run is the baseline of Bag of Tricks, with the colours of He et al. 2019, trained whole, from building to
the record. The plain loop has the same network, recipe, precision and images: torchvision's transforms on
Pillow's images, a DataLoader in the same process, NCHW, torch.optim.SGD, all test images after each epoch.
One thread, CPU time, in turn; then what a process of its own for each run costs: 2 minutes.

`--study`: 12 recipes x 3 seeds by `harness run` with two workers, beside `xargs -P 2` over the command lines
of `plain_run.py`: wall time of all, starts included, on two quiet cores.

`--profile`: what each operator of a step takes by itself, by torch's profiler, its own 1 us a call included.
That is wall time: of every call the least of as many steps as rounds counts, so that it can be had beside
other work.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import figures
import numpy as np
import torch
from PIL import Image

import harness
from harness.data import load
from harness.data.entry import Split
from harness.data.loading import ArrayImages
from harness.data.torchvision_import import torchvision
from harness.runs.folder import RunFolder
from harness.spec import AugmentSpec, Machine, Recipe, RunSpec
from harness.training import setup as setups
from harness.training.checkpoint import TrainingProgress
from harness.training.feed import Feed
from harness.training.loop import Step, train
from harness.training.run import run_one
from harness.training.setup import Setup

REPOSITORY = Path(__file__).parents[1]
LEAST, MOST_OVERHEAD = 3.0, 0.03


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--images", type=int, default=2000, help="training images, and as many test images")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--profile", metavar="MODEL", help="of Bag of Tricks: resnet50, inception_v3, ...")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--study", action="store_true", help="12 recipes x 3 seeds beside a shell loop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.study:
        compare_studies(options)
        return
    if options.profile:
        profile_a_step(options)
        return
    spec, table = run_of(options.images, options.epochs), figures.Figures()
    with tempfile.TemporaryDirectory() as name:
        machine = Machine(runs_dir=Path(name), data_dir=Path(name))
        built = setups.build(spec, machine)
        work: dict[str, Callable[[], object]] = {"ours": lambda: ours(spec), "plain": lambda: plain(built)}
        times: dict[str, list[float]] = {who: [] for who in work}
        for number in range(options.rounds + 1):
            for who in work:
                took_s = cpu_time_s(work[who])
                if number:
                    times[who].append(took_s)
        for who, found in times.items():
            table.add(f"{who}: a run of {options.epochs} epochs of {options.images:,} images", found, "s")
        ratios = [b / a for a, b in zip(times["ours"], times["plain"], strict=True)]
        table.ratio("the plain loop / ours, CPU time of a run", ratios, must=LEAST, goal=4.0)
        table.add("start of a plain process: torch and torchvision", [child_cpu_time_s()], "s")
        shares = [shares_of_a_step(setups.build(spec, machine)) for _ in range(options.rounds)]
        for part in shares[0]:
            goal = MOST_OVERHEAD if part == "the loop itself" else None
            table.add(f"share of training: {part}", [each[part] for each in shares], "", goal=goal)
    table.save(options.out)


SEEDS, SHARE_OF_WARMUP = 3, 10 / 120
ROWS = (  # a row of the study, and the flags of the plain script that do the same
    ("{label: baseline}", ""),
    ("{label: label smoothing, add: {label_smoothing: {eps: 0.1}}}", "--label-smoothing 0.1"),
    ("{label: cosine, add: cosine}", "--cosine"),
    ("{label: warmup, add: {warmup: {epochs: 10}}}", f"--warmup {SHARE_OF_WARMUP:.4f}"),
    ("{label: no bias decay, add: no_bias_decay}", "--no-bias-decay"),
    ("{label: zero gamma, add: zero_gamma}", "--zero-gamma"),
    ("{label: mixup, add: {mixup: {alpha: 0.2}}}", "--mixup 0.2"),
    ("{label: half of the rate, set: {lr: 0.05}}", "--lr 0.05"),
    ("{label: no weight decay, set: {weight_decay: 0}}", "--weight-decay 0"),
    ("{label: no flips, set: {flip: 0}}", "--flip 0"),
    ("{label: smaller crops, set: {crop_area: [0.5, 1]}}", "--crop-area 0.5"),
    ("{label: larger batch, set: {batch_size: 512}}", "--batch-size 64"),
)
STUDY = """
study: twelve
question: What does a study cost beside a shell loop?
metric: top1
smallest_effect: 1
seeds: SEEDS
baseline: {model: resnet50, recipe: bag_of_tricks_baseline}
sizes:
  mini:
    data: fashion_mnist
    resolution: 32
    epochs: EPOCHS
    train_images: IMAGES
    test_images: IMAGES
    batch_scale: 1/8
    set: {lr: 0.1, crop_area: [0.9, 1], jitter: 0, pca_noise: 0, eval_crop: 1}
    models: {resnet50: {width: 0.25, depth: [1, 1, 1]}}
tables:
  changes:
    title: One change each
    design: rows
    rows:
ROWS
"""


def compare_studies(options: argparse.Namespace) -> None:
    """Both from nothing, in turn."""
    table, ratios = figures.Figures(), []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            ours_s = wall_time_s(study_command(Path(name), options), Path(name))
            plain_s = wall_time_s(loop_command(Path(name), options), Path(name))
        ratios.append(plain_s / ours_s)
        table.add(f"harness run: {len(ROWS)} recipes x {SEEDS} seeds, wall time", [ours_s], "s")
        table.add("the shell loop, two at a time, wall time", [plain_s], "s")
    table.ratio("the shell loop / harness run, wall time", ratios, must=3.0, goal=5.0)
    table.save(options.out)


def study_command(folder: Path, options: argparse.Namespace) -> list[str]:
    rows = "\n".join(f"      - {row}" for row, _ in ROWS)
    given = {"SEEDS": SEEDS, "EPOCHS": options.epochs, "IMAGES": options.images, "ROWS": rows}
    text = STUDY
    for word, value in given.items():
        text = text.replace(word, str(value))
    (folder / "twelve.yaml").write_text(text)
    return [sys.executable, "-m", "harness", "run", "twelve.yaml", "--workers", "2", "--no-report", "-q"]


def loop_command(folder: Path, options: argparse.Namespace) -> list[str]:
    """Its images are those of the study."""
    data = load("fashion_mnist", {}, train_images=options.images, test_images=options.images, data_dir=folder)
    arrays = {
        f"{part}_{what}": found
        for part, split in (("train", data.train), ("test", data.test))
        for what, found in (("images", split.images.array[..., 0]), ("labels", split.labels.numpy()))
    }
    np.savez(folder / "images.npz", **arrays)
    script = (
        f"{sys.executable} {REPOSITORY / 'benchmarks' / 'plain_run.py'} images.npz --epochs {options.epochs}"
    )
    lines = [f"{script} --seed {seed} {flags}" for _, flags in ROWS for seed in range(SEEDS)]
    (folder / "commands.txt").write_text("\n".join(lines) + "\n")
    return ["sh", "-c", "xargs -P 2 -I LINE sh -c LINE < commands.txt > results.txt"]


def wall_time_s(command: list[str], folder: Path) -> float:
    """Of a command that ends well, with one thread a process."""
    told = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    started_s = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, env=told, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started_s


def run_of(images: int, epochs: int, model: str = "resnet50") -> RunSpec:
    """The baseline of Bag of Tricks at size mini, shorter, with the paper's colours."""
    plan = harness.load(REPOSITORY / "studies" / "bag_of_tricks.yaml").plan()
    specs = [found for run in plan.runs if not (found := plan.spec(run)).arm.tricks and not run.needs]
    spec = next(each for each in specs if each.arm.recipe.model.name == model)
    recipe = spec.arm.recipe
    data = dataclasses.replace(recipe.data, train_images=images, test_images=images)
    jitter = dataclasses.replace(recipe.augment, jitter=AugmentSpec().jitter)
    shorter = dataclasses.replace(recipe, data=data, epochs=epochs, augment=jitter, milestones=(epochs / 2,))
    return dataclasses.replace(spec, arm=dataclasses.replace(spec.arm, recipe=shorter))


def ours(spec: RunSpec) -> None:
    """In a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        machine = Machine(runs_dir=Path(name), data_dir=Path(name))
        run_one(spec, RunFolder(Path(name) / spec.run_id), machine, lambda: False)


def plain(built: Setup) -> None:
    """What a user would write, with the recipe's numbers."""
    recipe, data = built.recipe, built.data
    net = setups.build_network(built.spec, (), classes=data.classes).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(
        net.parameters(), recipe.lr, weight_decay=recipe.weight_decay, **recipe.optimizer_args
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(each) for each in recipe.milestones])
    training, test = transforms(recipe, data.mean, data.std)
    batches = torch.utils.data.DataLoader(
        Photos(data.train, training), recipe.batch_size, shuffle=True, drop_last=True
    )
    test_batches = torch.utils.data.DataLoader(Photos(data.test, test), 250)
    for _ in range(int(recipe.epochs)):
        net.train()
        for images, labels in batches:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
        schedule.step()
        net.eval()
        with torch.no_grad():
            sum(int((net(images).argmax(1) == labels).sum()) for images, labels in test_batches)


class Photos(torch.utils.data.Dataset[Any]):
    """The same pixels as Pillow's images, in RGB."""

    def __init__(self, split: Split, transform: Any) -> None:
        assert isinstance(split.images, ArrayImages)
        self.pictures = [Image.fromarray(each[..., 0]).convert("RGB") for each in split.images.array]
        self.labels, self.transform = split.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.pictures[index]), self.labels[index]


def transforms(recipe: Recipe, mean: Any, std: Any) -> tuple[Any, Any]:
    """Of training and test images; PCA noise is left out."""
    steps, spec, side = torchvision.transforms, recipe.augment, recipe.data.resolution
    last = (steps.ToTensor(), steps.Normalize(mean, std))
    training = steps.Compose(
        [
            steps.RandomResizedCrop(side, spec.crop_area, spec.crop_ratio),
            steps.RandomHorizontalFlip(spec.flip),
            steps.ColorJitter(spec.jitter, 0, spec.jitter, spec.jitter / 2),
            *last,
        ]
    )
    return training, steps.Compose([steps.Resize((side, side)), *last])


def shares_of_a_step(built: Setup) -> dict[str, float]:
    """Of the CPU time of training without evaluation: batches, passes and updates, and what is left."""
    spent = {"batches": 0.0, "passes and updates": 0.0}
    with (
        timed(Feed, "_images", spent, "batches"),
        timed(Feed, "_edited", spent, "batches"),
        timed(Step, "work", spent, "passes and updates"),
    ):
        progress = TrainingProgress.start(built.device)
        started_s = time.process_time()
        train(built, progress, lambda: False, lambda ended: None, lambda: False)
        whole_s = time.process_time() - started_s
    shares = {part: took_s / whole_s for part, took_s in spent.items()}
    return {**shares, "the loop itself": 1 - sum(shares.values())}


@contextlib.contextmanager
def timed(owner: type, name: str, spent: dict[str, float], part: str) -> Iterator[None]:
    """Adds the CPU time of a method to a part while this lasts."""
    whole = getattr(owner, name)

    def measured(*args: Any) -> Any:
        started_s = time.process_time()
        try:
            return whole(*args)
        finally:
            spent[part] += time.process_time() - started_s

    setattr(owner, name, measured)
    try:
        yield
    finally:
        setattr(owner, name, whole)


WARM_UP, SHOWN = 5, 20  # steps; operators of a table


def profile_a_step(options: argparse.Namespace) -> None:
    spec, table = run_of(options.images, options.epochs, options.profile), figures.Figures()
    with tempfile.TemporaryDirectory() as name:
        machine = Machine(runs_dir=Path(name), data_dir=Path(name))
        add_operators(table, setups.build(spec, machine), options.rounds)
    table.save(options.out)


def add_operators(table: figures.Figures, built: Setup, steps: int) -> None:
    """Rows: the operators that take longest by themselves, all occurrences in a step together; and all."""
    built.train_mode()
    step, batch = Step(built, TrainingProgress.start(built.device)), built.feed.batch(0)
    for _ in range(WARM_UP):
        step.make(batch)
    names: list[str] = []
    least_ms: list[float] = []
    for _ in range(steps):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            step.make(batch)
        calls = sorted(profile.events(), key=lambda call: call.time_range.start)
        names = names or [call.name for call in calls]
        if names != [call.name for call in calls]:
            continue
        taken_ms = [call.self_cpu_time_total / 1000 for call in calls]
        least_ms = list(map(min, least_ms or taken_ms, taken_ms))
    spent = dict.fromkeys(names, 0.0)
    for name, took_ms in zip(names, least_ms, strict=True):
        spent[name] += took_ms
    for name, took_ms in sorted(spent.items(), key=lambda found: -found[1])[:SHOWN]:
        table.add(f"{names.count(name)} x {name}", [took_ms], "ms")
    table.add(f"all {len(names)} calls of a step", [sum(least_ms)], "ms")


def cpu_time_s(work: Callable[[], object]) -> float:
    started_s = time.process_time()
    work()
    return time.process_time() - started_s


def child_cpu_time_s() -> float:
    """Of a process that only imports."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "from harness.data.torchvision_import import torchvision"  # torchvision beside any torch
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
