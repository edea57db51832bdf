"""MobileNet v1: the paper's printed sizes, timm's logits, and every switch of the study."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from harness.data.torchvision_import import torchvision
from harness.models import build_model
from harness.models.costs import measure
from harness.models.mobilenet import MobileNet, MobileNetConfig
from tests.conftest import mostly_campaign

PAPERS = Path(__file__).parents[2] / "docs" / "reference" / "papers.yaml"
NETWORKS = {  # label in Tables 4 to 9 of the paper -> arguments, pixels
    "Conv MobileNet": ({"full_conv": True}, 224),
    "MobileNet": ({}, 224),
    "0.75 MobileNet": ({"width": 0.75}, 224),
    "Shallow MobileNet": ({"shallow": True}, 224),
    "1.0 MobileNet-224": ({}, 224),
    "0.75 MobileNet-224": ({"width": 0.75}, 224),
    "0.5 MobileNet-224": ({"width": 0.5}, 224),
    "0.25 MobileNet-224": ({"width": 0.25}, 224),
    "1.0 MobileNet-192": ({}, 192),
    "1.0 MobileNet-160": ({}, 160),
    "1.0 MobileNet-128": ({}, 128),
    "0.50 MobileNet-160": ({"width": 0.5}, 160),
}
NOT_COUNTED_M = {"Conv MobileNet": 1.024}  # this cell leaves out the last layer's 1024 x 1000 multiply-adds
MISPRINTED_M = {"0.50 MobileNet-160": 0.012}  # Table 9 prints 1.32 M parameters, they are 1.332 M


SHORT = ("Conv MobileNet", "Shallow MobileNet", "0.50 MobileNet-160")  # every option once


def printed() -> dict[str, tuple[float, float]]:
    """Label -> (millions of parameters, millions of multiply-adds), of the tables about MobileNets."""
    import yaml

    tables = yaml.safe_load(PAPERS.read_text())["papers"]["mobilenet_1704.04861"]["tables"]
    rows = [row for table in tables.values() for row in table["rows"] if "MobileNet" in row["label"]]
    return {row["label"]: (row["params_m"], 1000 * row["gflops"]) for row in rows if row["params_m"]}


def last_digit(value: float) -> float:
    """One unit of the last printed digit; the paper rounds some cells and cuts others."""
    return 10.0 ** -len(str(value).partition(".")[2])


def test_every_mobilenet_that_the_paper_prints_is_checked_here():
    assert set(printed()) == set(NETWORKS)


@pytest.mark.parametrize("label", mostly_campaign(sorted(NETWORKS), *SHORT))
def test_parameters_and_multiply_adds_agree_with_the_printed_cells(label):
    args, side = NETWORKS[label]
    params, macs = measure("mobilenet_v1", args, resolution=side, classes=1000)
    params_m, macs_m = printed()[label]
    assert abs(params / 1e6 - params_m) < MISPRINTED_M.get(label, last_digit(params_m))
    assert abs(macs / 1e6 - NOT_COUNTED_M.get(label, 0) - macs_m) < 1


def test_the_totals_are_the_reference_tables():
    assert measure("mobilenet_v1", {}, resolution=224, classes=1000) == (4_231_976, 568_740_352)


@pytest.mark.parametrize(("theirs", "width"), [("mobilenetv1_100", 1.0), ("mobilenetv1_125", 1.25)])
def test_same_weights_give_the_same_logits_as_timm(theirs, width):
    timm = pytest.importorskip("timm", reason="timm is the reference for MobileNet")
    assert torchvision
    torch.manual_seed(0)
    other = timm.create_model(theirs, pretrained=False, num_classes=1000)
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    ours = build_model("mobilenet_v1", {"activation": "relu6", "width": width}, classes=1000)
    ours.load_state_dict(from_timm(other.state_dict(), ours), strict=True)
    images = torch.randn(2, 3, 72, 72)  # maps of 36, 18, 9, 5 and 3 pixels
    with torch.no_grad():
        for training in (False, True):
            expected = other.train(training)(images)
            assert expected.std() > 1e-4
            torch.testing.assert_close(ours.train(training)(images), expected, rtol=1e-4, atol=1e-5)


def from_timm(theirs: dict[str, torch.Tensor], ours: nn.Module) -> dict[str, torch.Tensor]:
    """timm lists the same tensors in the same order, under other names."""
    names = list(ours.state_dict())
    assert len(names) == len(theirs)
    return dict(zip(names, theirs.values(), strict=True))


def strides(net: nn.Module) -> list[int]:
    return [conv.stride[0] for conv in net.modules() if isinstance(conv, nn.Conv2d)]


def test_the_stem_halves_and_each_later_stage_begins_with_a_stride():
    net = build_model("mobilenet_v1", {"width": 0.25}, classes=10)
    depthwise = [
        module.stride[0] for module in net.modules() if isinstance(module, nn.Conv2d) and module.groups > 1
    ]
    assert net.stem[0].stride == (2, 2)
    assert depthwise == [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]


def test_the_small_stem_gives_the_last_three_stages_grids_of_8_4_and_2():
    for stem, expected in (("large", [16, 8, 4, 2, 1]), ("small", [32, 16, 8, 4, 2])):
        net = build_model("mobilenet_v1", {"width": 0.25, "stem": stem}, classes=10).eval()
        sides: list[int] = []
        for stage in net.stages:
            stage.register_forward_hook(lambda _m, _i, out, sides=sides: sides.append(out.shape[-1]))
        net(torch.zeros(1, 3, 32, 32))
        assert sides == expected


def test_shallow_removes_the_five_blocks_of_512_channels_with_stride_1():
    whole, shallow = (
        build_model("mobilenet_v1", {"width": 0.125, "shallow": on}, classes=10) for on in (False, True)
    )
    assert [len(stage) for stage in whole.stages] == [1, 2, 2, 6, 2]
    assert [len(stage) for stage in shallow.stages] == [1, 2, 2, 1, 2]
    assert strides(shallow).count(2) == strides(whole).count(2)


def test_both_widths_multiply_every_channel_count():
    def shapes(**args: float) -> list[torch.Size]:
        return [
            tensor.shape for tensor in build_model("mobilenet_v1", args, classes=10).state_dict().values()
        ]

    assert shapes(width=0.5, base_width=0.25) == shapes(width=0.125)
    assert shapes(width=0.5) == shapes(base_width=0.5) != shapes()


def test_full_conv_has_one_standard_convolution_where_there_were_two():
    net = build_model("mobilenet_v1", {"width": 0.125, "full_conv": True}, classes=10)
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 1 + 13
    assert {(conv.kernel_size, conv.groups) for conv in convs} == {((3, 3), 1)}
    assert strides(net) == [2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]


@pytest.mark.parametrize("args", [{}, {"full_conv": True}, {"shallow": True, "stem": "small"}])
def test_every_parameter_receives_a_finite_gradient(args):
    torch.manual_seed(0)
    net = build_model("mobilenet_v1", {"width": 0.25, **args}, classes=10)
    net(torch.randn(8, 3, 64, 64)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in net.parameters())


def test_activation_is_relu_unless_relu6_is_asked_for():
    for args, kind in (({}, nn.ReLU), ({"activation": "relu6"}, nn.ReLU6)):
        net = build_model("mobilenet_v1", {"width": 0.125, **args}, classes=2)
        acts = {type(module) for module in net.modules() if "ReLU" in type(module).__name__}
        assert acts == {kind}


@pytest.mark.parametrize("depth", [[1, 1, 1, 1, 1], [1, 2, 2]])
def test_a_shallow_network_that_would_be_the_whole_one_is_refused(depth):
    with pytest.raises(ValueError) as caught:
        build_model("mobilenet_v1", {"shallow": True, "depth": depth}, classes=2)
    assert str(caught.value) == (
        "mobilenet_v1: shallow removes the blocks of stride 1 of stage 4, and "
        f"depth {depth} leaves none there: give that stage 2 or more"
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": (1,) * 6}, "depth must name 1 to 5 stages, got 6"),
        ({"activation": "elu"}, "activation must be 'relu' or 'relu6', got 'elu'"),
        ({"stem": "tiny"}, "stem must be 'large' or 'small', got 'tiny'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValueError) as caught:
        MobileNet(MobileNetConfig(classes=2, **wrong))
    assert str(caught.value) == message
