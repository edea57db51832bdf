"""Every design, by hand, on three tricks."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from harness.study.designs import fraction
from tests.study.fakes import HEAD, cells, plan_of

THREE = "[cosine, mixup, {label_smoothing: {eps: 0.2}}]"


def rows_of(folder: Path, table: str) -> list[tuple[str, tuple[str, ...], str | None]]:
    """(label, tricks that are on, versus) of a table's rows."""
    indented = "".join(f"    {line}\n" for line in table.splitlines())
    plan = plan_of(folder, f"{HEAD}tables:\n  t:\n    title: T\n{indented}")
    return [(cell.row, cell.tricks, cell.versus) for cell in plan.tables[0].cells]


def test_rows_are_compared_with_the_row_they_name_or_with_the_first_trained_one(tmp_path: Path) -> None:
    table = """\
design: rows
rows:
  - {label: quoted, cite: true, paper: {top1: 70, status: verified}}
  - {label: a}
  - {label: b, add: cosine}
  - {label: c, add: [cosine, mixup], versus: b}"""
    assert rows_of(tmp_path, table) == [
        ("quoted", (), None),
        ("a", (), None),
        ("b", ("cosine",), "a"),
        ("c", ("cosine", "mixup"), "b"),
    ]


def test_a_stack_adds_to_the_row_above_and_may_branch(tmp_path: Path) -> None:
    table = """\
design: stack
rows:
  - {label: a}
  - {label: b, add: cosine}
  - {label: quoted, cite: true, paper: {top1: 70, status: verified}}
  - {label: c, add: mixup}
  - {label: d, on: b, add: label_smoothing}
  - {label: e, add: mixup, versus: a}"""
    assert rows_of(tmp_path, table) == [
        ("a", (), None),
        ("b", ("cosine",), "a"),
        ("quoted", (), None),
        ("c", ("cosine", "mixup"), "b"),
        ("d", ("cosine", "label_smoothing"), "b"),
        ("e", ("cosine", "label_smoothing", "mixup"), "a"),
    ]


def test_a_stack_keeps_what_earlier_rows_set(tmp_path: Path) -> None:
    text = """
tables:
  t:
    title: T
    design: stack
    rows: [{label: a, set: {epochs: 60}}, {label: b, add: cosine}, {label: c, set: {epochs: 90}}]
"""
    plan = plan_of(tmp_path, HEAD + text, size="paper")
    epochs = [plan.arms[cell.arm_id or ""].recipe.epochs for cell in plan.tables[0].cells]
    assert epochs == [60.0, 60.0, 90.0]


def test_add_one_in(tmp_path: Path) -> None:
    assert rows_of(tmp_path, f"design: add_one_in\ntricks: {THREE}") == [
        ("baseline", (), None),
        ("+ cosine", ("cosine",), "baseline"),
        ("+ mixup", ("mixup",), "baseline"),
        ("+ label_smoothing (eps=0.2)", ("label_smoothing",), "baseline"),
    ]


def test_leave_one_out(tmp_path: Path) -> None:
    assert rows_of(tmp_path, f"design: leave_one_out\ntricks: {THREE}") == [
        ("all", ("cosine", "mixup", "label_smoothing"), None),
        ("without cosine", ("mixup", "label_smoothing"), "all"),
        ("without mixup", ("cosine", "label_smoothing"), "all"),
        ("without label_smoothing (eps=0.2)", ("cosine", "mixup"), "all"),
    ]


def test_both_ends_adds_each_alone_and_leaves_each_out(tmp_path: Path) -> None:
    assert rows_of(tmp_path, f"design: both_ends\ntricks: {THREE}") == [
        ("baseline", (), None),
        ("+ cosine", ("cosine",), "baseline"),
        ("+ mixup", ("mixup",), "baseline"),
        ("+ label_smoothing (eps=0.2)", ("label_smoothing",), "baseline"),
        ("all", ("cosine", "mixup", "label_smoothing"), "baseline"),
        ("without cosine", ("mixup", "label_smoothing"), "all"),
        ("without mixup", ("cosine", "label_smoothing"), "all"),
        ("without label_smoothing (eps=0.2)", ("cosine", "mixup"), "all"),
    ]


def test_both_ways_adds_in_the_given_order_and_in_its_reverse(tmp_path: Path) -> None:
    assert rows_of(tmp_path, f"design: both_ways\ntricks: {THREE}") == [
        ("baseline", (), None),
        ("+ cosine", ("cosine",), "baseline"),
        ("+ mixup", ("cosine", "mixup"), "+ cosine"),
        ("+ label_smoothing (eps=0.2)", ("cosine", "mixup", "label_smoothing"), "+ mixup"),
        ("+ label_smoothing (eps=0.2) (reverse order)", ("label_smoothing",), "baseline"),
        (
            "+ mixup (reverse order)",
            ("mixup", "label_smoothing"),
            "+ label_smoothing (eps=0.2) (reverse order)",
        ),
    ]


@pytest.mark.parametrize(("design", "arms"), [("both_ends", 2 * 3 + 2), ("both_ways", 2 * 3)])
def test_how_many_arms_an_order_free_table_trains(tmp_path: Path, design: str, arms: int) -> None:
    text = f"tables: {{t: {{title: T, design: {design}, tricks: {THREE}}}}}\n"
    plan = plan_of(tmp_path, HEAD + text)
    assert len({cell.arm_id for cell in plan.tables[0].cells}) == arms


def test_the_plan_says_which_tricks_a_row_switches_on(tmp_path: Path) -> None:
    """By name; with the options where two have one name. Equal ground: the same tricks on the same start."""
    tables = {
        "one": "design: both_ends, tricks: [cosine, {mixup: {alpha: 0.4}}]",
        "two": "design: leave_one_out, tricks: [{mixup: {alpha: 0.4}}, cosine]",
        "other": "design: leave_one_out, tricks: [{mixup: {alpha: 0.2}}, cosine]",
        "plain": "design: rows, rows: [{label: a}]",
    }
    text = "".join(f"  {key}: {{title: T, {table}}}\n" for key, table in tables.items())
    one, two, other, rows = plan_of(tmp_path, f"{HEAD}tables:\n{text}").tables
    assert one.switches == ("cosine", "mixup")
    assert [cell.switched_on for cell in one.cells[:4]] == [(), ("cosine",), ("mixup",), ("cosine", "mixup")]
    assert one.ground == two.ground != other.ground
    assert (rows.switches, rows.ground, rows.cells[0].switched_on) == ((), "", None)


def test_factorial_has_every_subset_once(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, f"design: factorial\ntricks: {THREE}")
    names = ("cosine", "mixup", "label_smoothing")
    subsets = [set(part) for size in range(4) for part in itertools.combinations(names, size)]
    assert len(rows) == 8
    assert all(set(tricks) in subsets for _, tricks, _ in rows)
    assert len({tricks for _, tricks, _ in rows}) == 8
    assert rows[0] == ("none", (), None)
    assert rows[-1] == ("cosine + mixup + label_smoothing (eps=0.2)", names, "none")
    assert {versus for _, _, versus in rows[1:]} == {"none"}


def test_a_half_fraction_of_three_tricks_has_resolution_three(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, f"design: fractional\nresolution: 3\ntricks: {THREE}")
    # c = ab in signs: on where the first two agree
    assert [tricks for _, tricks, _ in rows] == [
        ("label_smoothing",),
        ("mixup",),
        ("cosine",),
        ("cosine", "mixup", "label_smoothing"),
    ]


@pytest.mark.parametrize(
    ("factors", "resolution", "runs"),
    [
        (3, 3, 4),
        (7, 3, 8),
        (4, 4, 8),
        (8, 4, 16),
        (5, 5, 16),
        (6, 5, 32),
        (7, 5, 64),
        (8, 5, 64),
        (11, 5, 128),
    ],
)
def test_fractions_are_as_small_as_the_textbook_and_keep_their_resolution(
    factors: int, resolution: int, runs: int
) -> None:
    """Run counts: Box, Hunter and Hunter, Table 6.22. At resolution R, fewer columns multiply to sum 0."""
    design = [[1 if on else -1 for on in row] for row in fraction(factors, resolution)]
    assert len(design) == runs
    for size in range(1, resolution):
        for columns in itertools.combinations(range(factors), size):
            assert sum(math.prod(row[column] for column in columns) for row in design) == 0


def test_a_grid_multiplies_levels_and_leaves_out_exclusions(tmp_path: Path) -> None:
    table = """\
design: grid
factors:
  lr: [0.1, 0.2]
  mixup: [off, on]
  label_smoothing.eps: [off, 0.3]
exclude:
  - {lr: 0.2, mixup: on}"""
    first = "lr=0.1, mixup=off, label_smoothing.eps=off"
    assert rows_of(tmp_path, table) == [
        (first, (), None),
        ("lr=0.1, mixup=off, label_smoothing.eps=0.3", ("label_smoothing",), first),
        ("lr=0.1, mixup=on, label_smoothing.eps=off", ("mixup",), first),
        ("lr=0.1, mixup=on, label_smoothing.eps=0.3", ("mixup", "label_smoothing"), first),
        ("lr=0.2, mixup=off, label_smoothing.eps=off", (), first),
        ("lr=0.2, mixup=off, label_smoothing.eps=0.3", ("label_smoothing",), first),
    ]


def test_a_grid_sets_what_its_labels_say(tmp_path: Path) -> None:
    text = """
tables:
  t:
    title: T
    design: grid
    factors:
      model: [resnet50, {resnet152: {width: 0.5}}]
      crop_area: [[0.2, 1], [0.4, 1]]
      mixup.alpha: [0.7]
"""
    plan = plan_of(tmp_path, HEAD + text)
    cell = cells(plan, "t")["model=resnet152 (width=0.5), crop_area=[0.4, 1], mixup.alpha=0.7", None]
    arm = plan.arms[cell.arm_id or ""]
    assert (arm.recipe.model.name, arm.recipe.model.args["width"]) == ("resnet152", 0.5)
    assert arm.recipe.augment.crop_area == (0.4, 1.0)
    assert dict(arm.tricks[0].options) == {"alpha": 0.7}


def test_generated_rows_take_printed_values_by_label(tmp_path: Path) -> None:
    text = """
tables:
  t:
    title: T
    design: add_one_in
    tricks: [mixup]
    paper: {"+ mixup": {top1: 79.0, top5: 94.5, status: {top1: verified, top5: memory}}}
"""
    found = cells(plan_of(tmp_path, HEAD + text), "t")
    assert not found["baseline", None].paper
    paper = found["+ mixup", None].paper
    assert {name: (value.value, value.status) for name, value in paper.items()} == {
        "top1": (79.0, "verified"),
        "top5": (94.5, "memory"),
    }


def test_columns_repeat_the_rows_on_other_numbers(tmp_path: Path) -> None:
    text = """
arms: {wide: {set: {weight_decay: 0.5}}}
tables:
  t:
    title: T
    design: stack
    columns: {small: {set: {batch_size: 256}}, large: {model: resnet152, start_from: wide}}
    rows:
      - {label: a, paper: {small: {top1: 1, status: memory}}}
      - {label: b, add: cosine, columns: [large]}
"""
    plan = plan_of(tmp_path, HEAD + text)
    found = cells(plan, "t")
    assert list(found) == [("a", "small"), ("a", "large"), ("b", "large")]
    large = plan.arms[found["b", "large"].arm_id or ""].recipe
    assert (large.model.name, large.weight_decay, large.schedule) == ("resnet152", 0.5, "cosine")
    assert found["a", "small"].paper["top1"].value == 1.0
    assert not found["a", "large"].paper
