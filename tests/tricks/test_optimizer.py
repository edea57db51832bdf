"""RMSProp steps as its card says; no bias decay acts on kernels alone; precision is a number of a recipe."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from harness.commands.workspace import build_catalogue
from harness.models import build_model
from harness.models.half import is_half
from harness.training.optim import Precision, make_optimizer, set_lr
from harness.tricks.optimizer import Bf16, Fp16, NoBiasDecay, RmsProp, first_step
from tests.tricks import tiny

ARGS = {"alpha": 0.9, "eps": 1.0, "momentum": 0.9}


def test_rmsprop_sets_optimizer_arguments_and_rate() -> None:
    """The released code's momentum is in; Nesterov momentum of the recipe before is out."""
    before = tiny.recipe(optimizer_args={"momentum": 0.5, "nesterov": True})
    expected = tiny.recipe(optimizer="rmsprop_tf", optimizer_args=ARGS, lr=0.045)
    assert RmsProp().edit_recipe(before) == expected
    torchs = RmsProp(form="torch", lr=0.01).edit_recipe(before)
    assert torchs == tiny.recipe(optimizer="rmsprop", optimizer_args=ARGS, lr=0.01)


@pytest.mark.parametrize("form", ["tf", "torch"])
def test_the_first_two_steps_of_a_weight(form: str) -> None:
    """Gradients 3 and then 1 at lr 0.1; tf: v = 1.8, 1.72; torch: v = 0.9, 0.91; momentum 0.9."""
    recipe = RmsProp(form=form, lr=0.1).edit_recipe(tiny.recipe())  # type: ignore[arg-type]
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = make_optimizer(recipe, [{"params": [("w", weight)], "weight_decay": 0.0}])
    set_lr(optimizer, 0.1)
    moves = []
    for gradient in (3.0, 1.0):
        before = weight.item()
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        moves.append(before - weight.item())
    if form == "tf":
        first, second = 3 / math.sqrt(1.8 + 1), 1 / math.sqrt(1.72 + 1)
    else:
        first, second = 3 / (math.sqrt(0.9) + 1), 1 / (math.sqrt(0.91) + 1)
    assert moves[0] == pytest.approx(0.1 * first, rel=1e-5)
    assert moves[0] == pytest.approx(0.1 * first_step(3.0, decay=0.9, eps=1.0, form=form), rel=1e-5)
    assert moves[1] == pytest.approx(0.1 * (0.9 * first + second), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, r"rmsprop: decay must be a number in \[0, 1\), got 1"),
        ({"eps": 0.0}, "rmsprop: eps must be a number > 0, got 0"),
        ({"momentum": -0.1}, r"rmsprop: momentum must be a number in \[0, 1\), got -0.1"),
        ({"lr": 0.0}, "rmsprop: lr must be a number > 0, got 0"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RmsProp(**options)  # type: ignore[arg-type]


# Weight decay acts on kernels and matrices only; every parameter stays in exactly one group.


def test_biases_gammas_and_betas_are_not_decayed_and_the_rest_as_before() -> None:
    model = tiny.net()
    decayed, free = NoBiasDecay().edit_parameter_groups(tiny.named_groups(model, 1e-4), model)
    assert [name for name, _ in decayed["params"]] == ["0.weight", "5.weight"]
    assert [name for name, _ in free["params"]] == ["0.bias", "1.weight", "1.bias", "5.bias"]
    assert (decayed["weight_decay"], free["weight_decay"]) == (1e-4, 0.0)


def test_with_norms_alone_exempt_the_biases_of_layers_are_decayed() -> None:
    """Goyal et al., Sec. 5.1: no weight decay on gamma and beta."""
    model = tiny.net()
    decayed, free = NoBiasDecay(exempt="norms").edit_parameter_groups(tiny.named_groups(model, 1e-4), model)
    assert [name for name, _ in decayed["params"]] == ["0.weight", "0.bias", "5.weight", "5.bias"]
    assert [name for name, _ in free["params"]] == ["1.weight", "1.bias"]
    assert (decayed["weight_decay"], free["weight_decay"]) == (1e-4, 0.0)


def test_an_option_that_came_later_is_in_a_run_only_where_it_is_set() -> None:
    """So that the runs of before keep their ids; its default can never change."""
    entry = build_catalogue(Path("no-data")).tricks["no_bias_decay"]
    assert (entry.said_if_set, entry.options) == ({"exempt"}, {"exempt": "all"})


def test_a_resnet_is_covered_once_and_keeps_decay_on_its_convolutions_and_its_last_matrix() -> None:
    args = {"depth": (1, 1, 1, 1), "width": 0.125, "stem": "deep", "shortcut": "avgpool"}
    model = build_model("resnet50", args, classes=10)
    decayed, free = NoBiasDecay().edit_parameter_groups(tiny.named_groups(model), model)
    ids = [id(p) for group in (decayed, free) for _, p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    layers = dict(model.named_modules())
    assert {type(layers[n.rpartition(".")[0]]).__name__ for n, _ in decayed["params"]} == {"Conv2d", "Linear"}
    assert {type(layers[n.rpartition(".")[0]]).__name__ for n, _ in free["params"]} == {
        "BatchNorm2d",
        "Linear",
    }


def test_each_group_is_split_and_keeps_its_other_settings() -> None:
    names = dict(tiny.net().named_parameters())
    groups = [
        {
            "params": [("0.weight", names["0.weight"]), ("0.bias", names["0.bias"])],
            "weight_decay": 0.5,
            "lr": 1.0,
        },
        {"params": [("5.weight", names["5.weight"])], "weight_decay": 0.25},
    ]
    parts = NoBiasDecay().edit_parameter_groups(groups, tiny.net())
    assert [([n for n, _ in p["params"]], p["weight_decay"], p.get("lr")) for p in parts] == [
        (["0.weight"], 0.5, 1.0),
        (["0.bias"], 0.0, 1.0),
        (["5.weight"], 0.25, None),
    ]


def test_one_step_without_gradient_shrinks_only_what_is_decayed() -> None:
    """SGD with zero gradients: w <- w (1 - lr wd) = 0.95 w for kernels, w for the others."""
    model = tiny.net()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    groups = NoBiasDecay().edit_parameter_groups(tiny.named_groups(model, 0.5), model)
    plain = [{**group, "params": [p for _, p in group["params"]]} for group in groups]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    torch.optim.SGD(plain, lr=0.1).step()
    for name, p in model.named_parameters():
        factor = 0.95 if name in ("0.weight", "5.weight") else 1.0
        torch.testing.assert_close(p.detach(), factor * before[name])


# Half precision is a number of the recipe; weights stay FP32, and the loss is scaled with FP16.


def test_fp16_sets_the_precision_and_nothing_else() -> None:
    assert Fp16().edit_recipe(tiny.recipe()) == tiny.recipe(precision="fp16")


def test_the_scaled_step_equals_the_unscaled_one_and_keeps_master_weights() -> None:
    """The scale S cancels, so that without autocast the step is the FP32 step."""
    after = {}
    for name in ("fp16", "fp32"):
        model, data = tiny.net(), tiny.batch()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        precision = Precision(name, torch.device("cpu"))
        loss = tiny.cross_entropy(model(data.images), data)
        precision.backward_and_step(loss, optimizer)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        after[name] = list(model.parameters())
    for half, full in zip(after["fp16"], after["fp32"], strict=True):
        torch.testing.assert_close(half, full, rtol=1e-6, atol=1e-8)


def test_the_network_runs_in_half_precision() -> None:
    precision = Precision(Fp16().edit_recipe(tiny.recipe()).precision, torch.device("cpu"))
    with precision.forward():
        logits = tiny.net()(tiny.batch().images)
    assert is_half(logits)
    assert torch.equal(logits, logits.half().float())


# BF16 is a number of the recipe, a trick of its own, and never on together with FP16.


def test_bf16_sets_the_precision_and_nothing_else() -> None:
    assert Bf16().edit_recipe(tiny.recipe()) == tiny.recipe(precision="bf16")


def test_the_network_runs_in_bfloat16_without_a_loss_scale() -> None:
    precision = Precision(Bf16().edit_recipe(tiny.recipe()).precision, torch.device("cpu"))
    with precision.forward():
        logits = tiny.net()(tiny.batch().images)
    assert is_half(logits)
    assert torch.equal(logits, logits.bfloat16().float())
    assert precision.state_dict() == {}


def test_bf16_excludes_fp16() -> None:
    assert Bf16.conflicts == ("fp16",)
