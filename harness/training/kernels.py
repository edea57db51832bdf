"""Kernels are checked before they are trusted: each layer of a network on this CPU, before it first trains
here.

torch's CPU kernels differ by instruction set, layer size and memory layout, and some are wrong: they write
outside of their memory or leave some of it unwritten. So every distinct call of a network that has a kernel
of its own (`LayerCall`) goes forward and backward in a child process (`kernel_probe`). A layer that crashes,
hangs or is inexact is computed in the next safer form: contiguous, then as a product of unfolded patches.
Only its class changes, and what its forward computes stays the same function; a network without such layers
is not touched.

Answers are kept in a file per CPU, torch build and threads in the user's cache folder; it can be deleted.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.data.entry import cache_folder
from harness.runs.folder import exclusive
from harness.runs.provenance import cpu_name
from harness.spec import Machine, RunSpec, digest
from harness.training import kernel_probe
from harness.training.kernel_probe import (
    AS_IT_IS,
    CONTIGUOUS,
    FORMS,
    PARAMETERS,
    REPETITIONS,
    REPETITIONS_ALONE,
    Child,
    ChildError,
    LayerCall,
    can_fork,
    compute,
    is_channels_last,
)
from harness.tricks.base import hooks_of
from harness.tricks.build import make as make_trick

# Of which version of the check an answer is: raise it when `kernel_probe` sees more than it did.
CHECK_VERSION = 2
# torch and oneDNN choose kernels by the batch up to here and not beyond: 1,680 layers at 16, 32, 128 and 250
# images.
LARGEST_BATCH = 16
CAPS = (  # what changes the choice of kernels from outside
    *(
        "ONEDNN_MAX_CPU_ISA",
        "DNNL_MAX_CPU_ISA",
        "ONEDNN_CPU_ISA_HINTS",
        "DNNL_CPU_ISA_HINTS",
        "ATEN_CPU_CAPABILITY",
    ),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR"),
    *("TORCH_MKLDNN_MATMUL_MIN_DIM", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"),
)


class _Safer(nn.Module):
    """A layer whose calls are computed in a safer form. Mixed into the layer's class; see `make_safer`."""

    kernel_form: str

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _InForm(self.kernel_form):
            return super().forward(*args, **kwargs)


class _InForm(TorchFunctionMode):
    """While it is entered, torch's functions with kernels of their own compute in one form.

    Modes entered before it (emulated half precision) see the converted operands, and so do their gradients.
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        self._form = form

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kind = _kind_of(func)
        if not kind:
            return func(*args, **(kwargs or {}))
        arguments = _bind(kind, args, kwargs)
        call = _call_of(kind, arguments)
        form = self._form if call is not None and self._form in call.forms() else CONTIGUOUS
        return compute(form, func, arguments)


class _Watch(TorchFunctionMode):
    """Collect the calls of a network by layer. A convolution is not computed: its result is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, dict[LayerCall, None]] = {}
        self._layers: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kind = _kind_of(func)
        arguments = _bind(kind, args, kwargs) if kind else {}
        call = _call_of(kind, arguments) if kind else None
        if call is not None:
            name = self._layers[-1] if self._layers else ""
            self.calls.setdefault(name, {})[call] = None
            if kind == "conv2d":
                return _zeros_of_conv2d(**arguments)
        return func(*args, **(kwargs or {}))

    @contextmanager
    def follow(self, model: nn.Module) -> Iterator[None]:
        """Know which layer is at work, for the block."""

        def leave(*_: Any) -> None:
            self._layers.pop()

        with ExitStack() as stack:
            for name, module in model.named_modules():
                enter = functools.partial(self._enter, name)
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            yield

    def _enter(self, name: str, *_: Any) -> None:
        self._layers.append(name)


def trust_kernels(model: nn.Module, spec: RunSpec, machine: Machine, *, batch: int) -> None:
    """Compute the layers whose kernels are wrong on this CPU in a safer form, in place.

    Does nothing for other devices.

    Args:
        model: on the CPU, in training mode if it will be trained.
        spec: of the run that it is the network of.
        batch: images that a step gives it; evaluation gives it `LARGEST_BATCH` or more.

    Raises:
        ValueError: a layer is wrong in every form, in words for the user.
    """
    if machine.device != "cpu":
        return
    # A group of batch norm is not cut, so that its rest is not smaller than it will be.
    batch = min(batch, max(LARGEST_BATCH, spec.arm.recipe.norm_images))
    answers = Answers.of_this_machine()
    signature = _signature(model, spec, batch)
    forms = answers.networks.get(signature)
    if forms is None:
        with answers.alone():
            forms = answers.networks.get(signature)
            if forms is None:
                forms = _find_forms(model, spec, batch, answers)
                answers.keep_network(signature, forms)
    _apply(model, forms)


def safer_layers(model: nn.Module) -> dict[str, str]:
    """Which layers are computed in another form than the network's own: name -> form."""
    return {name: module.kernel_form for name, module in model.named_modules() if isinstance(module, _Safer)}


def record_of_kernels(models: Sequence[nn.Module]) -> dict[str, Any]:
    """For env.json: which layers were computed in a safer form, and why layers were not checked, if so."""
    safer = {name: form for model in models for name, form in safer_layers(model).items()}
    return {"safer_layers": safer, "unchecked": Answers.of_this_machine().unchecked}


def make_safer(module: nn.Module, form: str) -> None:
    """Compute a layer in a form of `kernel_probe`. Names, parameters, buffers and hooks stay."""
    if not isinstance(module, _Safer):
        cls = type(module)
        module.__class__ = type(cls.__name__, (_Safer, cls), {"__module__": cls.__module__})
    module.kernel_form = form  # type: ignore[assignment]


def _apply(model: nn.Module, forms: Mapping[str, str]) -> None:
    modules = dict(model.named_modules())
    for name, form in forms.items():
        make_safer(modules[name], form)


def _find_forms(model: nn.Module, spec: RunSpec, batch: int, answers: Answers) -> dict[str, str]:
    """The layers that need a safer form, by name."""
    safer: dict[str, str] = {}
    trial = copy.deepcopy(model)
    # A safer layer may hand on its result in another layout than before: look again until nothing new is
    # found.
    while True:
        layers = layer_calls(trial, spec.arm.recipe.data.resolution, batch)
        verdicts = answers.ask(list(dict.fromkeys(call for calls in layers.values() for call in calls)))
        found = {
            name: _form_of(name, {call: verdicts[call] for call in calls}) for name, calls in layers.items()
        }
        new = {name: form for name, form in found.items() if form != AS_IT_IS and safer.get(name) != form}
        if not new:
            return safer
        safer |= new
        _apply(trial, new)


def _form_of(name: str, verdicts: Mapping[LayerCall, KernelVerdict]) -> str:
    """The fastest form in which all calls of a layer are exact.

    Raises:
        ValueError: there is none.
    """
    for call, verdict in verdicts.items():
        if not verdict.form:
            raise ValueError(
                f"the layer {name or 'of the network itself'} ({call}) is computed wrongly by torch "
                f"{torch.__version__} on this CPU ({cpu_name()}): {verdict.says()}; use another resolution, "
                "width or batch size, another torch or another machine"
            )
    return max((verdict.form for verdict in verdicts.values()), key=FORMS.index)


def layer_calls(model: nn.Module, resolution: int, batch: int) -> dict[str, list[LayerCall]]:
    """Every distinct call with a kernel of its own, by the layer that makes it, in training and in
    evaluation.

    The network is copied, so that batch norm learns nothing from it, and no random number is drawn.
    """
    watch, trial = _Watch(), copy.deepcopy(model)
    generator = torch.get_rng_state()
    batches = [(batch, model.training), (max(batch, LARGEST_BATCH), False)]
    with torch.no_grad(), watch.follow(trial):
        for images, training in dict.fromkeys(batches):
            seen = torch.zeros(images, 3, resolution, resolution)
            with watch:
                trial.train(training)(seen.contiguous(memory_format=torch.channels_last))
    torch.set_rng_state(generator)
    return {name: list(calls) for name, calls in watch.calls.items()}


def _kind_of(func: Any) -> str:
    """The name in `PARAMETERS`; nothing for other functions, such as torch.batch_norm, whose arguments have
    another order."""
    name = getattr(func, "__name__", "")
    return name if name in PARAMETERS and (name != "batch_norm" or func is nn.functional.batch_norm) else ""


def _bind(kind: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**dict(zip(PARAMETERS[kind], args, strict=False)), **(kwargs or {})}


def _call_of(kind: str, arguments: Mapping[str, Any]) -> LayerCall | None:
    """Nothing where it is not one of FP32 operands on a CPU."""
    tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
    if any(value.dtype != torch.float32 or value.device.type != "cpu" for value in tensors.values()):
        return None
    if "input" not in tensors or set(arguments) - set(PARAMETERS[kind]):
        return None
    rest = {name: value for name, value in arguments.items() if name not in tensors and value is not None}
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in rest.items()}
    operands = {name: (tuple(value.shape), tuple(value.stride())) for name, value in tensors.items()}
    return LayerCall(kind, operands, options)


def _zeros_of_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1, **options: Any
) -> Tensor:
    """Zeros like a convolution's result: channels last where an operand is."""
    one = nn.functional.conv2d(input[:1, :1].double(), weight[:1, :1].double(), **options)
    result = input.new_zeros(len(input), len(weight), *one.shape[2:])
    last = is_channels_last(input) or is_channels_last(weight)
    return result.contiguous(memory_format=torch.channels_last) if last else result


# What a child process says of layers, and what a dead or hung one means.


@dataclass(frozen=True, slots=True)
class KernelVerdict:
    """The fastest form in which a layer is exact (empty: none), and what is wrong with the ones before it."""

    form: str
    faults: Mapping[str, str] = field(default_factory=dict)
    is_certain: bool = True  # False: no child could be started; nothing is known

    def says(self) -> str:
        """
        >>> KernelVerdict("", {"as it is": "it ends the process (SIGABRT)"}).says()
        'as it is: it ends the process (SIGABRT)'
        """
        return "; ".join(f"{form}: {fault}" for form, fault in self.faults.items())


@dataclass(slots=True)
class _Case:
    """A layer on its way to a verdict."""

    call: LayerCall
    forms: list[str]  # still to be tried
    faults: dict[str, str] = field(default_factory=dict)
    is_exact: bool = False

    @property
    def is_open(self) -> bool:
        return bool(self.forms) and not self.is_exact

    def fail(self, form: str, fault: str) -> None:
        self.faults[form] = fault
        self.forms = [each for each in self.call.forms() if each not in self.faults]
        self.is_exact = False

    def verdict(self) -> KernelVerdict:
        return KernelVerdict(self.forms[0] if self.is_exact else "", dict(self.faults))


def examine_all(calls: Sequence[LayerCall]) -> list[KernelVerdict]:
    """What holds for each layer, in child processes of this one; this one computes nothing of it.

    A child ends at the first layer that it finds wrong, or dies of: that layer may have broken its memory, in
    which nothing else, and no other form of the layer, is to be judged. It may also be an earlier layer that
    broke it. So the layer is examined again alone, often, and where it is innocent, those before it, each
    alone.
    """
    cases = [_Case(call, list(call.forms())) for call in calls]
    try:
        while rest := [case for case in cases if case.is_open]:
            done = _examine(rest, REPETITIONS)
            if done is not None:
                _find_culprit(*done)
    except ChildError as error:
        return [KernelVerdict(AS_IT_IS, {"unchecked": str(error)}, is_certain=False) for _ in calls]
    return [case.verdict() for case in cases]


def _find_culprit(before: Sequence[_Case], at: _Case, fault: str) -> None:
    """Blame the layers that are wrong in a child of their own; where none is, or `at` was the first of its
    child, `at`."""
    for suspects in ([at], before) if before else ():
        guilty = [case for case in suspects if _is_wrong_alone(case)]
        if guilty:
            return
    at.fail(at.forms[0], fault)


def _is_wrong_alone(case: _Case) -> bool:
    """Whether a layer is wrong in a child of its own in its present form; then it has failed."""
    form = case.forms[0]
    wrong = _examine([_Case(case.call, [form])], REPETITIONS_ALONE)
    if wrong is not None:
        case.fail(form, wrong[2])
    return wrong is not None


def _examine(cases: Sequence[_Case], repetitions: int) -> tuple[list[_Case], _Case, str] | None:
    """Let one child examine cases, each in its present form, and take in what it finds exact.

    Returns:
        Nothing when all are; else the cases that were, the one that was not, and how: what was wrong with it,
        or how the child ended at it.

    Raises:
        ChildError: it ended before it examined anything, twice.
    """
    request = {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "repetitions": repetitions,
        "limit_s": kernel_probe.LIMIT_S * (1 + len(cases)),
        "layers": [(asdict(case.call), case.forms[0]) for case in cases],
    }
    return _follow(request, cases, fork=can_fork())


def _follow(
    request: Mapping[str, Any], cases: Sequence[_Case], *, fork: bool
) -> tuple[list[_Case], _Case, str] | None:
    exact: list[_Case] = []
    at: _Case | None = None
    with Child(request, fork=fork) as child:
        for step in child.steps():
            if "end" in step:
                return None
            at = cases[step["layer"]]
            if step.get("fault"):
                return exact, at, step["fault"]
            if "fault" in step:
                at.is_exact = True
                exact.append(at)
    # A forked child may hang or die for being forked: believe a fresh one, if it says anything.
    if fork and (at is None or child.hung):
        with contextlib.suppress(*([] if at is None else [ChildError])):
            return _follow(request, cases, fork=False)
    if at is None:
        raise ChildError(f"a child process {child.how}")
    return [each for each in exact if each is not at], at, child.how


# What is known on this machine, kept in a file.


@dataclass(kw_only=True)
class Answers:
    """What has been found on this machine: one line of JSON each in a file that is only appended to.

    Half a line that a crash left is passed over. Where the file cannot be written, answers are for this
    process.
    """

    path: Path | None
    machine: Mapping[str, Any]
    verdicts: dict[str, KernelVerdict] = field(default_factory=dict)  # key of a call ->
    networks: dict[str, dict[str, str]] = field(default_factory=dict)  # signature -> layer -> safer form
    unchecked: str = ""  # why layers could not be examined
    _read_bytes: int = 0

    @staticmethod
    def of_this_machine() -> Answers:
        """Those for this CPU, torch and number of threads, read from the file as far as they are new."""
        machine = describe_kernels()
        text = json.dumps(machine, sort_keys=True)
        folder = cache_folder()
        answers = _answers(folder / "kernels" / f"{digest(text)}.jsonl" if folder else None, text)
        answers.read()
        return answers

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process of this machine examines layers for this file, and what it found is known here."""
        with ExitStack() as stack:
            try:
                if self.path is not None:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(exclusive(self.path.with_suffix(".lock"), lambda: False))
            except OSError:
                pass
            self.read()
            yield

    def ask(self, calls: Sequence[LayerCall]) -> dict[LayerCall, KernelVerdict]:
        """What holds for each layer call; those not known yet are examined in a child process and kept."""
        new = [call for call in calls if call.key not in self.verdicts]
        for call, verdict in zip(new, examine_all(new), strict=True):
            self.verdicts[call.key] = verdict
            if verdict.is_certain:
                entry = {"call": asdict(call), "form": verdict.form, "faults": dict(verdict.faults)}
                self._append(entry)
            else:
                self.unchecked = verdict.says()
        return {call: self.verdicts[call.key] for call in calls}

    def keep_network(self, signature: str, forms: Mapping[str, str]) -> None:
        self.networks[signature] = dict(forms)
        if not self.unchecked:
            self._append({"network": signature, "forms": forms})

    def read(self) -> None:
        """Take in the lines that were appended since the last time."""
        try:
            if self.path is None or self.path.stat().st_size == self._read_bytes:
                return
            lines = self.path.read_bytes().split(b"\n")
        except OSError:
            return
        self._read_bytes = sum(len(line) + 1 for line in lines) - 1
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue

    def _take(self, entry: Mapping[str, Any]) -> None:
        if "network" in entry:
            self.networks[entry["network"]] = dict(entry["forms"])
        elif "call" in entry:
            call = LayerCall.from_json(entry["call"])
            self.verdicts[call.key] = KernelVerdict(form=entry["form"], faults=dict(entry["faults"]))

    def _append(self, entry: Mapping[str, Any]) -> None:
        """One write, after the end of any half line."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                first = {"machine": self.machine} if file.tell() == 0 else None
                for each in filter(None, (first, entry)):
                    file.write(b"\n" + json.dumps(each).encode() + b"\n")
        except OSError:
            self.path = None


@functools.cache
def _answers(path: Path | None, machine: str) -> Answers:
    """One for each machine's settings and process."""
    return Answers(path=path, machine=json.loads(machine))


def describe_kernels() -> dict[str, Any]:
    """What the choice of kernels depends on, besides the layer."""
    return {
        **_build_and_cpu(),
        "caps": {name: os.environ[name] for name in CAPS if name in os.environ},
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "check": CHECK_VERSION,
    }


@functools.cache
def _build_and_cpu() -> dict[str, Any]:
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "instructions": digest(_cpu_flags()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "build": digest(torch.__config__.show()),
    }


def _cpu_flags() -> str:
    """Of the first core, as the kernel lists them; a virtual machine may hide some of a CPU's."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def _signature(model: nn.Module, spec: RunSpec, batch: int) -> str:
    """Equal for networks that make the same calls: their modules, and what their code depends on."""
    recipe = spec.arm.recipe
    modules = [
        (name, type(module).__qualname__, "" if next(module.children(), None) else module.extra_repr())
        for name, module in model.named_modules()
    ]
    tricks = [
        (trick.name, dict(trick.options))
        for trick in spec.arm.tricks
        if "edit_model" in hooks_of(make_trick(trick.name, trick.options))
    ]
    facts = [
        [recipe.model.name, recipe.model.args, tricks, spec.arm.plugins, recipe.precision, _code()],
        [recipe.data.resolution, batch, model.training, modules],
        [(name, tuple(value.shape), value.stride()) for name, value in model.state_dict().items()],
    ]
    return digest(json.dumps(facts, default=str, sort_keys=True))


@functools.cache
def _code() -> str:
    """Which version of the networks' code this is: sizes and times of its files."""
    root = Path(__file__).parents[1]
    files = sorted(
        path for folder in ("models", "tricks", "training") for path in (root / folder).glob("*.py")
    )
    return digest(repr([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]))
