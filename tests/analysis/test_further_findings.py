"""What the figures of the appendix draw: the front under a budget, what seeds see, which images changed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness.analysis import analyse
from harness.analysis.findings import Settings, read_outcomes
from harness.analysis.intervals import Estimate, detectable_effect
from harness.analysis.precision import (
    budget_of,
    churn_of,
    correct_of,
    effect_at,
    flips_of,
    front,
    gained_and_lost,
    resolvable,
)
from harness.spec import Arm, Member
from tests.analysis.plans import Noise, Row, frames_of, make_plan, observer, trained
from tests.analysis.tables import cell, record, table

SETTINGS = Settings(smallest_effect_pp=0.4)


def estimate_of(se: float, df: float) -> Estimate:
    return Estimate(value=np.asarray(0.3), se=np.asarray(se), df=np.asarray(df))


# ----- the front


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_brute_force_says(seed):
    rng = np.random.default_rng(seed)
    costs, values = rng.integers(0, 6, 15), rng.integers(0, 6, 15)  # with ties

    def is_dominated(k: int) -> bool:
        return any(
            costs[o] <= costs[k] and values[o] >= values[k] and (costs[o] < costs[k] or values[o] > values[k])
            for o in range(15)
        )

    assert front(costs, values).tolist() == [not is_dominated(k) for k in range(15)]


def test_equal_points_are_both_on_the_front():
    assert front([1.0, 1.0, 2.0], [5.0, 5.0, 5.0]).tolist() == [True, True, False]


def a_study(seeds: int = 3):
    """Four trained arms, one with a teacher, and one that only evaluates."""
    teacher = trained(9)
    arms = [trained(k) for k in range(3)]
    pupil = Arm(recipe=trained(3).recipe, teacher=teacher.arm_id)
    crops = observer(Member(arm=arms[0].arm_id))
    rows = [Row(label=f"row {k}", arm=arm, versus="row 0" if k else None) for k, arm in enumerate(arms)]
    rows += [Row(label="pupil", arm=pupil, versus="row 0"), Row(label="crops", arm=crops, versus="row 0")]
    rows.append(Row(label="quoted", arm=None, versus="row 0"))
    plan = make_plan({"t": rows}, seeds=seeds, more=[teacher])
    levels = {arm.arm_id: 80.0 + k for k, arm in enumerate(arms)}
    records, curves = frames_of(plan, levels, Noise(sd=0.3))
    return plan, records, curves, (arms, pupil, teacher, crops)


def test_a_teachers_run_is_part_of_the_cost_and_evaluations_have_no_point():
    plan, records, curves, (arms, pupil, teacher, crops) = a_study()
    records = records.assign(train_time_s=records["arm_id"].map({teacher.arm_id: 7.0}).fillna(3.0))
    found = {point.arm_id: point for point in analyse(plan, records, curves, SETTINGS).budget}
    assert set(found) == {arm.arm_id for arm in (*arms, pupil)}
    assert found[pupil.arm_id].time_s == 10.0
    assert found[arms[0].arm_id].time_s == 3.0
    assert crops.arm_id not in found


def test_the_interval_of_a_time_is_the_t_interval_of_its_mean():
    plan, records, curves, (arms, *_) = a_study()
    mine = records["arm_id"] == arms[1].arm_id
    records.loc[mine, "train_time_s"] = [10.0, 12.0, 14.0]
    point = next(p for p in analyse(plan, records, curves, SETTINGS).budget if p.arm_id == arms[1].arm_id)
    assert point.time_high_s - point.time_s == pytest.approx(4.302653 * 2 / math.sqrt(3), rel=1e-6)
    assert point.n == 3


def test_only_arms_on_one_data_set_and_device_are_compared():
    plan, records, curves, (arms, *_) = a_study()
    records["device"] = np.where(records["arm_id"] == arms[0].arm_id, "slow", "fast")
    records["train_time_s"] = np.where(records["arm_id"] == arms[0].arm_id, 99.0, 1.0)
    found = {point.arm_id: point for point in analyse(plan, records, curves, SETTINGS).budget}
    assert found[arms[0].arm_id].on_front  # the only one of its group
    assert found[arms[0].arm_id].group != found[arms[1].arm_id].group


def test_energy_is_known_only_where_every_run_was_measured():
    plan, records, curves, (arms, *_) = a_study()
    records["energy_j"] = 500.0
    assert all(point.energy_j for point in analyse(plan, records, curves, SETTINGS).budget)
    records.loc[records.index[records["arm_id"] == arms[0].arm_id][0], "energy_j"] = np.nan
    found = {point.arm_id: point.energy_j for point in analyse(plan, records, curves, SETTINGS).budget}
    assert found[arms[0].arm_id] is None
    assert found[arms[1].arm_id] == 500.0


def test_records_without_times_give_no_points():
    plan, records, curves, _ = a_study()
    tables = analyse(plan, records, curves, SETTINGS).tables
    assert budget_of(tables, plan.arms, records.drop(columns="train_time_s")) == ()


# ----- what seeds could see


def test_the_effect_at_the_seeds_there_are_is_the_detectable_effect():
    found = resolvable([(estimate_of(0.2, 8.0), 5)], 8, SETTINGS)
    assert found.seeds_now == 5
    assert found.effect_now == pytest.approx(detectable_effect(estimate_of(0.2, 8.0), 0.05 / 8), rel=1e-12)
    assert found.effects[found.seeds.index(5)] == found.effect_now


def test_in_a_complete_table_it_is_the_pooled_sd_and_the_df_of_the_block_fit():
    arms = [trained(k) for k in range(6)]
    rows = [Row(label=f"row {k}", arm=arm, versus="row 0" if k else None) for k, arm in enumerate(arms)]
    plan = make_plan({"t": rows}, seeds=6)
    records, curves = frames_of(plan, {}, Noise(seed=6, sd=0.3))
    found = analyse(plan, records, curves, SETTINGS).tables[0]
    se = found.pooled_sd * math.sqrt(2 / 6)
    wanted = detectable_effect(estimate_of(se, 5 * 5), 0.05 / 5)
    assert found.resolvable.sd == pytest.approx(found.pooled_sd, rel=1e-9)
    assert found.resolvable.effect_now == pytest.approx(wanted, rel=1e-9)
    assert not any(c.effect.flagged for c in found.cells if c.effect)
    assert found.resolvable.effect_now == pytest.approx(found.cells[1].effect.detectable, rel=1e-9)


def test_the_seeds_needed_are_the_fewest_that_resolve_the_smallest_effect():
    found = resolvable([(estimate_of(0.25, 6.0), 4)], 3, SETTINGS)
    at = [
        effect_at(n, found.sd, found.df_per_seed, found.level)
        for n in (found.seeds_needed - 1, found.seeds_needed)
    ]
    assert at[0] > SETTINGS.smallest_effect_pp >= at[1]
    assert list(found.effects) == sorted(found.effects, reverse=True)


def test_an_effect_out_of_reach_has_no_number_of_seeds():
    found = resolvable([(estimate_of(5.0, 6.0), 4)], 3, replace(SETTINGS, smallest_effect_pp=0.001))
    assert found.seeds_needed is None


def test_the_curve_is_the_median_comparisons_and_needs_one_with_a_spread():
    three = [(estimate_of(se, 6.0), 4) for se in (0.1, 0.2, 9.0)]
    assert resolvable(three, 3, SETTINGS).sd == pytest.approx(0.2 * math.sqrt(2))
    assert resolvable([(None, 4), (estimate_of(0.1, 3.0), 1)], 2, SETTINGS) is None


# ----- flips


def outcomes_of(bits_by_arm: dict[str, np.ndarray]):
    """Arm -> (S, N) bits; the accuracies are those of the bits."""
    rows = [
        record(arm, seed, 100 * float(each.mean()), bits=each)
        for arm, bits in bits_by_arm.items()
        for seed, each in enumerate(bits)
    ]
    return read_outcomes(pd.DataFrame(rows))


def random_bits(seeds: int, images: int = 500) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        arm: (rng.random((seeds, images)) < p).astype(np.uint8) for arm, p in (("base", 0.7), ("row", 0.8))
    }


def test_gained_minus_lost_is_the_accuracy_difference_exactly():
    bits = random_bits(4)
    bits["row"] = bits["row"][:3]  # one seed fewer
    cells = [cell("base", "base", None), cell("row", "row", "base")]
    (found,) = flips_of([table(cells)], outcomes_of(bits), range(4))
    difference = bits["row"].mean(axis=1).mean() - bits["base"].mean(axis=1).mean()
    assert found.gained - found.lost == pytest.approx(difference * 500, abs=1e-9)
    assert (found.runs, found.versus_runs, found.images) == (3, 4, 500)


def test_gained_and_lost_are_means_over_all_pairs_of_runs():
    bits = random_bits(3)
    cells = [cell("base", "base", None), cell("row", "row", "base")]
    (found,) = flips_of([table(cells)], outcomes_of(bits), range(3))
    pairs = [(r, b) for r in bits["row"] for b in bits["base"]]
    assert found.gained == pytest.approx(np.mean([((r == 1) & (b == 0)).sum() for r, b in pairs]))
    assert found.lost == pytest.approx(np.mean([((r == 0) & (b == 1)).sum() for r, b in pairs]))
    ordered = [(a, b) for i, a in enumerate(bits["base"]) for j, b in enumerate(bits["base"]) if i != j]
    assert found.churn == pytest.approx(np.mean([((a == 1) & (b == 0)).sum() for a, b in ordered]))


def test_a_row_flips_nothing_against_a_copy_of_its_reference_with_one_run():
    one = correct_of(list(outcomes_of({"a": random_bits(1)["row"]})["a"].values()))
    assert gained_and_lost(one, one) == (0.0, 0.0)
    assert churn_of(one) is None


def test_rows_without_bits_or_with_other_images_have_no_flips():
    bits = random_bits(2)
    cells = [cell("base", "base", None), cell("row", "row", "base"), cell("same", "base", "base"),
             cell("none", None, "base"), cell("lost", "gone", "base")]  # fmt: skip
    bits["row"] = bits["row"][:, :400]
    assert flips_of([table(cells)], outcomes_of(bits), range(2)) == ()


def test_runs_of_unplanned_seeds_do_not_count():
    bits = random_bits(3)
    cells = [cell("base", "base", None), cell("row", "row", "base")]
    (found,) = flips_of([table(cells)], outcomes_of(bits), range(2))
    assert found.runs == found.versus_runs == 2
