"""How many seeds: fixed or adaptive, in the file, of a size, on the command line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli import build_parser
from harness.study.plan import MOST_SEEDS, Plan, check_looks, default_looks, parse_seeds
from tests.study.fakes import HEAD, plan_of

TABLE = "tables: {t: {title: T, design: rows, rows: [{label: a}, {label: b, add: cosine}]}}\n"
WRITTEN = "seeds: {start: 2, at_most: 2}"


def plan(tmp_path: Path, written: str, **options: object) -> Plan:
    return plan_of(tmp_path, HEAD.replace(WRITTEN, written) + TABLE, **options)


@pytest.mark.parametrize(
    ("start", "at_most", "expected"),
    [
        (3, 3, (3,)),
        (3, 4, (3, 4)),
        (3, 10, (3, 5, 8, 10)),
        (3, 20, (3, 5, 8, 12, 20)),
        (1, 3, (1, 2, 3)),
        (5, 8, (5, 8)),
    ],
)
def test_looks_are_made_from_the_first_and_the_last(start: int, at_most: int, expected: tuple[int]) -> None:
    assert default_looks(start, at_most) == expected


@settings(deadline=None)
@given(start=st.integers(1, 60), more=st.integers(0, MOST_SEEDS - 60))
def test_made_looks_rise_from_start_to_at_most_and_none_is_a_small_step(start: int, more: int) -> None:
    looks = default_looks(start, start + more)
    check_looks(looks)
    assert (looks[0], looks[-1]) == (start, start + more)
    assert len(looks) <= 2 + 17  # 1.5 to the power of 17 is above 1000
    if len(looks) > 2:
        assert all(later >= 1.25 * earlier for earlier, later in pairwise(looks))


@pytest.mark.parametrize("seeds", ["seeds: 2", WRITTEN, "seeds: {start: 2}", "seeds: {looks: [2]}"])
def test_a_fixed_number_has_no_looks_and_one_plan(tmp_path: Path, seeds: str) -> None:
    found = plan(tmp_path, seeds)
    assert (found.seeds, found.looks, found.arm_seeds, found.look) == ((0, 1), (), {}, 0)
    assert not found.is_adaptive
    assert [run.run_id for run in found.runs] == [run.run_id for run in plan(tmp_path, WRITTEN).runs]
    assert found.header["seeds"] == {"start": 2, "at_most": 2}


def test_without_a_word_of_seeds_there_are_three(tmp_path: Path) -> None:
    found = plan(tmp_path, "")
    assert (found.seeds, found.looks) == ((0, 1, 2), ())


@pytest.mark.parametrize(
    ("seeds", "looks"),
    [
        ("seeds: {start: 3, at_most: 10}", (3, 5, 8, 10)),
        ("seeds: {at_most: 5}", (3, 5)),
        ("seeds: {start: 3, at_most: 20, looks: [3, 10, 20]}", (3, 10, 20)),
        ("seeds: {looks: [2, 4, 6]}", (2, 4, 6)),
    ],
)
def test_an_adaptive_study_is_planned_with_the_seeds_of_its_first_look(
    tmp_path: Path, seeds: str, looks: tuple[int, ...]
) -> None:
    found = plan(tmp_path, seeds)
    assert found.looks == looks
    assert found.is_adaptive
    assert found.look == 1
    assert found.seeds == tuple(range(looks[0]))
    assert len(found.runs) == 2 * looks[0]
    assert {found.seeds_of(arm_id) for arm_id in found.arms} == {found.seeds}
    assert found.header["seeds"] == {"start": looks[0], "at_most": looks[-1]}


def test_a_size_may_have_seeds_of_its_own(tmp_path: Path) -> None:
    text = HEAD.replace(WRITTEN, "seeds: {start: 2, at_most: 6}")
    text = text.replace("epochs: 30,", "epochs: 30, seeds: 4,") + TABLE
    assert plan_of(tmp_path, text).looks == (2, 3, 6)
    gpu = plan_of(tmp_path, text, size="gpu")
    assert (gpu.looks, len(gpu.seeds)) == ((), 4)
    assert gpu.header["seeds"] == {"start": 4, "at_most": 4}


def test_the_command_line_says_another_number_or_other_looks(tmp_path: Path) -> None:
    adaptive = "seeds: {start: 3, at_most: 10}"
    assert plan(tmp_path, adaptive, seeds=parse_seeds("5")).seeds == (0, 1, 2, 3, 4)
    assert plan(tmp_path, adaptive, seeds=parse_seeds("5")).looks == ()
    assert plan(tmp_path, WRITTEN, seeds=parse_seeds("2..5")).looks == (2, 3, 5)
    assert plan(tmp_path, WRITTEN, seeds=parse_seeds("4..4")).looks == ()


def test_a_smoke_run_is_not_adaptive(tmp_path: Path) -> None:
    found = plan(tmp_path, "seeds: {start: 3, at_most: 10}", smoke=True)
    assert (found.seeds, found.looks) == ((0, 1), ())


@pytest.mark.parametrize(
    "text", ["3..2", "3..", "..3", "a", "0", "-1", "3...5", "1001", "3..1001", "2.5", ""]
)
def test_a_wrong_number_on_the_command_line_is_said_in_one_line(text: str, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        build_parser().parse_args(["plan", "x.yaml", f"--seeds={text}"])
    assert left.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("harness plan: error: argument --seeds: ")
    assert "must" in last


def test_the_parser_gives_looks() -> None:
    parse = build_parser().parse_args
    assert parse(["run", "x.yaml", "--seeds", "5"]).seeds == (5,)
    assert parse(["run", "x.yaml", "--seeds", "3..10"]).seeds == (3, 5, 8, 10)
    assert parse(["run", "x.yaml"]).seeds is None
