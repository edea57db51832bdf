"""Inception-v3: torchvision's network by its weights, the reference's costs, Table 1, sizes of images."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from harness.data.torchvision_import import torchvision
from harness.models import INCEPTIONS_V3
from harness.models.inception import InceptionV3Config
from tests.models.inception import (
    MINI,
    build,
    give_every_norm_a_history,
    images,
    macs,
    parameters,
    reference_costs,
    shapes,
    sides,
    trains,
    unbuilt,
    with_weights,
)

(MODEL,) = INCEPTIONS_V3
TABLE_1 = MODEL.variants["inception_v3_table1_literal"]
V2 = MODEL.variants["inception_v2"]


def reference() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.inception_v3(
        weights=None, transform_input=False, init_weights=False, dropout=0.0, aux_logits=True
    )


# Costs


@pytest.mark.parametrize(
    ("variant", "params", "with_auxiliary", "multiply_adds"),
    [
        ("inception_v3_code", 23_834_568, 27_161_264, 5_713_216_096),
        ("inception_v3_table1_literal", 26_101_704, 29_428_400, 6_533_196_384),
        ("inception_v2", 23_815_336, 27_141_264, 5_299_886_272),
    ],
)
def test_costs_to_the_unit_and_as_the_reference_file_prints_them(
    variant, params, with_auxiliary, multiply_adds
):
    args = MODEL.variants[variant]
    net = unbuilt(MODEL, args)
    assert parameters(net) == params
    assert sum(value.numel() for value in net.parameters()) == with_auxiliary
    assert macs(MODEL, args) == multiply_adds
    if variant != "inception_v2":
        printed = reference_costs("inception_v3")[variant]
        assert (round(params / 1e6, 3), round(multiply_adds / 1e9, 3)) == printed


def test_every_inception_v3_of_the_reference_file_is_a_variant():
    assert set(reference_costs("inception_v3")) <= set(MODEL.variants)


# torchvision


def test_weights_have_torchvisions_names_and_shapes():
    with torch.device("meta"):
        assert shapes(unbuilt(MODEL, {})) == shapes(reference())


def test_same_weights_give_the_same_logits_as_torchvision():
    other = reference().eval()
    give_every_norm_a_history(other)
    ours = with_weights(MODEL, {}, other.state_dict()).eval()
    with torch.no_grad():
        expected = other(images(80))
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(images(80)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.campaign
def test_a_299_pixel_image_trains_as_in_torchvision_with_the_auxiliary_logits():
    other = reference().train()
    ours = with_weights(MODEL, {"dropout": 0.0}, copy.deepcopy(other.state_dict())).train()
    with torch.no_grad():
        expected = other(images(299))
    answer = ours(images(299))
    assert expected.aux_logits.std() > 1e-3
    torch.testing.assert_close(answer.logits, expected.logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(answer.auxiliary[0], expected.aux_logits, rtol=1e-3, atol=1e-4)
    (answer.logits.logsumexp(1) + answer.auxiliary[0].logsumexp(1)).sum().backward()
    assert all(value.grad.isfinite().all() for value in ours.parameters())


# Sizes


def test_the_outline_of_table_1():
    net = unbuilt(MODEL, TABLE_1)
    assert sides(net, 299)[:7] == [149, 147, 147, 73, 71, 35, 35]
    channels = [getattr(net, name).outputs for name in net.trunk if name != "maxpool1"]
    assert channels == [32, 32, 64, 80, 192, 288, *[288] * 3, *[768] * 6, *[1280], *[2048] * 2]
    assert sides(net, 299)[7:] == [*[35] * 3, *[17] * 6, *[8] * 3]


@pytest.mark.parametrize("args", [{}, TABLE_1, V2], ids=["v3", "table 1", "v2"])
def test_grids_of_a_large_and_a_small_image(args):
    large = sides(unbuilt(MODEL, args), 299)
    small = sides(unbuilt(MODEL, {**args, "stem": "small"}), 32)
    blocks = sum(MODEL.resolve(args)["depth"]) + 2
    as_small = {35: 8, 17: 4, 8: 2}
    assert set(large[-blocks:]) == set(as_small)
    assert small[-blocks:] == [as_small[side] for side in large[-blocks:]]


def test_small_keeps_every_weight_of_large():
    assert shapes(unbuilt(MODEL, {"stem": "small"})) == shapes(unbuilt(MODEL, {}))


def test_width_scales_every_channel_and_depth_counts_blocks():
    full, half = unbuilt(MODEL, {}), unbuilt(MODEL, {"width": 0.5})
    for name, module in full.named_modules():
        if isinstance(module, nn.Conv2d):
            assert half.get_submodule(name).out_channels == module.out_channels / 2
    assert half.fc.in_features == 1024
    net = unbuilt(MODEL, {"depth": (2, 3, 1)})
    assert [name for name in net.trunk if name.startswith("Mixed")] == [
        f"Mixed_{block}" for block in ("5b", "5c", "6a", "6b", "6c", "6d", "7a", "7b")
    ]
    inner = [getattr(net, f"Mixed_6{letter}").branch7x7_1.outputs for letter in "bcd"]
    assert inner == [128, 160, 192]
    assert net.auxiliary_after == "Mixed_6d"


@pytest.mark.parametrize("layout", ["code", "table1"])
@pytest.mark.parametrize("factorized_7x7", [True, False])
@pytest.mark.parametrize(
    ("first_layer", "least"), [("stride2_pool", 75), ("stride1_pool", 39), ("stride1", 21)]
)
def test_the_smallest_image_trains_and_one_pixel_less_is_refused(layout, factorized_7x7, first_layer, least):
    args = {"layout": layout, "factorized_7x7": factorized_7x7, "first_layer": first_layer}
    args = {**MINI, **args, "stem": "large"}
    assert MODEL.minimum_input(MODEL.resolve(args)) == least
    assert trains(build(MODEL, args), least)
    assert not trains(build(MODEL, args), least - 1)
    with pytest.raises(ValueError, match=f"inception_v3: images need at least {least} pixels a side"):
        MODEL.check_input(MODEL.resolve(args), least - 1)


def test_with_the_small_stem_a_single_pixel_is_enough():
    assert MODEL.minimum_input(MODEL.resolve(MINI)) == 1
    assert trains(build(MODEL, MINI), 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"five": "3x3"}, "five must be '5x5' or 'two_3x3' or 'two_3x3_linear', got '3x3'"),
        ({"depth": [3, 4]}, "depth must be 3 positive integers, one for each grid, got [3, 4]"),
        ({"depth": [3, 4, 25]}, "depth must be 1 to 3 positive integers, none above 24, got [3, 4, 25]"),
        ({"auxilary": "bn"}, "unknown argument 'auxilary'; did you mean 'auxiliary'?"),
        ({"dropout": 1}, "dropout must be a number from 0 to 0.95, got 1"),
    ],
)
def test_a_mistake_in_a_study_is_named(wrong, message):
    with pytest.raises(ValueError) as caught:
        MODEL.resolve(wrong)
    assert str(caught.value).startswith(f"inception_v3: {message}")


def test_a_mistake_in_the_constructor_is_named():
    with pytest.raises(ValueError, match="grid must be one of paper, naive, expensive, got 'cheap'"):
        InceptionV3Config(classes=2, grid="cheap")
    with pytest.raises(ValueError, match=r"depth must name 3 stages \(grids of 35, 17 and 8 pixels\), got 2"):
        InceptionV3Config(classes=2, depth=(1, 1))
