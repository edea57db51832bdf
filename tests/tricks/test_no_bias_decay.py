"""Weight decay acts on kernels and matrices only; every parameter stays in exactly one group."""

from pathlib import Path

import torch

from harness.commands.workspace import build_catalogue
from harness.models import build_model
from harness.tricks.no_bias_decay import NoBiasDecay
from tests.tricks import tiny


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
