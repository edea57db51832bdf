"""Pixels and data sets that rows ask for in the paper's words, and what each size uses for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.spec import DataSpec
from harness.study.catalogue import Catalogue
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.plan import Plan
from tests.study.fakes import CATALOGUE, HEAD, HEAD_LINES, arm_of, mistakes, plan_of, write

SIZED = HEAD.replace(
    "batch_scale: 1/8}",
    "batch_scale: 1/8, train_images: 6000, test_images: 500, resolutions: {299: 40, 151: 28},"
    " datasets: {places: {fashion_mnist: {part: last5}}, imagenet: {fashion_mnist: {part: first5}},"
    " few: few, whole: cifar10}}",
)
ROWS = """
tables:
  t:
    title: T
    design: rows
    rows:
      - {label: baseline}
      - {label: as the baseline, set: {resolution: 224}}
      - {label: large, set: {resolution: 299}}
      - {label: by a trick, add: receptive_field}
      - {label: medium, add: {receptive_field: {pixels: 151}}}
      - {label: places, set: {data: places, resolution: 151}}
      - {label: imagenet, set: {data: imagenet}}
      - {label: few, set: {data: few}}
"""


def data_of(plan: Plan, row: str) -> DataSpec:
    return arm_of(plan, row).recipe.data


def test_the_paper_size_uses_what_is_asked_for(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SIZED + ROWS, size="paper")
    pixels = {row: data_of(plan, row).resolution for row in ("baseline", "large", "by a trick", "medium")}
    assert pixels == {"baseline": 224, "large": 299, "by a trick": 299, "medium": 151}
    assert (data_of(plan, "places").name, data_of(plan, "places").train_images) == ("places", None)
    assert arm_of(plan, "baseline") == arm_of(plan, "as the baseline") == arm_of(plan, "imagenet")


def test_a_size_maps_pixels_and_the_baselines_are_its_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SIZED + ROWS)
    rows = ("baseline", "as the baseline", "large", "by a trick", "medium")
    assert [data_of(plan, row).resolution for row in rows] == [32, 32, 40, 40, 28]
    assert arm_of(plan, "large") == arm_of(plan, "by a trick")


def test_a_size_maps_data_sets_also_the_one_that_the_baseline_has(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SIZED + ROWS)
    assert data_of(plan, "baseline").args == {"part": "all"}
    places = data_of(plan, "places")
    assert (places.name, places.args, places.resolution) == ("fashion_mnist", {"part": "last5"}, 28)
    assert data_of(plan, "imagenet").args == {"part": "first5"}


def _corrupting(*names: str) -> Catalogue:
    """The catalogue in which these data sets have an argument `corrupt`."""
    changed = {
        name: replace(
            entry,
            args={**entry.args, "corrupt": 0.0},
            said_if_set=frozenset({"corrupt"}),
            of_a_row=frozenset({"corrupt"}),
        )
        for name, entry in CATALOGUE.data.items()
        if name in names
    }
    return CATALOGUE._replace(data={**CATALOGUE.data, **changed})


def test_what_a_row_does_to_its_data_is_done_to_what_stands_for_it(tmp_path: Path) -> None:
    """`corrupt` goes over to the size's data; which part of that is used stays the size's to say."""
    row = "{label: noisy, set: {data: {imagenet: {corrupt: 0.2}}}}, {label: as it is, set: {data: imagenet}}"
    catalogue = _corrupting("imagenet", "fashion_mnist", "cifar10")
    study = load_study(write(tmp_path, _row(row)), catalogue)
    mini, paper = (expand(study, catalogue, ExpandOptions(size=size)) for size in ("mini", "paper"))
    assert data_of(mini, "noisy").args == {"part": "first5", "corrupt": 0.2}
    assert data_of(mini, "as it is").args == {"part": "first5"}
    assert (data_of(paper, "noisy").name, data_of(paper, "noisy").args) == ("imagenet", {"corrupt": 0.2})
    with pytest.raises(StudyError) as caught:
        load_study(write(tmp_path, _row(row)), _corrupting("imagenet", "cifar10"))
    (problem,) = caught.value.problems
    assert str(problem).endswith(
        "the row sets 'corrupt' of its data, and fashion_mnist, which stands for it at this size, has no such"
        " argument; give the size another data set under 'data' or 'datasets' (t, row 'noisy'; size mini)"
    )


def test_image_counts_hold_for_other_sets_as_far_as_these_have_images(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SIZED + ROWS)
    counts = {
        row: (data_of(plan, row).train_images, data_of(plan, row).test_images)
        for row in ("baseline", "places", "few")
    }
    assert counts == {"baseline": (6000, 500), "places": (6000, 500), "few": (None, None)}  # 300 and 50


def test_costs_are_those_of_the_arms_own_data_and_pixels(tmp_path: Path) -> None:
    head = HEAD.replace("model: resnet50", "model: {inception: {stem: small}}")
    plan = plan_of(tmp_path, head + ROWS, size="paper")
    macs = {plan.arm_labels[run.arm_id]: run.macs for run in plan.runs}
    images, epochs = 1_281_167, 120
    assert macs["t / baseline"] == 3 * 224**2 * images * epochs
    assert macs["t / large"] == 3 * 299**2 * images * epochs
    assert macs["t / places"] == 3 * 151**2 * 1_803_460 * epochs


def test_the_plan_says_what_stands_for_what(tmp_path: Path) -> None:
    notes = plan_of(tmp_path, SIZED + ROWS).notes
    assert "pixels that rows ask for: 299 -> 40, 151 -> 28" in notes
    assert (
        "data sets that rows ask for: places -> fashion_mnist (part=last5), imagenet -> fashion_mnist"
        " (part=first5), few -> few, whole -> cifar10"
    ) in notes


def _row(text: str, head: str = SIZED) -> str:
    return head + f"tables: {{t: {{title: T, design: rows, rows: [{text}]}}}}\n"


def test_pixels_that_a_size_does_not_map_are_refused_with_the_row(tmp_path: Path) -> None:
    expected = [
        f"small.yaml:{HEAD_LINES + 1}: this size's key 'resolutions' has no entry for 331 pixels;"
        " it has 299, 151 (t, row 'a'; size mini)"
    ]
    assert mistakes(tmp_path, _row("{label: a, set: {resolution: 331}}")) == expected
    assert mistakes(tmp_path, _row("{label: a, add: {receptive_field: {pixels: 331}}}")) == expected
    both = "{label: a, set: {resolution: 331}, add: {receptive_field: {pixels: 151}}}"
    assert mistakes(tmp_path, _row(both)) == []  # the trick has the last word


def test_a_data_set_that_a_size_does_not_map_is_refused_with_the_row(tmp_path: Path) -> None:
    assert mistakes(tmp_path, _row("{label: a, set: {data: cifar10}}")) == [
        f"small.yaml:{HEAD_LINES + 1}: this size's key 'datasets' has no entry for cifar10;"
        " it has places, imagenet, few, whole (t, row 'a'; size mini)"
    ]


def test_an_unknown_data_set_and_a_wrong_argument_are_refused(tmp_path: Path) -> None:
    (message,) = mistakes(tmp_path, _row("{label: a, set: {data: place}}"))
    assert message.startswith(
        f"small.yaml:{HEAD_LINES + 1}: unknown data set 'place'; did you mean 'places'? Valid: cifar10,"
    )
    head = SIZED.replace("part: last5", "part: last")
    assert mistakes(tmp_path, _row("{label: a}", head)) == [
        "small.yaml:6: part must be all, first5 or last5, got 'last'"
    ]


def test_a_name_that_every_size_maps_need_not_be_a_data_set(tmp_path: Path) -> None:
    head = HEAD
    for end in ("1/8}", "1/2}", "epochs: 120}"):
        head = head.replace(end, end[:-1] + ", datasets: {mine: cifar10}}")
    plan = plan_of(tmp_path, _row("{label: a, set: {data: mine}}", head), size="paper")
    assert data_of(plan, "a").name == "cifar10"


def test_pixels_of_the_baseline_have_one_answer(tmp_path: Path) -> None:
    head = HEAD.replace("1/8}", "1/8, resolutions: {224: 28}}")
    assert mistakes(tmp_path, _row("{label: a}", head)) == [
        "small.yaml:6: resolutions maps 224 to 28, but those are the baseline's pixels, for which this"
        " size's 'resolution' is 32"
    ]


def test_a_size_and_the_baseline_do_not_set_what_is_a_key_of_the_size(tmp_path: Path) -> None:
    head = HEAD.replace("1/8}", "1/8, set: {resolution: 40}}").replace(
        "bag_of_tricks_baseline}", "bag_of_tricks_baseline, set: {data: places}}"
    )
    assert mistakes(tmp_path, _row("{label: a}", head)) == [
        "small.yaml:4: the baseline's data is the key 'data' of each size",
        "small.yaml:6: the baseline's resolution is the key 'resolution' of each size",
    ]
