"""What the tweaks of residual networks set, and the networks that come of it."""

import dataclasses

import pytest
import torch
from torch import nn

from harness.models import MODELS, build_model
from harness.spec import ModelSpec
from harness.tricks.residual import ResNetB, ResNetC, ResNetD, ZeroGamma
from tests.tricks import tiny


def test_resnet_b_sets_the_model_argument_and_nothing_else() -> None:
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


# ResNet-C: the 7x7/2 stem becomes 3x3/2:32, 3x3:32, 3x3:64; the max-pool stays.


def test_resnet_c_sets_the_model_argument_and_nothing_else() -> None:
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


# ResNet-D: the shortcut's 1x1/2 convolution becomes a 2x2/2 average pool and a 1x1/1 convolution.


def test_resnet_d_sets_the_model_argument_and_nothing_else() -> None:
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


# The last batch normalisation of each residual block starts at gamma = 0.


SMALL = {"depth": (1, 2, 1, 1), "width": 0.25}


def test_zero_gamma_sets_the_model_argument_and_nothing_else() -> None:
    before = tiny.recipe()
    expected = dataclasses.replace(before, model=before.model.with_args(zero_gamma=True))
    assert ZeroGamma().edit_recipe(before) == expected


def test_a_model_without_residual_blocks_is_refused() -> None:
    plain = dataclasses.replace(tiny.recipe(), model=ModelSpec(name="mobilenet", args={"width": 1.0}))
    with pytest.raises(ValueError, match="zero_gamma needs residual blocks: mobilenet has no argument 'zero"):
        ZeroGamma().edit_recipe(plain)


def test_the_network_starts_with_one_zero_gamma_per_block_and_is_blind_to_its_branches() -> None:
    """5 blocks: 5 batch normalisations at 0. Noise in a branch's first convolution then changes nothing."""
    args = ZeroGamma().edit_recipe(_small()).model.args
    torch.manual_seed(0)
    model = build_model("resnet50", args, classes=10).eval()
    zero = [name for name, p in model.named_parameters() if p.ndim == 1 and p.numel() and not p.any()]
    assert len([name for name in zero if name.endswith("weight")]) == 5
    images = torch.randn(2, 3, 32, 32)
    before = model(images)
    noisy = next(m for n, m in model.named_modules() if "layer2.1" in n and isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():
        noisy.weight.add_(1.0)
    torch.testing.assert_close(model(images), before, rtol=0, atol=0)


def _small() -> object:
    args = {**MODELS["resnet50"].args, **SMALL}
    return dataclasses.replace(tiny.recipe(), model=ModelSpec(name="resnet50", args=args))
