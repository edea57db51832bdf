"""A comparison that nothing could be seen in gets no verdict, but the reason; the others keep theirs."""

from dataclasses import replace

import pandas as pd
import pytest

from harness.analysis import analyse
from harness.analysis.findings import (
    CANNOT_TEST,
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    UNDECIDED,
    Settings,
)
from harness.study.conditions import setting_of
from harness.study.plan import Claim
from tests.analysis.plans import RECIPE, Row, make_plan, trained

NO_CURVES = pd.DataFrame(columns=["arm_id", "seed", "step", "epoch", "val_top1"])
QUIET = (-0.1, 0.0, 0.1)  # seed effects; rows differ by hundredths on top
SETTINGS = Settings(smallest_effect_pp=1.0)


def floors(value=82.2, problem=None, **more):
    """One floor, of the data of `RECIPE`."""
    entry = {
        "schema": 1, "setting": setting_of(RECIPE.data), "data": "fashion_mnist", "problem": problem,
        "fingerprint": "f", "classes": 10, "train_images": 4000, "test_images": 10_000, "channels": 1,
        "pixels": 32, "chance": 10.0, "guessing": 10.5, "neighbours": value - 2, "linear": value,
    }  # fmt: skip
    return {"schema": 1, "why": "", "floors": [{**entry, **more}]}


def table(rows, control=None, **changes):
    """A plan of one table: label -> changes of its recipe; every row against the first."""
    first = next(iter(rows))
    found = make_plan(
        {
            "t": [
                Row(
                    label=label,
                    arm=trained(number, **changes, **own),
                    versus=None if label == first else first,
                    paper=paper,
                )
                for number, (label, (own, paper)) in enumerate(rows.items())
            ]
        }
    )
    cells = tuple(
        replace(cell, may_fail=cell.row.startswith("may fail"), tricks=("mixup",) * (cell.row == "mixup"))
        for cell in found.tables[0].cells
    )
    return replace(found, tables=(replace(found.tables[0], cells=cells, control=control),))


def plain(*labels):
    return {label: ({}, {}) for label in labels}


def findings(plan, values, *, steps=1000, of=floors, settings=SETTINGS, **more):
    """values: label -> top-1 of every seed; None: the run diverged."""
    rows = []
    for number, cell in enumerate(plan.tables[0].cells):
        for seed, value in enumerate(values[cell.row]):
            top1 = None if value is None else value + 0.02 * ((7 * seed + 3 * number) % 5 - 2)
            rows.append(
                {
                    "run_id": f"{number}-{seed}",
                    "arm_id": cell.arm_id,
                    "seed": seed,
                    "top1": top1,
                    "status": "diverged" if value is None else "finished",
                    "steps": steps,
                    "data_fingerprint": "f",
                    **more,
                }
            )
    return analyse(plan, pd.DataFrame(rows), NO_CURVES, settings, of() if callable(of) else of)


def at(mean):
    return [mean + each for each in QUIET]


def effects(plan, values, **more):
    found = findings(plan, values, **more).tables[0]
    return {cell.row: cell.effect for cell in found.cells if cell.effect}


COMPETENT = {"base": at(85.0), "up": at(87.0), "same": at(85.05)}


def test_competent_rows_keep_the_words_that_they_have_without_conditions():
    plan = table(plain(*COMPETENT))
    with_them, without = effects(plan, COMPETENT), effects(plan, COMPETENT, of=None)
    assert {row: effect.verdict for row, effect in without.items()} == {"up": HELPS, "same": NO_DIFFERENCE}
    assert with_them == without


def test_rows_below_a_linear_classifier_get_no_word():
    values = {"base": at(79.5), "up": at(81.2), "same": at(79.5)}
    found = effects(table(plain(*values)), values)
    assert {effect.verdict for effect in found.values()} == {CANNOT_TEST}
    says = "both networks, 81.2 % and 79.5 %, are below a linear classifier on the same images, 82.2 %"
    assert found["up"].qualifier == says
    assert found["up"].estimate == pytest.approx(1.7, abs=0.05)  # numbers stay


def test_one_row_below_the_floor_leaves_the_comparison_of_the_others():
    values = {**COMPETENT, "bad": at(73.3)}
    found = effects(table(plain(*values)), values)
    assert {row: effect.verdict for row, effect in found.items()} == {
        "up": HELPS, "same": NO_DIFFERENCE, "bad": CANNOT_TEST,
    }  # fmt: skip
    assert found["bad"].qualifier == "bad, 73.3 %, is below a linear classifier on the same images, 82.2 %"


def test_a_row_whose_mean_is_above_the_floor_and_its_limit_is_not():
    values = {**COMPETENT, "base": [80.5, 83.0, 84.0]}
    found = effects(table(plain(*values)), values)["up"]
    assert found.verdict == CANNOT_TEST
    assert "is not clearly above a linear classifier on the same images, 82.2 %" in found.qualifier


def test_networks_at_chance_are_not_equal():
    """Ten constant answers of ten classes: the floor of unlearnable images is guessing."""
    values = {"base": at(10.0), "same": at(10.0)}
    unlearnable = floors(9.9, neighbours=10.1)
    found = effects(table(plain(*values)), values, of=unlearnable)["same"]
    assert (found.verdict, found.qualifier) == (
        CANNOT_TEST,
        "both networks, 10.0 % and 10.0 %, are below guessing, 10.5 %",
    )


def test_a_collapsed_training_confirms_nothing():
    values = {**COMPETENT, "bad": [86.0, 86.1, 27.0]}
    found = effects(table(plain(*values)), values)["bad"]
    assert found.verdict == CANNOT_TEST
    assert found.qualifier == (
        "a training of bad collapsed: seed 2 ended at 27.0 % (chance 10.0 %, a linear classifier on the same "
        "images, 82.2 %)"
    )


def test_the_quarter_of_the_way_from_chance_is_the_line_of_a_collapse():
    from harness.study.conditions import Floor, collapsed

    floor = Floor(chance=10.0, guessing=10.5, neighbours=80.0, linear=82.0)
    assert collapsed("x", {0: 28.0, 1: 90.0}, floor) == ""
    says = "a training of x collapsed: seed 0 ended at 27.9 %"
    assert collapsed("x", {0: 27.9, 1: 90.0}, floor).startswith(says)


def test_a_row_that_failed_in_the_paper_too_may_fail_here():
    values = {**COMPETENT, "may fail": at(12.0)}
    found = effects(table(plain(*values)), values)["may fail"]
    assert found.verdict == HURTS


def test_a_diverged_run_is_no_basis_of_a_comparison():
    values = {**COMPETENT, "lost": [86.0, 86.1, None]}
    found = effects(table(plain(*values)), values)["lost"]
    assert (found.verdict, found.qualifier) == (CANNOT_TEST, "1 of 3 runs of lost diverged")
    values = {**COMPETENT, "lost": [86.0, None, None]}
    assert effects(table(plain(*values)), values)["lost"].verdict == NOT_EVALUABLE


def test_too_few_updates():
    plan = table(plain(*COMPETENT))
    found = effects(plan, COMPETENT, steps=375)["up"]
    assert (found.verdict, found.qualifier) == (
        CANNOT_TEST,
        "up is trained for 375 updates, fewer than 500",
    )
    assert effects(plan, COMPETENT, steps=500)["up"].verdict == HELPS


def test_a_phase_of_a_few_updates():
    plan = table(plain(*COMPETENT), schedule="step", milestones=(2.0, 5.9))
    assert effects(plan, COMPETENT)["up"].qualifier == (
        "a phase of up's schedule has 17 updates, fewer than 20"
    )


def test_a_short_warm_up_counts_where_warm_ups_are_compared():
    rows = {"base": ({}, {}), "up": ({"warmup_epochs": 0.2}, {}), "same": ({}, {})}
    found = effects(table(rows), COMPETENT)
    assert found["up"].qualifier == "the warm-up of up has 33 updates, fewer than 50"
    assert found["same"].verdict == NO_DIFFERENCE
    both = effects(table(plain(*COMPETENT), warmup_epochs=0.2), COMPETENT)
    assert both["up"].verdict == HELPS


@pytest.mark.parametrize(("printed", "word"), [(76.5, CANNOT_TEST), (70.0, HURTS)])
def test_rows_that_are_close_in_the_paper_and_far_apart_here(printed, word):
    rows = {**plain("base", "up", "same"), "far": ({}, {"top1": printed})}
    rows["base"] = ({}, {"top1": 77.0})
    values = {**COMPETENT, "base": at(88.0), "far": at(84.0)}
    found = effects(table(rows), values)["far"]
    assert found.verdict == word
    if word == CANNOT_TEST:
        assert found.qualifier == "another regime: far and base are 4.0 pp apart, in the paper 0.50 pp"


def test_no_headroom():
    values = {"base": at(99.3), "up": at(99.4), "same": at(99.3)}
    found = effects(table(plain(*values)), values)["same"]
    assert found.verdict == CANNOT_TEST
    assert found.qualifier.startswith("no headroom: top-1 is 99.3 % already, 0.7 pp from the end")


def test_the_same_run_is_equal_by_construction_and_nothing_is_tested():
    plan = make_plan(
        {"t": [Row(label="base", arm=trained(0)), Row(label="again", arm=trained(0), versus="base")]}
    )
    found = effects(plan, {"base": at(85.0), "again": at(85.0)})["again"]
    says = "by construction: it is the same run as base at this size"
    assert (found.verdict, found.qualifier) == (CANNOT_TEST, says)


NOISY = {"base": [85.0, 85.6, 84.4], "up": [90.1, 90.2, 90.9], "same": [85.2, 85.1, 84.7]}


def test_no_difference_needs_a_table_that_could_have_seen_one():
    """90 % of the interval lies within 1 pp, and an effect of 1 pp would still be missed half of the time."""
    plan = table(plain(*NOISY))
    assert effects(plan, NOISY, of=None)["same"].verdict == NO_DIFFERENCE
    found = effects(plan, NOISY)["same"]
    assert found.verdict == UNDECIDED
    assert "would be found with 80 % power and the table has no control" in found.qualifier
    assert found.more_seeds
    assert found.more_seeds >= 1


def test_a_control_that_was_detected_says_that_the_table_can_tell():
    plan = table(plain(*NOISY), control=("up", "base"))
    found = findings(plan, NOISY)
    assert {cell.row: cell.effect.verdict for cell in found.tables[0].cells if cell.effect} == {
        "up": HELPS, "same": NO_DIFFERENCE,
    }  # fmt: skip
    (control,) = found.competence.controls
    assert (control.detected, control.says) == (True, "the control, up against base, was detected")


@pytest.mark.parametrize("control", [[85.1, 85.2, 85.0], [80.0, 80.1, 80.2]])
def test_a_control_that_was_not_detected_or_is_below_the_floor_says_nothing(control):
    values = {**NOISY, "up": control}
    found = findings(table(plain(*NOISY), control=("up", "base")), values)
    assert found.tables[0].cells[2].effect.verdict == UNDECIDED
    assert not found.competence.controls[0].detected
    assert "and the control, up against base, was not detected" in found.tables[0].cells[2].effect.qualifier


def test_two_seeds_below_the_floor_are_said_before_the_third_is_there():
    values = {"base": at(70.0)[:2], "up": at(71.0)[:2]}
    assert effects(table(plain(*values)), values)["up"].verdict == CANNOT_TEST
    above = {"base": at(84.0)[:2], "up": at(85.0)[:2]}
    assert effects(table(plain(*above)), above)["up"].verdict == UNDECIDED


@pytest.mark.parametrize(
    ("of", "says"),
    [
        (floors(problem="20,000 classes are more than 1,000"), "20,000 classes are more than 1,000"),
        (floors(fingerprint="other"), "it was measured on other data than the runs saw"),
    ],
)
def test_without_a_floor_the_other_conditions_hold_and_it_is_said(of, says):
    values = {"base": at(50.0), "up": at(52.0)}
    plan = table(plain(*values))
    found = findings(plan, values, of=of)
    assert found.tables[0].cells[1].effect.verdict == HELPS
    assert [floor.problem for floor in found.competence.floors] == [says]
    assert effects(plan, values, of=of, steps=100)["up"].verdict == CANNOT_TEST


def test_the_users_own_trainer_has_no_floor():
    values = {"base": at(50.0), "up": at(52.0)}
    found = findings(table(plain(*values), trainer="mine"), values)
    assert found.tables[0].cells[1].effect.verdict == HELPS
    assert found.competence.no_floor == "its rows are trained by a plugin's own function"


def test_the_sentence_names_the_reason():
    values = {"base": at(79.5), "up": at(81.2)}
    (sentence,) = [cell.sentence for cell in findings(table(plain(*values)), values).tables[0].cells[1:]]
    assert sentence == (
        "up cannot be tested here against base: both networks, 81.2 % and 79.5 %, are below a linear "
        "classifier on the same images, 82.2 %; observed +1.69 pp, 3 seeds."
    )


def test_a_training_loss_with_other_targets_is_no_comparison():
    """Label smoothing alone adds some .5 nats with 10 classes, whatever is learnt."""
    plan = table(plain("base", "mixup"))
    said = Claim(
        says="mixup raises the training loss", source="", table="t", row="mixup", versus="base",
        measure="train_loss",
    )  # fmt: skip
    values = {"base": at(85.0), "mixup": at(85.5)}
    (found,) = findings(replace(plan, claims=(said,)), values, train_loss=1.0).claims
    says = "by construction: mixup changes what the training loss is measured against"
    assert (found.answer, found.why) == (CANNOT_TEST, says)


def test_a_plugins_metric_has_no_floor_and_the_report_says_so():
    values = {"base": at(50.0), "up": at(52.0)}
    none = {"schema": 1, "why": "the metric macro_f1 is a plugin's", "floors": []}
    found = findings(table(plain(*values)), values, of=none)
    assert found.tables[0].cells[1].effect.verdict == HELPS
    assert (found.competence.no_floor, found.competence.floors) == ("the metric macro_f1 is a plugin's", ())
