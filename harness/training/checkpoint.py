"""How far a training is, what it used, and the complete state of an unfinished run in one file."""

from __future__ import annotations

import ctypes
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from torch import Tensor

from harness.spec import Machine
from harness.training.evaluate import Evaluation
from harness.training.setup import Setup
from harness.training.weights import TensorFileError, read_torch_file, write_torch_file

# Joules that the devices of a run used, from their own counters; None wherever that is not known.
#
# GPUs: NVML's nvmlDeviceGetTotalEnergyConsumption (NVML API reference, "Device Queries": millijoules since
# the driver was loaded; Volta and later). CPUs: the packages' energy_uj of the powercap interface (Linux,
# Documentation/power/powercap), which most systems show to root only.
#
# A counter is of the whole device. So nothing is measured where another run or another process uses it too.


POWERCAP = Path("/sys/class/powercap")
CPU_TIMES = Path("/proc/stat")
NVML = "libnvidia-ml.so.1"
LARGEST_W = 1000.0  # of a CPU package: a counter is read before it can have gone round at this power
OTHERS_SHARE = 0.1  # of the CPU time of a machine that others may have used beside this run


class Counter(Protocol):
    """Of one or several devices."""

    source: str

    def read_j(self) -> float | None:
        """Joules since some moment; None: it cannot be read, or the reading is no longer this run's alone."""


@dataclass(slots=True)
class EnergyMeter:
    """Over every attempt of a run, up to the state that was saved: work that a killed attempt lost is in
    neither the energy nor the times. Once something was not measured, the run was not."""

    carried_j: float | None = 0.0  # by earlier attempts
    counter: Counter | None = None
    _start_j: float | None = None

    def start(self, machine: Machine, *, knows_earlier: bool = True) -> None:
        """This attempt begins; False: what earlier ones used was not kept."""
        if not knows_earlier:
            self.carried_j = None
        self.counter = open_counter(machine)
        self._start_j = self.counter.read_j() if self.counter else None

    def joules(self) -> float | None:
        """So far."""
        now_j = self.counter.read_j() if self.counter else None
        if self.carried_j is None or self._start_j is None or now_j is None or now_j < self._start_j:
            self.carried_j = None
            return None
        return self.carried_j + now_j - self._start_j

    def tick(self) -> None:
        """To be called often: some counters must be read before they go round."""
        if isinstance(self.counter, CpuCounter):
            self.counter.read_in_time()

    @property
    def source(self) -> str | None:
        """nvml | powercap; None: nothing is measured."""
        return self.counter.source if self.counter else None


def open_counter(machine: Machine) -> Counter | None:
    """The counter of the devices that the machine's settings name; None: there is none, or it is shared."""
    devices = machine.devices or (machine.device,)
    if machine.shared or len(devices) != machine.processes:
        return None
    if machine.device == "cpu":
        return CpuCounter.open() if machine.processes == 1 else None
    try:
        return GpuCounter(ctypes.CDLL(NVML), [_uuid(device) for device in dict.fromkeys(devices)])
    except (OSError, AttributeError, RuntimeError, ValueError):
        return None


def _uuid(device: str) -> str:
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


class GpuCounter:
    """The GPUs of one run.

    Raises:
        RuntimeError: NVML refuses, for example a slice of a GPU (MIG).
        AttributeError: an NVML without energy counters.
    """

    source = "nvml"

    def __init__(self, library: Any, uuids: Sequence[str]) -> None:
        self._library = library
        self._energy = library.nvmlDeviceGetTotalEnergyConsumption
        self._running = library.nvmlDeviceGetComputeRunningProcesses_v3
        self._check(library.nvmlInit_v2())
        self._handles = [self._handle(uuid) for uuid in uuids]

    def read_j(self) -> float | None:
        total_mj = 0
        for handle in self._handles:
            used = ctypes.c_ulonglong()
            if self._energy(handle, ctypes.byref(used)) != 0 or self._processes(handle) > 1:
                return None
            total_mj += used.value
        return total_mj / 1000

    def _handle(self, uuid: str) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._check(self._library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)))
        return handle

    def _processes(self, handle: ctypes.c_void_p) -> int:
        """How many compute on it; 0 in a container that hides them."""
        count = ctypes.c_uint(0)
        self._running(handle, ctypes.byref(count), None)
        return count.value

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            raise RuntimeError(f"NVML answers {code}")


@dataclass(slots=True)
class CpuCounter:
    """The CPU packages of this machine, while no other process uses much of them."""

    packages: tuple[Path, ...]
    ranges_j: tuple[float, ...]  # at which each goes round
    clock: Callable[[], float] = time.monotonic
    cpu_times: Path = CPU_TIMES
    source: str = "powercap"
    _total_j: float = 0.0
    _last: tuple[float, tuple[float, ...]] | None = None  # when, and what each said
    _lost: bool = False
    _busy_before: tuple[float, float] | None = field(default=None)

    @staticmethod
    def open(root: Path = POWERCAP) -> CpuCounter | None:
        """None: no packages, or they may not be read."""
        packages = tuple(sorted(path for path in root.glob("*-rapl:*") if path.name.count(":") == 1))
        try:
            ranges = tuple(_joules(path / "max_energy_range_uj") for path in packages)
            _ = [_joules(path / "energy_uj") for path in packages]
        except (OSError, ValueError):
            return None
        return CpuCounter(packages, ranges) if packages else None

    def read_j(self) -> float | None:
        self._read()
        if self._lost or not self._is_alone():
            return None
        return self._total_j

    def read_in_time(self) -> None:
        """Read where half the time has passed in which a counter could go round."""
        if self._last is not None and self.clock() - self._last[0] > min(self.ranges_j) / LARGEST_W / 2:
            self._read()

    def _read(self) -> None:
        now_s = self.clock()
        try:
            values = tuple(_joules(path / "energy_uj") for path in self.packages)
        except (OSError, ValueError):
            self._lost = True
            return
        if self._last is not None:
            before_s, before = self._last
            self._lost = self._lost or now_s - before_s > min(self.ranges_j) / LARGEST_W
            pairs = zip(before, values, self.ranges_j, strict=True)
            self._total_j += sum(new - old if new >= old else new - old + whole for old, new, whole in pairs)
        self._last = (now_s, values)

    def _is_alone(self) -> bool:
        """Whether this process used nearly all of the CPU time since the first reading."""
        try:
            fields = self.cpu_times.read_text().split("\n", 1)[0].split()[1:]
            user, nice, system, _idle, _wait, irq, soft, *_ = map(float, fields)
        except (OSError, ValueError):
            return False
        busy_s = (user + nice + system + irq + soft) / 100  # USER_HZ
        now = (busy_s, time.process_time())
        if self._busy_before is None:
            self._busy_before = now
            return True
        all_s, own_s = (after - before for after, before in zip(now, self._busy_before, strict=True))
        return all_s - own_s <= max(OTHERS_SHARE * all_s, 1.0)


def _joules(path: Path) -> float:
    return int(path.read_text()) / 1e6


# How far a training is: the only state of the loop beside the network, the optimizer and the tricks.


@dataclass(slots=True)
class Stopwatch:
    """Seconds spent inside its `with` blocks, over every attempt of a run.

    `settle` waits for the device: what it was given inside a block is counted there, and not in the next one.
    """

    time_s: float = 0.0
    settle: Callable[[], None] | None = None
    _since: float = 0.0

    def __enter__(self) -> None:
        self._since = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self.settle is not None and kind is None:  # after an error, waiting may raise it again
            self.settle()
        self.time_s += time.perf_counter() - self._since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens in this block out of the enclosing one."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    @property
    def running_s(self) -> float:
        """The time so far, read inside a block."""
        return self.time_s + time.perf_counter() - self._since


@dataclass(slots=True, kw_only=True)
class TrainingProgress:
    """Counters and clocks. Losses are summed on the device, so that a step does not wait for it."""

    loss_sum: Tensor  # scalar float64: the training loss of every step since the last epoch ended
    loss_steps: int = 0
    step: int = 0  # optimizer steps made
    train_loss: float | None = None  # mean over the steps of the last epoch that ended
    kept: list[Evaluation] = field(
        default_factory=list
    )  # of the last epochs, where the read-out needs several
    train: Stopwatch = field(default_factory=Stopwatch)  # batches, passes and updates only
    evaluation: Stopwatch = field(default_factory=Stopwatch)
    wall: Stopwatch = field(default_factory=Stopwatch)
    energy: EnergyMeter = field(default_factory=EnergyMeter)
    # Why a GPU is given the steps operator by operator, where they are not replayed; "": there is none.
    eager: str | None = ""
    found_eager: str | None = None  # the same where it was found by trying, by this attempt or an earlier one

    @staticmethod
    def start(device: torch.device) -> TrainingProgress:
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        settle = partial(torch.cuda.synchronize, device) if device.type == "cuda" else None
        return TrainingProgress(
            loss_sum=loss_sum, train=Stopwatch(settle=settle), evaluation=Stopwatch(settle=settle)
        )

    def add(self, loss: Tensor) -> None:
        """The loss of a step, on the device."""
        self.loss_sum += loss.detach()

    def count(self) -> None:
        """One step was made."""
        self.step += 1
        self.loss_steps += 1

    def has_diverged(self) -> bool:
        """Whether a loss of this epoch was NaN or infinite; waits for the device."""
        return not bool(torch.isfinite(self.loss_sum))

    def end_epoch(self) -> float:
        """The mean loss of the epoch's steps; starts the next sum."""
        self.train_loss = float(self.loss_sum) / self.loss_steps
        self.loss_sum.zero_()
        self.loss_steps = 0
        return self.train_loss

    def state_dict(self) -> dict[str, Any]:
        return {
            "loss_sum": self.loss_sum.cpu(),
            "loss_steps": self.loss_steps,
            "step": self.step,
            "train_loss": self.train_loss,
            "kept": [each.state_dict() for each in self.kept],
            "train_time_s": self.train.time_s,
            "evaluation_time_s": self.evaluation.time_s,
            "wall_time_s": self.wall.running_s,
            "energy_j": self.energy.joules(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss_sum.copy_(state["loss_sum"])
        self.loss_steps, self.step, self.train_loss = state["loss_steps"], state["step"], state["train_loss"]
        self.kept = [Evaluation(**each) for each in state["kept"]]
        self.train.time_s = state["train_time_s"]
        self.evaluation.time_s = state["evaluation_time_s"]
        self.wall.time_s = state["wall_time_s"]
        self.energy.carried_j = state.get("energy_j")  # of an older version: not measured


# The complete state of an unfinished run in one file, replaced atomically.


CHECKPOINT_SCHEMA = 2


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the run starts again from step 0."""


def save_checkpoint(path: Path, setup: Setup, progress: TrainingProgress) -> None:
    """Write everything that a resumed run needs to make the same bits as one that was never stopped.

    Random generators are not in it: each is a function of the seed and the step.
    """
    write_torch_file(
        path,
        {
            "schema": CHECKPOINT_SCHEMA,
            "run_id": setup.spec.run_id,
            "model": setup.model.state_dict(),
            "optimizer": setup.optimizer.state_dict(),
            "precision": setup.precision.state_dict(),
            "tricks": {name: state.state_dict() for name, state in setup.states.items()},
            "progress": progress.state_dict(),
        },
    )


def load_checkpoint(path: Path, setup: Setup, progress: TrainingProgress) -> bool:
    """Continue where the file stopped. False: there is no file and nothing was changed.

    Several processes continue with what the first one reads: a file system may show another an older file.

    Raises:
        CheckpointError: the file is damaged or of another run. The setup may be half changed: build it anew.
    """
    file: Path | IO[bytes] = path
    if setup.world.size > 1:
        data = setup.world.tell_bytes(path.read_bytes() if setup.world.is_main and path.exists() else None)
        if data is None:
            return False
        file = io.BytesIO(data)
    elif not path.exists():
        return False
    state = _read(file, setup.spec.run_id)
    try:
        setup.model.load_state_dict(state["model"])
        setup.optimizer.load_state_dict(state["optimizer"])
        setup.precision.load_state_dict(state["precision"])
        for name, trick_state in setup.states.items():
            trick_state.load_state_dict(state["tricks"][name])
        progress.load_state_dict(state["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint does not fit this run: {error}") from error
    return True


def _read(file: Path | IO[bytes], run_id: str) -> dict[str, Any]:
    try:
        state = read_torch_file(file)
    except (OSError, TensorFileError) as error:
        raise CheckpointError(f"the checkpoint cannot be read: {error}") from error
    if not isinstance(state, dict) or state.get("schema") != CHECKPOINT_SCHEMA:
        raise CheckpointError(f"the checkpoint is not of schema {CHECKPOINT_SCHEMA}")
    if state.get("run_id") != run_id:
        raise CheckpointError(f"the checkpoint is of run {state.get('run_id')}, this is run {run_id}")
    return state
