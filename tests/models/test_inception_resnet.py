"""Inception-ResNets: timm's network by its weights, the paper's sizes, the rules of the residual sum."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from harness.models import INCEPTION_RESNETS
from harness.models.inception_resnet import InceptionResNetConfig, ResidualBlock
from tests.conftest import mostly_campaign
from tests.models.inception import (
    MINI,
    branch_name,
    build,
    give_every_norm_a_history,
    images,
    macs,
    output_shapes,
    parameters,
    reference_costs,
    shapes,
    sides,
    timm_model,
    trains,
    unbuilt,
    with_weights,
)

V1, V2 = INCEPTION_RESNETS
VARIANTS = {name: (model, args) for model in INCEPTION_RESNETS for name, args in model.variants.items()}
FIGURES = {"layout": "figures"}
COSTS = {
    "inception_resnet_v1_figs": (22_756_328, 6_206_361_696),
    "inception_resnet_v2_slim_timm": (55_843_464, 13_155_794_016),
    "inception_resnet_v2_figs_5_10_5": (32_433_928, 9_257_953_632),
    "inception_resnet_v2_figs_10_20_10": (55_284_488, 14_142_011_232),
}


def our_name(timms: str) -> str:
    """A residual block's branches are one module here."""
    found = re.fullmatch(r"((?:repeat\w*\.\d+|block8)\.)(branch.*)", timms)
    if found:
        return f"{found[1]}branches.{branch_name(found[2])}"
    block, _, rest = timms.partition(".")
    return f"{'fc' if block == 'classif' else block}.{branch_name(rest)}"


def blocks(net: nn.Module) -> list[ResidualBlock]:
    return [module for module in net.modules() if isinstance(module, ResidualBlock)]


@pytest.mark.parametrize("variant", mostly_campaign(sorted(COSTS), *sorted(COSTS)[:1], *sorted(COSTS)[2:3]))
def test_costs_to_the_unit_and_as_the_reference_file_prints_them(variant):
    model, args = VARIANTS[variant]
    assert (parameters(unbuilt(model, args)), macs(model, args)) == COSTS[variant]
    rounded = (round(COSTS[variant][0] / 1e6, 3), round(COSTS[variant][1] / 1e9, 3))
    assert reference_costs("inception_resnet")[variant] == rounded


def test_the_variants_are_those_of_the_reference_file():
    assert set(VARIANTS) == set(reference_costs("inception_resnet"))


@pytest.mark.campaign
def test_same_weights_give_the_same_logits_as_timm():
    other = timm_model("inception_resnet_v2").eval()
    give_every_norm_a_history(other)
    weights = {our_name(name): value for name, value in other.state_dict().items()}
    with torch.no_grad():
        expected = other(images(80))
        assert expected.std() > 1e-3
        ours = with_weights(V2, {}, weights).eval()
        torch.testing.assert_close(ours(images(80)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "args", "channels"),
    [(V1, {}, (256, 896, 1792)), (V2, {}, (320, 1088, 2080)), (V2, FIGURES, (384, 1152, 2144))],
    ids=["v1", "v2 released", "v2 figures"],
)
def test_residual_blocks_see_the_grids_and_channels_of_the_paper(model, args, channels):
    counts = (1, 2, 2)

    def seen(stem: str, side: int) -> list[tuple[int, int]]:
        net = unbuilt(model, {**args, "depth": counts, "stem": stem})
        return [shape[1:3] for shape in output_shapes(net, blocks(net), side)]

    for stem, side, grids in (("large", 299, (35, 17, 8)), ("small", 32, (8, 4, 2))):
        expected = [
            (outputs, grid)
            for outputs, grid, count in zip(channels, grids, counts, strict=True)
            for _ in range(count)
        ]
        assert seen(stem, side) == expected
    assert shapes(unbuilt(model, {**args, "stem": "small"})) == shapes(unbuilt(model, args))


@pytest.mark.parametrize("scale", [0.17, 1.0])
@pytest.mark.parametrize("residual", [True, False])
def test_a_block_adds_the_scaled_linear_convolution_to_its_input_or_leaves_both_out(residual, scale):
    net = build(V1, {**MINI, "residual": residual, "scale_a": scale}).eval()
    block = net.repeat[0]
    x = torch.randn(2, block.conv2d.out_channels, 8, 8)
    change = block.conv2d(block.branches(x))
    assert block.conv2d.bias is not None
    assert change.min() < 0  # linear
    expected = (x + scale * change).relu() if residual else change.relu()
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(("model", "args"), VARIANTS.values(), ids=VARIANTS)
def test_residual_and_scales_change_no_weight_and_no_cost(model, args):
    args = {**args, "depth": (1, 1, 2)}
    plain = unbuilt(model, args)
    for other in ({"residual": False}, {"scale_a": 1.0, "scale_b": 0.5, "scale_c": 0.0}):
        assert shapes(unbuilt(model, {**args, **other})) == shapes(plain)
        assert not any(model.arguments[name].changes_cost for name in other)


@pytest.mark.parametrize("model", INCEPTION_RESNETS, ids=["v1", "v2"])
def test_each_scale_is_that_of_its_grid(model):
    args = {**MINI, "depth": (2, 2, 3), "scale_a": 0.3, "scale_b": 0.2, "scale_c": 0.1}
    net = build(model, args)
    assert [[block.scale for block in stage] for stage in (net.repeat, net.repeat_1)] == [
        [0.3] * 2,
        [0.2] * 2,
    ]
    last = [0.1] * 3 if model is V1 else [0.1, 0.1, 1.0]  # the released network's last block is not scaled
    assert [block.scale for block in blocks(net)[4:]] == last
    released = build(model, {"depth": (1, 1, 2), "width": 0.1})
    assert [block.scale for block in blocks(released)[:3]] == [0.17, 0.10, 0.20]
    assert {block.scale for block in blocks(build(model, {**MINI, "residual": False}))} == {None}


def test_only_the_last_block_of_the_released_network_has_no_relu():
    def without_relu(model, args) -> list[bool]:
        net = build(model, {**MINI, "depth": (1, 1, 2), **args}).eval()
        lowest = []
        for block in blocks(net):
            block.register_forward_hook(lambda _module, _inputs, out: lowest.append(out.min().item() < 0))
        net(images(32))
        return lowest

    assert without_relu(V2, {}) == [False, False, False, True]
    assert without_relu(V2, {"residual": False}) == [False, False, False, True]
    assert without_relu(V2, FIGURES) == [False] * 4
    assert without_relu(V1, {}) == [False] * 4


def test_depth_counts_residual_blocks_and_one_of_each_is_the_least():
    for model in INCEPTION_RESNETS:
        assert len(blocks(unbuilt(model, {"depth": (3, 5, 2)}))) == 10
        assert len(blocks(unbuilt(model, {"depth": (1, 1, 1)}))) == 3
        full, half = (unbuilt(model, {"depth": (1, 1, 1), "width": width}) for width in (1.0, 0.5))
        for name, module in full.named_modules():
            if isinstance(module, nn.Conv2d):
                assert half.get_submodule(name).out_channels == module.out_channels / 2


@pytest.mark.parametrize(("model", "args"), VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("residual", [True, False])
def test_small_networks_train_and_every_parameter_has_a_gradient(model, args, residual):
    assert trains(build(model, {**args, **MINI, "residual": residual}), 32)


@pytest.mark.campaign
def test_a_299_pixel_image_trains():
    assert sides(net := build(V1, {"depth": (1, 1, 1), "width": 0.25}), 299)[-1] == 8
    assert trains(net, 299)


@pytest.mark.parametrize(("model", "args"), [(V1, {}), (V2, {}), (V2, FIGURES)], ids=["v1", "v2", "figures"])
def test_the_smallest_image_trains_and_one_pixel_less_is_refused(model, args):
    large = {**MINI, **args, "stem": "large"}
    assert model.minimum_input(model.resolve(large)) == 75
    assert trains(build(model, large), 75)
    assert not trains(build(model, large), 74)
    assert trains(build(model, {**MINI, **args}), model.minimum_input(model.resolve(MINI)))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="inception_resnet_v1: unknown argument 'layout'"):
        V1.resolve({"layout": "figures"})
    with pytest.raises(ValueError, match="inception_resnet_v2: depth must be 3 positive integers"):
        V2.resolve({"depth": [5, 10]})
    with pytest.raises(ValueError, match="scale_a must be a number from 0 to 10, got -1"):
        V2.resolve({"scale_a": -1})
    with pytest.raises(ValueError, match="version must be one of v1, v2, got 'v3'"):
        InceptionResNetConfig(version="v3", classes=2)
    with pytest.raises(ValueError, match="Inception-ResNet-v1 has the layout of its figures only"):
        InceptionResNetConfig(version="v1", classes=2, layout="released")
