"""Photos on disk to batches for a network: images per CPU-second, beside torchvision's loader.

    python benchmarks/bench_loader.py [--images 96] [--rounds 7] [--out FILE]
    python benchmarks/bench_loader.py --tree 1281        how long a process looks at 1,000 x 1,281 known files
    python benchmarks/bench_loader.py --tree 100 --study how long its second run takes to its first step
    python benchmarks/bench_loader.py --workers          two threads that load beside one, on two quiet cores
    python benchmarks/bench_loader.py --loop             steps with batches made ahead, on two quiet cores

Made-up photos (500 x 375, JPEG of quality 90, 100 kB each) go through random crop, flip and normalisation to
224 pixels, with and without the colours of He et al. 2019. The peer is torchvision's ImageFolder with its
DataLoader in the same process, which spares it the way between processes. One thread; each round measures
everyone in turn; a row is the ratio of the two in the same round: 1 minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import figures
import numpy as np
import torch
from PIL import Image
from torch import Tensor

import harness
from harness.data import DATASETS, contents, load, loading, pixels
from harness.data.augment import View, training_batch
from harness.data.entry import Files
from harness.data.imagefolder import load_folder
from harness.data.loading import load_cached
from harness.data.packed import Pack, PackSettings
from harness.data.torchvision_import import torchvision
from harness.models import build_model
from harness.runs.folder import RunFolder
from harness.spec import AugmentSpec, Machine
from harness.training.feed import AHEAD, in_turn
from harness.training.run import run_one

SIDE, BATCH = 224, 32
STEPS = 80  # of a loop: the first batch is waited for, whatever is made ahead
PAPER = AugmentSpec()
PLAIN = dataclasses.replace(PAPER, jitter=0.0, pca_noise=0.0)


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tree", type=int, metavar="N", help="files of each of 1,000 classes, all links")
    parser.add_argument("--study", action="store_true", help="of --tree: its second run, on JPEG files")
    parser.add_argument("--workers", action="store_true", help="two threads that load beside one")
    parser.add_argument("--start", nargs=2, metavar=("DIR", "SEED"), help=argparse.SUPPRESS)
    torch.set_num_threads(1)
    parser.add_argument("--loop", action="store_true", help="batches ahead of the steps of a network")
    options = parser.parse_args()
    if options.start:
        return start_runs(Path(options.start[0]), int(options.start[1]))
    # Every row reads files or a packed set, but the one that says so.
    os.environ["HARNESS_SHARED_MEMORY"] = "0"
    table = figures.Figures()
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name)
        os.environ["HARNESS_CACHE"] = str(data_dir / "cache")
        if options.tree:
            (start_study if options.study else look_at_tree)(data_dir, options.tree, table)
            return table.save(options.out)
        make_photos(data_dir / "photos", options.images)
        if options.loop or options.workers:
            (run_loops if options.loop else run_workers)(data_dir, options.rounds, table)
            return table.save(options.out)
        pack_photos(data_dir)
        times = measure(contestants(data_dir), options.rounds)
    compare(times, options.images, table)
    return table.save(options.out)


def compare(times: dict[str, list[float]], images: int, table: figures.Figures) -> None:
    """The rows of the table; each ratio is that of the same round."""
    for who, seconds in times.items():
        table.add(f"{who}, CPU time of an image", [1000 * each / images for each in seconds], "ms")
    for ours, theirs, must, goal in (
        ("files, crop + flip", "torchvision, crop + flip", 1.5, 2.0),
        ("files, crop + flip + colour", "torchvision, crop + flip + ColorJitter", 1.3, 2.0),
        ("packed JPEG, crop + flip", "torchvision, crop + flip", 3.0, 5.0),
        ("packed raw, crop + flip", "torchvision, crop + flip", 8.0, 20.0),
    ):
        ratios = [b / a for a, b in zip(times[ours], times[theirs], strict=True)]
        table.ratio(f"{ours}: images a CPU-second, times those of {theirs}", ratios, must=must, goal=goal)
    plain, paper = (statistics.median(times[f"files, crop + flip{more}"]) for more in ("", " + colour"))
    table.add("colour / all the rest", [paper / plain - 1], "x", goal=0.25)


def look_at_tree(data_dir: Path, files: int, table: figures.Figures) -> None:
    """CPU time of what a new process does before its first run: list, compare with what is known, hash that.

    The files are links to a few; they are not read: each counts as hashed by its name.
    """
    for part, count in (("train", files), ("val", 50)):
        for number in range(1000):
            folder = data_dir / "tree" / part / f"n{number:08}"
            folder.mkdir(parents=True)
            if number % 20 == 0:  # a file has at most some 65,000 names
                (first := data_dir / f"{part}{number}.jpg").write_bytes(b"a photo")
            for image in range(count):
                os.link(first, folder / f"n{number:08}_{image}.JPEG")
    time.sleep(2.1)  # a folder that was just written is listed again
    contents._hash = lambda path: (
        contents._stat(os.stat(path)),
        time.time_ns(),
        sha256(bytes(path)).digest(),
    )
    seconds = []
    for _ in range(4):
        entry = dataclasses.replace(DATASETS["imagefolder"])  # another entry is loaded anew
        start = time.process_time()
        load_cached(entry, {**entry.args, "folder": "tree"}, (None, None), data_dir)
        seconds.append(time.process_time() - start)
    table.add(f"first look at {1000 * (files + 50):,} files, without reading them", seconds[:1], "s")
    table.add("every further one", seconds[1:], "s", goal=2.0)
    table.add("memory of the process", [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024], "MB")


SMALL, SMALL_SIDE = 200, 32  # files of their own, and links to them; pixels
STUDY = """
study: tree
question: How long does the second run of a study on many files take to its first step?
metric: top1
seeds: 3
baseline: {model: cifar_resnet20, recipe: bag_of_tricks_baseline}
sizes:
  mini:
    data: {imagefolder: {folder: tree}}
    resolution: 32
    epochs: 1
    batch_scale: 1
    set: {jitter: 0, pca_noise: 0}
    models: {cifar_resnet20: {width: 0.25, depth: [1, 1, 1]}}
tables:
  one: {title: One row, design: rows, rows: [{label: baseline}]}
"""


def start_study(data_dir: Path, files: int, table: figures.Figures) -> None:
    """`harness run` of one seed; then, in two new processes, the start of the second run: as the next of a
    worker that has made another, and of a process that has made none."""
    rng = np.random.default_rng(0)
    for number in range(SMALL):
        picture = rng.integers(0, 256, (SMALL_SIDE, SMALL_SIDE, 3), dtype=np.uint8)
        Image.fromarray(picture).save(data_dir / f"{number}.jpg")
    for part, count in (("train", files), ("val", 2)):
        for number in range(1000):
            folder = data_dir / "tree" / part / f"n{number:08}"
            folder.mkdir(parents=True)
            for image in range(count):
                first = data_dir / f"{(number + image) % SMALL}.jpg"
                os.link(first, folder / f"n{number:08}_{image}.JPEG")
    time.sleep(2.1)  # what was just written is read again
    (data_dir / "tree.yaml").write_text(STUDY)
    command = [sys.executable, "-m", "harness", "run", "tree.yaml", "--seeds", "1", "--no-report", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    start = time.perf_counter()
    subprocess.run([*command, "--data", "."], check=True, cwd=data_dir, env=environment)
    what = f"a study on {1000 * (files + 2):,} JPEG files"
    table.add(
        f"{what}: its first run, files looked at, decoded and trained on", [time.perf_counter() - start], "s"
    )
    for title, seeds in (("the next run of a worker", "1 2"), ("the first run of a process", "2")):
        told = [sys.executable, __file__, "--start", str(data_dir), seeds.replace(" ", "")]
        found = subprocess.run(told, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
        wall_s, cpu_s = map(float, found.splitlines()[-1].split())
        table.add(f"{what}: {title} to its first step, wall time", [wall_s], "s", goal=2.0)
        table.add(f"{what}: {title} to its first step, CPU time", [cpu_s], "s", goal=2.0)


def start_runs(data_dir: Path, seeds: int) -> None:
    """Stop each run of these seeds (digits) after its first step; print wall and CPU time of the last."""
    plan = harness.load(data_dir / "tree.yaml").plan()
    specs = {spec.seed: spec for spec in map(plan.spec, plan.runs)}
    machine = Machine(runs_dir=data_dir / "started", data_dir=data_dir)
    for seed in map(int, str(seeds)):
        until = FirstStep()
        run_one(specs[seed], RunFolder(machine.runs_dir / specs[seed].run_id), machine, until)
    print(*until.took_s)


class FirstStep:
    """Stops a run after its first step, and knows what it took."""

    def __init__(self) -> None:
        self.started_s, self.asked = (time.perf_counter(), time.process_time()), 0
        self.took_s = (0.0, 0.0)

    def __call__(self) -> bool:
        self.asked += 1
        if self.asked == 2:  # asked before each step
            wall_s, cpu_s = self.started_s
            self.took_s = (time.perf_counter() - wall_s, time.process_time() - cpu_s)
        return self.asked > 1


def run_workers(data_dir: Path, rounds: int, table: figures.Figures) -> None:
    """Wall time of batches of photos, each with one thread that decodes and one that makes them, or two."""
    times: dict[str, list[tuple[float, float]]] = {}
    every: dict[str, Callable[[], object]] = {}
    specs = {"crop + flip": PLAIN, "crop + flip + colour": PAPER}
    for who in [(what, workers) for what in specs for workers in (1, 2)]:
        # Images start their threads once: each number of them needs images of its own.
        loading._loaded.clear()
        every[f"{who[0]}, loader workers: {who[1]}"] = partial(
            load_all, batch_of(data_dir, specs[who[0]]), who[1]
        )
    for epoch, name in contest(list(every), rounds + 1):
        if epoch:
            times.setdefault(name, []).append(timed(every[name]))
        else:
            every[name]()
    for name, found in times.items():
        table.add(f"{name}, wall time of an image", [1000 * wall / STEPS / BATCH for wall, _ in found], "ms")
        table.add(f"{name}, CPU time of an image", [1000 * cpu / STEPS / BATCH for _, cpu in found], "ms")
    for what in specs:
        one, two = (times[f"{what}, loader workers: {workers}"] for workers in (1, 2))
        ratios = [a[0] / b[0] for a, b in zip(one, two, strict=True)]
        table.ratio(f"{what}: images a second, two loader workers / one", ratios, must=1.8, goal=1.95)


def load_all(made: Callable[[int], Tensor], workers: int) -> None:
    """Batches by so many threads that decode, and as many that do the rest."""
    pixels.count_threads = lambda *given, **named: workers
    deque(in_turn(made, range(STEPS), AHEAD, workers), 0)


def run_loops(data_dir: Path, rounds: int, table: figures.Figures) -> None:
    """Wall and CPU time of an epoch: its batches, its steps, and both with batches made ahead.

    One thread decodes, so that the batches take one core and the steps the other. The network trains on so
    many images of each batch that both take about the same time.
    """
    pixels.count_threads = lambda *given, **named: 1
    made = batch_of(data_dir, PLAIN)
    net = build_model("resnet18", {"width": 0.5}, classes=2).to(memory_format=torch.channels_last)
    whole = make_step(net, BATCH)
    feed_s, step_s = (
        min(timed(one)[1] for _ in range(3)) for one in (lambda: made(0), lambda: whole(made(0)))
    )
    step = make_step(net, min(BATCH, max(2, round(BATCH * feed_s / max(step_s - feed_s, 1e-9)))))
    kept = [made(number) for number in range(2)]
    every: dict[str, Callable[[], object]] = {
        "batches alone": lambda: deque(map(made, range(STEPS)), 0),
        "steps alone": lambda: [step(kept[number % 2]) for number in range(STEPS)],
        "one after the other": lambda: [step(each) for each in in_turn(made, range(STEPS), 0)],
        "batches ahead": lambda: [step(each) for each in in_turn(made, range(STEPS), AHEAD)],
    }
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in every}
    for epoch, who in contest(list(every), rounds + 1):
        if epoch:
            times[who].append(timed(every[who]))
        else:
            every[who]()
    for who, found in times.items():
        table.add(f"{who}, wall time of a step", [1000 * wall / STEPS for wall, _ in found], "ms")
    rounds_of = list(zip(*times.values(), strict=True))
    longer = [ahead[0] / max(batch[0], step[0]) for batch, step, _, ahead in rounds_of]
    table.add("batches ahead / the longer of the two, wall time", longer, "x", goal=1.05)
    work = [ahead[1] / turns[1] for _, _, turns, ahead in rounds_of]
    table.add("batches ahead / one after the other, CPU time", work, "x", goal=1.05)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def batch_of(data_dir: Path, spec: AugmentSpec) -> Callable[[int], Tensor]:
    """Batches of the photos by their numbers, again and again."""
    data = load("imagefolder", {"folder": "photos"}, train_images=None, test_images=None, data_dir=data_dir)
    view = View(size=SIDE, mean=data.mean, std=data.std, seed=0)
    order = torch.randperm(len(data.train.labels) // BATCH * BATCH).split(BATCH)

    def made(number: int) -> Tensor:
        images, _ = training_batch(data.train, order[number % len(order)], spec=spec, view=view)
        return images.contiguous(memory_format=torch.channels_last)

    return made


def make_step(net: torch.nn.Module, images: int) -> Callable[[Tensor], None]:
    """Forward, backward and update on the first images of a batch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step(batch: Tensor) -> None:
        loss = torch.nn.functional.cross_entropy(net(batch[:images]), torch.zeros(images, dtype=torch.int64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def make_photos(root: Path, images: int) -> None:
    """Noise whose amplitude falls with its frequency, as that of photos does, in two classes."""
    rng = np.random.default_rng(0)
    height, width = 375, 500
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    for number in range(images):
        waves = rng.standard_normal((3, 2, height, width // 2 + 1))
        layers = np.fft.irfft2((waves[:, 0] + 1j * waves[:, 1]) / frequency**1.15, (height, width))
        layers /= layers.std(axis=(1, 2), keepdims=True)
        pixels = 120 + 50 * (0.8 * layers[:1] + 0.4 * layers)
        for part in ("train", "val") if number < 2 else ("train",):
            path = root / part / f"class{number % 2}" / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0)
            Image.fromarray(picture).save(path, quality=90)


def pack_photos(data_dir: Path) -> None:
    source = load_folder(data_dir / "photos")
    for name, quality in (("jpeg", 95), ("raw", None)):
        Pack(source, data_dir / name, PackSettings(of="photos", side=256, jpeg=quality)).run()


def contestants(data_dir: Path) -> dict[str, Callable[[int], None]]:
    """Each reads every photo once; called with the number of the round."""
    found: dict[str, Callable[[int], None]] = {}
    for more, spec in (("", PLAIN), (" + colour", PAPER)):
        found[f"files, crop + flip{more}"] = ours(data_dir, "imagefolder", "photos", spec)
    for more, colour in (
        ("", ()),
        (" + ColorJitter", (torchvision.transforms.ColorJitter(0.4, 0, 0.4, 0.2),)),
    ):
        found[f"torchvision, crop + flip{more}"] = theirs(data_dir / "photos" / "train", colour)
    found["packed JPEG, crop + flip"] = ours(data_dir, "packed", "jpeg", PLAIN)
    found["packed raw, crop + flip"] = ours(data_dir, "packed", "raw", PLAIN)
    found["files decoded into shared memory, crop + flip"] = ours_shared(data_dir)
    return found


def ours_shared(data_dir: Path) -> Callable[[int], None]:
    """As the second epoch of a run, or the first one of the next."""
    loading._loaded.clear()
    source = load_folder(data_dir / "photos")
    assert isinstance(source.train, Files)
    contents.fingerprint(source.train)
    loading.open_all(source.train)  # as `harness run` does
    read = ours(data_dir, "imagefolder", "photos", PLAIN)
    del os.environ["HARNESS_SHARED_MEMORY"]
    read(0)
    os.environ["HARNESS_SHARED_MEMORY"] = "0"
    return read


def ours(data_dir: Path, name: str, folder: str, spec: AugmentSpec) -> Callable[[int], None]:
    data = load(name, {"folder": folder}, train_images=None, test_images=None, data_dir=data_dir)

    def read(epoch: int) -> None:
        view = View(size=SIDE, mean=data.mean, std=data.std, seed=0, epoch=epoch)
        for indices in torch.randperm(len(data.train.labels)).split(BATCH):
            images, _ = training_batch(data.train, indices, spec=spec, view=view)
            images.contiguous(memory_format=torch.channels_last)

    return read


def theirs(folder: Path, colour: tuple[Any, ...]) -> Callable[[int], None]:
    steps = torchvision.transforms
    chain = (
        steps.RandomResizedCrop(SIDE),
        steps.RandomHorizontalFlip(),
        *colour,
        steps.ToTensor(),
        steps.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    )
    images = torchvision.datasets.ImageFolder(str(folder), steps.Compose(chain))
    loader = torch.utils.data.DataLoader(images, batch_size=BATCH, shuffle=True)

    def read(_: int) -> None:
        for batch, _labels in loader:
            batch.contiguous(memory_format=torch.channels_last)

    return read


def measure(all_of_them: dict[str, Callable[[int], None]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each, per round; a first round is not counted."""
    times: dict[str, list[float]] = {who: [] for who in all_of_them}
    for epoch, who in contest(list(all_of_them), rounds + 1):
        start = time.process_time()
        all_of_them[who](epoch)
        if epoch:
            times[who].append(time.process_time() - start)
    return times


def contest(names: list[str], rounds: int) -> Iterator[tuple[int, str]]:
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            yield number, name


if __name__ == "__main__":
    main()
