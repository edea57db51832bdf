"""Every mistake in a study is refused with its line, what is wrong, the nearest name and the valid ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.study.expand import ExpandOptions, expand, load_study
from tests.study.fakes import CATALOGUE, HEAD, mistakes, plan_of, write
from tests.study.mistake_cases import CASES, FINE, FIRST, ROW, rows, table


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_said_in_full(case: str, tmp_path: Path) -> None:
    text, expected = CASES[case]
    assert mistakes(tmp_path, text) == expected
    # A size that is planned next is not resolved twice: the words are the same.
    assert mistakes(tmp_path, text, ExpandOptions()) == expected


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("batch_scale: 1/2", "batch_scale: 1/3", "256 x batch_scale 1/3 = 85.3333 is not a whole number"),
        ("cifar10", "cifar", "unknown data set 'cifar'"),
    ],
)
def test_a_mistake_at_another_size_stops_who_plans_and_not_who_looks(
    right: str, wrong: str, words: str, tmp_path: Path
) -> None:
    text = HEAD.replace(right, wrong) + FINE
    (said,) = mistakes(tmp_path, text, ExpandOptions(size="mini"))
    assert words in said
    assert mistakes(tmp_path, text, ExpandOptions(size="mini", every_size=False)) == []
    assert mistakes(tmp_path, text, ExpandOptions(size="gpu", every_size=False)) == [said]


def test_the_small_study_itself_is_fine(tmp_path: Path) -> None:
    assert mistakes(tmp_path, HEAD + FINE) == []


def test_an_unknown_factor_names_fields_and_tricks(tmp_path: Path) -> None:
    text = HEAD + table("    factors: {mixup: [off, on], learning_rate: [off]}\n", design="grid")
    (message,) = mistakes(tmp_path, text)
    assert message.startswith(
        f"small.yaml:{FIRST + 4}: unknown factor 'learning_rate'. Valid: auxiliary_weight,"
    )


def test_an_alias_is_refused_with_its_line(tmp_path: Path) -> None:
    messages = mistakes(tmp_path, HEAD + rows("{label: a, set: &s {lr: 0.2}}", "{label: b, note: *s}"))
    refused = "aliases (*name) are not part of the study format; write the value again"
    assert messages == [f"small.yaml:{ROW + 1}: {refused}"]


def test_a_bomb_of_aliases_is_refused_quickly(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert any("aliases" in message for message in mistakes(tmp_path, bomb + HEAD + FINE))


def test_all_mistakes_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = HEAD.replace("cifar10", "cifar").replace("start: 2", "start: 0") + rows(
        "{label: a, add: mixupp}",
        "{label: a, set: {lr: -1}}",
        "{label: c, versus: d, paper: {top1: 300, status: memory}}",
    )
    lines = [int(message.split(":")[1]) for message in mistakes(tmp_path, text)]
    assert lines == [3, 7, ROW, ROW + 1, ROW + 1, ROW + 2, ROW + 2]


def test_the_same_mistake_at_every_size_and_in_many_rows_is_said_once(tmp_path: Path) -> None:
    text = HEAD + table("    factors: {fp16: [off, on], bf16: [off, on], mixup: [off, on]}\n", design="grid")
    assert mistakes(tmp_path, text) == [
        f"small.yaml:{FIRST + 4}: tricks 'fp16' and 'bf16' exclude each other"
        " (t, row 'fp16=on, bf16=on, mixup=off' and 1 more row; sizes mini, gpu, paper)"
    ]


def test_a_file_that_does_not_exist_names_those_beside_it(tmp_path: Path) -> None:
    write(tmp_path, HEAD)
    path = tmp_path / "smal.yaml"
    with pytest.raises(StudyError) as caught:
        load_study(path, CATALOGUE)
    expected = "no such file; unknown study 'smal'; did you mean 'small'? Valid: small"
    assert str(caught.value) == f"{path}: {expected}"


def test_a_folder_and_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be read: Is a directory"):
        load_study(tmp_path, CATALOGUE)
    path = tmp_path / "small.yaml"
    path.write_bytes(b"study: \xff\n")
    with pytest.raises(StudyError, match="not UTF-8 text: byte 7 is 0xff"):
        load_study(path, CATALOGUE)


def test_an_unknown_size_on_the_command_line_is_refused(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, HEAD + FINE), CATALOGUE)
    with pytest.raises(StudyError) as caught:
        expand(study, CATALOGUE, ExpandOptions(size="mni"))
    expected = "unknown size 'mni'; did you mean 'mini'? Valid: gpu, mini, paper"
    assert str(caught.value) == f"{study.source.path}:5: {expected}"
    with pytest.raises(StudyError, match="the number of seeds must be at least 1, got 0"):
        expand(study, CATALOGUE, ExpandOptions(seeds=0))


def test_a_large_study_is_checked_at_the_size_that_is_planned(tmp_path: Path) -> None:
    rates = ", ".join(f"{1 + step / 1000}" for step in range(1500))
    text = HEAD + table(f"    factors: {{lr: [{rates}], fp16: [off, on], bf16: [on]}}\n", design="grid")
    with pytest.raises(StudyError, match=r"and 1499 more rows; size mini\)$"):
        plan_of(tmp_path, text)
