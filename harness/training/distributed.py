"""Several processes that train one run together: who is who, and what they tell each other.

Process 0 decides (when to stop, which checkpoint) and is the only one that writes; what it decides reaches
the others as one message of a byte per step. Everything else is the same in all of them, bit for bit: after
each step they hold the same weights, so nothing else needs to be agreed on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from harness.study.machine import Machine, Stop

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
