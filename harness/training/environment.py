"""What this process computes with: settings that make results repeatable, a record of it, recorded work."""

from __future__ import annotations

import copy
import functools
import gc
import os
import platform
import socket
import warnings
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
from harness.errors import DeviceLostError, DeviceUnusableError, decided
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


# Work of a GPU that is the same operators on the same memory every time: told once, as a CUDA graph.

WARM_UP = 3  # calls before the recording, in which libraries choose their kernels
CHECKED = 2  # the first replays are compared with the work itself
NEARLY = 0.1  # of what a call changes: so much may differ where kernels sum in any order (bf16: some 0.01)


def without_graphs(device: torch.device) -> str | None:
    """Why nothing is replayed on the device, "" where it is no GPU; None: it is."""
    if device.type != "cuda":
        return ""
    return "HARNESS_GRAPHS is 0" if os.environ.get("HARNESS_GRAPHS") == "0" else None


@functools.cache
def own_stream(device: torch.device) -> Any:
    """Where this process warms up and records: one stream, because cuBLAS keeps memory for each for ever."""
    return torch.cuda.Stream(device)


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

    def __init__(self, eager: str | None, device: torch.device) -> None:
        self.eager, self._device = eager, device
        self._recordings: dict[Any, Recording] = {}

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
            return self._warm_up(recording)
        if recording.graph is None:
            self._record(recording)
        if recording.graph is None:
            return self.work(*recording.places)
        if recording.checked < CHECKED:
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
        current, own = torch.cuda.current_stream(), own_stream(self._device)
        own.wait_stream(current)
        with torch.cuda.stream(own):
            result = self.work(*recording.places)
        current.wait_stream(own)
        return result

    def _warm_up(self, recording: Recording) -> Any:
        """Make the work. The last time what cannot be recorded is looked for: a recording that fails half-way
        leaves torch's allocator, and in older versions its generator, as if it went on."""
        recording.warmed += 1
        if recording.warmed < WARM_UP:
            return self._beside(recording)
        with waits() as places:
            result = self._beside(recording)
        if places:
            self.stay_eager(f"its work waits for the GPU, first at {places[0]}")
        return result

    def _record(self, recording: Recording) -> None:
        """What is recorded is not done; where that fails, nothing has changed.

        Raises:
            DeviceLostError: it failed, and left torch unable to draw numbers on the device.
        """
        graph, stream = torch.cuda.CUDAGraph(), own_stream(self._device)
        try:
            # The outer block leaves the stream again also where the inner one cannot.
            with (
                self.while_recorded(),
                torch.cuda.stream(stream),
                torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
            ):
                recording.result = self.work(*recording.places)
            recording.graph = graph
        except Exception as error:  # whatever it is: the same work was done before
            self.break_off()
            said = (str(_first(error)).strip().splitlines() or [""])[0]
            self.stay_eager(f"it cannot be recorded ({said:.200})")
        if recording.graph is None:
            self._require_generator()
        self.begin()  # the recording may have drawn

    def _require_generator(self) -> None:
        try:
            torch.empty(1, device=self._device).uniform_()
        except RuntimeError as error:
            if is_out_of_memory(error):
                return
            message = f"after a recording that failed no random number can be drawn ({error})"
            raise DeviceLostError(message) from error

    def _check(self, recording: Recording) -> Any:
        """Replay, take it back, and make it. What was made counts, and must be what was replayed; nearly so
        where kernels sum in any order."""
        recording.checked += 1
        before = copy.deepcopy(self.state())
        recording.graph.replay()
        replayed = copy.deepcopy((recording.result, self.state()))
        self.put_back(before)
        self.begin()
        is_made, result = self._made(recording)
        if not is_made:
            recording.graph = recording.result = None
            self.break_off()
            self.put_back(before)
            self.begin()
            self.stay_eager("its memory is too small for a recording beside the work itself")
            torch.cuda.empty_cache()
            return self._beside(recording)
        made = (result, self.state())
        exact = torch.are_deterministic_algorithms_enabled()
        if not (same_bits(replayed, made) if exact else nearly_same(replayed, made, (None, before))):
            self.stay_eager(f"a replay left other {'bits' if exact else 'numbers'} than the work itself")
        if recording.checked == CHECKED:
            del replayed, before
            torch.cuda.empty_cache()  # what the work itself needs has the graph in memory of its own
        return result

    def _made(self, recording: Recording) -> tuple[bool, Any]:
        """Whether there was memory for the work, and its result. No traceback keeps what it held."""
        try:
            return True, self._beside(recording)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        return False, None


@contextmanager
def waits() -> Iterator[list[str]]:
    """After the block: where in it the CPU waited for the GPU, as far as torch says so (file:line)."""
    places: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")
            # Torch's warning that this mode is a prototype has nearly the same words.
            found = [each for each in caught if "called a synchronizing" in str(each.message)]
            places += [f"{Path(each.filename).name}:{each.lineno}" for each in found]


def _first(error: BaseException) -> BaseException:
    """The error that others followed: where a recording ends after one, its end fails too."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def same_bits(a: Any, b: Any) -> bool:
    """Equal structure, and equal bits in every tensor (or NaN in both)."""
    if isinstance(a, Tensor):
        return bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return bool(a == b)


def nearly_same(a: Any, b: Any, before: Any) -> bool:
    """Whether a and b differ, over all fractions together (L2), by at most `NEARLY` of what b is from before;
    all else is equal. Together: the gradient of a bias before a batch norm is noise alone."""
    ones, others, start = _leaves(a), _leaves(b), _leaves(before)
    if len(ones) != len(others) or len(start) > len(others):
        return False
    start = [None] * (len(others) - len(start)) + start
    apart = change = 0.0
    for one, other, then in zip(ones, others, start, strict=True):
        if not (isinstance(other, Tensor) and other.is_floating_point()):
            if not same_bits(one, other):
                return False
            continue
        finite = other.isfinite()
        if not torch.equal(one.isfinite(), finite):
            return False
        made, replayed = other.double()[finite], one.double()[finite]
        apart += float((replayed - made).square().sum())
        change += float((made if then is None else made - then.double()[finite]).square().sum())
    return apart <= NEARLY**2 * change


def _leaves(values: Any) -> list[Any]:
    if isinstance(values, dict | list | tuple):
        return [
            leaf
            for each in (values.values() if isinstance(values, dict) else values)
            for leaf in _leaves(each)
        ]
    return [] if values is None else [values]


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
