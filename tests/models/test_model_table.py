"""The table of models: defaults are JSON, a mistake is named in plain words, every valid choice builds."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.models import MODELS, build_model, resolve_args, validate_model


@pytest.mark.parametrize("name", sorted(MODELS))
def test_defaults_are_json_values_that_validate_and_build(name):
    model = MODELS[name]
    assert model.name == name
    as_stored = json.loads(json.dumps(model.args))
    validate_model(name, as_stored)
    assert resolve_args(name, as_stored) == model.args
    with torch.device("meta"):
        assert build_model(name, as_stored, classes=3).fc.out_features == 3


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "resnet5",
            {},
            "unknown model 'resnet5'; did you mean 'resnet50'? "
            "Valid: resnet101, resnet152, resnet18, resnet34, resnet50",
        ),
        (
            "resnet50",
            {"widht": 0.5},
            "resnet50: unknown argument 'widht'; did you mean 'width'? "
            "Valid: depth, shortcut, stem, stride_in, width, zero_gamma",
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


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(MODELS)),
    depth=st.tuples(*[st.integers(1, 3)] * 4),
    width=st.floats(1 / 64, 2),
    stem=st.sampled_from(["7x7", "deep"]),
    shortcut=st.sampled_from(["conv", "avgpool"]),
    side=st.integers(1, 70),
)
def test_every_valid_choice_maps_images_of_any_side_to_logits(name, depth, width, stem, shortcut, side):
    args = {"depth": depth, "width": width, "stem": stem, "shortcut": shortcut}
    with torch.device("meta"):
        net = build_model(name, args, classes=7).eval()
        assert net(torch.empty(2, 3, side, side)).shape == (2, 7)
