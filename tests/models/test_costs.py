"""Parameters and multiply-adds: equal to the reference table, counted as the papers count them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.models import MODELS, VARIANTS, costs, find, resolve
from harness.models.costs import count_macs, count_params, lookup, measure, question

PAPERS = Path(__file__).parents[2] / "docs" / "reference" / "papers.yaml"


def reference_costs() -> list[tuple[str, int, float, float]]:
    """Model, pixels, millions of parameters, 10^9 multiply-adds, from the head of the reference file."""
    import yaml

    head = PAPERS.read_text().split("\npapers:")[0]
    rows = yaml.safe_load(head)["model_costs"]["rows"]
    return [(row["model"], row["input"], row["params_m"], row["gmacs"]) for row in rows]


@pytest.fixture(scope="module")
def listed() -> dict[str, dict]:
    """What `harness models --json` says, by name."""
    import argparse

    from harness.commands.listing import _models

    return {row["name"]: row for row in _models(argparse.Namespace())}


@pytest.mark.parametrize(("name", "side", "params_m", "gmacs"), reference_costs())
def test_every_model_of_the_reference_is_listed_under_its_name_with_its_costs(
    listed, name, side, params_m, gmacs
):
    row = listed[name]
    assert row["input_size"] == side
    assert round(row["params"] / 1e6, 3) == params_m
    assert row["macs"] / 1e9 == pytest.approx(gmacs, rel=0.005)


def test_the_listing_has_every_family_and_variant_with_all_its_arguments(listed):
    assert set(listed) == {*MODELS, *VARIANTS}
    assert listed["resnet50d"]["family"] == "resnet50"
    assert listed["resnet50d"]["args"]["stem"] == "deep"
    assert set(listed["resnet50d"]["args"]) == set(MODELS["resnet50"].args)
    for row in listed.values():
        assert all(row[key] for key in ("family", "params", "macs", "input_size", "classes", "source"))
        assert row["paper"]
        assert row["note"]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet101", 44_549_160),
        ("resnext50_32x4d", 25_028_904),
        ("resnext101_32x4d", 44_177_704),
        ("resnext101_64x4d", 83_455_272),
    ],
)
def test_parameter_counts_are_the_known_totals(name, params):
    assert measure(name, {}, resolution=32, classes=1000)[0] == params


def test_parameters_of_auxiliary_heads_do_not_count_however_their_names_are_written():
    net = nn.ModuleDict({"body": nn.Linear(3, 4), "aux1": nn.Linear(3, 4), "AuxLogits": nn.Linear(3, 4)})
    net["body"].aux = nn.Linear(2, 2)  # not at the start of the name: part of the network
    assert count_params(net) == (3 * 4 + 4) + (2 * 2 + 2)


def test_a_variant_asks_the_question_of_its_family():
    asked = {"resolution": 224, "classes": 1000}
    assert question("resnet50c", {"width": 0.5}, **asked) == question(
        "resnet50", {"width": 0.5, "stride_in": "3x3", "stem": "deep"}, **asked
    )
    assert lookup("resnet50c", {}, **asked) == (25_576_264, 4_328_824_832)


def test_images_that_are_too_small_are_refused_without_building_anything(monkeypatch):
    monkeypatch.setattr(costs, "measure", None)
    least = MODELS["googlenet"].minimum_input(MODELS["googlenet"].args)
    with pytest.raises(ValueError, match=f"googlenet: images need at least {least} pixels a side, got 8"):
        lookup("googlenet", {}, resolution=8, classes=10)


def test_multiply_adds_of_a_small_net_by_hand():
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),  # 8 px -> 4 px
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).eval()
    by_hand = (4 * 4 * 6) * (3 * 3 * 4 // 2) + 6 * 5
    assert count_macs(net, torch.zeros(1, 4, 8, 8)) == by_hand
    assert count_macs(net, torch.zeros(3, 4, 8, 8)) == 3 * by_hand
    assert not any(module._forward_hooks for module in net.modules())


def test_every_stored_answer_equals_a_fresh_measurement():
    stored = json.loads(costs.COSTS_FILE.read_text())
    assert len(stored) >= len(MODELS)
    for each in stored[:: max(1, len(stored) // 10)]:
        assert measure(**each["question"]) == (each["params"], each["macs"]), each["question"]


def test_every_stored_question_can_be_found_again_and_the_file_is_as_generated():
    text = costs.COSTS_FILE.read_text()
    stored = json.loads(text)
    asked = [json.dumps(each["question"], sort_keys=True, separators=(",", ":")) for each in stored]
    assert asked == sorted(question(**each["question"]) for each in stored)
    assert text == costs.costs_text(stored)


def test_the_generator_adds_every_family_and_variant_and_asks_each_question_once(monkeypatch):
    monkeypatch.setattr(costs, "measure", lambda **asked: (asked["resolution"], asked["classes"]))
    twice = {"name": "resnet18", "args": {"width": 0.5}, "resolution": 32, "classes": 10}
    measured = costs.answers([twice, {**twice, "args": {"width": 0.5, "zero_gamma": True}}])
    assert [each["question"]["args"]["width"] for each in measured if each["macs"] == 10] == [0.5]
    for name in (*MODELS, *VARIANTS):
        asked = question(name, {}, resolution=find(name).input_size, classes=1000)
        found = [each for each in measured if each["question"] == json.loads(asked)]
        assert [(each["params"], each["macs"]) for each in found] == [(find(name).input_size, 1000)], name
    assert {each["question"]["name"] for each in measured} <= {
        resolve(name, {})[0] for name in (*MODELS, *VARIANTS)
    }


def test_known_answers_are_not_measured_again(monkeypatch):
    known = json.loads(costs.COSTS_FILE.read_text())
    monkeypatch.setattr(costs, "measure", lambda **asked: (-1, asked["resolution"]))
    new = {"name": "resnet18", "args": {}, "resolution": 33, "classes": 10}
    measured = costs.answers([new], known=known)
    assert [each["question"]["resolution"] for each in measured if each["params"] == -1] == [33]
    assert all(each in known for each in measured if each["params"] != -1)


def test_a_question_fills_in_defaults_and_leaves_out_what_costs_nothing():
    asked = question("resnet50", {"width": 1, "zero_gamma": True}, resolution=224, classes=1000)
    assert asked == question("resnet50", {"depth": [3, 4, 6, 3]}, resolution=224, classes=1000)
    assert asked != question("resnet50", {"width": 0.5}, resolution=224, classes=1000)


def test_what_is_not_stored_is_measured_once(monkeypatch):
    calls = []

    def fake(**asked):
        calls.append(asked)
        return 1, 2

    monkeypatch.setattr(costs, "measure", fake)
    costs._answer.cache_clear()
    unusual = {"resolution": 37, "classes": 7}
    assert [lookup("resnet18", {"width": 0.3}, **unusual) for _ in range(2)] == [(1, 2), (1, 2)]
    assert [call["resolution"] for call in calls] == [37]
    costs._answer.cache_clear()


def test_stored_answers_need_no_torch():
    code = (
        "import sys; from harness.models import MODELS, VARIANTS, find\n"
        "from harness.models.costs import lookup\n"
        "for name in (*MODELS, *VARIANTS):\n"
        "    print(lookup(name, {}, resolution=find(name).input_size, classes=1000))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(25557032, 3857973248)" in done.stdout.splitlines()


@pytest.mark.parametrize("resolution", [0, -1, 3.5, True])
def test_a_resolution_that_is_no_number_of_pixels_is_refused(resolution):
    with pytest.raises(ValueError, match="resnet50: the resolution must be a positive number of pixels"):
        lookup("resnet50", {}, resolution=resolution, classes=10)


def test_every_answer_on_file_is_found_without_building_a_network(monkeypatch):
    monkeypatch.setattr(costs, "measure", None)
    for each in json.loads(costs.COSTS_FILE.read_text()):
        asked = each["question"]
        about = {name: asked[name] for name in ("resolution", "classes")}
        assert lookup(asked["name"], asked["args"], **about) == (each["params"], each["macs"])
