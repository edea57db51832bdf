"""The learning rate: its peak, its warm-up and its decay."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from harness.tricks.base import Trick, require, trick


@trick
class LinearLrScaling(Trick):
    """Linear learning-rate scaling: the peak learning rate grows in proportion to the batch.

    Paper: he2019bag, arXiv:1812.01187, Sec. 3.1; rule from goyal2017accurate, arXiv:1706.02677, Sec.
        2.1
    Equation: lr = eta * b / reference_batch, with b the images per optimizer step and eta the recipe's lr
    Acts on: recipe (lr)
    Defaults: reference_batch = 256, the batch for which the baselines of both papers give eta = 0.1
    Differs: nothing known. It reads the batch that the recipe has when it acts, so large_batch comes before
        it in a list. At a reduced size the batches are scaled after this trick has acted, so that the rule is
        applied to the paper's batch and lr stays the paper's. rmsprop gives its own rate, and excludes it.
    """

    name: ClassVar[str] = "linear_lr_scaling"
    conflicts: ClassVar[tuple[str, ...]] = ("rmsprop",)
    reference_batch: int = 256

    def __post_init__(self) -> None:
        require(
            self.reference_batch >= 1,
            f"linear_lr_scaling: reference_batch must be an integer >= 1, got {self.reference_batch!r}",
        )

    def edit_recipe(self, recipe: Any) -> Any:
        lr = scaled_lr(recipe.lr, batch_size=recipe.batch_size, reference_batch=self.reference_batch)
        return recipe.but(lr=lr)


def scaled_lr(lr: float, *, batch_size: int, reference_batch: int) -> float:
    """The peak learning rate for a batch of `batch_size` images, where `lr` is right for `reference_batch`.

    >>> scaled_lr(0.1, batch_size=1024, reference_batch=256)
    0.4
    """
    return lr * batch_size / reference_batch


@trick
class LargeBatch(Trick):
    """Large batch: more images in each optimizer step.

    Paper: he2019bag, arXiv:1812.01187, Sec. 3.1: 1,024; goyal2017accurate, arXiv:1706.02677, Table 1:
        8,192
    Equation: batch_size = images
    Acts on: recipe (batch_size)
    Defaults: images = 1024 (he2019bag)
    Differs: nothing known. The learning rate stays as it is: linear_lr_scaling, which reads the batch, comes
        after this trick in a list. At a reduced size the batch is scaled by batch_scale.
    """

    name: ClassVar[str] = "large_batch"
    images: int = 1024

    def __post_init__(self) -> None:
        require(self.images >= 1, f"large_batch: images must be an integer >= 1, got {self.images!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(batch_size=self.images)


@trick
class Warmup(Trick):
    """Gradual warm-up: the learning rate rises linearly to its peak over the first epochs.

    Paper: he2019bag, arXiv:1812.01187, Sec. 3.1; goyal2017accurate, arXiv:1706.02677, Sec. 2.2
    Equation: he2019bag (start_lr = 0): lr(i) = i / m * lr_peak for batch i = 1, 2, ..., m, with m the number
        of warm-up steps; goyal2017accurate: lr(i) = start_lr + (i - 1) / m * (lr_peak - start_lr)
    Acts on: recipe (warmup_epochs, warmup_lr, warmup_shape)
    Defaults: epochs = 5.0 as in both papers, out of 120 (he2019bag) or 90 (goyal2017accurate) epochs of
        training; start_lr = 0.0 (he2019bag; goyal2017accurate starts at the rate of its small batch, 0.1)
    Differs: warm-up counts within recipe.epochs, so that training is not longer with it. At which batch
        goyal2017accurate reaches the peak is not said; here it is the first one after the warm-up.
    """

    name: ClassVar[str] = "warmup"
    conflicts: ClassVar[tuple[str, ...]] = ("constant_warmup",)
    epochs: float = 5.0
    start_lr: float = 0.0

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"warmup: epochs must be a number > 0, got {self.epochs!r}")
        require(self.start_lr >= 0, f"warmup: start_lr must be a number >= 0, got {self.start_lr!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        require(
            self.epochs < recipe.epochs,
            f"warmup: {self.epochs:g} epochs of warm-up do not fit into {recipe.epochs:g} epochs of training",
        )
        shape = "proportional" if self.start_lr == 0 else "linear"
        return recipe.but(warmup_epochs=self.epochs, warmup_lr=self.start_lr, warmup_shape=shape)


def warmup_lr(step: int, *, warmup_steps: int, lr_peak: float, start_lr: float = 0.0) -> float:
    """The learning rate at `step` (0-based) of the warm-up.

    The training loop has its own schedule function; this is the equation it must agree with.

    >>> [warmup_lr(step, warmup_steps=4, lr_peak=0.4) for step in (0, 1, 3)]
    [0.1, 0.2, 0.4]
    >>> warmup_lr(2, warmup_steps=4, lr_peak=3.5, start_lr=0.5)
    2.0
    """
    if start_lr == 0:
        return (step + 1) / warmup_steps * lr_peak
    return start_lr + step / warmup_steps * (lr_peak - start_lr)


@trick
class ConstantWarmup(Trick):
    """Constant warm-up: a low, constant learning rate for the first epochs, then the full one at once.

    Paper: goyal2017accurate, arXiv:1706.02677, Sec. 2.2 and Table 1
    Equation: lr(t) = lr for t < epochs;   after that the schedule, from its peak
    Acts on: recipe (warmup_epochs, warmup_lr, warmup_shape)
    Defaults: epochs = 5.0 (the paper); lr = 0.1 (the rate that is right for the paper's small batch of 256)
    Differs: nothing known. Warm-up counts within recipe.epochs, so that training is not longer with it.
    """

    name: ClassVar[str] = "constant_warmup"
    conflicts: ClassVar[tuple[str, ...]] = ("warmup",)
    epochs: float = 5.0
    lr: float = 0.1

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"constant_warmup: epochs must be a number > 0, got {self.epochs!r}")
        require(self.lr > 0, f"constant_warmup: lr must be a number > 0, got {self.lr!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        require(
            self.epochs < recipe.epochs,
            f"constant_warmup: {self.epochs:g} epochs of warm-up do not fit into {recipe.epochs:g} epochs of"
            " training",
        )
        return recipe.but(warmup_epochs=self.epochs, warmup_lr=self.lr, warmup_shape="constant")


@trick
class Cosine(Trick):
    """Cosine decay: the learning rate follows half a cosine from its peak to 0.

    Paper: he2019bag, arXiv:1812.01187, Sec. 5.1; from loshchilov2017sgdr, arXiv:1608.03983, Eq. (5)
        (memory)
    Equation: lr(t) = 0.5 * (1 + cos(pi * t / T)) * lr_peak, with t and T counted in steps after the warm-up
    Acts on: recipe (schedule, milestones)
    Defaults: no options
    Differs: nothing known; there are no restarts, as in he2019bag. It clears the milestones of the step
        schedule, so that two recipes which differ only in numbers that are no longer used are one arm.
    """

    name: ClassVar[str] = "cosine"
    conflicts: ClassVar[tuple[str, ...]] = ("exponential_decay", "step_decay", "faster_decay")

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(schedule="cosine", milestones=())


def cosine_lr(step: int, *, total_steps: int, lr_peak: float) -> float:
    """The learning rate `step` steps after the warm-up, of `total_steps` (warm-up excluded).

    The training loop has its own schedule function; this is the equation it must agree with.

    >>> [round(cosine_lr(step, total_steps=4, lr_peak=0.4), 4) for step in range(5)]
    [0.4, 0.3414, 0.2, 0.0586, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * step / total_steps)) * lr_peak


@trick
class StepDecay(Trick):
    """Step decay: the learning rate is divided at fixed epochs.

    Paper: he2016deep, arXiv:1512.03385, Sec. 3.4: divided by 10; he2019bag, arXiv:1812.01187, Sec. 2.1:
        every 30 epochs of 120
    Equation: lr(t) = lr_peak * factor ^ floor(t / every), with t in epochs from the start of training
    Acts on: recipe (schedule, milestones, decay)
    Defaults: every = 30.0 (he2019bag) and factor = 0.1 (both papers)
    Differs: he2016deep divides when the error plateaus, which depends on the run; here the epochs are fixed
        beforehand. The milestones are written for the epochs that the recipe has when this trick acts.
    """

    name: ClassVar[str] = "step_decay"
    conflicts: ClassVar[tuple[str, ...]] = ("cosine", "exponential_decay", "faster_decay")
    every: float = 30.0
    factor: float = 0.1

    def __post_init__(self) -> None:
        require(self.every > 0, f"step_decay: every must be a number > 0, got {self.every!r}")
        require(0 < self.factor < 1, f"step_decay: factor must be a number in (0, 1), got {self.factor!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        count = recipe.epochs / self.every
        require(count <= MOST_MILESTONES, f"step_decay: {count:.0f} milestones, more than {MOST_MILESTONES}")
        epochs = milestones(epochs=recipe.epochs, every=self.every)
        require(
            bool(epochs),
            f"step_decay: {self.every:g} epochs do not pass within {recipe.epochs:g} epochs of training",
        )
        return recipe.but(schedule="step", milestones=epochs, decay=self.factor)


MOST_MILESTONES = 1_000


def milestones(*, epochs: float, every: float) -> tuple[float, ...]:
    """The multiples of `every` that lie before the end of training.

    >>> milestones(epochs=120, every=30), milestones(epochs=90, every=40)
    ((30.0, 60.0, 90.0), (40.0, 80.0))
    """
    found: list[float] = []
    while (len(found) + 1) * every < epochs:
        found.append(float((len(found) + 1) * every))
    return tuple(found)


@trick
class ExponentialDecay(Trick):
    """Exponential decay: the learning rate is multiplied by a factor every few epochs, in stairs.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 8: x 0.94 every 2 epochs; szegedy2015going,
        arXiv:1409.4842, Sec. 6: x 0.96 every 8 epochs
    Equation: lr(t) = lr_peak * factor ^ floor(t / every), with t in epochs from the start of training
    Acts on: recipe (schedule, decay, decay_every, milestones)
    Defaults: factor = 0.94 and every = 2.0 (szegedy2016rethinking; szegedy2017inception has the same)
    Differs: nothing known. It clears the milestones of the step schedule, so that two recipes which differ
        only in numbers that are no longer used are one arm.
    """

    name: ClassVar[str] = "exponential_decay"
    conflicts: ClassVar[tuple[str, ...]] = ("cosine", "step_decay", "faster_decay")
    factor: float = 0.94
    every: float = 2.0

    def __post_init__(self) -> None:
        require(
            0 < self.factor < 1, f"exponential_decay: factor must be a number in (0, 1), got {self.factor!r}"
        )
        require(self.every > 0, f"exponential_decay: every must be a number > 0, got {self.every!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(schedule="exponential", decay=self.factor, decay_every=self.every, milestones=())


def exponential_lr(epoch: float, *, lr_peak: float, factor: float, every: float) -> float:
    """The learning rate after `epoch` epochs.

    The training loop has its own schedule function; this is the equation it must agree with.

    >>> [round(exponential_lr(epoch, lr_peak=0.045, factor=0.94, every=2.0), 6) for epoch in (0, 1.9, 2, 99)]
    [0.045, 0.045, 0.0423, 0.00217]
    """
    return lr_peak * factor ** (epoch // every)
