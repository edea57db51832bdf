"""Subsets of the user's own data, and batch norm over a single image: said in the plan, with the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from harness.cli import main
from harness.commands.data import subset_notes
from harness.spec import DataSpec, fewest_normalised
from tests.training.runs import tiny_recipe, tiny_spec, train

STUDY = """\
study: own
question: Which rows differ?
smallest_effect: 1
seeds: 1
baseline: {{model: resnet50, recipe: bag_of_tricks_baseline}}
sizes:
  mini: {{data: {{imagefolder: {{folder: pets}}}}, resolution: 16, epochs: 1, batch_scale: {batch_scale},
         models: {{resnet50: {{width: 0.125, depth: [1, 1, 1, 1]}}}}}}
  gpu: {{data: {{imagefolder: {{folder: pets}}}}, resolution: 32, epochs: 30}}
  paper: {{data: imagenet, resolution: 224, epochs: 120}}
tables:
  only: {{title: T, design: rows, rows: [{{label: plain}}]}}
"""


def write_images(data_dir: Path, train: dict[str, int], test: int = 2) -> None:
    for part, counts in (("train", train), ("val", dict.fromkeys(train, test))):
        for name, count in counts.items():
            (data_dir / "pets" / part / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (20, 20)).save(data_dir / "pets" / part / name / f"{number}.png")


def notes(data_dir: Path, train: int | None, test: int | None = None, **other: str) -> list[str]:
    args = {"folder": "pets", "side": None} if not other else {}
    name = other.get("name", "imagefolder")
    spec = DataSpec(name=name, resolution=16, train_images=train, test_images=test, args=args)
    return list(subset_notes(spec, data_dir))


def test_fewer_images_than_asked_for_are_all_used(tmp_path: Path) -> None:
    write_images(tmp_path, {"dark": 20, "light": 20})
    assert notes(tmp_path, 256, 256) == [
        "imagefolder pets: 256 training images were asked for, it has 40: all are used",
        "imagefolder pets: 256 test images were asked for, it has 4: all are used",
    ]
    assert notes(tmp_path, 40) == notes(tmp_path, 10, 2) == []


def test_a_rare_class_gives_what_it_has(tmp_path: Path) -> None:
    write_images(tmp_path, {"dark": 30, "light": 30, "rare": 3})
    assert notes(tmp_path, 36) == [
        "imagefolder pets: 36 training images were asked for, not every class has 12: 1 of its 3 classes "
        "give all they have (the least 3), the others up to 17 each"
    ]


def test_more_classes_than_images_give_one_of_each(tmp_path: Path) -> None:
    write_images(tmp_path, {f"class {number}": 2 for number in range(8)})
    assert notes(tmp_path, 5) == [
        "imagefolder pets: 5 training images were asked for, fewer than its 8 classes: one of each, 8, "
        "is used"
    ]
    assert notes(tmp_path, 256, name="imagenet") == [
        "imagenet: 256 training images were asked for, fewer than its 1,000 classes: one image of each "
        "is used"
    ]


def test_smoke_on_a_small_folder_says_so_in_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data", {"dark": 20, "light": 20})
    (tmp_path / "own.yaml").write_text(STUDY.format(batch_scale="1/32"))
    assert main(["plan", "own.yaml", "--smoke"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "imagefolder pets: 256 training images were asked for, it has 40: all are used" in said


@pytest.mark.parametrize(
    ("batch_size", "norm_images", "images", "fewest"),
    [(1, 0, None, 1), (8, 0, 1, 1), (8, 0, None, 8), (33, 32, None, 1), (64, 32, 33, 1), (64, 32, 64, 32),
     (8, 1, None, 1), (8, 8, None, 8), (8, 16, 9, 8)],
)  # fmt: skip
def test_the_fewest_images_of_a_batch_norm(
    batch_size: int, norm_images: int, images: int | None, fewest: int
) -> None:
    recipe = tiny_recipe(batch_size=batch_size, norm_images=norm_images)
    assert fewest_normalised(recipe, images) == fewest


def test_a_batch_of_one_image_in_batch_norm_is_said_in_the_plan_and_refused_by_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data", {"dark": 2, "light": 2})
    (tmp_path / "own.yaml").write_text(STUDY.format(batch_scale="1/256"))
    wrong = (
        "row 'only / plain' cannot be trained: with batch_size 1 a step is one of 1 image, and at 16 x 16 "
        "pixels a batch norm of resnet50 then has one value per channel"
    )
    assert main(["plan", "own.yaml"]) == 0
    assert wrong in " ".join(capsys.readouterr().out.split())
    assert main(["run", "own.yaml", "--on", "inline"]) == 2
    assert wrong in " ".join(capsys.readouterr().err.split())
    (tmp_path / "own.yaml").write_text(STUDY.format(batch_scale="1/128"))
    assert main(["plan", "own.yaml"]) == 0
    assert "cannot be trained" not in capsys.readouterr().out


@pytest.mark.parametrize(("batch_size", "norm_images"), [(1, 0), (8, 1)])
def test_a_run_of_it_fails_in_words(tmp_path: Path, batch_size: int, norm_images: int) -> None:
    with pytest.raises(ValueError, match=r"batch norm.* (single|one) value"):
        train(tiny_spec(batch_size=batch_size, norm_images=norm_images), tmp_path)
