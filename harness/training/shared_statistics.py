"""Batch norm over the whole batch of several processes, each of which holds a part of it.

torch's own SyncBatchNorm exists on GPUs only. This one is made of operations that CPUs and GPUs have, and of
one kind of message, so that what is tested on one holds on the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from harness.training.distributed import World
from harness.training.group_statistics import GroupedBatchNorm1d, GroupedBatchNorm2d, take_in


class _Normalise(Function):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and variance over all processes' x.

    Backward, with means over all processes' values: dx = weight / sqrt(var + eps) * (dy - mean(dy) - x^
    mean(dy x^)) for the normalised x^ (Ioffe & Szegedy 2015, Sec. 3). The gradients of weight and bias are
    of the process's own images: the mean over the processes is taken of all gradients alike.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: _Shared, weight: Tensor | None, bias: Tensor | None) -> Any:
        # The running statistics say in which format the computed ones are wanted.
        wanted = [torch.zeros(x.shape[1], dtype=torch.float32, device=x.device) for _ in range(2)]
        own = torch.stack(torch.ops.aten.batch_norm_update_stats(x, *wanted, 1.0))
        means, variances = norm.world.rows(own).unbind(1)  # each (W, C)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.norm = norm
        ctx.mark_non_differentiable(mean, variance)
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, norm.eps), mean, variance

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> Any:
        x, weight, mean, variance = ctx.saved_tensors
        norm: _Shared = ctx.norm
        _, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, variance, None, None, False, norm.eps, [False, True, True]
        )
        count = x.numel() // x.shape[1] * norm.world.size
        sums = torch.stack([d_weight, d_bias]).float()
        mean_dy_x, mean_dy = norm.world.sum_(sums).div_(count).unbind()
        deviation = (variance + norm.eps).sqrt()
        scale = (1 if weight is None else weight) / deviation
        shape = (1, -1, *[1] * (x.ndim - 2))
        dx = torch.addcmul((-scale * mean_dy).view(shape), dy, scale.view(shape))
        dx.addcmul_(x - mean.view(shape), (-scale * mean_dy_x / deviation).view(shape))
        affine = (None, None) if weight is None else (d_weight, d_bias)
        return dx.to(x.dtype), None, *affine


class _Shared(_BatchNorm):
    """While it trains, mean and variance are over the images of all processes. Parameters, buffers and
    everything in evaluation are batch norm's."""

    world: World

    def forward(self, input: Tensor) -> Tensor:
        """(B / W, C) or (B / W, C, H, W) -> the same shape.

        Raises:
            ValueError: the whole batch has one value per channel, from which no variance can be had.
        """
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        count = input.numel() // input.shape[1] * self.world.size
        if count == 1:
            raise ValueError("batch norm needs more than one value per channel: use a larger batch")
        normalised, mean, variance = _Normalise.apply(input, self, self.weight, self.bias)
        take_in(self, mean, variance * (count / (count - 1)))
        return normalised


class SharedBatchNorm1d(_Shared, nn.BatchNorm1d):
    """See `_Shared`; (B / W, C)."""


class SharedBatchNorm2d(_Shared, nn.BatchNorm2d):
    """See `_Shared`; (B / W, C, H, W)."""


SHARED: dict[type[nn.Module], type[_Shared]] = {
    nn.BatchNorm1d: SharedBatchNorm1d,
    nn.BatchNorm2d: SharedBatchNorm2d,
    GroupedBatchNorm1d: SharedBatchNorm1d,
    GroupedBatchNorm2d: SharedBatchNorm2d,
}


def share_statistics(model: nn.Module, world: World) -> None:
    """Make every batch norm of the network compute over the images of all processes, in place.

    Names, parameters, buffers and hooks stay: only the class changes.

    Raises:
        ValueError: a batch norm is of a class whose computation is not known here.
    """
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        if type(module) not in SHARED:
            raise ValueError(
                f"several processes need torch's own batch norm, {name} is a {type(module).__name__}: "
                "choose another model, or one process"
            )
        module.__class__ = SHARED[type(module)]
        module.world = world  # type: ignore[assignment]
