"""The networks for 32 pixels against their papers' sizes, and against the same sums written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.models import CIFAR_RESNETS, build_model, find, resolve
from harness.models.costs import measure
from tests.conftest import mostly_campaign
from tests.models.test_resnet import give_every_norm_a_history

PRINTED_M = {20: "0.27", 32: "0.46", 44: "0.66", 56: "0.85", 110: "1.7", 1202: "19.4"}  # he2016deep, Table 6
PARAMS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}


@pytest.mark.parametrize("layers", mostly_campaign(PRINTED_M, 20, 32, 44, 56, 110))
def test_a_network_of_6n_plus_2_layers_has_the_printed_parameters_with_and_without_shortcuts(layers):
    """Sec. 4.2: identity shortcuts, so exactly as many as the plain network."""
    found = {
        shortcut: measure(f"cifar_resnet{layers}", {"shortcut": shortcut}, resolution=32, classes=10)
        for shortcut in ("pad", "none")
    }
    assert found["pad"] == found["none"]
    params = found["pad"][0]
    decimals = len(PRINTED_M[layers].partition(".")[2])
    assert (params, f"{params / 1e6:.{decimals}f}") == (PARAMS[layers], PRINTED_M[layers])
    depth = resolve(f"cifar_resnet{layers}", {})[1]["depth"]
    assert 2 * sum(depth) + 2 == layers


@pytest.mark.parametrize(("classes", "params"), [(10, 11_171_146), (100, 11_217_316)])
def test_preact_resnet18_has_the_parameters_of_the_implementation_that_the_paper_names(classes, params):
    assert measure("preact_resnet18", {}, resolution=32, classes=classes)[0] == params


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    parts = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(weights[f"{name}.{part}"] for part in parts))


def cifar_by_hand(x: Tensor, weights: dict[str, Tensor], shortcut: str) -> Tensor:
    """Three stages of two blocks; a stage's first block halves the map, but for the first stage's."""
    x = F.relu(norm(F.conv2d(x, weights["conv1.weight"], padding=1), weights, "bn1"))
    for stage in (1, 2, 3):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(F.relu(norm(y, weights, f"{name}.bn1")), weights[f"{name}.conv2.weight"], padding=1)
            y = norm(y, weights, f"{name}.bn2")
            if shortcut == "pad":
                beside = torch.zeros_like(y)
                beside[:, : x.shape[1]] = x[:, :, ::stride, ::stride]
                y = y + beside
            x = F.relu(y)
    return F.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])


def preact_by_hand(x: Tensor, weights: dict[str, Tensor], final_norm: bool) -> Tensor:
    """Four stages of one block."""
    x = F.conv2d(x, weights["conv1.weight"], padding=1)
    for stage in (1, 2, 3, 4):
        name, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        seen = F.relu(norm(x, weights, f"{name}.bn1"))
        y = F.conv2d(seen, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = F.conv2d(F.relu(norm(y, weights, f"{name}.bn2")), weights[f"{name}.conv2.weight"], padding=1)
        if stage > 1:
            x = F.conv2d(seen, weights[f"{name}.shortcut.0.weight"], stride=stride)
        x = x + y
    if final_norm:
        x = F.relu(norm(x, weights, "bn"))
    return F.linear(x.mean((2, 3)), weights["linear.weight"], weights["linear.bias"])


HAND = {
    "cifar_resnet": (cifar_by_hand, "shortcut", ("pad", "none"), (2, 2, 2)),
    "preact_resnet18": (preact_by_hand, "final_norm", (False, True), (1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", HAND)
def test_logits_are_those_of_the_network_written_out(name):
    by_hand, argument, values, depth = HAND[name]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for value in values:
        torch.manual_seed(0)
        net = build_model(name, {"depth": depth, "width": 0.25, argument: value}, classes=10).eval()
        give_every_norm_a_history(net)
        with torch.no_grad():
            got, want = net(images), by_hand(images, net.state_dict(), value)
        assert want.std() > 1e-3
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_maps_have_32_16_and_8_pixels_and_16_32_and_64_channels():
    net = build_model("cifar_resnet20", {}, classes=10).eval()
    seen = []
    for part in (net.bn1, net.layer1, net.layer2, net.layer3):
        part.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape[1:])))
    net(torch.randn(1, 3, 32, 32))
    assert seen == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_dropout_drops_between_the_two_convolutions_of_every_block_in_training_alone():
    net = build_model("preact_resnet18", {"width": 0.25, "dropout": 0.7}, classes=10)
    inputs = {}

    def keep(name):
        def hook(_module, given):
            inputs[name] = given[0].clone()

        return hook

    for name, module in net.named_modules():
        if name.endswith("conv2"):
            module.register_forward_pre_hook(keep(name))
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    net.train()(images)
    assert len(inputs) == 8
    for given in inputs.values():
        zeros = (given == 0).float().mean().item()
        assert zeros == pytest.approx(1 - 0.3 * 0.5, abs=0.08)  # half of what the ReLU passes is 0 already
    inputs.clear()
    assert torch.equal(net.eval()(images), net(images))


def test_zero_gamma_makes_every_block_the_relu_of_its_shortcut():
    net = build_model("cifar_resnet20", {"zero_gamma": True}, classes=10).eval()
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(net.layer1[0](x), x)
    padded = net.layer2[0](x)
    assert torch.equal(padded[:, :16], x[:, :, ::2, ::2])
    assert not padded[:, 16:].any()


@pytest.mark.parametrize("name", [model.name for model in CIFAR_RESNETS])
def test_every_parameter_receives_a_finite_gradient(name):
    net = build_model(name, {"width": 0.25}, classes=10)
    net(torch.randn(4, 3, 32, 32)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "cifar_resnet20",
            {"shortcut": "B"},
            "shortcut must be 'pad' or 'conv' or 'none', got 'B'",
        ),
        ("cifar_resnet110", {"depth": [18, 18, 18, 18]}, "depth must be 1 to 3 positive integers"),
        ("preact_resnet18", {"dropout": 1}, "dropout must be a number from 0 to 0.99, got 1"),
        ("cifar_resnet20", {"stem": "deep"}, "unknown argument 'stem'"),
    ],
)
def test_what_does_not_exist_is_refused_in_words(name, args, message):
    with pytest.raises(ValueError) as caught:
        build_model(name, args, classes=10)
    assert message in str(caught.value)


def test_grey_images_need_one_input_channel():
    for name in ("cifar_resnet20", "preact_resnet18"):
        net = build_model(name, {"width": 0.25}, classes=5, in_channels=1).eval()
        assert net(torch.randn(2, 1, 28, 28)).shape == (2, 5)
        assert isinstance(net, nn.Module)
        assert find(name).input_size == 32
