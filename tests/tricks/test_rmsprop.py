"""RMSProp's recipe, and that the optimizer it names makes the steps of the card."""

from __future__ import annotations

import math

import pytest
import torch

from harness.training.optim import make_optimizer, set_lr
from harness.tricks.rmsprop import RmsProp, first_step
from tests.tricks import tiny

ARGS = {"alpha": 0.9, "eps": 1.0, "momentum": 0.9}


def test_it_sets_optimizer_arguments_and_rate() -> None:
    """The released code's momentum is in; Nesterov momentum of the recipe before is out."""
    before = tiny.recipe(optimizer_args={"momentum": 0.5, "nesterov": True})
    expected = tiny.recipe(optimizer="rmsprop_tf", optimizer_args=ARGS, lr=0.045)
    assert RmsProp().edit_recipe(before) == expected
    torchs = RmsProp(form="torch", lr=0.01).edit_recipe(before)
    assert torchs == tiny.recipe(optimizer="rmsprop", optimizer_args=ARGS, lr=0.01)


@pytest.mark.parametrize("form", ["tf", "torch"])
def test_the_first_two_steps_of_a_weight(form: str) -> None:
    """Gradients 3 and then 1 at lr 0.1; tf: v = 1.8, 1.72; torch: v = 0.9, 0.91; momentum 0.9."""
    recipe = RmsProp(form=form, lr=0.1).edit_recipe(tiny.recipe())  # type: ignore[arg-type]
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = make_optimizer(recipe, [{"params": [("w", weight)], "weight_decay": 0.0}])
    set_lr(optimizer, 0.1)
    moves = []
    for gradient in (3.0, 1.0):
        before = weight.item()
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        moves.append(before - weight.item())
    if form == "tf":
        first, second = 3 / math.sqrt(1.8 + 1), 1 / math.sqrt(1.72 + 1)
    else:
        first, second = 3 / (math.sqrt(0.9) + 1), 1 / (math.sqrt(0.91) + 1)
    assert moves[0] == pytest.approx(0.1 * first, rel=1e-5)
    assert moves[0] == pytest.approx(0.1 * first_step(3.0, decay=0.9, eps=1.0, form=form), rel=1e-5)
    assert moves[1] == pytest.approx(0.1 * (0.9 * first + second), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, r"rmsprop: decay must be a number in \[0, 1\), got 1"),
        ({"eps": 0.0}, "rmsprop: eps must be a number > 0, got 0"),
        ({"momentum": -0.1}, r"rmsprop: momentum must be a number in \[0, 1\), got -0.1"),
        ({"lr": 0.0}, "rmsprop: lr must be a number > 0, got 0"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RmsProp(**options)  # type: ignore[arg-type]
