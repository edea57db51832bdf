"""Several studies planned together: each run counts once, and who shares it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.commands.display import show_plans
from harness.data.entry import Look
from harness.study.plan import Plan, Union, union, union_to_json
from tests.study.fakes import HEAD, plan_of


def _plan(folder: Path, name: str, *rows: str, seeds: int = 2) -> Plan:
    text = HEAD.replace("study: small", f"study: {name}")
    return plan_of(
        folder, text + f"tables: {{t: {{title: T, design: rows, rows: [{', '.join(rows)}]}}}}\n", seeds=seeds
    )


@pytest.fixture
def plans(tmp_path: Path) -> list[Plan]:
    return [
        _plan(tmp_path, "one", "{label: plain}", "{label: m, add: mixup}", "{label: c, add: cosine}"),
        _plan(tmp_path, "two", "{label: base}", "{label: crops, add: [mixup, multi_crop]}"),
        _plan(tmp_path, "three", "{label: base}", "{label: own, add: label_smoothing}", seeds=1),
    ]


def test_each_run_counts_once_and_those_that_share_it_are_named(plans: list[Plan]) -> None:
    found = union(plans)
    # two seeds each of: plain, mixup, cosine, mixup seen by crops; one of label smoothing
    assert (found.runs, found.done) == (2 * 4 + 1, 0)
    # plain: seed 0 in all three, seed 1 in two; mixup: both seeds in two
    assert found.shared == 4
    assert found.sharing == ((("one", "two"), 3), (("one", "two", "three"), 1))
    assert found.macs == sum({run.run_id: run.macs for plan in plans for run in plan.runs}.values())
    assert found.time_s is None


def test_what_is_done_costs_nothing_more(plans: list[Plan]) -> None:
    for plan in plans:
        for run in plan.runs:
            run.done, run.time_s = plan.study != "three", 2.0
    found = union(plans)
    (own,) = [run for run in plans[2].runs if plans[2].arm_labels[run.arm_id] == "t / own"]
    assert (found.done, found.macs, found.time_s) == (8, own.macs, 2.0)


def test_no_study_shares_with_itself(plans: list[Plan]) -> None:
    found = union(plans[:1])
    assert (found.runs, found.shared, found.sharing) == (6, 0, ())


def test_the_union_as_json_has_every_field(plans: list[Plan]) -> None:
    data = json.loads(json.dumps(union_to_json(union(plans))))
    assert list(data) == list(Union._fields)
    assert data["sharing"][0] == {"studies": ["one", "two"], "runs": 3}


def test_a_person_sees_a_line_per_study_then_what_they_share(
    plans: list[Plan], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show_plans(plans, union(plans), Look(problems=("imagenet needs a folder",)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("one (mini): 3 rows, 3 arms x 2 seeds = 6 runs, 0 done; to train: 6 runs, ")
    assert [line.split()[0] for line in lines[1:3]] == ["two", "three"]
    assert lines[4] == "missing data: imagenet needs a folder"
    assert lines[5].startswith(
        "together: 9 runs, 4 of them shared by more than one study, 0 done; to train: 9 runs, "
    )
    assert lines[6:] == ["shared by one, two: 3 runs", "shared by one, two, three: 1 run"]
