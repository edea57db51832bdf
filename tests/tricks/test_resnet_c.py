"""ResNet-C: the 7x7/2 stem becomes 3x3/2:32, 3x3:32, 3x3:64; the max-pool stays."""

import dataclasses

import pytest
from torch import nn

from harness.models import MODELS, build_model
from harness.spec import ModelSpec
from harness.tricks.resnet_c import ResNetC
from tests.tricks import tiny


def test_it_sets_the_model_argument_and_nothing_else() -> None:
    before = tiny.recipe()
    assert ResNetC().edit_recipe(before) == dataclasses.replace(
        before, model=before.model.with_args(stem="deep")
    )


def test_kernels_strides_and_channels_of_the_stem() -> None:
    args = {**MODELS["resnet50"].args, "depth": (1, 1, 1, 1)}
    before = dataclasses.replace(tiny.recipe(), model=ModelSpec(name="resnet50", args=args))
    assert _stem(before.model) == [(7, 2, 64)]
    assert _stem(ResNetC().edit_recipe(before).model) == [(3, 2, 32), (3, 1, 32), (3, 1, 64)]


def _stem(model: ModelSpec) -> list[tuple[int, int, int]]:
    modules = build_model(model.name, model.args, classes=10).named_modules()
    convolutions = [m for n, m in modules if isinstance(m, nn.Conv2d) and not n.startswith("layer")]
    return [(m.kernel_size[0], m.stride[0], m.out_channels) for m in convolutions]


def test_a_network_without_that_stem_is_refused() -> None:
    other = dataclasses.replace(tiny.recipe(), model=ModelSpec(name="mobilenet", args={}))
    with pytest.raises(
        ValueError, match="resnet_c replaces the 7x7 stem of a ResNet: mobilenet has no argument 'stem'"
    ):
        ResNetC().edit_recipe(other)


def test_a_network_with_another_kind_of_stem_is_refused() -> None:
    other = dataclasses.replace(tiny.recipe(), model=ModelSpec(name="googlenet", args={"stem": "large"}))
    with pytest.raises(ValueError, match="7x7 stem of a ResNet: the stem of googlenet is 'large'"):
        ResNetC().edit_recipe(other)
