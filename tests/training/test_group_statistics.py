"""Batch norm over groups: each group as if it were alone, running statistics by hand, the same state."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness.training.parallel import group_statistics
from tests.training.runs import assert_same_bits, folder_of, results, tiny_spec, train


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def norm(group: int | None) -> nn.BatchNorm2d:
    module = nn.Sequential(nn.BatchNorm2d(3, momentum=0.1))
    nn.init.uniform_(module[0].weight, 0.5, 2.0, generator=torch.Generator().manual_seed(1))
    if group is not None:
        group_statistics(module, group)
    return module[0]


def test_each_group_is_normalised_alone_the_incomplete_one_too() -> None:
    x = images(8).requires_grad_()
    alone = copy.deepcopy(x.detach()).requires_grad_()
    got, parts = norm(3)(x), [norm(None)(part) for part in alone.split(3)]
    assert [len(part) for part in parts] == [3, 3, 2]
    assert torch.allclose(got, torch.cat(parts), atol=1e-6)
    got.pow(3).sum().backward()
    torch.cat(parts).pow(3).sum().backward()
    assert torch.allclose(x.grad, alone.grad, atol=1e-4)
    assert not torch.allclose(got, norm(None)(x), atol=1e-2)


def test_running_statistics_take_in_the_mean_over_groups_weighted_by_their_images() -> None:
    x, module = images(8), norm(3)
    module(x)
    groups = [part.transpose(0, 1).flatten(1) for part in x.split(3)]
    weights = (3 / 8, 3 / 8, 2 / 8)
    mean = sum(w * part.mean(1) for w, part in zip(weights, groups, strict=True))
    variance = sum(w * part.var(1) for w, part in zip(weights, groups, strict=True))
    assert torch.allclose(module.running_mean, 0.1 * mean, atol=1e-6)
    assert torch.allclose(module.running_var, 0.9 + 0.1 * variance, atol=1e-6)
    assert module.num_batches_tracked == 1


def test_one_group_and_evaluation_are_batch_norm_bit_for_bit() -> None:
    x, plain, grouped = images(8), norm(None), norm(8)
    assert torch.equal(plain(x), grouped(x))
    assert_same_bits(dict(plain.state_dict()), dict(grouped.state_dict()))
    several = norm(3)
    several.load_state_dict(plain.state_dict())
    assert torch.equal(plain.eval()(x), several.eval()(x))


def test_the_network_keeps_its_names_and_everything_else() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(3 * 4 * 5))
    before, names = dict(model.state_dict()), [name for name, _ in model.named_parameters()]
    model[1].zero_gamma = True
    group_statistics(model, 2)
    assert_same_bits(before, dict(model.state_dict()))
    assert [name for name, _ in model.named_parameters()] == names
    assert isinstance(model[1], nn.BatchNorm2d)
    assert model[1].zero_gamma
    parts = copy.deepcopy(model)
    flat = model[0](images(4)).flatten(1)
    assert torch.allclose(model[3](flat)[:2], parts[3](flat[:2]), atol=1e-6)


def test_a_group_with_one_value_per_channel_says_so() -> None:
    with pytest.raises(ValueError, match="batch norm over groups of 2 images: a group has a single value"):
        norm(2)(torch.randn(5, 3, 1, 1))


def test_a_norm_of_unknown_computation_is_refused() -> None:
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match=r"norm_images needs torch's own batch norm, 0 is a Own"):
        group_statistics(nn.Sequential(Own(3)), 2)


def test_a_run_with_groups_as_large_as_the_batch_is_the_run_without(tmp_path: Path) -> None:
    plain, whole, parts = (tiny_spec(epochs=1, norm_images=size) for size in (0, 8, 4))
    for spec in (plain, whole, parts):
        assert train(spec, tmp_path) == "finished"
    first, second, third = (results(folder_of(spec, tmp_path)) for spec in (plain, whole, parts))
    assert_same_bits(first, second)
    assert first["train_loss"] != third["train_loss"]
