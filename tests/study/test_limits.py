"""What no author means is refused in words, at once: no traceback, no endless work, nothing unprintable."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import MOST_PROBLEMS, Problem, StudyError
from harness.study import expand as ordering
from harness.study.catalogue import Catalogue, Cost
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.names import study_plugins
from harness.tricks.build import make
from tests.study.fakes import CATALOGUE, HEAD, mistakes, plan_of, write
from tests.study.limit_cases import CASES
from tests.study.mistake_cases import FINE, ROW, rows, table
from tests.timing import unit_s


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_words(case: str, tmp_path: Path) -> None:
    text, expected = CASES[case]
    began_s = time.process_time()
    assert mistakes(tmp_path, text) == expected
    assert time.process_time() - began_s < 40_000 * unit_s(tmp_path)


def test_more_runs_than_a_plan_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "MOST_RUNS", 100)
    rates = ", ".join(f"0.{k}" for k in range(1, 10))
    grid = table(f"    factors: {{lr: [{rates}]}}\n", design="grid")
    text = HEAD.replace("start: 2, at_most: 2", "start: 5") + grid
    assert len(plan_of(tmp_path, text).runs) == 45
    too_many = "small.yaml:3: 9 arms x 20 seeds and what they need are more than 100 runs"
    with pytest.raises(StudyError, match=too_many):
        plan_of(tmp_path, text, seeds=20)


def test_members_of_ensembles_count_among_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "MOST_RUNS", 100)
    text = HEAD + rows("{label: a, add: {ensemble: {members: 60}}}")
    assert len(plan_of(tmp_path, text, seeds=1).runs) == 61
    with pytest.raises(StudyError, match="more than 100 runs"):
        plan_of(tmp_path, text, seeds=3)


def test_a_file_of_nothing_but_mistakes_ends_after_some(tmp_path: Path) -> None:
    text = HEAD + "".join(f"key{number}: 1\n" for number in range(20_000)) + FINE
    began_s = time.process_time()
    messages = mistakes(tmp_path, text)
    assert time.process_time() - began_s < 40_000 * unit_s(tmp_path)
    assert len(messages) == MOST_PROBLEMS + 1
    assert messages[-1].endswith(f"more than {MOST_PROBLEMS} mistakes; what follows was not read")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    os.mkfifo(path)
    for read in (lambda: load_study(path, CATALOGUE), lambda: study_plugins(path)):
        with pytest.raises(StudyError, match="cannot be read: not a plain file"):
            read()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("m" * 250 + ".py", r"small\.yaml:3: the name of a plugin has at most 200 bytes"),
        ("no_such_package", r"small\.yaml:3: unknown plugin 'no_such_package'"),
    ],
)
def test_a_plugin_that_cannot_be_is_told_with_its_line(name: str, says: str, tmp_path: Path) -> None:
    text = HEAD.replace("seeds:", f"plugins: [{name}]\nseeds:") + FINE
    with pytest.raises(StudyError, match=says):
        study_plugins(write(tmp_path, text))


def broken(**changes: object) -> Catalogue:
    """The catalogue with a plugin's trick and model that fail as user code does."""

    def fail(*_values: object) -> None:
        raise TypeError("no such thing\nas this")

    edited = replace(CATALOGUE.tricks["cosine"], edit_recipe=fail)  # type: ignore[arg-type]
    checked = replace(CATALOGUE.tricks["mixup"], validate=fail)
    return CATALOGUE._replace(
        tricks={**CATALOGUE.tricks, "cosine": edited, "mixup": checked},
        **changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{label: a, add: cosine}", "trick 'cosine' failed: TypeError: no such thing"),
        ("{label: a, add: mixup}", "checking the options of trick 'mixup' failed: TypeError: no such thing"),
    ],
)
def test_an_error_in_a_plugin_s_trick_is_a_problem_of_its_row(row: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(write(tmp_path, HEAD + rows(row)), broken())
    (problem,) = caught.value.problems
    assert (problem.line, problem.message.partition(" (t, row")[0]) == (ROW, says)


def test_a_network_that_cannot_be_built_is_a_problem_of_its_row(tmp_path: Path) -> None:
    def cost(*_asked: object) -> Cost:
        raise RuntimeError("Storage size calculation overflowed")

    catalogue = broken(cost=cost)
    study = load_study(write(tmp_path, HEAD + FINE), catalogue)
    with pytest.raises(StudyError, match="building model 'resnet50' failed: RuntimeError: Storage size"):
        expand(study, catalogue, ExpandOptions())


def test_an_option_of_the_wrong_type_beside_numbers_is_told() -> None:
    with pytest.raises(ValueError, match="multi_crop: crops must be one of 10, 12, 144, got '10'"):
        make("multi_crop", {"crops": "10"})


def test_milestones_without_end_are_refused() -> None:
    from harness.spec import DataSpec, ModelSpec, Recipe

    recipe = Recipe(model=ModelSpec(name="resnet50"), data=DataSpec(name="imagenet", resolution=224))
    assert make("step_decay", {"every": 30}).edit_recipe(recipe).milestones == (30.0, 60.0, 90.0)
    with pytest.raises(ValueError, match="step_decay: 120000000 milestones, more than 1000"):
        make("step_decay", {"every": 1e-6}).edit_recipe(recipe)


def test_a_message_is_one_printable_line_of_a_length_that_is_read() -> None:
    said = str(Problem("x.yaml", 1, "a\x1b[2J\nb" + "c" * 10_000))
    assert said.startswith("x.yaml:1: a\\x1b[2J\\nbccc")
    assert len(said) < 2_100
