"""ResNet-D: the shortcut's 1x1/2 convolution becomes a 2x2/2 average pool and a 1x1/1 convolution."""

import dataclasses

import pytest
from torch import nn

from harness.models import MODELS, build_model
from harness.spec import ModelSpec
from harness.tricks.resnet_b import ResNetB
from harness.tricks.resnet_c import ResNetC
from harness.tricks.resnet_d import ResNetD
from tests.tricks import tiny


def test_it_sets_the_model_argument_and_nothing_else() -> None:
    before = tiny.recipe()
    expected = dataclasses.replace(before, model=before.model.with_args(shortcut="avgpool"))
    assert ResNetD().edit_recipe(before) == expected


def test_every_down_sampling_shortcut_averages_first() -> None:
    args = {**MODELS["resnet50"].args, "depth": (1, 1, 1, 1), "width": 0.125}
    before = dataclasses.replace(tiny.recipe(), model=ModelSpec(name="resnet50", args=args))
    assert _shortcuts(before.model) == (0, [1, 2, 2, 2])
    assert _shortcuts(ResNetD().edit_recipe(before).model) == (3, [1, 1, 1, 1])


def _shortcuts(model: ModelSpec) -> tuple[int, list[int]]:
    """Average pools of stride 2, and the strides of the convolutions, on all shortcuts."""
    modules = build_model(model.name, model.args, classes=10).named_modules()
    shortcut = [m for n, m in modules if "downsample" in n]
    pools = [m for m in shortcut if isinstance(m, nn.AvgPool2d) and m.stride in (2, (2, 2))]
    return len(pools), [m.stride[0] for m in shortcut if isinstance(m, nn.Conv2d)]


def test_stacked_in_any_order_b_c_and_d_are_the_papers_resnet_50_d() -> None:
    tweaks = [ResNetB(), ResNetC(), ResNetD()]
    for order in (tweaks, tweaks[::-1]):
        recipe = tiny.recipe()
        for tweak in order:
            recipe = tweak.edit_recipe(recipe)
        expected = {"stem": "deep", "stride_in": "3x3", "shortcut": "avgpool", "zero_gamma": False}
        assert recipe.model.args == expected


def test_a_network_without_shortcuts_is_refused() -> None:
    other = dataclasses.replace(tiny.recipe(), model=ModelSpec(name="mobilenet", args={}))
    with pytest.raises(ValueError, match="mobilenet has no argument 'shortcut'"):
        ResNetD().edit_recipe(other)
