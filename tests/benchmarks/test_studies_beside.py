"""The study that benchmarks/bench_engine.py times is the shell loop beside it, row by row."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_engine
import figures
import plain_run

import harness

OPTIONS = argparse.Namespace(images=100, epochs=2)


def test_every_row_is_a_run_and_a_line_of_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench_engine.study_command(tmp_path, OPTIONS)
    plan = harness.load(tmp_path / "twelve.yaml").plan()
    specs = [plan.spec(run) for run in plan.runs]
    assert len({spec.run_id for spec in specs}) == 36
    bench_engine.loop_command(tmp_path, OPTIONS)
    lines = (tmp_path / "commands.txt").read_text().splitlines()
    assert len(set(lines)) == 36
    found = {}
    for line in lines:
        monkeypatch.setattr(sys, "argv", line.split()[1:])
        options = plain_run.parsed()
        found[options.seed, options.lr, options.batch_size, options.weight_decay, options.flip] = options
    for spec in specs:
        recipe = spec.arm.recipe
        key = (spec.seed, recipe.lr, recipe.batch_size, recipe.weight_decay, recipe.augment.flip)
        assert found[key].epochs == recipe.epochs
        assert recipe.data.train_images == recipe.data.test_images == 100
    with np.load(tmp_path / "images.npz") as arrays:
        assert arrays["train_images"].shape == arrays["test_images"].shape == (100, 28, 28)


def test_a_ratio_below_what_must_be_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    table = figures.Figures()
    for values in ([1.0, 2.9, 4.0], [1.0, 3.0, 9.0], [5.0]):
        table.ratio("ours", values, must=3, goal=5)
    said = capsys.readouterr().out.splitlines()[-3:]
    assert [line.rpartition("goal 5 ")[2] for line in said] == ["(missed) |", "(met) |", "(goal met) |"]
    assert [row.within for row in table.rows] == [False, True, True]
