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


def gradient(kernel: tuple[int, int], side: int, stride: int, groups: int, memory: float) -> torch.Tensor:
    """The weight gradient of a bf16 convolution, after memory was filled with a number and freed."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 32 // groups, *kernel, generator=generator)
    weight = weight.contiguous(memory_format=torch.channels_last).requires_grad_()
    images = torch.randn(8, 32, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
    rubbish = [torch.full((size,), memory) for size in (512, 1024, 2048, 4608, 9216, 18432, 36864) * 4]
    del rubbish
    padding = (kernel[0] // 2, kernel[1] // 2)
    with torch.autocast("cpu", torch.bfloat16):
        output = functional.conv2d(images, weight, stride=stride, padding=padding, groups=groups)
    output.float().square().sum().backward()
    assert weight.grad is not None
    return weight.grad


KERNELS = [(1, 1), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1), (1, 3), (3, 1)]
CASES = list(itertools.product(KERNELS, [1, 2, 3, 4], [1, 2], [1, 32]))


def is_refused(kernel: tuple[int, int], side: int, stride: int) -> bool:
    return side == 1 and stride > 1 and max(kernel) > 1


@pytest.mark.parametrize(
    ("kernel", "side", "stride", "groups"), [case for case in CASES if not is_refused(*case[:3])]
)
def test_gradients_do_not_depend_on_old_memory(
    kernel: tuple[int, int], side: int, stride: int, groups: int
) -> None:
    zeros, nans = (gradient(kernel, side, stride, groups, memory) for memory in (0.0, float("nan")))
    assert torch.equal(zeros, nans)


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
