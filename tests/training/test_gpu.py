"""Faults that only a GPU shows, caught on a CPU: by what torch is asked for, and by what it would answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.data import loading, pixels
from harness.data.augment import packed, unpacked
from harness.errors import DeviceLostError, DeviceUnusableError
from harness.models.googlenet import four_by_four
from harness.scheduling.workers import see_one_device
from harness.spec import FINISHED, AugmentSpec, ModelSpec
from harness.training import environment, feed, graphs, loop, run
from harness.training.checkpoint import TrainingProgress
from harness.training.environment import configured, is_out_of_memory
from harness.training.evaluate import evaluate
from harness.training.feed import seed_default
from harness.training.loop import Step
from harness.training.parallel import World, share_statistics
from harness.training.setup import Setup, build
from tests.conftest import mostly_campaign
from tests.training.runs import folder_of, machine_in, tiny_spec, train

ROOT = Path(__file__).parents[2]


class Calls(TorchDispatchMode):
    """Every operator that torch is asked for, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.made.append((str(operator), args, kwargs or {}))
        if "_fused_" in str(operator):  # torch has no form of it for tensors without memory; it changes them
            return None
        return operator(*args, **(kwargs or {}))

    @property
    def names(self) -> Counter[str]:
        return Counter(name for name, _, _ in self.made)


class FakeCuda:
    """A machine of two GPUs whose calls are written down; no tensor is put on them."""

    def __init__(self) -> None:
        self.current, self.said, self.broken = 0, [], False  # type: ignore[var-annotated]
        self.free, self.peak = [79 * 10**9], 0  # bytes, at one look after the other

    @contextmanager
    def device(self, name: str) -> Iterator[None]:
        before, self.current = self.current, int(name.removeprefix("cuda:"))
        try:
            yield
        finally:
            self.current = before

    def manual_seed(self, value: int) -> None:
        self.said.append(("seed", self.current))

    def synchronize(self, device: object = None) -> None:
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        self.said.append(("synchronize", str(device)))

    def empty_cache(self) -> None:
        self.said.append(("empty_cache", self.current))

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return (self.free.pop(0) if len(self.free) > 1 else self.free[0]), 80 * 10**9

    def max_memory_allocated(self, device: str) -> int:
        return self.peak

    def reset_peak_memory_stats(self, device: str) -> None:
        self.said.append(("reset_peak", self.current))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for name in (name for name in vars(FakeCuda) if not name.startswith("_")):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(environment, "_peaks", {})
    return fake


# Batch norm over several processes.


def test_shared_batch_norm_hands_its_backward_kernel_no_missing_statistics() -> None:
    """CUDA's kernel asserts that the saved mean and deviation are given, be it without elements."""
    norm = nn.BatchNorm2d(3)
    share_statistics(norm, World())
    with Calls() as calls:
        norm(torch.rand(4, 3, 2, 2, requires_grad=True)).square().sum().backward()
    ((_, args, _),) = [each for each in calls.made if each[0].startswith("aten.native_batch_norm_backward")]
    saved_mean, saved_deviation = args[5:7]
    assert saved_mean.numel() == saved_deviation.numel() == 0


def test_shared_batch_norm_sends_one_message_forward_and_one_backward(monkeypatch: Any) -> None:
    """The backward sums depend on the loss, so that they cannot go with the means and variances."""
    sent: list[int] = []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: sent.append(tensor.numel()))
    norm = nn.BatchNorm2d(3)
    share_statistics(norm, World(size=2))
    output = norm(torch.rand(4, 3, 2, 2))
    assert sent == [2 * 2 * 3]
    output.square().sum().backward()
    assert sent == [12, 6]


# Which GPU.


def test_a_block_with_a_machine_s_settings_is_on_its_gpu(cuda: FakeCuda, tmp_path: Path) -> None:
    with configured(machine_in(tmp_path, device="cuda:1")):
        seed_default(0, "layers", 1)
    seed_default(0, "layers", 1)
    assert cuda.said == [("seed", 1), ("seed", 0)]


@pytest.mark.parametrize(
    ("visible", "device", "seen"),
    [
        (None, "cuda:1", "1"),
        ("3,5", "cuda:1", "5"),
        ("MIG-aa, MIG-bb", "cuda:1", "MIG-bb"),
        ("MIG-aa, MIG-bb", "cuda:0", "MIG-aa"),
    ],
)
def test_a_worker_sees_its_gpu_alone_and_the_record_names_it_as_before(
    visible: str | None, device: str, seen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "environ", {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    machine = see_one_device(machine_in(tmp_path, device=device))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
    assert (machine.device, machine.shown_device) == ("cuda:0", device)


@pytest.mark.parametrize(
    "changes", [{}, {"device": "cuda:1", "devices": ("cuda:1", "cuda:0"), "processes": 2}]
)
def test_a_worker_on_the_cpu_or_of_several_processes_sees_what_it_saw(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "environ", {})
    machine = machine_in(tmp_path, **changes)
    assert see_one_device(machine) == machine
    assert not os.environ


@pytest.mark.campaign
def test_what_is_imported_before_workers_are_forked_asks_cuda_nothing() -> None:
    """A process that has started CUDA cannot be forked, and one that counted GPUs sees no others later."""
    program = """
import torch
def asked(*_, **__): raise SystemExit("CUDA was asked")
for name in ("is_available", "device_count", "_lazy_init", "init", "current_device"):
    setattr(torch.cuda, name, asked)
import harness.training.run
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# Errors that stay, and memory that others need.


@pytest.mark.campaign
def test_an_error_that_stays_is_a_lost_device_and_another_error_is_itself(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("it went wrong")

    monkeypatch.setattr(run, "_run_one", fail)
    monkeypatch.setattr(run, "require_device", lambda machine: None)
    spec, machine = tiny_spec(), machine_in(tmp_path, device="cuda:0", listed_as="cuda:1")
    with pytest.raises(RuntimeError, match=r"^it went wrong$"):
        run.run_one(spec, folder_of(spec, tmp_path), machine, lambda: False)
    cuda.broken = True
    with pytest.raises(
        DeviceLostError, match="cuda:1 cannot be used by this process any more: it went wrong"
    ):
        run.run_one(spec, folder_of(spec, tmp_path), machine, lambda: False)


WORDS = {
    "too old": (
        "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver",
        "cuda:1 cannot be used: the NVIDIA driver is older than this torch was built for: install a newer",
    ),
    "exclusive": (
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nmore",
        "cuda:1 cannot be used: another process has it alone, it is in exclusive mode",
    ),
    "not there": ("No CUDA GPUs are available", "cuda:1 cannot be used: the driver knows no such device"),
    "ecc": (
        "CUDA error: uncorrectable ECC error encountered",
        "cuda:1 cannot be used: its memory has errors that cannot be corrected: reset or replace it",
    ),
    "unknown": ("CUDA error: something new", "cuda:1 cannot be used: CUDA error: something new"),
}


@pytest.mark.parametrize("case", WORDS)
def test_a_gpu_on_which_nothing_can_be_begun_is_said_in_words_before_a_run_is_looked_at(
    case: str, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, words = WORDS[case]

    def zeros(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(torch, "zeros", zeros)
    spec, machine = tiny_spec(), machine_in(tmp_path, device="cuda:0", listed_as="cuda:1")
    with pytest.raises(DeviceUnusableError) as found:
        run.run_one(spec, folder_of(spec, tmp_path), machine, lambda: False)
    assert str(found.value).startswith(words)
    assert not folder_of(spec, tmp_path).path.exists()


def test_a_gpu_that_is_full_is_none_of_these_and_is_waited_for(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a GPU that others fill, CUDA itself says so: there is no room for what a process begins with."""

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nmore")

    for module, name in ((torch, "zeros"), (torch.cuda, "synchronize"), (torch.cuda, "mem_get_info")):
        monkeypatch.setattr(module, name, full)
    environment.require_device(machine_in(tmp_path, device="cuda:0"))
    assert not environment.is_lost("cuda:0")
    assert environment.lacks_memory("arm", "cuda:0").startswith("it has no memory left")


def test_memory_errors_in_mid_run_lose_the_gpu_in_words(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> str:
        cuda.broken = True
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")

    monkeypatch.setattr(run, "_run_one", fail)
    monkeypatch.setattr(run, "require_device", lambda machine: None)
    spec = tiny_spec()
    with pytest.raises(DeviceLostError, match="any more: its memory has errors that cannot be corrected"):
        run.run_one(spec, folder_of(spec, tmp_path), machine_in(tmp_path, device="cuda:0"), lambda: False)


def attempted(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop: Callable[[], bool] = lambda: False
) -> tuple[str, list[dict[str, Any]]]:
    """An attempt that needs 30 GB on a GPU, and the events that it wrote."""
    spec, machine = tiny_spec(), machine_in(tmp_path, device="cuda:0", shared=True)
    folder = folder_of(spec, tmp_path)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.lock.touch()

    def attempt(*_: object) -> str:
        cuda.peak = 30 * 10**9
        return FINISHED

    monkeypatch.setattr(run, "_attempt_once", attempt)
    status = run._attempt(spec, folder, machine, stop, run.Journal(folder), World())
    return status, folder.read_events()


def test_a_run_waits_until_there_is_the_memory_that_its_like_needed(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever has it: another run, or another user."""
    monkeypatch.setattr(run, "ROOM_S", 60.0)
    monkeypatch.setattr(run.time, "sleep", lambda time_s: None)
    assert attempted(cuda, monkeypatch, tmp_path) == (FINISHED, [])
    cuda.free = [20 * 10**9, 29 * 10**9, 31 * 10**9]
    status, (waited,) = attempted(cuda, monkeypatch, tmp_path)
    assert status == FINISHED
    assert waited["kind"] == "waits_for_memory"
    assert waited["message"] == "20.0 of its 80.0 GB are free, a run like this needs 30.0 GB"
    assert cuda.free == [31 * 10**9]


def test_a_wait_for_memory_ends_where_the_run_is_stopped_and_else_in_an_attempt(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attempted(cuda, monkeypatch, tmp_path)
    cuda.free = [10**9]
    assert attempted(cuda, monkeypatch, tmp_path, stop=lambda: True)[0] == "interrupted"
    monkeypatch.setattr(run, "ROOM_S", 0.0)
    assert attempted(cuda, monkeypatch, tmp_path)[0] == FINISHED


def test_what_nothing_is_known_of_may_begin_beside_a_quarter_of_a_small_slice(cuda: FakeCuda) -> None:
    cuda.free = [2 * 10**9]
    assert environment.lacks_memory("arm", "cuda:0") == ""
    cuda.free = [10**9]
    assert "needs 1.1 GB" in environment.lacks_memory("arm", "cuda:0")
    assert environment.lacks_memory("arm", "cpu") == ""


def out_of_memory() -> Exception:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")


def failing(times: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The training fails so often for want of memory; what it was called for."""
    called: list[str] = []
    real = run._attempt_once

    def attempt(*args: Any) -> str:
        called.append("attempt")
        if len(called) <= times:
            raise out_of_memory()
        return real(*args)

    monkeypatch.setattr(run, "_attempt_once", attempt)
    monkeypatch.setattr(run, "NEIGHBOUR_S", 0.0)
    return called


def test_a_run_beside_others_is_tried_again_once_where_memory_was_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = failing(1, monkeypatch)
    assert train(tiny_spec(), tmp_path, shared=True) == FINISHED
    assert len(called) == 2
    (event,) = [e for e in folder_of(tiny_spec(), tmp_path).read_events() if e["kind"] == "out_of_memory"]
    assert event["message"] == "CUDA out of memory. Tried to allocate 2.00 GiB."


def test_a_run_alone_on_a_gpu_is_tried_again_without_recordings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = failing(1, monkeypatch)
    monkeypatch.setattr(run, "without_graphs", lambda device: None)
    assert train(tiny_spec(), tmp_path) == FINISHED
    assert len(called) == 2
    folder = folder_of(tiny_spec(), tmp_path)
    assert [e["shared"] for e in folder.read_events() if e["kind"] == "out_of_memory"] == [False]
    assert run.Journal(folder).found_eager == "an earlier attempt ran out of memory"


@pytest.mark.parametrize(
    ("shared", "calls", "mend"), [(True, 2, "fewer runs side by side"), (False, 1, "batch")]
)
def test_memory_that_is_short_again_or_without_neighbours_is_said_in_words(
    shared: bool, calls: int, mend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = failing(9, monkeypatch)
    with pytest.raises(MemoryError, match=f"cpu has not enough memory free for this run; .*{mend}"):
        train(tiny_spec(), tmp_path, shared=shared)
    assert len(called) == calls


def test_memory_is_short_in_the_words_of_torch_and_of_its_libraries() -> None:
    said = (
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    )
    errors = [out_of_memory(), *map(RuntimeError, said), ValueError("memory")]
    assert [is_out_of_memory(error) for error in errors] == [True] * 4 + [False]


@pytest.mark.campaign
def test_after_a_run_the_gpu_has_its_memory_back_and_no_copy_of_the_data(
    cuda: FakeCuda, tmp_path: Path
) -> None:
    images = loading.ArrayImages(torch.zeros(4, 2, 2, 1, dtype=torch.uint8).numpy())
    images.crop_resize(torch.arange(2), torch.zeros(2, 4, dtype=torch.int64), 2, "meta")
    assert images._resident
    train(tiny_spec(), tmp_path)
    assert not images._resident
    assert cuda.said[-1] == ("empty_cache", 0)


def test_a_process_keeps_the_data_sets_that_were_asked_for_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_loaded", {})
    monkeypatch.setattr(loading, "_load", lambda *key: object())
    get: Callable[[int], Any] = lambda size: loading.load_cached(ENTRY, {"size": size}, (None, None), ROOT)  # noqa: E731
    first, *_ = [get(size) for size in range(loading.MOST_LOADED)]
    assert get(0) is first
    get(99)
    assert get(0) is first
    assert len(loading._loaded) == loading.MOST_LOADED


ENTRY: Any = object()


# Clocks, threads, formats.


def test_a_clock_waits_for_the_gpu_before_it_is_read(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *form, device, **named: zeros(*form, **named))
    progress = TrainingProgress.start(torch.device("cuda:1"))
    with progress.train, progress.train.paused():
        assert cuda.said == [("synchronize", "cuda:1")]
    with progress.evaluation:
        pass
    assert len(cuda.said) == 3
    cuda.broken = True
    with suppress(ValueError), progress.train:
        raise ValueError("not the error of a synchronisation")


def test_files_are_read_by_the_cores_of_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 4})
    assert (pixels.count_threads(), pixels.count_threads(per_core=2)) == (2, 4)
    assert pixels.FileImages([Path("a.png")])._pool._max_workers == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert pixels.count_threads(per_core=2) == 16


MIXTURES = {
    "nothing set": lambda: None,
    "the older interface": lambda: torch.set_float32_matmul_precision("medium"),
    "a switch": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "the newer interface": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "both": lambda: (
        setattr(torch.backends.cudnn, "allow_tf32", False),
        setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32"),  # type: ignore[attr-defined]
    ),
}


@pytest.mark.skipif(not environment._newer(), reason="a torch before 2.9 has one interface")
@pytest.mark.parametrize("mixture", MIXTURES)
def test_fp32_is_fp32_whatever_was_set_before_and_is_set_again_afterwards(
    mixture: str, tmp_path: Path
) -> None:
    start = environment.fp32_formats()
    try:
        MIXTURES[mixture]()
        before = environment.fp32_formats()
        with configured(machine_in(tmp_path)):
            assert not environment.computes_tf32()
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
        assert environment.fp32_formats() == before
    finally:
        environment.apply_fp32_formats(start)


# What a step asks of a device, seen on one without memory.


EVERYTHING = AugmentSpec(crop_area=(0.5, 1.0), flip=0.5, jitter=0.4, pca_noise=0.1, crop_pad=2)
STEPS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "plain": ((), {}),
    "everything": (("mixup", "label_smoothing", "ema"), {"augment": EVERYTHING, "clip_norm": 1.0}),
    "adamw": ((), {"optimizer": "adamw"}),
    "ResNet-18": ((), {"model": ModelSpec(name="resnet18"), "augment": AugmentSpec()}),
}
AT_MOST = {
    "plain": (82, 106),
    "everything": (94, 151),
    "adamw": (82, 107),
    "ResNet-18": (82, 170),
}  # operators: feed, the rest
OUTSIDE = {"plain": 6, "everything": 16, "adamw": 6, "ResNet-18": 6}  # of graphs: at most 20
LOOKS_LIKE = ("view", "slice", "alias", "detach", "permute", "transpose", "unsqueeze", "select", "aten.t.")
LOOKS_LIKE += ("expand", "unbind", "split", "unfold", "lift_fresh")
WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "where.Scalar")


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Setup]:
    """Builds a run of `STEPS` on the device `meta`, as if fused kernels existed there."""
    optimizer = sys.modules["torch.optim.optimizer"]
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta"])

    def build_on_meta(name: str) -> Setup:
        tricks, changes = STEPS[name]
        return build(tiny_spec(*tricks, **changes), machine_in(tmp_path, device="meta"))

    return build_on_meta


def one_step(setup: Setup, step: int) -> tuple[Calls, Calls]:
    """What step number `step` asks for: to make the batch, and to train on it."""
    progress = TrainingProgress.start(setup.device)
    with Calls() as feeding:
        batch = setup.feed.batch(step)
    progress.step = step
    with Calls() as training:
        Step(setup, progress).make(batch)
    return feeding, training


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for each in values:
            yield from tensors_in(each)


def copies(calls: Calls) -> list[bool]:
    """For each copy from the CPU to the device whether it is waited for."""
    made = []
    for name, args, named in calls.made:
        new = name.startswith("aten._to_copy") and not args[0].is_meta and str(named.get("device")) == "meta"
        into = name.startswith("aten.copy_") and args[0].is_meta and not args[1].is_meta
        if new or into:
            made.append(not (named.get("non_blocking") or args[2:] == (True,)))
    return made


def on_device(calls: Calls) -> list[str]:
    return [name for name, args, _ in calls.made if any(each.is_meta for each in tensors_in(args))]


def count(calls: Calls) -> int:
    """Operators of the device that are no views."""
    return sum(not any(word in name for word in LOOKS_LIKE) for name in on_device(calls))


@pytest.mark.parametrize("name", mostly_campaign(STEPS, "plain", "everything"))
def test_a_step_is_given_to_the_device_in_one_copy_and_nothing_is_waited_for(
    name: str, meta: Callable[[str], Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = meta(name)
    one_step(setup, 0)  # which brings constants and all pixels to the device
    from_numbers, there = torch.tensor, []  # a copy that the mode does not see

    def tensor(*args: Any, **named: Any) -> torch.Tensor:
        there.append(str(named.get("device", "cpu")))
        return from_numbers(*args, **named)

    monkeypatch.setattr(torch, "tensor", tensor)
    feeding, training = one_step(setup, 1)
    assert (copies(feeding), copies(training)) == ([False], [])
    assert set(there) <= {"cpu"}
    for calls in (feeding, training):
        assert not [each for each in on_device(calls) if any(word in each for word in WAITS)]
        for operator, args, _ in calls.made:
            kinds = {each.device.type for each in tensors_in(args) if each.ndim}
            assert len(kinds) < 2 or "copy" in operator, f"{operator} of tensors on {kinds}"


@pytest.mark.parametrize("name", mostly_campaign(STEPS, "plain", "everything"))
def test_a_step_has_no_more_operators_than_it_had(name: str, meta: Callable[[str], Setup]) -> None:
    """Budgets: lower them where a step has fewer, and raise none without a reason."""
    setup = meta(name)
    one_step(setup, 0)
    feeding, training = one_step(setup, 1)
    assert (count(feeding), count(training)) == AT_MOST[name]


class NoGraph:
    """A graph whose replay the host does not see."""

    def replay(self) -> None:
        pass


@pytest.mark.parametrize("name", mostly_campaign(STEPS, "plain", "everything"))
def test_beside_what_is_replayed_a_step_has_at_most_20_operators(
    name: str, meta: Callable[[str], Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: Any = lambda *_, **__: nullcontext(SimpleNamespace(wait_stream=lambda other: None))  # noqa: E731
    for module in (feed, loop):
        monkeypatch.setattr(module, "without_graphs", lambda device: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", NoGraph)
    for call in ("stream", "graph", "set_sync_debug_mode"):
        monkeypatch.setattr(torch.cuda, call, nothing)
    for call in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, call, lambda *_: SimpleNamespace(wait_stream=lambda other: None))
    monkeypatch.setattr(graphs, "CHECKED", 0)  # without memory there is nothing to compare
    setup = meta(name)
    progress = TrainingProgress.start(setup.device)
    step = Step(setup, progress)
    for number in range(graphs.WARM_UP + 2):
        with Calls() as calls:
            step.make(setup.feed.batch(number))
    assert progress.eager is None
    assert copies(calls) == [False]
    assert count(calls) == OUTSIDE[name]


def test_pixels_that_are_too_many_for_the_device_go_there_with_all_else(
    meta: Callable[[str], Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "RESIDENT_BYTES", 0)
    setup = meta("everything")
    one_step(setup, 0)
    assert copies(one_step(setup, 1)[0]) == [False]


def test_a_chunk_of_an_evaluation_waits_for_nothing(meta: Callable[[str], Setup]) -> None:
    setup = meta("plain")
    answers, labels = setup.curve_answers(), setup.data.test.labels
    answers(torch.arange(8))
    with Calls() as calls, suppress(NotImplementedError):  # at the end of it the result is read
        evaluate(answers, labels, torch.arange(8))
    assert copies(calls) == [False, False]


def test_what_is_sent_arrives_bit_for_bit() -> None:
    tensors = {
        "indices": torch.tensor([3, -1]),
        "mirrored": torch.tensor([True, False, True]),
        "pixels": torch.arange(30, dtype=torch.uint8).view(2, 5, 3),
        "jitter": torch.tensor([[0.1, float("nan")], [-0.0, 3.0]]),
        "boxes": torch.arange(8).view(2, 4).flip(0),
    }
    got = unpacked(packed(tensors), tensors)
    assert list(got) == list(tensors)
    for name, tensor in tensors.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape)
        assert got[name].contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes()


# Exact mode.


def test_googlenet_s_heads_have_a_gradient_that_torch_allows_on_a_gpu() -> None:
    images = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(four_by_four(images), nn.functional.adaptive_avg_pool2d(images, 4))
    with Calls() as calls:
        four_by_four(images.to("meta").requires_grad_()).sum().backward()
    assert not [name for name in calls.names if "adaptive" in name]
