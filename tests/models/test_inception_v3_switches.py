"""Inception-v3: each switch changes what it says and nothing else."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from harness.models import INCEPTIONS_V3
from harness.models.blocks import Outputs, initialise
from tests.models.inception import MINI, build, images, macs, output_shapes, shapes, sides, trains, unbuilt

(MODEL,) = INCEPTIONS_V3
V2 = MODEL.variants["inception_v2"]
ONE_OF_EACH = {"depth": (1, 1, 1)}
TABLE_2 = {"stride2_pool": 299, "stride1_pool": 151, "stride1": 79}  # first layer -> pixels


def changed(args: dict) -> tuple[set[str], set[str], set[str]]:
    """Weights that a switch removes, adds and reshapes in the network of the defaults."""
    before, after = shapes(unbuilt(MODEL, {})), shapes(unbuilt(MODEL, args))
    both = before.keys() & after.keys()
    return (
        before.keys() - after.keys(),
        after.keys() - before.keys(),
        {name for name in both if before[name] != after[name]},
    )


@pytest.mark.parametrize("five", ["two_3x3", "two_3x3_linear"])
def test_two_3x3_convolutions_stand_where_the_5x5_was_and_nothing_else_changes(five):
    removed, added, reshaped = changed({"five": five})
    blocks = ("Mixed_5b", "Mixed_5c", "Mixed_5d")
    assert not removed
    assert reshaped == {f"{block}.branch5x5_2.conv.weight" for block in blocks}
    assert {name.rsplit(".", 2)[0] for name in added} == {f"{block}.branch5x5_3" for block in blocks}
    net = unbuilt(MODEL, {"five": five})
    assert net.Mixed_5b.branch5x5_2.conv.weight.shape == (64, 48, 3, 3)
    assert net.Mixed_5b.branch5x5_3.conv.weight.shape == (64, 64, 3, 3)


def test_linear_leaves_out_the_relu_between_the_two_and_no_other():
    def smallest(five: str) -> dict[str, float]:
        net, seen = build(MODEL, {**MINI, "five": five}), {}
        for name in ("branch5x5_1", "branch5x5_2", "branch5x5_3", "branch1x1", "branch3x3dbl_2"):
            unit = getattr(net.Mixed_5b, name)
            unit.register_forward_hook(
                lambda _module, _inputs, out, name=name: seen.update({name: out.min().item()})
            )
        net.train()(images(32))
        return seen

    assert all(value == 0 for value in smallest("two_3x3").values())
    linear = smallest("two_3x3_linear")
    assert linear.pop("branch5x5_2") < -0.5  # a batch norm remains, so values are spread around 0
    assert all(value == 0 for value in linear.values())
    assert shapes(unbuilt(MODEL, {"five": "two_3x3_linear"})) == shapes(unbuilt(MODEL, {"five": "two_3x3"}))


def test_without_asymmetric_convolutions_every_kernel_is_square_and_blocks_keep_their_outputs():
    def kernels(net: nn.Module) -> set[tuple[int, int]]:
        return {module.kernel_size for module in net.modules() if isinstance(module, nn.Conv2d)}

    rows_and_columns, squares = unbuilt(MODEL, {}), unbuilt(MODEL, {"asymmetric": False})
    assert kernels(rows_and_columns) == {(1, 1), (3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1)}
    assert kernels(squares) == {(1, 1), (3, 3), (5, 5), (7, 7)}
    for name in squares.trunk[7:]:
        assert getattr(squares, name).outputs == getattr(rows_and_columns, name).outputs
    assert sides(squares, 299) == sides(rows_and_columns, 299)
    touched = {name.split(".")[0] for names in changed({"asymmetric": False}) for name in names}
    assert touched == {f"Mixed_{block}" for block in ("6b", "6c", "6d", "6e", "7a", "7b", "7c")}
    convolutions = {name: tuple(unit.conv.weight.shape) for name, unit in squares.Mixed_6b.named_children()
                    if name.startswith("branch7x7dbl")}  # fmt: skip
    assert convolutions == {
        "branch7x7dbl_1": (128, 768, 1, 1),
        "branch7x7dbl_2": (128, 128, 7, 7),
        "branch7x7dbl_3": (192, 128, 7, 7),
    }
    assert squares.Mixed_7b.branch3x3_2.conv.weight.shape == (768, 384, 3, 3)


def test_factorized_7x7_changes_the_first_convolutions_and_nothing_else():
    removed, added, reshaped = changed({"factorized_7x7": False})
    assert not reshaped
    first_three = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")
    assert {name.split(".")[0] for name in removed} == set(first_three)
    assert {name.split(".")[0] for name in added} == {"Conv2d_1a_7x7"}
    assert unbuilt(MODEL, V2).Conv2d_1a_7x7.conv.weight.shape == (64, 3, 7, 7)


@pytest.mark.parametrize(
    ("first_layer", "side"), [*TABLE_2.items(), ("stride2_pool", 96), ("stride2_pool", 300)]
)
def test_the_7x7_convolution_gives_the_grid_of_the_three_3x3(first_layer, side):
    args = {**ONE_OF_EACH, "first_layer": first_layer}
    three, one = (unbuilt(MODEL, {**args, "factorized_7x7": on}) for on in (True, False))
    assert sides(one, side)[0] == sides(three, side)[2]
    three, one = (unbuilt(MODEL, {**args, "stem": "small", "factorized_7x7": on}) for on in (True, False))
    assert sides(one, 32)[0] == sides(three, 32)[2]


def test_plain_auxiliary_normalises_its_1x1_convolution_and_not_its_fully_connected_part():
    removed, added, reshaped = changed({"auxiliary": "plain"})
    assert {name.rsplit(".", 1)[0] for name in removed} == {"AuxLogits.conv1.bn"}
    assert added == {"AuxLogits.conv1.conv.bias"}
    assert not reshaped
    head = build(MODEL, {**MINI, "auxiliary": "plain"}).AuxLogits
    assert isinstance(head.conv0.bn, nn.BatchNorm2d)
    full = nn.functional.conv2d(torch.ones(1, 13, 5, 5), head.conv1.conv.weight, head.conv1.conv.bias)
    assert torch.equal(head.conv1(torch.ones(1, 13, 5, 5)), full.relu())


def test_no_auxiliary_head_leaves_the_rest_and_answers_with_logits_while_training():
    removed, added, reshaped = changed({"auxiliary": "none"})
    assert removed
    assert all(name.startswith("AuxLogits.") for name in removed)
    assert not added
    assert not reshaped
    assert build(MODEL, {**MINI, "auxiliary": "none"}).train()(images(32)).shape == (2, 10)


@pytest.mark.parametrize("auxiliary", ["bn", "plain"])
@pytest.mark.parametrize(("stem", "side"), [("small", 32), ("small", 8), ("large", 96)])
def test_the_auxiliary_head_answers_while_training_only_and_trains_what_is_before_it(auxiliary, stem, side):
    net = build(MODEL, {**MINI, "stem": stem, "auxiliary": auxiliary})
    assert net.eval()(images(side)).shape == (2, 10)
    answer = net.train()(images(side))
    assert isinstance(answer, Outputs)
    assert answer.logits.shape == (2, 10)
    assert [each.shape for each in answer.auxiliary] == [(2, 10)]
    answer.auxiliary[0].logsumexp(1).sum().backward()
    reached = {name.split(".")[0] for name, value in net.named_parameters() if value.grad is not None}
    until = net.trunk.index("Mixed_6b") + 1
    assert reached == {"AuxLogits", *net.trunk[:until]} - {"maxpool1", "maxpool2"}


def test_the_auxiliary_head_marks_its_initial_weights_as_the_released_code_does():
    net = build(MODEL, {"depth": (1, 1, 1), "width": 0.5, "auxiliary": "plain"})
    marked = {name: module.init_std for name, module in net.named_modules() if hasattr(module, "init_std")}
    assert marked == {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
    initialise(net, "truncated_normal")
    assert net.AuxLogits.conv1.conv.weight.std().item() == pytest.approx(
        0.88 * 0.01, rel=0.05
    )  # cut at 2 std
    assert net.Mixed_5b.branch1x1.conv.weight.std().item() == pytest.approx(0.88 * 0.1, rel=0.05)


@pytest.mark.parametrize("grid", ["naive", "expensive"])
def test_the_grid_is_halved_elsewhere_with_the_same_weights_and_outputs(grid):
    assert changed({"grid": grid}) == (set(), set(), set())
    other = {**ONE_OF_EACH, "grid": grid}
    assert sides(unbuilt(MODEL, other), 299) == sides(unbuilt(MODEL, ONE_OF_EACH), 299)
    assert sides(unbuilt(MODEL, {**other, "stem": "small"}), 32)[-4:] == [4, 4, 2, 2]


def test_pooling_first_sees_the_halved_grid_and_pooling_last_the_full_one():
    def inside(grid: str) -> list[int]:
        net = unbuilt(MODEL, {**ONE_OF_EACH, "grid": grid})
        names = ("branch3x3", "branch3x3dbl_1", "branch3x3dbl_3", "branch_pool")
        units = [getattr(net.Mixed_6a, name) for name in names]
        return [shape[-1] for shape in output_shapes(net, units, 299)]

    assert inside("paper") == [17, 35, 17, 17]
    assert inside("naive") == [17, 17, 17, 17]
    assert inside("expensive") == [35, 35, 35, 35]
    naive, paper, expensive = (
        macs(MODEL, {**ONE_OF_EACH, "grid": grid}) for grid in ("naive", "paper", "expensive")
    )
    assert naive < paper < expensive


@pytest.mark.campaign
@pytest.mark.parametrize("args", [{}, V2], ids=["v3", "v2"])
def test_smaller_images_cost_nearly_as_much_with_the_first_layers_of_table_2(args):
    costs = {side: macs(MODEL, {**args, "first_layer": first}, side=side) for first, side in TABLE_2.items()}
    print({f"{side} px": f"{cost / 1e9:.3f} G" for side, cost in costs.items()})
    assert max(costs.values()) < 1.1 * min(costs.values())
    mini = {**args, **MINI}
    scaled = [macs(MODEL, {**mini, "first_layer": first}, side=side)
              for first, side in zip(TABLE_2, (32, 16, 8), strict=True)]  # fmt: skip
    assert max(scaled) < 1.2 * min(scaled)


def test_the_first_layer_has_the_stride_and_the_pool_of_table_2_and_the_same_weights():
    def beginning(first_layer: str) -> list[int]:
        return sides(unbuilt(MODEL, {**ONE_OF_EACH, "first_layer": first_layer}), TABLE_2[first_layer])[:5]

    assert beginning("stride2_pool") == [149, 147, 147, 73, 73]  # convolutions, pool, 1x1
    assert beginning("stride1_pool") == [149, 147, 147, 73, 73]
    assert beginning("stride1") == [77, 75, 75, 75, 73]  # no pool: 1x1, 3x3
    for first_layer in TABLE_2:
        assert changed({"first_layer": first_layer}) == (set(), set(), set())


SWITCHES = {
    "layout": ("code", "table1"),
    "five": ("5x5", "two_3x3_linear"),
    "asymmetric": (True, False),
    "factorized_7x7": (True, False),
    "auxiliary": ("bn", "plain"),
    "grid": ("paper", "naive", "expensive"),
}


@pytest.mark.campaign
def test_every_pair_of_switches_trains_on_small_images_and_every_parameter_has_a_gradient():
    for first, second in itertools.combinations(SWITCHES, 2):
        net = build(MODEL, {**MINI, first: SWITCHES[first][-1], second: SWITCHES[second][-1]})
        assert trains(net, 32), (first, second)
