"""The next block of an adaptive plan, and the file that says which block it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.runs.state import FILE, LookRecord, as_it_stands, read_blocks, study_folder, write_blocks
from harness.spec import MEMBER_STRIDE
from harness.study import expand
from harness.study.expand import grow
from harness.study.plan import Plan, parse_seeds, plan_to_json, runs_at_most
from tests.study.fakes import HEAD, arm_of, cells, plan_of
from tests.study.test_observers import ARMS, TABLE

ADAPTIVE = HEAD.replace("{start: 2, at_most: 2}", "{start: 2, at_most: 5}")
LOOK = LookRecord(seeds=2, settled=1, comparisons=7, says="look 1 of 3")


def plan(folder: Path, text: str = ADAPTIVE, **options: object) -> Plan:
    return plan_of(folder, text + ARMS + TABLE, **options)


def arm(found: Plan, row: str) -> str:
    return arm_of(found, row).arm_id


def test_all_arms_with_all_seeds_are_the_plan_of_a_fixed_design(tmp_path: Path) -> None:
    """Same runs, in the same order, however many blocks it took."""
    first, fixed = plan(tmp_path), plan(tmp_path, seeds=5)
    every = dict.fromkeys(first.arms, 5)
    for steps in ([every], [dict.fromkeys(first.arms, 3), every]):
        grown = first
        for step in steps:
            grown = grow(grown, step)
        assert grown.runs == fixed.runs
        assert (grown.seeds, grown.arm_seeds) == (fixed.seeds, {})
        assert replace(grown, looks=()) == replace(fixed, header=grown.header)
    assert runs_at_most(first) == runs_at_most(grown) == len(fixed.runs) == runs_at_most(fixed)


def test_only_the_wanted_arms_get_seeds_and_a_plan_without_any_stays_as_it_is(tmp_path: Path) -> None:
    first = plan(tmp_path)
    crops = arm(first, "one crop")
    grown = grow(first, {crops: 3})
    assert grown.seeds == (0, 1, 2)
    assert [(run.arm_id, run.seed) for run in grown.runs[len(first.runs) :]] == [(crops, 2)]
    assert grown.runs[: len(first.runs)] == first.runs
    assert grown.seeds_of(crops) == (0, 1, 2)
    assert {grown.seeds_of(each) for each in first.arms if each != crops} == {(0, 1)}
    assert grow(first, {}) == first
    assert grow(grown, {crops: 2}) == grown, "no arm loses seeds"
    assert grown.look == 2


@pytest.mark.parametrize(
    ("row", "needed"),
    [
        ("student", ["large"]),
        ("ten crops", ["one crop"]),
        ("mixed", ["large"]),
        ("students", ["large", "student"]),
    ],
)
def test_what_an_arm_needs_gets_its_seeds_too_and_comes_before_it(
    tmp_path: Path, row: str, needed: list[str]
) -> None:
    first = plan(tmp_path)
    grown = grow(first, {arm(first, row): 3})
    names = {
        grown.arm_labels[arm_id].split(" / ")[-1] for arm_id in grown.arms if len(grown.seeds_of(arm_id)) == 3
    }
    assert {row, *needed} <= names
    new = grown.runs[len(first.runs) :]
    known = {run.run_id for run in first.runs}
    for run in new:
        assert set(run.needs) <= known, "what a run needs is planned, and before it"
        known.add(run.run_id)
    fixed = {run.run_id: run for run in plan(tmp_path, seeds=3).runs}
    assert all(fixed[run.run_id] == run for run in new), "the runs of a fixed design, with their needs"


def test_further_members_of_an_ensemble_grow_along(tmp_path: Path) -> None:
    first = plan(tmp_path)
    grown = grow(first, {arm(first, "three"): 3})
    seeds = {run.seed for run in grown.runs if run.arm_id == arm(first, "one crop")}
    assert {2, 2 + MEMBER_STRIDE, 2 + 2 * MEMBER_STRIDE} <= seeds
    assert arm(first, "one crop") not in grown.arm_seeds


def test_what_is_known_of_the_runs_is_kept(tmp_path: Path) -> None:
    first = plan(tmp_path)
    first.runs[0].done, first.runs[0].time_s = True, 12.5
    grown = grow(first, dict.fromkeys(first.arms, 5))
    assert (grown.runs[0].done, grown.runs[0].time_s) == (True, 12.5)
    assert not any(run.done for run in grown.runs[1:])


def test_nothing_beyond_the_budget_and_no_other_arm(tmp_path: Path) -> None:
    first = plan(tmp_path)
    with pytest.raises(ValueError, match="t / one crop: 6 seeds are more than the budget of 5"):
        grow(first, {arm(first, "one crop"): 6})
    with pytest.raises(ValueError, match="xyz is no arm of small"):
        grow(first, {"xyz": 3})


def test_the_budget_is_checked_before_the_first_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(expand, "MOST_RUNS", 60)
    assert len(plan(tmp_path, seeds=2).runs) <= 60
    with pytest.raises(StudyError, match="x 20 seeds and what they need are more than 60"):
        plan(tmp_path, seeds=parse_seeds("2..20"))


def test_the_plan_as_json_says_who_has_how_many(tmp_path: Path) -> None:
    first = plan(tmp_path)
    crops = arm(first, "one crop")
    data = json.loads(json.dumps(plan_to_json(grow(first, {crops: 3}))))
    assert (data["seeds"], data["looks"]) == ([0, 1, 2], [2, 3, 5])
    assert data["arm_seeds"] == dict.fromkeys([each for each in first.arms if each != crops], 2)
    shared = data["totals"]["shared_runs_saved"]
    assert shared == 3, "one crop stands in two rows, and has three seeds"
    assert cells(first, "t")["one view is the training itself", None].arm_id == crops


def test_where_a_study_stands_is_read_back(tmp_path: Path) -> None:
    first = plan(tmp_path)
    grown = grow(first, {arm(first, "student"): 3})
    assert as_it_stands(first, tmp_path / "runs") == first
    write_blocks(tmp_path / "runs", grown, [LOOK])
    assert as_it_stands(first, tmp_path / "runs") == grown
    blocks = read_blocks(tmp_path / "runs", first)
    assert blocks is not None
    assert blocks.looks == (LOOK,)


def test_reading_writes_nothing_and_writing_the_same_neither(tmp_path: Path) -> None:
    runs, first = tmp_path / "runs", plan(tmp_path)
    as_it_stands(first, runs)
    assert not runs.exists()
    write_blocks(runs, first, [LOOK])
    path = study_folder(runs, first) / FILE
    before = path.stat().st_mtime_ns
    write_blocks(runs, first, [LOOK])
    assert path.stat().st_mtime_ns == before


def test_what_another_process_decided_meanwhile_is_kept(tmp_path: Path) -> None:
    first = plan(tmp_path)
    far = grow(first, dict.fromkeys(first.arms, 5))
    later = LOOK._replace(seeds=3, says="look 2 of 3")
    write_blocks(tmp_path, far, [later])
    write_blocks(tmp_path, grow(first, {arm(first, "student"): 3}), [LOOK])
    assert as_it_stands(first, tmp_path) == far
    blocks = read_blocks(tmp_path, first)
    assert blocks is not None
    assert blocks.looks == (LOOK, later)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("at_most: 5", "at_most: 10"),
        ("epochs: 4", "epochs: 8"),
        ("question: ", "smallest_effect: 0.7\nquestion: "),
        ("study: small", "metric: top5\nstudy: small"),
    ],
)
def test_decisions_for_another_declaration_are_not_used(tmp_path: Path, was: str, now: str) -> None:
    first = plan(tmp_path)
    write_blocks(tmp_path / "runs", grow(first, dict.fromkeys(first.arms, 5)), [LOOK])
    edited = plan(tmp_path, ADAPTIVE.replace(was, now))
    assert ADAPTIVE.replace(was, now) != ADAPTIVE
    assert as_it_stands(edited, tmp_path / "runs") == edited


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '"x"', "[" * 100_000],
    ids=["empty", "cut off", "list", "null", "no keys", "text", "deep"],
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    first = plan(tmp_path)
    path = study_folder(tmp_path, first) / FILE
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert as_it_stands(first, tmp_path) == first
    write_blocks(tmp_path, first, [LOOK])
    assert read_blocks(tmp_path, first) is not None


@pytest.mark.parametrize("seeds", [4, 0, 10**9, "three", None, True])
def test_seeds_that_are_no_look_are_not_believed(tmp_path: Path, seeds: object) -> None:
    first = plan(tmp_path)
    write_blocks(tmp_path, first, [LOOK])
    path = study_folder(tmp_path, first) / FILE
    data = json.loads(path.read_text())
    data["arm_seeds"][next(iter(first.arms))] = seeds
    path.write_text(json.dumps(data))
    assert as_it_stands(first, tmp_path) == first
