"""What one forward pass of one image costs: parameters, and multiply-adds of convolutions and linear layers.

Both are of the network as it is used after training: auxiliary heads (parameters whose names begin with
"aux") do not count. The papers print multiply-adds as FLOPs and count neither batch norm nor pooling; the
matrix products of attention do not count either.

`lookup` answers from `costs.json` without importing torch, so that planning is fast; what is not there is
measured. The file is generated: `python -m harness.models.costs QUESTIONS.json` (or on standard input) takes
a list of {"name", "args", "resolution", "classes"} and always adds every family and every variant at its
paper's input size for 1,000 classes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.models import MODELS, VARIANTS, build_model, find, resolve

COSTS_FILE = Path(__file__).with_name("costs.json")
CLASSES = 1000  # ImageNet's, for which the papers print costs
COUNTED = "counted on the built network: parameters and multiply-adds of convolutions and linear layers, " + (
    "without auxiliary heads"
)


def lookup(name: str, args: Mapping[str, Any], *, resolution: int, classes: int) -> tuple[int, int]:
    """Parameters and multiply-adds for one RGB image of `resolution` x `resolution` pixels.

    Raises:
        ValueError: an unknown model or argument, a value out of range, or images that do not fit.
    """
    return _answer(question(name, args, resolution=resolution, classes=classes))


def question(name: str, args: Mapping[str, Any], *, resolution: int, classes: int) -> str:
    """The canonical JSON of a question: defaults filled in, arguments that change no cost left out.

    Raises:
        ValueError: an unknown model or argument, a value out of range, or images that are too small.
    """
    if type(resolution) is not int or resolution < 1:
        raise ValueError(f"{name}: the resolution must be a positive number of pixels, got {resolution!r}")
    family, full = resolve(name, args)
    model = find(family)
    model.check_input(full, resolution)
    priced = {key: value for key, value in full.items() if model.arguments[key].changes_cost}
    return _canonical({"name": family, "args": priced, "resolution": resolution, "classes": classes})


def measure(
    name: str, args: Mapping[str, Any], *, resolution: int, classes: int, in_channels: int = 3
) -> tuple[int, int]:
    """Build the network without storage, pass one image through it and count.

    Raises:
        ValueError: an unknown model or argument, a value out of range, or images that do not fit.
    """
    import torch

    with torch.device("meta"):
        net = build_model(name, args, classes=classes, in_channels=in_channels, initialisation="own")
        images = torch.empty(2, in_channels, resolution, resolution)
    try:
        if find(name).own_initialisation:  # a library's: nobody has said which images its heads can take
            net.train()(images)
        macs = count_macs(net.eval(), images[:1])
    except (RuntimeError, AssertionError, IndexError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        sides = f"{resolution} x {resolution}"
        raise ValueError(f"{name}: cannot take images of {sides} pixels ({reason})") from error
    return count_params(net), macs


def count_params(net: Any) -> int:
    """Parameters of a torch module without those of auxiliary heads."""
    named = net.named_parameters()
    return sum(parameter.numel() for name, parameter in named if not name.lower().startswith("aux"))


def count_macs(net: Any, images: Any) -> int:
    """Multiply-adds of every convolution and linear layer of a torch module while `images` pass through it.

    A convolution makes kernel height x width x input channels / groups of them for each output value, a
    linear layer one for each input of each output. Biases, norms, pools and activations count nothing.
    """
    import torch
    from torch import nn

    macs = 0

    def count(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d):
            macs += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features

    handles = [module.register_forward_hook(count) for module in net.modules()]
    try:
        with torch.no_grad():
            net(images)
    finally:
        for handle in handles:
            handle.remove()
    return macs


@cache
def _answer(asked: str) -> tuple[int, int]:
    told = json.loads(asked)
    _, found, rest = _stored().partition(f'{{"question": {json.dumps(told)}, ')
    if not found:
        return measure(**told)
    answer = json.loads("{" + rest[: rest.index("}") + 1])
    return answer["params"], answer["macs"]


@cache
def _stored() -> str:
    """The generated file; empty before it exists. A question's line is found in a hundredth of the time in
    which all are parsed."""
    return COSTS_FILE.read_text() if COSTS_FILE.exists() else ""


def answers(questions: list[dict[str, Any]], known: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Each question once, sorted, with its answer; every family and variant is among them.

    What is in `known`, answers as these, is not measured again.
    """
    stored = _by_question(known)
    defaults = [
        {"name": name, "args": {}, "resolution": find(name).input_size, "classes": CLASSES}
        for name in (*MODELS, *VARIANTS)
    ]
    measured = []
    for asked in sorted({question(**each) for each in [*defaults, *questions]}):
        params, macs = stored.get(asked) or measure(**json.loads(asked))
        measured.append({"question": json.loads(asked), "params": params, "macs": macs})
    return measured


def costs_text(measured: list[dict[str, Any]]) -> str:
    """The text of `costs.json`: one answer a line."""
    return "[\n" + ",\n".join(json.dumps(each) for each in measured) + "\n]\n"


def _by_question(kept: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    return {_canonical(each["question"]): (each["params"], each["macs"]) for each in kept}


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def main(argv: list[str]) -> None:
    """Write `costs.json` from the questions in the file named, or on standard input."""
    text = Path(argv[0]).read_text() if argv else sys.stdin.read()
    measured = answers(json.loads(text))
    COSTS_FILE.write_text(costs_text(measured))
    print(f"{COSTS_FILE.name}: {len(measured)} questions")


if __name__ == "__main__":
    main(sys.argv[1:])
