"""Half precision on a CPU rounds where autocast rounds, to the same values, on the way forward and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from harness.models import build_model
from harness.models.half import EmulatedHalf, is_half
from tests.conftest import of_each

FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(params=FORMATS)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return FORMATS[request.param]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


IMAGES, WEIGHT, SCALE = draw(4, 6, 8, 8), draw(8, 6, 3, 3, seed=1) / 7, draw(8, seed=2)

# Each begins with a convolution, whose result is half in both, and adds one operator.
ALIKE: dict[str, Callable[[Tensor], Any]] = {
    "conv2d": lambda x: x,
    "conv2d with bias, stride, groups": lambda x: functional.conv2d(x, WEIGHT[:, :4], SCALE, 2, 1, groups=2),
    "batch_norm": lambda x: functional.batch_norm(x, None, None, SCALE, SCALE, training=True),
    "relu": functional.relu,
    "relu in place": lambda x: functional.relu(x, inplace=True),
    "add": lambda x: x + x.flip(1),
    "add in place": lambda x: x.add_(x.flip(1)),
    "add a number": lambda x: x + 0.1,
    "add FP32": lambda x: x + SCALE.view(1, 8, 1, 1),
    "times a scalar tensor in FP32": lambda x: x * torch.tensor(0.3),
    "times FP32": lambda x: x * SCALE.view(1, 8, 1, 1),
    "mean": lambda x: x.mean((2, 3)),
    "max_pool2d": lambda x: functional.max_pool2d(x, 3, 2, 1),
    "avg_pool2d": lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "adaptive_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(x, 2),
    "cat": lambda x: torch.cat([x, 2 * x], 1),
    "cat with FP32": lambda x: torch.cat([x, IMAGES[..., :6, :6]], 1),
    "flatten, linear": lambda x: functional.linear(x.flatten(1), draw(5, 288, seed=3) / 17, draw(5, seed=4)),
    "matmul": lambda x: x.flatten(1) @ draw(288, 5, seed=3) / 17,
    "sigmoid": torch.sigmoid,
    "hardtanh": lambda x: functional.hardtanh(x, -0.3, 0.3),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "index": lambda x: x[:, 1:3],
    "transpose": lambda x: x.transpose(1, 2),
    "std and mean": lambda x: torch.std_mean(x.flatten(1), 1)[1],
    "to float": lambda x: x.float() * 1.1,
    "to another's dtype": lambda x: x.to(SCALE) * 1.1,
    "to memory format": lambda x: x.to(memory_format=torch.channels_last) * 1.1,
}


def in_format(
    way: str, dtype: torch.dtype, op: Callable[[Tensor], Any]
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """The result, the gradients of weight and images, and whether the result is half."""
    images, weight = IMAGES.clone().requires_grad_(), WEIGHT.clone().requires_grad_()
    context = EmulatedHalf(dtype) if way == "emulated" else torch.autocast("cpu", dtype)
    with context:
        result = op(functional.conv2d(images, weight))
    half = is_half(result) if way == "emulated" else result.dtype == dtype
    (result.float() * draw(*result.shape, seed=5)).sum().backward()
    gradients = [value.grad for value in (weight, images)]
    return result.detach().float(), *gradients, half  # type: ignore[return-value]


def unit(dtype: torch.dtype, values: Tensor) -> float:
    """The distance between two neighbours of the format at the largest of the values."""
    return torch.finfo(dtype).eps * 2 ** math.ceil(math.log2(float(values.abs().max())))


@of_each(product(ALIKE, FORMATS))
def test_each_operator_rounds_where_autocast_rounds(case: tuple[str, str]) -> None:
    name, dtype = case[0], FORMATS[case[1]]
    *ours, half = in_format("emulated", dtype, ALIKE[name])
    *theirs, half_there = in_format("autocast", dtype, ALIKE[name])
    assert half == half_there
    for own, other, units in zip(ours, theirs, (1, 4, 4), strict=True):
        assert (own - other).abs().max() <= units * unit(dtype, other)
    rounded = torch.equal(ours[0], ours[0].to(dtype).float())
    assert rounded == half
    # Gradients of half values are half numbers.
    assert all(torch.equal(each, each.to(dtype).float()) for each in ours[1:])


FP32_ON_GPUS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: functional.log_softmax(x, 1),
    "layer_norm": lambda x: functional.layer_norm(x, x.shape[1:]),
    "group_norm": lambda x: functional.group_norm(x, 2),
    "exp": torch.exp,
    "pow": lambda x: x**2,
    "sum": lambda x: x.sum((2, 3)),
}


@of_each(product(FP32_ON_GPUS, FORMATS))
def test_what_gpus_compute_in_fp32_stays_fp32(case: tuple[str, str]) -> None:
    """CPU autocast has other lists; a GPU's are the ones that a recipe means."""
    name, dtype = case[0], FORMATS[case[1]]
    with EmulatedHalf(dtype):
        result = FP32_ON_GPUS[name](functional.conv2d(IMAGES, WEIGHT))
        assert not is_half(result)
        assert not torch.equal(result, result.to(dtype).float())
        # ... and becomes half again where it is an operand of a product.
        assert is_half(result @ result.mT if result.dim() > 2 else result @ result.T)


def test_a_convolution_is_the_rounded_exact_one_of_rounded_operands(dtype: torch.dtype) -> None:
    with EmulatedHalf(dtype):
        result = functional.conv2d(IMAGES, WEIGHT)
    exact = functional.conv2d(IMAGES.to(dtype).double(), WEIGHT.to(dtype).double())
    # FP32 sums may fall on the other side of a tie, so a few values are one neighbour away.
    differ = result.double() != exact.to(dtype).double()
    assert differ.double().mean() < 0.01
    assert (result.double() - exact.to(dtype).double()).abs().max() <= unit(dtype, result)


def test_fp16_overflows_and_underflows() -> None:
    large, small = torch.full((1, 1), 300.0, requires_grad=True), torch.full((1, 1), 1e-8, requires_grad=True)
    with EmulatedHalf(torch.float16):
        assert (large @ large).item() == math.inf  # 90,000 > 65,504
        assert (small @ torch.ones(1, 1)).item() == 0  # below half of 2^-24
        (torch.ones(1, 1) @ large).backward(torch.full((1, 1), 1e-8))
    assert large.grad is not None
    assert large.grad.item() == 0
    with EmulatedHalf(torch.bfloat16):
        assert (large @ large).item() == 90112  # 8 bits of 90,000
        assert (small @ torch.ones(1, 1)).item() == pytest.approx(1e-8, rel=2**-8)


def test_ties_go_to_even() -> None:
    with EmulatedHalf(torch.bfloat16):
        assert (torch.tensor([[1 + 2**-8, 1 + 3 * 2**-8]]) @ torch.eye(2)).tolist() == [[1.0, 1 + 2**-6]]


def test_in_place_operators_round_what_they_leave(dtype: torch.dtype) -> None:
    with EmulatedHalf(dtype):
        x = functional.conv2d(IMAGES, WEIGHT)
        other = x
        x += x.flip(1)
        assert x is other
        assert is_half(other)
        assert torch.equal(other, other.to(dtype).float())
        x[:, 1] = draw(4, 6, 6)
        assert torch.equal(x, x.to(dtype).float())


def test_in_place_operators_round_the_gradient_of_what_they_leave(dtype: torch.dtype) -> None:
    shift, factors = torch.zeros(1, 8, 1, 1, requires_grad=True), draw(4, 8, 6, 6)
    with EmulatedHalf(dtype):
        x = functional.conv2d(IMAGES, WEIGHT).add_(shift)
    (x * factors).sum().backward()
    assert shift.grad is not None
    torch.testing.assert_close(shift.grad, factors.to(dtype).float().sum((0, 2, 3), keepdim=True))


def test_asking_for_half_gives_it(dtype: torch.dtype) -> None:
    with EmulatedHalf(dtype):
        half = IMAGES.to(dtype)
        assert is_half(half)
        assert half.dtype == torch.float32
        full = functional.conv2d(IMAGES, WEIGHT).float()
        assert not is_half(full)
        assert is_half(functional.conv2d(IMAGES, WEIGHT).flatten().view(-1))


def test_attention_written_in_python_is_refused(dtype: torch.dtype) -> None:
    attention, tokens = nn.MultiheadAttention(4, 2, batch_first=True), draw(1, 3, 4)
    with EmulatedHalf(dtype), pytest.raises(ValueError, match="does not know multi_head_attention_forward"):
        attention(tokens, tokens, tokens)
    with EmulatedHalf(dtype):
        assert is_half(functional.scaled_dot_product_attention(tokens, tokens, tokens))


class Formats(TorchDispatchMode):
    """Which formats the products of a pass have."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "convolution" in str(func) or "mm" in str(func):
            self.seen |= {value.dtype for value in args if isinstance(value, Tensor)}
        return func(*args, **(kwargs or {}))


NETWORKS = {
    "resnet50": {"depth": (1, 1), "width": 1 / 8},
    "inception_v3": {"depth": (1, 1, 1), "width": 1 / 8, "stem": "small"},
    "mobilenet_v1": {"depth": (1, 1, 1, 1), "base_width": 1 / 8},
    "googlenet": {"width": 1 / 8},
    "cifar_resnet": {"depth": (1, 1, 1), "width": 0.5},
    "preact_resnet18": {"depth": (1,), "width": 1 / 8, "dropout": 0.5},
}


def logits(output: Any) -> Iterator[Tensor]:
    yield from (output,) if isinstance(output, Tensor) else (output.logits, *output.auxiliary)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_product_of_a_network_meets_a_half_kernel_and_every_head_is_half(
    name: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    network = build_model(name, NETWORKS[name], classes=4).to(memory_format=torch.channels_last)
    with Formats() as formats:
        with EmulatedHalf(dtype):
            heads = list(logits(network(draw(4, 3, 64, 64))))
        torch.stack([head.float().square().sum() for head in heads]).sum().backward()
    assert formats.seen == {torch.float32}
    assert all(map(is_half, heads))


def test_a_network_trains_as_under_autocast(dtype: torch.dtype) -> None:
    """Five steps: the losses agree to the format's rounding, and not with FP32's to FP32's."""
    losses = {}
    for way in ("emulated", "autocast", "fp32"):
        torch.manual_seed(0)
        network = build_model("resnet50", NETWORKS["resnet50"], classes=4)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
        losses[way] = []
        for step in range(5):
            with {
                "emulated": EmulatedHalf(dtype),
                "autocast": torch.autocast("cpu", dtype),
                "fp32": torch.autocast("cpu", enabled=False),
            }[way]:
                output = network(draw(8, 3, 32, 32, seed=step))
            loss = functional.cross_entropy(output.float(), torch.arange(8) % 4)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[way].append(loss.item())
    rounding = 20 * torch.finfo(dtype).eps
    assert losses["emulated"] == pytest.approx(losses["autocast"], rel=rounding)
    assert losses["emulated"] != pytest.approx(losses["fp32"], rel=1e-6)
