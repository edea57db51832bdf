"""A training step of ours, looked into: what waits for the device, every family of networks, and a profile.

Each is a section of its own (`measure_waits`, `measure_families`, `measure_profile`): the first questions
on a card that nobody has tried. Steps are those of `harness.training.loop.train` with the real feed, of a
generated set that stays in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gpu_parts.rows import Add, Row, guarded
from gpu_parts.settings import Settings, stop_after, without_graphs
from harness.spec import Arm, AugmentSpec, DataSpec, Machine, ModelSpec, Recipe, RunSpec, TrickSpec
from harness.training import environment, graphs
from harness.training.checkpoint import TrainingProgress
from harness.training.environment import configured
from harness.training.evaluate import evaluate
from harness.training.graphs import CHECKED, WARM_UP
from harness.training.loop import INTERRUPTED, Step, train
from harness.training.setup import Setup, build

PRECISIONS = ("fp32", "bf16", "fp16")
# One of each way in which the networks are built; arguments as mini sizes have them.
FAMILIES: dict[str, tuple[dict[str, Any], int]] = {
    "resnet50": ({"width": 0.25, "depth": (1, 1, 1)}, 32),
    "resnext101_32x4d": ({"width": 0.25, "depth": (1, 1), "groups": 4, "group_width": 32}, 32),
    "cifar_resnet20": ({"depth": (1, 1, 1)}, 32),
    "preact_resnet18": ({"width": 0.25, "depth": (1, 1, 1)}, 32),
    "mobilenet_v1": ({"base_width": 0.5, "depth": (1, 1, 1, 2)}, 32),
    "googlenet": ({"width": 0.25, "depth": (1, 1, 1), "stem": "small"}, 32),
    "bn_inception": ({"width": 0.25, "depth": (1, 1, 1), "stem": "small"}, 32),
    "inception_v3": ({"width": 0.125, "depth": (1, 1, 1), "stem": "small"}, 40),
    "inception_v4": ({"width": 0.125, "depth": (1, 1, 1), "stem": "small"}, 40),
    "inception_resnet_v2": ({"width": 0.125, "depth": (1, 1, 1), "stem": "small"}, 40),
    "bn_mlp": ({}, 28),
}
LIKE_ALL = WARM_UP + CHECKED + 2  # after so many steps, those that follow are like all others
TINY_FAMILIES = ("cifar_resnet20", "bn_mlp")


def spec(
    model: str,
    args: dict[str, Any],
    *,
    pixels: int,
    batch: int,
    precision: str,
    augment: AugmentSpec | None = None,
) -> RunSpec:
    recipe = Recipe(
        model=ModelSpec(name=model, args=args),
        data=DataSpec(name="generated", resolution=pixels, args={"size": 32, "train": 8 * batch, "test": 64}),
        augment=augment or AugmentSpec(),
        epochs=10,
        batch_size=batch,
        lr=0.01,
        schedule="constant",
        precision=precision,
    )
    return RunSpec(arm=Arm(recipe=recipe, tricks=(TrickSpec(name="label_smoothing"),)), seed=0)


def stepper(
    setup: Setup, machine: Machine, progress: TrainingProgress | None = None
) -> Callable[[int], None]:
    """Makes so many steps of the training, one call after the other."""
    progress = progress or TrainingProgress.start(setup.device)
    step = Step(setup, progress)

    def run(steps: int) -> None:
        with configured(machine):
            status = train(setup, progress, stop_after(steps), lambda epoch_ended: None, lambda: False, step)
        if status != INTERRUPTED:
            raise RuntimeError(f"the training ended as '{status}' after {progress.step} steps")

    return run


def measure_waits(settings: Settings, add: Add) -> None:
    """Where the program waits for the device: warnings of torch's own mode, in three steps and one chunk."""
    machine = settings.machine("waits", exact=False)
    args = settings.pick({}, {"depth": (1, 1), "width": 1 / 16})
    run = spec("resnet18", args, pixels=32, batch=settings.pick(512, 8), precision="bf16")
    setup = guarded(add, "waits", partial(build, run, machine))
    if setup is None:
        return
    step = stepper(setup, machine)
    guarded(add, "waits: first steps", partial(step, LIKE_ALL))
    what = "waits in 3 steps"
    if (row := guarded(add, what, partial(waits, what, partial(step, 3), settings))) is not None:
        add(row)

    def chunk() -> None:
        with configured(machine):
            evaluate(setup.curve_answers(), setup.data.test.labels, torch.arange(32))

    what = "waits in a chunk of an evaluation"
    if (row := guarded(add, what, partial(waits, what, chunk, settings))) is not None:
        add(row)


def waits(what: str, work: Callable[[], None], settings: Settings) -> Row:
    """How often `work` waited for the device, and where it did so first."""
    if not settings.is_cuda:
        work()
        return Row(what=what, skipped="a CPU waits for nothing")
    torch.cuda.synchronize()
    with graphs.waits() as places:
        work()
    return Row(what=what, value=float(len(places)), note=", ".join(sorted(set(places))[:6]) or "none")


def measure_families(settings: Settings, add: Add) -> None:
    """First steps of every family in every precision, in the exact mode: that they run at all, and whether
    what is replayed has the bits of what is made."""
    for name, (args, pixels) in FAMILIES.items():
        if settings.tiny and name not in TINY_FAMILIES:
            continue
        for precision in PRECISIONS:
            what = f"{name}, {precision}, exact"
            if settings.is_late:
                add(Row(what=what, skipped="no time left within the section's bound"))
                continue
            machine = settings.machine(f"families/{name}/{precision}", exact=True)
            run = spec(name, args, pixels=pixels, batch=settings.pick(64, 8), precision=precision)
            row = guarded(add, what, partial(_first_steps, run, machine, what))
            environment.release_memory()
            if row is not None:
                add(row)


def _first_steps(run: RunSpec, machine: Machine, what: str) -> Row:
    """Raises RuntimeError: a weight is not finite."""
    started_s = time.perf_counter()
    setup, progress = build(run, machine), TrainingProgress.start(torch.device(machine.device))
    stepper(setup, machine, progress)(LIKE_ALL)
    if not all(bool(torch.isfinite(each).all()) for each in setup.model.parameters()):
        raise RuntimeError(f"a weight is not finite after {LIKE_ALL} steps")
    note = "replayed with the bits of made steps"
    if progress.eager is not None:
        note = f"made one by one: {progress.eager or 'no GPU'}"
    if setup.feed.eager:
        note += f"; augmentation: {setup.feed.eager}"
    return Row(what=what, value=time.perf_counter() - started_s, unit="s", note=note)


def measure_profile(settings: Settings, add: Add) -> None:
    """Kernels, host time, device time and memory of a step: a small network, and ResNet-50 at 224 pixels."""
    shapes = {
        "resnet18": settings.pick((512, 32, {}), (8, 32, {"depth": (1, 1), "width": 1 / 16})),
        "resnet50": settings.pick((256, 224, {}), (2, 32, {"depth": (1, 1), "width": 1 / 16})),
    }
    for name, (batch, pixels, args) in shapes.items():
        title = f"{name}, {pixels} px, batch {batch}, bf16"
        run = spec(name, args, pixels=pixels, batch=batch, precision="bf16")
        took_s = []
        for how, block in (("replayed", nullcontext()), ("made", without_graphs())):
            what = f"{title}, {how}"
            if settings.is_late:
                add(Row(what=what, skipped="no time left within the section's bound"))
                continue
            with block:
                took_s.append(guarded(add, what, partial(_profile, settings, add, run, what)))
            environment.release_memory()
        if len(took_s) == 2 and all(took_s):
            replayed_s, made_s = took_s
            add(Row(what=f"{title}: made / replayed", value=made_s / replayed_s, unit="x"))


def _profile(settings: Settings, add: Add, run: RunSpec, what: str) -> float:
    """Returns: seconds a step."""
    machine = settings.machine(f"profile/{run.arm.recipe.model.name}", exact=False)
    step = stepper(build(run, machine), machine)
    step(settings.pick(LIKE_ALL, 1))
    steps = settings.pick(10, 1)
    if settings.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    started_s = time.perf_counter()
    step(steps)
    host_s = time.perf_counter() - started_s
    if settings.is_cuda:
        torch.cuda.synchronize()
    wall_s = time.perf_counter() - started_s
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if settings.is_cuda else [])]
    with profile(activities=kinds) as seen:
        step(1)
        if settings.is_cuda:
            torch.cuda.synchronize()
    events = seen.key_averages()
    device_us = sum(each.self_device_time_total for each in events)
    kernels = sum(
        each.count for each in events if each.self_device_time_total > 0 and each.cpu_time_total == 0
    )
    asked = sum(each.count for each in events if each.key.startswith("aten::"))
    add(
        Row(
            what=f"{what}: host",
            value=1e3 * host_s / steps,
            unit="ms/step",
            note=f"{asked} operators asked for",
        )
    )
    add(Row(what=f"{what}: step", value=1e3 * wall_s / steps, unit="ms/step"))
    if not settings.is_cuda:
        return wall_s / steps
    busy = device_us / 1e6 / (wall_s / steps)
    add(
        Row(
            what=f"{what}: device",
            value=device_us / 1e3,
            unit="ms/step",
            note=f"{kernels} launches, {busy:.0%} busy",
        )
    )
    add(
        Row(
            what=f"{what}: memory",
            value=torch.cuda.max_memory_allocated() / 2**30,
            unit="GiB",
            note="the most at once",
        )
    )
    return wall_s / steps
