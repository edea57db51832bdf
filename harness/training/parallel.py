"""Several processes that train one run together: who is who, and what they tell each other.

Process 0 decides (when to stop, which checkpoint) and is the only one that writes; what it decides reaches
the others as one message of a byte per step. Everything else is the same in all of them, bit for bit: after
each step they hold the same weights, so nothing else needs to be agreed on.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from harness.spec import Machine, Recipe, Stop

TIMEOUT_S = 600  # that a process waits for the others: longer than whatever process 0 does alone
STORE = "HARNESS_STORE"  # a file on which the processes of one machine meet, so that no port is opened
MESSAGE_BYTES = 4000  # of an error that is told to the others; the end of a longer one is cut off

Sliced = TypeVar("Sliced", bound=Tensor)


class PeerError(RuntimeError):
    """Another process of the run failed, died or does not answer: the run cannot go on in this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among those that train the run. Alone it communicates with nobody, at no cost."""

    rank: int = 0
    size: int = 1
    before_leaving: list[Callable[[], None]] = field(default_factory=list, repr=False, compare=False)

    def __deepcopy__(self, _memo: object) -> World:
        return self  # a copied network is in the same world

    @property
    def is_main(self) -> bool:
        """Whether this is the process that decides and writes."""
        return self.rank == 0

    @staticmethod
    @contextmanager
    def join(machine: Machine) -> Iterator[World]:
        """Meet the other processes of the run, for the block; alone where the machine says so.

        Read from the environment as `torchrun` sets it: RANK, WORLD_SIZE and either MASTER_ADDR and
        MASTER_PORT, or HARNESS_STORE, a file that no other group of processes used. Tensors on the CPU go
        through gloo, those on a GPU through NCCL, or through gloo where processes share a GPU.

        Raises:
            PeerError: the others did not come or do not answer for `TIMEOUT_S`, or one of them is gone.
            ValueError: the environment is not that of one of `machine.processes` processes.
        """
        if machine.processes == 1:
            yield ALONE
            return
        world = _from_environment(machine.processes)
        device = torch.device(machine.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            _meet(world, _backend(machine))
            yield world
        except (RuntimeError, OSError) as error:
            if not _is_of_communication(error):
                raise
            raise PeerError(
                f"process {world.rank} of {world.size}: another process of this run is gone, or did not "
                f"answer for {TIMEOUT_S} s; its own message says why. ({str(error).strip()[-300:]})"
            ) from error
        finally:
            _leave(world)

    def share(self, batch: Sliced) -> Sliced:
        """This process's consecutive part of a whole batch, the same number of rows in each process."""
        each = len(batch) // self.size
        return batch if self.size == 1 else batch[self.rank * each : (self.rank + 1) * each]  # type: ignore[return-value]

    def stream(self, name: str) -> str:
        """The name of a stream of random numbers that each process draws from for itself: process 0 has the
        one of a run by one process.

        >>> World(rank=0, size=2).stream("layers"), World(rank=1, size=2).stream("layers")
        ('layers', 'layers/1')
        """
        return name if self.is_main else f"{name}/{self.rank}"

    def agree(self, stop: Stop) -> bool:
        """Whether process 0 is to stop; the others' `stop` is not asked. One message of a byte."""
        if self.size == 1:
            return stop()
        flag = torch.tensor([self.is_main and stop()], dtype=torch.uint8)
        dist.broadcast(flag, src=0)
        return bool(flag)

    def tell(self, text: str = "") -> str:
        """The text of process 0; the others' is not read."""
        return (self.tell_bytes(text.encode()) or b"").decode()

    def tell_bytes(self, data: bytes | None) -> bytes | None:
        """The data of process 0; the others' are not read."""
        if self.size == 1:
            return data
        count = torch.tensor([-1 if data is None else len(data)])
        dist.broadcast(count, src=0)
        if int(count) <= 0:
            return None if int(count) < 0 else b""
        buffer = torch.zeros(int(count), dtype=torch.uint8)
        if self.is_main and data is not None:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(buffer, src=0)
        return buffer.numpy().tobytes()

    def mean(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor's mean over the processes in float32, of the same bits in all of them. One message."""
        if self.size == 1:
            return list(values)
        flat = torch.cat([value.detach().float().flatten() for value in values])
        dist.all_reduce(flat)
        flat.div_(self.size)
        parts = flat.split([value.numel() for value in values])
        return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]

    def sum_(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place, of the same bits in all of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def rows(self, own: Tensor) -> Tensor:
        """One tensor of each process, all of one shape -> (W, ...), in the order of their ranks."""
        table = torch.zeros((self.size, *own.shape), dtype=own.dtype, device=own.device)
        table[self.rank] = own
        return self.sum_(table)

    def assemble(self, parts: Sequence[Tensor], start: int, length: int) -> Tensor:
        """Consecutive rows that each process has from `start` on -> all `length` rows, bit for bit; at least
        process 0 has some."""
        if self.size == 1:
            return torch.cat(list(parts))
        own = torch.cat(list(parts)) if parts else torch.empty(0)
        form = torch.tensor([own.shape[1] if own.ndim > 1 else 0, ASSEMBLED.index(own.dtype)])
        dist.broadcast(form, src=0)
        columns, kind = form.tolist()
        whole = torch.zeros((length, columns) if columns else (length,), dtype=ASSEMBLED[kind])
        if parts:
            whole[start : start + len(own)] = own.cpu()
        # As integers, of which 0 + x is x for every bit pattern, -0.0 and NaN among them.
        dist.all_reduce(whole.view(torch.int32))
        return whole.to(own.device)

    @contextmanager
    def together(self) -> Iterator[None]:
        """An exception of one process in the block ends the block in all of them, with its words: none waits
        for one that gave up. Nothing else may be communicated in the block.

        Raises:
            PeerError: another process raised an exception.
        """
        if self.size == 1:
            yield
            return
        try:
            yield
        except Exception as error:
            self._texts(f"{type(error).__name__}: {error}")
            raise
        for rank, text in enumerate(self._texts("")):
            if text:
                raise PeerError(f"process {rank} of {self.size}: {text}")

    def _texts(self, own: str) -> list[str]:
        """The text of every process."""
        data = own.encode()[:MESSAGE_BYTES].ljust(MESSAGE_BYTES, b"\0")
        rows = self.rows(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        return [row.numpy().tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows]


ALONE = World()
ASSEMBLED = (torch.float32, torch.float64, torch.int64)  # what processes put together


def _from_environment(processes: int) -> World:
    try:
        world = World(rank=int(os.environ["RANK"]), size=int(os.environ["WORLD_SIZE"]))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"this is to be one of {processes} processes of a run, but the environment has no number in "
            f"{error}: start them with `harness run --processes {processes}` or torchrun"
        ) from error
    if world.size != processes or not 0 <= world.rank < processes:
        raise ValueError(
            f"this is to be one of {processes} processes of a run, but the environment says RANK "
            f"{world.rank} and WORLD_SIZE {world.size}"
        )
    return world


def _backend(machine: Machine) -> str:
    """
    >>> from pathlib import Path
    >>> one = Machine(runs_dir=Path("runs"), data_dir=Path("data"), device="cuda:0", processes=2)
    >>> _backend(one)
    'cpu:gloo,cuda:nccl'
    """
    share_a_gpu = len(set(machine.devices)) < len(machine.devices)  # which NCCL refuses
    return "gloo" if machine.device == "cpu" or share_a_gpu else "cpu:gloo,cuda:nccl"


def _meet(world: World, backend: str) -> None:
    timeout = timedelta(seconds=TIMEOUT_S)
    if STORE in os.environ:
        store = dist.FileStore(os.environ[STORE], world.size)  # type: ignore[attr-defined]  # not in the stub
        dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=timeout)
    else:
        dist.init_process_group(
            backend, init_method="env://", rank=world.rank, world_size=world.size, timeout=timeout
        )


def _leave(world: World) -> None:
    """Close the connections: the others see at once that this process is gone."""
    for end in world.before_leaving:
        end()
    world.before_leaving.clear()
    if dist.is_initialized() and dist.group.WORLD is not None:
        # Destroyed last, and by this name: it waits for its thread without holding Python's lock.
        gloo = dist.group.WORLD._get_backend(torch.device("cpu"))
        dist.destroy_process_group()
        del gloo


def _is_of_communication(error: Exception) -> bool:
    """gloo raises plain RuntimeErrors that name its files."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


# Batch norm over parts of a batch, as where each of many workers normalises its own share of a step.
#
# Goyal et al. 2017, Sec. 2.3: the statistics of batch norm are over the n = 32 images of one worker
# whatever the whole batch is, because with other statistics the loss would be another one.


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


# Batch norm over the whole batch of several processes, each of which holds a part of it.
#
# torch's own SyncBatchNorm exists on GPUs only. This one is made of operations that CPUs and GPUs have, and
# of one kind of message, so that what is tested on one holds on the other.


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
        # Empty, not None: CUDA's kernel takes the given mean where the saved one has no elements, and ends
        # with an assertion where there is none.
        none = mean.new_empty(0)
        _, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, variance, none, none, False, norm.eps, [False, True, True]
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


# The network of one process among several, such that together they do what one would do with the batch.
#
# Gradients and the loss are means over the processes, whose parts of the batch are equally large. Batch
# norm follows the recipe: `norm_images` 0, or a group as large as the batch, has statistics over the whole
# batch, wherever its images are; smaller groups lie within one process.


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
