"""A mistake ends with exit code 2, says where and what, and starts nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import harness
from harness.commands import machine
from harness.errors import READERS
from tests.end_to_end.workplace import Workplace

MISTAKES = {  # what is typed -> what is in the file in place of what, the arguments, what is said
    "an unknown trick": (
        ("add: label_smoothing, paper", "add: label_smothing, paper"),
        ("run", "tiny.yaml"),
        ("tiny.yaml:27: ", "unknown trick 'label_smothing'", "did you mean 'label_smoothing'?"),
    ),
    "an unknown key": (
        ("title: The only table", "titel: The only table"),
        ("run", "tiny.yaml"),
        ("tiny.yaml:23: ", "'titel'", "did you mean 'title'?"),
    ),
    "an unknown size": (
        ("", ""),
        ("run", "tiny.yaml", "--size", "tiny"),
        ("tiny.yaml:7: ", "unknown size 'tiny'", "Valid: gpu, mini, paper"),
    ),
    "a size with a typing mistake": (
        ("", ""),
        ("run", "tiny.yaml", "--size", "papr"),
        ("tiny.yaml:7: ", "unknown size 'papr'", "did you mean 'paper'?"),
    ),
    "a file that is not there": (
        ("", ""),
        ("run", "tinny.yaml"),
        ("tinny.yaml: ", "no such file", "did you mean 'tiny'?"),
    ),
    "a broken file": (
        ("seeds: 2", "seeds: {start: 2"),
        ("run", "tiny.yaml"),
        ("tiny.yaml:",),
    ),
    "data that are not there": (
        ("", ""),
        ("run", "tiny.yaml", "--size", "paper"),
        ("tiny.yaml:18: ", "imagenet needs", "data/imagenet/train"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_exit_code_2_names_the_place_and_starts_nothing(fresh: Workplace, mistake):
    (right, wrong), arguments, said = MISTAKES[mistake]
    text = fresh.study.read_text()
    assert right in text
    fresh.study.write_text(text.replace(right, wrong, 1))
    before = fresh.files()
    done = fresh.call(*arguments)
    assert done.returncode == 2
    for words in said:
        assert words in done.stderr
    assert "nothing was started" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert fresh.files() == before
    assert not fresh.runs_dir.exists()


def test_every_mistake_of_a_file_is_listed_in_the_order_of_its_lines(fresh: Workplace):
    text = fresh.study.read_text()
    fresh.study.write_text(
        text.replace("model: resnet50,", "model: resnet5,").replace("epochs: 6", "epochs: -6")
    )
    done = fresh.harness("plan")
    assert done.returncode == 2
    first, second, last = done.stderr.splitlines()
    assert "tiny.yaml:6: " in first
    assert "unknown model 'resnet5'; did you mean 'resnet50'?" in first
    assert "tiny.yaml:13: " in second
    assert last == "2 problems; nothing was started."


def test_an_unknown_command_gives_exit_code_2(fresh: Workplace):
    done = fresh.call("rnu", "tiny.yaml")
    assert done.returncode == 2
    assert "unknown command 'rnu'; did you mean 'run'?" in done.stderr


VARIABLES = {  # a variable of the environment -> wrong values, what is said of them
    "HARNESS_SHARED_MEMORY": (
        ("50%", "2", "nan"),
        "must be a share of the memory from 0 to 1 (0: none), not",
    ),
    "HARNESS_MEASURE": (("no", "2"), "must be 0 (off) or 1 (on, as where it is not set), not"),
    "HARNESS_GRAPHS": (("false", "-1"), "must be 0 (off) or 1 (on, as where it is not set), not"),
}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_wrong_variable_is_said_when_the_command_starts(
    fresh: Workplace, name: str, monkeypatch: pytest.MonkeyPatch
):
    """And not by the first worker that reads it."""
    values, says = VARIABLES[name]
    before = fresh.files()
    for value in values:
        monkeypatch.setenv(name, value)
        for command in ("plan", "run"):
            done = fresh.call(command, "tiny.yaml")
            assert done.returncode == 2
            assert done.stderr.splitlines() == [
                f"environment: {name} {says} '{value}'",
                "1 problem; nothing was started.",
            ]
    assert fresh.files() == before


def test_an_empty_variable_counts_as_not_set(fresh: Workplace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.end_to_end.workplace.NOT_INHERITED", ())
    for name in (*VARIABLES, "HARNESS_RUNS", "HARNESS_DATA", "HARNESS_CACHE"):
        monkeypatch.setenv(name, "")
    done = fresh.call("plan", "tiny.yaml", "--verbose")
    assert done.returncode == 0, done.stderr
    assert f"runs in {fresh.runs_dir}; data in {fresh.path / 'data'};" in done.stderr


def test_every_variable_that_the_harness_names_is_known_to_doctor_and_explained():
    root = Path(harness.__file__).parents[1]
    sources = (path.read_text() for path in (root / "harness").rglob("*.py"))
    named = {name for text in sources for name in re.findall(r"\bHARNESS_[A-Z_]+\b", text)}
    assert named == set(machine.VARIABLES)
    explained = (root / "docs" / "running.md").read_text()
    assert [name for name in sorted(named) if f"`{name}`" not in explained] == []
    assert set(READERS) == set(VARIABLES)
