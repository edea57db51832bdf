"""A recipe that was stopped early lacks nothing: what is counted is what was planned for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from harness.analysis import analyse
from harness.analysis.findings import Findings, Settings
from harness.reporting import ReportInput
from harness.reporting.document import seeds_planned
from harness.reporting.figures.runs import draw_matrix, matrix_alt, matrix_caption, matrix_pages
from harness.reporting.sections.method import method
from harness.reporting.sections.opening import scope
from harness.study.expand import grow
from harness.study.plan import Claim, Plan
from tests.analysis.plans import Noise, Row, frames_of, make_plan, trained

BASE, FAR, NEAR = trained(0), trained(1), trained(2)
ROWS = [
    Row(label="base", arm=BASE),
    Row(label="far", arm=FAR, versus="base"),
    Row(label="near", arm=NEAR, versus="base"),
]
CLAIM = Claim(says="far is better", source="Sec. 1", table="t", row="far", versus="base")
LOOKS = (3, 5, 8)


@pytest.fixture
def plan() -> Plan:
    """`far` was stopped after three seeds, the others after eight."""
    first = make_plan({"t": ROWS}, seeds=3, claims=[CLAIM], targets={"t": {"row": "base"}})
    return grow(replace(first, looks=LOOKS), {BASE.arm_id: 8, NEAR.arm_id: 8})


def findings(plan: Plan, lost: Mapping[tuple[str, int], str] | None = None) -> Findings:
    return report(plan, lost).findings


def report(plan: Plan, lost: Mapping[tuple[str, int], str] | None = None) -> ReportInput:
    records, curves = frames_of(plan, {FAR.arm_id: 90.0}, Noise())
    keep = [
        (arm, seed) not in (lost or {}) for arm, seed in zip(records["arm_id"], records["seed"], strict=True)
    ]
    settings = Settings(looks=plan.looks)
    return ReportInput(
        title="Made up",
        findings=analyse(plan, records[keep].reset_index(drop=True), curves, settings),
        plan=plan,
        records=records[keep].reset_index(drop=True),
        curves=curves,
        provenance={},
    )


def test_seeds_that_a_recipe_did_not_get_are_not_missing(plan: Plan) -> None:
    levels = {cell.row: cell.level for cell in findings(plan).tables[0].cells}
    assert {row: (level.n, level.missing, level.missing_reason) for row, level in levels.items()} == {
        "base": (8, 0, None), "far": (3, 0, None), "near": (8, 0, None),
    }  # fmt: skip


def test_seeds_that_it_should_have_are(plan: Plan) -> None:
    found = findings(plan, {(FAR.arm_id, 2): "", (NEAR.arm_id, 7): ""})
    levels = {cell.row: cell.level for cell in found.tables[0].cells}
    assert {row: (level.n, level.missing) for row, level in levels.items()} == {
        "base": (8, 0), "far": (2, 1), "near": (7, 1),
    }  # fmt: skip


def test_nor_in_the_steps_to_a_target_and_in_a_claim(plan: Plan) -> None:
    found = findings(plan)
    assert [row.missing for row in found.speed[0].panels[0].rows] == [0, 0, 0]
    [claim] = found.claims
    assert (claim.n, claim.why) == (3, "")
    lost = findings(plan, {(FAR.arm_id, 2): ""})
    assert [row.missing for row in lost.speed[0].panels[0].rows] == [0, 1, 0]
    assert lost.claims[0].why == "far: 1 not run yet"


def test_the_run_matrix_shows_them_as_stopped(plan: Plan) -> None:
    whole = report(plan)
    assert matrix_caption(whole) == (
        "Runs of the plan by recipe and seed: ✓ finished (19), – stopped: settled (5)."
    )
    assert matrix_alt(whole) == (
        "Matrix of 19 runs: 19 finished. 5 further seeds not needed (stopped: settled)."
    )
    [lines] = matrix_pages(whole)
    drawn = [marks.get_offsets() for marks in draw_matrix(whole, lines).axes[0].collections]
    stopped = next(offsets for offsets in drawn if len(offsets) == 5)
    assert [len(offsets) for offsets in drawn] == [19, 5]
    assert stopped.tolist() == [[seed, 1] for seed in range(3, 8)], "the second row, after its third seed"


def test_the_report_says_how_many_seeds_the_recipes_have(plan: Plan) -> None:
    whole = report(plan)
    assert "19 runs (3 to 8 seeds each)" in scope(whole)
    assert "after 3, 5, 8 seeds per recipe" in str(method(whole))
    fixed = make_plan({"t": ROWS}, seeds=3)
    assert seeds_planned(fixed) == "3 seeds"
    assert "stopped" not in matrix_caption(report(fixed))
    assert "trained with the same 3 seeds" in str(method(report(fixed)))
