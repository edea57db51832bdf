"""What the studies of Goyal et al., of mixup and of ResNet and MobileNet train, at each of their sizes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from harness.commands.workspace import build_catalogue
from harness.models import build_model
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.plan import Plan
from harness.training.optim import parameter_groups
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
