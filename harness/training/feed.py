"""Batches: a pure function of the run's seed and the step, so that resuming needs no sampler state."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.data import augment
from harness.data.base import DataSet
from harness.study.spec import Recipe
from harness.training.distributed import ALONE, World
from harness.training.order import ORDERS
from harness.training.randomness import stream, stream_seed
from harness.tricks.base import Batch, Context, Trick, hooks_of


def count_steps_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches in one epoch. The last incomplete batch is dropped, as in He et al. 2019's GluonCV code;
    a set smaller than one batch is one batch of all its images.

    >>> count_steps_per_epoch(1000, 128), count_steps_per_epoch(100, 128)
    (7, 1)
    """
    return max(1, images // batch_size)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (B,) int64 as targets (B, K) float32; no table of all classes, which would be K x K."""
    targets = torch.zeros(len(labels), classes, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1.0)


@dataclass(slots=True, kw_only=True)
class Feed:
    """Makes the batch of any step: order of the epoch, augmentation, then the tricks that edit batches.

    Of several processes each gets its part. A trick that mixes images sees the whole batch, which is cut
    afterwards. Where there is none, each process cuts first and makes its own images only.
    """

    data: DataSet
    recipe: Recipe
    seed: int
    device: torch.device
    tricks: tuple[Trick, ...]
    context: Context
    world: World = ALONE
    _epoch: int = -1
    _order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        self.tricks = tuple(trick for trick in self.tricks if "edit_batch" in hooks_of(trick))

    def batch(self, step: int) -> Batch:
        """Images (B, 3, S, S) float32, channels last, and soft targets (B, K) float32, on the device; of W
        processes each gets B / W consecutive rows."""
        epoch, position = divmod(step, self.context.steps_per_epoch)
        indices = self._indices(epoch, position)
        mixes = any(not trick.per_image for trick in self.tricks)
        if not mixes:
            indices = self.world.share(indices)
        images = augment.training_images(
            self.data.train, indices, spec=self.recipe.augment, view=self.view(epoch)
        )
        labels = self.data.train.labels[indices].to(self.device, non_blocking=True)
        targets = one_hot(labels, self.data.classes)
        batch = Batch(images.contiguous(memory_format=torch.channels_last), targets)
        for trick in self.tricks:
            batch = trick.edit_batch(batch, stream(self.seed, f"trick/{trick.name}", step), self.context)
        return Batch(*map(self.world.share, batch)) if mixes else batch

    def _indices(self, epoch: int, position: int) -> Tensor:
        """The images of a whole batch, (B,) int64."""
        if epoch != self._epoch:
            order = ORDERS[self.recipe.shuffle]
            self._epoch, self._order = epoch, order(len(self.data.train.labels), self.seed, epoch)
        start = position * self.recipe.batch_size
        return self._order[start : start + self.recipe.batch_size]

    def view(self, epoch: int) -> augment.View:
        return augment.View(
            size=self.recipe.data.resolution,
            mean=self.data.mean,
            std=self.data.std,
            seed=stream_seed(self.seed, "augmentation"),
            epoch=epoch,
            device=str(self.device),
        )
