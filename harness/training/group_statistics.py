"""Batch norm over parts of a batch, as where each of many workers normalises its own share of a step.

Goyal et al. 2017, Sec. 2.3: the statistics of batch norm are over the n = 32 images of one worker whatever
the whole batch is, because with other statistics the loss would be another one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


class _Grouped(_BatchNorm):
    """While it trains, consecutive groups of `group_images` are normalised each by its own mean and variance;
    the last group may be smaller.

    The running statistics take in, once per step, the mean over the groups of their statistics, weighted by
    their images (choice: the paper does not say how the workers' are brought together). Parameters, buffers
    and everything in evaluation are batch norm's; a batch of at most one group is batch norm bit for bit.
    """

    group_images: int

    def forward(self, input: Tensor) -> Tensor:
        """(B, C) or (B, C, H, W) -> the same shape.

        Raises:
            ValueError: a group has one value per channel, from which no variance can be had.
        """
        if not self.training or len(input) <= self.group_images:
            return super().forward(input)
        self._check_input_dim(input)
        groups = input.split(self.group_images)
        if min(group.numel() for group in groups) <= input.shape[1]:
            raise ValueError(
                f"batch norm over groups of {self.group_images} images: a group has a single value per "
                "channel; use a larger norm_images or resolution, or a batch that is a multiple"
            )
        means = torch.zeros(len(groups), input.shape[1], dtype=torch.float32, device=input.device)
        variances = torch.zeros_like(means)
        normalised = [
            # With momentum 1 the running statistics that it writes are those of the group.
            functional.batch_norm(group, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
            for group, mean, variance in zip(groups, means, variances, strict=True)
        ]
        last = len(groups[-1]) / len(input)  # its share; the others share the rest alike
        take_in(self, _mean_over(means, last), _mean_over(variances, last))
        return torch.cat(normalised)


@torch.no_grad()
def take_in(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Update the running statistics of a batch norm with those of one step, each (C,)."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance, momentum)


def _mean_over(groups: Tensor, last: float) -> Tensor:
    """(G, C) -> (C,): the mean with the weight `last` for the last group and equal ones for the others.

    >>> _mean_over(torch.tensor([[1.0], [3.0], [8.0]]), last=0.25).tolist()
    [3.5]
    """
    return (1 - last) * groups[:-1].mean(0) + last * groups[-1]


class GroupedBatchNorm1d(_Grouped, nn.BatchNorm1d):
    """See `_Grouped`; (B, C)."""


class GroupedBatchNorm2d(_Grouped, nn.BatchNorm2d):
    """See `_Grouped`; (B, C, H, W)."""


GROUPED: dict[type[nn.Module], type[_Grouped]] = {
    nn.BatchNorm1d: GroupedBatchNorm1d,
    nn.BatchNorm2d: GroupedBatchNorm2d,
}


def group_statistics(model: nn.Module, images: int) -> None:
    """Make every batch norm of the network compute over groups of so many images, in place.

    Names, parameters, buffers and hooks stay: as torch's parametrisations do it, only the class changes.

    Raises:
        ValueError: a batch norm is of a class whose computation is not known here.
    """
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        if type(module) not in GROUPED:
            raise ValueError(
                f"norm_images needs torch's own batch norm, {name} is a {type(module).__name__}: "
                "choose another model, or norm_images 0"
            )
        module.__class__ = GROUPED[type(module)]
        module.group_images = images  # type: ignore[assignment]
