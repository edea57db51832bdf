"""Tricks are built from raw option values; what is wrong with them, or with a card, is said in words."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from harness.tricks import TRICKS
from harness.tricks.build import card, describe, make, parse, validate


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("label_smoothing", {"eps": "x"}, "label_smoothing: eps must be a number, got 'x'"),
        ("label_smoothing", {"eps": True}, "label_smoothing: eps must be a number, got True"),
        ("label_smoothing", {"eps": float("nan")}, "label_smoothing: eps must be a number, got nan"),
        ("label_smoothing", {"eps": 1}, "label_smoothing: eps must be a number in [0, 1), got 1.0"),
        ("label_smoothing", {"eps": -0.1}, "label_smoothing: eps must be a number in [0, 1), got -0.1"),
        (
            "label_smoothing",
            {"epsilon": 0.1},
            "label_smoothing: unknown option 'epsilon'; did you mean 'eps'? Valid: eps, form",
        ),
        (
            "label_smoothing",
            {"form": "unifrom"},
            "label_smoothing: form must be one of uniform, off_target, got 'unifrom'; "
            "did you mean 'uniform'?",
        ),
        ("cosine", {"restarts": 2}, "cosine: unknown option 'restarts'. Valid: none"),
        ("mixup", {"alpha": 0}, "mixup: alpha must be a number > 0, got 0.0"),
        ("mixup", {"alpha": None}, "mixup: alpha must be a number, got None"),
        ("warmup", {"epochs": 0}, "warmup: epochs must be a number > 0, got 0.0"),
        ("distillation", {"temperature": -1}, "distillation: temperature must be a number > 0, got -1.0"),
        ("ema", {"decay": 1}, "ema: decay must be a number in [0, 1), got 1.0"),
        ("ema", {"ramp": 1}, "ema: ramp must be true or false, got 1"),
        (
            "linear_lr_scaling",
            {"reference_batch": 0},
            "linear_lr_scaling: reference_batch must be an integer >= 1, got 0",
        ),
        (
            "linear_lr_scaling",
            {"reference_batch": 256.5},
            "linear_lr_scaling: reference_batch must be an integer, got 256.5",
        ),
        (
            "linear_lr_scaling",
            {"reference_batch": True},
            "linear_lr_scaling: reference_batch must be an integer, got True",
        ),
    ],
)
def test_bad_options_are_refused_in_words(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        validate(TRICKS[name], options)
    assert str(refused.value) == message


def test_an_unknown_trick_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        ValueError,
        match=r"unknown trick 'mixupp'; did you mean 'mixup'\? Valid: asymmetric_convolutions, auxiliary",
    ):
        make("mixupp", {})


def test_whole_numbers_for_floats_are_one_value_and_the_rest_are_defaults() -> None:
    assert repr(make("warmup", {"epochs": 5})) == repr(make("warmup", {"epochs": 5.0}))
    assert make("label_smoothing", {"eps": 0.2}).options() == {"eps": 0.2, "form": "uniform"}


def test_another_table_may_be_used() -> None:
    """Users' own tricks come in this way."""
    assert make("mine", {}, tricks={"mine": TRICKS["cosine"]}) == make("cosine", {})


def test_description_of_a_trick_that_needs_a_teacher() -> None:
    assert describe(TRICKS["distillation"]) == {
        "name": "distillation",
        "options": {"temperature": 20.0, "form": "paper"},
        "conflicts": (),
        "arms": ("teacher",),
        "observes": False,
        "acts_in_training": True,
        "hooks": ("edit_loss",),
    }


@pytest.mark.parametrize("label", ["Paper", "Equation", "Acts on", "Defaults", "Differs"])
def test_a_card_without_a_line_is_refused(label: str) -> None:
    whole = inspect.cleandoc(TRICKS["mixup"].__doc__ or "")
    assert parse(whole)[label]
    with pytest.raises(ValueError, match=f"lacks a text for: {label}"):
        parse(re.sub(rf"^{label}:", "Other:", whole, flags=re.MULTILINE))
    with pytest.raises(ValueError, match="a label twice"):
        parse(f"{whole}\n{label}: again\n")


def test_a_text_over_several_lines_becomes_one() -> None:
    found = card(TRICKS["label_smoothing"])
    assert found.summary == "Label smoothing: a share eps of each target is spread over the classes."
    assert found.defaults.endswith("the authors' code of he2019bag and torch.nn.CrossEntropyLoss)")
    assert found.citations == ("szegedy2016rethinking", "he2019bag")
