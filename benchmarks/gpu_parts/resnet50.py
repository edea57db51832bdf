"""ResNet-50 at 224 pixels, batch 256: images per second of our training loop beside timm's and
torchvision's.

All in one process, on generated tensors that stay on the device, forward, backward and update. Ours is
`harness.training.loop.train` with its own network, precision, optimizer and loss, in bf16 and
channels_last, in the exact mode and in the fast one. The other two are the loop a user writes around the
library's network: with torch's default flags (FP32 with TF32 convolutions), and with the best ones short
of compiling. The networks are checked to have the same number of parameters.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

from gpu_parts.contenders import Shape, our_setup, ours, parameters, theirs
from gpu_parts.rounds import Contender, Length, race
from gpu_parts.rows import Add, Row, guarded, measured
from gpu_parts.settings import Settings

OUR_NOTES = {
    "exact": "bf16, channels_last, deterministic kernels, fused SGD",
    "fast": "bf16, channels_last, cudnn.benchmark, fused SGD",
}


def measure(settings: Settings, add: Add) -> None:
    shape = settings.pick(
        Shape(network="resnet50", batch=256, resolution=224, classes=1000),
        Shape(network="resnet18", batch=2, resolution=32, classes=10),
    )
    length = Length(batch=shape.batch, warm_up_steps=settings.pick(5, 1), steps=settings.pick(8, 1))
    title = f"{shape.network} {shape.resolution} px, batch {shape.batch}"
    contenders: list[Contender] = []
    expected = None
    for mode, is_exact in (("exact", True), ("fast", False)):
        machine = settings.machine(f"resnet50/{mode}", exact=is_exact)
        what = f"{title}: ours, {mode}"
        setup = guarded(add, what, partial(our_setup, shape, machine))
        if setup is not None:
            expected = parameters(setup.model)
            contenders.append(ours(setup, machine, what, OUR_NOTES[mode]))
    contenders += others(settings, add, shape, title, expected=expected, best=False)
    contenders += others(settings, add, shape, title, expected=expected, best=True)
    for each in race(contenders, length, settings, add):
        first = f"{each.note}; first step {each.first_step_s:.1f} s"
        add(measured(each.what, each.images_per_s, "images/s", first))


def others(
    settings: Settings, add: Add, shape: Shape, title: str, *, expected: int | None, best: bool
) -> list[Contender]:
    """timm's and torchvision's, where they are installed."""
    found = []
    for name, library in LIBRARIES.items():
        what = f"{title}: {name}, {'best' if best else 'default'} flags"
        try:
            module = library()
        except Exception as error:
            add(Row(what=what, skipped=f"{name} cannot be imported ({error})"))
            continue
        make = partial(network, MAKERS[name], module, shape, expected)
        contender = guarded(add, what, partial(theirs, make, shape, settings, best=best, what=what))
        found += [] if contender is None else [contender]
    return found


def network(make: Callable[..., nn.Module], module: Any, shape: Shape, expected: int | None) -> nn.Module:
    """The library's network.

    Raises:
        ValueError: it is not the architecture that ours is.
    """
    model = make(module, shape)
    if expected is not None and parameters(model) != expected:
        raise ValueError(f"{shape.network} has {parameters(model)} parameters there and {expected} in ours")
    return model


def _torchvision() -> ModuleType:
    from harness.data.torchvision_import import torchvision

    return torchvision


def _timm() -> ModuleType:
    _torchvision()  # which timm imports, and which may need our care
    return importlib.import_module("timm")


LIBRARIES: dict[str, Callable[[], ModuleType]] = {"timm": _timm, "torchvision": _torchvision}
MAKERS: dict[str, Callable[..., nn.Module]] = {
    "timm": lambda timm, shape: timm.create_model(shape.network, pretrained=False, num_classes=shape.classes),
    "torchvision": lambda torchvision, shape: torchvision.models.get_model(
        shape.network, weights=None, num_classes=shape.classes
    ),
}
