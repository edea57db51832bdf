"""benchmarks/gpu.py: every section runs (here tiny, on the CPU), failures are rows, parts add up."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from harness.runs.folder import RunFolder
from harness.spec import Arm, DataSpec, Machine, ModelSpec, Recipe, RunSpec
from harness.training.setup import build, build_network
from harness.training.weights import write_torch_file
from tests.conftest import mostly_campaign
from tests.ended import end
from tests.timing import FOREVER_S, PATIENCE_S, wait_until
from tests.training.test_gpu import one_step

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu
from gpu_parts import exact, rows, steps, study, study_plan
from gpu_parts.rounds import Contender, Length, race
from gpu_parts.settings import Settings, stop_after

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NOT_ON_THE_BOX = ("mlflow", "submitit", "typst", "yaml")
TINY = ("--dry",)


def run_script(blocked: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script as a user calls it, where the packages in `blocked` cannot be imported."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(blocked),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *arguments]
    return subprocess.run(
        command, cwd=BENCHMARKS.parent, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that makes the packages which a GPU machine lacks impossible to import."""
    folder = tmp_path_factory.mktemp("blocked")
    for name in NOT_ON_THE_BOX:
        (folder / name).mkdir()
        text = f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n"
        (folder / name / "__init__.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def tiny(blocked: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Every section in its tiny form."""
    out = tmp_path_factory.mktemp("tiny") / "figures.json"
    done = run_script(blocked, *TINY, "--out", str(out))
    figures = json.loads(out.read_text())
    sections: dict[str, list[dict[str, Any]]] = {name: [] for name in gpu.SECTIONS}
    for row in figures["rows"]:
        sections[row["section"]].append(row)
    return SimpleNamespace(done=done, figures=figures, sections=sections)


@pytest.mark.campaign
def test_every_section_runs_without_the_packages_that_a_gpu_machine_lacks(tiny: SimpleNamespace) -> None:
    assert [row for row in tiny.figures["rows"] if row["failed"]] == []
    assert {row["section"] for row in tiny.figures["rows"] if row["skipped"]} == {"tests", "waits"}
    assert tiny.done.returncode == 0, tiny.done.stderr
    assert all(tiny.sections.values())
    assert tiny.done.stdout.count("| section | measured |") == 1
    assert tiny.done.stdout.count("\n| ") == 2 + len(tiny.figures["rows"])


@pytest.mark.campaign
def test_the_header_names_versions_device_and_date(tiny: SimpleNamespace) -> None:
    about = tiny.figures["about"]
    assert about["torch"] == torch.__version__.split("+")[0] or about["torch"] == torch.__version__
    for key in ("date", "device", "python", "torch", "torchvision"):
        assert about[key] in tiny.done.stdout
    assert "figures mean nothing" in tiny.done.stdout


@pytest.mark.campaign
def test_both_precisions_resume_within_an_epoch(tiny: SimpleNamespace) -> None:
    overflow, fp16, bf16 = tiny.sections["exact"]
    assert overflow["value"] == "yes"
    assert fp16["value"] == bf16["value"] == "bit-identical"
    assert "stopped after 5 of 8 steps at loss scale" in fp16["note"]
    assert "loss scale" not in bf16["note"]


@pytest.mark.campaign
def test_throughput_is_measured_for_ours_timm_and_torchvision_with_both_flags(tiny: SimpleNamespace) -> None:
    names = {row["what"].split(": ")[1] for row in tiny.sections["resnet50"] if row["value"]}
    wanted = {
        f"{library}, {flags} flags" for library in ("timm", "torchvision") for flags in ("default", "best")
    }
    assert names == wanted | {"ours, exact", "ours, fast"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in tiny.sections["resnet50"])
    assert len(tiny.sections["compile"]) == 3


@pytest.mark.campaign
def test_the_study_takes_its_arms_from_the_plan_file_and_says_what_part_was_run(
    tiny: SimpleNamespace,
) -> None:
    wall, rate = tiny.sections["study"]
    assert "3 of 45 arms, 1 of 3 seeds, epochs x" in wall["note"]
    assert "from gpu_plan.json" in wall["note"]
    assert "3 finished" in wall["note"]
    assert rate["value"] == pytest.approx(60 * 3 / wall["value"])


@pytest.mark.campaign
def test_the_tests_that_need_a_gpu_are_found_without_what_a_gpu_machine_lacks(
    blocked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(blocked))
    row = exact.run_tests("found", [*exact.PYTEST, "--collect-only", *exact.TESTS], PATIENCE_S, tmp_path)
    assert row.failed is None
    found = (tmp_path / "tests.txt").read_text()
    assert "test_two_processes_with_gpus" in found
    assert "test_resume_on_a_gpu" in found


# What torch refuses on a GPU in the exact mode (torch.use_deterministic_algorithms), as far as a network of
# images can come to it; forward or backward.
REFUSED = (
    *("adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "max_unpool", "fractional_max_pool"),
    *("upsample_", "reflection_pad", "replication_pad", "grid_sampler_2d_backward", "nll_loss2d", "cumsum"),
    *("histc", "kthvalue", "median", "put_", "bincount", "embedding_bag", "ctc_loss", "cdist_backward"),
)


def run_of(name: str) -> RunSpec:
    args, pixels = steps.FAMILIES[name]
    return steps.spec(name, args, pixels=pixels, batch=4, precision="fp32")


@pytest.mark.parametrize("name", mostly_campaign(steps.FAMILIES, "resnet50", "mobilenet_v1", "googlenet"))
def test_torch_allows_the_operators_of_a_family_on_a_gpu_in_the_exact_mode(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernels = "_get_fused_kernels_supported_devices"
    monkeypatch.setattr(sys.modules["torch.optim.optimizer"], kernels, lambda: ["meta"])
    setup = build(run_of(name), Machine(runs_dir=tmp_path, data_dir=tmp_path, device="meta"))
    _, training = one_step(setup, 0)
    asked = [each.removeprefix("aten.").lstrip("_") for each in training.names]
    assert any("backward" in each for each in asked)
    assert not [each for each in asked if each.startswith(REFUSED)]


@pytest.mark.parametrize("name", steps.FAMILIES)
def test_every_image_within_a_network_is_channels_last(name: str) -> None:
    """Else each layer of a GPU turns its input round."""
    run, seen = run_of(name), []
    model = build_network(run, (), classes=10)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = run.arm.recipe.data.resolution
    model(torch.rand(4, 3, pixels, pixels).contiguous(memory_format=torch.channels_last))
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in seen)
    assert seen or name == "bn_mlp"


def test_tests_that_take_too_long_say_how_many_passed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Begun(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: float | None = None) -> int:
            """From the moment when it has said so."""
            assert wait_until(lambda: "FAILED" in (tmp_path / "tests.txt").read_text())
            return super().wait(timeout)

    monkeypatch.setattr(exact.subprocess, "Popen", Begun)
    text = f"print('a PASSED [1%]\\nb FAILED [2%]', flush=True); import time; time.sleep({FOREVER_S})"
    row = exact.run_tests("tests", [sys.executable, "-c", text], 0.6, tmp_path)
    assert row.failed == "ended at its bound of 1 s, 1 passed; b FAILED [2%]"


@pytest.mark.campaign
def test_without_cuda_nothing_is_measured(blocked: Path) -> None:
    done = run_script(blocked)
    assert (done.returncode, done.stdout.strip()) == (0, "not measured: no CUDA device")


@pytest.mark.campaign
def test_a_section_that_fails_says_why_in_its_row(blocked: Path, tmp_path: Path) -> None:
    done = run_script(blocked, *TINY, "--only", "study", "--plan", str(tmp_path / "absent.json"))
    assert done.returncode == 1
    assert "failed: PlanError: no plan: yaml is not installed here" in done.stdout
    assert "--write-plan" in done.stdout


def options_for(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"study_seconds": 30.0, "tiny": False, "out": None, **changes})


def test_a_section_is_ended_at_its_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(gpu.SECTIONS, "exact", gpu.Section("exact:measure", 0.2, 1))
    monkeypatch.setattr(sys, "argv", ["gpu.py", *TINY])
    [row], took_s = gpu.run_apart("exact", options_for(), tmp_path)
    assert row.failed == "ended at its bound of 0 s"
    assert took_s < PATIENCE_S


def test_a_section_whose_process_dies_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--no-such-option"])
    [row], _ = gpu.run_apart("exact", options_for(), tmp_path)
    assert "ended with 2" in row.failed
    assert "--no-such-option" in row.failed


@pytest.mark.parametrize("call", [1, 2])
def test_each_of_the_two_calls_ends_within_330_seconds(call: int) -> None:
    mine = [name for name, section in gpu.SECTIONS.items() if section.call == call]
    assert sum(gpu.bound_s(name, options_for()) for name in mine) <= 330
    assert gpu.bound_s("study", options_for(study_seconds=3600)) > 3600


def test_the_plan_file_is_what_the_study_plans_today() -> None:
    today = study_plan.plan_text(study_plan.plan_study())
    assert gpu.PLAN.read_text() == today, "write it again: python benchmarks/gpu.py --write-plan"


def test_a_plan_file_comes_back_as_it_was_written_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    plan = study_plan.read_plan(gpu.PLAN)
    copy = tmp_path / "plan.json"
    copy.write_text(study_plan.plan_text(plan))
    assert study_plan.read_plan(copy) == plan
    copy.write_text(study_plan.plan_text(plan).replace('"epochs": 30.0', '"epochs": 31.0', 1))
    with pytest.raises(study_plan.PlanError, match="does not fit its recipe"):
        study_plan.read_plan(copy)


def test_shortened_arms_keep_their_number_their_teachers_and_their_proportions() -> None:
    plan = study_plan.read_plan(gpu.PLAN)
    arms, ids = study_plan.rewrite(plan.arms, lambda recipe: study_plan.in_time(recipe, 0.1))
    assert len(arms) == len(plan.arms)
    students = [arm_id for arm_id, arm in plan.arms.items() if arm.teacher]
    assert len(students) == 10  # two on each of three networks, and four for the credit of distillation
    for arm_id, arm in plan.arms.items():
        new = arms[ids[arm_id]]
        assert new.teacher == (ids[arm.teacher] if arm.teacher else None)
        assert new.recipe.epochs == pytest.approx(0.1 * arm.recipe.epochs)
        assert new.recipe.warmup_epochs == pytest.approx(0.1 * arm.recipe.warmup_epochs)
        assert all(arm_id == each.arm_id for arm_id, each in arms.items())
    jobs = study.make_jobs(arms, seeds=2)
    assert len(jobs) == 2 * len(arms)
    assert {need for job in jobs for need in job.needs} <= {job.run_id for job in jobs}


def test_the_whole_study_is_extrapolated_from_training_time_and_runs_under_way() -> None:
    summaries = [{"train_time_s": 8.0, "wall_time_s": 10.0}, {"train_time_s": 8.0, "wall_time_s": 10.0}]
    # Both at once in 10 s. Ten times as long: 82 s a run. Three seeds: 6 runs, two at a time.
    assert study.extrapolate(summaries, 10.0, longer=10, more_seeds=3) == pytest.approx(3 * 82)
    assert study.extrapolate(summaries, 10.0, longer=1, more_seeds=1) == pytest.approx(10)


def finished(folder: Path, **changes: Any) -> RunFolder:
    recipe = Recipe(model=ModelSpec(name="resnet18"), data=DataSpec(name="generated", resolution=8))
    spec = RunSpec(arm=Arm(recipe=recipe), seed=0)
    run = RunFolder(folder / spec.run_id)
    run.path.mkdir(parents=True)
    metrics = {"top1": changes.get("top1", 1.0)}
    end(run, spec, metrics=metrics, train_loss=1.0, predictions_sha256="1")
    weights = {"a": torch.zeros(3), "b": torch.arange(2), **changes.get("weights", {})}
    write_torch_file(run.weights, weights)
    return run


def test_one_changed_bit_is_a_difference(tmp_path: Path) -> None:
    same = finished(tmp_path / "same")
    assert exact.differences(finished(tmp_path / "run"), same) == []
    nearly = {"a": torch.tensor([0.0, 0.0, 1e-45])}
    assert exact.differences(finished(tmp_path / "bit", weights=nearly), same)[0].startswith("a differs by")
    assert exact.differences(finished(tmp_path / "metrics", top1=2.0), same) == [
        "metrics: {'top1': 2.0} and {'top1': 1.0}"
    ]
    assert exact.differences(finished(tmp_path / "more", weights={"c": torch.ones(1)}), same)


def settings_in(folder: Path, **changes: Any) -> Settings:
    usual = Settings(
        device="cpu",
        tiny=False,
        folder=folder,
        stop_at_s=float("inf"),
        plan=gpu.PLAN,
        study_epochs=1,
        study_seeds=1,
        study_seconds=1,
        study_workers=1,
    )
    return replace(usual, **changes)


def test_a_run_that_is_not_resumed_is_no_comparison(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, tiny=True)
    monkeypatch.setattr(exact, "stop_after", lambda steps: stop_after(steps - 1))
    with pytest.raises(RuntimeError, match="attempts started at steps"):
        exact.compare(settings, exact.spec(settings, "bf16"), "bf16")


def contender(name: str, log: list[str], failing: bool = False) -> Contender:
    def run(steps: int) -> None:
        log.append(f"{name}{steps}")
        if failing and steps == 7:
            raise RuntimeError("out of memory\nand more")

    return Contender(what=name, run=run, flags=nullcontext)


def test_rounds_alternate_and_a_failing_contender_leaves(tmp_path: Path) -> None:
    log: list[str] = []
    added: list[rows.Row] = []
    length = Length(batch=4, warm_up_steps=3, steps=7)
    runners = [contender("A", log), contender("B", log), contender("C", log, failing=True)]
    left = race(runners, length, settings_in(tmp_path), added.append)
    assert log[:6] == ["A1", "A3", "B1", "B3", "C1", "C3"]
    assert log[6:] == ["A7", "B7", "C7", "B7", "A7", "A7", "B7", "B7", "A7", "A7", "B7", "B7", "A7"]
    assert [each.what for each in left] == ["A", "B"]
    assert all(len(each.images_per_s) == 6 for each in left)
    assert [(row.what, row.failed) for row in added] == [("C", "RuntimeError: out of memory")]


def test_a_late_section_says_that_rounds_are_missing(tmp_path: Path) -> None:
    [each] = race(
        [contender("A", [])],
        Length(batch=1, warm_up_steps=1, steps=1),
        settings_in(tmp_path, stop_at_s=0.0),
        [].append,
    )
    assert len(each.images_per_s) == 1
    assert "6 rounds were wanted" in each.note


def test_a_teacher_is_chosen_with_its_student() -> None:
    recipe = Recipe(model=ModelSpec(name="resnet50"), data=DataSpec(name="generated", resolution=8))
    teacher = Arm(recipe=recipe)
    student = replace(teacher, recipe=replace(recipe, lr=0.2), teacher=teacher.arm_id)
    arms = {arm.arm_id: arm for arm in (teacher, student)}
    plan = study_plan.StudyPlan(study="s", size="gpu", seeds=1, arms=arms)
    assert set(study_plan.with_teachers(plan, [student.arm_id])) == set(arms)
