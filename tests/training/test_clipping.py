"""Gradient clipping by norm and by value, by hand; without it nothing changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from harness.training.optim import Precision, make_clip
from tests.training.runs import assert_same_bits, folder_of, results, tiny_recipe, tiny_spec, train


def clipped(*gradients: list[float], **recipe: float) -> list[list[float]]:
    weights = [nn.Parameter(torch.zeros(len(each))) for each in gradients]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = torch.tensor(gradient)
    clip = make_clip(tiny_recipe(**recipe))
    assert clip is not None
    clip(torch.optim.SGD(weights, lr=0.1))
    return [pytest.approx(weight.grad.tolist()) for weight in weights]  # type: ignore[union-attr]


def test_the_norm_is_over_all_tensors_together() -> None:
    """|(6, 0, 8)| = 10, so that a threshold of 2 leaves a fifth."""
    assert clipped([6.0, 0.0], [8.0], clip_norm=2.0) == [[1.2, 0.0], [1.6]]
    assert clipped([0.6, 0.0], [0.8], clip_norm=2.0) == [[0.6, 0.0], [0.8]]


def test_values_are_clipped_one_by_one_and_before_the_norm() -> None:
    assert clipped([-6.0, 1.5], [8.0], clip_value=2.0) == [[-2.0, 1.5], [2.0]]
    assert clipped([-6.0, 0.0], [8.0], clip_value=3.0, clip_norm=1.0) == [[-(0.5**0.5), 0.0], [0.5**0.5]]


def test_a_recipe_without_a_threshold_clips_nothing() -> None:
    assert make_clip(tiny_recipe()) is None


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_gradient_is_clipped_after_the_scale_of_fp16_is_taken_out(precision: str, fused: bool) -> None:
    """d/dw (3 w1 + 4 w2) has norm 5: with threshold 1 and rate 1 the step is (0.6, 0.8)."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=fused)
    loss = (weight * torch.tensor([3.0, 4.0])).sum()
    clip = make_clip(tiny_recipe(clip_norm=1.0))
    Precision(precision, torch.device("cpu")).backward_and_step(loss, optimizer, clip)
    assert weight.tolist() == pytest.approx([-0.6, -0.8])


def test_a_run_is_clipped_and_a_threshold_never_reached_changes_no_bit(tmp_path: Path) -> None:
    plain, far, near = (tiny_spec(epochs=1, clip_norm=norm) for norm in (0.0, 1e6, 0.1))
    for spec in (plain, far, near):
        assert train(spec, tmp_path) == "finished"
    first, second, third = (results(folder_of(spec, tmp_path)) for spec in (plain, far, near))
    assert_same_bits(first, second)
    assert first["train_loss"] != third["train_loss"]
