"""Auxiliary heads: their share of the loss by hand, and tricks that never see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.models.blocks import Outputs
from harness.spec import DataSpec, RunSpec
from harness.training import setup
from harness.training.setup import soft_cross_entropy, with_auxiliary
from harness.tricks.base import Batch
from tests.training.runs import (
    DATA_ARGS,
    assert_same_bits,
    folder_of,
    load,
    results,
    stop_after,
    tiny_spec,
    train,
)


class Headed(nn.Module):
    """A network with one auxiliary head, whose convolution has a stride."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.aux_conv = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.fc, self.aux_fc = nn.Linear(8, classes), nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor | Outputs:
        features = self.body(images)
        logits = self.fc(features.mean((2, 3)))
        if not self.training:
            return logits
        return Outputs(logits, (self.aux_fc(self.aux_conv(features).mean((2, 3))),))


@pytest.fixture
def headed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "build_model", lambda *_, classes, **__: Headed(classes))


def test_the_loss_is_the_main_one_and_the_weighted_sum_of_the_heads() -> None:
    generator = torch.Generator().manual_seed(0)
    main, first, second = torch.randn(3, 6, 4, generator=generator)
    batch = Batch(torch.empty(0), torch.rand(6, 4, generator=generator).softmax(1))  # smoothed or mixed
    total = with_auxiliary(lambda output, _: 10 * functional.cross_entropy(output, batch.targets), 0.3)
    by_hand = [-(batch.targets * each.log_softmax(1)).sum(1).mean() for each in (main, first, second)]
    got = total(Outputs(main, (first, second)), batch)
    assert float(got) == pytest.approx(float(10 * by_hand[0] + 0.3 * (by_hand[1] + by_hand[2])))
    assert torch.equal(with_auxiliary(soft_cross_entropy, 0.3)(main, batch), soft_cross_entropy(main, batch))


@pytest.mark.campaign
def test_a_student_with_auxiliary_heads_trains_and_its_tricks_see_logits_alone(
    headed: None, tmp_path: Path
) -> None:
    teacher = tiny_spec(epochs=1)
    student = tiny_spec("distillation", "label_smoothing", teacher=teacher.arm.arm_id, precision="bf16")
    for spec in (teacher, student):
        assert train(spec, tmp_path) == "finished"


def test_the_weight_of_the_recipe_acts(headed: None, tmp_path: Path) -> None:
    losses: dict[float, Any] = {}
    for weight in (0.0, 0.3):
        spec = tiny_spec(epochs=1, auxiliary_weight=weight)
        train(spec, tmp_path)
        losses[weight] = folder_of(spec, tmp_path).read_summary()["train_loss"]
    assert losses[0.3] > losses[0.0] + 0.2  # 0.3 of about log 4


def test_it_resumes(headed: None, tmp_path: Path) -> None:
    spec = tiny_spec(epochs=1)
    train(spec, tmp_path / "a")
    while train(spec, tmp_path / "b", stop_after(2)) == "interrupted":
        pass
    assert_same_bits(*(results(folder_of(spec, tmp_path / each)) for each in "ab"))
    assert "aux_fc.weight" in load(folder_of(spec, tmp_path / "a").weights)


def bf16_at(pixels: int) -> RunSpec:
    data = DataSpec(name="generated", resolution=pixels, args=DATA_ARGS)
    return tiny_spec(epochs=0.2, precision="bf16", data=data)


@pytest.mark.parametrize("pixels", [4, 8])
def test_a_head_with_a_stride_over_one_pixel_trains_in_bf16(
    headed: None, pixels: int, tmp_path: Path
) -> None:
    """At 4 pixels its map is 1 x 1, where torch's own bf16 kernel leaves a gradient unwritten."""
    assert train(bf16_at(pixels), tmp_path) == "finished"
