"""What the studies of Goyal et al., of mixup, of ResNet and of MobileNet train, at each of their sizes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from harness.commands.workspace import build_catalogue
from harness.models import build_model
from harness.spec import AugmentSpec, Recipe
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.plan import Plan
from harness.training.feed import count_steps_per_epoch
from harness.training.optim import lr_at, make_schedule, parameter_groups
from harness.tricks.build import make
from tests.study.fakes import cells

ROOT = Path(__file__).parents[2]
SIZES = ("mini", "gpu", "paper")


@cache
def _plan(study: str, size: str) -> Plan:
    catalogue = build_catalogue(ROOT / "no-data")
    loaded = load_study(ROOT / "studies" / f"{study}.yaml", catalogue)
    return expand(loaded, catalogue, ExpandOptions(size=size))


@pytest.mark.parametrize("size", SIZES)
def test_goyals_weight_decay_spares_gamma_and_beta_alone(size: str) -> None:
    """Sec. 5.1. The classifier's bias, the only one of these networks, is decayed."""
    arms = _plan("goyal_large_batch", size).arms.values()
    assert [trick for arm in arms for trick in arm.tricks] == [next(iter(arms)).tricks[0]] * len(arms)
    (spec,) = next(iter(arms)).tricks
    model = build_model("resnet50", {"depth": (1,), "width": 0.125}, classes=10)
    tricks = [make(spec.name, spec.options)]
    decayed, free = parameter_groups(model, tricks, weight_decay=1e-4)
    assert (decayed["weight_decay"], free["weight_decay"]) == (1e-4, 0.0)
    names = {name for name, _ in decayed["params"]}
    assert {"conv1.weight", "fc.weight", "fc.bias"} <= names
    assert not {name for name in names if "bn" in name or "downsample.1" in name}
    assert len(free["params"]) == 2 * 5  # the norms of the stem, of one block and of its shortcut


@pytest.mark.parametrize("size", SIZES)
def test_workers_of_32_images_exist_at_the_papers_size_only(size: str) -> None:
    """Goyal et al., Sec. 5.1, of themselves and of He et al.: 8 workers of 32 images."""
    goyal = {arm.recipe.norm_images for arm in _plan("goyal_large_batch", size).arms.values()}
    assert goyal == ({32} if size == "paper" else {0})
    plan = _plan("resnet_mobilenet", size)
    found = {
        plan.arms[cell.arm_id or ""].recipe.norm_images for cell in cells(plan, "resnet_one_crop").values()
    }
    assert found == ({32} if size == "paper" else {0})


def _recipes(study: str, table: str, size: str = "paper") -> dict[str, Recipe]:
    """Row -> what it trains."""
    plan = _plan(study, size)
    return {
        row: plan.arms[cell.arm_id].recipe for (row, _), cell in cells(plan, table).items() if cell.arm_id
    }


STANDARD = AugmentSpec(
    crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.5, jitter=0.0, pca_noise=0.0, crop_pad=4
)


def test_cifars_resnets_are_trained_as_section_4_2_says() -> None:
    """64,000 updates of 128 images, lr / 10 at 32,000 and 48,000; ResNet-110 starts with 400 at lr 0.01."""
    recipes = _recipes("resnet_cifar", "table6")
    assert list(recipes) == [f"ResNet-{layers}" for layers in (20, 32, 44, 56, 110)]
    for row, recipe in recipes.items():
        assert 2 * sum(recipe.model.args["depth"]) + 2 == int(row.removeprefix("ResNet-"))
        assert (recipe.model.args["width"], recipe.model.args["shortcut"]) == (1.0, "pad")
        assert (recipe.data.name, recipe.data.resolution, recipe.data.train_images) == ("cifar10", 32, None)
        assert (recipe.batch_size, recipe.norm_images, recipe.weight_decay) == (128, 64, 1e-4)
        assert recipe.optimizer_args == {"momentum": 0.9, "nesterov": False}
        assert (recipe.augment, recipe.eval_crop) == (STANDARD, 1.0)
        schedule = make_schedule(recipe, steps_per_epoch=count_steps_per_epoch(50_000, 128))
        assert (schedule.total_steps, schedule.milestone_steps) == (64_000, (32_000, 48_000))
        first = {0: 0.01, 399: 0.01} if row == "ResNet-110" else {0: 0.1, 399: 0.1}
        later = {400: 0.1, 31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001, 63_999: 0.001}
        assert {step: round(lr_at(step, schedule), 9) for step in (*first, *later)} == first | later
    plain = _recipes("resnet_cifar", "figure6")
    assert [(plain[row].model.args["shortcut"], sum(plain[row].model.args["depth"])) for row in plain] == [
        ("none", 9),
        ("none", 27),
        ("pad", 9),
        ("pad", 27),
    ]


def test_cifars_mixup_is_trained_as_sections_3_2_and_3_4_say() -> None:
    """200 epochs of 128 images, the rate divided at 100 and 150; alpha and dropout rate those of Table 2."""
    every = {
        (table, row): recipe
        for table in ("cifar10", "cifar100", "table2")
        for row, recipe in _recipes("mixup_cifar", table).items()
    }
    assert len(every) == 13
    for (table, _), recipe in every.items():
        assert (recipe.model.name, recipe.model.args["depth"]) == ("preact_resnet18", (2, 2, 2, 2))
        assert recipe.data.name == ("cifar100" if table == "cifar100" else "cifar10")
        assert (recipe.epochs, recipe.milestones, recipe.decay) == (200.0, (100.0, 150.0), 0.1)
        assert (recipe.batch_size, recipe.norm_images, recipe.lr, recipe.weight_decay) == (128, 0, 0.1, 1e-4)
        assert (recipe.warmup_epochs, recipe.initialisation) == (0.0, "own")
        assert (recipe.augment, recipe.eval_crop) == (STANDARD, 1.0)
    plan = _plan("mixup_cifar", "paper")
    table2 = {
        row: (
            plan.arms[cell.arm_id].recipe.data.args["corrupt"],
            plan.arms[cell.arm_id].recipe.model.args["dropout"],
            [trick.options["alpha"] for trick in plan.arms[cell.arm_id].tricks],
        )
        for (row, _), cell in cells(plan, "table2").items()
        if cell.arm_id
    }
    assert table2 == {
        "20 % ERM": (0.2, 0.0, []),
        "20 % ERM + dropout": (0.2, 0.7, []),
        "20 % mixup": (0.2, 0.0, [8.0]),
        "50 % ERM": (0.5, 0.0, []),
        "50 % ERM + dropout": (0.5, 0.8, []),
        "50 % mixup": (0.5, 0.0, [32.0]),
        "80 % ERM": (0.8, 0.0, []),
        "80 % ERM + dropout": (0.8, 0.8, []),
        "80 % mixup": (0.8, 0.0, [32.0]),
    }


@pytest.mark.parametrize("size", SIZES)
def test_every_size_corrupts_the_labels_of_the_same_rows(size: str) -> None:
    recipes = _recipes("mixup_cifar", "table2", size)
    for row, recipe in recipes.items():
        assert recipe.data.args["corrupt"] == int(row.partition(" ")[0]) / 100
    clean = _recipes("mixup_cifar", "cifar10", size)
    assert not any("corrupt" in recipe.data.args for recipe in clean.values())
