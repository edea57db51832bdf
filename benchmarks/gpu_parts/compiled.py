"""torch.compile off and on, in a whole training of the study's `gpu` size, augmentation included.

ResNet-50 of half width at 64 pixels, batch 128, bf16, on a generated set of CIFAR-10's shape. The time that
compiling takes is in the first step.
"""

from __future__ import annotations

import statistics
from functools import partial

from gpu_parts.contenders import compiled, ours
from gpu_parts.rounds import Contender, Length, race
from gpu_parts.rows import Add, Row, guarded, measured
from gpu_parts.settings import Settings
from harness.spec import Arm, DataSpec, ModelSpec, Recipe, RunSpec
from harness.training.setup import Setup, build


def measure(settings: Settings, add: Add) -> None:
    machine = settings.machine("compile", exact=False)
    spec = RunSpec(arm=Arm(recipe=recipe(settings)), seed=0)
    contenders = []
    for name in ("off", "on"):
        what = f"training at gpu size, compile {name}"
        setup: Setup | None = guarded(add, what, partial(build, spec, machine))
        if setup is not None:
            setup = compiled(setup, settings) if name == "on" else setup
            contenders.append(ours(setup, machine, what, "bf16, augmentation included"))
    batch = spec.arm.recipe.batch_size
    length = Length(batch=batch, warm_up_steps=settings.pick(20, 1), steps=settings.pick(40, 1))
    for each in race(contenders, length, settings, add):
        first = f"{each.note}; first step {each.first_step_s:.1f} s"
        add(measured(each.what, each.images_per_s, "images/s", first))
    _compare(contenders, add)


def recipe(settings: Settings) -> Recipe:
    model = {"depth": settings.pick((3, 4, 6, 3), (1, 1)), "width": settings.pick(0.5, 1 / 16)}
    data = {"size": 32, "train": settings.pick(50_000, 512), "test": settings.pick(1000, 50)}
    return Recipe(
        model=ModelSpec(name="resnet50", args=model),
        data=DataSpec(name="generated", resolution=settings.pick(64, 32), args=data),
        epochs=30,
        batch_size=settings.pick(128, 8),
        lr=0.05,
        schedule="constant",
        precision="bf16",
    )


def _compare(contenders: list[Contender], add: Add) -> None:
    """After how many images compiling has paid for itself."""
    if len(contenders) < 2 or not all(each.images_per_s for each in contenders):
        return
    off, on = (statistics.median(each.images_per_s) for each in contenders)
    extra_s = contenders[1].first_step_s - contenders[0].first_step_s
    gain = on / off
    if gain <= 1:
        paid = "never pays"
    else:
        paid = f"pays for its {extra_s:.0f} s after {extra_s / (1 / off - 1 / on):,.0f} images"
    add(Row(what="compile on / off", value=gain, unit="x", note=paid))
