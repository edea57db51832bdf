"""A guard against one wrong gradient: bf16 convolutions with stride on a 1 x 1 map, on the CPU.

There torch's CPU library (oneDNN; seen with torch 2.13) leaves parts of the weight gradient unwritten: the
kernel positions that see padding only get whatever the memory held, NaN included. Nothing else was found
among kernels of 1 to 7 (square, 1 x n and n x 1, depthwise), maps of 1 to 8 and strides of 1 and 2;
`tests/training/test_cpu_bf16.py` looks again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def strided_on_one_pixel(model: nn.Module, resolution: int) -> list[str]:
    """Names of the convolutions that step over a 1 x 1 map when the network sees images of this side."""
    found = []

    def watch(name: str) -> object:
        def look(module: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
            one_pixel = max(inputs[0].shape[2:]) == 1
            if one_pixel and max(module.stride) > 1 and max(module.kernel_size) > 1:
                found.append(name)

        return look

    handles = [
        module.register_forward_pre_hook(watch(name))  # type: ignore[arg-type]
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    modes = {module: module.training for module in model.modules()}
    for (
        module
    ) in modes:  # auxiliary heads answer while training only; a batch norm would learn from the zeros
        module.training = not isinstance(module, _BatchNorm)
    with torch.no_grad():
        model(torch.zeros(1, 3, resolution, resolution))
    for module, was_training in modes.items():
        module.training = was_training
    for handle in handles:
        handle.remove()
    return found


def require_exact_gradients(model: nn.Module, resolution: int) -> None:
    """Refuse a network whose gradients would hold unwritten memory in bf16 on the CPU.

    Raises:
        ValueError: naming the first such convolution and what to do.
    """
    found = strided_on_one_pixel(model, resolution)
    if found:
        raise ValueError(
            f"at {resolution} pixels the convolution {found[0]} has a stride on a 1 x 1 map, whose bf16 "
            "gradient is wrong on CPUs: use a higher resolution or precision fp32"
        )
