"""The fully connected network of the batch norm paper's Fig. 1, each switch by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from harness.models import BN_MLPS
from harness.models.costs import count_macs
from harness.models.googlenet import BNMLP, BNMLPConfig, grey_28

MODEL = BN_MLPS[0]


def build(args: dict | None = None, *, classes: int = 10, in_channels: int = 3) -> BNMLP:
    torch.manual_seed(0)
    return MODEL.build(**MODEL.resolve(args or {}), classes=classes, in_channels=in_channels)


def images(side: int, *, count: int = 4, channels: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(count, channels, side, side, generator=draw)


@pytest.mark.parametrize(("norm", "of_each_unit"), [("none", 1), ("batch", 2)])  # a bias, or gamma and beta
def test_three_layers_of_100_units_on_784_pixels(norm, of_each_unit):
    net = build({"norm": norm})
    weights = 784 * 100 + 100 * 100 + 100 * 100 + 100 * 10
    assert sum(p.numel() for p in net.parameters()) == weights + of_each_unit * 300 + 10
    assert count_macs(net.eval(), images(28, count=1)) == weights


def test_the_network_is_sigmoid_after_an_affine_map_three_times_and_an_affine_map():
    net = build()
    x = images(28).mean(1).reshape(4, 784)
    for layer in (0, 2, 4):
        x = torch.sigmoid(x @ net.hidden[layer].weight.T + net.hidden[layer].bias)
    torch.testing.assert_close(net(images(28)), x @ net.fc.weight.T + net.fc.bias)


def test_batch_norm_stands_before_each_nonlinearity_and_replaces_the_bias():
    net = build({"norm": "batch"})
    kinds = [type(layer) for layer in net.hidden]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.Sigmoid] * 3
    assert [net.hidden[index].bias for index in (0, 3, 6)] == [None, None, None]
    assert net.fc.bias is not None
    inputs = []
    for index in (2, 5, 8):
        net.hidden[index].register_forward_hook(lambda _module, given, _output: inputs.append(given[0]))
    net.train()(5 * images(28, count=64) + 3)
    for given in inputs:
        torch.testing.assert_close(given.mean(0), torch.zeros(100), atol=1e-5, rtol=0)
        assert given.std(0, unbiased=False).max() <= 1


def test_the_activation_is_the_only_thing_that_relu_changes():
    sigmoid, relu = build(), build({"activation": "relu"})
    assert [type(layer) for layer in sigmoid.hidden] == [nn.Linear, nn.Sigmoid] * 3
    assert [type(layer) for layer in relu.hidden] == [nn.Linear, nn.ReLU] * 3
    relu.load_state_dict(sigmoid.state_dict())
    assert not torch.equal(relu(images(28)), sigmoid(images(28)))


def test_hidden_sets_the_number_of_layers_and_their_units():
    net = build({"hidden": [30, 20]})
    assert [tuple(p.shape) for p in net.parameters() if p.dim() == 2] == [(30, 784), (20, 30), (10, 20)]
    assert build({"hidden": [7]}).fc.in_features == 7


def test_colours_are_averaged_and_28_pixels_stay_as_they_are():
    x = images(28)
    torch.testing.assert_close(grey_28(x), x.mean(1, keepdim=True))
    net = build()
    torch.testing.assert_close(net(x), net(x.mean(1, keepdim=True).expand_as(x)))
    assert build(in_channels=1)(images(28, channels=1)).shape == (4, 10)


def test_larger_images_are_averaged_over_windows():
    x = images(56)
    by_hand = x.mean(1).reshape(4, 28, 2, 28, 2).mean((2, 4))
    torch.testing.assert_close(grey_28(x)[:, 0], by_hand)
    assert grey_28(images(32)).shape == (4, 1, 28, 28)


def test_the_smallest_input_trains_and_one_pixel_less_is_refused():
    args = MODEL.resolve({"norm": "batch"})
    smallest = MODEL.minimum_input(args)
    assert smallest == MODEL.input_size == 28
    net = build({"norm": "batch"}).train()
    net(images(smallest)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    with pytest.raises(ValueError, match="at least 28 pixels"):
        MODEL.check_input(args, smallest - 1)
    with pytest.raises(ValueError, match="at least 28x28 pixels, got 27x27"):
        net(images(smallest - 1))
    with pytest.raises(ValueError, match="got 28x27"):
        net(images(smallest)[..., 1:])


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_linear_layer_asks_for_a_small_gaussian(norm):
    layers = [module for module in build({"norm": norm}).modules() if isinstance(module, nn.Linear)]
    assert [layer.init_std for layer in layers] == [0.1] * 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"hidden": []}, "hidden must be 1 to 3 positive integers, none above 10000, got []"),
        ({"hidden": [100, 0]}, "hidden must be 1 to 3 positive integers"),
        ({"norm": "layer"}, "norm must be 'none' or 'batch', got 'layer'"),
        ({"activation": "tanh"}, "activation must be 'sigmoid' or 'relu', got 'tanh'"),
        ({"width": 0.5}, "unknown argument 'width'. Valid: activation, hidden, norm"),
    ],
)
def test_a_mistake_is_named_with_what_is_valid(args, message):
    with pytest.raises(ValueError) as caught:
        MODEL.resolve(args)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": ()}, "hidden must name at least one layer"),
        ({"hidden": (5, 0)}, "hidden must name at least one layer"),
        ({"norm": "bn"}, "norm must be 'none' or 'batch', got 'bn'"),
        ({"activation": "tanh"}, "activation must be 'sigmoid' or 'relu', got 'tanh'"),
    ],
)
def test_the_constructor_refuses_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        BNMLPConfig(classes=2, **wrong)
