"""Numeric formats of a training step: fp32, bf16 (autocast) and fp16 (autocast and loss scaling).

On a CPU, bf16 and fp16 are emulated (`harness.models.half`), so that they mean the same on every machine.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from harness.models.half import EmulatedHalf
from harness.study.problems import unknown
from harness.training.clipping import Clip

AUTOCAST_TYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class Precision:
    """How a step computes. Parameters and optimizer state are FP32 in every format (master weights).

    fp16 multiplies the loss by a scale that adapts, so that small gradients do not become zero, and leaves
    out the update of a step whose gradients overflowed (Micikevicius et al. 2018, Sec. 3.2).
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """
        Raises:
            ValueError: there is no format of this name.
        """
        if name not in AUTOCAST_TYPES:
            raise ValueError(unknown("precision", name, AUTOCAST_TYPES))
        self._device_type = device.type
        self._dtype = AUTOCAST_TYPES[name]
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def forward(self) -> AbstractContextManager[Any]:
        """The context in which the network is called, in training and in evaluation."""
        if self._dtype is None:
            return nullcontext()
        if self._device_type == "cpu":
            return EmulatedHalf(self._dtype)
        return torch.autocast(self._device_type, dtype=self._dtype)

    def backward_and_step(self, loss: Tensor, optimizer: Optimizer, clip: Clip | None = None) -> None:
        """Gradients of a scalar loss, clipped, one update of the parameters, gradients cleared."""
        self._scaler.scale(loss).backward()
        if clip is not None:
            self._scaler.unscale_(optimizer)  # nothing to do in fp32 and bf16
            clip(optimizer)
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The loss scale and its growth counter; empty for fp32 and bf16."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self._scaler.load_state_dict(state)
