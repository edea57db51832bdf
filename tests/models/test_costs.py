"""Parameters and multiply-adds: equal to the reference table, counted as the papers count them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.models import MODELS, costs
from harness.models.costs import count_macs, lookup, measure, question

PAPERS = Path(__file__).parents[2] / "docs" / "reference" / "papers.yaml"
B = {"stride_in": "3x3"}
C = {**B, "stem": "deep"}
D = {**C, "shortcut": "avgpool"}
OF_THE_REFERENCE = {
    "resnet50_stride1x1": ("resnet50", {}),
    "resnet50b_v1.5": ("resnet50", B),
    "resnet50c": ("resnet50", C),
    "resnet50d": ("resnet50", D),
    "resnet101d": ("resnet101", D),
    "resnet152d": ("resnet152", D),
    "resnet152_stride1x1": ("resnet152", {}),
}


def reference_costs() -> dict[str, tuple[float, float]]:
    """Model -> (millions of parameters, 10^9 multiply-adds), from the head of the reference file."""
    import yaml

    head = PAPERS.read_text().split("\npapers:")[0]
    rows = yaml.safe_load(head)["model_costs"]["rows"]
    return {
        row["model"]: (row["params_m"], row["gmacs"]) for row in rows if row["model"].startswith("resnet")
    }


def test_the_reference_has_no_resnet_that_is_not_checked_here():
    assert set(reference_costs()) == set(OF_THE_REFERENCE)


@pytest.mark.parametrize("key", sorted(OF_THE_REFERENCE))
def test_costs_equal_the_reference_to_its_printed_digits(key):
    name, args = OF_THE_REFERENCE[key]
    params, macs = measure(name, args, resolution=224, classes=1000)
    assert (round(params / 1e6, 3), round(macs / 1e9, 3)) == reference_costs()[key]


@pytest.mark.parametrize(
    ("name", "args", "params"),
    [
        ("resnet18", {}, 11_689_512),
        ("resnet34", {}, 21_797_672),
        ("resnet50", {}, 25_557_032),
        ("resnet50", B, 25_557_032),
        ("resnet50", D, 25_576_264),
        ("resnet101", {}, 44_549_160),
        ("resnet152", {}, 60_192_808),
    ],
)
def test_parameter_counts_are_the_known_totals(name, args, params):
    assert measure(name, args, resolution=32, classes=1000)[0] == params


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
    for each in stored[:: max(1, len(stored) // 20)]:
        assert measure(**each["question"]) == (each["params"], each["macs"]), each["question"]


def test_every_stored_question_can_be_found_again_and_the_file_is_as_generated():
    text = costs.COSTS_FILE.read_text()
    stored = json.loads(text)
    asked = [json.dumps(each["question"], sort_keys=True, separators=(",", ":")) for each in stored]
    assert asked == sorted(question(**each["question"]) for each in stored)
    assert text == costs.costs_text(stored)


def test_the_generator_adds_every_model_at_its_defaults_and_asks_each_question_once(monkeypatch):
    monkeypatch.setattr(costs, "measure", lambda **asked: (asked["resolution"], asked["classes"]))
    twice = {"name": "resnet18", "args": {"width": 0.5}, "resolution": 32, "classes": 10}
    measured = costs.answers([twice, {**twice, "args": {"width": 0.5, "zero_gamma": True}}])
    assert len(measured) == len(MODELS) + 1
    assert {each["question"]["name"] for each in measured if each["params"] == 224} == set(MODELS)


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
        "import sys; from harness.models import MODELS; from harness.models.costs import lookup\n"
        "for name in MODELS: print(lookup(name, {}, resolution=224, classes=1000))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(25557032, 3857973248)" in done.stdout.splitlines()


@pytest.mark.parametrize("resolution", [0, -1, 3.5, True])
def test_a_resolution_that_is_no_number_of_pixels_is_refused(resolution):
    with pytest.raises(ValueError, match="resnet50: the resolution must be a positive number of pixels"):
        lookup("resnet50", {}, resolution=resolution, classes=10)
