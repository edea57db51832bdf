"""What the tests of the Inception families share: building, references and what to read off a network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from harness import models
from harness.data.torchvision_import import torchvision
from harness.models.blocks import Classifier, Outputs
from harness.models.costs import count_macs
from harness.models.entry import Model

PAPERS = Path(__file__).parents[2] / "docs" / "reference" / "papers.yaml"
MODELS = {
    model.name: model for model in (*models.INCEPTIONS_V3, *models.INCEPTIONS_V4, *models.INCEPTION_RESNETS)
}
MINI = {"depth": (1, 1, 1), "width": 0.1, "stem": "small"}


def build(model: Model, args: Mapping[str, Any], *, classes: int = 10) -> Classifier:
    torch.manual_seed(0)
    return model.build(**model.resolve(args), classes=classes, in_channels=3)


def unbuilt(model: Model, args: Mapping[str, Any], *, classes: int = 1000) -> Classifier:
    """The network without storage, the same object for the same arguments: do not change it."""
    return _unbuilt(model.name, json.dumps(model.resolve(args)), classes)


@cache
def _unbuilt(name: str, args: str, classes: int) -> Classifier:
    with torch.device("meta"):
        return build(MODELS[name], json.loads(args), classes=classes)


def with_weights(model: Model, args: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Classifier:
    """A network for 1,000 classes that has exactly these weights, not copied."""
    with torch.device("meta"):
        net = build(model, args, classes=1000)
    net.load_state_dict(weights, strict=True, assign=True)
    return net


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def parameters(net: nn.Module) -> int:
    """Without those of the auxiliary head."""
    return sum(value.numel() for name, value in net.named_parameters() if not name.startswith("Aux"))


def macs(model: Model, args: Mapping[str, Any], *, side: int = 299, classes: int = 1000) -> int:
    net = unbuilt(model, args, classes=classes).eval()
    return count_macs(net, torch.empty(1, 3, side, side, device="meta"))


def sides(net: Classifier, side: int) -> list[int]:
    """Pixels of the map after each layer of the trunk."""
    layers = [getattr(net, name) for name in net.trunk]
    return [shape[-1] for shape in output_shapes(net, layers, side)]


def output_shapes(net: nn.Module, modules: Iterable[nn.Module], side: int) -> list[tuple[int, ...]]:
    """What each of `modules` answers at evaluation of one image, in the order in which they are called."""
    seen: list[tuple[int, ...]] = []
    handles = [
        module.register_forward_hook(lambda _module, _inputs, out: seen.append(tuple(out.shape)))
        for module in modules
    ]
    device = next(net.parameters()).device
    net.eval()(torch.empty(1, 3, side, side, device=device))
    for handle in handles:
        handle.remove()
    return seen


def reference_costs(prefix: str) -> dict[str, tuple[float, float]]:
    """Model -> (millions of parameters, 10^9 multiply-adds), from the head of the reference file."""
    rows = yaml.safe_load(PAPERS.read_text().split("\npapers:")[0])["model_costs"]["rows"]
    return {row["model"]: (row["params_m"], row["gmacs"]) for row in rows if row["model"].startswith(prefix)}


def give_every_norm_a_history(net: nn.Module) -> None:
    """Untrained batch norms are alike; trained ones would show a swapped pair."""
    draw = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight.data, 0.7, 1.7),
                (module.bias.data, -0.2, 0.2),
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.1, 0.5),
            ):
                tensor.uniform_(low, high, generator=draw)


def images(side: int, *, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def trains(net: nn.Module, side: int) -> bool:
    """Whether two images of this side pass forward and backward, and every parameter has its gradient."""
    try:
        answer = net.train()(images(side))
        logits = [answer.logits, *answer.auxiliary] if isinstance(answer, Outputs) else [answer]
        sum(each.logsumexp(1).sum() for each in logits).backward()
    except (RuntimeError, ValueError):  # a map without pixels, or a batch norm without a variance
        return False
    assert all(value.grad is not None and value.grad.isfinite().all() for value in net.parameters())
    return True


def timm_model(name: str) -> nn.Module:
    assert torchvision  # timm imports it, and cannot without the repair
    timm = pytest.importorskip("timm", reason=f"timm is the reference for {name}")
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=1000)


def branch_name(timms: str) -> str:
    """The part of a weight's name below its block: convolutions of a path are numbered from 1 here.

    >>> [branch_name(name) for name in ("branch0.conv", "branch1.1.bn", "branch2_3a.conv", "branch3.1.conv")]
    ['branch0.conv', 'branch1_2.bn', 'branch2_4a.conv', 'branch3.conv']
    """
    alone = re.sub(r"^branch3\.1\.", "branch3.", timms)  # number 0 is an average pool
    return re.sub(r"^branch(\d)[._](\d)", lambda found: f"branch{found[1]}_{int(found[2]) + 1}", alone)
