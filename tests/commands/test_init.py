"""`harness init` writes studies that plan as they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.cli import main

FLAGS = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--random-seed", type=int)
parser.add_argument("-o", "--output-dir")
parser.add_argument("--data-path")
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--amp", action="store_true")
parser.add_argument("--sched", choices=["step", "cosine"], default="step")
parser.add_argument("--workers", type=float, default=4.0)
parser.add_argument("--opt", default="sgd")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HARNESS_RUNS", "HARNESS_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["init", *arguments]) == 2
    return capsys.readouterr().err


def test_without_anything_it_is_about_the_embedded_images(capsys: pytest.CaptureFixture[str]):
    assert main(["init", "My first!"]) == 0
    assert "next: harness plan my_first.yaml" in capsys.readouterr().out
    plan = planned(capsys, "my_first")
    assert (plan["study"], plan["size"], len(plan["runs"])) == ("my_first", "all", 12)


def test_a_folder_of_images_is_described_and_planned(folder: Path, capsys: pytest.CaptureFixture[str]):
    for part, count in (("train", 4), ("val", 2)):
        for label in ("cat", "dog"):
            (folder / "away" / "photos" / part / label).mkdir(parents=True)
            for number in range(count):
                path = folder / "away/photos" / part / label / f"{number}.png"
                Image.new("RGB", (100, 130), (number, 9 * (part == "val"), 9 * (label == "cat"))).save(path)
    assert main(["init", "--data", "away/photos"]) == 0
    assert f"next: harness plan photos.yaml --data {folder / 'away'}" in capsys.readouterr().out
    assert "# 2 classes, 8 + 4 images" in Path("photos.yaml").read_text()
    plan = planned(capsys, "photos.yaml", "--data", "away")
    [data] = {json.dumps(arm["recipe"]["data"]) for arm in plan["arms"].values()}
    assert json.loads(data)["resolution"] == 96
    assert plan["missing_data"] == []


@pytest.mark.parametrize("where", ["photos", "data/photos"])
def test_images_beside_the_study_or_in_its_data_folder_need_no_option(
    folder: Path, where: str, capsys: pytest.CaptureFixture[str]
):
    for label in ("cat", "dog"):
        (folder / where / label).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (40, 40), (number, 0, 9)).save(folder / where / label / f"{number}.png")
    assert main(["init", "--data", where]) == 0
    assert capsys.readouterr().out.endswith("next: harness plan photos.yaml\n")
    plan = planned(capsys, "photos.yaml")
    assert plan["missing_data"] == plan["cannot_be_tested"] == []
    assert plan["totals"]["macs"] > 0, "the files are counted"
    coarse = "one of the 4 test images is 25 points of top1, more than the smallest effect of interest, 1; "
    assert any(note.startswith(coarse) for note in plan["data_notes"])
    study = Path("photos.yaml").read_text()
    Path("photos.yaml").write_text(study.replace("smallest_effect: 1.0", "smallest_effect: 25"))
    assert not any(note.startswith("one of") for note in planned(capsys, "photos.yaml")["data_notes"])
    (folder / "data" / "photos").mkdir(parents=True, exist_ok=True)
    missing = planned(capsys, "photos.yaml")["missing_data"]
    assert bool(missing) == (where == "photos"), "what lies in the data folder comes first"


def test_a_script_is_read_and_its_flags_become_rows(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "a train.py").write_text(FLAGS + "raise SystemExit('it was run')\n")
    assert main(["init", "flags", "--script", "a train.py"]) == 0
    text = Path("flags.yaml").read_text()
    said = "--data-path {data} --random-seed {seed} --output-dir {folder} {flags}"
    assert f"run: python 'a train.py' {said}" in text
    assert "# further flags: --workers --opt" in text
    plan = planned(capsys, "flags.yaml", "--data", str(folder))
    labels = [cell["row"] for cell in plan["tables"][0]["cells"]]
    assert labels == ["baseline", "+ lr 0.05", "+ amp", "+ sched cosine"]


def test_what_a_script_does_not_say_is_marked(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "train.py").write_text("print('no flags')\n")
    assert main(["init", "--script", "train.py"]) == 0
    text = Path("train.yaml").read_text()
    assert "# CHANGE: no --seed and no --output was found in the script" in text
    assert "# CHANGE: no flag was found" in text
    assert len(planned(capsys, "train.yaml")["runs"]) == 6


def test_what_is_there_stays_and_what_is_not_is_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    Path("mine.yaml").write_text("mine")
    assert "mine.yaml: is there already; give another name" in refused(capsys, "mine")
    assert Path("mine.yaml").read_text() == "mine"
    assert "photos: no such folder" in refused(capsys, "--data", "photos")
    (folder / "photos").mkdir()
    assert "photos: " in refused(capsys, "--data", "photos")
    assert "train.py: cannot be read: No such file" in refused(capsys, "--script", "train.py")
    Path("train.py").write_text("def")
    assert "train.py: is not Python: " in refused(capsys, "--script", "train.py")
    assert "r.csv: no such file" in refused(capsys, "--results", "r.csv")
    Path("r.csv").touch()
    assert main(["init", "--results", "r.csv"]) == 0
    assert "harness table r.csv" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["mine.yaml", "photos", "r.csv", "train.py"]
