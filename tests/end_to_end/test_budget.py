"""`harness run --budget`: it stops in order, says what is short; enough calls give the bits of one run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.commands import budget
from harness.commands.budget import Budget, parse_budget, short_of_seeds
from harness.errors import DONE, INTERRUPTED, USAGE_ERROR
from harness.scheduling.base import Progress
from harness.scheduling.queue import last_step
from tests.conftest import mostly_campaign
from tests.end_to_end import scripted
from tests.end_to_end.conftest import Finished
from tests.end_to_end.under_way import UnderWay
from tests.end_to_end.workplace import Workplace


def at_work(*run_ids: str) -> Progress:
    return Progress(waiting=0, running=run_ids)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0min", "must be above 0, got '0min'"),
        ("-5min", "must be above 0, got '-5min'"),
        ("10", "needs a unit, such as 10min, 2h, or 8gpu-hours on Slurm, got '10'"),
        ("ten minutes", "must be a number with a unit, such as 10min"),
        ("10mins", "unknown unit 'mins'; did you mean 'min'? Valid: d, gpu-hours, h, min, s"),
        ("366d", "must be at most a year (365d), got '366d'"),
        ("nan", "must be a number with a unit"),
        ("99999999gpu-hours", "must be at most 1,000,000 GPU-hours"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused_in_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    done = scripted.begin(tmp_path / "work").call("run", "tiny.yaml", "--budget", text)
    assert done.returncode == USAGE_ERROR
    assert f"argument --budget: {says}" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--on", "slurm", "--detach"), "a budget is watched by the command itself; leave --detach out"),
        (("--on", "slurm", "--dry-run"), "a budget is watched by the command itself; leave --dry-run out"),
    ],
)
def test_a_budget_that_nobody_would_watch_is_refused(
    tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    done = scripted.begin(tmp_path / "work").call("run", "tiny.yaml", "--budget", "1h", *options)
    assert done.returncode == USAGE_ERROR
    assert says in done.stderr


def test_gpu_hours_are_slurms(tmp_path: Path) -> None:
    done = scripted.begin(tmp_path / "work").call("run", "tiny.yaml", "--budget", "8gpu-hours")
    assert done.returncode == USAGE_ERROR
    assert "GPU-hours are counted with --on slurm; here, say a time such as 2h" in done.stderr


def test_a_budget_is_spent_by_the_clock_once_a_run_was_at_work_for_a_moment() -> None:
    clock = Clock()
    spent = Budget(parse_budget("1min"), least_s=3.0, clock=clock)
    clock.now_s = 70
    spent.watch(at_work("a"), {}, lambda run_id: False)
    assert not spent.is_spent(), "the worker still starts"
    spent.watch(at_work("a"), {}, lambda run_id: True)
    assert not spent.is_spent()
    clock.now_s = 73
    assert spent.is_spent()
    assert spent.line() == "0 s of 1min budget left"


def test_a_budget_does_not_wait_for_runs_that_others_hold() -> None:
    clock = Clock()
    spent = Budget(parse_budget("1min"), clock=clock)
    clock.now_s = 59
    spent.watch(at_work(), {}, lambda run_id: True)
    assert not spent.is_spent()
    clock.now_s = 60
    assert spent.is_spent()


def test_gpu_time_is_counted_while_runs_hold_gpus() -> None:
    clock = Clock()
    spent = Budget(parse_budget("1gpu-hours"), least_s=0.0, clock=clock)
    for now_s, running in ((0, []), (5000, ["a", "b"]), (6000, ["a"]), (7000, [])):
        clock.now_s = now_s
        spent.watch(at_work(*running), {"a": 1.0, "b": 0.5}, lambda run_id: True)
    assert spent.left_s == 3600 - 1500 - 1000
    clock.now_s = 1e6
    assert not spent.is_spent(), "nothing runs"
    spent.watch(at_work("a"), {"a": 1.0}, lambda run_id: True)
    clock.now_s += 1100
    assert spent.is_spent()


def test_rows_short_of_seeds_say_how_many_more_and_how_long(tmp_path: Path) -> None:
    place = UnderWay.begin(tmp_path / "place")
    place.end("Baseline", 0)
    place.end("Baseline", 1)
    place.end("Smoothed", 0)
    plan = place.plan
    from harness.runs.state import reconcile

    reconcile(plan, place.runs_dir)
    [line] = short_of_seeds(plan)
    assert re.fullmatch(
        r"only: 1 of 3 rows complete; to come, about .* of one worker: Smoothed 1 seed; Distilled 2 seeds",
        line,
    )


def test_a_spent_budget_ends_with_a_report_of_what_is_there_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training function of the study ends runs at once; the clock jumps once four have ended."""
    place = scripted.begin(tmp_path / "work")

    def now_s() -> float:
        return 1e6 if len(list(place.runs_dir.glob("*/summary.json"))) >= 4 else 0.0

    monkeypatch.setattr(budget.Budget.__init__, "__kwdefaults__", {"least_s": 0.0, "clock": now_s})
    done = place.call("run", "tiny.yaml", "--seeds", "3", "--on", "inline", "--budget", "1h")
    assert done.returncode == INTERRUPTED, done.stderr
    assert "the budget of 1h is spent: 4 of 9 runs have ended" in done.stdout
    assert "only: 0 of 3 rows complete; to come" in done.stdout
    assert done.stderr.endswith("not finished; the same command goes on from here\n")
    assert (place.path / "reports" / "tiny" / "report.md").exists()
    status = place.json("status", "tiny.yaml", "--seeds", "3")
    ended = [(run["seed"], run["arm"]) for run in status["runs"] if run["state"] == "finished"]
    first_seed = [(0, f"only / {row}") for row in ("plain", "huge", "slight")]
    assert sorted(ended) == sorted([*first_seed, (1, "only / plain")]), "one seed of every row, then the next"
    done = place.call("run", "tiny.yaml", "--seeds", "3", "--on", "inline", "--no-report")
    assert done.returncode == DONE, done.stderr


def how_far(place: Workplace) -> tuple[int, int]:
    """How many runs have ended, and the steps of all."""
    folders = place.folders()
    ended = sum(folder.summary.exists() for folder in folders)
    return ended, sum(last_step(folder.read_events()) for folder in folders)


@pytest.mark.campaign
@pytest.mark.parametrize("text", mostly_campaign(("1s", "7s", "20s"), "7s"))
def test_enough_calls_within_budgets_give_the_bits_of_one_undisturbed_run(
    fresh: Workplace, finished: Finished, text: str
) -> None:
    code, reached = INTERRUPTED, [(0, 0)]
    while code == INTERRUPTED:
        done = fresh.call("run", "tiny.yaml", "--on", "inline", "--no-report", "--budget", text)
        code = done.returncode
        reached.append(how_far(fresh))
        assert reached[-1] > reached[-2], f"every command brings it further: {reached}"
    assert code == DONE, done.stderr
    assert fresh.results() == finished.place.results()
