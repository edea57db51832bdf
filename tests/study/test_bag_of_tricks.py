"""studies/bag_of_tricks.yaml: which of its rows share runs, and what stands behind them.

Its printed values are compared with the reference tables in test_papers.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.commands.workspace import build_catalogue
from harness.study.catalogue import Cost
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.plan import Plan, plan_to_json
from tests.study.fakes import cells

ROOT = Path(__file__).parents[2]
TABLES = ("table2", "table3", "table4", "table5", "table6")
NETWORKS = ("ResNet-50-D", "Inception-V3", "MobileNet")  # the columns of Table 6


def _plan(size: str) -> Plan:
    catalogue = build_catalogue(ROOT / "data")
    catalogue = catalogue._replace(cost=lambda model, data: Cost(params=1, macs=1))  # not asked here
    return expand(
        load_study(ROOT / "studies" / "bag_of_tricks.yaml", catalogue), catalogue, ExpandOptions(size=size)
    )


@pytest.fixture(scope="module")
def paper() -> Plan:
    return _plan("paper")


def test_only_the_controls_the_credit_table_and_fine_tuning_are_ours(paper: Plan) -> None:
    added = [(table.key, cell.row) for table in paper.tables for cell in table.cells if not cell.paper]
    controls = [
        ("table4", "twice the epochs (control)"),
        ("table5", "twice the epochs (control)"),
        *[("table6", "+ 200 epochs (control)")] * len(NETWORKS),
    ]
    assert added[: len(controls)] == controls
    credit = len(cells(paper, "credit"))
    assert [key for key, _ in added[len(controls) :]] == ["credit"] * credit + ["fine_tuning"] * 2


def test_the_credit_table_starts_where_table_6_does_and_shares_its_arms(paper: Plan) -> None:
    six, credit = cells(paper, "table6"), cells(paper, "credit")
    for mine, theirs in (
        ("baseline", "Efficient"),
        ("+ cosine", "+ cosine decay"),
        ("without mixup (alpha=0.2)", "+ distill w/o mixup"),
    ):
        assert credit[mine, None].arm_id == six[theirs, "ResNet-50-D"].arm_id
    recipes = [paper.arms[cell.arm_id or ""].recipe for cell in credit.values()]
    assert {recipe.epochs for recipe in recipes} == {120.0}
    assert {recipe.schedule for recipe in recipes} == {"cosine", "step"}


def test_tables_share_the_runs_they_can(paper: Plan) -> None:
    two, three, four, five, six = (cells(paper, key) for key in TABLES)
    baseline = two["ResNet-50 baseline", None].arm_id
    # Linear scaling at the reference batch is the baseline's learning rate.
    assert baseline == three["ResNet-50 baseline", None].arm_id == four["Linear scaling", "BS=256"].arm_id
    efficient = three["ResNet-50 efficient", None].arm_id
    assert efficient == four["+ FP16", "BS=1024"].arm_id == five["ResNet-50", None].arm_id
    assert five["ResNet-50-D", None].arm_id == six["Efficient", "ResNet-50-D"].arm_id
    for network in ("Inception-V3", "MobileNet"):
        assert two[f"{network} baseline", None].arm_id == three[f"{network} baseline", None].arm_id
        assert three[f"{network} efficient", None].arm_id == six["Efficient", network].arm_id


@pytest.mark.parametrize(("size", "sources"), [("mini", 2), ("gpu", 0), ("paper", 0)])
def test_how_many_arms_the_study_has(size: str, sources: int) -> None:
    """Table 4 has 10 (with the baseline and the efficient ResNet-50), the two other networks bring 2 each,
    Table 5 adds B, C and D, both share a control, Table 6 adds 6 in each of 3 columns, Table 7 adds 2,
    fine-tuning 2, the table of credits 7 of its 10; 2 are teachers.

    Only `mini` pretrains on other images than the other tables use. The 60 trained cells show 47 arms, so
    that 13 cells x 3 seeds are shared.
    """
    totals = plan_to_json(_plan(size))["totals"]
    arms = 10 + 2 * 2 + 3 + 1 + 6 * 3 + 2 + 2 + 7 + 2 + sources
    assert (totals["cells"], totals["arms"], totals["runs"]) == (65, arms, 3 * arms)
    assert totals["shared_runs_saved"] == (60 - 47) * 3


def test_table_7_trains_on_places365_from_the_start_and_best_adds_three_refinements(paper: Plan) -> None:
    """Sec. 5.5 has neither pretraining nor fine-tuning; the steps of "Best" are those of Table 6."""
    six, seven = cells(paper, "table6"), cells(paper, "table7")
    efficient, best = (
        paper.arms[seven[f"ResNet-50-D {row}, val", None].arm_id or ""] for row in ("Efficient", "Best")
    )
    assert (efficient.source, best.source, efficient.teacher, best.teacher) == (None,) * 4
    for places, row in ((efficient, "Efficient"), (best, "+ mixup w/o distill")):
        imagenet = paper.arms[six[row, "ResNet-50-D"].arm_id or ""]
        assert places.recipe.data.name == "places365"
        data = imagenet.recipe.data
        assert dataclasses.replace(places, recipe=dataclasses.replace(places.recipe, data=data)) == imagenet
    assert (best.recipe.epochs, best.recipe.schedule) == (200.0, "cosine")
    assert [trick.name for trick in best.tricks] == ["no_bias_decay", "label_smoothing", "mixup"]


def test_fine_tuning_starts_from_networks_of_the_other_tables(paper: Plan) -> None:
    five, six, ours = (cells(paper, key) for key in ("table5", "table6", "fine_tuning"))
    for row, pretrained in (
        ("From ResNet-50-D Efficient", five["ResNet-50-D", None]),
        ("From ResNet-50-D Best", six["+ mixup w/o distill", "ResNet-50-D"]),
    ):
        arm = paper.arms[ours[row, None].arm_id or ""]
        assert (arm.recipe.data.name, arm.source) == ("places365", pretrained.arm_id)
    mini = _plan("mini")
    arm = mini.arms[cells(mini, "fine_tuning")["From ResNet-50-D Best", None].arm_id or ""]
    parts = [each.recipe.data.args["part"] for each in (arm, mini.arms[arm.source or ""])]
    assert parts == ["first5", "last5"]


@pytest.mark.parametrize(("size", "images"), [("mini", (0, 0)), ("gpu", (0, 0)), ("paper", (32, 128))])
def test_each_of_8_workers_normalises_its_share_of_the_batch_at_the_papers_size(
    size: str, images: tuple[int, int]
) -> None:
    """8 GPUs with 256 images, then with 1,024; smaller sizes normalise over the whole batch."""
    plan = _plan(size)
    four = cells(plan, "table4")
    found = {
        column: {
            plan.arms[cell.arm_id or ""].recipe.norm_images for (_, c), cell in four.items() if c == column
        }
        for column in ("BS=256", "BS=1024")
    }
    assert found == {"BS=256": {images[0]}, "BS=1024": {images[1]}}
    assert {arm.recipe.norm_images for arm in plan.arms.values()} == set(images)
    assert {arm.recipe.initialisation for arm in plan.arms.values()} == {"he_average"}  # the authors' code


def test_table_6_branches_where_the_paper_does(paper: Plan) -> None:
    six = cells(paper, "table6")
    stem = (
        "linear_lr_scaling",
        "warmup",
        "zero_gamma",
        "no_bias_decay",
        "fp16",
        "resnet_b",
        "resnet_c",
        "resnet_d",
    )
    smooth = (*stem, "cosine", "label_smoothing")
    expected = {
        "Efficient": (stem, 120, None),
        "+ cosine decay": ((*stem, "cosine"), 120, "Efficient"),
        "+ label smoothing": (smooth, 120, "+ cosine decay"),
        "+ distill w/o mixup": ((*smooth, "distillation"), 120, "+ label smoothing"),
        "+ 200 epochs (control)": (smooth, 200, "+ label smoothing"),
        "+ mixup w/o distill": ((*smooth, "mixup"), 200, "+ 200 epochs (control)"),
        "+ distill w/ mixup": ((*smooth, "mixup", "distillation"), 200, "+ mixup w/o distill"),
    }
    found = {
        row: (cell.tricks, paper.arms[cell.arm_id or ""].recipe.epochs, cell.versus)
        for (row, column), cell in six.items()
        if column == "ResNet-50-D"
    }
    assert found == expected
    assert six["+ mixup w/o distill", "ResNet-50-D"].paper_versus == "+ label smoothing"


def test_teachers_are_resnet_152_d_and_the_one_for_mixup_is_trained_with_mixup(paper: Plan) -> None:
    six = cells(paper, "table6")
    for row, tricks, epochs in (
        ("+ distill w/o mixup", ["no_bias_decay", "label_smoothing"], 120),
        ("+ distill w/ mixup", ["no_bias_decay", "label_smoothing", "mixup"], 200),
    ):
        (name,) = {paper.arms[six[row, network].arm_id or ""].teacher for network in NETWORKS}
        teacher = paper.arms[name or ""]
        assert teacher.recipe.model.name == "resnet152"
        args = teacher.recipe.model.args
        assert (args["stride_in"], args["stem"], args["shortcut"]) == ("3x3", "deep", "avgpool")
        assert [trick.name for trick in teacher.tricks] == tricks
        assert (teacher.recipe.epochs, teacher.recipe.schedule, teacher.recipe.batch_size) == (
            epochs,
            "cosine",
            1024,
        )


def test_the_efficient_recipe_at_paper_size_is_the_printed_one(paper: Plan) -> None:
    recipe = paper.arms[cells(paper, "table3")["ResNet-50 efficient", None].arm_id or ""].recipe
    assert (recipe.batch_size, recipe.lr, recipe.warmup_epochs, recipe.precision) == (1024, 0.4, 5.0, "fp16")
    assert (recipe.warmup_shape, recipe.warmup_lr) == ("proportional", 0.0)  # lr i / m at batch i of m
    assert (recipe.epochs, recipe.milestones, recipe.weight_decay) == (120.0, (30.0, 60.0, 90.0), 1e-4)


def test_rows_and_labels_are_the_same_at_every_size(paper: Plan) -> None:
    shown = [[(cell.row, cell.column) for cell in table.cells] for table in paper.tables]
    for size in ("mini", "gpu"):
        assert [[(cell.row, cell.column) for cell in table.cells] for table in _plan(size).tables] == shown
