"""Learning rates of the mini sizes: tuned on images held out of the training set, and nothing else is."""

from __future__ import annotations

import csv
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
    recipes_of = planned(file)
    assert len(recipes_of) == len(settings["networks"]) * len(settings["rates"])
    assert {recipe.data.args["held_out"] for recipe in recipes_of.values()} == {2000}
    assert {recipe.data.test_images for recipe in recipes_of.values()} == {None}
    by_network: dict[str, list[dict[str, Any]]] = {}
    for label, recipe in recipes_of.items():
        by_network.setdefault(label.rpartition(", lr ")[0], []).append(vars_of(recipe))
    assert list(by_network) == list(settings["networks"])
    for recipes in by_network.values():
        assert sorted(recipe.pop("lr") for recipe in recipes) == sorted(settings["rates"])
        assert all(recipe == recipes[0] for recipe in recipes)


def planned(file: Path) -> dict[str, Any]:
    """Row -> the recipe that it trains with at mini."""
    plan = harness.load(file).plan()
    return {cell.row: plan.arms[cell.arm_id or ""].recipe for cell in plan.tables[0].cells}


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


@pytest.mark.parametrize("name", sorted(path.stem for path in TUNING.glob("*.csv")))
def test_every_network_is_trained_at_mini_with_the_rate_that_was_chosen(name: str, tmp_path: Path):
    with (TUNING / f"{name}.csv").open(newline="") as file:
        best = {
            line["network"]: float(line["lr"]) for line in csv.DictReader(file) if line["chosen"] == "True"
        }
    study = yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text())
    rows = [
        {"label": network} | ({"start_from": arm} if arm else {})
        for network, arm in NETWORKS[name]["networks"].items()
    ]
    kept = {key: value for key, value in study.items() if key not in ("claims", "priority")}
    file = tmp_path / "networks.yaml"
    file.write_text(yaml.safe_dump(kept | {"tables": {"t": {"title": "T", "design": "rows", "rows": rows}}}))
    assert {network: recipe.lr for network, recipe in planned(file).items()} == best


@pytest.mark.campaign
def test_a_tuning_trains_every_network_at_every_rate_and_writes_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "networks.yaml").write_text(
        "tiny: {rates: [0.1, 1.0e-9], networks: {ResNet: null}}\n"
    )
    (tmp_path / "tiny.yaml").write_text(
        """
study: tiny
question: Does it learn?
metric: top1
smallest_effect: 1
baseline: {model: cifar_resnet20, recipe: resnet}
sizes:
  mini:
    {data: fashion_mnist, resolution: 28, epochs: 2, train_images: 600, batch_scale: 1/16,
     models: {cifar_resnet20: {width: 0.5, depth: [1, 1, 1]}},
     set: {crop_area: [1, 1], pca_noise: 0, eval_crop: 1}}
  gpu: {data: fashion_mnist, resolution: 28, epochs: 2}
  paper: {data: fashion_mnist, resolution: 28, epochs: 2}
tables: {t: {title: T, design: rows, rows: [{label: it}]}}
"""
    )
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(script(), "TUNING", tmp_path / "tuning")
    script().main("tiny", 1)
    with (tmp_path / "tuning" / "tiny.csv").open(newline="") as file:
        learnt, guessed = csv.DictReader(file)
    assert (learnt["lr"], learnt["seeds"], learnt["chosen"]) == ("0.1", "1", "True")
    assert (guessed["lr"], guessed["chosen"]) == ("1e-09", "False")
    assert float(learnt["held_out_top1"]) > 20 > float(guessed["held_out_top1"])
