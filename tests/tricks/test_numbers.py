"""Tricks that set a number or a word of the recipe: clipping, the auxiliary loss, initialisation, pixels."""

from __future__ import annotations

import dataclasses

import pytest

from harness.models import MODELS
from harness.spec import ModelSpec, Recipe
from harness.tricks.inception import AuxiliaryLoss, ReceptiveField
from harness.tricks.optimizer import GradientClipping, Initialisation
from tests.tricks import tiny


def of(model: str) -> Recipe:
    return dataclasses.replace(tiny.recipe(), model=ModelSpec(name=model, args=MODELS[model].args))


def test_clipping_by_norm_or_by_value_never_by_both() -> None:
    assert GradientClipping().edit_recipe(tiny.recipe()) == tiny.recipe(clip_norm=2.0)
    by_value = GradientClipping(threshold=0.5, by="value")
    assert by_value.edit_recipe(tiny.recipe(clip_norm=2.0)) == tiny.recipe(clip_value=0.5)
    with pytest.raises(ValueError, match="gradient_clipping: threshold must be a number > 0, got 0"):
        GradientClipping(threshold=0.0)


def test_the_weight_of_the_auxiliary_loss() -> None:
    before = of("googlenet")
    assert AuxiliaryLoss().edit_recipe(before) == dataclasses.replace(before, auxiliary_weight=0.4)
    with pytest.raises(ValueError, match="auxiliary_loss weighs auxiliary heads: resnet50 has no argument"):
        AuxiliaryLoss().edit_recipe(tiny.recipe())
    with pytest.raises(ValueError, match="auxiliary_loss: weight must be a number >= 0, got -1"):
        AuxiliaryLoss(weight=-1.0)


def test_the_scheme_of_the_initial_weights_is_one_that_the_models_know() -> None:
    import typing

    from harness.models.blocks import SCHEMES

    assert Initialisation().edit_recipe(tiny.recipe()) == tiny.recipe(initialisation="xavier")
    assert set(typing.get_args(typing.get_type_hints(Initialisation)["scheme"])) == set(SCHEMES)


@pytest.mark.parametrize(
    ("pixels", "first_layer"), [(299, "stride2_pool"), (151, "stride1_pool"), (79, "stride1")]
)
def test_fewer_pixels_and_less_stride(pixels: int, first_layer: str) -> None:
    """Rethinking, Table 2; in the paper's pixels, which a size maps to its own."""
    before = of("inception_v3")
    edited = ReceptiveField(pixels=pixels).edit_recipe(before)  # type: ignore[arg-type]
    assert edited == dataclasses.replace(
        before,
        model=before.model.with_args(first_layer=first_layer),
        data=dataclasses.replace(before.data, resolution=pixels),
    )
    MODELS["inception_v3"].check_input(MODELS["inception_v3"].resolve(edited.model.args), pixels)


def test_a_network_without_the_choice_of_first_layers_is_refused() -> None:
    with pytest.raises(
        ValueError, match="receptive_field changes the first layers: resnet50 has no argument"
    ):
        ReceptiveField().edit_recipe(tiny.recipe())
