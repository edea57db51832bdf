"""Same weights in, same logits out as torchvision's and timm's nets; He et al.'s original by its strides."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from harness.data.torchvision_import import torchvision
from harness.models import RESNETS, build_model
from harness.models.resnet import Basic, Bottleneck, ResNet, ResNetConfig

B = {"stride_in": "3x3"}
C = {**B, "stem": "deep"}
D = {**C, "shortcut": "avgpool"}
SMALL = {"depth": (1, 1, 1, 1), "width": 0.25}
ODD_SIDE = 40  # feature maps with sides 20, 10, 5, 3, 2: halving an odd side must be right too


def build(name: str, args: dict, *, seed: int = 0, classes: int = 10) -> ResNet:
    torch.manual_seed(seed)
    return build_model(name, args, classes=classes)


def give_every_norm_a_history(net: nn.Module) -> None:
    """Untrained batch norms are alike; trained ones would show a swapped pair."""
    draw = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.uniform_(low, high, generator=draw)


def reference(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name.endswith(("c", "d")):
        timm = pytest.importorskip("timm", reason="timm is the reference for ResNet-C and -D")
        return timm.create_model(name, pretrained=False, num_classes=1000)
    return getattr(torchvision.models, name)(weights=None)


campaign = partial(pytest.param, marks=pytest.mark.campaign)


@pytest.mark.parametrize(
    ("theirs", "name", "args"),
    [
        ("resnet18", "resnet18", {}),
        campaign("resnet34", "resnet34", {}),
        campaign("resnet50", "resnet50", B),
        campaign("resnet50c", "resnet50", C),
        campaign("resnet50d", "resnet50", D),
        ("resnet18d", "resnet18", {"stem": "deep", "shortcut": "avgpool"}),
        campaign("resnext50_32x4d", "resnext50_32x4d", {}),
    ],
)
def test_same_weights_give_the_same_logits_as_the_reference(theirs, name, args):
    other = reference(theirs)
    give_every_norm_a_history(other)
    ours = build(name, args, classes=1000)
    ours.load_state_dict(other.state_dict(), strict=True)
    images = torch.randn(2, 3, ODD_SIDE, ODD_SIDE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for training in (False, True):
            expected = other.train(training)(images)
            assert expected.std() > 1e-3
            torch.testing.assert_close(ours.train(training)(images), expected, rtol=1e-4, atol=1e-5)


def test_original_resnet_strides_in_the_first_1x1_and_b_in_the_3x3():
    for stride_in, strides in (("1x1", (2, 1, 1)), ("3x3", (1, 2, 1))):
        net = build("resnet50", {**SMALL, "stride_in": stride_in})
        for stage in (net.layer2, net.layer3, net.layer4):
            assert tuple(stage[0].get_submodule(f"conv{i}").stride[0] for i in (1, 2, 3)) == strides
        assert all(conv.stride == (1, 1) for conv in net.layer1.modules() if isinstance(conv, nn.Conv2d))


@pytest.mark.parametrize("args", [{}, B, C, D], ids=["A", "B", "C", "D"])
def test_feature_maps_of_a_32_pixel_image_have_sides_16_8_8_4_2_1(args):
    net = build("resnet50", {**SMALL, **args}).eval()
    sides = []
    for part in (net.conv1, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4):
        part.register_forward_hook(lambda _module, _inputs, output: sides.append(output.shape[-1]))
    assert net(torch.randn(1, 3, 32, 32)).shape == (1, 10)
    assert sides == [16, 8, 8, 4, 2, 1]


def test_width_multiplies_every_channel_count():
    def channels(width: float) -> list[int]:
        net = build("resnet50", {"depth": (1, 1, 1, 1), "width": width, **D})
        return [conv.out_channels for conv in net.modules() if isinstance(conv, nn.Conv2d)]

    assert channels(1.0)[:7] == [32, 32, 64, 64, 64, 256, 256]
    assert channels(0.25) == [count // 4 for count in channels(1.0)]
    assert channels(1 / 64)[:7] == [1, 1, 1, 1, 1, 4, 4]


def test_channel_counts_round_to_the_nearest_and_halves_upwards():
    config = ResNetConfig(depth=(1, 1, 1, 1), block="basic", classes=2, width=0.0390625)
    assert [config.channels(count) for count in (32, 64, 96, 128)] == [1, 3, 4, 5]  # 1.25, 2.5, 3.75, 5
    with pytest.raises(ValueError, match="leaves no channel of 12"):
        config.channels(12)


def test_initialisation_is_he_fan_out_unit_norms_and_a_small_linear_layer():
    net = build("resnet18", {})
    for conv in (module for module in net.modules() if isinstance(module, nn.Conv2d)):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert torch.equal(norm.bias, torch.zeros_like(norm.bias))
    assert net.fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not net.fc.bias.any()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_zero_gamma_makes_every_block_its_shortcut_and_changes_nothing_else(name):
    plain, zero = (build(name, {**SMALL, "zero_gamma": on}) for on in (False, True))
    last = {"resnet18": "bn2", "resnet50": "bn3"}[name]
    changed = [
        key for key, value in plain.state_dict().items() if not torch.equal(value, zero.state_dict()[key])
    ]
    assert changed == [f"layer{stage}.0.{last}.weight" for stage in (1, 2, 3, 4)]
    blocks = [module for module in zero.modules() if isinstance(module, Bottleneck | Basic)]
    assert len(blocks) == 4
    block = blocks[1].eval()
    x = torch.rand(2, blocks[1].conv1.in_channels, 8, 8)
    assert torch.equal(block(x), block.downsample(x).relu())


def test_the_default_generator_alone_decides_the_weights():
    first, again, other = (build("resnet50", SMALL, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("name", [model.name for model in RESNETS])
def test_every_parameter_receives_a_finite_gradient(name):
    net = build(name, SMALL if "64x4d" not in name else {**SMALL, "width": 0.5})
    net(torch.randn(4, 3, 32, 32)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in net.parameters())


def test_grey_images_need_one_input_channel():
    net = build_model("resnet50", SMALL, classes=5, in_channels=1)
    assert net.eval()(torch.randn(2, 1, 28, 28)).shape == (2, 5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"block": "plain"}, "block must be 'bottleneck' or 'basic', got 'plain'"),
        ({"stem": "5x5"}, "stem must be '7x7' or 'deep', got '5x5'"),
        ({"shortcut": "max"}, "shortcut must be 'conv' or 'avgpool', got 'max'"),
        ({"stride_in": None}, "stride_in must be '1x1' or '3x3', got None"),
        ({"block": "basic"}, "a basic block has no stride_in: its stride is always in its first 3x3"),
        ({"block": "basic", "stride_in": None, "groups": 2}, "a basic block has no groups"),
    ],
)
def test_parts_that_do_not_fit_are_refused(wrong, message):
    valid = {"depth": (1, 1, 1, 1), "block": "bottleneck", "classes": 2, "stride_in": "1x1"}
    ResNetConfig(**valid)
    with pytest.raises(ValueError) as caught:
        ResNetConfig(**{**valid, **wrong})
    assert str(caught.value) == message


def test_groups_split_the_3x3_convolutions_and_leave_the_outputs_as_wide():
    net = build("resnext50_32x4d", {"depth": (1, 1, 1, 1), "width": 0.5})
    threes = [net.get_submodule(f"layer{stage}.0.conv2") for stage in (1, 2, 3, 4)]
    assert [conv.groups for conv in threes] == [32] * 4
    assert [conv.out_channels for conv in threes] == [64, 128, 256, 512]
    assert [net.get_submodule(f"layer{stage}.0.conv3").out_channels for stage in (1, 2, 3, 4)] == [
        128,
        256,
        512,
        1024,
    ]


def test_a_width_that_does_not_split_into_the_groups_is_refused_in_words():
    with pytest.raises(ValueError) as caught:
        build("resnext50_32x4d", {"width": 0.125})
    assert str(caught.value) == (
        "resnext50_32x4d: width 0.125 leaves 16 of 128 channels in the 3x3 convolutions of stage 1, which do "
        "not split into 32 groups: choose a width that makes them a multiple of 32, or fewer groups"
    )
    assert build("resnext50_32x4d", {"width": 0.125, "groups": 8, "group_width": 16, "depth": (1,)})


def test_three_stages_are_the_first_three_of_four():
    torch.manual_seed(0)
    short = build_model("resnet50", {"depth": (1, 1, 1), "width": 0.125}, classes=10)
    full = build_model("resnet50", {"depth": (1, 1, 1, 1), "width": 0.125}, classes=10)
    kept = [key for key in full.state_dict() if not key.startswith(("layer4", "fc"))]
    assert [key for key in short.state_dict() if not key.startswith("fc")] == kept
    assert short(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
