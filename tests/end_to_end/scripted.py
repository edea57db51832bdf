"""A study whose accuracies are known beforehand: its training function looks them up and trains nothing."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.workplace import Workplace

STUDY = """\
study: tiny
question: Which rows need more seeds?
plugins: [scripted.py]
smallest_effect: 0.2
seeds: {start: 3, at_most: 8}
baseline: {model: resnet50, recipe: bag_of_tricks_baseline, set: {trainer: scripted}}
sizes:
  mini:
    data: fashion_mnist
    resolution: 32
    train_images: 256
    test_images: 256
    epochs: 1
    batch_scale: 1/8
    models:
      resnet50: {width: 0.125, depth: [1, 1, 1]}
  gpu: {data: cifar10, resolution: 64, epochs: 30, batch_scale: 1/2, models: {resnet50: {width: 0.5}}}
  paper: {data: imagenet, resolution: 224, epochs: 120}
tables:
  only:
    title: The only table
    design: rows
    rows:
      - {label: plain}
      - {label: huge, set: {lr: 0.2}, versus: plain}
      - {label: slight, set: {lr: 0.3}, versus: plain}
"""
PLUGIN = """\
EFFECTS = {0.2: 20.0, 0.3: 0.4}  # learning rate -> percentage points
SPREAD = (0.0, 0.9, -0.7, 0.4, -1.1, 0.6, -0.2, 0.8)  # of the runs at each seed


def train(spec, run):
    lr = spec.arm.recipe.lr
    if any((folder / f"break-{lr:g}-{spec.seed}").exists() for folder in run.folder.parents):
        raise RuntimeError("as the test asked")
    own = SPREAD[(spec.seed * 3 + round(10 * lr)) % len(SPREAD)]
    return {"top1": 60 + EFFECTS.get(round(lr, 3), 0.0) + own}


TRAINERS = {"scripted": train}
"""


def begin(folder: Path) -> Workplace:
    """A folder with the study: `huge` is settled at the first look, `slight` not before the last."""
    folder.mkdir()
    (folder / "scripted.py").write_text(PLUGIN)
    place = Workplace(folder)
    place.study.write_text(STUDY)
    return place


def break_run(place: Workplace, lr: float, seed: int) -> Path:
    """Let a run fail as long as the file that is returned exists."""
    path = place.path / f"break-{lr:g}-{seed}"
    path.touch()
    return path
