"""What this process computes with: settings that make results repeatable, a record of it, recorded work."""

from __future__ import annotations

import copy
import functools
import gc
import os
import platform
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import deterministic

from harness.data.loading import drop_resident
from harness.errors import DeviceUnusableError, decided
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
NO_MEMORY = ("CUDA out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")


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
    except RuntimeError:
        return True
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
    free, total = torch.cuda.mem_get_info(device)
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


# Work of a GPU that is the same operators on the same memory every time: told once, as a CUDA graph.

WARM_UP = 3  # calls before the recording, in which libraries choose their kernels
CHECKED = 2  # in the exact mode: the first replays are compared with the work itself, bit for bit


def without_graphs(device: torch.device) -> str | None:
    """Why nothing is replayed on the device, "" where it is no GPU; None: it is."""
    if device.type != "cuda":
        return ""
    return "HARNESS_GRAPHS is 0" if os.environ.get("HARNESS_GRAPHS") == "0" else None


@dataclass(slots=True)
class Recording:
    """Of the work on tensors of one form: where the graph finds them, and what it leaves there."""

    places: tuple[Tensor, ...]
    graph: Any = None  # torch.cuda.CUDAGraph
    result: Any = None
    warmed: int = 0
    checked: int = 0


class Replayed:
    """Calls `work` on tensors, or replays it from a recording for each form of them. The result of a replay
    is overwritten by the next.

    The first calls are made, on a stream of their own, and are the warm-up: nothing has to be undone and no
    random number is drawn twice. `eager` says why all are made; None: they are not.
    """

    def __init__(self, eager: str | None) -> None:
        self.eager = eager
        self._recordings: dict[Any, Recording] = {}
        # One for warm-up and recording: memory is kept for each stream.
        self._stream: Any = torch.cuda.Stream() if eager is None else None

    def __call__(self, *args: Tensor) -> Any:
        if self.eager is not None:
            return self.work(*args)
        form = tuple((each.shape, each.dtype) for each in args)
        if form not in self._recordings:
            self._recordings[form] = Recording(tuple(map(torch.empty_like, args)))
        recording = self._recordings[form]
        for place, new in zip(recording.places, args, strict=True):
            place.copy_(new)
        if recording.warmed < WARM_UP:
            recording.warmed += 1
            return self._beside(recording)
        if recording.graph is None:
            self._record(recording)
        if recording.graph is None:
            return self.work(*recording.places)
        if recording.checked < CHECKED and torch.are_deterministic_algorithms_enabled():
            return self._check(recording)
        recording.graph.replay()
        return recording.result

    def work(self, *args: Tensor) -> Any:
        """The same operators every time. A method: kept as a function, it would keep this alive."""

    def while_recorded(self) -> AbstractContextManager[None]:
        """What the work has to be told while it is recorded."""
        return nullcontext()

    def begin(self) -> None:
        """What comes before each call, from the state of this process: seeds."""

    def state(self) -> Any:
        """What a call changes beside its result."""

    def put_back(self, state: Any) -> None:
        """Undo that in the same memory, where the graph finds it."""

    def break_off(self) -> None:
        """A call was left in the middle."""

    def stay_eager(self, why: str) -> None:
        """Replay nothing from now on."""
        decided(f"a GPU is given its work operator by operator: {why}")
        self.eager = why
        self._recordings.clear()

    def _beside(self, recording: Recording) -> Any:
        """Work on the own stream, as torch asks for before a recording (torch.cuda.graph)."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = self.work(*recording.places)
        current.wait_stream(self._stream)
        return result

    def _record(self, recording: Recording) -> None:
        """What is recorded is not done; where that fails, nothing has changed."""
        graph, stream = torch.cuda.CUDAGraph(), self._stream
        try:
            # The outer block leaves the stream again also where the inner one cannot.
            with (
                self.while_recorded(),
                torch.cuda.stream(stream),
                torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
            ):
                recording.result = self.work(*recording.places)
            recording.graph = graph
        except RuntimeError as error:
            self.break_off()
            said = (str(error).strip().splitlines() or [""])[0]
            self.stay_eager(f"it cannot be recorded ({said:.200})")
        self.begin()  # the recording may have drawn

    def _check(self, recording: Recording) -> Any:
        """Replay, take it back, and make it: what was made counts, and must be what was replayed."""
        recording.checked += 1
        before = copy.deepcopy(self.state())
        recording.graph.replay()
        replayed = copy.deepcopy((recording.result, self.state()))
        self.put_back(before)
        self.begin()
        made = self.work(*recording.places)
        if not same_bits(replayed, (made, self.state())):
            self.stay_eager("a replay left other bits than the work itself")
        return made


def same_bits(a: Any, b: Any) -> bool:
    """Equal structure, and equal bits in every tensor (or NaN in both)."""
    if isinstance(a, Tensor):
        return bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return bool(a == b)


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
