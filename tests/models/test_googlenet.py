"""GoogLeNet: the paper's table to the unit, torchvision's network by its weights, each switch by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data.torchvision_import import torchvision
from harness.models import GOOGLENETS
from harness.models.blocks import Branches, Outputs
from harness.models.costs import count_macs
from harness.models.googlenet import TABLE_1, GoogLeNet, GoogLeNetConfig, LocalResponse, four_by_four

PAPERS = yaml.safe_load((Path(__file__).parents[2] / "docs" / "reference" / "papers.yaml").read_text())
ROWS = PAPERS["papers"]["googlenet_1409.4842"]["tables"]["table1"]["rows"]
COLUMNS = ("p1x1", "r3x3", "n3x3", "r5x5", "n5x5", "proj")
PRINTED = {row["block"]: tuple(row[column] for column in COLUMNS) for row in ROWS}
MODEL = GOOGLENETS[0]
BN = MODEL.variants["googlenet_bn"]
MINI = {"depth": (1, 1, 1), "width": 0.25, "stem": "small"}


def build(args: dict | None = None, *, classes: int = 10, in_channels: int = 3) -> GoogLeNet:
    torch.manual_seed(0)
    return MODEL.build(**MODEL.resolve(args or {}), classes=classes, in_channels=in_channels)


def give_every_norm_a_history(net: nn.Module) -> None:
    """Untrained batch norms are alike; trained ones would show a swapped pair."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)


def images(side: int, *, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in net.state_dict().items()}


# The table and the costs


def test_the_table_is_the_reference_files():
    assert {name: row for stage in TABLE_1 for name, row in stage.items()} == PRINTED
    assert [list(stage) for stage in TABLE_1] == [["3a", "3b"], ["4a", "4b", "4c", "4d", "4e"], ["5a", "5b"]]


def weights_of_block(inputs: int, row: tuple[int, ...]) -> int:
    """Kernel area x inputs x outputs, summed over the six convolutions of a block."""
    n1, r3, n3, r5, n5, projection = row
    return inputs * (n1 + r3 + r5 + projection) + 9 * r3 * n3 + 25 * r5 * n5


def convolutions_by_hand() -> list[tuple[int, int, int]]:
    """(weights, output channels, side of the output at 224 pixels) of the stem and of each block."""
    parts = [(7 * 7 * 3 * 64, 64, 112), (64 * 64, 64, 56), (9 * 64 * 192, 192, 56)]
    inputs = 192
    for name, row in PRINTED.items():
        parts.append((weights_of_block(inputs, row), sum(row), {"3": 28, "4": 14, "5": 7}[name[0]]))
        inputs = row[0] + row[2] + row[4] + row[5]
    assert inputs == 1024
    return parts


@pytest.mark.parametrize(
    ("variant", "of_each_channel", "in_all"),
    [("googlenet_paper", 1, 6_998_552), ("googlenet_bn", 2, 7_005_832)],  # a bias, or gamma and beta
)
def test_parameters_and_multiply_adds_are_the_tables_to_the_unit(variant, of_each_channel, in_all):
    with torch.device("meta"):
        net = build(MODEL.variants[variant], classes=1000).eval()
        macs = count_macs(net, torch.empty(1, 3, 224, 224))
    inference = sum(p.numel() for name, p in net.named_parameters() if not name.startswith("aux"))
    parts = convolutions_by_hand()
    linear = 1024 * 1000
    assert inference == sum(w + of_each_channel * c for w, c, _ in parts) + linear + 1000 == in_all
    assert macs == sum(weights * side**2 for weights, _, side in parts) + linear == 1_582_671_872
    reference = next(row for row in PAPERS["model_costs"]["rows"] if row["model"] == variant)
    assert (round(inference / 1e6, 3), round(macs / 1e9, 3)) == (reference["params_m"], reference["gmacs"])


def test_each_block_has_as_many_weights_as_the_reference_recomputed():
    with torch.device("meta"):
        net = build()
    for row in ROWS:
        block = net.get_submodule(f"inception{row['block']}")
        weights = sum(p.numel() for p in block.parameters() if p.dim() == 4)
        assert round(weights / 1024, 1) == row["recomputed_params_k1024"], row["block"]


def test_the_two_auxiliary_heads_have_6_380_million_parameters():
    with torch.device("meta"):
        net = build(classes=1000)
    heads = sum(p.numel() for name, p in net.named_parameters() if name.startswith("aux"))
    shared = 128 + (128 * 16 * 1024 + 1024) + (1024 * 1000 + 1000)
    assert heads == 512 * 128 + 528 * 128 + 2 * shared == 6_379_728


# The computation


def torchvisions_names(name: str) -> str:
    """Our name of a weight -> torchvision's."""
    name = name.removeprefix("stem.")
    for ours, theirs in (
        ("branch2_1", "branch2.0"),
        ("branch2_2", "branch2.1"),
        ("branch3_1", "branch3.0"),
        ("branch3_2", "branch3.1"),
        ("branch4", "branch4.1"),
    ):
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parametrize("side", [64, 75])  # grids 8, 4, 2 and, all odd or adapted, 9, 4, 2
def test_same_weights_give_torchvisions_logits_in_all_three_heads(side):
    torch.manual_seed(0)
    theirs = torchvision.models.GoogLeNet(num_classes=10, init_weights=False, dropout=0.0, dropout_aux=0.0)
    give_every_norm_a_history(theirs)
    ours = build({**BN, "five": "3x3", "dropout": 0.0})
    ours.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
    for head in (ours.aux1, ours.aux2):
        head.dropout.p = 0.0
    weights = theirs.state_dict()
    assert {torchvisions_names(name) for name in ours.state_dict()} == set(weights)
    ours.load_state_dict({name: weights[torchvisions_names(name)] for name in ours.state_dict()})
    with torch.no_grad():
        expected = theirs.train()(images(side))
        answer = ours.train()(images(side))
        assert expected.logits.std() > 1e-3
        torch.testing.assert_close(answer.logits, expected.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(answer.auxiliary[0], expected.aux_logits1, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(answer.auxiliary[1], expected.aux_logits2, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            ours.eval()(images(side)), theirs.eval()(images(side)), rtol=1e-4, atol=1e-5
        )


def papers_network_by_hand(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Table 1 row by row with Caffe's response normalisation; ReLU after every convolution."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"]
        return F.conv2d(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2).relu()

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def norm(x: Tensor) -> Tensor:
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)

    x = norm(pool(conv("stem.conv1", x, stride=2)))
    x = pool(norm(conv("stem.conv3", conv("stem.conv2", x))))
    for name in PRINTED:
        at = f"inception{name}.branch"
        x = pool(x) if name in ("4a", "5a") else x
        three, five = conv(f"{at}2_1", x), conv(f"{at}3_1", x)
        around = F.max_pool2d(x, 3, stride=1, padding=1)
        paths = [conv(f"{at}1", x), conv(f"{at}2_2", three), conv(f"{at}3_2", five), conv(f"{at}4", around)]
        x = torch.cat(paths, 1)
    return F.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])


def test_the_network_computes_the_papers_rows():
    net = build({"width": 0.25}).eval()
    assert net.inception3a.branch3_2.conv.kernel_size == (5, 5)
    loud = 20 * images(72)  # so loud that response normalisation shows
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        expected = papers_network_by_hand(net.state_dict(), loud)
        assert expected.std() > 1e-2
        torch.testing.assert_close(net(loud), expected, rtol=1e-4, atol=1e-4)


def test_response_normalisation_is_torchs_and_has_its_gradient():
    x = (30 * torch.randn(2, 7, 3, 4)).requires_grad_()
    ours, theirs = LocalResponse()(x), nn.LocalResponseNorm(5)(x)
    assert (theirs - x).abs().max() > 0.1
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_auxiliary_heads_pool_5x5_with_stride_3_at_14_and_to_4x4_everywhere():
    for side in range(1, 20):
        assert four_by_four(torch.randn(2, 3, side, side)).shape == (2, 3, 4, 4), side
    x = torch.randn(2, 3, 14, 14)
    torch.testing.assert_close(four_by_four(x)[..., 1, 3], x[..., 3:8, 9:14].mean((2, 3)))
    for side in (4, 7, 8, 12):
        x = torch.randn(2, 3, side, side)
        torch.testing.assert_close(four_by_four(x), F.adaptive_avg_pool2d(x, 4))


@pytest.mark.parametrize(
    ("depth", "fed_by"),
    [
        ((2, 5, 2), ("4a", "4d")),
        ((1, 4, 1), ("4a", "4d")),
        ((1, 2, 1), ("4a", "4b")),
        ((1, 1, 1), ("4a", "4a")),
    ],
)
def test_heads_stand_after_the_first_and_the_fourth_or_last_block(depth, fed_by):
    net = build({**MINI, "depth": depth})
    seen = {}

    def keep(name: str):
        return lambda _module, inputs, output: seen.update({name: (inputs[0], output)})

    for name, module in net.named_children():
        module.register_forward_hook(keep(name))
    answer = net.train()(images(32))
    assert isinstance(answer, Outputs)
    assert len(answer.auxiliary) == 2
    for head, block in zip(("aux1", "aux2"), fed_by, strict=True):
        assert torch.equal(seen[head][0], seen[f"inception{block}"][1])
    assert isinstance(net.eval()(images(32)), Tensor)


@pytest.mark.parametrize(
    ("stem", "side", "grids"),
    [("large", 224, [28, 14, 7]), ("large", 32, [4, 2, 1]), ("small", 32, [8, 4, 2])],
)
def test_sides_of_the_grids(stem, side, grids):
    with torch.device("meta"):
        net = build({"width": 0.25, "stem": stem}).eval()
        sides = []
        for name in ("3a", "3b", "4a", "4e", "5a", "5b"):
            block = net.get_submodule(f"inception{name}")
            block.register_forward_hook(lambda _module, _inputs, output: sides.append(output.shape[-1]))
        assert net(torch.empty(2, 3, side, side)).shape == (2, 10)
    assert sides == [grids[0], grids[0], grids[1], grids[1], grids[2], grids[2]]


# The switches


def same_weights(args: dict, other: dict) -> tuple[GoogLeNet, GoogLeNet]:
    first, second = build(args).eval(), build(other).eval()
    weights = first.state_dict()
    second.load_state_dict({name: weights[name] for name in second.state_dict()})
    return first, second


def test_without_response_normalisation_nothing_else_changes():
    with_it, without = same_weights(MINI, {**MINI, "lrn": False})
    x = 100 * images(32)
    assert shapes(with_it) == shapes(without)
    assert not torch.allclose(with_it(x), without(x), rtol=1e-3)
    with_it.stem.lrn = nn.Identity()
    assert torch.equal(with_it(x), without(x))


def test_without_auxiliary_heads_the_logits_are_the_same():
    with_them, without = same_weights(MINI, {**MINI, "auxiliary": "none"})
    lost = set(with_them.state_dict()) - set(without.state_dict())
    assert lost
    assert all(name.startswith(("aux1.", "aux2.")) for name in lost)
    assert torch.equal(with_them(images(32)), without(images(32)))
    assert isinstance(without.train()(images(32)), Tensor)


def test_dropout_is_the_main_heads_share_and_the_auxiliary_ones_keep_theirs():
    default, none = same_weights(MINI, {**MINI, "dropout": 0.0})
    assert [net.dropout.p for net in (default, none)] == [0.4, 0.0]
    assert {head.dropout.p for net in (default, none) for head in (net.aux1, net.aux2)} == {0.7}
    assert torch.equal(default(images(32)), none(images(32)))
    plain = none.train()(images(32)).logits
    assert torch.equal(plain, none(images(32)).logits)
    assert not torch.equal(default.train()(images(32)).logits, plain)


def test_batch_norm_replaces_each_convolutions_bias():
    plain, normed = build(MINI), build({**MINI, "norm": "batch"})
    convolutions = [name for name, module in plain.named_modules() if isinstance(module, nn.Conv2d)]
    changed = {name for name in plain.state_dict() if name not in normed.state_dict()}
    assert changed == {f"{name}.bias" for name in convolutions}
    added = [name for name, module in normed.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert added == [name.removesuffix("conv") + "bn" for name in convolutions]
    assert {normed.get_submodule(name).eps for name in added} == {1e-3}


def test_five_changes_the_kernel_of_the_third_branch_alone():
    five, three = shapes(build(MINI)), shapes(build({**MINI, "five": "3x3"}))
    changed = {name: (five[name][-1], three[name][-1]) for name in five if five[name] != three[name]}
    assert changed == {f"inception{name}.branch3_2.conv.weight": (5, 3) for name in ("3a", "4a", "5a")}


def test_the_small_stem_leaves_out_the_second_pool_alone():
    large, small = same_weights({**MINI, "stem": "large"}, MINI)
    assert shapes(large) == shapes(small)
    large.stem.maxpool2 = nn.Identity()
    assert torch.equal(large(images(32)), small(images(32)))


def test_depth_keeps_the_first_blocks_of_each_stage():
    net = build({"depth": [1, 3, 2], "width": 0.25})
    blocks = [name for name, module in net.named_children() if isinstance(module, Branches)]
    assert blocks == [f"inception{name}" for name in ("3a", "4a", "4b", "4c", "5a", "5b")]


def test_width_multiplies_every_channel_count():
    def channels(width: float) -> list[int]:
        with torch.device("meta"):
            net = build({"width": width})
        hidden = [net.aux1.fc1.out_features, net.aux2.fc1.out_features]
        return hidden + [conv.out_channels for conv in net.modules() if isinstance(conv, nn.Conv2d)]

    assert channels(0.25) == [count // 4 for count in channels(1.0)]
    assert min(channels(1 / 32)) == 1


# What may go in


@pytest.mark.parametrize("args", [{}, {"stem": "small"}, {**BN}, {**BN, "stem": "small"}])
def test_the_smallest_input_trains_and_one_pixel_less_is_refused(args):
    args = MODEL.resolve({"width": 0.125, **args})
    smallest = MODEL.minimum_input(args)
    net = build(args).train()
    answer = net(images(smallest))
    sum(logits.sum() for logits in (answer.logits, *answer.auxiliary)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    MODEL.check_input(args, smallest)
    with pytest.raises(ValueError, match=f"at least {smallest} pixels"):
        MODEL.check_input(args, smallest - 1)
    with pytest.raises(RuntimeError, match="Output size is too small"):
        net(images(smallest - 1))


@pytest.mark.parametrize("args", [MINI, {**MINI, **BN}, {"stem": "small", "width": 0.25}])
def test_every_parameter_receives_a_finite_gradient(args):
    net = build(args).train()
    answer = net(images(32, count=16))
    sum(logits.logsumexp(1).sum() for logits in (answer.logits, *answer.auxiliary)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


def test_one_image_of_the_papers_size_trains():
    net = build(classes=1000).train()
    answer = net(images(224, count=1))
    assert [tuple(logits.shape) for logits in (answer.logits, *answer.auxiliary)] == [(1, 1000)] * 3
    sum(logits.logsumexp(1).sum() for logits in (answer.logits, *answer.auxiliary)).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_mini_costs_at_most_2_5_million_multiply_adds():
    net = build(MINI).eval()
    assert count_macs(net, images(32, count=1)) <= 2.5e6


def test_grey_images_need_one_input_channel():
    net = build(MINI, in_channels=1).eval()
    assert net(torch.randn(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {"depth": [3, 5, 2]},
            "depth must be 3 whole numbers, the blocks kept of each stage (1 to 2, 1 to 5",
        ),
        ({"depth": [1, 1]}, "depth must be 3 whole numbers"),
        ({"depth": [1, 0, 1]}, "depth must be 3 whole numbers"),
        ({"depth": [1, True, 1]}, "depth must be 3 whole numbers"),
        ({"depth": 3}, "depth must be 3 whole numbers"),
        ({"width": 0.01}, "width must be a number from 0.03125 to 16, got 0.01"),
        ({"stem": "tiny"}, "stem must be 'large' or 'small', got 'tiny'"),
        ({"norm": "layer"}, "norm must be 'none' or 'batch', got 'layer'"),
        ({"auxiliary": "bn"}, "auxiliary must be 'plain' or 'none', got 'bn'"),
        ({"five": 5}, "five must be '5x5' or '3x3', got 5"),
        ({"dropout": 1.0}, "dropout must be a number from 0 to 0.99, got 1.0"),
        ({"lrm": True}, "unknown argument 'lrm'; did you mean 'lrn'?"),
    ],
)
def test_a_mistake_is_named_with_what_is_valid(args, message):
    with pytest.raises(ValueError) as caught:
        MODEL.resolve(args)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": (2, 6, 2)}, r"blocks kept of each stage \(1 to 2, 1 to 5, 1 to 2\), got \(2, 6, 2\)"),
        ({"depth": (2, 5)}, r"got \(2, 5\)"),
        ({"stem": "tiny"}, "stem must be 'large' or 'small', got 'tiny'"),
        ({"norm": "bn"}, "norm must be 'none' or 'batch', got 'bn'"),
        ({"auxiliary": "bn"}, "auxiliary must be 'plain' or 'none', got 'bn'"),
        ({"five": "7x7"}, "five must be '5x5' or '3x3', got '7x7'"),
    ],
)
def test_the_constructor_refuses_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        GoogLeNetConfig(classes=2, **wrong)
