"""One layer's kernels, forward and backward, against a reference, in a child process, which one may end.

A layer call is plain data (`LayerCall`). Its operands are random numbers in [1/2, 1). The reference computes
the same function in float64 on contiguous memory, where torch uses its own plain loops, not oneDNN.

Tolerance: a sum of n products computed in FP32 in any order, fused or not, differs from the exact one by at
most n u / (1 - n u) times the sum of their absolute values, with u = 2^-24 (Higham 2002, Accuracy and
Stability of Numerical Algorithms, Sec. 3.1 and 4.2). All operands are positive, so that sum is the result r
itself, and each product is at least 1/4, so n <= 4 r: |computed - r| <= (4 r + 4) u r needs no knowledge of
the layer, and where r is 0 (pixels that a stride leaves out) it asks for exactly 0.

Memory: with glibc, memory is handed out full of NaN (an output that a kernel leaves unwritten is NaN) and
every block lies directly beside another one's header on one heap, so that a write outside of a block breaks a
header and glibc ends the process at one of the next calls (free, malloc): the parent sees the child die.
Elsewhere memory is filled with NaN and freed before each call, and the calls are more.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMS = AS_IT_IS, CONTIGUOUS, UNFOLDED = "as it is", "contiguous", "unfolded"
UNIT_ROUNDOFF = 2.0**-24
# Of a layer among others; of one that is suspected of having ended a child.
REPETITIONS, REPETITIONS_ALONE = 8, 300
WITHOUT_GUARD = 5  # times as many repetitions where memory is not guarded
PRODUCTS = frozenset(
    {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"}
)
# torch's functions that have kernels of their own, and the names of their parameters.
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _CONV),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _TRANSPOSED),
    "linear": ("input", "weight", "bias"),
    "batch_norm": (
        *("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
    "max_pool2d": ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "avg_pool2d": (
        *("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    "adaptive_avg_pool2d": ("input", "output_size"),
}
LEARNT = ("input", "weight", "bias")


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One call of a function of `PARAMETERS`: shapes and strides of its operands, and its other arguments."""

    kind: str
    operands: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]  # name -> shape, stride
    options: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"

    @property
    def key(self) -> str:
        """The same text for equal calls."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> LayerCall:
        operands = {name: (tuple(shape), tuple(stride)) for name, (shape, stride) in data["operands"].items()}
        return LayerCall(data["kind"], operands, dict(data["options"]), data["precision"])

    def __hash__(self) -> int:
        return hash(self.key)

    @staticmethod
    def of_key(key: str) -> LayerCall:
        """The call that has this key."""
        return LayerCall.from_json(json.loads(key))

    def forms(self) -> tuple[str, ...]:
        """From the fastest to the safest."""
        safest = (UNFOLDED,) if can_unfold(self.kind, self.options) else ()
        return (AS_IT_IS, CONTIGUOUS, *safest)

    def __str__(self) -> str:
        """
        >>> weight, image = ((8, 4, 1, 1), (4, 1, 4, 4)), ((16, 4, 9, 9), (324, 1, 36, 4))
        >>> str(LayerCall("conv2d", {"input": image, "weight": weight}, {"stride": [2, 2]}))
        'conv2d 1x1, stride 2, 4 -> 8 channels, on 9x9, channels last, batch 16'
        """
        shape, stride = self.operands["input"]
        weight = self.operands.get("weight", ((), ()))[0]
        parts = [self.kind]
        if self.kind in PRODUCTS and len(weight) > 2:
            parts[0] += " " + "x".join(map(str, weight[2:]))
            parts += _options(self.options)
            parts.append(f"{shape[1]} -> {weight[0]} channels")
        elif len(weight) == 2:
            parts.append(f"{weight[1]} -> {weight[0]} features")
        else:
            parts += [*_options(self.options), f"{shape[1] if len(shape) > 1 else 1} channels"]
        if len(shape) == 4:
            layout = "channels last" if stride[1] == 1 < stride[3] else "contiguous"
            parts += [f"on {shape[2]}x{shape[3]}", layout]
        return ", ".join([*parts, f"batch {shape[0]}"])


def _options(options: Mapping[str, Any]) -> list[str]:
    """What is not torch's default, in few words."""
    shown = []
    for name in ("kernel_size", "stride", "padding", "dilation", "groups"):
        value = options.get(name)
        values = value if isinstance(value, list) else [value]
        if value is not None and set(values) - {0 if name == "padding" else 1}:
            number = str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))
            shown.append(f"{name.replace('_size', '')} {number}")
    return shown


def can_unfold(kind: str, options: Mapping[str, Any]) -> bool:
    return kind == "conv2d" and not isinstance(options.get("padding"), str)


def compute(form: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call one of torch's functions of `PARAMETERS` in a form. Gradients follow by autograd: backward sees
    the same operands, so it has the same form.

    Of `contiguous` all operands lie in memory as torch's default, from where torch takes the layout of both
    directions. `unfolded` is a matrix product of patches, without any convolution kernel.
    """
    if form == AS_IT_IS:
        return function(**arguments)
    given: dict[str, Any] = {
        name: plain(value) if isinstance(value, Tensor) else value for name, value in arguments.items()
    }
    result = unfold_and_multiply(**given) if form == UNFOLDED else function(**given)
    if isinstance(result, Tensor) and result.dim() == 4 and is_channels_last(arguments["input"]):
        return result.contiguous(memory_format=torch.channels_last)
    return result


def plain(value: Tensor) -> Tensor:
    """The same numbers with the strides of a contiguous tensor.

    `contiguous()` is not enough: it returns a tensor of which a side is 1 as it is, and torch then takes the
    channels-last strides of such a weight (O, I, 1, 1) for a wish.
    """
    value = value.contiguous()
    return value.flatten(1).view(value.shape) if value.dim() > 2 else value


def is_channels_last(value: Tensor) -> bool:
    """Only where it is not contiguous too."""
    return (
        value.dim() == 4
        and value.is_contiguous(memory_format=torch.channels_last)
        and not value.is_contiguous()
    )


def unfold_and_multiply(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1, **options: Any
) -> Tensor:
    """A convolution (B, I, H, W), (O, I / G, h, w) -> (B, O, H', W') as a product of patches and weights."""
    kernel = weight.shape[2:]
    stride, padding, dilation = (
        _pair(options.get(name, default))
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    patches = torch.nn.functional.unfold(input, kernel, dilation, padding, stride)
    patches = patches.view(len(input), groups, -1, patches.shape[-1])
    factors = weight.view(1, groups, len(weight) // groups, -1)
    if bias is not None:
        # As part of the product, it is rounded with it where half precision is emulated.
        patches = torch.cat([patches, torch.ones_like(patches[:, :, :1])], 2)
        factors = torch.cat([factors, bias.view(1, groups, -1, 1)], 3)
    spans = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    sides = [(input.shape[2 + i] + 2 * padding[i] - spans[i]) // stride[i] + 1 for i in (0, 1)]
    return (factors @ patches).reshape(len(input), len(weight), *sides)


def _pair(value: Any) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values


def make_operands(call: LayerCall) -> dict[str, Tensor]:
    """Random numbers in [1/2, 1), the same for equal calls, in memory as the call says."""
    generator = torch.Generator().manual_seed(20261129)
    operands = {}
    for name, (shape, stride) in call.operands.items():
        value = torch.empty_strided(shape, stride, dtype=getattr(torch, call.precision))
        value.copy_(torch.rand(shape, generator=generator).div_(2).add_(0.5))
        if call.kind == "batch_norm" and name == "input":
            # Every second image is brighter, so that no channel's deviation, by which is divided, is near 0.
            value.mul_(0.3).add_(0.35)
            value[1::2].add_(0.35)
        operands[name] = value
    return operands


def both_directions(call: LayerCall, form: str, operands: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The output and the gradients of what is learnt, for a gradient of the output of numbers in [1/2, 1)."""
    learnt = {name: operands[name].detach().requires_grad_() for name in LEARNT if name in operands}
    # The running statistics would be changed by a batch norm.
    fixed = {name: value.clone() for name, value in operands.items() if name not in learnt}
    output = compute(form, function_of(call.kind), {**learnt, **fixed, **call.options})
    # A maximum and where it is.
    output = output[0] if isinstance(output, tuple) else output
    generator = torch.Generator().manual_seed(10)
    factors = torch.empty_like(output).copy_(torch.rand(output.shape, generator=generator).div_(2).add_(0.5))
    # Not backward(factors), which imports half a second of modules when first called.
    (output * factors).sum().backward()
    gradients = {f"gradient of the {name}": value.grad for name, value in learnt.items()}
    return {"output": output.detach(), **{name: each for name, each in gradients.items() if each is not None}}


def function_of(kind: str) -> Callable[..., Any]:
    """torch's function of this name."""
    return getattr(torch.nn.functional, kind)


def reference(call: LayerCall, operands: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `both_directions` should give, in float64."""
    return both_directions(call, AS_IT_IS, {name: plain(value.double()) for name, value in operands.items()})


def fault_of(call: LayerCall, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What is wrong with a result, in words; nothing where it is within the tolerance."""
    for name, right in expected.items():
        wrong = (found[name].double() - right).abs()
        excess = wrong - allowed(call, right)
        if bool((excess <= 0).all()):
            continue
        if bool(found[name].isnan().any()):
            return f"the {name} holds memory that was not written"
        return (
            f"the {name} is wrong by up to {float(wrong.max() / right.abs().max()):.1e} of its largest value"
        )
    return ""


def allowed(call: LayerCall, right: Tensor) -> Tensor:
    """The largest error of each element that FP32 explains; see the top of this file."""
    sides = call.operands["input"][0][2:]
    if call.kind in PRODUCTS:
        return (4 * right + 4) * UNIT_ROUNDOFF * right
    if call.kind != "batch_norm":
        # At most a whole map is added up, then divided.
        return (float(torch.tensor(sides).prod()) + 4) * UNIT_ROUNDOFF * right
    # Two sums over the batch, of numbers some 16 times as large as their differences to the mean can make the
    # result.
    values = right.new_tensor([call.operands["input"][0][0], *sides]).prod()
    size = right.abs().max().clamp(min=8) + (values if right.dim() == 1 else 0)
    return (16 * (values + 16) * UNIT_ROUNDOFF * size).expand(right.shape)


def examine(call: LayerCall, form: str, repetitions: int, *, guarded: bool) -> str:
    """Compute a layer so often in one form; what is wrong with it in words, or nothing."""
    operands = make_operands(call)
    expected = reference(call, operands)
    for _ in range(repetitions if guarded else repetitions * WITHOUT_GUARD):
        if not guarded:
            _fill_free_memory([*operands.values(), *expected.values()])
        found = both_directions(call, form, operands)
        if fault := fault_of(call, found, expected):
            return fault
        del found
    return ""


def _fill_free_memory(like: Iterable[Tensor]) -> None:
    """Leave NaN in free blocks of the sizes that the next call will ask for."""
    rubbish = [torch.full((value.numel(),), float("nan")) for value in like for _ in range(2)]
    del rubbish


def guard_memory() -> bool:
    """Make glibc notice writes outside of a block, and hand out memory full of NaN, in this process for good.

    Free memory is taken and kept, so that new blocks follow one another at the end of the heap; its caches of
    small blocks, which check nothing, are filled.

    Returns:
        False where torch's memory does not come from glibc's heap.
    """
    top_pad, mmap_max, trim_threshold, perturb = -2, -4, -1, -6
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  absent elsewhere
    except (OSError, AttributeError, TypeError):
        return False
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 1 << 20)):
        libc.mallopt(option, value)
    end = libc.sbrk(0)
    for size in (1 << power for power in range(26, 5, -1)):
        while (block := libc.malloc(size)) is not None and block + size < end:
            pass
        libc.free(block)
    small = [libc.malloc(size) for size in range(24, 1040, 16) for _ in range(7)]
    for block in small:
        libc.free(block)
    # Any number other than 0: memory is filled with its lowest byte, inverted.
    libc.mallopt(perturb, 0x100)
    return bool(torch.empty(64).isnan().all())


def work(request: Mapping[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Examine the layers of a request, each in its form, until one is wrong.

    Says `{"layer": i}` before and `{"layer": i, "fault": text}` after a layer, and `{"end": true}` when all
    are exact.
    """
    torch.set_num_threads(request["threads"])
    # It imports a second of modules; a forked child is as its parent already.
    if torch.are_deterministic_algorithms_enabled() != request["deterministic"]:
        torch.use_deterministic_algorithms(request["deterministic"])
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    guarded = guard_memory()
    for index, (data, form) in enumerate(request["layers"]):
        say({"layer": index})
        fault = examine(LayerCall.from_json(data), form, request["repetitions"], guarded=guarded)
        say({"layer": index, "fault": fault})
        if fault:
            return
    say({"end": True})


def die_with_parent(limit_s: float) -> None:
    """This process ends when its parent does (Linux) or after so many seconds, without a core file."""
    import resource

    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(limit_s) + 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# The process in which a layer is examined, as its parent sees it.


LIMIT_S = 120.0  # for one step of a child, on a machine with other work
HANGS = f"it did not end within {LIMIT_S:g} s"


class ChildError(Exception):
    """No child process could be started, or it ended before it examined anything."""


def can_fork() -> bool:
    """Whether a forked copy of this process can compute: no thread of a library is lost with the fork."""
    if sys.platform != "linux" or torch.cuda.is_initialized():
        return False
    try:
        return len(os.listdir("/proc/self/task")) == threading.active_count()
    except OSError:
        return False


class Child:
    """A process that examines layers and tells each step in a line; ended with the block."""

    def __init__(self, request: Mapping[str, Any], *, fork: bool) -> None:
        self.hung = False
        self.how = ""
        self._request = request
        self._process: subprocess.Popen[bytes] | None = None
        self._pid, self._pipe = self._fork() if fork else self._start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        # It has nothing more to say, and memory that a layer broke may keep it from ending.
        self._end(kill=True)

    def steps(self) -> Iterator[dict[str, Any]]:
        """What the child says, until it ends or says nothing for `LIMIT_S`; then `how` says how it ended."""
        rest = b""
        while True:
            if not select.select([self._pipe], [], [], LIMIT_S)[0]:
                self.hung, self.how = True, HANGS
                return
            data = os.read(self._pipe, 1 << 16)
            if not data:
                self._end()
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from map(json.loads, lines)

    def _end(self, *, kill: bool = False) -> None:
        if self._pid == 0:
            return
        if kill:
            # Not waited for yet, so that the number is no other process's.
            os.kill(self._pid, signal.SIGKILL)
        if self._process is not None:
            code = self._process.wait(timeout=LIMIT_S)
        else:
            code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = 0
        os.close(self._pipe)
        self.how = self.how or f"it ends the process ({_name_of(code)})"

    def _fork(self) -> tuple[int, int]:
        """A copy of this process; it has torch already."""
        read, write = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of threads; the others of this process wait in system calls (see can_fork).
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                pid = os.fork()
            except OSError as error:
                raise ChildError(f"a child process cannot be forked: {error}") from None
        if pid == 0:
            _be_child(self._request, write)
        os.close(write)
        return pid, read

    def _start(self) -> tuple[int, int]:
        """A new interpreter, which takes a second."""
        command = [sys.executable, "-m", __name__]
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        try:
            process = subprocess.Popen(  # noqa: S603  an argument list, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError as error:
            raise ChildError(f"a child process cannot be started: {error}") from None
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(self._request).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            pass
        return process.pid, os.dup(process.stdout.fileno())


def _be_child(request: Mapping[str, Any], pipe: int) -> None:
    """In the forked child: examine, say so, and leave without any of the parent's business."""
    code = 1
    try:
        die_with_parent(request["limit_s"])
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        # Locks and pipes of the parent are not held open by its child.
        os.closerange(3, pipe)
        os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))
        work(request, lambda step: _say(pipe, step))
        code = 0
    finally:
        os._exit(code)


def _say(pipe: int, step: Mapping[str, Any]) -> None:
    os.write(pipe, (json.dumps(step) + "\n").encode())


def _name_of(code: int) -> str:
    """
    >>> _name_of(-6), _name_of(1)
    ('SIGABRT', 'exit code 1')
    """
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"


def main() -> None:
    """Read a request from stdin, write one line of JSON a step to stdout."""
    request = json.loads(sys.stdin.readline())
    die_with_parent(request["limit_s"])
    work(request, lambda step: os.write(1, (json.dumps(step) + "\n").encode()))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
