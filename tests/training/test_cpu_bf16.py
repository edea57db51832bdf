"""The one convolution whose bf16 gradient is wrong on CPUs is refused, and no other one is wrong."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from harness.models import build_model
from harness.study.spec import DataSpec
from harness.training.cpu_bf16 import strided_on_one_pixel
from tests.training.runs import DATA_ARGS, tiny_spec, train


def gradient(kernel: int, side: int, stride: int, memory: float) -> torch.Tensor:
    """The weight gradient of a bf16 convolution, after memory was filled with a number and freed."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 16, kernel, kernel, generator=generator)
    weight = weight.contiguous(memory_format=torch.channels_last).requires_grad_()
    images = torch.randn(8, 16, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
    rubbish = [torch.full((size,), memory) for size in (512, 1024, 2048, 4608, 9216, 18432) * 4]
    del rubbish
    with torch.autocast("cpu", torch.bfloat16):
        output = functional.conv2d(images, weight, stride=stride, padding=kernel // 2)
    output.float().square().sum().backward()
    assert weight.grad is not None
    return weight.grad


KERNELS_SIDES_STRIDES = list(itertools.product([1, 3, 7], [1, 2, 3, 4], [1, 2]))
REFUSED = [(3, 1, 2), (7, 1, 2)]


@pytest.mark.parametrize(
    ("kernel", "side", "stride"), [case for case in KERNELS_SIDES_STRIDES if case not in REFUSED]
)
def test_gradients_do_not_depend_on_old_memory(kernel: int, side: int, stride: int) -> None:
    assert torch.equal(gradient(kernel, side, stride, 0.0), gradient(kernel, side, stride, float("nan")))


def test_the_case_is_found_by_resolution() -> None:
    model = build_model("resnet18", {"depth": (1, 1, 1, 1), "width": 1 / 16}, classes=4)
    assert strided_on_one_pixel(model, 32) == []
    assert strided_on_one_pixel(model, 16) == ["layer4.0.conv1"]
    assert model.training


def test_a_run_that_would_meet_it_is_refused(tmp_path: Path) -> None:
    data = DataSpec(name="generated", resolution=16, args=DATA_ARGS)
    with pytest.raises(ValueError, match=r"at 16 pixels the convolution layer4\.0\.conv1 has a stride"):
        train(tiny_spec(precision="bf16", data=data), tmp_path)
    assert train(tiny_spec(precision="fp32", data=data, epochs=0.2), tmp_path) == "finished"
