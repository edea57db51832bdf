"""Rows that only evaluate trained networks: what they are made of, what they need, what they cost."""

from __future__ import annotations

import json
from pathlib import Path

from harness.spec import MEMBER_STRIDE, Member, run_id
from harness.study.plan import Plan, plan_to_json
from tests.study.fakes import HEAD, HEAD_LINES, arm_of, cells, mistakes, plan_of

ARMS = """
arms:
  large: {model: resnet152, add: label_smoothing}
  crops_of_large: {from: large, add: multi_crop}
"""
TABLE = """
tables:
  t:
    title: T
    design: rows
    rows:
      - {label: one crop, add: mixup}
      - {label: ten crops, add: [mixup, multi_crop]}
      - {label: raw, add: [raw_weights, cosine]}
      - {label: three, add: [mixup, {ensemble: {members: 3}}, {multi_crop: {crops: 144}}]}
      - {label: mixed, add: {mixed_ensemble: {members: 2, partner: large, partner_members: 1}}}
      - {label: one view is the training itself, add: [mixup, {multi_crop: {crops: 1}}]}
      - {label: student, add: {distillation: {teacher: large}}}
      - {label: students, add: [{distillation: {teacher: large}}, {ensemble: {members: 2}}]}
"""


def plan(folder: Path, **options: int) -> Plan:
    return plan_of(folder, HEAD + ARMS + TABLE, **options)


def test_a_row_is_split_into_its_training_and_what_observes_it(tmp_path: Path) -> None:
    found = plan(tmp_path)
    trained, ten = arm_of(found, "one crop"), arm_of(found, "ten crops")
    assert ten.observes == (Member(arm=trained.arm_id, runs=1),)
    assert (ten.recipe.eval_crops, trained.recipe.eval_crops, trained.observes) == (10, 1, ())
    assert [trick.name for trick in ten.tricks] == [trick.name for trick in trained.tricks] == ["mixup"]
    assert cells(found, "t")["ten crops", None].tricks == ("mixup", "multi_crop")


def test_training_tricks_after_an_observer_belong_to_the_training(tmp_path: Path) -> None:
    found = plan(tmp_path)
    raw = arm_of(found, "raw")
    (member,) = raw.observes
    assert (raw.recipe.eval_weights, found.arms[member.arm].recipe.eval_weights) == ("raw", "own")
    assert raw.recipe.schedule == found.arms[member.arm].recipe.schedule == "cosine"


def test_observers_that_change_nothing_are_the_training_itself(tmp_path: Path) -> None:
    found = cells(plan(tmp_path), "t")
    assert found["one view is the training itself", None].arm_id == found["one crop", None].arm_id


def test_tricks_that_observe_may_be_on_together(tmp_path: Path) -> None:
    found = plan(tmp_path)
    three = arm_of(found, "three")
    assert three.observes == (Member(arm=arm_of(found, "one crop").arm_id, runs=3),)
    assert three.recipe.eval_crops == 144


def test_a_mixed_ensemble_observes_its_own_training_and_the_partner(tmp_path: Path) -> None:
    found = plan(tmp_path)
    own, partner = arm_of(found, "mixed").observes
    assert (own.runs, partner.runs) == (2, 1)
    assert found.arms[own.arm].recipe.model.name == "resnet50"
    assert found.arms[partner.arm].recipe.model.name == "resnet152"


def test_further_members_have_seeds_of_their_own_and_come_before_what_observes_them(tmp_path: Path) -> None:
    found = plan(tmp_path)
    place = {run.run_id: index for index, run in enumerate(found.runs)}
    assert len(place) == len(found.runs)
    runs = {(run.arm_id, run.seed): run for run in found.runs}
    trained = arm_of(found, "one crop").arm_id
    three = runs[arm_of(found, "three").arm_id, 1]
    assert three.needs == tuple(run_id(trained, 1 + k * MEMBER_STRIDE) for k in range(3))
    for run in found.runs:
        assert run.needs == found.spec(run).needs
        assert all(place[need] < place[run.run_id] for need in run.needs)
    extra = {run.seed for run in found.runs} - set(found.seeds)
    assert found.seeds == (0, 1)
    assert extra == {1000, 1001, 2000, 2001}
    planned = [run.seed % MEMBER_STRIDE for run in found.runs]
    assert planned == sorted(planned)


def test_a_further_member_brings_the_teacher_with_its_seed(tmp_path: Path) -> None:
    found = plan(tmp_path)
    runs = {run.run_id: run for run in found.runs}
    (student,) = arm_of(found, "students").observes
    further = runs[run_id(student.arm, 1000)]
    teacher = found.arms[student.arm].teacher
    assert teacher is not None
    assert further.needs == (run_id(teacher, 1000),)
    assert runs[further.needs[0]].seed == 1000


def test_members_that_two_rows_need_are_planned_once(tmp_path: Path) -> None:
    text = TABLE + "      - {label: five, add: [mixup, {ensemble: {members: 5}}]}\n"
    before, after = plan(tmp_path), plan_of(tmp_path, HEAD + ARMS + text)
    trained = arm_of(before, "one crop").arm_id

    def members(found: Plan) -> list[int]:
        return sorted(run.seed for run in found.runs if run.arm_id == trained)

    assert members(before) == [0, 1, 1000, 1001, 2000, 2001]
    assert members(after) == sorted(seed + k * 1000 for seed in (0, 1) for k in range(5))


def test_more_seeds_keep_the_runs_there_are(tmp_path: Path) -> None:
    two = [run.run_id for run in plan(tmp_path).runs]
    three = [run.run_id for run in plan(tmp_path, seeds=3).runs]
    assert three[: len(two)] == two


def test_evaluating_costs_a_forward_pass_of_every_view_and_network(tmp_path: Path) -> None:
    found = plan(tmp_path)
    macs = {(run.arm_id, run.seed): run.macs for run in found.runs}
    # 16 blocks x 1,000 multiply-adds; 10,000 test images
    assert macs[arm_of(found, "ten crops").arm_id, 0] == 16_000 * 10_000 * 10
    assert macs[arm_of(found, "three").arm_id, 0] == 16_000 * 10_000 * 144 * 3
    assert macs[arm_of(found, "mixed").arm_id, 0] == 16_000 * 10_000 * (2 + 1)
    assert macs[arm_of(found, "one crop").arm_id, 0] == 3 * 16_000 * 60_000 * 4


def test_arms_that_no_row_shows_say_what_they_are_for(tmp_path: Path) -> None:
    found = plan(tmp_path)
    labels = found.arm_labels
    assert set(labels) == set(found.arms)
    assert labels[arm_of(found, "raw").observes[0].arm] == "trained for / t / raw"
    assert labels[arm_of(found, "mixed").observes[1].arm] == "partner / large"
    assert labels[arm_of(found, "mixed").observes[0].arm] == "trained for / t / mixed"


def test_the_plan_as_json_has_members_and_their_runs(tmp_path: Path) -> None:
    found = plan(tmp_path)
    data = json.loads(json.dumps(plan_to_json(found)))
    three = arm_of(found, "three")
    assert data["arms"][three.arm_id]["observes"] == [{"arm": three.observes[0].arm, "runs": 3}]
    assert max(run["seed"] for run in data["runs"]) == 2001
    assert data["seeds"] == [0, 1]


def test_a_fine_tuned_network_starts_from_the_run_with_its_seed(tmp_path: Path) -> None:
    found = plan_of(tmp_path, _row("{label: tuned, set: {lr: 0.01}, add: {fine_tuning: {source: large}}}"))
    tuned = arm_of(found, "tuned")
    assert tuned.source is not None
    assert found.arms[tuned.source].recipe.model.name == "resnet152"
    assert found.arm_labels[tuned.source] == "source / large"
    assert [run.arm_id for run in found.runs] == [tuned.source, tuned.arm_id] * 2
    assert found.runs[3].needs == (run_id(tuned.source, 1),)


def _row(text: str) -> str:
    return HEAD + ARMS + f"tables: {{t: {{title: T, design: rows, rows: [{text}]}}}}\n"


LINE = HEAD_LINES + ARMS.count("\n") + 1


def test_an_observer_cannot_be_a_partner_a_teacher_or_a_source(tmp_path: Path) -> None:
    for role, trick in (
        ("partner", "mixed_ensemble"),
        ("teacher", "distillation"),
        ("source", "fine_tuning"),
    ):
        text = _row(f"{{label: a, add: {{{trick}: {{{role}: crops_of_large}}}}}}")
        assert mistakes(tmp_path, text) == [
            f"small.yaml:{LINE}: arm 'crops_of_large' only evaluates trained networks"
            f" (label_smoothing, multi_crop); a {role} must be trained (t, row 'a'; sizes mini, gpu, paper)"
        ]


def test_two_tricks_cannot_both_choose_the_networks(tmp_path: Path) -> None:
    text = _row("{label: a, add: [ensemble, {mixed_ensemble: {partner: large}}]}")
    assert mistakes(tmp_path, text) == [
        f"small.yaml:{LINE}: ensemble and mixed_ensemble each say which networks are evaluated together;"
        " only one trick may (t, row 'a'; sizes mini, gpu, paper)"
    ]


def test_a_partner_and_a_source_must_be_named_and_exist(tmp_path: Path) -> None:
    assert mistakes(tmp_path, _row("{label: a, add: mixed_ensemble}")) == [
        f"small.yaml:{LINE}: trick 'mixed_ensemble' needs a partner:"
        " {mixed_ensemble: {partner: NAME OF AN ARM}}"
    ]
    assert mistakes(tmp_path, _row("{label: a, add: {fine_tuning: {source: larg}}}")) == [
        f"small.yaml:{LINE}: unknown arm 'larg'; did you mean 'large'? Valid: baseline, crops_of_large, large"
    ]


def test_arms_in_a_circle_through_a_source_or_a_partner_are_refused(tmp_path: Path) -> None:
    for trick in ("{fine_tuning: {source: b}}", "{mixed_ensemble: {partner: b}}"):
        text = HEAD + f"arms:\n  a: {{add: {trick}}}\n  b: {{from: a}}\n"
        text += "tables: {t: {title: T, design: rows, rows: [{label: r}]}}\n"
        assert mistakes(tmp_path, text) == [
            f"small.yaml:{HEAD_LINES + 2}: arms need each other in a circle: a -> b -> a"
        ]


def test_a_run_has_one_source(tmp_path: Path) -> None:
    text = _row("{label: a, add: [{fine_tuning: {source: large}}, {fine_tuning: {source: large}}]}")
    assert mistakes(tmp_path, text) == [
        f"small.yaml:{LINE}: trick 'fine_tuning' is on twice (t, row 'a'; sizes mini, gpu, paper)"
    ]


def test_teacher_and_partner_must_know_the_same_classes(tmp_path: Path) -> None:
    for role, trick in (("teacher", "distillation"), ("partner", "mixed_ensemble")):
        row = f"{{label: a, set: {{data: places}}, add: {{{trick}: {{{role}: large}}}}}}"
        assert mistakes(tmp_path, _row(row)) == [
            f"small.yaml:{LINE}: its {role} tells 10 classes apart (cifar10), the row itself 365 (places);"
            f" a {role} must know the same classes (t, row 'a'; size gpu)",
            f"small.yaml:{LINE}: its {role} tells 10 classes apart (fashion_mnist), the row itself 365"
            f" (places); a {role} must know the same classes (t, row 'a'; size mini)",
            f"small.yaml:{LINE}: its {role} tells 1000 classes apart (imagenet), the row itself 365 (places);"
            f" a {role} must know the same classes (t, row 'a'; size paper)",
        ]
    fine = "{label: a, set: {data: places}, add: {fine_tuning: {source: large}}}"
    assert mistakes(tmp_path, _row(fine)) == []


def test_classes_that_are_not_known_yet_are_not_compared(tmp_path: Path) -> None:
    row = "{label: a, set: {data: folder}, add: {distillation: {teacher: large}}}"
    assert mistakes(tmp_path, _row(row)) == []
