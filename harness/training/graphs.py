"""Work of a GPU that is the same operators on the same memory every time: told once, as a CUDA graph."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import GRAPHS, DeviceLostError, decided, is_switched_off
from harness.training.environment import is_out_of_memory

WARM_UP = 3  # calls before the recording, in which libraries choose their kernels
CHECKED = 2  # the first replays are compared with the work itself
NEARLY = 0.1  # of what a call changes: so much may differ where kernels sum in any order (bf16: some 0.01)


def without_graphs(device: torch.device) -> str | None:
    """Why nothing is replayed on the device, "" where it is no GPU; None: it is."""
    if device.type != "cuda":
        return ""
    return f"{GRAPHS} is 0" if is_switched_off(GRAPHS) else None


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
