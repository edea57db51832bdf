"""The paper's own effect beside ours, and what the per-image bits add to a verdict."""

import numpy as np
import pytest

from harness.analysis.findings import COMPATIBLE, DIFFERS, HELPS, REPRODUCED, Settings
from harness.study.plan import PaperValue
from tests.analysis.tables import QUIET, by_row, cell, found, plain, printed, quiet, record, records, star


def with_bits(shared):
    """Three arms, three seeds, 400 images; `up` is right on 12 more images: the same or others per seed."""
    rng = np.random.default_rng(3)
    rows = []
    for seed in range(3):
        base = np.zeros(400, dtype=np.uint8)
        base[:200] = 1
        up = base.copy()
        up[200 + (0 if shared else 12 * seed) : 212 + (0 if shared else 12 * seed)] = 1
        for arm, bits in (("base", base), ("up", up), ("third", base)):
            noisy = bits.copy()
            noisy[rng.integers(0, 200, size=rng.integers(0, 4))] = 0
            rows.append(record(arm, seed, 100 * noisy.mean(), bits=noisy))
    return by_row(found(star(["base", "up", "third"]), rows, 3))["up"].effect


def test_t2_says_on_this_test_set_where_a_few_images_carry_the_effect():
    effect = with_bits(shared=True)
    assert effect.verdict == HELPS
    assert effect.new_images_low < effect.low
    assert effect.new_images_high > effect.high
    few = with_bits(shared=False)
    assert few.new_images_high - few.new_images_low < effect.new_images_high - effect.new_images_low


def test_t2_changes_the_words():
    rng = np.random.default_rng(4)
    rows = []
    for seed in range(3):
        base = np.zeros(400, dtype=np.uint8)
        base[:200] = 1
        up = base.copy()
        up[200:204] = 1  # one percentage point, from the same 4 images in every seed
        for arm, bits in (("base", base), ("up", up), ("third", base)):
            rows.append(record(arm, seed, 100 * bits.mean() + rng.normal(0, 0.02), bits=bits))
    cells = by_row(found(star(["base", "up", "third"]), rows, 3))
    assert cells["up"].effect.verdict == HELPS
    assert cells["up"].effect.new_images_low < 0.2
    assert cells["up"].effect.qualifier == "on this test set by at least 0.2 pp"


def test_without_bits_there_is_no_t2():
    effect = quiet()["up"].effect
    assert (effect.new_images_low, effect.new_images_high) == (None, None)


def paper_cells():
    return [
        cell("base", "base", None, paper=printed(76.0)),
        cell("up", "up", "base", paper=printed(77.0, "memory")),
        cell("other", "other", "up", paper=printed(76.2), paper_versus="base"),
    ]


def test_the_papers_effect_is_shown_and_only_compared_where_comparable():
    mini = by_row(found(paper_cells(), records(QUIET), 3))
    assert (mini["up"].effect.paper, mini["up"].effect.paper_status) == (pytest.approx(1.0), "memory")
    assert mini["up"].sentence.endswith("(the paper, from memory: +1.00).")
    assert (mini["other"].effect.paper, mini["other"].effect.paper_status) == (pytest.approx(0.2), "verified")
    assert mini["up"].effect.agreement is None
    assert mini["up"].effect.gap is None
    assert plain(mini["base"])["effect"] is None


def test_further_printed_numbers_are_carried_and_never_analysed():
    def cells(extra):
        plain_cells = paper_cells()
        return [cell(c.row, c.arm_id, c.versus, paper={**c.paper, **extra}) for c in plain_cells]

    extra = {
        name: PaperValue(value=9.9, status="memory") for name in ("top1_std", "params_m", "gflops", "cost")
    }
    bare, more = by_row(found(cells({}), records(QUIET), 3)), by_row(found(cells(extra), records(QUIET), 3))
    assert {name: one.effect for name, one in more.items()} == {
        name: one.effect for name, one in bare.items()
    }
    assert [one.sentence for one in more.values()] == [one.sentence for one in bare.values()]
    assert set(more["up"].paper) == {"top1", *extra}


@pytest.mark.parametrize(
    ("theirs", "delta", "word"), [(77.0, 0.2, REPRODUCED), (79.0, 0.2, DIFFERS), (77.0, 0.01, COMPATIBLE)]
)
def test_agreement_with_the_paper(theirs, delta, word):
    cells = [cell("base", "base", None, paper=printed(76.0)), cell("up", "up", "base", paper=printed(theirs))]
    cells += star(list(QUIET))[2:]
    comparable = Settings(comparable_to_paper=True, smallest_effect_pp=delta)
    effect = by_row(found(cells, records(QUIET), 3, comparable))["up"].effect
    assert effect.gap == pytest.approx(effect.estimate - (theirs - 76.0))
    twice = 2 * (effect.high - effect.estimate)  # v (2/3 + 2/1) is 4 times v 2/3
    assert effect.gap_high - effect.gap == pytest.approx(twice)
    assert effect.agreement == word


@pytest.mark.parametrize(("metric", "has"), [("accuracy", True), ("f1", False), ("balanced_accuracy", False)])
def test_bits_of_the_top1_answer_say_nothing_of_a_metric_over_classes(metric: str, has: bool):
    rng = np.random.default_rng(3)
    rows = []
    for seed in range(3):
        for arm, right in (("base", 200), ("up", 212), ("third", 200)):
            bits = np.arange(400) < right + rng.integers(0, 4)
            rows.append(record(arm, seed, 100 * bits.mean(), bits=bits) | {metric: 100 * bits.mean()})
    settings = Settings(metric=metric, percent=True)
    effect = by_row(found(star(["base", "up", "third"]), rows, 3, settings))["up"].effect
    assert (effect.new_images_low is not None) == has
