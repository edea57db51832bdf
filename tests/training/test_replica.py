"""What a process does of a whole batch: its images, batch norm over all of them, its own random numbers."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.spec import RunSpec
from harness.training import loop
from harness.training.parallel import World, group_statistics, share_statistics
from harness.training.setup import build
from tests.training.runs import assert_same_bits, machine_in, tiny_spec
from tests.training.several import Several, machine_of_rank, state_of_rank
from tests.training.test_other_data import own_spec, write_images


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Any:
    group = Several(tmp_path_factory.mktemp("stores"))
    yield group
    group.close()


# The batch


def batch_of_rank(spec: RunSpec, runs_dir: Path) -> tuple[tuple[Tensor, Tensor], int]:
    """The batch of step 6, and of how many images a process made pixels for it."""
    machine = machine_of_rank(runs_dir)
    with World.join(machine) as world:
        setup = build(spec, machine, world)
        images, made = setup.data.train.images, 0
        read = type(images).read

        def counted(self: Any, indices: Tensor, *rest: Any) -> Tensor:
            nonlocal made
            made += len(indices)
            return read(self, indices, *rest)

        type(images).read = counted  # type: ignore[method-assign]
        try:
            return tuple(setup.feed.batch(6)), made
        finally:
            type(images).read = read  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("tricks", "files", "made"),
    [((), False, 4), (("label_smoothing",), False, 4), (("mixup", "label_smoothing"), False, 8),
     ((), True, 4), (("mixup",), True, 4)],
)  # fmt: skip
def test_the_processes_batches_are_the_batch_of_one(
    tricks: tuple[str, ...], files: bool, made: int, several: Any, tmp_path: Path
) -> None:
    """A trick that mixes images sees all of them; without any, no image is made twice, and none decoded twice
    with one."""
    spec = own_spec(*tricks) if files else tiny_spec(*tricks)
    if files:
        write_images(tmp_path / "data" / "own")
    whole = build(spec, machine_in(tmp_path)).feed.batch(6)
    parts = several(2, batch_of_rank, spec, tmp_path)
    assert [count for _, count in parts] == [made, made]
    for index, tensor in enumerate(whole):
        own = [batch[index] for batch, _ in parts]
        assert [len(each) for each in own] == [4, 4]
        assert torch.equal(torch.cat(own), tensor)
        assert own[0].is_contiguous(memory_format=torch.channels_last) or tensor.ndim == 2


# Batch norm


def images(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))) * 3 + 5
    return (x + torch.arange(len(x)).view(-1, *[1] * (x.ndim - 1))).to(dtype)  # parts differ in their mean


def norm(shape: tuple[int, ...], **changes: Any) -> nn.Sequential:
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    module = nn.Sequential(kind(shape[1], **{"momentum": 0.3, **changes}))
    if module[0].affine:
        nn.init.uniform_(module[0].weight, 0.5, 2.0, generator=torch.Generator().manual_seed(1))
        nn.init.uniform_(module[0].bias, -1.0, 2.0, generator=torch.Generator().manual_seed(2))
    return module


def normalise(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of x; running statistics take in two steps."""
    x = x.detach().requires_grad_()
    module(x.detach())
    y = module(x)
    y.float().pow(3).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


def normalise_rank(shape: tuple[int, ...], dtype: torch.dtype, changes: dict[str, Any]) -> dict[str, Any]:
    with World.join(machine_of_rank(Path())) as world:
        module = norm(shape, **changes)
        share_statistics(module, world)
        y, dx = normalise(module, world.share(images(shape, dtype)))
        gradients = {name: weight.grad for name, weight in module.named_parameters()}
        kept = dict(module.state_dict())
        module.eval()
        evaluated = module(images(shape, dtype))
    return {"y": y, "dx": dx, "gradients": gradients, "state": kept, "evaluated": evaluated.detach()}


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize(
    ("shape", "dtype", "changes", "least"),
    [
        ((6, 4, 3, 5), torch.float32, {}, 1e-5),
        ((6, 4, 3, 5), torch.bfloat16, {}, 2e-2),
        ((6, 4, 1, 1), torch.float32, {"momentum": None}, 1e-5),
        ((6, 4), torch.float32, {"affine": False}, 1e-5),
        ((6, 4, 2, 2), torch.float32, {"track_running_stats": False}, 1e-5),
    ],
)
def test_batch_norm_is_that_of_the_whole_batch(
    processes: int, shape: Any, dtype: Any, changes: Any, least: float, several: Any
) -> None:
    alone = norm(shape, **changes)
    y, dx = normalise(alone, images(shape, dtype))
    found = several(processes, normalise_rank, shape, dtype, changes)
    near = {"rtol": least, "atol": least}
    whole_y, whole_dx = (torch.cat([each[key] for each in found]) for key in ("y", "dx"))
    assert whole_y.dtype == whole_dx.dtype == dtype
    assert torch.allclose(whole_y.float(), y.float(), **near)
    assert torch.allclose(whole_dx.float(), dx.float(), rtol=least, atol=10 * least * float(dx.abs().max()))
    for name, weight in alone.named_parameters():
        total = sum(each["gradients"][name] for each in found)
        assert torch.allclose(total, weight.grad, rtol=least, atol=10 * least), name
    for each in found:
        assert_same_bits(each["state"], found[0]["state"])
        for name, value in alone.state_dict().items():
            assert torch.allclose(each["state"][name].float(), value.float(), **near), name
        alone.eval()
        assert torch.allclose(each["evaluated"].float(), alone(images(shape, dtype)).float(), **near)


def test_names_parameters_and_copies_stay() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(12))
    grouped = copy.deepcopy(plain)
    group_statistics(grouped, 64)
    for model in (plain, grouped):
        before = dict(model.state_dict())
        share_statistics(model, World(rank=1, size=2))
        assert_same_bits(before, dict(copy.deepcopy(model).state_dict()))
        assert type(copy.deepcopy(model)[1]) is type(model[1])
        assert model[1].world == World(rank=1, size=2)
        assert isinstance(model[3], nn.BatchNorm1d)


def test_a_batch_norm_of_unknown_computation_is_refused() -> None:
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match=r"several processes need torch's own batch norm, 0 is a Own"):
        share_statistics(nn.Sequential(Own(3)), World(rank=0, size=2))


# Random numbers


def streams_of_rank(runs_dir: Path) -> list[tuple[Any, ...]]:
    seeded, before = [], loop.seed_default

    def seed_default(*key: Any) -> None:
        seeded.append(key)
        before(*key)

    loop.seed_default = seed_default  # type: ignore[assignment]
    try:
        state_of_rank(tiny_spec(), runs_dir, 2)
    finally:
        loop.seed_default = before
    return seeded


def test_each_process_drops_out_by_its_own_numbers_the_first_by_those_of_one(
    several: Any, tmp_path: Path
) -> None:
    one = [(0, "layers", 0), (0, "layers", 1)]
    assert several(1, streams_of_rank, tmp_path) == [one]
    assert several(2, streams_of_rank, tmp_path) == [one, [(0, "layers/1", 0), (0, "layers/1", 1)]]


# Leaving


def kept_after_leaving(runs_dir: Path) -> list[bool]:
    machine = machine_of_rank(runs_dir)
    with World.join(machine) as world:
        parallel: Any = build(tiny_spec(), machine, world).forward
        before = hasattr(parallel, "reducer")
    return [before, hasattr(parallel, "reducer"), torch.distributed.is_initialized()]


def test_nothing_holds_the_group_when_a_process_has_left(several: Any, tmp_path: Path) -> None:
    """What held it, a traceback perhaps, would stop the whole process for ever when it is collected."""
    assert several(2, kept_after_leaving, tmp_path) == [[True, False, False]] * 2


# GPUs


def devices() -> tuple[str, ...]:
    """Two GPUs, over NCCL; or one that both processes share, which NCCL refuses, over gloo."""
    return ("cuda:0", "cuda:1") if torch.cuda.device_count() > 1 else ("cuda:0", "cuda:0")


def gpu_state(spec: Any, runs_dir: Path) -> dict[str, Any]:
    device = devices()[int(os.environ["RANK"])]
    several = int(os.environ["WORLD_SIZE"]) > 1
    state = state_of_rank(spec, runs_dir, 6, device=device, devices=devices() if several else (device,))
    return {
        "model": {name: value.cpu() for name, value in state["model"].items()},
        "sum": state["loss_sum"].cpu(),
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "changes", [{}, {"norm_images": 4}, {"precision": "bf16"}, {"precision": "fp16", "clip_norm": 1.0}]
)
def test_two_processes_with_gpus_agree_with_one_and_repeat_their_bits(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    spec = tiny_spec(lr=0.01, **changes)
    least = 0.05 if "precision" in changes else 1e-4
    fresh = Several(tmp_path, start="spawn")
    try:
        (one,) = fresh(1, gpu_state, spec, tmp_path)
        first, second = fresh(2, gpu_state, spec, tmp_path)
        again, _ = fresh(2, gpu_state, spec, tmp_path)
    finally:
        fresh.close()
    assert_same_bits(first, second)
    assert_same_bits(first, again)
    for name, value in one["model"].items():
        assert torch.allclose(first["model"][name].float(), value.float(), rtol=least, atol=least), name
