"""What a plan says about seconds before anything was trained: measured once, kept, and never in the way."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from harness.commands import step_times
from harness.commands.step_times import Times, cache_file, estimate, machine_key
from harness.commands.workspace import Workspace, first_plan, workspace
from harness.data import ImageCounts
from harness.runs.state import reconcile
from harness.study.plan import Plan
from tests.timing import PATIENCE_S

ROOT = Path(__file__).parents[1]
FOUND = {"step_s": 0.01, "eval_s": 0.001, "start_s": 0.5, "views": {"1": 1, "10": 8, "12": 6, "144": 24}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A machine without a GPU on which nothing was measured yet."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_MEASURE")
    monkeypatch.setattr("harness.runs.provenance.detect_devices", lambda: ("cpu",))
    return workspace(Namespace(runs=tmp_path / "runs", data=tmp_path, tracking_uri=None))


def plan_of(here: Workspace, study: str = "googlenet") -> Plan:
    how = Namespace(study=ROOT / "studies" / f"{study}.yaml", size="mini", seeds=None, smoke=False)
    return first_plan(how, here)


class Child:
    """In place of the measuring process: every question has the same answer, or `says` is all it prints."""

    def __init__(self, says: str | None = None, answered: int = 99) -> None:
        self.says, self.answered = says, answered
        self.asked: list[list[str]] = []

    def __call__(self, command: list[str], *, input: str, **_: Any) -> subprocess.CompletedProcess[str]:
        keys = [question["key"] for question in json.loads(input)["questions"]]
        self.asked.append(keys)
        lines = [json.dumps({"key": key, **FOUND}) for key in keys[: self.answered]]
        output = "".join(f"{line}\n" for line in lines) if self.says is None else self.says
        return subprocess.CompletedProcess(command, 1, output, "MemoryError: no room")


def plant(monkeypatch: pytest.MonkeyPatch, child: Any) -> Any:
    monkeypatch.setattr(subprocess, "run", child)
    return child


def test_a_run_costs_steps_evaluated_images_and_its_start(here: Workspace, monkeypatch: pytest.MonkeyPatch):
    plant(monkeypatch, Child())
    plan = plan_of(here)
    estimate(plan, here.data_dir, measure=True)
    assert all(run.time_s is not None for run in plan.runs)
    run = next(run for run in plan.runs if not plan.arms[run.arm_id].observes)
    recipe = plan.arms[run.arm_id].recipe
    assert (recipe.data.train_images, recipe.data.test_images, recipe.eval_crops) == (None, 5000, 1)
    steps = 10_000 // recipe.batch_size * recipe.epochs
    evaluated = recipe.epochs * recipe.curve_points * 1000 + 5000
    assert run.time_s == pytest.approx(steps * 0.01 + evaluated * 0.001 + 0.5 + step_times.RUN_S)
    watched = next(run for run in plan.runs if plan.arms[run.arm_id].recipe.eval_crops == 144)
    networks = sum(member.runs for member in plan.arms[watched.arm_id].observes)
    assert watched.time_s == pytest.approx(networks * 24 * 5000 * 0.001 + step_times.RUN_S)


def test_it_is_measured_once_and_said_on_stderr(here: Workspace, monkeypatch, capsys):
    child = plant(monkeypatch, Child())
    for _ in range(2):
        plan = plan_of(here)
        estimate(plan, here.data_dir, measure=True)
        assert all(run.time_s for run in plan.runs)
    assert len(child.asked) == 1
    captured = capsys.readouterr()
    assert captured.err == "measuring this machine's speed, once (some 5 s)\n"
    assert captured.out == ""


def test_what_the_budget_left_out_follows_its_relatives_and_is_not_asked_again(here: Workspace, monkeypatch):
    child = plant(monkeypatch, Child(answered=1))
    for _ in range(2):
        plan = plan_of(here)
        estimate(plan, here.data_dir, measure=True)
        assert all(run.time_s for run in plan.runs)
    assert len(child.asked) == 1 < len(child.asked[0])


@pytest.mark.parametrize("name", step_times.CAPS)
def test_another_instruction_set_or_torch_is_another_machine(
    here: Workspace, monkeypatch, name: str, tmp_path: Path
):
    monkeypatch.delenv(name, raising=False)
    before = cache_file()
    monkeypatch.setenv(name, "AVX2")
    assert cache_file() != before
    monkeypatch.delenv(name)
    assert cache_file() == before
    (tmp_path / "torch-9.9.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert machine_key()["torch"] == "9.9"
    assert cache_file() != before


def test_the_version_of_torch_is_the_one_that_its_metadata_says(tmp_path: Path):
    (tmp_path / "torch-vision-1.0.dist-info").mkdir()
    assert step_times.torch_version([str(tmp_path), "no such folder"]) == "none"
    assert step_times.torch_version([str(tmp_path), *sys.path]) == importlib.metadata.version("torch")


def test_without_leave_to_measure_nothing_is_started_and_nothing_said(here: Workspace, monkeypatch, capsys):
    child = plant(monkeypatch, Child())
    estimate(plan_of(here), here.data_dir, measure=False)
    monkeypatch.setenv("HARNESS_MEASURE", "0")
    plan = plan_of(here)
    estimate(plan, here.data_dir, measure=True)
    assert child.asked == []
    assert {run.time_s for run in plan.runs} == {None}
    assert capsys.readouterr().err == ""


def test_a_gpu_is_not_spoken_for_by_this_cpu(here: Workspace, monkeypatch):
    child = plant(monkeypatch, Child())
    monkeypatch.setattr("harness.runs.provenance.detect_devices", lambda: ("cuda:0",))
    plan = plan_of(here)
    estimate(plan, here.data_dir, measure=True)
    assert child.asked == []
    assert {run.time_s for run in plan.runs} == {None}


def _raises(error: Exception) -> Any:
    def child(*_: Any, **__: Any) -> None:
        raise error

    return child


@pytest.mark.parametrize(
    ("child", "says"),
    [
        (Child(says=""), "MemoryError: no room"),
        (Child(says="{\n"), "Expecting property name"),
        (_raises(subprocess.TimeoutExpired("python", 60.0)), "no answer within 60 s"),
        (_raises(OSError("no processes left")), "no processes left"),
    ],
    ids=["crash", "garbage", "hangs", "cannot start"],
)
def test_a_measurement_that_fails_is_one_sentence_and_no_seconds(here, monkeypatch, capsys, child, says):
    plant(monkeypatch, child)
    plan = plan_of(here)
    estimate(plan, here.data_dir, measure=True)
    assert {run.time_s for run in plan.runs} == {None}
    errors = capsys.readouterr().err
    assert "this machine's speed could not be measured: " in errors
    assert says in errors
    assert cache_file() is not None
    assert not cache_file().exists()


def test_what_was_measured_before_the_time_was_up_counts(here: Workspace, monkeypatch):
    def child(command: list[str], *, input: str, **_: Any) -> None:
        key = json.loads(input)["questions"][0]["key"]
        whole = json.dumps({"key": key, **FOUND})
        raise subprocess.TimeoutExpired(command, 60.0, output=f'{whole}\n{{"key": "ha'.encode())

    plant(monkeypatch, child)
    plan = plan_of(here)
    estimate(plan, here.data_dir, measure=True)
    assert all(run.time_s for run in plan.runs)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"times": 3}', '{"times": {"x": {"step_s": -1}}}'])
def test_a_damaged_cache_is_measured_again(here: Workspace, monkeypatch, damage: str):
    child = plant(monkeypatch, Child())
    path = cache_file()
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_text(damage)
    plan = plan_of(here)
    estimate(plan, here.data_dir, measure=True)
    assert all(run.time_s for run in plan.runs)
    assert len(child.asked) == 1


def test_a_cache_that_cannot_be_written_costs_one_sentence(here: Workspace, monkeypatch, capsys):
    plant(monkeypatch, Child())
    path = cache_file()
    assert path is not None
    path.parent.parent.write_text("a file in place of the folder")
    plan = plan_of(here)
    estimate(plan, here.data_dir, measure=True)
    assert all(run.time_s for run in plan.runs)
    assert "the next plan measures again" in capsys.readouterr().err


def test_two_plans_at_once_keep_what_both_measured(here: Workspace, monkeypatch):
    first = plan_of(here, "mixup")
    plant(monkeypatch, Child())
    kept = step_times._keep

    def meanwhile(path: Path, known: dict[str, Any]) -> None:
        monkeypatch.setattr(step_times, "_keep", kept)
        estimate(first, here.data_dir, measure=True)
        kept(path, known)

    monkeypatch.setattr(step_times, "_keep", meanwhile)
    estimate(plan_of(here), here.data_dir, measure=True)
    child = plant(monkeypatch, Child())
    for study in ("mixup", "googlenet"):
        estimate(plan_of(here, study), here.data_dir, measure=True)
    assert child.asked == []


def test_finished_runs_of_the_arm_win_and_other_networks_do_not(here: Workspace, monkeypatch):
    plant(monkeypatch, Child())
    plan = plan_of(here)
    trained = [run for run in plan.runs if not plan.arms[run.arm_id].observes]
    same = next(run for run in trained[1:] if run.arm_id == trained[0].arm_id)
    recipe = plan.arms[same.arm_id].recipe
    folder = here.folder(trained[0].run_id)
    folder.path.mkdir(parents=True)
    folder.spec.write_text(json.dumps(plan.spec(trained[0]).to_json()))
    summary = {
        "schema": 2, "run_id": trained[0].run_id, "arm_id": same.arm_id, "seed": trained[0].seed,
        "status": "finished", "metrics": {"top1": 50.0}, "model": recipe.model.name, "macs": 1000,
        "images_seen": 1000, "train_time_s": 70.0, "wall_time_s": 77.0, "precision": recipe.precision,
        "batch_size": recipe.batch_size, "steps": 10, "started_s": 1.0, "ended_s": 78.0, "test_images": 10,
        "params": 1, "train_loss": 1.0,
    }  # fmt: skip
    folder.summary.write_text(json.dumps(summary))
    reconcile(plan, here.runs_dir)
    assert trained[0].done, "the planted record is not read"
    from_records = same.time_s
    assert not same.rough
    assert from_records == pytest.approx(same.macs / (3 * 1000 * 1000) * 77.0)
    others = [run for run in trained if run.arm_id != same.arm_id]
    assert all(run.rough for run in others)
    estimate(plan, here.data_dir, measure=True)
    assert same.time_s == from_records
    assert not any(run.rough for run in plan.runs)


def test_only_times_that_are_times_are_believed():
    assert step_times._valid(FOUND) == FOUND
    for name in ("step_s", "eval_s", "start_s"):
        for wrong in (None, -1.0, "1", True, float("nan")):
            assert step_times._valid({**FOUND, name: wrong}) is None
    assert step_times._valid(None) is None
    assert Times(**FOUND).evaluation_s(10, 144) == pytest.approx(10 * 24 * 0.001)


@pytest.mark.campaign
def test_the_real_measurement_answers_and_afterwards_without_torch(tmp_path: Path):
    study = str(Path("tests/end_to_end/tiny.yaml"))
    plan = [sys.executable, "-X", "importtime", "-m", "harness.cli", "plan", study, "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "HARNESS_MEASURE"}
    environment |= {"HARNESS_CACHE": str(tmp_path), "HARNESS_RUNS": str(tmp_path / "runs")}
    environment |= {"CUDA_VISIBLE_DEVICES": ""}
    first, second = (
        subprocess.run(
            plan, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
        for _ in range(2)
    )
    assert "measuring this machine's speed" in first.stderr
    assert "measuring" not in second.stderr
    assert not [line for line in second.stderr.splitlines() if line.endswith("| torch")]
    assert all(0 < run["time_s"] < 600 for run in json.loads(first.stdout)["runs"])
    assert json.loads(first.stdout) == json.loads(second.stdout)


def test_the_measured_recipe_is_the_runs_own_but_for_what_changes_no_time(here: Workspace):
    plan = plan_of(here, "bag_of_tricks")
    for arm_id, question in step_times._questions(plan, plan.runs, ImageCounts(here.data_dir)).items():
        own, measured = plan.arms[arm_id].recipe, question.spec.arm.recipe
        apart = {
            each.name
            for each in dataclasses.fields(own)
            if getattr(own, each.name) != getattr(measured, each.name)
        }
        assert apart <= {*step_times.FREE, "batch_size"}
        assert question.larger == own.batch_size / measured.batch_size
