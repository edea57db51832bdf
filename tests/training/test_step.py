"""A step that is recorded once and replayed: on a stand-in for CUDA graphs, against the same step made."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from harness.data import augment
from harness.errors import DeviceLostError
from harness.models import MODELS, Model
from harness.spec import FINISHED, AugmentSpec, ModelSpec, RunSpec
from harness.training import feed, graphs, loop, optim
from harness.training.checkpoint import TrainingProgress, load_checkpoint, save_checkpoint
from harness.training.environment import configured
from harness.training.graphs import CHECKED, WARM_UP
from harness.training.loop import INTERRUPTED, Step, eager_because
from harness.training.parallel import World
from harness.training.setup import Setup, build
from harness.tricks import TRICKS
from harness.tricks.base import Batch, Trick, acts_in_steps
from harness.tricks.evaluation import Average
from tests.conftest import mostly_campaign
from tests.training.runs import assert_same_bits, folder_of, machine_in, stop_after, tiny_spec, train

READ_BACK = ("_local_scalar_dense", "nonzero", "is_nonzero")


class Graph:
    """What a CUDA graph is, on a CPU: operators with the memory they were given, done when it is replayed."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for operator, args, kwargs, result in self.made:
            for place, new in zip(tensors(result), tensors(operator(*args, **kwargs)), strict=True):
                if place.data_ptr() != new.data_ptr():
                    place.copy_(new)


class Recorder(TorchDispatchMode):
    """Writes the operators into the graph, and leaves all memory as it was: to record is not to do."""

    at_work: ClassVar[bool] = False

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph, self.before = graph, {}  # type: ignore[var-annotated]

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(operator) for word in READ_BACK):
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        for each in tensors((args, kwargs)):
            self.before.setdefault(id(each), (each, each.detach().clone()))
        result = operator(*args, **(kwargs or {}))
        self.graph.made.append((operator, args, kwargs or {}, result))
        return result

    def __enter__(self) -> Any:
        Recorder.at_work = True
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        Recorder.at_work = False
        for each, content in reversed(self.before.values()):  # a view that was seen later holds newer content
            if 0 not in each.stride():
                each.detach().copy_(content)
        if error[0] is not None:  # as torch.cuda.graph, whose end then fails as well
            raise RuntimeError("operation failed due to a previous error during capture")


class SyncWarnings(TorchDispatchMode):
    """Torch's mode that warns where the CPU waits for the GPU."""

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(operator) for word in READ_BACK):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=4)
        return operator(*args, **(kwargs or {}))


def tensors(values: Any) -> list[Tensor]:
    return [each for each in tree_flatten(values)[0] if isinstance(each, Tensor)]


@dataclass
class FakeCuda:
    graphs: list[Graph]
    streams: int = 0
    emptied: int = 0
    warning: SyncWarnings | None = None

    def set_sync_debug_mode(self, mode: str) -> None:
        if self.warning is not None:
            self.warning.__exit__(None, None, None)
        self.warning = SyncWarnings() if mode == "warn" else None
        if self.warning is not None:
            warnings.warn("Synchronization debug mode does not yet detect all synchronizing operations")  # noqa: B028
            self.warning.__enter__()

    def empty_cache(self) -> None:
        self.emptied += 1


def has_graphs(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(loop, "without_graphs", lambda device: None if answer else "")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """The CPU, as if it could be told a step once."""
    fake = FakeCuda([])

    def graph() -> Graph:
        fake.graphs.append(Graph())
        return fake.graphs[-1]

    def stream(*_: Any) -> Any:
        fake.streams += 1
        return SimpleNamespace(wait_stream=lambda other: None)

    graphs.own_stream.cache_clear()

    has_graphs(monkeypatch, True)
    monkeypatch.setattr(feed, "without_graphs", lambda device: "")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda own: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **_: Recorder(graph))
    for name in ("set_sync_debug_mode", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    return fake


@contextmanager
def built(spec: Any, runs_dir: Path, *, exact: bool = True) -> Iterator[tuple[Setup, TrainingProgress]]:
    machine = machine_in(runs_dir, exact=exact)
    with configured(machine):
        setup = build(spec, machine)
        for each in setup.states.values():  # EMA's: with and without replays
            each.count_on_device()  # type: ignore[attr-defined]
        yield setup, TrainingProgress.start(setup.device)


HIGH_SCALE = 2.0**24  # of FP16: gradients of the first steps overflow


def at_high_scale(setup: Setup) -> dict[str, Any]:
    return {**setup.precision.state_dict(), "scale": HIGH_SCALE}


def state(setup: Setup, progress: TrainingProgress) -> dict[str, Any]:
    """All that a step changes."""
    kept = Step.state(SimpleNamespace(setup=setup, progress=progress))  # type: ignore[arg-type]
    return copy.deepcopy({**kept, "steps": progress.step})


def trained(spec: Any, runs_dir: Path, steps: int, **options: Any) -> tuple[dict[str, Any], str | None]:
    """The state after so many steps, and why they were not replayed."""
    with built(spec, runs_dir, **options) as (setup, progress):
        setup.precision.load_state_dict(at_high_scale(setup))
        assert loop.train(setup, progress, stop_after(steps), lambda _: None, lambda: False) == INTERRUPTED
        return state(setup, progress), progress.eager


STEPS = WARM_UP + CHECKED + 3
GOOGLENET = ModelSpec(name="googlenet", args={"width": 1 / 8, "depth": (1, 1, 1), "stem": "small"})
SPECS = {
    "fp32": tiny_spec(epochs=9),
    "bf16": tiny_spec(epochs=9, precision="bf16"),
    "fp16, which overflows": tiny_spec(epochs=9, precision="fp16"),
    "adamw, warm-up": tiny_spec(epochs=9, optimizer="adamw", lr=0.001, warmup_epochs=1.0, schedule="cosine"),
    "no momentum": tiny_spec(epochs=9, optimizer_args={"momentum": 0.0, "nesterov": False}),
    "clipped rmsprop": tiny_spec(
        epochs=9, optimizer="rmsprop_tf", optimizer_args={"momentum": 0.9}, clip_norm=0.1
    ),
    "groups": tiny_spec("no_bias_decay", epochs=9, norm_images=4, clip_value=0.01),
    "dropout, auxiliary heads": tiny_spec(epochs=9, model=GOOGLENET, auxiliary_weight=0.3),
    "ema, mixed": tiny_spec("ema", "mixup", "label_smoothing", epochs=9),
}


@pytest.mark.parametrize("name", mostly_campaign(SPECS, *list(SPECS)[2:4], *list(SPECS)[-4:-2], "ema, mixed"))
def test_replayed_steps_leave_the_bits_of_steps_that_were_made(
    name: str, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replayed, why = trained(SPECS[name], tmp_path, STEPS)
    assert why is None
    (graph,) = cuda.graphs
    assert graph.replays == STEPS - WARM_UP
    has_graphs(monkeypatch, False)
    made, why = trained(SPECS[name], tmp_path, STEPS)
    assert why == ""
    assert_same_bits(replayed, made)
    if name.startswith("fp16"):
        assert 1 < replayed["precision"]["scale"] < HIGH_SCALE


def test_a_student_s_steps_are_replayed_with_its_teacher_s(cuda: FakeCuda, tmp_path: Path) -> None:
    teacher = tiny_spec(epochs=0.2)
    assert train(teacher, tmp_path) == FINISHED
    _, why = trained(tiny_spec("distillation", teacher=teacher.arm.arm_id, epochs=9), tmp_path, STEPS)
    assert why is None


def test_every_trick_and_network_of_ours_may_be_recorded() -> None:
    """Those that act in steps are tried above, one by one."""
    in_steps = {name for name, trick in TRICKS.items() if acts_in_steps(trick)}
    assert in_steps == {"ema", "distillation"}
    assert all(TRICKS[name].capturable for name in in_steps)
    assert all(model.capturable for model in MODELS.values())
    # The user's own, where they say nothing.
    assert Trick.capturable is False
    assert {each.name: each.default for each in fields(Model)}["capturable"] is False


def test_a_run_that_was_stopped_records_anew_and_ends_in_the_same_bits(
    cuda: FakeCuda, tmp_path: Path
) -> None:
    spec, path = SPECS["adamw, warm-up"], tmp_path / "checkpoint.pt"
    never, _ = trained(spec, tmp_path, STEPS)
    for steps in (STEPS - 2, 2):
        with built(spec, tmp_path) as (setup, progress):
            load_checkpoint(path, setup, progress)
            if not progress.step:
                setup.precision.load_state_dict(at_high_scale(setup))
            loop.train(setup, progress, stop_after(steps), lambda _: None, lambda: False)
            save_checkpoint(path, setup, progress)
            resumed = state(setup, progress)
    assert_same_bits(resumed, never)
    with built(spec, tmp_path) as (setup, progress):  # and where there is no GPU any more
        load_checkpoint(path, setup, progress)
        optim.hold_rates(setup.optimizer, None)
        assert {type(group["lr"]) for group in setup.optimizer.param_groups} == {float}


def test_batches_of_another_shape_have_a_recording_of_their_own(cuda: FakeCuda, tmp_path: Path) -> None:
    with built(tiny_spec(epochs=9), tmp_path) as (setup, progress):
        step = Step(setup, progress)
        for number in range(3 * (WARM_UP + 1)):
            batch = setup.feed.batch(progress.step)
            step.make(Batch(batch.images[:6], batch.targets[:6]) if number % 3 == 0 else batch)
    assert progress.eager is None
    assert [graph.replays for graph in cuda.graphs] == [2 * (WARM_UP + 1) - WARM_UP, 1]


class Counting(Trick):
    """Weighs the loss by the number of steps, which it counts in Python."""

    name: ClassVar[str] = "counting"
    capturable: ClassVar[bool] = True

    def edit_loss(self, loss: Any, context: Any) -> Any:
        seen: list[int] = []

        def counted(output: Any, batch: Batch) -> Tensor:
            seen.append(1)
            return loss(output, batch) * (1 + len(seen))

        return counted


class Reading(Trick):
    """Reads the loss back."""

    name: ClassVar[str] = "reading"
    capturable: ClassVar[bool] = True

    def edit_loss(self, loss: Any, context: Any) -> Any:
        return lambda output, batch: (
            loss(output, batch) * (2.0 if float(output.detach().sum()) > 1e9 else 1.0)
        )


def with_trick(setup: Setup, trick: Trick) -> Setup:
    return replace(setup, tricks=(trick,), loss=trick.edit_loss(setup.loss, setup.context))


def test_a_trick_that_counts_in_python_is_found_by_the_first_replays(cuda: FakeCuda, tmp_path: Path) -> None:
    with built(tiny_spec(epochs=9), tmp_path) as (setup, progress):
        loop.train(with_trick(setup, Counting()), progress, stop_after(STEPS), lambda _: None, lambda: False)
    assert progress.eager == "a replay left other bits than the work itself"
    assert cuda.graphs[0].replays == 1


def test_replays_are_nearly_the_work_itself_where_kernels_may_differ(cuda: FakeCuda, tmp_path: Path) -> None:
    with built(tiny_spec(epochs=9), tmp_path, exact=False) as (setup, progress):
        loop.train(with_trick(setup, Counting()), progress, stop_after(STEPS), lambda _: None, lambda: False)
    assert progress.eager == "a replay left other numbers than the work itself"
    _, why = trained(SPECS["fp16, which overflows"], tmp_path, STEPS, exact=False)
    assert why is None


def test_nearly_is_a_tenth_of_the_change_over_all_fractions_together() -> None:
    before = {"w": torch.full((2,), 100.0), "b": torch.zeros(2), "steps": torch.tensor(3)}
    made = {"w": torch.tensor([101.0, 100.0]), "b": torch.tensor([1e-6, 0.0]), "steps": torch.tensor(4)}

    def is_near(**changes: Tensor) -> bool:
        return graphs.nearly_same((None, {**made, **changes}), (None, made), (None, before))

    assert is_near()
    assert is_near(b=torch.tensor([0.0, 1e-6]))  # noise
    assert is_near(w=torch.tensor([101.09, 100.0]))
    assert not is_near(w=torch.tensor([101.11, 100.0]))
    assert not is_near(steps=torch.tensor(3))
    assert not is_near(w=torch.tensor([101.0, torch.nan]))
    assert not graphs.nearly_same((torch.ones(2),), (torch.zeros(2),), (None,))
    assert not graphs.nearly_same((torch.ones(2), None), (torch.ones(2), torch.ones(2)), (None,))


def test_a_step_that_waits_for_the_gpu_is_not_recorded(cuda: FakeCuda, tmp_path: Path) -> None:
    """A recording that fails leaves torch's allocator as if it went on; so none is begun."""
    with built(tiny_spec(epochs=9), tmp_path) as (setup, progress):
        loop.train(with_trick(setup, Reading()), progress, stop_after(STEPS), lambda _: None, lambda: False)
    assert progress.eager is not None
    assert re.fullmatch(r"its work waits for the GPU, first at \w+\.py:\d+", progress.eager)
    assert not cuda.graphs
    assert cuda.warning is None


class Refusing(Trick):
    """Does what only a recording does not allow."""

    name: ClassVar[str] = "refusing"
    capturable: ClassVar[bool] = True

    def edit_loss(self, loss: Any, context: Any) -> Any:
        def refused(output: Any, batch: Batch) -> Tensor:
            if Recorder.at_work:
                raise ValueError("operation not permitted when stream is capturing\nand more")
            return loss(output, batch)

        return refused


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_that_cannot_be_recorded_is_made(
    precision: str, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec, states = tiny_spec(epochs=9, precision=precision), []
    for recorded in (True, False):
        has_graphs(monkeypatch, recorded)
        with built(spec, tmp_path) as (setup, progress):
            refusing = with_trick(setup, Refusing())
            loop.train(refusing, progress, stop_after(STEPS), lambda _: None, lambda: False)
            states.append(state(setup, progress))
        if recorded:
            why = "it cannot be recorded (operation not permitted when stream is capturing)"
            assert progress.eager == progress.found_eager == why
            assert not cuda.graphs[0].replays
    assert_same_bits(*states)


def test_a_process_that_a_failed_recording_leaves_unable_to_draw_numbers_ends(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def uniform(*_: object) -> None:
        raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")

    with built(tiny_spec(epochs=9), tmp_path) as (setup, progress):
        monkeypatch.setattr(Tensor, "uniform_", uniform)
        with pytest.raises(DeviceLostError, match="no random number can be drawn"):
            loop.train(
                with_trick(setup, Refusing()), progress, stop_after(STEPS), lambda _: None, lambda: False
            )
    assert progress.found_eager is not None


def test_what_was_found_by_trying_is_not_tried_again(cuda: FakeCuda, tmp_path: Path) -> None:
    why, spec = "a replay left other bits than the work itself", tiny_spec()
    folder = folder_of(spec, tmp_path)
    folder.path.mkdir(parents=True)
    folder.append_event("eager", attempt=1, message=why, found=True)
    assert train(spec, tmp_path) == FINISHED
    assert not cuda.graphs
    said = [event for event in folder.read_events() if event["kind"] == "eager"]
    assert [(event["message"], event["found"]) for event in said] == [(why, True)] * 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_without_memory_for_the_work_beside_its_recording_it_is_made(
    precision: str, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = tiny_spec("ema", epochs=9, precision=precision)
    backward, calls = optim.Precision.backward_and_step, []

    def short(*args: Any) -> None:
        calls.append(1)
        if len(calls) == WARM_UP + 2:  # after the recording, with batch norms and averages changed
            raise RuntimeError("CUDA error: out of memory")
        backward(*args)

    has_graphs(monkeypatch, False)
    made, _ = trained(spec, tmp_path, STEPS)
    has_graphs(monkeypatch, True)
    monkeypatch.setattr(optim.Precision, "backward_and_step", short)
    short_of, why = trained(spec, tmp_path, STEPS)
    assert why == "its memory is too small for a recording beside the work itself"
    assert cuda.graphs[0].replays == cuda.emptied == 1
    assert_same_bits(short_of, made)


class Quiet(Counting):
    capturable: ClassVar[bool] = False


def same(setup: Setup) -> Setup:
    return setup


REASONS: dict[str, tuple[str, dict[str, Any], Callable[[Setup], Setup]]] = {
    "several processes": ("several processes", {}, lambda setup: replace(setup, world=World(size=2))),
    "compiled": ("is compiled", {}, lambda setup: replace(setup, forward=nn.Identity())),
    "a trick": (r"\(capturable\): counting", {}, lambda setup: with_trick(setup, Quiet())),
    "dampening": ("sgd, as it is set", {"optimizer_args": {"dampening": 0.1, "nesterov": False}}, same),
    "torch's rmsprop": ("rmsprop, as it is set, needs", {"optimizer": "rmsprop"}, same),
    "fp16": ("rmsprop_tf leaves out overflows", {"optimizer": "rmsprop_tf", "precision": "fp16"}, same),
}  # fmt: skip


@pytest.mark.parametrize("name", REASONS)
def test_why_a_step_is_not_replayed_is_said_in_words(name: str, cuda: FakeCuda, tmp_path: Path) -> None:
    words, changes, change = REASONS[name]
    with built(tiny_spec(**changes), tmp_path) as (setup, _):
        why = eager_because(change(setup))
    assert why is not None
    assert re.search(words, why)


def test_a_run_says_once_why_it_was_not_replayed(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_GRAPHS", "0")
    monkeypatch.setattr(loop, "without_graphs", lambda device: graphs.without_graphs(torch.device("cuda")))
    assert train(tiny_spec(), tmp_path) == FINISHED
    said = [event for event in folder_of(tiny_spec(), tmp_path).read_events() if event["kind"] == "eager"]
    assert [event["message"] for event in said] == ["HARNESS_GRAPHS is 0"]
    assert not cuda.graphs


def test_an_average_counted_on_the_device_is_the_one_counted_in_python() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    averages = [Average(model, decay=0.8, ramp=ramp) for ramp in (True, True, False, False)]
    for average in averages[1::2]:
        average.count_on_device()
    for _ in range(60):
        with torch.no_grad():
            model.weight.add_(torch.randn(3, 3))
        for average in averages:
            average.update()
    states = [average.state_dict() for average in averages]
    assert {each["steps"] for each in states} == {60}
    for python, device in (states[:2], states[2:]):
        torch.testing.assert_close(device["average"]["weight"], python["average"]["weight"])
    averages[1].load_state_dict({**states[0], "steps": 7})
    assert averages[1].state_dict()["steps"] == 7


# The augmentation, which is replayed as well.


def batches(spec: RunSpec, runs_dir: Path, count: int) -> list[Batch]:
    with built(spec, runs_dir) as (setup, _):
        return [copy.deepcopy(setup.feed.batch(step)) for step in range(count)]


def grey(*tricks: str, **args: Any) -> RunSpec:
    """Grey images: a CPU makes those of three channels with numpy, of which the stand-in sees nothing."""
    data = tiny_spec().arm.recipe.data
    data = replace(data, args={**data.args, "channels": 1})
    return tiny_spec(*tricks, augment=AugmentSpec(crop_area=(0.5, 1.0), **args), data=data)


@pytest.mark.parametrize("crop_pad", [0, 2])
def test_replayed_augmentation_gives_the_bits_of_the_one_that_was_made(
    crop_pad: int, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec, count = grey("mixup", flip=0.0, jitter=0.4, pca_noise=0.1, crop_pad=crop_pad), WARM_UP + CHECKED + 2
    made = batches(spec, tmp_path, count)
    monkeypatch.setattr(feed, "without_graphs", lambda device: None)
    replayed = batches(spec, tmp_path, count)
    assert [graph.replays for graph in cuda.graphs] == [count - WARM_UP]
    assert_same_bits(replayed, made)


def test_augmentation_that_waits_for_the_gpu_is_made(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = batches(grey(), tmp_path, WARM_UP + 2)
    normalise = augment.normalise

    def waiting(images: Tensor, *rest: Any) -> Tensor:
        assert bool(images.isfinite().all())
        return normalise(images, *rest)

    monkeypatch.setattr(augment, "normalise", waiting)
    monkeypatch.setattr(feed, "without_graphs", lambda device: None)
    assert_same_bits(batches(grey(), tmp_path, WARM_UP + 2), made)
    assert not cuda.graphs
