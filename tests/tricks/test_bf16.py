"""BF16 is a number of the recipe, a trick of its own, and never on together with FP16."""

import torch

from harness.models.half import is_half
from harness.training.optim import Precision
from harness.tricks.bf16 import Bf16
from tests.tricks import tiny


def test_it_sets_the_precision_and_nothing_else() -> None:
    assert Bf16().edit_recipe(tiny.recipe()) == tiny.recipe(precision="bf16")


def test_the_network_runs_in_bfloat16_without_a_loss_scale() -> None:
    precision = Precision(Bf16().edit_recipe(tiny.recipe()).precision, torch.device("cpu"))
    with precision.forward():
        logits = tiny.net()(tiny.batch().images)
    assert is_half(logits)
    assert torch.equal(logits, logits.bfloat16().float())
    assert precision.state_dict() == {}


def test_it_excludes_fp16() -> None:
    assert Bf16.conflicts == ("fp16",)
