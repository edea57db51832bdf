"""Which reports may hold their numbers against the paper's."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands.report import settings_of
from harness.commands.workspace import build_catalogue
from harness.study.expand import ExpandOptions, expand, load_study

STUDY = Path(__file__).resolve().parents[1] / "studies" / "bag_of_tricks.yaml"


@pytest.mark.parametrize(
    ("size", "smoke", "comparable"),
    [("mini", False, False), ("gpu", False, False), ("paper", False, True), ("paper", True, False)],
)
def test_only_an_uncut_run_at_paper_size_is_comparable(
    tmp_path: Path, size: str, smoke: bool, comparable: bool
):
    catalogue = build_catalogue(tmp_path)
    plan = expand(load_study(STUDY, catalogue), catalogue, ExpandOptions(size=size, smoke=smoke))
    assert settings_of(plan).comparable_to_paper is comparable


@pytest.mark.parametrize(("size", "delta"), [("mini", 1), ("gpu", 0.5), ("paper", 0.2)])
def test_a_size_declares_its_own_smallest_effect(tmp_path: Path, size: str, delta: float):
    catalogue = build_catalogue(tmp_path)
    plan = expand(load_study(STUDY, catalogue), catalogue, ExpandOptions(size=size))
    assert settings_of(plan).smallest_effect_pp == delta
