"""Whole reports of studies that could not tell: at chance, or half of the networks below the floor."""

import json
from argparse import Namespace
from pathlib import Path

import pandas as pd
import pytest

from harness.commands.report import report_input
from harness.commands.workspace import first_plan, workspace
from harness.reporting import render
from harness.study.conditions import setting_of
from tests.end_to_end.workplace import Workplace

STUDY = """\
study: tiny
question: Could it tell?
smallest_effect: 1.0
seeds: 3
baseline: {model: resnet50, recipe: bag_of_tricks_baseline}
sizes:
  mini:
    data: fashion_mnist
    resolution: 32
    train_images: 4000
    epochs: 8
    batch_scale: 1/8
    models: {resnet50: {width: 0.125, depth: [1, 1, 1]}}
  gpu: {data: cifar10, resolution: 64, epochs: 30, batch_scale: 1/2}
  paper: {data: imagenet, resolution: 224, epochs: 120}
claims:
  - {says: Cosine helps, source: T6, table: only, row: cosine, versus: base, measure: top1, expect: higher}
  - {says: Smoothing helps, source: T6, table: only, row: smooth, versus: base, measure: top1, expect: higher}
tables:
  only:
    title: The only table
    design: rows
    rows:
      - {label: base, paper: {top1: 77.16, status: verified}}
      - {label: cosine, add: cosine, paper: {top1: 77.91, status: verified}}
      - {label: faster, set: {lr: 0.4}}
      - {label: smooth, add: label_smoothing, paper: {top1: 78.31, status: verified}}
"""
CHANCE = {"base": 10.0, "cosine": 10.0, "faster": 10.0, "smooth": 10.0}
HALF = {"base": 86.0, "cosine": 86.8, "faster": 79.5, "smooth": 73.3}


def report_of(folder: Path, levels: dict[str, float], linear: float) -> Workplace:
    """The report of a study whose runs came to these accuracies, written as `harness report` writes it."""
    place = Workplace(folder)
    place.study.write_text(STUDY)
    how = Namespace(study=place.study, size="mini", seeds=None, smoke=False)
    work = workspace(Namespace(runs=folder / "runs", data=folder / "data", tracking_uri=None))
    plan = first_plan(how, work)
    rows = {cell.arm_id: cell.row for cell in plan.tables[0].cells}
    sd = 0.0 if levels is CHANCE else 0.1
    noise = {run.run_id: sd * ((7 * run.seed + 3 * k) % 5 - 2) for k, run in enumerate(plan.runs)}
    records = pd.DataFrame(
        {
            "run_id": run.run_id, "arm_id": run.arm_id, "seed": run.seed, "status": "finished", "attempts": 1,
            "top1": levels[rows[run.arm_id]] + noise[run.run_id], "steps": 1000,
            "data_fingerprint": "f", "train_time_s": 1.0,
        }
        for run in plan.runs
    )  # fmt: skip
    curves = pd.DataFrame(columns=["run_id", "arm_id", "seed", "step", "epoch", "val_top1", "train_loss"])
    curves = curves.astype({"seed": "int64", "step": "int64", "epoch": float, "val_top1": float})
    floor = {
        "schema": 1, "setting": setting_of(plan.arms[plan.runs[0].arm_id].recipe.data), "problem": None,
        "data": "fashion_mnist", "fingerprint": "f", "classes": 10, "train_images": 4000, "channels": 1,
        "test_images": 10_000, "pixels": 32, "chance": 10.0, "guessing": 10.49, "neighbours": linear - 2.7,
        "linear": linear,
    }  # fmt: skip
    extra = {"floors": {"schema": 1, "why": "", "floors": [floor]}}
    software = {"harness": "test", "drawn_with": None, "inputs": None}
    render(report_input(plan, records, curves, software, extra), place.report_dir)
    return place


@pytest.fixture(scope="module", params=[(CHANCE, 11.0), (CHANCE, 82.2), (HALF, 82.2)])
def told(request, tmp_path_factory):
    levels, linear = request.param
    place = report_of(tmp_path_factory.mktemp("told"), levels, linear)
    return levels, place, json.loads((place.report_dir / "report.json").read_text())


def test_no_word_and_no_answer_comes_from_networks_below_the_floor(told):
    levels, _, report = told
    words = {
        cell["row"]: cell["effect"]["verdict"]
        for cell in report["findings"]["tables"][0]["cells"]
        if cell["effect"]
    }
    answers = {claim["row"]: claim["answer"] for claim in report["claims"]}
    below = {row for row, level in levels.items() if level < 82.2} - {"base"}
    assert {row for row, word in words.items() if word == "cannot be tested here"} == below
    assert {
        row for row, answer in answers.items() if answer == "cannot be tested here"
    } == below & answers.keys()
    if levels is HALF:
        assert words["cosine"] != "cannot be tested here"


def test_the_reason_is_in_every_format(told):
    levels, place, report = told
    reason = " %, is below a linear classifier on the same images, 82.2 %"
    if levels is CHANCE:
        reason = "both networks, 10.0 % and 10.0 %, are below "
    assert reason in json.dumps(report)
    for name in ("details.md", "report.html", "tables/only.csv", "tables/paper_claims.csv"):
        assert reason in (place.report_dir / name).read_text(), name
    short = (place.report_dir / "report_short.md").read_text()
    assert "cannot be tested here" in short


def test_the_headline_counts_what_could_be_tested(told):
    levels, place, _ = told
    testable = 1 if levels is HALF else 0
    assert f"Claims: {testable} testable of 2" in (place.report_dir / "report.md").read_text()


def test_such_a_report_is_verified(told):
    _, place, _ = told
    checked = place.call("verify", "reports/tiny", "--study", "tiny.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_floor_that_was_lowered_afterwards_is_found(told, tmp_path):
    """The floor is part of the records that the report's digest is over."""
    from harness.reporting.frames import ARCHIVE, packed, unpacked

    _, place, report = told
    before = (place.report_dir / ARCHIVE).read_bytes()
    files = unpacked(place.report_dir)[1]
    linear = report["floors"]["floors"][0]["linear"]
    lowered = files["floors.json"].replace(f'"linear": {linear}'.encode(), b'"linear": 5.0')
    assert lowered != files["floors.json"]
    try:
        (place.report_dir / ARCHIVE).write_bytes(packed({**files, "floors.json": lowered}))
        checked = place.call("verify", "reports/tiny", "--study", "tiny.yaml")
        assert checked.returncode == 1
        assert "report.json: " in checked.stdout
    finally:
        (place.report_dir / ARCHIVE).write_bytes(before)
