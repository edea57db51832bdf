"""Inception-v4: timm's network by its weights, and the paper's grids."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from harness.models import INCEPTIONS_V4
from harness.models.inception import InceptionV4Config
from tests.models.inception import (
    MINI,
    branch_name,
    build,
    give_every_norm_a_history,
    images,
    macs,
    parameters,
    reference_costs,
    shapes,
    sides,
    timm_model,
    trains,
    unbuilt,
    with_weights,
)

(MODEL,) = INCEPTIONS_V4


def our_name(timms: str, trunk: list[str]) -> str:
    """timm numbers the layers; in the stem's Mixed_3a and 5a it has `conv` for the branch that is no pool."""
    found = re.fullmatch(r"features\.(\d+)\.(.*)", timms)
    if found is None:
        return timms.replace("last_linear", "fc")
    layer, rest = trunk[int(found[1])], branch_name(found[2])
    convolution = {"Mixed_3a": "branch1", "Mixed_5a": "branch0"}.get(layer)
    return f"{layer}.{convolution}.{rest.removeprefix('conv.')}" if convolution else f"{layer}.{rest}"


def test_costs_to_the_unit_and_as_the_reference_file_prints_them():
    params, multiply_adds = parameters(unbuilt(MODEL, {})), macs(MODEL, {})
    assert (params, multiply_adds) == (42_679_816, 12_253_974_624)
    printed = reference_costs("inception_v4")
    assert printed == {"inception_v4": (round(params / 1e6, 3), round(multiply_adds / 1e9, 3))}


@pytest.mark.campaign
def test_same_weights_give_the_same_logits_as_timm():
    other = timm_model("inception_v4").eval()
    give_every_norm_a_history(other)
    trunk = unbuilt(MODEL, {}).trunk
    weights = {our_name(name, trunk): value for name, value in other.state_dict().items()}
    with torch.no_grad():
        expected = other(images(80))
        assert expected.std() > 1e-3
        ours = with_weights(MODEL, {}, weights).eval()
        torch.testing.assert_close(ours(images(80)), expected, rtol=1e-4, atol=1e-5)


def test_grids_and_channels_of_the_figures():
    net = unbuilt(MODEL, {})
    assert sides(net, 299) == [149, 147, 147, 73, 71, 35, *[35] * 4, *[17] * 8, *[8] * 4]
    channels = [getattr(net, name).outputs for name in net.trunk]
    assert channels == [32, 32, 64, 160, 192, 384, *[384] * 4, *[1024] * 8, *[1536] * 4]


def test_small_has_the_same_weights_and_grids_of_8_4_and_2_pixels():
    net = unbuilt(MODEL, {"stem": "small"})
    assert shapes(net) == shapes(unbuilt(MODEL, {}))
    assert sides(net, 32) == [16, 16, 16, 8, 8, 8, *[8] * 4, *[4] * 8, *[2] * 4]


def test_width_scales_every_channel_and_depth_counts_blocks():
    full, half = unbuilt(MODEL, {}), unbuilt(MODEL, {"width": 0.5})
    for name, module in full.named_modules():
        if isinstance(module, nn.Conv2d):
            assert half.get_submodule(name).out_channels == module.out_channels / 2
    assert half.fc.in_features == 768
    assert unbuilt(MODEL, {"depth": (1, 2, 1)}).trunk[6:] == [
        "Inception_A1", "Reduction_A", "Inception_B1", "Inception_B2", "Reduction_B", "Inception_C1",
    ]  # fmt: skip


def test_dropout_acts_while_training_only():
    net = build(MODEL, {**MINI, "dropout": 0.9})
    seen: list[torch.Tensor] = []
    net.fc.register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0]))
    features = torch.ones(2, net.outputs, 2, 2)
    net.eval().classify(features)
    net.train().classify(features)
    assert seen[0].eq(1).all()
    assert seen[1].eq(0).float().mean().item() == pytest.approx(0.9, abs=0.05)
    assert seen[1].max().item() == pytest.approx(10)


@pytest.mark.campaign
def test_a_299_pixel_image_trains():
    assert trains(build(MODEL, {"depth": (1, 1, 1), "width": 0.25}), 299)


def test_the_smallest_image_trains_and_one_pixel_less_is_refused():
    args = {**MINI, "stem": "large"}
    assert MODEL.minimum_input(MODEL.resolve(args)) == 75
    assert trains(build(MODEL, args), 75)
    assert not trains(build(MODEL, args), 74)
    assert MODEL.minimum_input(MODEL.resolve(MINI)) == 1
    assert trains(build(MODEL, MINI), 1)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="inception_v4: depth must be 3 positive integers, one for"):
        MODEL.resolve({"depth": [4]})
    with pytest.raises(ValueError, match="stem must be 'large' or 'small', got 'tiny'"):
        InceptionV4Config(classes=2, stem="tiny")
