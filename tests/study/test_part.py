"""A part of a plan: the named cells, the runs they need and no others, and what the whole declares."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.study.declaration import declaration_of
from harness.study.part import PartNames, PlanPart, breadth_first, by_priority, part_of
from harness.study.plan import Plan
from tests.study.fakes import HEAD, mistakes, plan_of

TABLES = """\
arms:
  big: {add: resnet_d}
tables:
  stem:
    title: What the stem brings
    design: rows
    rows:
      - {label: plain}
      - {label: smooth, add: label_smoothing, versus: plain}
      - {label: mixed, add: mixup, versus: smooth}
      - {label: printed, paper: {top1: 70, status: memory}, cite: true}
  taught:
    title: What a teacher brings
    design: rows
    columns:
      narrow: {set: {lr: 0.2}}
      wide: {set: {lr: 0.3}}
    control: {row: twice}
    rows:
      - {label: plain}
      - {label: taught, add: {distillation: {teacher: big}}, versus: plain}
      - {label: twice, set: {epochs: 240}, versus: plain}
claims:
  - {says: It helps., source: T1, table: stem, row: smooth, versus: plain, measure: top1, expect: higher}
  - {says: So does it., source: T1, table: stem, row: mixed, versus: smooth, measure: top1, expect: higher}
"""


BIG = "teacher / big"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(tmp_path, HEAD + TABLES)


def part(plan: Plan, **names: str) -> PlanPart:
    named = {key: tuple(value.split("|")) for key, value in names.items()}
    return part_of(plan, PartNames(**named), "x.yaml")


def shown(found: PlanPart) -> set[str]:
    return set(found.plan.arm_labels.values())


def test_a_table_is_its_rows_and_nothing_of_the_others(plan: Plan) -> None:
    found = part(plan, tables="stem")
    assert shown(found) == {"stem / plain", "stem / smooth", "stem / mixed"}
    assert len(found.plan.runs) == 3 * len(plan.seeds)
    assert found.with_it == ()
    assert found.plan.claims == plan.claims
    assert found.says == "stem"


def test_a_table_is_known_by_its_title_too(plan: Plan) -> None:
    assert part(plan, tables="What the stem brings").plan == part(plan, tables="stem").plan


def test_a_row_comes_with_the_row_it_is_compared_with_and_not_with_that_ones_own(plan: Plan) -> None:
    found = part(plan, rows="mixed")
    assert shown(found) == {"stem / mixed", "stem / smooth"}
    assert found.with_it == ("stem / smooth (mixed is compared with it)",)
    assert [claim.says for claim in found.plan.claims] == ["So does it."]
    assert found.cells == {("stem", "mixed", None)}


def test_a_row_comes_with_its_teacher_and_its_tables_control_and_says_so(plan: Plan) -> None:
    found = part(plan, rows="taught", columns="wide")
    assert shown(found) == {"taught / taught / wide", "taught / plain / wide", "taught / twice / wide", BIG}
    assert set(found.with_it) == {
        "taught / plain / wide (taught is compared with it)",
        "taught / twice / wide (control)",
        f"{BIG} (a teacher)",
    }
    known = {run.run_id for run in found.plan.runs}
    assert all(set(run.needs) <= known for run in found.plan.runs)
    assert found.plan.tables[0].columns == ("wide",)
    assert found.says == "taught (row taught; column wide)"


def test_the_runs_of_a_part_are_those_of_the_plan_in_its_order(plan: Plan) -> None:
    found = part(plan, tables="taught")
    assert found.plan.runs == [run for run in plan.runs if run in found.plan.runs]


def test_all_parts_together_are_the_plan_and_all_tables_named_are_it_too(plan: Plan) -> None:
    tables = [part(plan, tables=table.key) for table in plan.tables]
    assert {run.run_id for each in tables for run in each.plan.runs} == {run.run_id for run in plan.runs}
    assert part(plan, tables="taught|stem").plan == plan


def test_what_is_declared_is_that_of_the_whole(plan: Plan) -> None:
    assert declaration_of(part(plan, rows="mixed").whole) == declaration_of(plan)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"tables": "stam"}, "unknown table 'stam'; did you mean 'stem'? Valid: stem, taught"),
        ({"rows": "smoth"}, "unknown row 'smoth'; did you mean 'smooth'? Valid: mixed, plain"),
        ({"columns": "wd"}, "unknown column 'wd'; did you mean 'wide'? Valid: narrow, wide"),
        ({"rows": "plain"}, "the row 'plain' is in 2 tables; say which: --table stem, --table taught"),
        ({"tables": "taught", "rows": "smooth"}, "unknown row 'smooth'. Valid: plain, taught, twice"),
        ({"tables": "stem", "columns": "wide"}, "no columns in stem; leave --column out"),
        ({"rows": "mixed", "columns": "wide"}, "no row that is named is in a column that is named"),
        (
            {"rows": "mixed|taught", "columns": "wide"},
            "the row 'mixed' has no cell in common with the other names",
        ),
        (
            {"tables": "stem|taught", "rows": "mixed"},
            "the table 'taught' has none of the rows and columns that are named",
        ),
        ({"rows": "printed"}, "nothing of this part is trained: its rows are quoted numbers"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(plan: Plan, names: dict[str, str], says: str) -> None:
    with pytest.raises(StudyError) as refused:
        part(plan, **names)
    assert refused.value.problems[0].message.startswith(says)


def test_a_row_of_several_tables_is_clear_where_the_table_or_the_column_says_which(plan: Plan) -> None:
    assert part(plan, tables="stem", rows="plain").cells == {("stem", "plain", None)}
    assert part(plan, rows="plain", columns="wide").cells == {("taught", "plain", "wide")}
    both = part(plan, tables="stem|taught", rows="plain")
    assert {table for table, _, _ in both.cells} == {"stem", "taught"}


def rows_in_order(plan: Plan) -> list[tuple[str, int]]:
    return [(plan.arm_labels[run.arm_id], run.seed) for run in breadth_first(plan)]


def test_a_budget_is_spent_on_one_seed_of_every_row_of_the_first_table_then_its_next_seed(plan: Plan) -> None:
    rows = ("plain", "smooth", "mixed")
    assert rows_in_order(plan)[:6] == [(f"stem / {row}", seed) for seed in (0, 1) for row in rows]
    assert sorted(run.run_id for run in breadth_first(plan)) == sorted(run.run_id for run in plan.runs)


def test_what_a_run_needs_goes_before_it(plan: Plan) -> None:
    order = [run.run_id for run in breadth_first(plan)]
    for run in plan.runs:
        assert all(order.index(need) < order.index(run.run_id) for need in run.needs)


def test_tables_of_the_studys_priority_are_first_and_the_declaration_does_not_know(tmp_path: Path) -> None:
    plain, first = plan_of(tmp_path, HEAD + TABLES), plan_of(tmp_path, HEAD + TABLES + "priority: [taught]\n")
    assert rows_in_order(first)[0] == ("taught / plain / narrow", 0)
    assert [table.key for table in by_priority(first)] == ["taught", "stem"]
    assert declaration_of(first) == declaration_of(plain)
    assert [run.run_id for run in first.runs] == [run.run_id for run in plain.runs]


def test_a_priority_of_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    [said] = mistakes(tmp_path, HEAD + TABLES + "priority: [stam]\n")
    assert "unknown table 'stam'; did you mean 'stem'? Valid: stem, taught" in said


def test_results_and_times_change_nothing_in_the_order(plan: Plan) -> None:
    before = rows_in_order(plan)
    for place, run in enumerate(plan.runs):
        run.time_s, run.done = float(place % 3), place % 2 == 0
    assert rows_in_order(plan) == before
