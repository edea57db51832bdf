"""The table of models: defaults are JSON, a mistake is named in plain words, every valid choice builds."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harness.models import MODELS, RESNETS, VARIANTS, build_model, find, resolve, resolve_args, validate_model
from harness.models.entry import choice
from tests.conftest import mostly_campaign

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import forward_backward

_LARGE = choice("large")
SMALLER_VARIANTS = [
    name
    for name, (_, args) in VARIANTS.items()
    if args and "resnet1" not in name and "inception_" not in name
]
EVERY_NAME = ", ".join(sorted({*MODELS, *VARIANTS}))
SHORT = ("bn_inception", "bn_mlp", "cifar_resnet", "googlenet", "mobilenet_v1", "resnet18", "resnet50")
BIBLIOGRAPHY = Path(__file__).parents[2] / "docs" / "references.bib"


@pytest.mark.parametrize("name", mostly_campaign(sorted(MODELS), *SHORT))
def test_defaults_are_json_values_that_validate_and_build(name):
    model = MODELS[name]
    assert model.name == name
    as_stored = json.loads(json.dumps(model.args))
    validate_model(name, as_stored)
    assert resolve_args(name, as_stored) == model.args
    side = max(32, model.minimum_input(model.args))
    with torch.device("meta"):
        net = build_model(name, as_stored, classes=3).eval()
        assert net(torch.empty(2, 3, side, side)).shape == (2, 3)


@pytest.mark.parametrize("name", mostly_campaign(sorted(MODELS), *SHORT))
def test_the_smallest_input_is_enough_and_one_pixel_less_is_refused_with_the_number(name):
    model = MODELS[name]
    shallow = {"depth": tuple(1 for _ in model.args["depth"])} if "depth" in model.arguments else {}
    stems = ("large", "small") if model.arguments.get("stem", _LARGE).accepts("small") else ()
    for args in [{**shallow, "stem": stem} for stem in stems] or [shallow]:
        full = model.resolve(args)
        least = model.minimum_input(full)
        with torch.device("meta"):
            net = build_model(name, args, classes=3).train()
            answer = net(torch.empty(2, 3, least, least))
        assert (answer.logits if isinstance(answer, tuple) else answer).shape == (2, 3)
        model.check_input(full, least)
        with pytest.raises(ValueError, match=f"{name}: images need at least {least} pixels a side"):
            model.check_input(full, least - 1)


@pytest.mark.parametrize("name", mostly_campaign([*MODELS, *SMALLER_VARIANTS], "resnet18", "mobilenet_v1"))
def test_every_model_goes_forward_and_backward_at_its_papers_input_size(name):
    assert forward_backward.passes(name) == []


def test_a_parameter_without_a_gradient_is_reported(monkeypatch):
    def build(*_args, **_more):
        net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
        net.unused = nn.Parameter(torch.empty(1))
        net.forward = lambda images: net[2](net[1](net[0](images)))
        return net

    monkeypatch.setattr(forward_backward, "build_model", build)
    assert forward_backward.passes("resnet18") == ["unused"]
    monkeypatch.setattr(forward_backward, "CLASSES", 999)
    with pytest.raises(ValueError, match="logits of shapes"):
        forward_backward.passes("resnet18")


def test_a_variant_is_its_family_with_arguments_and_those_given_win():
    assert resolve("resnet50d", {}) == resolve(
        "resnet50", {"stride_in": "3x3", "stem": "deep", "shortcut": "avgpool"}
    )
    assert resolve("resnet50_stride1x1", {}) == ("resnet50", MODELS["resnet50"].args)
    assert resolve("resnet50d", {"stem": "7x7", "width": 1})[1]["stem"] == "7x7"
    assert find("resnet50d") is MODELS["resnet50"]
    torch.manual_seed(0)
    small = {"width": 0.125, "depth": (1, 1, 1, 1)}
    variant = build_model("resnet50d", small, classes=2).state_dict()
    torch.manual_seed(0)
    family, args = resolve("resnet50d", small)
    assert all(
        torch.equal(value, variant[key])
        for key, value in build_model(family, args, classes=2).state_dict().items()
    )


def test_names_are_unique_and_every_variant_sets_valid_arguments():
    declared = [name for model in MODELS.values() for name in (model.name, *model.variants)]
    assert len(declared) == len(set(declared))
    assert set(declared) | {"googlenet_torchvision"} == {*MODELS, *VARIANTS}
    for name, (family, args) in VARIANTS.items():
        assert resolve(name, {}) == resolve(family, args)


def test_every_paper_is_in_the_bibliography():
    text = BIBLIOGRAPHY.read_text()
    assert {
        find(name).paper for name in (*MODELS, *VARIANTS) if "{" + find(name).paper + "," not in text
    } == set()


def test_arguments_that_do_not_go_together_are_refused_once_all_are_known():
    def rule(args):
        if args["width"] < 0.5:
            raise ValueError("too thin")

    model = dataclasses.replace(MODELS["resnet18"], rule=rule)
    model.validate({"width": 0.25})
    with pytest.raises(ValueError, match="resnet18: too thin"):
        model.resolve({"width": 0.25})


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("resnet5", {}, f"unknown model 'resnet5'; did you mean 'resnet50'? Valid: {EVERY_NAME}"),
        (
            "resnet50",
            {"widht": 0.5},
            "resnet50: unknown argument 'widht'; did you mean 'width'? "
            "Valid: depth, group_width, groups, shortcut, stem, stride_in, width, zero_gamma",
        ),
        (
            "resnet18",
            {"stride_in": "3x3"},
            "resnet18: unknown argument 'stride_in'. Valid: depth, shortcut, stem, width, zero_gamma",
        ),
        (
            "resnet50",
            {"depth": [1, 1, 1, 1, 1]},
            "resnet50: depth must be 1 to 4 positive integers, none above 100, got [1, 1, 1, 1, 1]",
        ),
        (
            "resnet50",
            {"depth": [1, 1, 1, 0]},
            "resnet50: depth must be 1 to 4 positive integers, none above 100, got [1, 1, 1, 0]",
        ),
        (
            "resnet50",
            {"depth": [1, 1, 1, True]},
            "resnet50: depth must be 1 to 4 positive integers, none above 100, got [1, 1, 1, True]",
        ),
        ("resnet50", {"depth": 4}, "resnet50: depth must be 1 to 4 positive integers, none above 100, got 4"),
        ("resnet50", {"width": 0}, "resnet50: width must be a number from 0.015625 to 16, got 0"),
        ("resnet50", {"width": "half"}, "resnet50: width must be a number from 0.015625 to 16, got 'half'"),
        (
            "resnet50",
            {"width": float("nan")},
            "resnet50: width must be a number from 0.015625 to 16, got nan",
        ),
        ("resnet50", {"width": True}, "resnet50: width must be a number from 0.015625 to 16, got True"),
        ("resnet50", {"stem": "deap"}, "resnet50: stem must be '7x7' or 'deep', got 'deap'"),
        ("resnet50", {"stem": ["deep"]}, "resnet50: stem must be '7x7' or 'deep', got ['deep']"),
        ("resnet50d", {"stem": "deap"}, "resnet50: stem must be '7x7' or 'deep', got 'deap'"),
        ("resnet50", {"groups": 1.0}, "resnet50: groups must be a whole number from 1 to 1024, got 1.0"),
        ("resnet50", {"zero_gamma": 1}, "resnet50: zero_gamma must be true or false, got 1"),
    ],
)
def test_a_mistake_is_named_with_what_is_valid(name, args, message):
    for check in (validate_model, resolve_args, lambda *given: build_model(*given, classes=2)):
        with pytest.raises(ValueError) as caught:
            check(name, args)
        assert str(caught.value) == message


@pytest.mark.parametrize("sizes", [{"classes": 0}, {"classes": 2, "in_channels": 0}])
def test_a_net_without_classes_or_channels_is_refused(sizes):
    with pytest.raises(ValueError, match="resnet18: needs at least 1 class and 1 channel"):
        build_model("resnet18", {}, **sizes)


@pytest.mark.campaign
@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(
        [model.name for model in RESNETS if "groups" not in model.args or model.args["groups"] == 1]
    ),
    depth=st.tuples(*[st.integers(1, 2)] * 4),
    width=st.floats(1 / 64, 2),
    stem=st.sampled_from(["7x7", "deep"]),
    shortcut=st.sampled_from(["conv", "avgpool"]),
    side=st.integers(1, 70),
)
def test_every_valid_choice_of_a_resnet_maps_images_of_any_side_to_logits(
    name, depth, width, stem, shortcut, side
):
    args = {"depth": depth, "width": width, "stem": stem, "shortcut": shortcut}
    with torch.device("meta"):
        net = build_model(name, args, classes=7).eval()
        assert net(torch.empty(2, 3, side, side)).shape == (2, 7)
