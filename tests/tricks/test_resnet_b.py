"""ResNet-B: strides (2, 1, 1) on the main path of a down-sampling block become (1, 2, 1)."""

import dataclasses

import pytest
from torch import nn

from harness.models import MODELS, build_model
from harness.spec import ModelSpec
from harness.tricks.resnet_b import ResNetB
from tests.tricks import tiny


def test_it_sets_the_model_argument_and_nothing_else() -> None:
    before = tiny.recipe()
    assert ResNetB().edit_recipe(before) == dataclasses.replace(
        before, model=before.model.with_args(stride_in="3x3")
    )


def test_the_stride_moves_from_the_first_to_the_second_convolution() -> None:
    args = {**MODELS["resnet50"].args, "depth": (1, 1, 1, 1), "width": 0.125}
    before = dataclasses.replace(tiny.recipe(), model=ModelSpec(name="resnet50", args=args))
    assert _main_path_strides(before.model) == [1, 1, 1] + [2, 1, 1] * 3
    assert _main_path_strides(ResNetB().edit_recipe(before).model) == [1, 1, 1] + [1, 2, 1] * 3


def _main_path_strides(model: ModelSpec) -> list[int]:
    modules = build_model(model.name, model.args, classes=10).named_modules()
    return [
        m.stride[0]
        for n, m in modules
        if isinstance(m, nn.Conv2d) and n.startswith("layer") and "downsample" not in n
    ]


def test_a_network_of_basic_blocks_is_refused() -> None:
    resnet18 = dataclasses.replace(
        tiny.recipe(), model=ModelSpec(name="resnet18", args=MODELS["resnet18"].args)
    )
    with pytest.raises(
        ValueError, match="resnet_b moves the stride of a bottleneck block: resnet18 has no argument"
    ):
        ResNetB().edit_recipe(resnet18)
