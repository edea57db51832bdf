"""Claims and targets: checked against the rows that answer them, and carried into the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.study.plan import MEASURES, Claim, plan_to_json
from tests.study.fakes import HEAD, HEAD_LINES, mistakes, plan_of

TABLES = """
tables:
  t:
    title: T
    design: rows
    target: {row: plain}
    rows:
      - {label: plain}
      - {label: mixed, add: mixup}
      - {label: quoted, cite: true, paper: {top1: 70, status: verified}}
  wide:
    title: W
    design: rows
    columns: {small: {set: {batch_size: 256}}, large: {set: {batch_size: 1024}}}
    rows:
      - {label: plain}
      - {label: mixed, add: mixup, columns: [large], versus: plain}
"""
LINE = HEAD_LINES + 1
FULL = {
    "says": "Mixup is slower",
    "source": "Sec. 1",
    "table": "t",
    "row": "mixed",
    "versus": "plain",
    "measure": "steps_to_target",
    "expect": "higher",
}


def _study(**claim: Any) -> str:
    pairs = ", ".join(f"{key}: {value}" for key, value in {**FULL, **claim}.items() if value is not None)
    return HEAD + f"claims: [{{{pairs}}}]" + TABLES


def test_claims_and_targets_are_in_the_plan(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, _study())
    assert plan.claims == (Claim(**FULL, column=None, versus_column=None),)
    assert [table.target for table in plan.tables] == [{"row": "plain"}, None]
    data = plan_to_json(plan)
    assert data["claims"] == [{**FULL, "column": None, "versus_column": None}]
    assert data["tables"][0]["target"] == {"row": "plain"}


def test_a_claim_compares_within_a_column_unless_it_names_two(tmp_path: Path) -> None:
    same = plan_of(tmp_path, _study(table="wide", column="large", measure="top1"))
    assert (same.claims[0].column, same.claims[0].versus_column) == ("large", "large")
    across = _study(table="wide", row="plain", column="large", versus_column="small", measure="top1")
    assert plan_of(tmp_path, across).claims[0].versus_column == "small"


def test_a_target_may_be_a_number(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, _study().replace("{row: plain}", "{top1: 72.2}"))
    assert plan.tables[0].target == {"top1": 72.2}


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ({"table": "tt"}, "unknown table 'tt'; did you mean 't'? Valid: t, wide"),
        ({"row": "mixd"}, "unknown row 'mixd'; did you mean 'mixed'? Valid: mixed, plain, quoted"),
        (
            {"versus": "quoted"},
            "row 'quoted' is quoted, not trained; nothing of ours can be compared with it",
        ),
        ({"versus": "mixed"}, "row 'mixed' is compared with itself"),
        ({"column": "large"}, "row 'mixed': unknown column 'large'. Valid: none"),
        (
            {"table": "wide", "column": "large"},
            "'steps_to_target' needs to know which accuracy: give table 'wide' the key"
            " target: {row: LABEL} or {top1: PERCENT}",
        ),
        ({"table": "wide", "measure": "top1"}, "the table has columns; say which: large"),
        (
            {"table": "wide", "measure": "top1", "column": "small"},
            "row 'mixed': unknown column 'small'. Valid: large",
        ),
        (
            {"measure": "top3"},
            "claims[0].measure is wrong: unknown value 'top3'; did you mean 'top5'? Valid: "
            + ", ".join(sorted(MEASURES)),
        ),
        (
            {"expect": "better"},
            "claims[0].expect is wrong: unknown value 'better'. Valid: higher, lower",
        ),
        ({"source": None}, "missing key 'source' (in claims[0])"),
    ],
)
def test_a_claim_that_nothing_can_answer_is_refused(
    claim: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    found = mistakes(tmp_path, _study(**claim))
    assert f"small.yaml:{LINE}: {expected}" in found


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("{row: plan}", "unknown row 'plan'; did you mean 'plain'? Valid: mixed, plain, quoted"),
        ("{row: quoted}", "row 'quoted' is quoted, not trained; nothing of ours can be compared with it"),
        ("{}", "tables.t.target is wrong: must be {row: LABEL} or {top1: PERCENT}"),
        ("{row: plain, top1: 70}", "tables.t.target is wrong: must be {row: LABEL} or {top1: PERCENT}"),
        ("{top1: 720}", "tables.t.target.top1 must be less than or equal to 100, got 720"),
    ],
)
def test_a_target_that_cannot_be_reached_is_refused(target: str, expected: str, tmp_path: Path) -> None:
    found = mistakes(tmp_path, _study().replace("target: {row: plain}", f"target: {target}"))
    assert f"small.yaml:{LINE + 5}: {expected}".replace(" is wrong: must", " must") in found
