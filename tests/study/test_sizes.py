"""What a size does to numbers, worked out by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from harness.commands.workspace import build_catalogue
from harness.errors import StudyError
from harness.spec import Recipe
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.plan import Plan
from harness.study.sizes import Scale
from harness.study.yaml import read_source, shipped_studies
from tests.study.fakes import HEAD, cells, plan_of, write

TABLE = """
tables:
  t:
    title: T
    design: rows
    rows:
      - {label: baseline}
      - {label: big, set: {batch_size: 1024}, add: [linear_lr_scaling, {warmup: {epochs: 5}}]}
      - {label: long, set: {epochs: 200}, add: mixup}
      - {label: row wins, set: {flip: 0.1}}
"""


def recipe_of(plan: Plan, row: str) -> Recipe:
    arm_id = cells(plan, "t")[row, None].arm_id
    assert arm_id is not None
    return plan.arms[arm_id].recipe


OWN = """study: small
question: Does it work?
baseline:
  model: resnet50
  recipe: bag_of_tricks_baseline
  set: {data: cifar10, resolution: 32, epochs: 30}
"""
ONE_SIZE = """study: small
question: Does it work?
baseline: {model: resnet50, recipe: bag_of_tricks_baseline, set: {epochs: 30}}
sizes:
  lab: {data: cifar10, resolution: 32, epochs: 30}
"""


def test_one_size_of_any_name_is_enough_and_is_meant_where_nobody_says_one(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ONE_SIZE + TABLE, size="")
    assert plan.size == "lab"
    with pytest.raises(StudyError, match=r"unknown size 'mini'\. Valid: lab"):
        plan_of(tmp_path, ONE_SIZE + TABLE, size="mini")


def test_numbers_are_read_as_people_write_them(tmp_path: Path):
    written = ONE_SIZE.replace("epochs: 30}\n", "epochs: 1/2, train_images: 2k, smallest_effect: 1/4}\n")
    written = written.replace("sizes:", "seeds: 3\nsizes:")
    plain = written.replace("1/2", "0.5").replace("2k", "2000").replace("1/4", "0.25")
    assert plain != written
    table = TABLE.replace("batch_size: 1024", "batch_size: 1k, lr: 3/20")
    plans = [plan_of(tmp_path, text, size="lab") for text in (written + table, plain + table)]
    ids = [[run.run_id for run in plan.runs] for plan in plans]
    assert ids[0] == ids[1]
    assert plans[0].header["smallest_effect"] == 0.25
    recipe = recipe_of(plans[0], "big")
    assert (recipe.batch_size, recipe.epochs) == (1000, 0.5)
    for wrong in ("1.2345k", "2km", "2 k k", "1/0"):
        with pytest.raises(StudyError, match=f"train_images must be a whole number, got '{wrong}'"):
            plan_of(tmp_path, written.replace("2k", wrong) + table, size="lab")


def test_without_sizes_the_numbers_of_the_study_are_the_only_ones(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, OWN + TABLE, size="")
    assert plan.size == "all"
    assert recipe_of(plan, "baseline").epochs == 30.0
    assert recipe_of(plan, "baseline").data.name == "cifar10"
    assert recipe_of(plan, "long").epochs == 200.0, "nothing is scaled"
    assert plan.arms.keys() == plan_of(tmp_path, ONE_SIZE + TABLE, size="").arms.keys(), "runs are the same"
    assert plan.header["size_line"] == 6
    assert not any("time:" in note for note in plan.notes)


def test_the_shipped_studies_have_the_three_sizes_that_reports_and_docs_name() -> None:
    for path in sorted(shipped_studies().glob("*.yaml")):
        source = read_source(path, [])
        assert {"mini", "gpu", "paper"} <= source.data["sizes"].keys(), path.name


def test_the_paper_size_is_the_paper(tmp_path: Path) -> None:
    recipe = recipe_of(plan_of(tmp_path, HEAD + TABLE, size="paper"), "baseline")
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (120.0, 256, 0.1)
    assert recipe.milestones == (30.0, 60.0, 90.0)
    assert (recipe.data.name, recipe.data.resolution) == ("imagenet", 224)


def test_mini_scales_time_and_batches_and_leaves_learning_rates(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + TABLE, size="mini")
    baseline, big = recipe_of(plan, "baseline"), recipe_of(plan, "big")
    # 120 -> 4 epochs: x 1/30; 256 -> 32 images: x 1/8
    assert (baseline.epochs, baseline.milestones) == (4.0, (1.0, 2.0, 3.0))
    assert (baseline.batch_size, baseline.lr) == (32, 0.1)
    # 1024 -> 128 images; lr = 0.1 * 1024 / 256 in the paper's units, that is 0.1 * 128 / 32 here
    assert (big.batch_size, big.lr) == (128, 0.4)
    assert big.warmup_epochs == pytest.approx(5 / 30, rel=1e-15)


def test_two_hundred_epochs_stay_five_thirds_of_one_hundred_and_twenty(tmp_path: Path) -> None:
    for size in ("mini", "gpu", "paper"):
        plan = plan_of(tmp_path, HEAD + TABLE, size=size)
        ratio = recipe_of(plan, "long").epochs / recipe_of(plan, "baseline").epochs
        assert math.isclose(ratio, 5 / 3, rel_tol=1e-15)


def test_a_size_sets_models_and_the_baseline_but_a_row_wins(tmp_path: Path) -> None:
    head = HEAD.replace(
        "batch_scale: 1/8}",
        "batch_scale: 1/8, models: {resnet50: {width: 0.5, depth: [1, 1, 1, 1]}},"
        " set: {crop_area: [0.4, 1], flip: 0.3}, train_images: 600, test_images: 100}",
    )
    plan = plan_of(tmp_path, head + TABLE)
    baseline = recipe_of(plan, "baseline")
    assert baseline.model.args["width"] == 0.5
    assert baseline.model.args["depth"] == (1, 1, 1, 1)
    assert baseline.augment.crop_area == (0.4, 1.0)
    assert (baseline.augment.flip, recipe_of(plan, "row wins").augment.flip) == (0.3, 0.1)
    assert (baseline.data.train_images, baseline.data.test_images) == (600, 100)
    # 3 x 4 blocks x 1000 multiply-adds x 600 images x 4 epochs
    assert plan.runs[0].macs == 3 * 4000 * 600 * 4


ARMS = """
arms:
  short: {set: {epochs: 60, flip: 0.2}}
  shorter: {from: short, add: mixup}
tables:
  t:
    title: T
    design: rows
    start_from: short
    rows:
      - {label: short}
      - {label: shorter, start_from: shorter}
      - {label: row wins, set: {epochs: 90}}
      - {label: baseline, start_from: baseline}
"""


def test_a_size_sets_named_arms_in_the_papers_units(tmp_path: Path) -> None:
    rows = ("short", "shorter", "row wins", "baseline")
    plain = plan_of(tmp_path, HEAD + ARMS)
    assert [recipe_of(plain, row).epochs for row in rows] == [2.0, 2.0, 3.0, 4.0]  # 120 -> 4 epochs: x 1/30
    head = HEAD.replace("batch_scale: 1/8}", "batch_scale: 1/8, arms: {short: {epochs: 30}}}")
    assert head != HEAD
    plan = plan_of(tmp_path, head + ARMS)
    assert [recipe_of(plan, row).epochs for row in rows] == [1.0, 1.0, 3.0, 4.0]
    assert [recipe_of(plan, row).augment.flip for row in rows] == [0.2, 0.2, 0.2, 0.5]
    assert "arm short at this size: epochs = 30.0, in the paper's units" in plan.notes
    elsewhere = [plan_of(tmp_path, text + ARMS, size="gpu") for text in (HEAD, head)]
    assert elsewhere[0].arms.keys() == elsewhere[1].arms.keys()


def test_the_baseline_of_a_size_is_scaled_and_not_set(tmp_path: Path) -> None:
    for field, key in (("epochs", "epochs"), ("batch_size", "batch_scale")):
        head = HEAD.replace("batch_scale: 1/8}", f"batch_scale: 1/8, set: {{{field}: 3}}}}")
        with pytest.raises(StudyError, match=f"a size does not set {field}; it scales it by its key '{key}'"):
            plan_of(tmp_path, head + ARMS)


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ("{shrt: {epochs: 30}}", "unknown arm 'shrt'; did you mean 'short'? Valid: short, shorter"),
        ("{baseline: {lr: 1}}", "what the baseline has at this size is the size's own 'set'"),
        ("{short: {epoch: 30}}", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("{short: {model: resnet5}}", "unknown model 'resnet5'; did you mean 'resnet50'?"),
    ],
)
def test_a_size_that_sets_what_is_not_there_is_told_so(tmp_path: Path, arms: str, words: str) -> None:
    head = HEAD.replace("batch_scale: 1/8}", f"batch_scale: 1/8, arms: {arms}}}")
    with pytest.raises(StudyError) as caught:
        plan_of(tmp_path, head + ARMS)
    assert words in str(caught.value)
    assert len(caught.value.problems) == 1


def test_a_replaced_trick_is_said_with_its_reason(tmp_path: Path) -> None:
    head = HEAD.replace(
        "batch_scale: 1/8}", "batch_scale: 1/8, replace: {fp16: {by: bf16, because: no FP16 here}}}"
    )
    text = "tables: {t: {title: T, design: rows, rows: [{label: half, add: fp16}]}}"
    plan = plan_of(tmp_path, head + text)
    assert cells(plan, "t")["half", None].tricks == ("bf16",)
    assert recipe_of(plan, "half").precision == "bf16"
    assert "fp16 is replaced by bf16 at this size: no FP16 here" in plan.notes
    assert recipe_of(plan_of(tmp_path, head + text, size="gpu"), "half").precision == "fp16"


def test_a_trick_has_the_options_of_the_size_over_those_of_its_row(
    tmp_path: Path,
) -> None:
    teacher = "arms: {big: {}}\n"
    table = (
        "tables: {t: {title: T, design: rows, rows: [{label: taught,"
        " add: {distillation: {temperature: 20, teacher: big}}}]}}"
    )
    options = "{distillation: {options: {temperature: 2}, because: ten classes}}"
    head = HEAD.replace("batch_scale: 1/8}", f"batch_scale: 1/8, replace: {options}}}")
    plan = plan_of(tmp_path, head + teacher + table)
    assert _distillation(plan)["temperature"] == 2.0
    assert "distillation has temperature = 2 at this size: ten classes" in plan.notes
    assert _distillation(plan_of(tmp_path, head + teacher + table, size="gpu"))["temperature"] == 20.0


def _distillation(plan: Plan) -> Mapping[str, Any]:
    (trick,) = plan.arms[cells(plan, "t")["taught", None].arm_id or ""].tricks
    return trick.options


def test_labels_that_a_design_makes_leave_out_what_another_size_has_otherwise(tmp_path: Path) -> None:
    """A row has one label at every size, and each says what was run."""
    tricks = "[cosine, {label_smoothing: {eps: 0.1}}, {mixup: {alpha: 0.2}}]"
    end = (
        '    paper: {"+ label_smoothing": {top1: 80.0, status: verified}}\n'
        "claims:\n  - {says: it helps, source: Sec. 1, table: t, row: + label_smoothing,"
        " versus: baseline, measure: top1, expect: higher}\n"
    )
    study = f"tables:\n  t:\n    title: T\n    design: both_ends\n    tricks: {tricks}\n{end}"
    options = "batch_scale: 1/8, replace: {label_smoothing: {options: {eps: 0.3}, because: few classes}}}"
    head = HEAD.replace("batch_scale: 1/8}", options)
    for size in ("mini", "gpu"):
        plan = plan_of(tmp_path, head + study, size=size)
        found = [(cell.row, cell.versus) for cell in plan.tables[0].cells]
        assert found[2:4] == [("+ label_smoothing", "baseline"), ("+ mixup (alpha=0.2)", "baseline")]
        assert found[-2:] == [("without label_smoothing", "all"), ("without mixup (alpha=0.2)", "all")]
        assert plan.claims[0].row == plan.tables[0].cells[2].row


def test_two_tricks_that_only_such_an_option_tells_apart_keep_it(tmp_path: Path) -> None:
    tricks = "[{label_smoothing: {eps: 0.1}}, {label_smoothing: {eps: 0.2}}]"
    study = f"tables:\n  t:\n    title: T\n    design: add_one_in\n    tricks: {tricks}\n"
    options = "batch_scale: 1/8, replace: {label_smoothing: {options: {eps: 0.3}, because: few classes}}}"
    rows = [
        cell.row
        for cell in plan_of(tmp_path, HEAD.replace("batch_scale: 1/8}", options) + study).tables[0].cells
    ]
    assert rows == ["baseline", "+ label_smoothing (eps=0.1)", "+ label_smoothing (eps=0.2)"]


@pytest.mark.parametrize(
    ("replacement", "words"),
    [
        ("{because: x}", "must have either 'by', another trick, or 'options' that the trick has here"),
        ("{by: bf16, options: {a: 1}, because: x}", "must have either 'by'"),
        ("{options: {temperatur: 2}, because: x}", "did you mean 'temperature'?"),
        ("{options: {temperature: 2}}", "missing key 'because'"),
        ("{options: {teacher: big}, because: x}", "the teacher is an arm, which rows name, not a size"),
    ],
)
def test_wrong_options_of_a_size_are_refused_once(tmp_path: Path, replacement: str, words: str) -> None:
    head = HEAD.replace("batch_scale: 1/8}", f"batch_scale: 1/8, replace: {{distillation: {replacement}}}}}")
    table = (
        "arms: {big: {}}\ntables: {t: {title: T, design: rows,"
        " rows: [{label: taught, add: {distillation: {teacher: big}}}]}}"
    )
    with pytest.raises(StudyError) as caught:
        plan_of(tmp_path, head + table)
    assert words in str(caught.value)
    assert len(caught.value.problems) == 1


def test_a_smoke_run_is_short_small_and_says_so(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HEAD + TABLE, size="paper", smoke=True)
    assert plan.seeds == (0, 1)
    asked = plan_of(tmp_path, HEAD + TABLE, size="paper", smoke=True, seeds=3)
    assert asked.seeds == (0, 1, 2), "who says how many seeds gets them"
    assert recipe_of(plan, "long").epochs == pytest.approx(1.0)
    assert recipe_of(plan, "baseline").epochs == pytest.approx(120 / 200)
    assert {arm.recipe.data.train_images for arm in plan.arms.values()} == {256}
    assert {arm.recipe.data.test_images for arm in plan.arms.values()} == {256}
    assert plan.notes[0] == "smoke run: shows that everything runs; its numbers mean nothing"


def test_the_plan_states_the_rules_with_their_numbers(tmp_path: Path) -> None:
    assert plan_of(tmp_path, HEAD + TABLE).notes == (
        "data: fashion_mnist at 32 x 32 pixels",
        "time: epochs, milestones and warm-up x 1/30 (baseline 120 -> 4 epochs)",
        "batches: x 1/8 (baseline 256 -> 32); learning rates unchanged,"
        " the linear rule's reference batch scales along",
    )


def test_times_and_images_of_new_fields_scale_and_the_others_stay(tmp_path: Path) -> None:
    row = (
        "{label: a, set: {schedule: exponential, decay_every: 15, norm_images: 20, clip_norm: 2,"
        " warmup_lr: 1, auxiliary_weight: 1, curve_points: 4, eval_crops: 10}}"
    )
    text = HEAD + f"tables: {{t: {{title: T, design: rows, rows: [{row}, {{label: b}}]}}}}\n"
    plan = plan_of(tmp_path, text, size="mini")
    recipe = recipe_of(plan, "a")
    # 120 -> 4 epochs: x 1/30; images x 1/8, rounded up
    assert (recipe.decay_every, recipe.norm_images) == (0.5, 3)
    assert (recipe.clip_norm, recipe.warmup_lr, recipe.auxiliary_weight) == (2.0, 1.0, 1.0)
    assert (recipe.curve_points, recipe.eval_crops) == (4, 10)
    assert recipe_of(plan, "b").norm_images == 0
    assert recipe_of(plan_of(tmp_path, text, size="paper"), "a").decay_every == 15.0
    types = get_type_hints(Recipe)
    for row_recipe in (recipe, recipe_of(plan, "b")):
        for name in (each.name for each in dataclasses.fields(Recipe)):
            if types[name] in (int, float, str):
                assert type(getattr(row_recipe, name)) is types[name], name


def test_the_smallest_group_of_batch_norm_is_one_image() -> None:
    scale = Scale(epochs=1.0, baseline_epochs=1.0, batch=Fraction(1, 64))
    assert [scale.norm_images(images, batch_size=256) for images in (0, 1, 64, 65)] == [0, 1, 1, 2]


def test_a_share_of_the_batch_follows_the_batch(tmp_path: Path) -> None:
    """8 workers: 32 images of 256, 128 of 1,024, and at a batch scale of 1/8 an eighth of each."""
    rows = "{label: a, set: {norm_images: 1/8}}, {label: b, set: {norm_images: 1/8, batch_size: 1024}}"
    text = HEAD + f"tables: {{t: {{title: T, design: rows, rows: [{rows}]}}}}\n"
    for size, images in (("paper", [32, 128]), ("mini", [4, 16])):
        plan = plan_of(tmp_path, text, size=size)
        found = [recipe_of(plan, row).norm_images for row in "ab"]
        assert found == images
        assert {type(each) for each in found} == {int}


@pytest.mark.parametrize("wrong", ["-1", "2/8", "1/0", "0.5", "many", "true", "[1]"])
def test_what_is_neither_images_nor_a_share_is_refused_in_words(tmp_path: Path, wrong: str) -> None:
    row = f"{{label: a, set: {{norm_images: {wrong}}}}}"
    with pytest.raises(StudyError, match=r"set\.norm_images must be a whole number of images, or a share of"):
        plan_of(tmp_path, HEAD + f"tables: {{t: {{title: T, design: rows, rows: [{row}]}}}}\n")


def test_whole_numbers_stay_whole() -> None:
    scale = Scale(epochs=8.0, baseline_epochs=120.0, batch=Fraction(1, 4))
    assert [scale.time(epochs) for epochs in (15, 30, 60, 90, 120)] == [1.0, 2.0, 4.0, 6.0, 8.0]
    assert scale.batch_size(1024) == 256
    with pytest.raises(
        ValueError, match=r"^batch_size 6 x batch_scale 1/4 = 1.5 is not a whole number of images$"
    ):
        scale.batch_size(6)


def test_a_size_scales_every_learning_rate_and_where_a_warmup_starts(tmp_path: Path) -> None:
    rows = (
        "[{label: a}, {label: b, set: {lr: 0.4}, add: {warmup: {epochs: 5, start_lr: 0.2}}}, {label: c,"
        " set: {batch_size: 1024}, add: [linear_lr_scaling, {constant_warmup: {epochs: 5, lr: 0.1}}]}]"
    )
    study = f"tables: {{t: {{title: T, design: rows, rows: {rows}}}}}\n"
    catalogue, plans = build_catalogue(tmp_path), []
    for scale in ("", ", rate_scale: 1/4"):
        file = write(tmp_path, HEAD.replace("batch_scale: 1/8}", f"batch_scale: 1/8{scale}}}") + study)
        plans.append(expand(load_study(file, catalogue), catalogue, ExpandOptions()))
    of_paper, here = ([plan.arms[c.arm_id or ""].recipe for c in plan.tables[0].cells] for plan in plans)
    assert [(recipe.lr, recipe.warmup_lr) for recipe in here] == [(0.025, 0), (0.1, 0.05), (0.1, 0.025)]
    for was, recipe in zip(of_paper, here, strict=True):
        assert dataclasses.replace(recipe, lr=was.lr, warmup_lr=was.warmup_lr) == was
    assert "learning rates: all x 1/4 (baseline 0.1 -> 0.025)" in plans[1].notes


def test_a_size_may_have_its_own_metric_which_claims_without_a_measure_follow(tmp_path: Path) -> None:
    head = HEAD.replace("batch_scale: 1/8}", "batch_scale: 1/8, metric: top5}") + TABLE
    text = head + "claims: [{says: S, source: Z, table: t, row: big, versus: baseline, expect: higher}]\n"
    mini, gpu = plan_of(tmp_path, text), plan_of(tmp_path, text, size="gpu")
    assert (mini.header["metric"], mini.claims[0].measure) == ("top5", "top5")
    assert (gpu.header["metric"], gpu.claims[0].measure) == ("top1", "top1")
    assert "the metric is top5 at this size, top1 in the study" in mini.notes


def test_an_unknown_metric_of_a_size_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="unknown metric 'top6'; did you mean 'top5'"):
        plan_of(tmp_path, HEAD.replace("batch_scale: 1/8}", "batch_scale: 1/8, metric: top6}") + TABLE)
