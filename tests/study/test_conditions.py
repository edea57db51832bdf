"""What a study declares about its own power to tell, and what its plan can know before the first run."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from harness.commands.workspace import build_catalogue
from harness.data import DATASETS
from harness.errors import StudyError
from harness.spec import DataSpec, ModelSpec, Recipe
from harness.study.conditions import below_so_far, dose_of, foreseen, setting_of, updates_per_epoch
from harness.study.declaration import amendments, declaration_of
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.plan import Claim
from harness.training.feed import count_steps_per_epoch
from harness.training.optim import make_schedule

STUDY = """\
study: able
question: Can it tell?
baseline: {model: resnet50, recipe: bag_of_tricks_baseline}
sizes:
  mini:
    data: fashion_mnist
    resolution: 32
    train_images: 8000
    epochs: EPOCHS
    batch_scale: 1/8
    models: {resnet50: {width: 0.125, depth: [1, 1, 1]}}
  gpu: {data: cifar10, resolution: 64, epochs: 30, batch_scale: 1/2}
  paper: {data: imagenet, resolution: 224, epochs: 120}
tables:
  t:
    title: The table
    design: rows
    CONTROL
    rows:
      - {label: base, paper: {top1: 77, status: verified}}
      - {label: half, set: {epochs: 60}}
      - {label: smooth, add: label_smoothing}
      - {label: fails, set: {lr: 3}MAY_FAIL}
"""


def plan(tmp_path: Path, *, control: str = "", may_fail: str = "", epochs: int = 8, **options):
    text = STUDY.replace("EPOCHS", str(epochs)).replace("MAY_FAIL", may_fail)
    text = text.replace("    CONTROL\n", f"    control: {control}\n" if control else "")
    file = tmp_path / "able.yaml"
    file.write_text(text)
    catalogue = build_catalogue(tmp_path)
    return expand(load_study(file, catalogue), catalogue, ExpandOptions(**options))


def refusal(tmp_path: Path, **given) -> str:
    with pytest.raises(StudyError) as caught:
        plan(tmp_path, **given)
    return str(caught.value)


def test_a_control_names_a_comparison_of_its_table(tmp_path):
    assert plan(tmp_path).tables[0].control is None
    assert plan(tmp_path, control="{row: half}").tables[0].control == ("half", "base")
    assert plan(tmp_path, control="{row: half, versus: base}").tables[0].control == ("half", "base")


@pytest.mark.parametrize(
    ("control", "says"),
    [
        ("{row: hlaf}", "unknown row 'hlaf'; did you mean 'half'?"),
        ("{row: half, versus: bsae}", "unknown row 'bsae'; did you mean 'base'?"),
        ("{row: half, versus: half}", "the control compares row 'half' with itself"),
        ("{row: base}", "row 'base' is compared with no row; name one that is"),
        (
            "{row: half, versus: smooth}",
            "row 'half' is compared with 'base' in this table, not with 'smooth'",
        ),
        ("{versus: base}", "missing key 'row'"),
        ("half", "must be a map"),
    ],
)
def test_a_control_that_is_none(tmp_path, control, says):
    assert says in refusal(tmp_path, control=control)


def test_a_table_with_a_control_must_be_able_to_tell(tmp_path):
    """8,000 images at batch 32 are 250 updates an epoch: 3 epochs are 750, half of that 375."""
    says = refusal(tmp_path, control="{row: half}", epochs=3)
    assert "a table with a control must be able to tell, but 'half' is trained for 375 updates" in says
    assert "fewer than 500" in says
    assert plan(tmp_path, control="{row: half}", epochs=3, smoke=True).tables[0].control


def test_a_control_of_one_recipe(tmp_path):
    text = STUDY.replace("set: {epochs: 60}", "set: {epochs: 120}").replace("EPOCHS", "8")
    file = tmp_path / "able.yaml"
    file.write_text(text.replace("MAY_FAIL", "").replace("CONTROL", "control: {row: half}"))
    catalogue = build_catalogue(tmp_path)
    with pytest.raises(StudyError, match="'half' and 'base' are one recipe"):
        expand(load_study(file, catalogue), catalogue, ExpandOptions())


def test_a_row_may_fail_where_the_paper_prints_its_failure(tmp_path):
    printed = ", may_fail: true, paper: {top1: 30, status: verified}"
    cells = plan(tmp_path, may_fail=printed).tables[0].cells
    assert [cell.may_fail for cell in cells] == [False, False, False, True]
    assert "give its printed value" in refusal(tmp_path, may_fail=", may_fail: true")
    near = ", may_fail: true, paper: {top1: 76.5, status: verified}"
    says = "row 'fails' may fail, but the paper prints no failure of it: 76.5 % against 77 %"
    assert says in refusal(tmp_path, may_fail=near)


def test_what_is_declared_is_part_of_the_plan_hash_and_nothing_else_changes_it(tmp_path):
    bare = declaration_of(plan(tmp_path))
    assert "control" not in bare["tables"][0]
    assert not any("may_fail" in row for row in bare["tables"][0]["rows"])
    with_control = declaration_of(plan(tmp_path, control="{row: half}"))
    assert amendments(bare, with_control) == ["control of t none → “half” over “base”"]


def test_the_updates_are_those_that_training_makes():
    recipe = Recipe(
        model=ModelSpec(name="x"), data=DataSpec(name="x", resolution=8), epochs=7.5, batch_size=96,
        warmup_epochs=1.3, milestones=(2.0, 5.0, 7.4),
    )  # fmt: skip
    assert updates_per_epoch(1000, 96) == count_steps_per_epoch(1000, 96)
    schedule = make_schedule(recipe, steps_per_epoch=10)
    dose = dose_of(recipe, 10)
    assert (dose.updates, dose.warmup) == (schedule.total_steps, schedule.warmup_steps)
    ends = [schedule.warmup_steps, *schedule.milestone_steps, schedule.total_steps]
    assert dose.shortest_phase == min(end - start for start, end in pairwise(ends))


def test_a_plan_says_what_cannot_be_tested_whatever_its_runs_come_to(tmp_path):
    def images(spec):
        return spec.train_images or DATASETS[spec.name].facts(spec.args)[1]

    assert foreseen(plan(tmp_path), images) == []
    (line,) = foreseen(plan(tmp_path, epochs=1), images)
    assert line == (
        "cannot be tested at this size: 3 of 3 comparisons: runs of fewer than 500 updates (the shortest has "
        "125) (t / half, t / smooth, t / fails)"
    )


def test_a_plan_says_where_no_headroom_can_be_left(tmp_path):
    """From the floor, where it was measured before, and the number of classes; `fails` may be below it."""

    def images(spec):
        return spec.train_images or DATASETS[spec.name].facts(spec.args)[1]

    printed = ", may_fail: true, paper: {top1: 30, status: verified}"
    found = plan(tmp_path, may_fail=printed)
    found = replace(found, header={**found.header, "smallest_effect": 1.0})
    data = next(iter(found.arms.values())).recipe.data
    floor = {
        "setting": setting_of(data),
        "problem": None,
        "chance": 10.0,
        "guessing": 10.0,
        "neighbours": 80.0,
    }
    for linear, lines in ((89.0, []), (93.0, ["t / half, t / smooth"])):
        said = foreseen(found, images, lambda _: 10, [{**floor, "linear": linear}])
        least = f"top-1 is {linear} % at the least on these data"
        needed = "10 times the smallest effect of interest, 10 pp, must be left"
        start = "cannot be tested at this size: 2 of 3 comparisons: no headroom"
        assert said == [f"{start}: {least}, and {needed} ({rows})" for rows in lines]
    top5 = replace(found, header={**found.header, "metric": "top5"})
    assert foreseen(top5, images, lambda _: 10) == []
    (line,) = foreseen(top5, images, lambda _: 5)
    assert "3 of 3 comparisons: no headroom: top-5 is 100.0 % at the least" in line


def test_a_plan_says_which_claims_cannot_be_tested(tmp_path):
    """A claim's two rows need not be those of a comparison."""

    def images(spec):
        return spec.train_images or DATASETS[spec.name].facts(spec.args)[1]

    claim = Claim(says="it helps", source="Sec. 1", table="t", row="smooth", versus="half")
    short = replace(plan(tmp_path, epochs=3), claims=(claim,))
    says = "runs of fewer than 500 updates (the shortest has 375)"
    assert f"the claim “it helps” cannot be tested at this size: {says}" in foreseen(short, images)
    lost = replace(plan(tmp_path), claims=(replace(claim, measure="train_loss", versus="base"),))
    assert foreseen(lost, images) == [
        "the claim “it helps” cannot be tested at this size: by construction: label_smoothing changes what"
        " the training loss is measured against"
    ]


@pytest.mark.parametrize(
    ("top1", "says"),
    [
        ({"base": 90.0, "half": 90.0, "smooth": 90.0, "fails": 90.0}, []),
        (
            {"base": 50.0, "half": 90.0},
            [
                "t: “base” (after 1 seed), 50.0 %, is below a linear classifier on the same images, 82.0 %: "
                "nothing that is compared with it can be tested"
            ],
        ),
        (
            {"base": 90.0, "half": 60.0},
            ["“half” (after 1 seed), 60.0 %, is below a linear classifier on the same images, 82.0 %"],
        ),
        (
            {"base": 90.0, "half": 60.0, "smooth": 61.0, "fails": 10.0},
            [
                "“half” (after 1 seed), 60.0 %, is below a linear classifier on the same images, 82.0 %; "
                "so are 2 more of the 4 recipes with results"
            ],
        ),
    ],
    ids=["none", "the reference", "one other", "others"],
)
def test_what_is_below_its_floor_by_now_is_named(tmp_path, top1, says):
    made = plan(tmp_path)
    arms = {cell.row: cell.arm_id for cell in made.tables[0].cells}
    floor = {"chance": 10.0, "guessing": 11.0, "neighbours": 80.0, "linear": 82.0, "problem": None}
    entry = {"setting": setting_of(made.arms[arms["base"]].recipe.data), **floor}
    by_arm = {arms[row]: {0: value} for row, value in top1.items()}
    assert below_so_far(made, by_arm, {"floors": [entry]}) == says
