"""TensorFlow's RMSProp: its first steps by hand, many against timm's, and what survives a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.data.torchvision_import import torchvision  # noqa: F401  # timm imports it, see there
from harness.training.optim import RMSpropTF, make_optimizer, parameter_groups, set_lr
from tests.training.runs import tiny_recipe

LRS = (0.045, 0.045, 0.045 * 0.94, 0.01, 0.0, 0.02, 0.03)


def test_the_first_two_steps_by_hand() -> None:
    """s = 0.9 + 0.1 = 1, m = 0.1 / sqrt(2); then s = 0.9 + 0.1 * 4 = 1.3, m = 0.9 m + 0.4 / sqrt(2.3)."""
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = RMSpropTF([weight], alpha=0.9, eps=1.0, momentum=0.9)
    for lr, gradient, expected in ((0.1, 1.0, 0.9292893219), (0.2, 2.0, 0.6018975222)):
        set_lr(optimizer, lr)
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        assert weight.item() == pytest.approx(expected, abs=1e-9)


def test_without_momentum_and_with_eps_one_the_first_step_is_lr_over_sqrt_two() -> None:
    weight = nn.Parameter(torch.tensor([5.0]))
    weight.grad = torch.tensor([1.0])
    RMSpropTF([weight], lr=0.045, eps=1.0).step()
    assert weight.item() == pytest.approx(5 - 0.045 / 2**0.5, abs=1e-6)


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (7,), (2, 2, 3))]


def train(
    optimizer: Any, weights: list[nn.Parameter], lrs: tuple[float, ...], start: int = 0
) -> list[Tensor]:
    for step, lr in enumerate(lrs, start):
        generator = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        set_lr(optimizer, lr)
        optimizer.step()
    return [weight.detach().clone() for weight in weights]


@pytest.mark.parametrize("eps", [1.0, 1e-3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_many_steps_agree_with_timm(momentum: float, weight_decay: float, eps: float) -> None:
    timm = pytest.importorskip("timm.optim", reason="timm is the reference for TensorFlow's RMSProp")
    options = {"alpha": 0.9, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
    ours, theirs = parameters(), parameters()
    got = train(RMSpropTF(ours, **options), ours, LRS)
    wanted = train(timm.RMSpropTF(theirs, **options), theirs, LRS)
    for a, b, start in zip(got, wanted, parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-7)
        assert not torch.allclose(a, start, atol=1e-3)


def test_the_state_survives_a_checkpoint() -> None:
    whole, halves = parameters(), parameters()
    options = {"eps": 1.0, "momentum": 0.9}
    expected = train(RMSpropTF(whole, **options), whole, LRS)
    first = RMSpropTF(halves, **options)
    train(first, halves, LRS[:3])
    second = RMSpropTF(halves, **options)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(train(second, halves, LRS[3:], 3), expected, strict=True))


def test_a_weight_without_gradient_stays() -> None:
    weights = parameters()
    optimizer = RMSpropTF(weights, weight_decay=0.1, lr=1.0)
    weights[0].grad = torch.ones_like(weights[0])
    optimizer.step()
    assert not torch.equal(weights[0], parameters()[0])
    assert torch.equal(weights[1], parameters()[1])


def test_a_recipe_gives_it_its_numbers() -> None:
    recipe = tiny_recipe(optimizer="rmsprop_tf", optimizer_args={"alpha": 0.8, "eps": 1.0, "momentum": 0.5})
    (group,) = make_optimizer(recipe, parameter_groups(nn.Linear(2, 2), [], weight_decay=4e-5)).param_groups
    assert {key: group[key] for key in ("alpha", "eps", "momentum", "weight_decay")} == {
        "alpha": 0.8, "eps": 1.0, "momentum": 0.5, "weight_decay": 4e-5
    }  # fmt: skip


@pytest.mark.parametrize("wrong", [{"alpha": 1.0}, {"eps": 0.0}, {"momentum": -0.1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="rmsprop_tf needs 0 <= alpha < 1"):
        RMSpropTF(parameters(), **wrong)
