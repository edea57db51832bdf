"""What every model must keep, tried on a few small images."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.models.entry import Model
from harness.models.outputs import Outputs
from harness.plugins.bench import bits
from harness.plugins.checks import Broken, Check, Skipped, require

CLASSES = 7
IMAGES = 3
SMALLEST_SIDE = 32  # of the images tried, where the model does not need more


def build(
    model: Model, args: dict[str, Any] | None = None, *, seed: int = 0, classes: int = CLASSES
) -> nn.Module:
    """The network as its constructor leaves it, on the CPU."""
    torch.manual_seed(seed)
    net = model.build(**model.resolve(args or {}), classes=classes, in_channels=3)
    if not isinstance(net, nn.Module):
        raise Broken(f"build returned {type(net).__name__}", "let build return a torch.nn.Module")
    return net


def side(model: Model) -> int:
    """The side of the images it is tried on, in pixels."""
    return max(model.minimum_input(model.resolve({})), SMALLEST_SIDE)


def images(pixels: int, count: int = IMAGES) -> Tensor:
    """The same normal noise every time, (count, 3, pixels, pixels)."""
    return torch.randn(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(1))


def defaults_are_valid(model: Model) -> None:
    """Its defaults are valid values of its arguments, and an unknown argument is refused."""
    model.validate(model.args)
    require(bool(model.note.strip()), "it has no note", "say in `note` what it is, in one line")
    require(bool(model.paper.strip()), "it names no paper", "write paper='own' where there is none")


def answers_every_image(model: Model) -> None:
    """It maps images (B, 3, S, S) to finite logits (B, classes), also for one image and two classes."""
    for classes, count in ((CLASSES, IMAGES), (2, 1)):
        net = build(model, classes=classes).eval()
        with torch.no_grad():
            out = net(images(side(model), count))
        require(
            isinstance(out, Tensor) and tuple(out.shape) == (count, classes),
            f"in evaluation mode it returned {_form(out)}, expected logits ({count}, {classes})",
            "end with a linear layer of `classes` outputs; auxiliary heads answer in training mode only",
        )
        require(bool(torch.isfinite(out).all()), "its logits are not finite", "look at its initial weights")


def trains(model: Model) -> None:
    """Every parameter gets a finite gradient in training mode."""
    net = build(model).train()
    out = net(images(side(model)))
    if isinstance(out, Tensor):
        heads = [out]
    elif isinstance(out, Outputs):
        heads = [out.logits, *out.auxiliary]
    else:
        raise Broken(
            f"in training mode it returned {_form(out)}",
            "return logits, or harness.models.outputs.Outputs(logits, auxiliary)",
        )
    sum(head.float().logsumexp(1).sum() for head in heads).backward()  # type: ignore[union-attr]
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            require(parameter.grad is not None, f"{name} gets no gradient", "use it, or remove it")
            finite = parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())
            require(finite, f"the gradient of {name} is not finite", "look at its initial weights")


def initialises_from_the_seed(model: Model) -> None:
    """The same seed gives the same weights, whatever else was drawn."""
    first = bits(build(model))
    random.random()
    np.random.rand()  # noqa: NPY002  (the generator that a model must not use)
    require(
        first == bits(build(model)),
        "two builds with one seed differ",
        "draw initial weights from torch's default generator only",
    )


def survives_save_and_load(model: Model) -> None:
    """Saved and loaded into a new network it answers with the same bits."""
    one, other = build(model, seed=0).eval(), build(model, seed=1).eval()
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    seen = images(side(model))
    with torch.no_grad():
        same = torch.equal(one(seen), other(seen))
    require(same, "it answers otherwise", "keep everything it computes with in parameters and buffers")


def images_do_not_mix(model: Model) -> None:
    """In evaluation mode the answer to an image does not depend on the others of its batch."""
    net, seen = build(model).eval(), images(side(model))
    with torch.no_grad():
        together, alone = net(seen), torch.cat([net(each[None]) for each in seen])
    close = torch.allclose(together, alone, rtol=1e-3, atol=1e-4)
    require(close, "one image alone got other logits", "use batch statistics in training mode only")


def minimum_input_is_true(model: Model) -> None:
    """It works on images of its minimum_input."""
    least = model.minimum_input(model.resolve({}))
    try:
        with torch.no_grad():
            build(model).eval()(images(least, 1))
    except (RuntimeError, ValueError) as error:
        mend = "state the smallest side in pixels: Model(..., minimum_input=lambda args: ...)"
        raise Broken(f"images of {least} pixels: {str(error).splitlines()[0]}", mend) from None


def width_scales(model: Model) -> None:
    """A smaller width has fewer parameters."""
    width = model.arguments.get("width")
    if width is None:
        raise Skipped("it has no argument `width`, so a size cannot make it smaller")
    half = width.default / 2
    if not width.accepts(half):
        raise Skipped(f"it does not accept width {half:g}")
    counts = [
        sum(p.numel() for p in build(model, {"width": value}).parameters()) for value in (half, width.default)
    ]
    require(
        counts[0] < counts[1], f"{counts[0]} parameters at half width, {counts[1]} at full", "use `width`"
    )


def cost_can_be_counted(model: Model) -> None:
    """Its cost can be counted without storage for its weights."""
    with torch.device("meta"), torch.no_grad():
        net = build(model).eval()
        net(torch.empty(1, 3, side(model), side(model)))


def variants_are_valid(model: Model) -> None:
    """Every variant is a valid setting of its arguments."""
    for args in model.variants.values():
        model.validate(args)


def _form(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


CHECKS: tuple[Check, ...] = (
    defaults_are_valid,
    variants_are_valid,
    answers_every_image,
    trains,
    initialises_from_the_seed,
    survives_save_and_load,
    images_do_not_mix,
    minimum_input_is_true,
    width_scales,
    cost_can_be_counted,
)
