"""Adaptive seeds: rows that are settled stop, the others go on, and every command says where that stands."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.commands.data import look_at_records
from harness.commands.run import StudyProgress, records_of, run_blocks, saved
from harness.commands.workspace import Workspace, expand_plan, workspace
from harness.errors import DONE, USAGE_ERROR
from harness.runs.folder import RunFolder
from harness.scheduling.base import INTERRUPTED
from harness.spec import DIVERGED, FAILED, FINISHED, RunSpec
from harness.study.conditions import setting_of
from harness.study.plan import Plan
from tests.end_to_end import scripted
from tests.end_to_end.workplace import Workplace
from tests.ended import end

ROWS = ("plain", "huge", "slight")
SETTLED = "1 of 2 comparisons settled (huge helps)"
SPREAD = (0.0, 0.9, -0.7, 0.4, -1.1, 0.6, -0.2, 0.8)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return scripted.begin(tmp_path / "work")


class Trainer:
    """In place of a scheduler: writes what a training would, and keeps which runs it was given."""

    def __init__(self, place: Workplace, effects: Mapping[str, float] | None = None) -> None:
        self.place, self.effects = place, effects or {"plain": 0.0, "huge": 20.0, "slight": 0.4}
        self.ends: dict[tuple[str, int], str] = {}  # (row, seed) -> how it ends, if not finished
        self.blocks: list[Counter[str]] = []  # row -> runs

    def __call__(self, plan: Plan) -> dict[str, str]:
        todo = [run for run in plan.runs if not run.done]
        self.blocks.append(Counter(row_of(plan, run.arm_id) for run in todo))
        return {run.run_id: self._end(row_of(plan, run.arm_id), plan.spec(run)) for run in todo}

    def _end(self, row: str, spec: RunSpec) -> str:
        seed = spec.seed
        status = self.ends.get((row, seed), FINISHED)
        folder = RunFolder(self.place.runs_dir / spec.run_id)
        folder.path.mkdir(parents=True, exist_ok=True)
        if status == FAILED:
            folder.append_event("attempt", attempt=1, device="cpu")
            folder.append_event(FAILED, message="no memory")
        elif status != INTERRUPTED:
            top1 = 60 + self.effects[row] + SPREAD[(3 * seed + ROWS.index(row)) % len(SPREAD)]
            end(folder, spec, status, {"top1": top1})
        return status


def row_of(plan: Plan, arm_id: str) -> str:
    return plan.arm_labels[arm_id].split(" / ")[-1]


def work(place: Workplace, seeds: tuple[int, ...] | None = None) -> tuple[Workspace, Plan]:
    """The plan as the commands see it now."""
    args = argparse.Namespace(
        study=place.study, runs=place.runs_dir, data=None, tracking_uri=None, size="mini", seeds=seeds,
        smoke=False,
    )  # fmt: skip
    folders = workspace(args)
    return folders, expand_plan(args, folders)


def go_on(place: Workplace, train: Trainer, *, submits_only: bool = False) -> tuple[StudyProgress, list[str]]:
    """What one `harness run` does, and what it says."""
    from harness.runs.state import reconcile

    folders, plan = work(place)
    reconcile(plan, folders.runs_dir)
    said: list[str] = []
    return run_blocks(plan, folders, train, said.append, submits_only=submits_only), said


def seeds_of(plan: Plan) -> dict[str, int]:
    return {row_of(plan, arm_id): len(plan.seeds_of(arm_id)) for arm_id in plan.arms}


def test_a_settled_row_stops_and_the_others_go_on_to_the_budget(place: Workplace) -> None:
    train = Trainer(place)
    progress, said = go_on(place, train)
    assert [dict(block) for block in train.blocks] == [
        {"plain": 3, "huge": 3, "slight": 3}, {"plain": 2, "slight": 2}, {"plain": 3, "slight": 3},
    ]  # fmt: skip
    assert seeds_of(progress.plan) == {"plain": 8, "huge": 3, "slight": 8}
    assert said == [
        f"look 1 of 3 (3 seeds): {SETTLED}; 1 goes on to 5 seeds: 4 further runs",
        f"look 2 of 3 (5 seeds): {SETTLED}; 1 goes on to 8 seeds: 6 further runs",
        f"look 3 of 3 (8 seeds): {SETTLED}; 1 undecided, the budget is spent",
    ]
    assert progress.says == (
        "adaptive seeds: 19 runs in place of 24 with 8 seeds for every arm; stopping early saved 5 (21%)"
    )


def test_when_all_is_settled_nothing_goes_on(place: Workplace) -> None:
    train = Trainer(place, {"plain": 0.0, "huge": 20.0, "slight": -15.0})
    progress, said = go_on(place, train)
    assert len(train.blocks) == 1
    assert said == ["look 1 of 3 (3 seeds): 2 of 2 comparisons settled (huge helps; slight hurts)"]
    assert progress.says.endswith("stopping early saved 15 (62%)")


@pytest.mark.parametrize(("linear", "further"), [(59.0, True), (75.0, False), (90.0, False)])
def test_a_study_whose_every_comparison_has_a_row_below_its_floor_asks_for_no_further_seeds(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, linear: float, further: bool
) -> None:
    place.study.write_text(scripted.STUDY.replace(", set: {trainer: scripted}", ""))
    spec = next(iter(work(place)[1].arms.values())).recipe.data
    floor = {
        "setting": setting_of(spec), "problem": None, "chance": 10.0, "classes": 10,
        "neighbours": linear - 1, "linear": linear, "guessing": 11.0,
    }  # fmt: skip
    monkeypatch.setattr("harness.commands.floors.read_floors", lambda *_: {"floors": [floor]})
    train = Trainer(place)
    _, said = go_on(place, train)
    assert (len(train.blocks) > 1) == further
    if not further:
        row = "huge" if linear > 80 else "plain"
        assert said[0].startswith(
            f"look 1 of 3 (3 seeds): {SETTLED}; 1 cannot be evaluated; no further seeds, as nothing could be"
            f" tested: “{row}” (after 3 seeds), "
        )
        assert f"is below a linear classifier on the same images, {linear} %" in said[0]


def test_the_same_command_again_trains_nothing_and_says_the_same(place: Workplace) -> None:
    train = Trainer(place)
    first, said = go_on(place, train)
    again, last = go_on(place, train)
    assert len(train.blocks) == 3
    assert again.statuses == {}
    assert (last, again.says) == (said[-1:], first.says)
    assert again.plan.arm_seeds == first.plan.arm_seeds


def test_lost_decisions_are_made_again_from_the_runs_without_training(place: Workplace) -> None:
    train = Trainer(place)
    first, said = go_on(place, train)
    [file] = place.runs_dir.glob(".studies/*/blocks.json")
    kept = file.read_bytes()
    file.unlink()
    assert seeds_of(work(place)[1]) == dict.fromkeys(ROWS, 3), "the plan of the first look"
    again, said_again = go_on(place, train)
    assert len(train.blocks) == 3
    assert (again.plan.arm_seeds, said_again) == (first.plan.arm_seeds, said)
    assert file.read_bytes() == kept


def test_a_fixed_design_is_never_looked_at(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    place.study.write_text(scripted.STUDY.replace("{start: 3, at_most: 8}", "3"))
    monkeypatch.setattr("harness.commands.run.records_of", None)
    train = Trainer(place)
    progress, said = go_on(place, train)
    assert (len(train.blocks), said, progress.says) == (1, [], "")
    assert not list(place.runs_dir.glob(".studies/*/blocks.json"))


def test_detached_one_block_is_submitted_per_command(place: Workplace) -> None:
    train = Trainer(place)
    for block, words in ((1, []), (2, ["look 1 of 3"]), (3, ["look 2 of 3"])):
        progress, said = go_on(place, train, submits_only=True)
        assert len(train.blocks) == block
        assert [line[:11] for line in said] == words
        assert progress.plan.look == block
    progress, said = go_on(place, train, submits_only=True)
    assert (len(train.blocks), progress.statuses) == (3, {})
    assert said[0].startswith("look 3 of 3")


def test_what_was_interrupted_is_not_looked_at(place: Workplace) -> None:
    train = Trainer(place)
    train.ends = {("slight", 4): INTERRUPTED}
    progress, said = go_on(place, train)
    assert (len(train.blocks), progress.says) == (2, "")
    assert [line[:11] for line in said] == ["look 1 of 3"]
    train.ends = {}
    progress, said = go_on(place, train)
    assert train.blocks[2] == Counter(slight=1), "the same command goes on from there"
    assert [line[:11] for line in said] == ["look 2 of 3", "look 3 of 3"]
    assert seeds_of(progress.plan) == {"plain": 8, "huge": 3, "slight": 8}


def test_a_failed_run_is_tried_once_per_command_and_holds_nothing_up(place: Workplace) -> None:
    train = Trainer(place)
    train.ends = {("slight", 1): FAILED}
    progress, said = go_on(place, train)
    assert [dict(block) for block in train.blocks[1:]] == [
        {"plain": 2, "slight": 2},
        {"plain": 3, "slight": 3},
    ]
    assert [line[:11] for line in said] == ["look 1 of 3", "look 2 of 3", "look 3 of 3"]
    assert Counter(progress.statuses.values()) == {FINISHED: 18, FAILED: 1}
    progress, _ = go_on(place, train)
    assert train.blocks[3] == Counter(slight=1)


def test_runs_that_all_fail_end_the_command(place: Workplace) -> None:
    train = Trainer(place)
    train.ends = {(row, seed): FAILED for row in ROWS for seed in range(8)}
    progress, said = go_on(place, train)
    assert len(train.blocks) == len({line[:11] for line in said}) <= 3
    assert set(progress.statuses.values()) == {FAILED}


def test_a_diverged_run_is_an_outcome(place: Workplace) -> None:
    train = Trainer(place)
    train.ends = {("slight", 0): DIVERGED, ("slight", 1): DIVERGED}
    progress, _ = go_on(place, train)
    assert seeds_of(progress.plan)["huge"] == 3
    at = work(place)[0]
    found = look_at_records(progress.plan, at.runs_dir, at.data_dir)
    records = records_of(progress.plan, at, found.summaries)
    assert Counter(records["status"])[DIVERGED] == 2


def test_a_cancelled_run_is_waited_for_in_words(place: Workplace) -> None:
    train = Trainer(place)
    go_on(place, train, submits_only=True)
    folders, plan = work(place)
    run = next(run for run in plan.runs if row_of(plan, run.arm_id) == "slight")
    folder = folders.folder(run.run_id)
    folder.summary.unlink()
    (folder.path / "cancel").touch()
    said: list[str] = []
    for each in plan.runs:
        each.done = True  # as if this command had nothing to do with it
    progress = run_blocks(plan, folders, train, said.append, submits_only=False)
    assert said == ["look 1 of 3 waits for 1 run without an outcome"]
    assert (len(train.blocks), progress.says) == (1, "")


def test_an_edited_study_starts_from_its_own_first_look(place: Workplace) -> None:
    train = Trainer(place)
    go_on(place, train)
    place.study.write_text(scripted.STUDY.replace("smallest_effect: 0.2", "smallest_effect: 5"))
    assert work(place)[1].look == 1
    progress, said = go_on(place, train)
    assert len(train.blocks) == 3, "what it needs is there"
    assert "slight no detectable difference" in said[0]
    assert seeds_of(progress.plan) == dict.fromkeys(ROWS, 3)


def test_other_looks_on_the_command_line_have_decisions_of_their_own(place: Workplace) -> None:
    train = Trainer(place)
    go_on(place, train)
    _, other = work(place, seeds=(3, 8))
    assert (other.look, len(other.seeds)) == (1, 3)
    assert work(place, seeds=(8,))[1].seeds == tuple(range(8))


def test_saved_counts_against_every_arm_at_the_last_look(place: Workplace) -> None:
    _, plan = work(place)
    assert saved(plan).startswith("adaptive seeds: 9 runs in place of 24 with 8 seeds")


def test_plan_and_status_show_where_it_stands(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    go_on(place, Trainer(place))
    capsys.readouterr()
    where = ["--runs", str(place.runs_dir)]
    assert main(["plan", str(place.study), *where, "--json"]) == DONE
    plan = json.loads(capsys.readouterr().out)
    assert (plan["looks"], len(plan["seeds"]), len(plan["runs"])) == ([3, 5, 8], 8, 19)
    assert list(plan["arm_seeds"].values()) == [3]
    assert main(["plan", str(place.study), *where]) == DONE
    assert "3 arms x 3 to 8 seeds at look 3 of 3 (at most 8, 24 runs) = 19" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["status", str(place.study), *where, "--json"]) == DONE
    status = json.loads(capsys.readouterr().out)
    assert {row["row"]: row["seeds"] for row in status["rows"]} == {"plain": 8, "huge": 3, "slight": 8}
    assert [look["seeds"] for look in status["looks_taken"]] == status["looks"] == [3, 5, 8]
    assert main(["status", str(place.study), *where]) == DONE
    shown = capsys.readouterr().out
    assert "huge    3      3 finished\n" in shown
    assert "slight  8      8 finished\n" in shown
    assert "look 2 of 3 (5 seeds): 1 of 2 comparisons settled" in shown


def test_status_of_few_seeds_names_each_and_marks_those_that_are_not_planned(
    place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    place.study.write_text(scripted.STUDY.replace("at_most: 8", "at_most: 4"))
    go_on(place, Trainer(place))
    capsys.readouterr()
    main(["status", str(place.study), "--runs", str(place.runs_dir)])
    lines = capsys.readouterr().out.splitlines()
    assert "huge    3      finished  finished  finished  -" in lines
    assert "slight  4      finished  finished  finished  finished" in lines


@pytest.mark.campaign
def test_from_the_command_to_a_verified_report(
    place: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it with real runs of a training function: run, run again, report, verify, edit a digit."""
    monkeypatch.chdir(place.path)
    assert main(["run", "tiny.yaml", "--on", "inline"]) == DONE
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("look ") for line in said) == 3
    assert said[-1].endswith("stopping early saved 5 (21%)")
    summaries = _summaries(place)
    assert len(summaries) == 19
    assert main(["run", "tiny.yaml", "--on", "inline"]) == DONE
    assert "nothing to train" in capsys.readouterr().out
    assert _summaries(place) == summaries
    report = json.loads((place.report_dir / "report.json").read_text())
    assert (report["looks"], list(report["arm_seeds"].values())) == ([3, 5, 8], [3])
    rows = {cell["row"]: cell for cell in report["findings"]["tables"][0]["cells"]}
    assert {row: (cell["level"]["n"], cell["level"]["missing"]) for row, cell in rows.items()} == {
        "plain": (8, 0), "huge": (3, 0), "slight": (8, 0),
    }  # fmt: skip
    assert rows["huge"]["effect"]["settled_at"] == 3
    assert rows["slight"]["effect"]["settled_at"] is None
    assert "3 to 8 seeds each" in (place.report_dir / "report.md").read_text()
    assert "stopped: settled (5)" in (place.report_dir / "details.md").read_text()
    _verifies(place)


def _verifies(place: Workplace) -> None:
    """With the run folders, without them, and not with seeds that no plan of the study has."""
    elsewhere = str(place.path / "elsewhere")
    for runs in ("runs", elsewhere):
        assert main(["verify", "reports/tiny", "--study", "tiny.yaml", "--runs", runs]) == DONE
    path = place.report_dir / "report.json"
    data = json.loads(path.read_text())
    [arm_id] = data["arm_seeds"]
    for wrong in ({arm_id: 9}, {arm_id: "3"}, [arm_id]):
        path.write_text(json.dumps({**data, "arm_seeds": wrong}))
        assert main(["verify", "reports/tiny", "--study", "tiny.yaml"]) == USAGE_ERROR


def _summaries(place: Workplace) -> dict[str, Any]:
    return {
        folder.run_id: folder.summary.stat().st_mtime_ns
        for folder in place.folders()
        if folder.summary.exists()
    }
