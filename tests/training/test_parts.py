"""Loss, optimizers, parameter groups and precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.models.half import is_half
from harness.training.feed import count_steps_per_epoch
from harness.training.optim import OPTIMIZERS, Precision, make_optimizer, parameter_groups, set_lr
from harness.training.setup import build, soft_cross_entropy
from harness.tricks.base import Batch, ParameterGroup, Trick
from harness.tricks.build import make
from tests.training.runs import machine_in, tiny_recipe, tiny_spec, train

CPU = torch.device("cpu")


def test_on_one_hot_targets_the_loss_is_the_ordinary_cross_entropy() -> None:
    logits = torch.randn(16, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 7
    ours = soft_cross_entropy(logits, Batch(torch.empty(0), torch.eye(7)[labels]))
    assert torch.allclose(ours, functional.cross_entropy(logits, labels), rtol=1e-6, atol=0)


def test_on_soft_targets_the_loss_is_the_mean_of_minus_t_log_p_in_fp32() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 7, generator=generator).bfloat16()
    targets = torch.rand(16, 7, generator=generator).softmax(1)
    ours = soft_cross_entropy(logits, Batch(torch.empty(0), targets))
    assert ours.dtype == torch.float32
    by_hand = -(targets.double() * logits.double().log_softmax(1)).sum(1).mean()
    assert float(ours) == pytest.approx(float(by_hand), rel=1e-6)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)


def test_without_tricks_every_parameter_is_in_one_group() -> None:
    model = Network()
    (group,) = parameter_groups(model, [], weight_decay=0.1)
    assert [name for name, _ in group["params"]] == [name for name, _ in model.named_parameters()]
    assert group["weight_decay"] == 0.1


def test_no_bias_decay_leaves_every_parameter_in_exactly_one_group() -> None:
    groups = parameter_groups(Network(), [make("no_bias_decay", {})], weight_decay=0.1)
    decay = {name: group["weight_decay"] for group in groups for name, _ in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(decay) == 6
    assert {name for name, value in decay.items() if value == 0.1} == {"conv.weight", "fc.weight"}


class Loses(Trick):
    def edit_parameter_groups(self, groups: list[ParameterGroup], model: nn.Module) -> list[ParameterGroup]:
        return [{**groups[0], "params": groups[0]["params"][1:]}]


class Doubles(Trick):
    def edit_parameter_groups(self, groups: list[ParameterGroup], model: nn.Module) -> list[ParameterGroup]:
        return [*groups, {"params": groups[0]["params"][:1]}]


@pytest.mark.parametrize(
    ("trick", "message"),
    [(Loses, r"twice: \[\], missing: \['conv.weight'\]"), (Doubles, r"twice: \['conv.weight'\]")],
)
def test_a_trick_that_loses_or_doubles_a_parameter_is_refused(trick: type[Trick], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_groups(Network(), [trick()], weight_decay=0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_table_makes_a_step(name: str) -> None:
    model = Network()
    recipe = tiny_recipe(optimizer=name, lr=0.01)
    optimizer = make_optimizer(recipe, parameter_groups(model, [], weight_decay=0.0))
    before = model.fc.weight.detach().clone()
    model.fc(torch.ones(1, 4)).sum().backward()
    set_lr(optimizer, 0.0)
    optimizer.step()
    assert torch.equal(model.fc.weight, before)
    set_lr(optimizer, 0.01)
    optimizer.step()
    assert not torch.equal(model.fc.weight, before)


def test_sgd_has_nesterov_momentum_unless_the_recipe_says_otherwise() -> None:
    groups = parameter_groups(Network(), [], weight_decay=0.2)
    (group,) = make_optimizer(tiny_recipe(), groups).param_groups
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 0.2)
    changed = tiny_recipe(optimizer_args={"momentum": 0.5, "nesterov": False})
    (group,) = make_optimizer(changed, groups).param_groups
    assert (group["momentum"], group["nesterov"]) == (0.5, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg'; did you mean 'sgd'"),
        ({"optimizer_args": {"momentun": 0.9}}, "unknown argument of optimizer sgd 'momentun'; did you mean"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"initialisation": "xavir"}, "unknown initialisation 'xavir'; did you mean 'xavier'"),
        ({"shuffle": "shard"}, "unknown shuffle 'shard'; did you mean 'shards'"),
        ({"eval_weights": "ema"}, "unknown eval_weights 'ema'"),
        ({"eval_crops": 11}, "eval_crops must be one of 1, 10, 12, 144, got 11"),
        ({"read_out": "best_epoch"}, "unknown read-out 'best_epoch'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny_spec(**changes), tmp_path)


@pytest.mark.parametrize(("name", "is_rounded"), [("fp32", False), ("fp16", True), ("bf16", True)])
def test_a_precision_computes_in_its_format_and_keeps_fp32_weights(name: str, is_rounded: bool) -> None:
    model, precision = nn.Linear(4, 2), Precision(name, CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.8)
    before = model.weight.detach().clone()
    with precision.forward():
        output = model(torch.ones(3, 4))
    assert is_half(output) == is_rounded
    precision.backward_and_step(output.float().sum() / 8, optimizer)
    assert model.weight.dtype == torch.float32
    assert torch.allclose(model.weight, before - 0.3, atol=1e-3)  # the scale of the loss is taken out again
    assert model.weight.grad is None


def test_fp16_leaves_out_a_step_whose_gradients_overflowed() -> None:
    model, precision = nn.Linear(4, 2), Precision("fp16", CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.weight.detach().clone()
    precision.backward_and_step(model(torch.full((3, 4), float("inf"))).sum(), optimizer)
    assert torch.equal(model.weight, before)
    assert precision.state_dict()["scale"] == 2**15  # halved from 2^16


FIRST_STEPS = [1e5, 1.0, 1.0, 1e5, 1.0]  # what the images are multiplied by; at 1e5 FP16 overflows


@pytest.mark.parametrize(
    "changes", [{}, {"dampening": 0.5, "nesterov": False}, {"momentum": 0.0, "nesterov": False}]
)
def test_an_overflow_leaves_fused_and_plain_sgd_alike_also_at_the_first_step(changes: dict[str, Any]) -> None:
    """torch's fused SGD makes its momentum of whatever memory held when the first step is left out."""
    after = {}
    for fused in (None, False):
        torch.manual_seed(0)
        model, precision = nn.Linear(64, 64), Precision("fp16", CPU)
        args = changes if fused is None else {**changes, "fused": fused}
        groups: list[Any] = [{"params": list(model.named_parameters()), "weight_decay": 1e-4}]
        optimizer = make_optimizer(tiny_recipe(optimizer_args=args), groups)
        scales = []
        for factor in FIRST_STEPS:
            # Freed memory of the momentum's size, so that a buffer that nobody wrote holds this.
            rubbish = [torch.full((64, 64), 1e30) for _ in range(50)]
            del rubbish
            with precision.forward():
                output = model(torch.ones(8, 64) * factor)
            precision.backward_and_step(output.float().mean(), optimizer)
            scales.append(precision.state_dict()["scale"])
        assert scales == [2**15, 2**15, 2**15, 2**14, 2**14]
        after[fused] = model.weight.detach()
    assert after[None].abs().max() < 1
    torch.testing.assert_close(after[None], after[False], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("images", "batch_size", "steps"), [(44, 8, 5), (8, 8, 1), (7, 8, 1), (16, 8, 2)])
def test_the_last_incomplete_batch_is_dropped(images: int, batch_size: int, steps: int) -> None:
    assert count_steps_per_epoch(images, batch_size) == steps


def test_a_set_smaller_than_a_batch_is_one_batch(tmp_path: Path) -> None:
    setup = build(tiny_spec(batch_size=64), machine_in(tmp_path))
    assert setup.context.steps_per_epoch == 1
    assert len(setup.feed.batch(0).images) == 44


def test_an_epoch_reads_each_image_at_most_once(tmp_path: Path) -> None:
    setup = build(tiny_spec(), machine_in(tmp_path))
    read: list[int] = []
    original: Callable[..., torch.Tensor] = setup.data.train.images.sizes
    try:
        setup.data.train.images.sizes = lambda indices: read.extend(indices.tolist()) or original(indices)  # type: ignore[method-assign]
        for step in range(setup.context.steps_per_epoch):
            setup.feed.batch(step)
    finally:
        setup.data.train.images.sizes = original  # type: ignore[method-assign]
    assert len(read) == len(set(read)) == 40
