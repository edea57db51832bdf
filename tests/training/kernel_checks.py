"""Wrong kernels are found in a child process, and the layers that have them are computed in a safer form."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.models.half import EmulatedHalf
from harness.training import kernel_probe, kernels
from harness.training.kernel_probe import AS_IT_IS, CONTIGUOUS, UNFOLDED, LayerCall
from harness.training.kernels import (
    KernelVerdict,
    examine_all,
    layer_calls,
    make_safer,
    safer_layers,
    trust_kernels,
)
from harness.training.setup import build_network
from tests.timing import PATIENCE_S
from tests.training.runs import assert_same_bits, folder_of, machine_in, results, stop_after, tiny_spec, train

Compute = Callable[..., Any]
# The layer of the tiny network that has wrong kernels in these tests: 4 -> 8 channels, 1x1, stride 2.
LAYER = "layer2.0.downsample.0"
CAPPED = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answers of planted kernels are not kept for other tests, in a file or in this process."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    kernels._answers.cache_clear()
    yield
    kernels._answers.cache_clear()


def conv(channels: int = 4, out: int = 8, kernel: int = 1, stride: int = 2, side: int = 9) -> LayerCall:
    """A convolution in channels last, on 16 images."""
    image = ((16, channels, side, side), (channels * side * side, 1, side * channels, channels))
    weight = ((out, channels, kernel, kernel), (channels * kernel**2, 1, kernel * channels, channels))
    options = {"stride": [stride] * 2, "padding": [kernel // 2] * 2, "dilation": [1, 1], "groups": 1}
    return LayerCall("conv2d", {"input": image, "weight": weight}, {"bias": None, **options})


def is_planted(arguments: Any) -> bool:
    """Whether these are the arguments of the planted layer, in channels last."""
    weight = arguments.get("weight")
    return weight is not None and weight.shape == (8, 4, 1, 1) and arguments["input"].stride(1) == 1


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Compute, tuple[str, ...]], None]:
    """Let the kernel under test be another one for the planted layer, in these forms and FP32."""

    def plant(wrong: Compute, forms: tuple[str, ...] = (AS_IT_IS,)) -> None:
        right = kernel_probe.compute

        def compute(form: str, function: Compute, arguments: Any) -> Any:
            result = right(form, function, arguments)
            planted = form in forms and is_planted(arguments) and result.dtype == torch.float32
            return wrong(result) if planted else result

        monkeypatch.setattr(kernel_probe, "compute", compute)

    return plant


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (1 + 1e-3)


def abort(_result: Tensor) -> Tensor:
    os.abort()


def hang(_result: Tensor) -> Tensor:
    threading.Event().wait()
    raise AssertionError


def leave_unwritten(result: Tensor) -> Tensor:
    """The last numbers are whatever the memory held."""
    written = torch.empty_like(result)
    written[:-1] = result[:-1]
    return written


def tiny_network() -> nn.Module:
    return build_network(tiny_spec(), (), classes=4)


def test_the_layers_of_a_shipped_network_are_found_by_name_with_all_that_chooses_a_kernel() -> None:
    network = tiny_network()
    before = copy.deepcopy(network.state_dict())
    generator = torch.get_rng_state()
    calls = layer_calls(network, 32, batch=8)
    assert {"conv1", "bn1", "maxpool", "fc", LAYER} <= set(calls)
    assert [str(call) for call in calls[LAYER]] == [
        "conv2d 1x1, stride 2, 4 -> 8 channels, on 8x8, channels last, batch 8",
        "conv2d 1x1, stride 2, 4 -> 8 channels, on 8x8, channels last, batch 16",
    ]
    assert [call.options["training"] for call in calls["bn1"]] == [True, False]
    assert_same_bits(network.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_convolution_that_is_no_layer_is_found_too() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.zeros(8, 3, 3, 3))

        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.conv2d(images, self.kernel, padding="same").mean((2, 3))

    calls = layer_calls(nn.Sequential(Functional()), 8, batch=16)
    assert [call.kind for call in calls["0"]] == ["conv2d"]
    assert examine_all(calls["0"])[0].form == AS_IT_IS


def test_right_kernels_are_trusted() -> None:
    shapes = [conv(), conv(kernel=3, stride=1), conv(channels=3, out=16, kernel=7)]
    assert [verdict.form for verdict in examine_all(shapes)] == [AS_IT_IS] * 3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda result: result * (1 + 1e-5), "the output is wrong by up to 1.0e-05 of its largest value"),
        (_WrongGradient.apply, "the gradient of the input is wrong by up to 1.0e-03"),
        (leave_unwritten, "the output holds memory that was not written"),
        (abort, "it ends the process (SIGABRT)"),
    ],
    ids=["wrong output", "wrong gradient", "unwritten memory", "crash"],
)
def test_a_planted_kernel_is_found_and_the_layers_beside_it_are_trusted(
    plant: Any, wrong: Compute, says: str
) -> None:
    plant(wrong)
    before, planted, after = examine_all([conv(3, 8), conv(4, 8), conv(5, 8)])
    assert (before.form, planted.form, after.form) == (AS_IT_IS, CONTIGUOUS, AS_IT_IS)
    assert says in planted.faults[AS_IT_IS]


def test_a_kernel_that_hangs_counts_as_wrong(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(hang)
    monkeypatch.setattr(kernel_probe, "LIMIT_S", 1.0)
    # A fresh interpreter has no planted kernel: the second opinion comes from a fork, too.
    monkeypatch.setattr(kernel_probe.Child, "_start", kernel_probe.Child._fork)
    (verdict,) = examine_all([conv(4, 8)])
    assert verdict.form == CONTIGUOUS
    assert "did not end within" in verdict.faults[AS_IT_IS]


@pytest.fixture
def broken_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Compute, Compute], None]:
    """From the first call of the planted layer as it is on, whatever the same process computes is broken."""

    def broken_by(planted: Compute, others: Compute) -> None:
        right, calls = kernel_probe.compute, []

        def compute(form: str, function: Compute, arguments: Any) -> Any:
            result = right(form, function, arguments)
            if result.dtype != torch.float32:
                return result
            if form == AS_IT_IS and is_planted(arguments):
                calls.append(1)
                return planted(result, len(calls))
            return others(result) if calls else result

        monkeypatch.setattr(kernel_probe, "compute", compute)

    return broken_by


@pytest.mark.parametrize("others", [abort, lambda result: result * 2], ids=["crash", "wrong output"])
def test_what_an_earlier_layer_broke_is_blamed_on_that_layer(broken_by: Any, others: Compute) -> None:
    """Broken memory shows in the layer after the planted one, and in that one itself in the long run."""

    def planted(result: Tensor, calls: int) -> Tensor:
        return result if calls <= kernel_probe.REPETITIONS else abort(result)

    broken_by(planted, others)
    first, innocent = examine_all([conv(4, 8), conv(3, 8)])
    assert (first.form, list(first.faults)) == (CONTIGUOUS, [AS_IT_IS])
    assert "it ends the process" in first.faults[AS_IT_IS]
    assert innocent == KernelVerdict(AS_IT_IS)


@pytest.mark.parametrize("others", [abort, lambda result: result * 2], ids=["crash", "wrong output"])
def test_after_a_wrong_layer_nothing_is_judged_in_the_same_process(broken_by: Any, others: Compute) -> None:
    """Neither its own next form nor the next layer: it may have written outside of its memory, too."""
    broken_by(lambda result, _calls: result * 2, others)
    planted, innocent = examine_all([conv(4, 8), conv(3, 8)])
    assert planted.form == CONTIGUOUS
    assert list(planted.faults) == [AS_IT_IS]
    assert innocent == KernelVerdict(AS_IT_IS)


def test_the_second_safer_form_is_taken_where_the_first_is_wrong_too(plant: Any, tmp_path: Path) -> None:
    plant(lambda result: result * 2, (AS_IT_IS, CONTIGUOUS))
    network = tiny_network()
    trust_kernels(network, tiny_spec(), machine_in(tmp_path), batch=16)
    assert safer_layers(network) == {LAYER: UNFOLDED}


def test_a_run_is_refused_in_words_where_no_form_is_exact(plant: Any, tmp_path: Path) -> None:
    plant(abort, (AS_IT_IS, CONTIGUOUS, UNFOLDED))
    with pytest.raises(
        ValueError, match=r"the layer layer2\.0\.downsample\.0 \(conv2d 1x1, stride 2, .*SIGABRT"
    ):
        train(tiny_spec(), tmp_path)


def test_a_second_look_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust_kernels(tiny_network(), tiny_spec(), machine_in(tmp_path), batch=16)
    kernels._answers.cache_clear()

    def examine(_calls: Any) -> Any:
        raise AssertionError("it examines again")

    monkeypatch.setattr(kernels, "examine_all", examine)
    monkeypatch.setattr(kernels, "layer_calls", examine)
    trust_kernels(tiny_network(), tiny_spec(seed=1), machine_in(tmp_path), batch=32)


def test_a_damaged_file_of_answers_loses_its_damaged_lines_only(tmp_path: Path) -> None:
    trust_kernels(tiny_network(), tiny_spec(), machine_in(tmp_path), batch=16)
    known = kernels.Answers.of_this_machine()
    assert known.path is not None
    known.path.write_bytes(known.path.read_bytes()[:-40] + b"\x00\n[1]\nnull\n")
    kernels._answers.cache_clear()
    again = kernels.Answers.of_this_machine()
    assert again.verdicts == known.verdicts
    assert again.networks == {}


def test_answers_are_for_this_process_where_the_cache_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    trust_kernels(tiny_network(), tiny_spec(), machine_in(tmp_path), batch=16)
    assert len(kernels.Answers.of_this_machine().networks) == 1


def test_of_two_processes_at_once_one_examines(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.training.runs import *\n"
        "from harness.training import kernels; from harness.training.setup import build_network\n"
        "known = kernels.Answers.of_this_machine(); asked = kernels.examine_all\n"
        "kernels.examine_all = lambda calls: (print('examines', len(calls)), asked(calls))[1]\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "spec, machine = tiny_spec(), machine_in(Path('x'))\n"
        "kernels.trust_kernels(build_network(spec, (), classes=4), spec, machine, batch=16)\n"
        "print(len(known.verdicts), len(known.networks))"
    )
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=root, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"  # type: ignore[union-attr]
    said = [process.communicate("go\n", timeout=PATIENCE_S)[0].splitlines() for process in both]
    # Where a kernel is wrong, the one that examines does so again with the layer in its safer form.
    idle, busy = sorted(len(lines) for lines in said)
    assert idle == 1 < busy
    assert said[0][-1] == said[1][-1]


def test_a_safer_layer_is_the_same_function_of_the_same_parameters() -> None:
    network = tiny_network()
    for form in (CONTIGUOUS, UNFOLDED):
        safer = copy.deepcopy(network)
        make_safer(safer.get_submodule(LAYER), form)
        assert isinstance(safer.get_submodule(LAYER), nn.Conv2d)
        assert list(safer.state_dict()) == list(network.state_dict())
        assert safer_layers(copy.deepcopy(safer)) == {LAYER: form}
        images = torch.rand(16, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        answers, gradients = [], []
        # Float64 has kernels of its own: this process must not call one that may be wrong here.
        for each, seen in ((copy.deepcopy(network).double(), images.double()), (safer, images)):
            answers.append(each(seen).float())
            answers[-1].square().sum().backward()
            gradients.append(each.get_submodule(LAYER).weight.grad.float())  # type: ignore[union-attr]
        torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", [CONTIGUOUS, UNFOLDED])
def test_a_safer_layer_calls_no_channels_last_kernel_in_either_direction(form: str) -> None:
    """Also for a 1x1 weight, whose strides tell both layouts apart although it is the same memory in both."""
    layer = nn.Conv2d(4, 8, 1, stride=2, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layer.weight.data = layer.weight.data.as_strided((8, 4, 1, 1), (4, 1, 4, 4))
    make_safer(layer, form)
    images = torch.rand(16, 4, 9, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
    seen: list[Any] = []

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "convolution" in str(func):
                seen.append((str(func), [each.stride() for each in args[:3] if isinstance(each, Tensor)]))
            return func(*args, **(kwargs or {}))

    with Spy():
        output = layer(images)
        assert output.is_contiguous(memory_format=torch.channels_last)
        output.square().sum().backward()
    if form == UNFOLDED:
        assert seen == []
        return
    (forward, (image, weight)), (backward, (_, *operands)) = seen
    assert (forward, backward) == ("aten.convolution.default", "aten.convolution_backward.default")
    assert operands == [image, weight] == [(324, 81, 9, 1), (4, 1, 1, 1)]


@pytest.mark.parametrize("form", [CONTIGUOUS, UNFOLDED])
def test_emulated_half_precision_rounds_in_a_safer_layer_as_in_any(form: str) -> None:
    layer = nn.Conv2d(4, 8, 3, stride=2)
    safer = copy.deepcopy(layer)
    make_safer(safer, form)
    images = torch.rand(16, 4, 9, 9).contiguous(memory_format=torch.channels_last)
    with EmulatedHalf(torch.bfloat16):
        expected, found = layer(images), safer(images)
    assert torch.equal(found, found.bfloat16().float())
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-7)


def test_a_run_with_a_safer_layer_resumes_to_the_same_bits_and_says_so(plant: Any, tmp_path: Path) -> None:
    plant(lambda result: result * 2)
    spec = tiny_spec("ema", epochs=1)
    assert train(spec, tmp_path / "a") == "finished"
    assert train(spec, tmp_path / "b", stop_after(2)) == "interrupted"
    assert train(spec, tmp_path / "b") == "finished"
    assert_same_bits(results(folder_of(spec, tmp_path / "a")), results(folder_of(spec, tmp_path / "b")))
    record = json.loads(folder_of(spec, tmp_path / "a").env.read_text())["kernels"]
    assert record == {"safer_layers": {LAYER: CONTIGUOUS}, "unchecked": ""}


def test_networks_whose_layers_are_right_are_not_touched(tmp_path: Path) -> None:
    network = tiny_network()
    classes = [type(module) for module in network.modules()]
    kernels._apply(network, {})
    assert [type(module) for module in network.modules()] == classes


def capped(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python on a CPU without more than AVX2."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **CAPPED, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


WRITES_OUTSIDE = """
import torch
layer = torch.nn.Conv2d(4, 16, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
for _ in range(300):
    images = torch.randn(32, 4, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    layer(images).sum().backward()
"""


def test_a_narrow_network_trains_where_torch_writes_outside_of_its_memory(tmp_path: Path) -> None:
    """torch 2.13 with AVX2: the weight gradient of a 1x1 stride-2 convolution of 2 to 6 channels."""
    code = (
        "import sys; from pathlib import Path; from tests.training.runs import *\n"
        "from harness.training.kernels import Answers\n"
        "spec, here = tiny_spec(epochs=40), Path(sys.argv[1])\n"
        "print(train(spec, here), json.loads(folder_of(spec, here).env.read_text())['kernels'])"
    )
    done = capped(f"import sys, json; sys.argv[1:] = [{str(tmp_path)!r}]\n{code}", MALLOC_CHECK_="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("finished {'safer_layers': {")
    # Where this CPU's kernels have the fault, the layer was found and is computed in another form.
    has_fault = capped(WRITES_OUTSIDE).returncode != 0
    assert (LAYER in done.stdout) >= has_fault
