"""Where a training starts from, which parts of the network learn, and how fast."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.runs.provenance import keep_weights
from harness.spec import DataSpec, ModelSpec, RunSpec
from harness.training.optim import set_lr
from harness.training.setup import Setup, build
from harness.training.weights import Parts, WeightsError, read_weights
from tests.conftest import mostly_campaign
from tests.training.runs import (
    DATA_ARGS,
    assert_same_bits,
    folder_of,
    load,
    machine_in,
    results,
    stop_after,
    tiny_spec,
    train,
)

ARGS: dict[str, Any] = {"depth": (1, 1, 1, 1), "width": 1 / 16}
THREE = DataSpec(name="generated", resolution=32, args={**DATA_ARGS, "classes": 3})
OPTIMIZERS = {
    "sgd": {"momentum": 0.9},
    "adam": {},
    "adamw": {},
    "rmsprop": {"momentum": 0.9},
    "rmsprop_tf": {"momentum": 0.9, "eps": 1.0},
}


def built(spec: RunSpec, tmp_path: Path) -> Setup:
    return build(spec, machine_in(tmp_path))


def state_of(tmp_path: Path, seed: int = 7) -> dict[str, Tensor]:
    """The weights of the tiny network for four classes, of another seed than the runs'."""
    return {
        name: value.clone()
        for name, value in built(tiny_spec(seed=seed), tmp_path).model.state_dict().items()
    }


def starting_from(file: Path, runs_dir: Path, entry: str = "", **changes: Any) -> RunSpec:
    """A run whose model starts from the file, as planning says it."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    keep_weights(runs_dir, {sha256: str(file)})
    name, args = changes.pop("network", ("resnet18", ARGS))
    weights = f"{sha256}:{entry}" if entry else sha256
    return tiny_spec(model=ModelSpec(name=name, args=args, weights=weights), **changes)


def saved(state: Any, file: Path) -> Path:
    if file.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, file)
    else:
        torch.save(state, file)
    return file


def test_every_weight_of_the_file_is_taken_over_and_the_file_s_place_is_not_in_the_run(
    tmp_path: Path,
) -> None:
    state = state_of(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    file = saved(state, tmp_path / "net.safetensors")
    spec = starting_from(file, tmp_path)
    assert_same_bits(dict(built(spec, tmp_path).model.state_dict()), state)
    moved = file.rename(tmp_path / "elsewhere" / "other name.safetensors")
    assert starting_from(moved, tmp_path).run_id == spec.run_id
    assert_same_bits(dict(built(spec, tmp_path).model.state_dict()), state)


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "module.": lambda state: {f"module.{name}": value for name, value in state.items()},
    "torchvision's script": lambda state: {"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    "timm's script": lambda state: {"state_dict": state, "optimizer": {"state": {}}, "arch": "resnet18"},
    "compiled and parallel": lambda state: {
        "model_state": {f"module._orig_mod.{name}": value for name, value in state.items()}
    },
    "half precision": lambda state: {
        name: each.half() if each.is_floating_point() else each for name, each in state.items()
    },
    "without counters": lambda state: {
        name: each for name, each in state.items() if not name.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_a_state_dict_is_usually_wrapped_in_is_understood(
    wrapping: str, legacy: bool, tmp_path: Path
) -> None:
    state = {
        name: value.half().float() if value.is_floating_point() else value
        for name, value in state_of(tmp_path).items()
    }
    torch.save(WRAPPED[wrapping](state), tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    found = read_weights(tmp_path / "net.pth")
    assert_same_bits({name: found.get(name, own).to(own.dtype) for name, own in state.items()}, state)


def test_of_two_networks_in_a_file_one_is_named(tmp_path: Path) -> None:
    state, average = state_of(tmp_path, seed=1), state_of(tmp_path, seed=2)
    whole = {
        "model": state,
        "model_ema": {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in average.items()}},
    }
    file = saved(whole, tmp_path / "net.pth")
    with pytest.raises(
        WeightsError, match=r"'model' and an average of its weights, 'model_ema'; name .* net\.pth:model$"
    ):
        built(starting_from(file, tmp_path), tmp_path)
    assert_same_bits(
        dict(built(starting_from(file, tmp_path, "model_ema"), tmp_path).model.state_dict()), average
    )
    with pytest.raises(WeightsError, match=r"unknown entry 'modl'; did you mean 'model'\?"):
        built(starting_from(file, tmp_path, "modl"), tmp_path)
    assert starting_from(file, tmp_path, "model").run_id != starting_from(file, tmp_path, "model_ema").run_id


@pytest.mark.parametrize("kept", ["of four classes", "none"])
def test_for_other_classes_the_classifier_is_new_from_the_seed_and_the_record_says_so(
    kept: str, tmp_path: Path
) -> None:
    state = state_of(tmp_path)
    own = {name: value for name, value in state.items() if kept != "none" or not name.startswith("fc.")}
    spec = starting_from(saved(own, tmp_path / "net.pt"), tmp_path, data=THREE, epochs=1)
    weights, fresh = (built(each, tmp_path).model.state_dict() for each in (spec, tiny_spec(data=THREE)))
    for name, value in weights.items():
        assert torch.equal(value, fresh[name] if name.startswith("fc.") else state[name])
    train(spec, tmp_path)
    summary = folder_of(spec, tmp_path).read_summary()
    assert summary is not None
    assert (summary["weights"], summary["initialised"]) == (
        spec.arm.recipe.model.weights,
        "fc.weight, fc.bias",
    )


def cut(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:-100])
    return file


def without(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {each: value for each, value in state.items() if each != name}


def changed(name: str, value: Any) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {**state, name: value}


WRONG: dict[str, tuple[str, Callable[[dict[str, Tensor]], Any], str]] = {
    "a layer less": (
        "n.pt",
        without("bn1.bias"),
        r"has no layer 'bn1\.bias', which this network has \(resnet18\)",
    ),
    "a layer more": (
        "n.safetensors",
        changed("head.weight", torch.ones(1)),
        r"has a layer 'head\.weight', which",
    ),
    "other sizes": (
        "n.safetensors",
        changed("layer2.0.conv1.weight", torch.ones(8, 4, 1, 1)),
        r"in 'layer2\.0\.conv1\.weight': \(8, 4, 1, 1\) of float32 there, \(8, 4, 3, 3\) of float32 here",
    ),
    "another classifier's input": (
        "n.pt",
        changed("fc.weight", torch.ones(9, 5)),
        r"in 'fc\.weight': \(9, 5\) of",
    ),
    "whole numbers": ("n.pt", changed("bn1.bias", torch.ones(4).int()), r"\(4,\) of int32 there"),
    "NaN": (
        "n.pt",
        changed("bn1.bias", torch.full((4,), float("nan"))),
        r"has NaN or infinity in 'bn1\.bias'",
    ),
    "a tensor": ("n.pt", lambda state: state["fc.bias"], "holds a Tensor, and no network's state dict"),
    "nothing": ("n.pt", lambda state: {}, "holds no network's state dict: it has nothing"),
    "settings": ("n.pt", lambda state: {"lr": 0.1, "net": 3}, "holds no network's state dict as 'net'"),
    "a whole module": (
        "n.pt",
        lambda state: nn.Linear(2, 2),
        "holds something other than tensors and plain data",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_does_not_fit_is_one_sentence(what: str, tmp_path: Path) -> None:
    name, change, message = WRONG[what]
    spec = starting_from(saved(change(state_of(tmp_path)), tmp_path / name), tmp_path)
    with pytest.raises(WeightsError, match=message) as caught:
        built(spec, tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["n.pt", "n.safetensors"])
def test_a_file_that_is_cut_short_a_pickle_and_a_file_of_another_kind_are_refused(
    name: str, tmp_path: Path
) -> None:
    files = [
        cut(saved(state_of(tmp_path), tmp_path / name)),
        tmp_path / f"pickle-{name}",
        tmp_path / f"text-{name}",
    ]
    files[1].write_bytes(pickle.dumps({"a": Path}))
    files[2].write_text("<html>not found</html>")
    for file in files:
        with pytest.raises(
            WeightsError, match=f"^{re.escape(str(file))} is no file of weights: it is damaged"
        ):
            built(starting_from(file, tmp_path), tmp_path)


def test_a_file_that_changed_or_went_after_planning_is_not_used(tmp_path: Path) -> None:
    file = saved(state_of(tmp_path), tmp_path / "n.pt")
    spec = starting_from(file, tmp_path)
    saved(state_of(tmp_path, seed=8), file)
    with pytest.raises(WeightsError, match=r"n\.pt has changed since this run was planned"):
        built(spec, tmp_path)
    file.unlink()
    with pytest.raises(WeightsError, match=r"cannot be read: .*No such file.*n\.pt"):
        built(spec, tmp_path)


def test_of_another_architecture_the_first_layer_that_differs_is_named(tmp_path: Path) -> None:
    file = saved(state_of(tmp_path), tmp_path / "n.pt")
    other = ("resnet50", {"depth": (1, 1, 1, 1), "width": 1 / 16})
    with pytest.raises(
        WeightsError,
        match=r"'layer1\.0\.conv1\.weight': \(4, 4, 3, 3\) of float32 there, \(4, 4, 1, 1\) .*\(resnet50\)$",
    ):
        built(starting_from(file, tmp_path, network=other), tmp_path)


# Parts that do not learn.


def trained(spec: RunSpec, tmp_path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State at the start and at the end."""
    before = {name: value.clone() for name, value in built(spec, tmp_path).model.state_dict().items()}
    assert train(spec, tmp_path) == "finished"
    return before, load(folder_of(spec, tmp_path).weights)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_frozen_backbone_keeps_its_bits_and_its_statistics(optimizer: str, tmp_path: Path) -> None:
    spec = tiny_spec(
        freeze=("backbone",),
        optimizer=optimizer,
        optimizer_args=OPTIMIZERS[optimizer],
        epochs=1,
        weight_decay=0.1,
    )
    before, after = trained(spec, tmp_path)
    assert {name for name in after if not torch.equal(before[name], after[name])} == {"fc.weight", "fc.bias"}


def test_named_modules_and_patterns_are_frozen_with_all_below_them(tmp_path: Path) -> None:
    spec = tiny_spec(freeze=("bn1", "conv*", "layer1", "layer[23].0.bn?"), epochs=1)
    before, after = trained(spec, tmp_path)
    kept = {name for name in after if torch.equal(before[name], after[name])}
    assert {name for name in after if name.startswith(("bn1.", "conv1.", "layer1."))} <= kept
    assert "layer2.0.bn1.running_mean" in kept
    assert {"layer2.0.conv1.weight", "layer4.0.bn1.running_mean", "fc.weight"}.isdisjoint(kept)
    setup = built(spec, tmp_path)
    decayed = {id(each) for group in setup.optimizer.param_groups for each in group["params"]}
    assert decayed == {id(each) for each in setup.model.parameters() if each.requires_grad}


def test_auxiliary_classifiers_are_no_backbone(tmp_path: Path) -> None:
    setup = built(
        tiny_spec(model=ModelSpec(name="googlenet", args={"width": 1 / 16}), freeze=("backbone",)), tmp_path
    )
    learning = {
        name.rpartition(".")[0] for name, each in setup.model.named_parameters() if each.requires_grad
    }
    assert learning == {"fc", "aux1.fc2", "aux2.fc2"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"freeze": ("backbon",)},
            r"unknown part of the network 'backbon'; did you mean 'backbone'\? Valid: backbone, ",
        ),
        ({"freeze": ("layer9",)}, r"'layer9'; did you mean 'layer"),
        ({"freeze": ("*",)}, r"^freeze \* leaves nothing of the network to learn$"),
        ({"lr_scale": {"layr4": 0.5}}, r"unknown part of the network 'layr4'; did you mean 'layer4'\?"),
        (
            {"lr_scale": {"layer4": 0.5, "layer?": 0.1}},
            r"'layer4\.0\.\S+' is of layer4 and of layer\?; name it once",
        ),
        (
            {"freeze": ("backbone",), "lr_scale": {"layer4": 0.5}},
            "nothing of layer4 learns, since it is frozen",
        ),
    ],
)
def test_parts_that_mean_nothing_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        built(tiny_spec(**changes), tmp_path)


# Parts that learn at another rate.

SCALES = {"backbone": 0.1, "layer4": 0.5, "layer4.0.bn1": 2.0}


def test_the_deepest_name_gives_a_parameter_its_share_of_the_rate(tmp_path: Path) -> None:
    setup = built(tiny_spec("no_bias_decay", lr_scale=SCALES), tmp_path)
    set_lr(setup.optimizer, 3.0)
    names = {id(each): name for name, each in setup.model.named_parameters()}
    rates = {
        names[id(each)]: group["lr"] for group in setup.optimizer.param_groups for each in group["params"]
    }
    decays = {
        names[id(each)]: group["weight_decay"]
        for group in setup.optimizer.param_groups
        for each in group["params"]
    }
    assert set(rates) == set(names.values())
    expected = {
        "conv1.weight": 0.1,
        "layer4.0.conv1.weight": 0.5,
        "layer4.0.bn1.weight": 2.0,
        "fc.weight": 1.0,
    }
    assert {name: rates[name] for name in expected} == {name: 3.0 * scale for name, scale in expected.items()}
    assert (decays["layer4.0.bn1.weight"], decays["layer4.0.conv1.weight"]) == (0.0, 1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_first_step_of_a_part_is_that_of_its_own_rate(optimizer: str, tmp_path: Path) -> None:
    """Bit for bit: a part of factor 0.5 as in a run of half the rate, the others as in one of the whole."""
    common: dict[str, Any] = {
        "optimizer": optimizer, "optimizer_args": OPTIMIZERS[optimizer], "epochs": 0.2, "milestones": (),
    }  # fmt: skip
    specs = [
        tiny_spec(lr=lr, lr_scale=scale, **common)
        for lr, scale in [(0.04, {"layer4": 0.5}), (0.04, {}), (0.02, {})]
    ]
    for spec in specs:
        assert train(spec, tmp_path) == "finished"
    mixed, whole, half = (load(folder_of(spec, tmp_path).weights) for spec in specs)
    for name in mixed:
        if name.endswith(("weight", "bias")):
            assert torch.equal(mixed[name], half[name] if name.startswith("layer4.") else whole[name]), name


@pytest.mark.parametrize("optimizer", mostly_campaign(OPTIMIZERS, "adamw", "rmsprop_tf"))
def test_a_fine_tuning_that_was_stopped_ends_in_the_same_bits(optimizer: str, tmp_path: Path) -> None:
    file = saved(state_of(tmp_path), tmp_path / "n.safetensors")
    changes: dict[str, Any] = {"optimizer": optimizer, "optimizer_args": OPTIMIZERS[optimizer], "data": THREE}
    spec = starting_from(
        file, tmp_path, freeze=("conv1", "layer1"), lr_scale={"layer4": 0.5}, epochs=1, **changes
    )
    while train(spec, tmp_path, stop_after(2)) == "interrupted":
        pass
    stopped = results(folder_of(spec, tmp_path))
    for path in folder_of(spec, tmp_path).path.iterdir():
        path.unlink()
    train(spec, tmp_path)
    assert_same_bits(stopped, results(folder_of(spec, tmp_path)))


def test_a_part_s_name_stands_for_a_module_and_all_below_it() -> None:
    parts = Parts(nn.Module(), frozenset({"head.1.weight", "head.1.bias"}))
    assert [
        parts.depth("backbone", name) for name in ("head.0.weight", "head.1.weight", "head.1", "head")
    ] == [0, -1, -1, 0]
    assert [
        parts.depth("blocks.1", name) for name in ("blocks.1.a", "blocks.10.a", "blocks", "x.blocks.1")
    ] == [2, -1, -1, -1]
    assert [parts.depth("blocks.1*", name) for name in ("blocks.1.a.b", "blocks.10.a", "blocks.2.a")] == [
        2,
        2,
        -1,
    ]
