"""Orders of the training set: what is new every epoch and what stays together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.training import feed
from harness.training.feed import ORDERS, epoch_order, file_order, shards_order, within_shards_order
from harness.training.setup import build
from tests.training.runs import machine_in, tiny_spec

IMAGES = 3 * 4 + 2  # three shards of four and a smaller one


@pytest.fixture(autouse=True)
def shards_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SHARD_IMAGES", 4)


def shards() -> list[list[int]]:
    return [shard.tolist() for shard in file_order(IMAGES).split(4)]


def test_imagenet_is_1024_shards_and_a_rest() -> None:
    """1,281,167 = 1,024 x 1,251 + 143."""
    assert divmod(1_281_167, 1251) == (1024, 143)


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_is_a_permutation_that_is_new_each_epoch_and_seed_and_repeats(name: str) -> None:
    orders = [ORDERS[name](IMAGES, seed, epoch).tolist() for seed in (0, 1) for epoch in range(3)]
    assert all(sorted(each) == list(range(IMAGES)) for each in orders)
    assert len(set(map(tuple, orders))) == 6
    assert ORDERS[name](IMAGES, 0, 1).tolist() == orders[1]


def test_shards_keep_the_order_of_their_file() -> None:
    for epoch in range(5):
        rest = shards_order(IMAGES, 0, epoch).tolist()
        for shard in sorted(shards(), key=lambda each: rest.index(each[0])):
            assert rest[: len(shard)] == shard
            rest = rest[len(shard) :]


def test_within_shards_mixes_each_shard_and_no_two() -> None:
    files = {frozenset(shard): shard for shard in shards()}
    mixed = 0
    for epoch in range(5):
        rest = within_shards_order(IMAGES, 0, epoch).tolist()
        while rest:
            shard = next(each for each in files if rest[0] in each)
            assert set(rest[: len(shard)]) == shard
            mixed += rest[: len(shard)] != files[shard]
            rest = rest[len(shard) :]
    assert mixed >= 10  # of 20


def test_the_file_order_is_shuffled_and_belongs_to_no_seed() -> None:
    assert file_order(IMAGES).tolist() != list(range(IMAGES))
    assert torch.equal(file_order(IMAGES), file_order(IMAGES))


def test_a_run_reads_in_the_order_of_its_recipe(tmp_path: Path) -> None:
    """44 images, batches of 8: the batch's labels are those of the order's images."""
    plain, sharded = (build(tiny_spec(shuffle=name), machine_in(tmp_path)) for name in ("images", "shards"))
    for setup, wanted in ((plain, epoch_order(44, 0, 1)), (sharded, shards_order(44, 0, 1))):
        batch = setup.feed.batch(setup.context.steps_per_epoch + 1)
        assert torch.equal(batch.targets.argmax(1), setup.data.train.labels[wanted[8:16]])
