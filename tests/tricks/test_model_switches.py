"""Tricks that turn a switch of a network: which argument, and what that does to a real, small network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from harness.models import MODELS, build_model
from harness.models.blocks import Outputs
from harness.spec import ModelSpec, Recipe
from harness.tricks.base import Trick
from harness.tricks.batch_norm import BatchNorm, NoDropout, NoLrn, Sigmoid
from harness.tricks.inception import (
    AsymmetricConvolutions,
    AuxiliaryHead,
    BnAuxiliary,
    Factorized7x7,
    GridReduction,
    Two3x3,
)
from harness.tricks.residual import NoResidual, ResidualScaling
from tests.tricks import tiny

CLASSES, SIDE = 5, 32
SMALL = {"width": 0.0625, "depth": (1, 1, 1), "stem": "small"}
V3 = ("inception_v3", {**SMALL, "auxiliary": "plain", "factorized_7x7": False, "asymmetric": False})
GOOGLENET = ("googlenet", {**SMALL, "auxiliary": "none"})
RESIDUAL = ("inception_resnet_v1", SMALL)
Model = tuple[str, Mapping[str, Any]]

# trick, a small model that has the switch, the arguments that the trick sets there
SWITCHES: list[tuple[Trick, Model, dict[str, Any]]] = [
    (AsymmetricConvolutions(), V3, {"asymmetric": True}),
    (AuxiliaryHead(), GOOGLENET, {"auxiliary": "plain"}),
    (BatchNorm(), GOOGLENET, {"norm": "batch"}),
    (BnAuxiliary(), V3, {"auxiliary": "bn"}),
    (Factorized7x7(), V3, {"factorized_7x7": True}),
    (GridReduction(kind="naive"), V3, {"grid": "naive"}),
    (GridReduction(kind="expensive"), V3, {"grid": "expensive"}),
    (NoDropout(), GOOGLENET, {"dropout": 0.0}),
    (NoLrn(), GOOGLENET, {"lrn": False}),
    (NoResidual(), RESIDUAL, {"residual": False}),
    (ResidualScaling(), RESIDUAL, {"scale_a": 0.1, "scale_b": 0.1, "scale_c": 0.1}),
    (ResidualScaling(scale=1.0), RESIDUAL, {"scale_a": 1.0, "scale_b": 1.0, "scale_c": 1.0}),
    (Sigmoid(), ("bn_inception", SMALL), {"activation": "sigmoid"}),
    (Two3x3(), V3, {"five": "two_3x3"}),
    (Two3x3(linear=True), V3, {"five": "two_3x3_linear"}),
]
EVERY = pytest.mark.parametrize(("trick", "model", "sets"), SWITCHES, ids=[repr(row[0]) for row in SWITCHES])


def recipe_of(model: Model) -> Recipe:
    """A recipe with every argument of a network."""
    name, args = model
    return dataclasses.replace(tiny.recipe(), model=ModelSpec(name=name, args={**MODELS[name].args, **args}))


def built(recipe: Recipe) -> nn.Module:
    torch.manual_seed(0)
    return build_model(recipe.model.name, recipe.model.args, classes=CLASSES)


def answer(net: nn.Module) -> torch.Tensor:
    """Logits on two fixed images, with dropout drawn from a fixed seed: of a network that trains."""
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    output = net.train()(images)
    return output.logits if isinstance(output, Outputs) else output


@EVERY
def test_it_sets_its_arguments_and_nothing_else(trick: Trick, model: Model, sets: dict[str, Any]) -> None:
    before = recipe_of(model)
    assert {key: before.model.args[key] for key in sets} != sets
    assert trick.edit_recipe(before) == dataclasses.replace(before, model=before.model.with_args(**sets))


@EVERY
def test_the_table_of_models_accepts_it_and_another_network_is_built(
    trick: Trick, model: Model, sets: dict[str, Any]
) -> None:
    before, after = built(recipe_of(model)), built(trick.edit_recipe(recipe_of(model)))
    shape = answer(after).shape
    assert shape == (2, CLASSES)
    if set(sets) == {"auxiliary"}:  # the heads answer beside the logits
        assert _heads(before) != _heads(after)
    else:
        assert not torch.equal(answer(before), answer(after))


def _heads(net: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, p.shape) for name, p in net.named_parameters() if name.lower().startswith("aux")]


@EVERY
def test_a_network_without_the_switch_is_refused_in_words(
    trick: Trick, model: Model, sets: dict[str, Any]
) -> None:
    other = dataclasses.replace(tiny.recipe(), model=ModelSpec(name="vgg", args={}))
    with pytest.raises(ValueError) as refused:
        trick.edit_recipe(other)
    message = str(refused.value)
    assert message.startswith(f"{trick.name} ")
    assert message.endswith(f": vgg has no argument '{next(iter(sets))}'")


def test_residual_scaling_names_what_it_needs() -> None:
    with pytest.raises(ValueError) as refused:
        ResidualScaling().edit_recipe(recipe_of(GOOGLENET))
    assert str(refused.value) == (
        "residual_scaling needs residual blocks: googlenet has no argument 'scale_a'"
    )


@pytest.mark.parametrize("scale", [0.0, -0.1, 1.5])
def test_residuals_are_not_enlarged_nor_taken_away(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be a number in"):
        ResidualScaling(scale=scale)


@pytest.mark.parametrize("has", ["plain", "bn"])
def test_an_auxiliary_head_that_is_there_stays(has: str) -> None:
    model = ("inception_v3", {**SMALL, "auxiliary": has})
    assert AuxiliaryHead().edit_recipe(recipe_of(model)) == recipe_of(model)


def test_bn_auxiliary_adds_one_normalisation_to_the_head() -> None:
    def norms(recipe: Recipe) -> int:
        named = built(recipe).named_modules()
        return sum(isinstance(m, nn.BatchNorm2d) for name, m in named if name.lower().startswith("aux"))

    assert norms(BnAuxiliary().edit_recipe(recipe_of(V3))) == norms(recipe_of(V3)) + 1


def test_the_first_7x7_becomes_three_3x3() -> None:
    def first(recipe: Recipe) -> list[int]:
        found = [m.kernel_size[0] for m in built(recipe).modules() if isinstance(m, nn.Conv2d)]
        return found[:3]

    assert first(recipe_of(V3))[0] == 7
    assert first(Factorized7x7().edit_recipe(recipe_of(V3))) == [3, 3, 3]


def test_two_3x3_have_18_weights_where_a_5x5_has_25() -> None:
    def kernels(recipe: Recipe) -> list[tuple[int, int]]:
        return [m.kernel_size for m in built(recipe).modules() if isinstance(m, nn.Conv2d)]

    before, after = kernels(recipe_of(V3)), kernels(Two3x3().edit_recipe(recipe_of(V3)))
    replaced = before.count((5, 5)) - after.count((5, 5))
    assert replaced > 0
    assert after.count((3, 3)) - before.count((3, 3)) == 2 * replaced
    assert kernels(Two3x3(linear=True).edit_recipe(recipe_of(V3))) == after


def test_taking_shortcuts_away_costs_and_saves_nothing() -> None:
    def shapes(recipe: Recipe) -> list[torch.Size]:
        return [p.shape for p in built(recipe).parameters()]

    assert shapes(NoResidual().edit_recipe(recipe_of(RESIDUAL))) == shapes(recipe_of(RESIDUAL))


def test_sigmoid_leaves_no_relu() -> None:
    before = recipe_of(("bn_inception", SMALL))
    kinds = {type(module) for module in built(Sigmoid().edit_recipe(before)).modules()}
    assert nn.ReLU not in kinds
