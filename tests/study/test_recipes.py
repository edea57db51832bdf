"""Named recipes against the papers' numbers in docs/reference/papers.yaml, most of them done by hand."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from harness.models import build_model
from harness.spec import AugmentSpec, DataSpec, ModelSpec, Recipe
from harness.study.catalogue import BY_STUDY, RECIPES, whole
from harness.study.schema import Changes, check_optimizer

ROOT = Path(__file__).parents[2]
IMAGENET_IMAGES = 1_281_167
EVERY = pytest.mark.parametrize("name", RECIPES)


def recipe(name: str, **changes: Any) -> Recipe:
    fields = {**RECIPES[name], **changes}
    return Recipe(model=ModelSpec(name="m"), data=DataSpec(name="imagenet", resolution=224), **fields)


@cache
def papers() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "reference" / "papers.yaml").read_text())[
        "papers"
    ]
    return found


def printed(paper: str, name: str) -> dict[str, Any]:
    """A recipe of docs/reference/papers.yaml."""
    found: dict[str, Any] = papers()[paper]["recipes"][name]
    return found


def staircase(name: str, epoch: float) -> float:
    """The rate after `epoch` epochs of a recipe without warm-up whose schedule is a staircase."""
    of = recipe(name)
    if of.schedule == "step":
        return of.lr * of.decay ** sum(epoch >= milestone for milestone in of.milestones)
    assert of.schedule == "exponential"
    return of.lr * of.decay ** (epoch // of.decay_every)


@EVERY
def test_every_field_but_the_studys_own_is_there_in_its_type(name: str) -> None:
    types = typing.get_type_hints(Recipe)
    assert set(RECIPES[name]) == types.keys() - set(BY_STUDY)
    for field, value in RECIPES[name].items():
        expected = typing.get_origin(types[field]) or types[field]
        if expected is Mapping:
            expected = dict
        assert type(value) is expected, field


@EVERY
def test_a_study_file_could_say_every_value(name: str) -> None:
    """So that a study may write the recipe out, with the ranges that are checked there."""
    fields = {key: value for key, value in RECIPES[name].items() if key != "augment"}
    Changes.read({**fields, **dataclasses.asdict(RECIPES[name]["augment"])})
    check_optimizer(fields["optimizer"], fields["optimizer_args"])


@EVERY
def test_drops_lie_within_training_and_only_where_the_schedule_has_them(name: str) -> None:
    of = recipe(name)
    assert bool(of.milestones) == (of.schedule == "step")
    assert all(0 < milestone < of.epochs for milestone in of.milestones)
    assert of.warmup_epochs < min((of.epochs, *of.milestones))


@EVERY
def test_sgd_says_whether_its_momentum_is_nesterovs(name: str) -> None:
    """The optimizer's own default is that of two papers only."""
    if RECIPES[name]["optimizer"] == "sgd":
        assert set(RECIPES[name]["optimizer_args"]) == {"momentum", "nesterov"}


def test_whole_takes_the_recipes_defaults_and_refuses_what_is_no_field() -> None:
    plain = Recipe(model=ModelSpec(name="m"), data=DataSpec(name="d", resolution=1))
    assert whole(lr=7.0) == {
        name: 7.0 if name == "lr" else value
        for name, value in ((f.name, getattr(plain, f.name)) for f in dataclasses.fields(plain))
        if name not in ("model", "data")
    }
    assert whole()["optimizer_args"] is not whole()["optimizer_args"]
    with pytest.raises(TypeError, match="not a field of a named recipe: lrate, model"):
        whole(lrate=0.1, model=ModelSpec(name="m"))


def test_bag_of_tricks() -> None:
    ours, theirs = recipe("bag_of_tricks_baseline"), printed("bag_of_tricks_1812.01187", "baseline")
    assert (ours.lr, ours.batch_size, ours.epochs) == (theirs["lr"], theirs["batch"], theirs["epochs"])
    assert ours.optimizer_args == {"momentum": theirs["momentum"], "nesterov": True}
    assert ours.weight_decay == theirs["weight_decay"]
    rates = [staircase("bag_of_tricks_baseline", epoch) for epoch in (0, 29.9, 30, 60, 90, 119)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 1e-3, 1e-4, 1e-4])
    assert (1 - ours.augment.jitter, 1 + ours.augment.jitter) == (0.6, 1.4)


def test_goyal() -> None:
    """8 workers of 32 images; lr 0.1 kn / 256; divided at 30, 60, 80 of 90 epochs; median of the last 5."""
    ours, theirs = recipe("goyal"), printed("goyal_1706.02677", "goyal")
    assert ours.batch_size == 8 * theirs["per_worker_bn_batch"] == 8 * ours.norm_images
    assert ours.epochs == theirs["epochs"]
    assert ours.weight_decay == theirs["weight_decay"]
    rates = [staircase("goyal", epoch) for epoch in (29, 30, 60, 80, 89)]
    assert rates == pytest.approx([0.1, 0.01, 1e-3, 1e-4, 1e-4])
    assert ours.read_out == "median_of_last_5"
    assert ours.optimizer_args == {"momentum": 0.9, "nesterov": True}


def test_mixup() -> None:
    """0.1 -> 0.4 in 5 epochs at 1,024 images, which is the linear rule: 0.1 * 1024 / 256."""
    ours = recipe("mixup")
    assert (ours.warmup_lr, ours.lr, ours.warmup_epochs, ours.warmup_shape) == (0.1, 0.4, 5.0, "linear")
    assert ours.batch_size == printed("mixup_1710.09412", "imagenet")["batch"] == 1024
    assert ours.lr == pytest.approx(0.1 * ours.batch_size / 256)
    assert (ours.epochs, ours.milestones) == (90.0, (30.0, 60.0, 80.0))


def test_resnet() -> None:
    """60e4 steps of 256 images are 119.9 epochs; 224 of 256 to 480 pixels is 77 % to 22 % of a square."""
    ours, theirs = recipe("resnet"), printed("resnet_1512.03385", "he")
    assert ours.epochs == pytest.approx(60e4 * theirs["batch"] / IMAGENET_IMAGES, abs=0.2)
    assert ours.augment.crop_area == pytest.approx((0.2178, 0.7656), abs=1e-4)
    assert (ours.lr, ours.weight_decay, ours.batch_size) == (0.1, theirs["weight_decay"], 256)


def test_rethinking() -> None:
    """50 replicas of 32 images; 0.045 * 0.94 every 2 epochs for 100: 49 drops; momentum, before RMSProp."""
    ours, theirs = recipe("rethinking_inception"), printed("rethinking_inception_1512.00567", "inception_v3")
    assert ours.batch_size == theirs["replicas"] * theirs["batch_per_replica"] == 1600
    assert ours.norm_images == theirs["batch_per_replica"]
    assert (ours.lr, ours.epochs, ours.clip_norm) == (theirs["lr"], theirs["epochs"], theirs["grad_clip"])
    assert ours.clip_value == 0.0
    assert staircase("rethinking_inception", 1.99) == 0.045
    assert staircase("rethinking_inception", 2) == pytest.approx(0.0423)
    assert staircase("rethinking_inception", 99.9) == pytest.approx(0.045 * 0.94**49)
    assert (ours.optimizer, ours.optimizer_args["momentum"]) == ("sgd", 0.9)
    code = theirs["code_only"]
    assert (ours.weight_decay, ours.auxiliary_weight) == (code["weight_decay"], code["aux_weight"])


def test_inception_v4() -> None:
    ours, theirs = recipe("inception_v4"), printed("inception_v4_1602.07261", "inception_v4")
    assert ours.batch_size == theirs["replicas"] * 32 == 20 * ours.norm_images == 640
    assert ours.epochs == 160.0  # where Figs. 23 and 24 end
    assert ours.optimizer == "rmsprop_tf"
    assert ours.optimizer_args == {"alpha": theirs["rho"], "eps": theirs["eps"], "momentum": 0.9}
    assert (ours.lr, ours.decay, ours.decay_every) == (theirs["lr"], 0.94, 2.0)


def test_batch_norm() -> None:
    """31.0 million steps of 32 images to 72.2 %; shuffled by the shard."""
    ours, theirs = recipe("batch_norm_inception"), printed("batch_norm_1502.03167", "inception")
    assert ours.epochs == pytest.approx(31.0e6 * theirs["batch"] / IMAGENET_IMAGES, abs=0.01)
    assert (ours.lr, ours.batch_size) == (theirs["lr"], theirs["batch"])
    assert [round(ours.lr * times, 4) for times in (5, 30)] == [0.0075, 0.045]
    assert ours.shuffle == "shards"


def test_googlenet() -> None:
    """The rate falls by 4 % every 8 epochs."""
    ours, theirs = recipe("googlenet"), printed("googlenet_1409.4842", "googlenet")
    assert staircase("googlenet", 8) / staircase("googlenet", 7.9) == pytest.approx(1 - 0.04)
    assert staircase("googlenet", 16) / staircase("googlenet", 8) == pytest.approx(1 - 0.04)
    assert ours.auxiliary_weight == theirs["aux_weight"]
    assert ours.augment.crop_area == (0.08, 1.0)
    assert ours.augment.crop_ratio == (3 / 4, 4 / 3)


def test_the_small_network_on_mnist() -> None:
    """50,000 steps of 60 images, from pixels as they are."""
    ours = recipe("bn_mlp")
    assert ours.epochs * 60_000 / ours.batch_size == 50_000
    assert ours.augment == AugmentSpec(
        crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, pca_noise=0.0
    )
    assert (ours.schedule, ours.eval_crop, ours.initialisation) == ("constant", 1.0, "gaussian")


def test_mobilenet_is_inception_v3s_optimizer_with_weaker_distortion() -> None:
    ours, other = recipe("mobilenet"), recipe("inception_v4")
    assert (ours.optimizer, ours.optimizer_args) == (other.optimizer, other.optimizer_args)
    assert ours.augment.jitter < other.augment.jitter
    assert ours.augment.crop_area[0] > other.augment.crop_area[0]
    assert ours.weight_decay <= other.weight_decay


@pytest.mark.parametrize(
    ("name", "model", "args"),
    [("googlenet", "googlenet", {}), ("batch_norm_inception", "bn_inception", {"norm": "none", "lrn": True})],
)
def test_networks_without_batch_norm_start_near_chance(name: str, model: str, args: dict[str, Any]) -> None:
    """At full width. He's fan-out rule gives logits of 30, normals of standard deviation 0.1 ten thousand."""
    torch.manual_seed(0)
    net = build_model(model, args, classes=1000, initialisation=recipe(name).initialisation).eval()
    with torch.no_grad():
        logits = net(torch.randn(1, 3, 64, 64))
    assert 0.1 < logits.std().item() < 10
