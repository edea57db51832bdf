"""Batches per second of the feed alone: order, crops, flips, colours and normalisation, without a network.

From memory, at three sizes of images; and from JPEG files, written here, as a folder of a user is read.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from gpu_parts.rounds import Contender, Length, race
from gpu_parts.rows import Add, guarded, measured
from gpu_parts.settings import Settings
from harness.spec import Arm, AugmentSpec, DataSpec, Machine, ModelSpec, Recipe, RunSpec
from harness.training.environment import configured
from harness.training.graphs import CHECKED, WARM_UP
from harness.training.setup import build

AUGMENT = AugmentSpec(jitter=0.4, pca_noise=0.1)  # crops, flips and colours, as He et al. 2019 have them
CLASSES = 4
WIDTH, HEIGHT = 500, 375  # pixels of a usual photograph of ImageNet


def measure(settings: Settings, add: Add) -> None:
    batch = settings.pick(256, 4)
    contenders = []
    for pixels in settings.pick((32, 64, 224), (32,)):
        data = DataSpec(
            name="generated", resolution=pixels, args={"size": pixels, "train": 4 * batch, "test": 8}
        )
        contenders += _contender(settings, add, data, f"feed from memory, {pixels} px, batch {batch}", batch)
    files = settings.pick(1024, 16)
    data = DataSpec(
        name="imagefolder", resolution=settings.pick(224, 32), train_images=files, args={"folder": "photos"}
    )
    guarded(
        add,
        "feed from JPEG files",
        partial(write_photos, _machine(settings, data).data_dir / "photos", files),
    )
    contenders += _contender(settings, add, data, f"feed from JPEG files, batch {batch}", batch)
    length = Length(
        batch=batch, warm_up_steps=settings.pick(WARM_UP + CHECKED + 1, 1), steps=settings.pick(4, 1)
    )
    for each in race(contenders, length, settings, add):
        add(measured(each.what, each.images_per_s, "images/s", each.note))


def _machine(settings: Settings, data: DataSpec) -> Machine:
    return settings.machine(f"feed/{data.name}/{data.resolution}", exact=False)


def _contender(settings: Settings, add: Add, data: DataSpec, what: str, batch: int) -> list[Contender]:
    recipe = Recipe(
        model=ModelSpec(name="cifar_resnet20", args={"depth": (1, 1, 1), "width": 0.25}),
        data=data,
        augment=AUGMENT,
        epochs=10,
        batch_size=batch,
        lr=0.1,
        schedule="constant",
    )
    machine = _machine(settings, data)
    setup = guarded(add, what, partial(build, RunSpec(arm=Arm(recipe=recipe), seed=0), machine))
    if setup is None:
        return []
    at = 0

    def run(steps: int) -> None:
        nonlocal at
        for _ in range(steps):
            setup.feed.batch(at % setup.feed.context.steps_per_epoch)
            at += 1

    note = "crop, flip, brightness, saturation, hue, PCA noise"
    return [Contender(what=what, run=run, flags=partial(configured, machine), note=note)]


def write_photos(folder: Path, count: int) -> None:
    """JPEG files of smooth noise, quality 90: folder/{train,val}/<class>/*.jpg."""
    random = np.random.default_rng(0)
    for part, images in (("train", count), ("val", CLASSES)):
        for index in range(images):
            small = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            place = folder / part / str(index % CLASSES)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(small).resize((WIDTH, HEIGHT)).save(place / f"{index:05}.jpg", quality=90)
