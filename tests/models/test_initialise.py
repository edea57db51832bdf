"""Each scheme draws what its formula says, in the order of the modules, and touches nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from harness.models import build_model
from harness.models.blocks import SCHEMES, initialise, starts_at_zero

SMALL = {"depth": (1, 1, 1, 1), "width": 0.25}


def layers() -> nn.Sequential:
    """A convolution (fan_in 9 x 64, fan_out 9 x 128), one in 4 groups (9 x 32, 9 x 64), a linear one."""
    return nn.Sequential(
        nn.Conv2d(64, 128, 3),
        nn.BatchNorm2d(128),
        nn.Conv2d(128, 256, 3, groups=4),
        nn.BatchNorm1d(256),
        nn.Linear(256, 200),
    )


def initialised(scheme: str, net: nn.Sequential | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    net = net or layers()
    initialise(net, scheme)
    return net


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("he_fan_out", (math.sqrt(2 / (9 * 128)), math.sqrt(2 / (9 * 64)), 0.01)),
        ("he_fan_in", (math.sqrt(2 / (9 * 64)), math.sqrt(2 / (9 * 32)), math.sqrt(2 / 256))),
        (
            "he_average",  # 2 / (1 + 1/16) = 32 / 17
            (
                math.sqrt(32 / 17 / (9 * (64 + 128) / 2)),
                math.sqrt(32 / 17 / (9 * (32 + 256) / 2)),  # 32 inputs of a group, all 256 outputs
                math.sqrt(32 / 17 / ((256 + 200) / 2)),
            ),
        ),
        (
            "xavier",  # a uniform draw in +- b has the standard deviation b / sqrt(3)
            (
                math.sqrt(2 / (9 * 64 + 9 * 128)),
                math.sqrt(2 / (9 * 32 + 9 * 64)),
                math.sqrt(2 / (256 + 200)),
            ),
        ),
        ("truncated_normal", (0.1 * 0.8796,) * 3),  # N(0, 1) cut at 2 has the standard deviation 0.8796
        ("gaussian", (0.01,) * 3),
    ],
)
def test_weights_have_the_spread_of_the_formula_and_biases_are_0(scheme, expected):
    net = initialised(scheme)
    for module, std in zip((net[0], net[2], net[4]), expected, strict=True):
        assert module.weight.std().item() == pytest.approx(std, rel=0.02)
        assert abs(module.weight.mean().item()) < 0.02 * std
        assert not module.bias.any()


def test_xavier_is_uniform_up_to_its_bound_and_the_truncated_normal_stops_at_two_sigma():
    bound = math.sqrt(6 / (9 * 64 + 9 * 128))
    assert initialised("xavier")[0].weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert bound == pytest.approx(math.sqrt(6 / (64 + 128)) / 3)  # he2019bag counts channels alone
    assert initialised("truncated_normal")[0].weight.abs().max().item() == pytest.approx(0.2, rel=1e-2)


@pytest.mark.parametrize("scheme", ["truncated_normal", "gaussian"])
def test_a_module_may_name_its_own_spread(scheme):
    net = layers()
    net[0].init_std, net[4].init_std = 0.5, 0.001
    initialised(scheme, net)
    shrunk = 0.8796 if scheme == "truncated_normal" else 1.0
    assert net[0].weight.std().item() == pytest.approx(0.5 * shrunk, rel=0.02)
    assert net[4].weight.std().item() == pytest.approx(0.001 * shrunk, rel=0.02)
    assert initialised("he_fan_out", net)[0].weight.std().item() < 0.05, "He's rule knows no init_std"


@pytest.mark.parametrize("scheme", sorted(set(SCHEMES) - {"own"}))
def test_norms_start_as_the_identity_unless_they_are_marked(scheme):
    net = layers()
    starts_at_zero(net[3])
    for norm in (net[1], net[3]):
        nn.init.constant_(norm.weight, 7.0)
        nn.init.constant_(norm.bias, 7.0)
    initialised(scheme, net)
    assert torch.equal(net[1].weight, torch.ones(128))
    assert torch.equal(net[3].weight, torch.zeros(256))
    assert not net[1].bias.any()
    assert not net[3].bias.any()


def test_own_leaves_every_parameter_alone():
    net = layers()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    initialise(net, "own")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_he_fan_out_is_torchs_own_rule_bit_for_bit_drawn_in_the_order_of_the_modules():
    args = {**SMALL, "zero_gamma": True}
    torch.manual_seed(3)
    ours = build_model("resnet50", args, classes=10, initialisation="he_fan_out")
    torch.manual_seed(3)
    expected = build_model("resnet50", args, classes=10, initialisation="own")
    for module in expected.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    for name, block in expected.named_modules():
        if name.endswith("bn3"):
            nn.init.zeros_(block.weight)
    found = ours.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in expected.state_dict().items())


def test_the_default_of_build_model_is_that_of_a_recipe():
    def weight(**scheme: str) -> torch.Tensor:
        torch.manual_seed(0)
        return build_model("resnet18", SMALL, classes=10, **scheme).layer1[0].conv1.weight

    assert torch.equal(weight(), weight(initialisation="he_fan_out"))
    assert not torch.equal(weight(), weight(initialisation="xavier"))


def test_an_unknown_scheme_is_named_with_the_nearest():
    with pytest.raises(ValueError) as caught:
        build_model("resnet18", SMALL, classes=10, initialisation="he_fanout")
    assert str(caught.value) == (
        "unknown initialisation 'he_fanout'; did you mean 'he_fan_out'? "
        "Valid: gaussian, he_average, he_fan_in, he_fan_out, own, truncated_normal, xavier"
    )
