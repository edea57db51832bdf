"""Learning rates of the mini sizes: tuned on images held out of the training set, and nothing else is."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import harness

ROOT = Path(__file__).parents[2]
TUNING = ROOT / "studies" / "tuning"
NETWORKS = yaml.safe_load((TUNING / "networks.yaml").read_text())


@cache
def script() -> Any:
    spec = importlib.util.spec_from_file_location("tune_rates", ROOT / "scripts" / "tune_rates.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NETWORKS)
def test_a_tuning_study_sees_held_out_training_images_and_changes_the_rate_alone(name: str, tmp_path: Path):
    study = yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text())
    settings = NETWORKS[name]
    file = tmp_path / "rates.yaml"
    file.write_text(
        yaml.safe_dump(script().tuning_study(study, settings["networks"], settings["rates"], seeds=1))
    )
    arms = {arm_id: arm.recipe for arm_id, arm in harness.load(file).plan().arms.items()}
    assert len(arms) == len(settings["networks"]) * len(settings["rates"])
    assert {recipe.data.args["held_out"] for recipe in arms.values()} == {2000}
    assert {recipe.data.test_images for recipe in arms.values()} == {None}
    by_network: dict[str, list[dict[str, Any]]] = {}
    for recipe in arms.values():
        by_network.setdefault(recipe.model.name, []).append(vars_of(recipe))
    for recipes in by_network.values():
        assert sorted(recipe.pop("lr") for recipe in recipes) == sorted(settings["rates"])
        assert all(recipe == recipes[0] for recipe in recipes)


def vars_of(recipe: Any) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in recipe.__slots__}


def test_the_chosen_rate_has_the_highest_mean_the_smaller_one_of_equals_and_a_diverged_one_counts_nothing():
    top1 = {
        "A, lr 0.1": [80.0, 82.0],
        "A, lr 0.2": [81.0, 81.0],
        "A, lr 0.4": [],
        "B, lr 0.1": [70.0],
        "B, lr 0.2": [71.0],
        "B, lr 0.4": [70.5],
    }
    tried = script().chosen(["A", "B"], [0.1, 0.2, 0.4], top1)
    assert [(each.network, each.lr) for each in tried if each.chosen] == [("A", 0.1), ("B", 0.2)]
    assert [each.held_out_top1 for each in tried] == [81.0, 81.0, 0.0, 70.0, 71.0, 70.5]
