"""Steps to the target: the first point at it, the target row reaches its own target, never is never."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis import analyse
from harness.analysis.findings import Settings
from harness.spec import Member
from tests.analysis.plans import Noise, Row, frames_of, make_plan, observer, trained
from tests.analysis.test_claims import curves

BASE, NEW, CROPPED = trained(0), trained(1), observer(Member(arm=trained(0).arm_id))
ROWS = [
    Row(label="base", arm=BASE, paper={"steps_to_target_m": 31.0}),
    Row(label="new", arm=NEW, versus="base", paper={"steps_to_target_m": 2.1}),
    Row(label="crops", arm=CROPPED, versus="base"),
    Row(label="quoted", arm=None, paper={"top1": 60.0}),
]


def speed(frame, target=None, edit=None, rows=ROWS):
    plan = make_plan({"t": rows}, targets={"t": target or {"row": "base"}})
    records, _ = frames_of(plan, {}, Noise())
    if edit:
        edit(records)
    (found,) = analyse(plan, records, frame, Settings()).speed
    return found


def by_row(found, panel=0):
    return {row.row: row for row in found.panels[panel].rows}


def base_runs(*ends):
    """Four points in two epochs; the last epoch's two points are `end - 1` and `end + 1`."""
    return [(BASE, s, [(10, 5), (20, 9), (30, end - 1), (40, end + 1)]) for s, end in enumerate(ends)]


def test_the_target_is_the_mean_over_seeds_of_the_last_epoch():
    found = speed(curves(*base_runs(60, 60.5, 60.4)))
    assert found.panels[0].target_top1 == pytest.approx(60.3)
    assert by_row(found)["base"].steps == {0: 40, 1: 40, 2: 40}


def test_the_target_row_reaches_its_target_with_every_seed_even_a_weak_one():
    found = speed(curves(*base_runs(60, 70, 50)))
    assert found.panels[0].target_top1 == pytest.approx(51)  # the best point of its weakest run, not 60
    assert None not in by_row(found)["base"].steps.values()


def test_a_run_reaches_the_target_at_its_first_point_and_nothing_is_interpolated():
    runs = [(NEW, s, [(7, 59.9), (8 + s, 60.0), (9 + s, 40.0), (40, 90.0)]) for s in range(3)]
    found = by_row(speed(curves(*runs), {"top1": 60.0}))["new"]
    assert found.steps == {0: 8, 1: 9, 2: 10}
    assert (found.median, found.low, found.high) == (9.0, 8, 10)


def test_factors_are_medians_of_the_reference_over_the_rows_beside_the_papers():
    runs = [(NEW, s, [(5, 90.0), (40, 90.0)]) for s in range(3)]
    found = by_row(speed(curves(*base_runs(60, 60, 60), *runs)))
    assert (found["base"].factor, found["new"].factor) == (1.0, pytest.approx(40 / 5))
    assert found["new"].paper_factor == pytest.approx(31.0 / 2.1)
    assert found["crops"].factor is None


def test_never_is_the_largest_value_of_a_median_and_never_a_number():
    def runs(never):
        return [(NEW, s, [(5, 10.0), (40, 10.0 if s < never else 90.0)]) for s in range(3)]

    one = by_row(speed(curves(*runs(1)), {"top1": 60.0}))["new"]
    assert (one.steps[0], one.median, one.low) == (None, 40.0, 40)
    two = by_row(speed(curves(*runs(2)), {"top1": 60.0}))["new"]
    assert (two.median, two.factor, two.high) == (None, None, 40)


def test_a_diverged_run_never_arrives_and_a_missing_one_is_not_counted():
    def spoil(records):
        mine = records["arm_id"] == NEW.arm_id
        records.loc[mine & (records["seed"] == 0), "status"] = "diverged"
        records.loc[mine & (records["seed"] == 1), "status"] = "stopped"

    runs = [(NEW, s, [(5, 90.0), (40, 90.0)]) for s in range(3)]
    found = by_row(speed(curves(*runs), {"top1": 60.0}, spoil))["new"]
    assert found.steps == {0: None, 2: 5}
    assert (found.diverged, found.missing) == (1, 1)


def test_rows_without_a_curve_of_their_own_have_no_steps():
    found = by_row(speed(curves(*base_runs(60, 60, 60))))
    assert (found["crops"].trained, found["quoted"].trained) == (False, False)
    assert found["crops"].steps == found["quoted"].steps == {}
    assert found["crops"].missing == 0


def test_each_column_has_its_own_target_and_borrows_one_where_the_row_is_missing():
    rows = [
        Row(label="base", arm=BASE, column="a"),
        Row(label="base", arm=trained(5), column="b"),
        Row(label="new", arm=NEW, column="c"),
    ]
    other = [(trained(5), s, [(10, 80.0), (40, 80.0)]) for s in range(3)]
    found = speed(curves(*base_runs(60, 60, 60), *other), rows=rows)
    assert [panel.target_top1 for panel in found.panels] == pytest.approx([60, 80, 60])


def test_before_the_target_row_has_finished_there_is_no_target():
    found = speed(curves((NEW, 0, [(5, 90.0)])))
    assert found.panels[0].target_top1 is None
    assert by_row(found)["new"].steps == {}


def test_a_table_without_a_target_has_no_speeds():
    plan = make_plan({"t": ROWS})
    records, frame = frames_of(plan, {}, Noise())
    assert analyse(plan, records, frame, Settings()).speed == ()
    assert analyse(replace(plan, claims=()), records, frame, Settings()).claims == ()
