"""Half precision is a number of the recipe; weights stay FP32."""

import torch

from harness.models.half import is_half
from harness.training.optim import Precision
from harness.tricks.precision import Bf16, Fp16
from tests.tricks import tiny


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
