"""What this process computes with: settings that make results repeatable, a record of it, its energy."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils import deterministic

from harness.data.loading import drop_resident
from harness.errors import DeviceUnusableError
from harness.runs.provenance import changes_digest, code_version, cpu_name, describe_hardware
from harness.spec import Machine

# What this process computes with: settings that make results repeatable, and a record of the machine.


@contextmanager
def configured(machine: Machine) -> Iterator[None]:
    """Apply the machine's threads, device and exactness to torch for the block, and restore what was set
    before. Its GPU is the current one, which torch seeds and synchronises where it is asked for no other.

    With `exact`, operations without a repeatable implementation are refused by torch with an error that
    names them. TF32 is off either way: `fp32` in a recipe means FP32.
    """
    # Read by cuBLAS when it starts; without it torch refuses matrix products in exact mode.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, formats = _flags(), fp32_formats()
    _apply(
        {
            "threads": machine.threads,
            "deterministic": machine.exact,
            "fill_uninitialized_memory": not machine.exact and before["fill_uninitialized_memory"],
            "cudnn_deterministic": machine.exact,
            "cudnn_benchmark": not machine.exact,
        }
    )
    apply_fp32_formats(EXACT_FP32)
    try:
        with torch.cuda.device(machine.device) if machine.device.startswith("cuda") else nullcontext():
            yield
    finally:
        _apply(before)
        apply_fp32_formats(formats)


def describe(machine: Machine) -> dict[str, Any]:
    """The content of env.json: plain data about software, hardware and settings."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if machine.device != "cpu" else None,
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
        **describe_hardware(),
        "device": machine.shown_device,
        "processes": machine.processes,
        "device_name": device_name(machine.device),
        "shared": machine.shared,
        "device_memory_gb": _device_memory_gb(machine.device),
        "exact": machine.exact,
        "compile": machine.compile,
        "half_precision": "emulated" if machine.device == "cpu" else "native",
        **_flags(),
        "tf32": computes_tf32(),
        **source_version(),
    }


def device_name(device: str) -> str:
    """The product name of the processor that trains."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_name()


def _device_memory_gb(device: str) -> float | None:
    """Of a GPU, in 10^9 bytes."""
    if not device.startswith("cuda"):
        return None
    return round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1)


def _version(package: str) -> str | None:
    """Without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def source_version() -> dict[str, Any]:
    """The commit this harness runs from, whether files differ from it, and the sha256 of the difference as a
    patch; None outside a checkout.

    Queued runs use a snapshot, which says what it was taken from.
    """
    root = Path(__file__).resolve().parents[2]
    found = code_version(root)
    return {**found, "changes": changes_digest(root) if found["dirty"] else None}


def _flags() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fill_uninitialized_memory": deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def _apply(flags: dict[str, Any]) -> None:
    if flags["threads"] != torch.get_num_threads():
        torch.set_num_threads(flags["threads"])
    torch.use_deterministic_algorithms(flags["deterministic"])
    deterministic.fill_uninitialized_memory = flags["fill_uninitialized_memory"]  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = flags["cudnn_deterministic"]
    torch.backends.cudnn.benchmark = flags["cudnn_benchmark"]


# A GPU that others use as well: its memory, and errors after which a process cannot use it any more.


UNUSABLE = {  # what CUDA says -> what that means, what to do
    "driver on your system is too old": "the NVIDIA driver is older than this torch was built for: install a "
    "newer driver, or a torch for this one",
    "busy or unavailable": "another process has it alone, it is in exclusive mode (nvidia-smi -c DEFAULT)",
    "No CUDA GPUs are available": "the driver knows no such device: look at CUDA_VISIBLE_DEVICES",
    "ECC error": "its memory has errors that cannot be corrected: reset or replace it (nvidia-smi -q -d ECC)",
    "no kernel image": "this torch was not built for a GPU of its kind: install a torch that names it",
}
NO_MEMORY = (  # in the words of torch, of CUDA itself, and of libraries; cuBLAS says it of its handles too
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "when calling `cublasCreate",
)


def cuda_in_words(error: BaseException) -> str:
    """What an error of CUDA means to the owner of the machine; else its first line."""
    text = str(error).strip() or type(error).__name__
    meant = next((words for said, words in UNUSABLE.items() if said.lower() in text.lower()), "")
    first = text.splitlines()[0][:300]
    return f"{meant} ({first})" if meant else first


def require_device(machine: Machine) -> None:
    """Ask the first thing of a run's GPU. One that is only full is none of this.

    Raises:
        DeviceUnusableError: nothing can be begun on it.
    """
    if not machine.device.startswith("cuda"):
        return
    try:
        torch.zeros(1, device=machine.device)
        torch.cuda.synchronize(machine.device)
    except (RuntimeError, AssertionError) as error:
        if not is_out_of_memory(error):
            message = f"{machine.shown_device} cannot be used: {cuda_in_words(error)}"
            raise DeviceUnusableError(message) from error


def is_lost(device: str) -> bool:
    """Whether nothing works on the device any more in this process: an error of CUDA stays until its end."""
    if not (device.startswith("cuda") and torch.cuda.is_initialized()):
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return not is_out_of_memory(error)  # others may give it back
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU had not enough memory left, in the words of torch or of a library that it calls."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)


_peaks: dict[str, int] = {}  # arm -> bytes that a run of it held at once on the GPU, in this process
LEAST_FREE_BYTES = 2**30  # where nothing is known yet


def note_peak(arm_id: str, device: str) -> None:
    """How much a run of this arm needed, for the next one."""
    if device.startswith("cuda") and torch.cuda.is_initialized():
        _peaks[arm_id] = max(_peaks.get(arm_id, 0), torch.cuda.max_memory_allocated(device))
        torch.cuda.reset_peak_memory_stats(device)


def lacks_memory(arm_id: str, device: str) -> str:
    """Why a run of this arm should not begin on the device now; "": it may. It needs what one of its arm
    need here before, else the most that any did: runs side by side are mostly alike."""
    if not device.startswith("cuda"):
        return ""
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return "it has no memory left in which anything could be begun"
    least = min(LEAST_FREE_BYTES, total // 4)
    need = _peaks.get(arm_id, max(_peaks.values(), default=least))
    if free >= need:
        return ""
    return f"{free / 1e9:.1f} of its {total / 1e9:.1f} GB are free, a run like this needs {need / 1e9:.1f} GB"


def release_memory() -> None:
    """Give back what this process holds of a GPU beside the tensors in use: for the other runs on it."""
    if not torch.cuda.is_initialized():
        return
    drop_resident()
    gc.collect()  # networks and hooks that refer to each other
    torch.cuda.empty_cache()


# In which format the products of FP32 numbers are computed: torch has two interfaces to it.
#
# The older one is a switch (`allow_tf32`) and a word ("highest", "high", "medium"), the newer one (torch 2.9)
# a word for each kind of product. A process may have used either, and after a mixture the older one raises
# when it is read: so what the newer one says is kept, and the older one as far as it answers.


EXACT_FP32: dict[str, Any] = {"matmul": "highest", "cudnn": False}
NEWER_EXACT = "ieee"


def fp32_formats() -> dict[str, Any]:
    """What is set now, for `apply_fp32_formats`: "matmul" and "cudnn" by the older interface, None where that
    does not answer; further names are kinds of product of the newer one."""
    older = {"matmul": torch.get_float32_matmul_precision, "cudnn": lambda: torch.backends.cudnn.allow_tf32}
    formats: dict[str, Any] = {}
    for name, read in older.items():
        try:
            formats[name] = read()
        except RuntimeError:
            formats[name] = None
    return formats | {name: each.fp32_precision for name, each in _newer().items()}


def apply_fp32_formats(formats: Mapping[str, Any]) -> None:
    """Set them through both interfaces; the newer one has the last word, exact FP32 where it is not named."""
    if formats["matmul"] is not None and formats["matmul"] != fp32_formats()["matmul"]:
        torch.set_float32_matmul_precision(formats["matmul"])
    if formats["cudnn"] is not None:
        torch.backends.cudnn.allow_tf32 = formats["cudnn"]
    for name, each in _newer().items():
        each.fp32_precision = formats.get(name, NEWER_EXACT)


def computes_tf32() -> bool:
    """Whether any product of FP32 numbers may be computed with fewer bits on a GPU."""
    newer = _newer()
    if newer:
        return any(each.fp32_precision == "tf32" for each in newer.values())
    return torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32


def _newer() -> dict[str, Any]:
    """The kinds of product of the newer interface; none in an older torch."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return {}
    cudnn: Any = torch.backends.cudnn
    return {"cudnn.conv": cudnn.conv, "cudnn.rnn": cudnn.rnn, "cuda.matmul": torch.backends.cuda.matmul}


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
