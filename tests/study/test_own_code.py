"""Plugins of a study: which files it names, and whose arms carry whose hashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.study.names import study_plugins
from tests.study.fakes import CATALOGUE, HEAD, HEAD_LINES, arm_of, mistakes, plan_of, write

PLUGINS = "plugins: [lab.py, code/more.py]\n"
LAB, MORE = ({name: CATALOGUE.plugin_hashes[name]} for name in ("lab.py", "more.py"))
ARMS = "arms: {lab_teacher: {model: lab_net}}\n"
ROWS = """
tables:
  t:
    title: T
    design: rows
    rows:
      - {label: plain}
      - {label: trick, add: lab_loss}
      - {label: numbers, add: lab_recipe}
      - {label: same numbers, set: {lr: 3}}
      - {label: model, set: {model: lab_net}}
      - {label: data, set: {data: lab_data}}
      - {label: trainer, set: {trainer: lab_trainer}}
      - {label: metric, set: {metrics: [lab_score]}}
      - {label: both, set: {model: lab_net, trainer: lab_trainer}}
      - {label: taught, add: {distillation: {teacher: lab_teacher}}}
      - {label: mixed, add: {mixed_ensemble: {partner: lab_teacher}}}
      - {label: crops, set: {model: lab_net}, add: multi_crop}
"""


def test_an_arm_carries_the_hash_of_every_plugin_whose_code_takes_part(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD.replace("cifar10", "fashion_mnist") + PLUGINS + ARMS + ROWS, size="paper")
    found = {cell.row: dict(plan.arms[cell.arm_id or ""].plugins) for cell in plan.tables[0].cells}
    assert found == {
        "plain": {},
        "trick": LAB,
        "numbers": {},
        "same numbers": {},
        "model": LAB,
        "data": MORE,
        "trainer": MORE,
        "metric": LAB,
        "both": LAB | MORE,
        "taught": LAB,
        "mixed": LAB,
        "crops": LAB,
    }
    assert arm_of(plan, "numbers").arm_id == arm_of(plan, "same numbers").arm_id
    own, partner = arm_of(plan, "mixed").observes
    assert (dict(plan.arms[own.arm].plugins), dict(plan.arms[partner.arm].plugins)) == ({}, LAB)


def test_the_plan_says_whose_code_runs(tmp_path: Path) -> None:
    notes = plan_of(tmp_path, HEAD + PLUGINS + ARMS + ROWS).notes
    assert notes[:2] == (
        "code of lab.py (sha256 1234abcd) runs in this study",
        "code of more.py (sha256 5678ef01) runs in this study",
    )


def test_metrics_of_the_study_are_measured_in_every_run(tmp_path: Path) -> None:
    for keys in (
        "metrics: [lab_score]\n",
        "metric: lab_score\n",
        "metric: lab_score\nmetrics: [lab_score]\n",
    ):
        plan = plan_of(tmp_path, HEAD + PLUGINS + keys + ARMS + ROWS)
        assert {arm.recipe.metrics for arm in plan.arms.values()} == {("lab_score",)}
        assert {"lab.py"} <= set(arm_of(plan, "plain").plugins)
    assert plan.header["metric"] == "lab_score"


def test_names_of_metrics_and_trainers_must_exist(tmp_path: Path) -> None:
    text = HEAD + "metric: top_1\nmetrics: [lab_scor, top5]\n"
    text += "tables: {t: {title: T, design: rows, rows: [{label: a, set: {trainer: lab_train}}]}}\n"
    line = HEAD_LINES + 1
    assert mistakes(tmp_path, text) == [
        f"small.yaml:{line}: unknown metric 'top_1'; did you mean 'top1'? Valid: lab_score, top1, top5",
        f"small.yaml:{line + 1}: top5 is always measured; 'metrics' names others",
        f"small.yaml:{line + 1}: unknown metric 'lab_scor'; did you mean 'lab_score'? Valid: lab_score",
        f"small.yaml:{line + 2}: unknown trainer 'lab_train'; did you mean 'lab_trainer'?"
        " Valid: harness, lab_trainer",
    ]


def test_a_plugin_that_was_not_loaded_is_said(tmp_path: Path) -> None:
    text = HEAD + "plugins: [other.py]\ntables: {t: {title: T, design: rows, rows: [{label: a}]}}\n"
    assert mistakes(tmp_path, text) == [f"small.yaml:{HEAD_LINES + 1}: the plugin 'other.py' was not loaded"]


def test_the_files_of_a_study_stand_beside_it(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    for name in ("lab.py", "code/more.py"):
        (tmp_path / name).write_text("raise AssertionError('run while reading')\n")
    study = write(tmp_path, HEAD + PLUGINS + ROWS)
    assert study_plugins(study) == (tmp_path / "lab.py", tmp_path / "code" / "more.py")
    assert study_plugins(write(tmp_path, HEAD + ROWS)) == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("lab.py", "plugins must be a list of file names such as [my_lab.py], got 'lab.py'"),
        ("[lab.txt]", "a plugin is a Python file such as my_lab.py, or an installed package, got 'lab.txt'"),
        ("[3]", "a plugin is a Python file such as my_lab.py, or an installed package, got 3"),
        (
            "[../lab.py]",
            "a plugin stands beside the study or below it, given by a relative path; got '../lab.py'",
        ),
        (
            "[/etc/lab.py]",
            "a plugin stands beside the study or below it, given by a relative path; got '/etc/lab.py'",
        ),
        ("[lb.py]", "no such file; unknown plugin 'lb.py'; did you mean 'lab.py'? Valid: lab.py"),
        ("[none/lab.py]", "no such file; unknown plugin 'none/lab.py'. Valid: none"),
        ("[lab.py, code/lab.py]", "two plugins are called 'lab.py'; results name them by that"),
    ],
)
def test_a_file_that_cannot_be_a_plugin_is_refused_with_its_line(
    given: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    for name in ("lab.py", "code/lab.py"):
        (tmp_path / name).write_text("")
    study = write(tmp_path, HEAD + f"plugins: {given}\n" + ROWS)
    with pytest.raises(StudyError) as caught:
        study_plugins(study)
    assert str(caught.value) == f"{study}:{HEAD_LINES + 1}: {expected}"


def test_a_plugin_behind_a_link_out_of_the_study_s_folder_is_refused(tmp_path: Path) -> None:
    for folder in ("study/code", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "lab.py").touch()
    (tmp_path / "study" / "away.py").symlink_to(tmp_path / "elsewhere" / "lab.py")
    (tmp_path / "study" / "far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "study" / "near.py").symlink_to("code/lab.py")
    (tmp_path / "same").symlink_to(tmp_path / "study")
    study = tmp_path / "same" / "s.yaml"  # the folder itself may be a link
    study.write_text("plugins: [near.py]\n")
    assert study_plugins(study) == (tmp_path / "same" / "near.py",)
    for name in ("away.py", "far/lab.py"):
        study.write_text(f"plugins: [{name}]\n")
        with pytest.raises(StudyError) as caught:
            study_plugins(study)
        assert str(caught.value) == (
            f"{study}:1: '{name}' is a link to {tmp_path}/elsewhere/lab.py, outside the study's folder;"
            " a plugin stands beside the study or below it: copy the file there"
        )
