"""The network of one process among several, such that together they do what one would do with the batch.

Gradients and the loss are means over the processes, whose parts of the batch are equally large. Batch norm
follows the recipe: `norm_images` 0, or a group as large as the batch, has statistics over the whole batch,
wherever its images are; smaller groups lie within one process.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from harness.study.spec import Recipe
from harness.training.distributed import World
from harness.training.group_statistics import GROUPED
from harness.training.shared_statistics import share_statistics

Forward = Callable[[Tensor], Any]
Average = Callable[[Tensor], Tensor]  # the loss of a process's part of the batch -> of the whole batch


def check_parts(recipe: Recipe, *, images: int, processes: int) -> None:
    """Refuse a number of processes that does not cut the batch into equal parts, or cuts batch norm's groups.

    Args:
        images: in the training set; a smaller set than a batch is one batch.

    Raises:
        ValueError: naming what would work.
    """
    batch = min(recipe.batch_size, images)
    unit = recipe.norm_images if has_groups(recipe, images) and processes > 1 else 1
    step = unit * processes
    if batch % step == 0:
        return
    groups = f" of whole groups of {unit} images (norm_images)" if unit > 1 else ""
    below = batch // step * step
    sizes = " or ".join(str(size) for size in (below, below + step) if size)
    raise ValueError(
        f"a batch of {batch} images cannot be cut into {processes} equal parts{groups}: use "
        f"{_listed(_numbers_that_work(batch, unit))} processes, or batches of {sizes} images"
    )


def _numbers_that_work(batch: int, unit: int) -> list[int]:
    """
    >>> _numbers_that_work(64, 16), _numbers_that_work(10, 4), _numbers_that_work(6, 1)
    ([1, 2, 4], [1], [1, 2, 3, 6])
    """
    return [count for count in range(1, batch + 1) if count == 1 or batch % (unit * count) == 0]


def _listed(numbers: list[int]) -> str:
    """
    >>> _listed([1]), _listed([1, 2, 4])
    ('1', '1, 2 or 4')
    """
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last


def has_groups(recipe: Recipe, images: int) -> bool:
    """Whether batch norm's statistics are over parts of a batch."""
    return 0 < recipe.norm_images < min(recipe.batch_size, images)


def share_norms(model: nn.Module, recipe: Recipe, *, images: int, world: World) -> None:
    """Make batch norm's statistics those of the whole batch, in place, where the recipe means that.

    Raises:
        ValueError: a batch norm is of a class whose computation is not known here.
    """
    if world.size > 1 and not has_groups(recipe, images):
        share_statistics(model, world)


def replicate(forward: Forward, model: nn.Module, world: World) -> tuple[Forward, Average]:
    """How the network is called in a training step, and what makes of a process's loss that of the batch.

    `forward` is `model`, or the compiled one. Called alone, both come back as they are. Among several
    processes the weights are those of process 0 from here on; a backward pass leaves the mean gradient in
    each of them, and `average` is to be called once after each step.
    """
    if world.size == 1:
        return forward, _unchanged
    with warnings.catch_warnings():  # newer torch has another name for broadcast_buffers, older has not
        warnings.simplefilter("ignore", FutureWarning)
        parallel = DistributedDataParallel(
            _Part(forward),
            broadcast_buffers=False,  # each step leaves the same ones everywhere, see `average`
            gradient_as_bucket_view=True,
        )
    world.before_leaving.append(partial(_end, parallel))
    parallel(None).backward()
    parallel.zero_grad(set_to_none=True)
    return parallel, _averaging(_group_buffers(model), world)


def _end(parallel: DistributedDataParallel) -> None:
    """Drop what holds the group of processes. Were it the last to do so, the garbage collector would wait
    for gloo's thread with Python's lock in hand, and that thread for the lock: for ever (torch 2.13)."""
    del parallel.reducer, parallel.logger


class _Part(nn.Module):
    """The network; without images, a scalar whose gradient is 0 for every parameter.

    After the first backward pass torch puts the gradients into other buckets, and with them changes the order
    of summation, which for more than two processes changes the last bits of a sum. A first pass without
    images leaves that behind, so that a resumed training has the buckets of one that was never stopped.
    """

    def __init__(self, network: Forward) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor | None) -> Any:
        if images is not None:
            return self.network(images)
        return 0 * torch.stack([weight.sum() for weight in self.parameters() if weight.requires_grad]).sum()


def _unchanged(loss: Tensor) -> Tensor:
    return loss


def _averaging(buffers: list[Tensor], world: World) -> Average:
    """One message per step with everything that is a mean over the processes, beside the gradients."""

    @torch.no_grad()
    def average(loss: Tensor) -> Tensor:
        mean, *statistics = world.mean([loss, *buffers])
        if buffers:
            torch._foreach_copy_(buffers, statistics)
        return mean

    return average


def _group_buffers(model: nn.Module) -> list[Tensor]:
    """Running statistics that differ from process to process after a step: each has taken in the mean over
    its own groups. They are linear in what they take in, so their mean is that of one process."""
    grouped = tuple(GROUPED.values())
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [
        buffer
        for norm in norms
        if isinstance(norm, grouped)
        for buffer in (norm.running_mean, norm.running_var)
        if buffer is not None
    ]
