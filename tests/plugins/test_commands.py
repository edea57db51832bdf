"""Plugins on the command line: loaded before planning, told in words when unusable, stored before runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import main
from harness.commands.workspace import build_catalogue
from harness.plugins.install import only
from harness.plugins.load import load
from tests.plugins.sources import DATA, METRIC, MODEL, TRAINER, TRICK, written
from tests.plugins.test_load import package

STUDY = """study: lab
question: Does it work?
plugins: [{plugins}]
metrics: [{metrics}]
seeds: 1
baseline: {{model: tiny_net, recipe: bag_of_tricks_baseline, set: {{jitter: 0}}}}
sizes:
  mini: {{data: noise, resolution: 8, train_images: 30, test_images: 12, epochs: 1, batch_scale: 1/32}}
  gpu: {{data: noise, resolution: 8, epochs: 2}}
  paper: {{data: imagenet, resolution: 224, epochs: 120}}
tables:
  only:
    title: The only table
    design: rows
    rows:
      - {{label: Plain}}
      - {{label: Halves, add: halves}}
      - {{label: Guess, set: {{trainer: guess}}}}
"""
EVERYTHING = TRICK + MODEL + DATA + TRAINER


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("HARNESS_RUNS", "HARNESS_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with only([]):
        yield tmp_path


def study(place: Path, plugins: str, metrics: str = "") -> None:
    (place / "lab.yaml").write_text(STUDY.format(plugins=plugins, metrics=metrics))


def plan(capsys) -> dict:
    assert main(["plan", "lab.yaml", "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys) -> str:
    assert main(["plan", "lab.yaml"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_arms_name_the_plugins_that_they_use_and_no_others(place: Path, capsys) -> None:
    first, second = written(place, EVERYTHING), written(place, METRIC, "other.py")
    study(place, "my_lab.py, other.py")
    made = plan(capsys)
    assert all(set(arm["plugins"]) == {"my_lab.py"} for arm in made["arms"].values())
    assert any("my_lab.py" in note and load(first).sha256[:8] in note for note in made["notes"])
    assert any("other.py" in note and load(second).sha256[:8] in note for note in made["notes"])
    study(place, "my_lab.py, other.py", metrics="confidence")
    assert all(set(arm["plugins"]) == {"my_lab.py", "other.py"} for arm in plan(capsys)["arms"].values())


def test_the_next_study_does_not_know_the_plugins_of_the_last(place: Path, capsys) -> None:
    written(place, EVERYTHING)
    study(place, "my_lab.py")
    plan(capsys)
    study(place, "")
    assert "unknown model 'tiny_net'" in refused(capsys)
    assert "tiny_net" not in build_catalogue(place).models


def test_every_way_to_name_a_plugin_wrongly_is_told_with_its_line(place: Path, capsys) -> None:
    written(place, EVERYTHING)
    for named, words in (
        ("my_lb.py", "lab.yaml:3: no such file; unknown plugin 'my_lb.py'; did you mean 'my_lab.py'?"),
        ("../my_lab.py", "lab.yaml:3: a plugin stands beside the study or below it"),
        ("my lab", "lab.yaml:3: a plugin is a Python file such as my_lab.py, or an installed package"),
        ("my_lab.py, my_lab.py", "lab.yaml:3: two plugins are called 'my_lab.py'"),
        ("no_such_package", ":3: unknown plugin 'no_such_package'. Valid: none of installed packages"),
    ):
        study(place, named)
        assert words in refused(capsys)


def test_a_plugin_that_cannot_be_used_is_told_with_its_own_line(place: Path, capsys) -> None:
    study(place, "my_lab.py")
    written(place, EVERYTHING + "\nboom\n")
    line = len(EVERYTHING.splitlines()) + 2
    assert f"my_lab.py:{line}: importing it failed: NameError: name 'boom' is not defined" in refused(capsys)
    written(place, EVERYTHING.replace('"halves"', '"mixup"'))
    assert "trick 'mixup' is one of the harness's own" in refused(capsys)


def test_a_name_that_the_plugin_does_not_have_is_a_mistake_of_the_study(place: Path, capsys) -> None:
    written(place, EVERYTHING.replace('"guess"', '"guesss"'))
    study(place, "my_lab.py", metrics="confidnce")
    said = refused(capsys)
    assert "unknown trainer 'guess'; did you mean 'guesss'?" in said
    assert "confidnce" in said


def test_an_installed_package_can_be_named_in_a_study(place: Path, capsys, monkeypatch) -> None:
    package(place, monkeypatch, EVERYTHING)
    study(place, "my_package")
    assert all(set(arm["plugins"]) == {"my_package"} for arm in plan(capsys)["arms"].values())


def test_planning_writes_nothing_and_listing_tells_mistakes_in_its_row(place: Path, capsys) -> None:
    written(place, EVERYTHING)
    study(place, "my_lab.py")
    plan(capsys)
    assert not (place / "runs").exists()
    written(place, "1 / 0")
    assert main(["studies", ".", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert "my_lab.py:1: importing it failed" in row["error"]


def test_the_classes_of_a_folder_of_images_are_counted_where_it_is_here(place: Path) -> None:
    """So that the cost of the last layer is not that of ImageNet's."""
    entry = build_catalogue(place).data["imagefolder"]
    args = {"folder": "pets", "side": None}
    assert entry.facts(args) == (None, None, None)
    for part in ("train", "val"):
        for name in ("ant", "bee", "cat"):
            (place / "pets" / part / name).mkdir(parents=True)
    assert build_catalogue(place).data["imagefolder"].facts(args) == (3, None, None)
    assert build_catalogue(place).data["imagefolder"].facts({"folder": "x", "side": None}) == (None,) * 3
