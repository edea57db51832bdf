"""studies/bag_of_tricks.yaml against the reference tables, and which of its rows share runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.study.expand import ExpandOptions, expand
from harness.study.loader import load_study
from harness.study.plan import Plan
from harness.study.plan_json import plan_to_json
from tests.study.fakes import CATALOGUE, cells

ROOT = Path(__file__).parents[2]
TABLES = ("table2", "table3", "table4", "table5", "table6")


def _plan(size: str) -> Plan:
    study = load_study(ROOT / "studies" / "bag_of_tricks.yaml", CATALOGUE)
    return expand(study, CATALOGUE, ExpandOptions(size=size))


@pytest.fixture(scope="module")
def paper() -> Plan:
    return _plan("paper")


def _reference() -> dict[tuple[str, str], dict[str, tuple[float, str]]]:
    """(table, label) -> metric -> (value, status) of every ResNet-50 row of Tables 2-6."""
    text = (ROOT / "docs" / "reference" / "papers.yaml").read_text()
    tables: dict[str, Any] = yaml.safe_load(text)["papers"]["bag_of_tricks_1812.01187"]["tables"]
    found = {}
    for key in TABLES:
        for row in tables[key]["rows"]:
            if not row["factors"]["arch"].startswith("resnet50"):
                continue
            status = row.get("status_fields") or {}
            found[key, row["label"].removeprefix("resnet50d: ")] = {
                metric: (row[metric], status.get(metric, row["status"]))
                for metric in ("top1", "top5")
                if row[metric] is not None
            }
    return found


def test_every_printed_cell_and_mark_is_the_reference(paper: Plan) -> None:
    """None missing, none differing, none invented; Table 4's labels hold the column: `BS=256 + LR warmup`."""
    ours = {
        (table.key, f"{cell.column} {cell.row}" if cell.column else cell.row): {
            metric: (value.value, value.status) for metric, value in cell.paper.items()
        }
        for table in paper.tables
        for cell in table.cells
        if cell.paper
    }
    assert ours == _reference()
    assert len(ours) == 24


def test_only_the_control_row_is_ours(paper: Plan) -> None:
    added = [(table.key, cell.row) for table in paper.tables for cell in table.cells if not cell.paper]
    assert added == [("table6", "+ 200 epochs (control)")]


def test_tables_share_the_runs_they_can(paper: Plan) -> None:
    two, three, four, five, six = (cells(paper, key) for key in TABLES)
    baseline = two["ResNet-50 baseline", None].arm_id
    # Linear scaling at the reference batch is the baseline's learning rate.
    assert baseline == three["ResNet-50 baseline", None].arm_id == four["Linear scaling", "BS=256"].arm_id
    efficient = three["ResNet-50 efficient", None].arm_id
    assert efficient == four["+ FP16", "BS=1024"].arm_id == five["ResNet-50", None].arm_id
    assert five["ResNet-50-D", None].arm_id == six["Efficient", None].arm_id


@pytest.mark.parametrize("size", ["mini", "gpu", "paper"])
def test_the_study_has_21_arms_at_every_size(size: str) -> None:
    """Table 4 has 10 (Tables 2 and 3 add none), Table 5 adds B, C and D, Table 6 adds 6; 2 are teachers.

    The 24 trained cells show 19 of them; 5 cells x 3 seeds are shared.
    """
    totals = plan_to_json(_plan(size))["totals"]
    assert (totals["cells"], totals["arms"], totals["runs"]) == (25, 10 + 3 + 6 + 2, 63)
    assert totals["shared_runs_saved"] == (24 - 19) * 3


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
        for (row, _), cell in six.items()
    }
    assert found == expected
    assert six["+ mixup w/o distill", None].paper_versus == "+ label smoothing"


def test_teachers_are_resnet_152_d_and_the_one_for_mixup_is_trained_with_mixup(paper: Plan) -> None:
    six = cells(paper, "table6")
    for row, tricks, epochs in (
        ("+ distill w/o mixup", ["no_bias_decay", "label_smoothing"], 120),
        ("+ distill w/ mixup", ["no_bias_decay", "label_smoothing", "mixup"], 200),
    ):
        teacher = paper.arms[paper.arms[six[row, None].arm_id or ""].teacher or ""]
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
    assert (recipe.epochs, recipe.milestones, recipe.weight_decay) == (120.0, (30.0, 60.0, 90.0), 1e-4)


def test_rows_and_labels_are_the_same_at_every_size(paper: Plan) -> None:
    shown = [[(cell.row, cell.column) for cell in table.cells] for table in paper.tables]
    for size in ("mini", "gpu"):
        assert [[(cell.row, cell.column) for cell in table.cells] for table in _plan(size).tables] == shown
