"""BN-Inception: the paper's figure to the unit in both layouts, its rows by hand, each switch by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from harness.models import BN_INCEPTIONS
from harness.models.costs import count_macs
from harness.models.googlenet import FIGURE_5, BNInception, BNInceptionConfig

PAPERS = yaml.safe_load((Path(__file__).parents[2] / "docs" / "reference" / "papers.yaml").read_text())
ROWS = PAPERS["papers"]["batch_norm_1502.03167"]["tables"]["figure5"]["rows"]
COLUMNS = ("p1x1", "r3x3", "n3x3", "rdbl", "ndbl", "pool", "proj")
PRINTED = {row["block"].split()[0]: tuple(row[column] for column in COLUMNS) for row in ROWS}
STRIDED = {row["block"].split()[0] for row in ROWS if "/2" in row["block"]}
OUTPUTS = {row["block"].split()[0]: int(row["printed_output"].split()[0].split("x")[2]) for row in ROWS}
SIDES = {"3": 28, "4": 14, "5": 7}  # at 224 pixels, of a block's input
MODEL = BN_INCEPTIONS[0]
MINI = {"depth": (1, 1, 1), "width": 0.25, "stem": "small"}
FIG5 = {"layout": "fig5"}


def build(args: dict | None = None, *, classes: int = 10, in_channels: int = 3) -> BNInception:
    torch.manual_seed(0)
    return MODEL.build(**MODEL.resolve(args or {}), classes=classes, in_channels=in_channels)


def images(side: int, *, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in net.state_dict().items()}


def of_type(net: nn.Module, kind: type) -> list[str]:
    return [name for name, module in net.named_modules() if isinstance(module, kind)]


# The table and the costs


def test_the_table_is_the_reference_files():
    assert {name: tuple(row) for stage in FIGURE_5 for name, row in stage.items()} == PRINTED
    assert [len(stage) for stage in FIGURE_5] == [3, 5, 2]
    assert {name for stage in FIGURE_5 for name, row in stage.items() if not row.n1x1} == STRIDED


def parts_by_hand(layout: str) -> list[tuple[int, int, int]]:
    """(weights, output channels, side of the output at 224 pixels) of every convolution."""
    parts = [(64 * 64, 64, 56), (9 * 64 * 192, 192, 56)]
    if layout == "slim":  # 2,712 weights, the 2.7 K that GoogLeNet's table prints
        parts += [(7 * 7 * 3 * 8, 0, 112), (3 * 8 * 64, 64, 112)]
    else:
        parts += [(7 * 7 * 3 * 64, 64, 112)]
    inputs = 192
    for name, (n1, r3, n3, reduce_double, double, _pool, projection) in PRINTED.items():
        side = SIDES[name[0]]
        after = side // 2 if name in STRIDED else side
        if layout == "slim" and name in ("4c", "4d"):
            projection = 96
        parts += [(inputs * c, c, side) for c in (n1, r3, reduce_double, projection)]
        parts += [(9 * r3 * n3, n3, after), (9 * reduce_double * double, double, side)]
        parts += [(9 * double * double, double, after)]
        inputs = n1 + n3 + double + (inputs if name in STRIDED else projection)
        if layout == "slim":
            assert inputs == OUTPUTS[name] or name in ("3a", "3b"), name
    assert inputs == 1024
    return parts


@pytest.mark.parametrize(
    ("variant", "parameters", "multiply_adds"),
    [
        ("bn_inception_slim_sepconv", 11_188_288, 1_934_857_216),
        ("bn_inception_fig5_pool128", 11_285_224, 2_032_600_064),
    ],
)
def test_parameters_and_multiply_adds_are_the_figures_to_the_unit(variant, parameters, multiply_adds):
    args = MODEL.variants[variant]
    with torch.device("meta"):
        net = build(args, classes=1000).eval()
        macs = count_macs(net, torch.empty(1, 3, 224, 224))
    counted = sum(parameter.numel() for parameter in net.parameters())
    parts = parts_by_hand(args.get("layout", "slim"))
    linear = 1024 * 1000
    assert counted == sum(w + 2 * c for w, c, _ in parts) + linear + 1000 == parameters
    assert macs == sum(weights * side**2 for weights, _, side in parts) + linear == multiply_adds
    reference = next(row for row in PAPERS["model_costs"]["rows"] if row["model"] == variant)
    assert (round(counted / 1e6, 3), round(macs / 1e9, 3)) == (reference["params_m"], reference["gmacs"])


# The computation


def papers_network_by_hand(net: BNInception, x: Tensor) -> Tensor:
    """Fig. 5 row by row in evaluation mode: convolution, batch norm, ReLU everywhere."""
    weights = net.state_dict()

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = (weights[f"{name}.bn.running_{each}"][:, None, None] for each in ("mean", "var"))
        gamma, beta = (weights[f"{name}.bn.{each}"][:, None, None] for each in ("weight", "bias"))
        return (gamma * (x - mean) / (var + 1e-3).sqrt() + beta).relu()

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    depthwise = weights["stem.conv1.depthwise.weight"]
    x = F.conv2d(x, depthwise, stride=2, padding=3, groups=3)
    x = pool(conv("stem.conv1.pointwise", x))
    x = pool(conv("stem.conv3", conv("stem.conv2", x)))
    for name, row in PRINTED.items():
        at = f"inception.{name}.branch"
        stride = 2 if name in STRIDED else 1
        three = conv(f"{at}2_2", conv(f"{at}2_1", x), stride)
        double = conv(f"{at}3_3", conv(f"{at}3_2", conv(f"{at}3_1", x)), stride)
        if row[5] == "avg":
            around = F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
        else:
            around = F.max_pool2d(x, 3, stride, padding=1)
        if name in STRIDED:
            x = torch.cat([three, double, around], 1)
        else:
            x = torch.cat([conv(f"{at}1", x), three, double, conv(f"{at}4", around)], 1)
    return F.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])


@pytest.mark.parametrize("side", [96, 76])  # grids 12, 6, 3 and 10, 5, 3
def test_the_network_computes_the_papers_rows(side):
    net = build({"width": 0.25}).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.1, 0.5)
    with torch.no_grad():
        expected = papers_network_by_hand(net, images(side))
        assert expected.std() > 1e-2
        torch.testing.assert_close(net(images(side)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("stem", "side", "grids"),
    [("large", 224, [28, 14, 7]), ("large", 32, [4, 2, 1]), ("small", 32, [8, 4, 2])],
)
def test_sides_of_the_grids(stem, side, grids):
    with torch.device("meta"):
        net = build({"width": 0.25, "stem": stem}).eval()
        sides = []
        for block in net.inception:
            block.register_forward_hook(lambda _module, _inputs, output: sides.append(output.shape[-1]))
        assert net(torch.empty(2, 3, side, side)).shape == (2, 10)
    first, second, third = grids
    assert sides == [first] * 2 + [second] * 5 + [third] * 3


# The switches


def same_weights(args: dict, other: dict) -> tuple[BNInception, BNInception]:
    first, second = build(args).eval(), build(other).eval()
    second.load_state_dict(first.state_dict())
    return first, second


def test_the_layouts_differ_in_the_first_convolution_and_two_projections_and_what_reads_them():
    with torch.device("meta"):
        slim, fig5 = shapes(build()), shapes(build(FIG5))
    moved = {name for name in slim.keys() ^ fig5.keys() if not name.startswith("stem.conv1.")}
    assert moved == set()
    of_weights = {name for name in slim.keys() & fig5.keys() if slim[name] != fig5[name]}
    blocks = {tuple(name.split(".")[1:3]) for name in of_weights}
    made = {("4c", "branch4"), ("4d", "branch4")}
    read = {(block, f"branch{each}") for block in ("4d", "5a") for each in ("1", "2_1", "3_1", "4")}
    read |= {("4e", "branch2_1"), ("4e", "branch3_1")}
    assert blocks == made | read
    assert (fig5["inception.5a.branch1.conv.weight"][1], slim["inception.5a.branch1.conv.weight"][1]) == (
        1056,
        1024,
    )


def test_without_batch_norm_every_convolution_has_a_bias_but_the_depthwise_one():
    plain, normed = build({**MINI, "norm": "none"}), build(MINI)
    convolutions = [name for name in of_type(plain, nn.Conv2d) if not name.endswith("depthwise")]
    added = {name for name in plain.state_dict() if name not in normed.state_dict()}
    assert added == {f"{name}.bias" for name in convolutions}
    norms = of_type(normed, nn.BatchNorm2d)
    assert norms == [name.removesuffix("conv") + "bn" for name in convolutions]
    assert {normed.get_submodule(name).eps for name in norms} == {1e-3}
    assert not of_type(plain, nn.BatchNorm2d)


@pytest.mark.parametrize("layout", ["slim", "fig5"])
def test_sigmoid_stands_wherever_relu_did(layout):
    relu, sigmoid = same_weights(
        {**MINI, "layout": layout}, {**MINI, "layout": layout, "activation": "sigmoid"}
    )
    assert shapes(relu) == shapes(sigmoid)
    assert of_type(relu, nn.ReLU) == of_type(sigmoid, nn.Sigmoid)
    assert len(of_type(relu, nn.ReLU)) == sum(isinstance(module, nn.BatchNorm2d) for module in relu.modules())
    assert not of_type(sigmoid, nn.ReLU)
    assert not of_type(relu, nn.Sigmoid)
    features = []
    sigmoid.inception.register_forward_hook(lambda _module, _inputs, output: features.append(output))
    assert not torch.equal(relu(images(32)), sigmoid(images(32)))
    assert features[0].min() >= 0
    assert features[0].max() <= 1


def test_response_normalisation_stands_where_googlenet_has_it_and_is_off_by_default():
    default, normed = same_weights(MINI, {**MINI, "lrn": True})
    assert shapes(default) == shapes(normed)
    loud = 100 * images(32)
    assert not torch.allclose(default(loud), normed(loud), rtol=1e-3)
    seen = []
    normed.stem.lrn.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    normed(loud)
    assert [tuple(x.shape[1:]) for x in seen] == [(16, 8, 8), (48, 8, 8)]
    normed.stem.lrn = nn.Identity()
    assert torch.equal(default(loud), normed(loud))


def test_dropout_is_off_by_default_and_acts_in_training_alone():
    default, dropped = same_weights(MINI, {**MINI, "dropout": 0.4})
    assert [net.dropout.p for net in (default, dropped)] == [0.0, 0.4]
    assert torch.equal(default(images(32)), dropped(images(32)))
    default.train()
    dropped.train()
    assert not torch.equal(default(images(32)), dropped(images(32)))


def test_the_small_stem_leaves_out_the_second_pool_alone():
    large, small = same_weights({**MINI, "stem": "large"}, MINI)
    assert shapes(large) == shapes(small)
    large.stem.maxpool2 = nn.Identity()
    assert torch.equal(large(images(32)), small(images(32)))


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        ((3, 5, 2), ["3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]),
        ((2, 3, 1), ["3a", "3c", "4a", "4b", "4e", "5a"]),
        ((1, 1, 1), ["3c", "4e", "5a"]),
    ],
)
def test_depth_keeps_the_first_blocks_and_always_the_strided_ones(depth, blocks):
    net = build({"depth": depth, "width": 0.25})
    assert [name for name, _ in net.inception.named_children()] == blocks


@pytest.mark.parametrize("args", [{}, FIG5])
def test_width_multiplies_every_channel_count(args):
    def channels(width: float) -> list[int]:
        with torch.device("meta"):
            net = build({"width": width, **args})
        return [conv.out_channels for conv in net.modules() if isinstance(conv, nn.Conv2d)]

    assert channels(0.25) == [count // 4 for count in channels(1.0)]
    assert min(channels(1 / 32)) == 1


# What may go in


@pytest.mark.parametrize("args", [{}, {"stem": "small"}, {**FIG5, "norm": "none", "lrn": True}])
def test_the_smallest_input_trains_and_one_pixel_less_is_refused(args):
    args = MODEL.resolve({"width": 0.125, **args})
    smallest = MODEL.minimum_input(args)
    net = build(args).train()
    net(images(smallest)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    MODEL.check_input(args, smallest)
    with pytest.raises(ValueError, match=f"at least {smallest} pixels"):
        MODEL.check_input(args, smallest - 1)
    with pytest.raises(RuntimeError, match="Output size is too small"):
        net(images(smallest - 1))


@pytest.mark.parametrize(
    "args",
    [
        MINI,
        {**MINI, **FIG5, "norm": "none", "lrn": True},
        {**MINI, "depth": (2, 2, 2), "activation": "sigmoid"},
    ],
)
def test_every_parameter_receives_a_finite_gradient(args):
    net = build(args).train()
    net(images(32, count=16)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("args", [{}, {**FIG5, "norm": "none", "activation": "sigmoid", "lrn": True}])
def test_one_image_of_the_papers_size_trains(args):
    net = build(args, classes=1000).train()
    logits = net(images(224, count=1))
    assert isinstance(logits, Tensor)
    assert logits.shape == (1, 1000)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_mini_costs_about_2_5_million_multiply_adds():
    assert 2e6 < count_macs(build(MINI).eval(), images(32, count=1)) < 2.6e6


@pytest.mark.parametrize("args", [MINI, {**MINI, **FIG5}])
def test_grey_images_need_one_input_channel(args):
    net = build(args, in_channels=1).eval()
    assert net(torch.randn(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {"depth": [4, 5, 2]},
            "depth must be 3 whole numbers, the blocks kept of each stage (1 to 3, 1 to 5",
        ),
        ({"layout": "figure5"}, "layout must be 'slim' or 'fig5', got 'figure5'"),
        ({"norm": "nome"}, "norm must be 'batch' or 'none', got 'nome'"),
        ({"activation": "tanh"}, "activation must be 'relu' or 'sigmoid', got 'tanh'"),
        ({"lrn": 1}, "lrn must be true or false, got 1"),
        ({"auxiliary": "plain"}, "unknown argument 'auxiliary'"),
    ],
)
def test_a_mistake_is_named_with_what_is_valid(args, message):
    with pytest.raises(ValueError) as caught:
        MODEL.resolve(args)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": (0, 5, 2)}, r"\(1 to 3, 1 to 5, 1 to 2\), got \(0, 5, 2\)"),
        ({"stem": "tiny"}, "stem must be 'large' or 'small', got 'tiny'"),
        ({"layout": "caffe"}, "layout must be 'slim' or 'fig5', got 'caffe'"),
        ({"norm": "bn"}, "norm must be 'batch' or 'none', got 'bn'"),
        ({"activation": "tanh"}, "activation must be 'relu' or 'sigmoid', got 'tanh'"),
    ],
)
def test_the_constructor_refuses_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        BNInceptionConfig(classes=2, **wrong)
