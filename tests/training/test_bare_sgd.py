"""Our way to torch's fused SGD on a CPU: the same bits, state and hooks as torch's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.training import optim
from harness.training.optim import BareSGD, hold_rates, make_optimizer, set_lr
from tests.training.runs import tiny_recipe

SHAPES = ((5, 3, 3, 3), (37,), (4, 6))
LRS = (0.4, 0.4, 0.04, 0.0, 0.2)


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) for shape in SHAPES]
    drawn[0] = drawn[0].contiguous(memory_format=torch.channels_last)
    return [nn.Parameter(each) for each in drawn]


def optimizer_of(weights: list[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    groups: Any = [
        {"params": [("a", weights[0])], "weight_decay": 1e-2},
        {"params": [("b", weights[1]), ("c", weights[2])], "weight_decay": 0.0},
    ]
    return make_optimizer(tiny_recipe(optimizer="sgd", optimizer_args=options), groups)


def train(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], **scale: Tensor) -> list[Tensor]:
    """Steps in the second of which one weight has no gradient; `scale` is what a GradScaler sets."""
    vars(optimizer).update(scale)
    for step, lr in enumerate(LRS):
        generator = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        if step == 1:
            weights[1].grad = None
        set_lr(optimizer, lr)
        optimizer.step()
        optimizer.zero_grad()
        assert all(weight.grad is None for weight in weights)
    state = [each.get("momentum_buffer") for each in optimizer.state.values()]
    return [*(weight.detach() for weight in weights), *(each for each in state if each is not None)]


@pytest.mark.parametrize(
    "options",
    [{}, {"nesterov": False}, {"momentum": 0.0, "nesterov": False}, {"maximize": True}],
    ids=["nesterov", "momentum", "plain", "maximize"],
)
@pytest.mark.parametrize("held", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("overflow", [None, 0.0, 1.0], ids=["fp32", "fits", "overflows"])
def test_it_is_torchs_to_the_last_bit(
    options: dict[str, Any], held: bool, overflow: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = {} if overflow is None else {"grad_scale": torch.tensor(8.0), "found_inf": torch.tensor(overflow)}
    found = []
    for kind in (BareSGD, torch.optim.SGD):
        monkeypatch.setattr(optim, "BareSGD", kind)
        weights = parameters()
        optimizer = optimizer_of(weights, **options)
        assert type(optimizer) is kind
        if held:
            hold_rates(optimizer, torch.device("cpu"))
        found.append(train(optimizer, weights, **scale))
    ours, theirs = found
    start = parameters()
    moved = [not torch.equal(a, b) for a, b in zip(ours, start, strict=False)]
    assert len(ours) == len(theirs)
    assert all(moved) == (overflow != 1.0)
    assert all(map(torch.equal, ours, theirs))


def test_what_it_cannot_update_is_left_to_torch() -> None:
    for options in ({"fused": False}, {"dampening": 0.5, "nesterov": False}):
        assert type(optimizer_of(parameters(), **options)) is torch.optim.SGD
    weights = parameters()
    weights[2] = nn.Parameter(weights[2].detach().double())
    assert type(optimizer_of(weights)) is torch.optim.SGD


def test_hooks_are_called_once_and_a_state_goes_on_where_it_was() -> None:
    weights, calls = parameters(), []
    optimizer = optimizer_of(weights)
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    train(optimizer, weights)
    assert len(calls) == len(LRS)
    again = [nn.Parameter(weight.detach().clone()) for weight in weights]
    other = optimizer_of(again)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # which torch would share
    assert all(map(torch.equal, train(optimizer, weights), train(other, again)))


def test_gradients_may_also_be_set_to_zero_in_place() -> None:
    weights = parameters()
    optimizer = optimizer_of(weights)
    weights[0].grad = torch.ones_like(weights[0])
    optimizer.zero_grad(set_to_none=False)
    assert weights[0].grad is not None
    assert not weights[0].grad.any()
