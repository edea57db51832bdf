"""The same training step from three hands: ours, and ones around timm's and torchvision's networks."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpu_parts.rounds import Contender
from gpu_parts.settings import Settings, stop_after
from harness.spec import Arm, DataSpec, Machine, ModelSpec, Recipe, RunSpec
from harness.training.checkpoint import TrainingProgress
from harness.training.environment import configured
from harness.training.loop import INTERRUPTED, Step, train
from harness.training.setup import Setup, build
from harness.tricks.base import Batch

LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 1e-4


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is trained. `network` is a name of harness.models, timm and torchvision alike."""

    network: str
    batch: int
    resolution: int
    classes: int


@dataclass(frozen=True)
class OneBatch:
    """In the place of `harness.training.feed.Feed`: the same tensors of the device at every step."""

    tensors: Batch

    def batches(self, first: int, end: int) -> Generator[Batch]:
        yield from itertools.repeat(self.tensors, end - first)


def generated_images(shape: Shape, device: str) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S) float32 and labels (B,) int64, drawn on the device."""
    torch.manual_seed(0)
    images = torch.randn(shape.batch, 3, shape.resolution, shape.resolution, device=device)
    return images, torch.randint(shape.classes, (shape.batch,), device=device)


def our_setup(shape: Shape, machine: Machine) -> Setup:
    """Everything of a run of ours, in bf16, fed with one batch."""
    # The bottleneck of torchvision and timm has its stride there; basic blocks have no such choice.
    args = {"stride_in": "3x3"} if shape.network == "resnet50" else {}
    data = {"classes": shape.classes, "size": 4, "train": 200 * shape.batch, "test": shape.classes}
    recipe = Recipe(
        model=ModelSpec(name=shape.network, args=args),
        data=DataSpec(name="generated", resolution=shape.resolution, args=data),
        epochs=10,
        batch_size=shape.batch,
        lr=LR,
        weight_decay=WEIGHT_DECAY,
        schedule="constant",
        precision="bf16",
    )
    setup = build(RunSpec(arm=Arm(recipe=recipe), seed=0), machine)
    images, labels = generated_images(shape, machine.device)
    targets = functional.one_hot(labels, shape.classes).float()
    batch = Batch(images.contiguous(memory_format=torch.channels_last), targets)
    return dataclasses.replace(setup, feed=OneBatch(batch))


def ours(setup: Setup, machine: Machine, what: str, note: str) -> Contender:
    """Our training loop itself, stopped after the wanted number of steps."""
    progress = TrainingProgress.start(setup.device)

    step = Step(setup, progress)

    def run(steps: int) -> None:
        status = train(setup, progress, stop_after(steps), lambda epoch_ended: None, lambda: False, step)
        if status != INTERRUPTED:
            raise RuntimeError(f"the training ended as '{status}' after {progress.step} steps")

    return Contender(what=what, run=run, flags=partial(configured, machine), note=note)


def compiled(setup: Setup, settings: Settings) -> Setup:
    """As `Machine(compile=True)` builds it, but for the backend of the tiny form."""
    return dataclasses.replace(setup, forward=torch.compile(setup.model, backend=settings.backend))


def theirs(
    make: Callable[[], nn.Module], shape: Shape, settings: Settings, *, best: bool, what: str
) -> Contender:
    """The loop that a user of timm or torchvision writes, with torch's default flags or the best ones but for
    compiling, which is another section's question."""
    images, labels = generated_images(shape, settings.device)
    model = make().to(settings.device).train()
    if best:
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    options: dict[str, Any] = {"momentum": MOMENTUM, "nesterov": True, "weight_decay": WEIGHT_DECAY}
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, **options, fused=True if best else None)
    device_type = torch.device(settings.device).type

    def run(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast(device_type, dtype=torch.bfloat16) if best else nullcontext():
                loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    note = "bf16, channels_last, cudnn.benchmark, fused SGD" if best else "FP32, TF32 convolutions"
    return Contender(what=what, run=run, flags=partial(torch_flags, benchmark=best), note=note)


@contextmanager
def torch_flags(*, benchmark: bool) -> Iterator[None]:
    """torch's own defaults (TF32 convolutions among them), and cudnn.benchmark."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())
