"""Streams of random numbers do not know of each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.training.feed import epoch_order, seed_default, stream, stream_seed
from harness.training.setup import Setup, build
from harness.tricks.base import Batch
from tests.training.runs import assert_same_bits, machine_in, tiny_spec


def test_a_stream_is_a_function_of_its_name_seed_and_counters() -> None:
    names = [(seed, name, step) for seed in range(20) for name in ("init", "order") for step in range(20)]
    seeds = {stream_seed(seed, name, step) for seed, name, step in names}
    assert len(seeds) == len(names)
    assert torch.equal(torch.rand(9, generator=stream(3, "a", 1)), torch.rand(9, generator=stream(3, "a", 1)))


def test_neighbouring_streams_are_not_correlated() -> None:
    draws = torch.stack([torch.rand(4000, generator=stream(0, "order", epoch)) for epoch in range(8)])
    off_diagonal = torch.corrcoef(draws) - torch.eye(8)
    assert off_diagonal.abs().max() < 5 / 4000**0.5


def test_an_epoch_order_is_a_new_permutation_each_epoch() -> None:
    orders = [epoch_order(50, seed=0, epoch=epoch) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_default_generators_follow_the_stream() -> None:
    seed_default(0, "layers", 5)
    first = torch.rand(4)
    torch.rand(100)
    seed_default(0, "layers", 5)
    assert torch.equal(torch.rand(4), first)


@pytest.fixture
def plain(tmp_path: Path) -> Setup:
    return build(tiny_spec(), machine_in(tmp_path))


@pytest.mark.parametrize("tricks", [("mixup",), ("ema",), ("label_smoothing", "mixup", "no_bias_decay")])
def test_a_trick_shifts_neither_the_initial_weights_nor_order_nor_augmentation(
    tricks: tuple[str, ...], plain: Setup, tmp_path: Path
) -> None:
    other = build(tiny_spec(*tricks), machine_in(tmp_path))
    assert_same_bits(dict(plain.model.state_dict()), dict(other.model.state_dict()))
    other.feed.tricks = ()
    for step in (0, 1, 7):
        assert_same_bits(tuple(plain.feed.batch(step)), tuple(other.feed.batch(step)))


def test_one_trick_does_not_shift_the_draws_of_another(tmp_path: Path) -> None:
    """The same mixing weight with and without a trick before it: read it from the targets."""

    def mixed(*tricks: str) -> Batch:
        return build(tiny_spec(*tricks), machine_in(tmp_path)).feed.batch(2)

    assert torch.equal(mixed("mixup").images, mixed("label_smoothing", "mixup").images)


def test_a_batch_is_the_same_whatever_was_read_before(plain: Setup, tmp_path: Path) -> None:
    again = build(tiny_spec(), machine_in(tmp_path))
    for step in range(7):
        last = again.feed.batch(step)
    assert_same_bits(tuple(plain.feed.batch(6)), tuple(last))


def test_another_seed_gives_other_weights_and_batches(plain: Setup, tmp_path: Path) -> None:
    other = build(tiny_spec(seed=1), machine_in(tmp_path))
    assert not torch.equal(plain.feed.batch(0).images, other.feed.batch(0).images)
    assert not torch.equal(next(plain.model.parameters()), next(other.model.parameters()))
