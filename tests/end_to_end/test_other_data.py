"""Data that change between two commands: never pooled, never lost, always said (decision 21)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.cli import main
from harness.data import loading
from harness.reporting.frames import read_extra, read_raw
from harness.runs.provenance import OTHER_DATA
from tests.reporting.edits import loosen

STUDY = """\
study: own
question: Which rows differ?
plugins: [scripted.py]
smallest_effect: 20  # more than one of the few test images
seeds: 2
baseline: {model: resnet50, recipe: bag_of_tricks_baseline, set: {trainer: scripted}}
sizes:
  mini: {data: {imagefolder: {folder: pets}}, resolution: 32, epochs: 1, batch_scale: 1/8,
         models: {resnet50: {width: 0.125, depth: [1, 1, 1]}}}
  gpu: {data: {imagefolder: {folder: pets}}, resolution: 32, epochs: 30}
  paper: {data: imagenet, resolution: 224, epochs: 120}
tables:
  only:
    title: The only table
    design: rows
    rows:
      - {label: plain}
      - {label: other, set: {lr: 0.2}, versus: plain}
"""
PLUGIN = """\
def train(spec, run):
    return {"top1": 50.0 + len(run.data().test.labels) + spec.seed}


TRAINERS = {"scripted": train}
"""
Say = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study over a folder of 4 + 4 images, of which the accuracy is 50 + test images + seed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "load_cached", _anew(loading.load_cached))
    (tmp_path / "own.yaml").write_text(STUDY)
    (tmp_path / "scripted.py").write_text(PLUGIN)
    for part in ("train", "val"):
        for name in ("dark", "light"):
            (tmp_path / "data" / "pets" / part / name).mkdir(parents=True)
            for number in range(2):
                add_image(tmp_path, f"{part}/{name}/{number}.png")
    return tmp_path


def _anew(real: Callable[..., Any]) -> Callable[..., Any]:
    """Every run finds the files as they are, as in a process of its own."""

    def load_anew(*given: Any) -> Any:
        loading._loaded.clear()
        return real(*given)

    return load_anew


@pytest.fixture
def harness(place: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """What a command says; its exit code is 0 unless it is told."""

    def command(*arguments: str, code: int = 0) -> str:
        found = main(list(arguments))
        said = capsys.readouterr()
        assert found == code, said
        return said.out + said.err

    return command


def add_image(place: Path, name: str, level: int = 90) -> Path:
    path = place / "data" / "pets" / name
    Image.new("RGB", (24, 24), (level,) * 3).save(path)
    return path


def grow(place: Path) -> None:
    """The validation part gets 2 images more: 6 in place of 4."""
    for name in ("dark", "light"):
        add_image(place, f"val/{name}/9.png")


def train(harness: Say, *more: str) -> str:
    """Train what is missing, without a report."""
    return harness("run", "own.yaml", "--on", "inline", "--no-report", *more)


def report(harness: Say, *more: str) -> str:
    return harness("report", "own.yaml", *more)


def top1(place: Path) -> set[float]:
    """Of all rows of the report, every value."""
    records, _ = read_raw(place / "reports/own")
    return set(records["top1"])


def test_runs_on_data_that_changed_are_never_in_one_mean_with_others(place: Path, harness: Say) -> None:
    train(harness, "--seeds", "1")
    grow(place)
    said = "imagefolder pets changed since 2 of these runs ended"
    assert said in harness("plan", "own.yaml")
    assert said in harness("status", "own.yaml")
    plan = json.loads(harness("plan", "own.yaml", "--json"))
    assert [text.partition(":")[0] for text in plan["data_notes"]] == [said]
    assert [run["done"] for run in plan["runs"]] == [False] * 4
    status = json.loads(harness("status", "own.yaml", "--seeds", "1", "--json"))
    assert status["counts"] == {"other_data": 2}
    assert [text.partition(":")[0] for text in status["data"]] == [said]
    again = train(harness)
    assert said in again
    assert "4 runs, 0 done" in again
    report(harness)
    assert top1(place) == {56.0, 57.0}  # 6 test images, seeds 0 and 1
    assert "changed" not in harness("status", "own.yaml")


def test_a_report_leaves_them_out_and_says_so_in_its_first_line(place: Path, harness: Say) -> None:
    train(harness)
    grow(place)
    report(harness)
    first = (place / "reports/own/report.md").read_text().splitlines()[0]
    assert "imagefolder pets changed since 4 of these runs ended" in first
    assert "`harness run own.yaml` trains the rest" in first
    assert top1(place) == set()
    kept = read_extra(place / "reports/own")["left_out"]
    assert sorted((run["arm"], run["seed"]) for run in kept["runs"]) == [
        ("only / other", 0), ("only / other", 1), ("only / plain", 0), ("only / plain", 1)
    ]  # fmt: skip
    harness("verify", "reports/own", "--study", "own.yaml")
    harness("run", "own.yaml", "--on", "inline")
    assert "left_out" not in read_extra(place / "reports/own")
    assert "Left out" not in (place / "reports/own/report.md").read_text()


def test_a_report_where_the_data_are_not_uses_the_ones_that_were_seen_last(place: Path, harness: Say) -> None:
    train(harness, "--seeds", "1")
    plain = runs(place)[0].name
    shutil.copytree(place / "runs" / plain, place / "old")
    grow(place)
    train(harness, "--seeds", "1")
    shutil.rmtree(place / "runs" / plain)
    shutil.move(place / "old", place / "runs" / plain)  # one of two runs on the data of before
    shutil.move(place / "data", place / "elsewhere")
    report(harness, "--seeds", "1")
    first = (place / "reports/own/report.md").read_text().splitlines()[0]
    assert "1 of these runs saw another imagefolder pets than the one that ended last" in first
    assert top1(place) == {56.0}


def test_what_a_run_left_behind_on_other_data_is_kept_and_comes_back_with_them(
    place: Path, harness: Say
) -> None:
    train(harness, "--seeds", "1")
    before = {path.name: (path / "summary.json").read_bytes() for path in runs(place)}
    grow(place)
    train(harness, "--seeds", "1")
    assert all(len(list((path / OTHER_DATA).iterdir())) == 1 for path in runs(place))
    for name in ("dark", "light"):
        (place / "data/pets/val" / name / "9.png").unlink()
    said = train(harness, "--seeds", "1")
    assert "2 back" in said
    assert "nothing to train" in said
    assert {path.name: (path / "summary.json").read_bytes() for path in runs(place)} == before


def test_a_run_that_another_process_holds_is_left_as_it_is(place: Path, harness: Say) -> None:
    from harness.runs.claims import Claims

    train(harness, "--seeds", "1")
    grow(place)
    held, other = runs(place)
    summary = (held / "summary.json").read_bytes()
    with Claims(place / "runs") as claims:
        claims.take(held.name)
        assert "1 held by another process" in train(harness, "--seeds", "1")
    assert (held / "summary.json").read_bytes() == summary
    assert not (held / OTHER_DATA).exists()
    assert (other / OTHER_DATA).exists()


def test_verify_refuses_a_report_whose_runs_saw_different_data(place: Path, harness: Say) -> None:
    train(harness, "--seeds", "1")
    report(harness, "--seeds", "1")
    loosen(place / "reports/own")
    path = place / "reports/own/data/runs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["data_fingerprint"] = "0" * 64
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = harness("verify", "reports/own", "--study", "own.yaml", code=1)
    assert "its runs saw 2 different versions of imagefolder pets" in said


def test_records_of_an_older_version_with_the_names_and_sizes_of_now_are_used(
    place: Path, harness: Say
) -> None:
    from harness.commands.data import by_names_and_sizes
    from harness.data import DATASETS

    train(harness)
    entry = DATASETS["imagefolder"]
    source = entry.load({**entry.args, "folder": "pets"}, place / "data")
    for path in runs(place):
        summary = json.loads((path / "summary.json").read_bytes())
        summary["data_fingerprint"] = by_names_and_sizes(source.train, source.test)
        del summary["train_fingerprint"], summary["test_fingerprint"]
        (path / "summary.json").write_text(json.dumps(summary))
    assert "nothing to train" in train(harness)
    grow(place)
    assert "changed since 4 of these runs ended" in harness("plan", "own.yaml")


def test_a_cut_off_image_is_found_before_the_first_run(place: Path, harness: Say) -> None:
    path = add_image(place, "val/dark/1.png")
    path.write_bytes(path.read_bytes()[:-30])
    text = add_image(place, "train/light/0.png")
    text.write_bytes(b"version https://git-lfs")
    said = harness("run", "own.yaml", "--on", "inline", code=2)
    assert f"own.yaml:8: cannot decode the image file {path}" in said
    assert f"cannot read the image file {text}" in said
    assert not any((place / "runs").glob("*/summary.json"))
    for each in (path, text):
        Image.new("RGB", (24, 24)).save(each)
    train(harness)


def test_what_is_not_decoded_before_is_decoded_beside_the_runs(
    place: Path, harness: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.commands.data.DECODE_S", -1)
    path = add_image(place, "val/dark/1.png")
    path.write_bytes(path.read_bytes()[:-30])
    said = train(harness)
    assert f"{path}" in said
    assert "a run that reads it will fail, and goes on from there once it is mended" in said


def runs(place: Path) -> list[Path]:
    return sorted(path for path in (place / "runs").iterdir() if not path.name.startswith("."))


def test_a_replaced_file_with_the_old_time_is_other_data(place: Path, harness: Say) -> None:
    train(harness)
    path = place / "data/pets/train/dark/0.png"
    before = path.stat()
    add_image(place, "train/dark/0.png", level=91)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert "changed since 4 of these runs ended" in harness("plan", "own.yaml")
