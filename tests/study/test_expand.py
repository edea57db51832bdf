"""The plan: unique runs, in order, each with what it needs, what it costs and who shares it."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.runs.folder import RunFolder
from harness.runs.state import reconcile
from harness.spec import Arm, DataSpec, ModelSpec, Recipe, RunSpec, run_id
from harness.study.plan import Plan, plan_to_json
from tests.ended import end
from tests.study.fakes import HEAD, cells, plan_of

_RECIPE = Recipe(model=ModelSpec(name="another"), data=DataSpec(name="another", resolution=1))
_OTHER = RunSpec(arm=Arm(recipe=_RECIPE), seed=0)

CHAIN = """
arms:
  small: {model: resnet50, add: cosine}
  middle: {from: small, add: {distillation: {teacher: large}}}
  large: {model: resnet152}
tables:
  t:
    title: T
    design: rows
    rows:
      - {label: student, add: {distillation: {teacher: middle}}}
      - {label: plain}
      - {label: plain again}
      - {label: quoted, cite: true, paper: {top1: 70, status: verified}}
"""


def check_order(plan: Plan) -> None:
    """Ids are unique, seeds come one after another, and what a run needs comes before it, with its seed."""
    ids = [run.run_id for run in plan.runs]
    assert len(set(ids)) == len(ids) == len(plan.arms) * len(plan.seeds)
    assert [run.seed for run in plan.runs] == sorted(run.seed for run in plan.runs)
    earlier: set[str] = set()
    for run in plan.runs:
        assert set(run.needs) <= earlier
        teacher = plan.arms[run.arm_id].teacher
        assert run.needs == (() if teacher is None else (run_id(teacher, run.seed),))
        assert run.run_id == plan.spec(run).run_id
        earlier.add(run.run_id)


def test_teachers_of_teachers_come_first_and_have_the_seed_of_the_student(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + CHAIN)
    check_order(plan)
    labels = [plan.arm_labels[run.arm_id] for run in plan.runs if run.seed == 1]
    assert labels == ["teacher / large", "teacher / middle", "t / student", "t / plain"]


def test_rows_with_the_same_numbers_are_trained_once(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + CHAIN)
    found = cells(plan, "t")
    assert found["plain", None].arm_id == found["plain again", None].arm_id
    assert found["quoted", None].arm_id is None
    totals = plan_to_json(plan)["totals"]
    assert (totals["cells"], totals["arms"], totals["runs"]) == (4, 4, 8)
    assert totals["shared_runs_saved"] == 2  # 1 row x 2 seeds


def test_a_row_more_adds_only_its_own_runs(tmp_path: Path) -> None:
    before = {run.run_id for run in plan_of(tmp_path, HEAD + CHAIN).runs}
    after = {
        run.run_id for run in plan_of(tmp_path, HEAD + CHAIN + "      - {label: new, add: mixup}\n").runs
    }
    assert before < after
    assert len(after - before) == 2


def test_more_seeds_keep_the_runs_there_are(tmp_path: Path) -> None:
    two = [run.run_id for run in plan_of(tmp_path, HEAD + CHAIN).runs]
    five = [run.run_id for run in plan_of(tmp_path, HEAD + CHAIN, seeds=5).runs]
    assert five[: len(two)] == two
    assert len(five) == 4 * 5


def test_cost_is_three_forward_passes_of_every_image_of_every_epoch(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + CHAIN, size="gpu")
    # 16 blocks x 1000 multiply-adds, 50,000 images, 30 epochs
    assert {run.macs for run in plan.runs} == {3 * 16_000 * 50_000 * 30}


def test_a_folder_whose_images_are_not_counted_yet_is_said_in_the_notes(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD.replace("cifar10", "folder") + CHAIN, size="gpu")
    assert {run.macs for run in plan.runs} == {0.0}
    assert any("how many images folder has is not known" in note for note in plan.notes)


def test_generated_pixels_are_kept_out_of_reports_by_a_note(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD.replace("cifar10", "generated") + CHAIN, size="gpu")
    assert any("belong in no report" in note for note in plan.notes)


def test_the_plan_as_json_has_its_documented_keys(tmp_path: Path) -> None:
    data = json.loads(json.dumps(plan_to_json(plan_of(tmp_path, HEAD + CHAIN))))
    assert list(data) == [
        "schema", "study", "size", "header", "seeds", "looks", "arm_seeds", "notes", "claims", "tables",
        "arms", "runs", "totals",
    ]  # fmt: skip
    assert list(data["tables"][0]) == [
        "key",
        "title",
        "design",
        "columns",
        "note",
        "target",
        "control",
        "cells",
    ]
    assert data["tables"][0]["cells"][3] == {
        "row": "quoted",
        "column": None,
        "arm_id": None,
        "tricks": [],
        "versus": None,
        "paper": {"top1": {"value": 70.0, "status": "verified"}},
        "paper_versus": None,
        "note": None,
        "may_fail": False,
    }
    (arm,) = [arm for arm in data["arms"].values() if arm["label"] == "t / student"]
    assert list(arm) == ["label", "recipe", "tricks", "teacher", "source", "observes", "plugins"]
    assert arm["tricks"] == [{"name": "distillation", "options": {"temperature": 20.0}}]
    assert arm["teacher"] in data["arms"]
    assert set(data["runs"][0]) == {"run_id", "arm_id", "seed", "needs", "macs", "time_s", "rough", "done"}
    assert list(data["totals"]) == ["cells", "arms", "runs", "done", "macs", "time_s", "shared_runs_saved"]
    assert data["header"]["size_line"] == 6


def _record(runs: Path, run: RunSpec | str, status: str = "finished", **values: object) -> None:
    """The record of a planned run, or of one of another name that no study knows."""
    spec = _OTHER if isinstance(run, str) else run
    name = run if isinstance(run, str) else spec.run_id
    summary = {
        "run_id": name,
        "macs": 16_000,
        "images_seen": 1_000,
        "train_time_s": 2.0,
        "model": "resnet50",
        "precision": "fp32",
        "batch_size": 32,
    }
    end(RunFolder(runs / name), spec, status, **{**summary, **values})


def test_reconcile_marks_outcomes_and_estimates_from_the_most_alike_records(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + CHAIN)
    runs = tmp_path / "runs"
    by_label = {plan.arm_labels[run.arm_id]: run for run in plan.runs if run.seed == 0}
    plain, student, large = by_label["t / plain"], by_label["t / student"], by_label["teacher / large"]
    _record(runs, plan.spec(plain))  # 3 x 16,000 x 1,000 / 2 s = 24e6 multiply-adds a second
    _record(runs, plan.spec(student), status="failed", train_time_s=0.001)
    _record(runs, "of another study", train_time_s=4.0)  # 12e6
    _record(runs, "another model", model="vgg", train_time_s=8.0)  # 6e6
    (runs / "not a run").mkdir()
    reconcile(plan, runs)
    assert (plain.done, plain.time_s) == (True, 2.0)
    assert not student.done
    assert student.time_s == student.macs / 18e6  # median of the two with this model, precision and batch
    assert large.time_s == large.macs / 12e6  # no record of resnet152: median of all with its precision
    large.macs = 0.0  # of files that nobody has counted
    reconcile(plan, runs)
    assert large.time_s is None
    assert plan_to_json(plan)["totals"]["done"] == 1


def test_a_diverged_run_is_done_and_a_broken_record_is_not(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + CHAIN)
    runs = tmp_path / "runs"
    _record(runs, plan.spec(plan.runs[0]), status="diverged")
    _record(runs, plan.spec(plan.runs[1]))
    RunFolder(runs / plan.runs[1].run_id).summary.write_text("{")
    reconcile(plan, runs)
    assert [run.done for run in plan.runs[:3]] == [True, False, False]
    assert {run.time_s for run in plan.runs[1:]} == {None}  # a diverged run says nothing about speed


def test_reconcile_without_any_runs_leaves_the_plan_as_it_is(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + CHAIN)
    reconcile(plan, tmp_path / "nowhere")
    assert not any(run.done or run.time_s is not None for run in plan.runs)
    assert not (tmp_path / "nowhere").exists()


TRICKS = (
    "cosine",
    "mixup",
    "{label_smoothing: {eps: 0.2}}",
    "zero_gamma",
    "{distillation: {teacher: middle}}",
)
ROWS = st.lists(
    st.tuples(st.lists(st.sampled_from(TRICKS), unique=True, max_size=5), st.sampled_from([64, 128, 256])),
    min_size=1,
    max_size=6,
)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(ROWS, st.integers(1, 4), st.sampled_from(["rows", "stack"]), st.booleans())
def test_any_study_expands_to_unique_ordered_runs_the_same_way_twice(
    tmp_path: Path, rows: list[tuple[list[str], int]], seeds: int, design: str, smoke: bool
) -> None:
    taken: set[str] = set()
    text = CHAIN[: CHAIN.index("tables:")] + f"tables:\n  t:\n    title: T\n    design: {design}\n    rows:\n"
    for index, (tricks, batch) in enumerate(rows):
        fresh = [trick for trick in tricks if design == "rows" or trick not in taken]
        taken.update(fresh)
        text += f"      - {{label: r{index}, add: [{', '.join(fresh)}], set: {{batch_size: {batch}}}}}\n"
    plan = plan_of(tmp_path, HEAD + text, seeds=seeds, smoke=smoke)
    check_order(plan)
    assert plan_to_json(plan_of(tmp_path, HEAD + text, seeds=seeds, smoke=smoke)) == plan_to_json(plan)
