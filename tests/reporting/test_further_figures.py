"""The figures of the appendix: what is drawn is what was found, each only where its data exist."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from harness.analysis import analyse
from harness.analysis.findings import HELPS, LookResult, Settings
from harness.reporting import ReportInput
from harness.reporting.figures.curves import gain_sketches
from harness.reporting.figures.planning import budget_sketches, flip_sketches, resolvable_sketch
from harness.reporting.figures.runs import further_parts, pairing_text, seed_sketches, trace_sketches
from harness.reporting.figures.style import house_style
from harness.reporting.figures.tables import (
    PAGE_IN,
    Panel,
    RowLine,
    draw_board,
    draw_rows,
    row_pages,
)
from harness.reporting.render import outline
from harness.reporting.sections.paper import CONTINUED, boards
from harness.spec import Arm, Member
from tests.analysis.plans import Noise, Row, frames_of, make_plan, observer, trained
from tests.reporting.edits import edit_cells
from tests.reporting.test_figures import texts_of

IMAGES = 400
SETTINGS = Settings(smallest_effect_pp=0.4)
LOOKS = (3, 5, 8)


@cache
def small_report() -> ReportInput:
    """Two tables with real bits, times, a teacher and an evaluation; row 1 helps, row 3 is the dearest."""
    arms = [trained(k) for k in range(4)]
    pupil = Arm(recipe=trained(5).recipe, teacher=arms[3].arm_id)
    crops = observer(Member(arm=arms[0].arm_id))
    rows = [Row(label=f"row {k}", arm=arm, versus="row 0" if k else None) for k, arm in enumerate(arms)]
    more = [Row(label="base", arm=arms[0]), Row(label="pupil", arm=pupil, versus="base"),
            Row(label="crops", arm=crops, versus="base")]  # fmt: skip
    plan = make_plan({"t": rows, "u": more}, seeds=4)
    levels = dict(zip([arm.arm_id for arm in arms], (70, 80, 70.2, 69), strict=True))
    records, curves = frames_of(plan, levels, Noise(sd=0.5))
    rng = np.random.default_rng(5)
    bits = [(rng.random(IMAGES) < 0.01 * levels.get(arm, 70)).astype(np.uint8) for arm in records["arm_id"]]
    costs = {arms[3].arm_id: 50.0, arms[1].arm_id: 2.0, pupil.arm_id: 1.0}
    records = records.assign(
        predictions=[np.packbits(each).tobytes() for each in bits],
        test_images=IMAGES,
        top1=[100 * float(each.mean()) for each in bits],
        train_time_s=[
            costs.get(arm, 5.0) + 0.1 * seed
            for arm, seed in zip(records["arm_id"], records["seed"], strict=True)
        ],
        device="cpu",
    )
    findings = analyse(plan, records, curves, SETTINGS)
    return ReportInput(
        title="Small",
        findings=findings,
        plan=plan,
        records=records,
        curves=curves,
        provenance={"harness": "1"},
    )


@pytest.fixture
def small() -> ReportInput:
    return small_report()


@pytest.fixture(autouse=True)
def _style():
    with house_style():
        yield


def lines_at(ax, marker: str) -> list:
    return [line for line in ax.get_lines() if line.get_marker() == marker]


def rows_of(data: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data)))


def beyond(ax) -> list[str]:
    """Labels of ticks outside of the axis, which are not drawn."""
    low, high = ax.get_xlim()
    ticks = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    return [label.get_text() for at, label in ticks if not low <= at <= high]


def in_two_lines(sketch) -> None:
    """A caption that says something, and an alt text without a hole."""
    assert 60 < len(sketch.caption) < 620
    assert not any(word in sketch.alt for word in ("None", "nan", "inf"))


# ----- accuracy under a budget


def test_dominated_points_are_hollow_and_the_front_is_joined(small):
    (sketch,) = budget_sketches(small)
    ax = sketch.figure.axes[0]
    points = {(p.time_s, p.value): p for p in small.findings.budget}
    dots = [line for line in lines_at(ax, "o") if len(line.get_xdata()) == 1]
    assert len(dots) == len(points) == 5
    for dot in dots:
        point = points[(dot.get_xdata()[0], dot.get_ydata()[0])]
        assert (dot.get_markerfacecolor() == "white") == (not point.on_front)
    best = sorted((p.time_s, p.value) for p in small.findings.budget if p.on_front)
    assert 1 < len(best) < 5 or best[0][0] == 2.15
    joined = [
        line for line in ax.get_lines() if line.get_marker() == "None" and line.get_color() == "#0072B2"
    ]
    assert any(list(zip(*line.get_data(), strict=True)) == best for line in joined)


def test_the_crosses_are_the_intervals_and_the_front_is_named_in_alt_and_csv(small):
    (sketch,) = budget_sketches(small)
    drawn = {tuple(line.get_xdata()) for line in sketch.figure.axes[0].get_lines()}
    upright = {tuple(line.get_ydata()) for line in sketch.figure.axes[0].get_lines()}
    for point in small.findings.budget:
        assert (point.time_low_s, point.time_high_s) in drawn
        assert (point.low, point.high) in upright
        assert (f"{point.value:.2f} %" in sketch.alt) == point.on_front
    rows = rows_of(sketch.data)
    assert {row["arm_id"]: row["on_front"] for row in rows} == {
        point.arm_id: str(point.on_front) for point in small.findings.budget
    }
    in_two_lines(sketch)


def test_energy_has_a_figure_of_its_own_where_it_was_measured(small):
    budget = tuple(replace(p, energy_j=1000.0 * (k + 1)) for k, p in enumerate(small.findings.budget))
    measured = replace(small, findings=replace(small.findings, budget=budget))
    sketches = {sketch.key: sketch for sketch in budget_sketches(measured)}
    assert set(sketches) == {"budget", "energy"}
    assert "1 kJ" in sketches["energy"].alt
    some = replace(small.findings, budget=(replace(budget[0], energy_j=None), *budget[1:]))
    assert [sketch.key for sketch in budget_sketches(replace(small, findings=some))] == ["budget"]


def test_a_recipe_far_below_the_front_does_not_squash_it_and_is_counted(small):
    first = small.findings.budget[0]
    failed = replace(first, value=1.0, low=None, high=None, on_front=False)
    findings = replace(small.findings, budget=(*small.findings.budget, failed))
    (sketch,) = budget_sketches(replace(small, findings=findings))
    assert sketch.figure.axes[0].get_ylim()[0] > 30
    assert "1 recipe far below the frame." in sketch.caption


# ----- what seeds could see


def test_the_marked_effect_is_the_tables_and_the_line_is_the_smallest_of_interest(small):
    sketch = resolvable_sketch(small.findings)
    ax = sketch.figure.axes[0]
    now = {(line.get_xdata()[0], line.get_ydata()[0]) for line in lines_at(ax, "o")}
    assert now == {(t.resolvable.seeds_now, t.resolvable.effect_now) for t in small.findings.tables}
    assert any(set(line.get_ydata()) == {0.4} for line in ax.get_lines())
    for table in small.findings.tables:
        assert f"{table.resolvable.effect_now:.2f} pp with 4 seeds" in sketch.alt
        assert f"{table.resolvable.seeds_needed:,} seeds needed" in sketch.alt
    effects = [float(row["effect"]) for row in rows_of(sketch.data) if row["table"] == "t"]
    assert effects == list(small.findings.tables[0].resolvable.effects)
    in_two_lines(sketch)


# ----- seeds


def test_every_run_is_a_mark_at_its_distance_from_the_mean(small):
    (sketch,) = seed_sketches(small.findings)
    ax = sketch.figure.axes[0]
    drawn = sorted(x for mark in "os^D" for line in lines_at(ax, mark) for x in line.get_xdata())
    levels = [cell.level for cell in small.findings.tables[0].cells]
    wanted = sorted(value - level.mean for level in levels for value in level.values.values())
    assert np.allclose(drawn, wanted)
    texts = " ".join(text for text, _ in texts_of(sketch.figure))
    assert all(f"{level.mean:.2f}, sd {level.sd:.2f}, n 4" in texts for level in levels)
    in_two_lines(sketch)


def test_the_title_says_what_pairing_saved_and_cost(small):
    table = small.findings.tables[0]
    assert pairing_text(replace(table, seed_correlation=0.31, paired_df_cost=3)) == (
        "ρ = 0.31: pairing saved 31 % of the variance, cost 3 df"
    )
    assert pairing_text(replace(table, seed_correlation=0.0, paired_df_cost=2)).endswith(
        "saved nothing, cost 2 df"
    )
    (sketch,) = seed_sketches(small.findings)
    assert pairing_text(table) in sketch.alt


# ----- flips


def test_bars_are_the_images_gained_and_lost_and_the_diamond_their_difference(small):
    (sketch,) = flip_sketches(small.findings)
    ax = sketch.figure.axes[0]
    mine = [each for each in small.findings.flips if each.table == "t"]
    widths = [patch.get_width() for patch in ax.patches]
    assert widths == [each.gained for each in mine] + [-each.lost for each in mine]
    (diamonds,) = lines_at(ax, "D")
    effects = [
        c.level.mean - small.findings.tables[0].cells[0].level.mean
        for c in small.findings.tables[0].cells[1:]
    ]
    assert np.allclose(diamonds.get_xdata(), np.asarray(effects) * IMAGES / 100)
    for each in mine:
        assert f"gained {each.gained:.0f}, lost {each.lost:.0f}" in sketch.alt
    assert "Exploratory" in sketch.caption
    assert [float(row["gained"]) for row in rows_of(sketch.data)] == [e.gained for e in small.findings.flips]


def test_without_bits_there_are_no_flips(small):
    assert flip_sketches(replace(small.findings, flips=())) == []


# ----- when a gain appears


def test_the_line_is_the_mean_difference_over_common_seeds_of_rows_with_a_verdict(small):
    (sketch,) = gain_sketches(small.findings, small.curves)
    table = small.findings.tables[0]
    told = [cell for cell in table.cells if cell.effect and cell.effect.verdict == HELPS]
    assert [cell.row for cell in told] == ["row 1"]
    values = small.curves.pivot_table(index="epoch", columns=["arm_id", "seed"], values="val_top1")
    wanted = values[told[0].arm_id] - values[table.cells[0].arm_id]
    curves = [line.get_ydata() for ax in sketch.figure.axes for line in ax.get_lines()]
    assert any(len(y) == len(wanted) and np.allclose(y, wanted.mean(axis=1)) for y in curves)
    last = [row for row in rows_of(sketch.data) if row["row"] == "row 1"][-1]
    assert float(last["high"]) == pytest.approx(wanted.max(axis=1).iloc[-1])
    assert "Descriptive only" in sketch.caption


def test_rows_that_train_longer_than_their_reference_have_no_difference(small):
    arm = small.findings.tables[0].cells[1].arm_id
    short = small.curves[(small.curves["arm_id"] != arm) | (small.curves["epoch"] < 4)]
    assert not any("row 1" in s.alt for s in gain_sketches(small.findings, short))


# ----- looks


def with_looks(report: ReportInput) -> ReportInput:
    def edit(cell):
        if cell.effect is None:
            return cell
        trace = tuple(
            LookResult(seeds=n, estimate=1.0 + k, low=0.5 - k, high=2.0 + k, boundary_low=-9.0 / n,
                       boundary_high=9.0 / n, verdict="undecided")
            for k, n in enumerate(LOOKS[:2])
        )  # fmt: skip
        return replace(cell, effect=replace(cell.effect, trace=trace, settled_at=5))

    edited = edit_cells(report, edit)
    settings = replace(report.findings.settings, looks=LOOKS)
    return replace(edited, findings=replace(edited.findings, settings=settings))


def test_a_fixed_design_has_no_trace(small):
    assert trace_sketches(small.findings) == []
    one = replace(with_looks(small).findings, settings=replace(SETTINGS, looks=(4,)))
    assert trace_sketches(one) == []


def test_every_look_has_its_interval_estimate_and_boundaries(small):
    findings = with_looks(small).findings
    (sketch,) = trace_sketches(findings)
    rows = [cell for table in findings.tables for cell in table.cells if cell.effect]
    bars = [each for each in sketch.figure.axes[0].collections if hasattr(each, "get_segments")]
    segments = [segment for each in bars for segment in each.get_segments() if len(segment) == 2]
    assert len(segments) == 2 * len(rows)
    scale = np.ptp(segments[0][:, 1]) / (2.0 - 0.5)
    assert np.ptp(segments[1][:, 1]) == pytest.approx(scale * (3.0 + 0.5))
    assert f"Looks at {len(rows)} rows" in sketch.alt
    assert "settled at 5 seeds" in sketch.alt
    assert [float(row["boundary_high"]) for row in rows_of(sketch.data)][:2] == [3.0, 1.8]
    in_two_lines(sketch)


# ----- all of them


def test_a_long_study_fits_on_pages_with_a_heading_on_each():
    lines = tuple(RowLine(f"column {k // 9}") if k % 9 == 0 else RowLine(f"row {k}", 1.0) for k in range(100))
    pages = row_pages([Panel("Table 1", lines), Panel("Table 2", lines[:9])])
    assert len(pages) == 3
    assert [line for page in pages for panel in page for line in panel.lines] == [*lines, *lines[:9]]
    assert pages[1][0].title == "Table 1" + CONTINUED
    assert pages[1][0].lines[0].item is None
    for page in pages:
        figure = draw_rows(page, lambda ax, places, items: ax.plot(items, places), "x")
        assert figure.get_figheight() <= PAGE_IN


@pytest.mark.campaign
def test_texts_neither_overlap_nor_leave_their_figure(small):
    findings = with_looks(small).findings
    sketches = [*seed_sketches(findings), *flip_sketches(findings), resolvable_sketch(findings)]
    for sketch in sketches:
        engine = sketch.figure.get_layout_engine()
        if engine is not None:
            engine.execute(sketch.figure)
        width, height = sketch.figure.canvas.get_width_height()
        unseen = {text for ax in sketch.figure.axes for text in beyond(ax)}
        texts = [(text, box) for text, box in texts_of(sketch.figure) if text not in unseen]
        for text, box in texts:
            assert box.x0 >= -1, (sketch.key, text)
            assert box.x1 <= width + 1, (sketch.key, text)
            assert -1 <= box.y0 <= box.y1 <= height + 1, (sketch.key, text)
        for (one, a), (other, b) in combinations(texts, 2):
            assert not a.shrunk(0.98, 0.7).overlaps(b.shrunk(0.98, 0.7)), (sketch.key, one, other)


@pytest.mark.campaign
def test_the_appendix_has_all_figures_once_with_the_same_bytes_each_time(small):
    first, again = ([p for part in further_parts(with_looks(small)) for p in part()] for _ in range(2))
    assert [p.key for p in first] == ["budget", "resolvable", "looks", "seeds", "gains", "flips"]
    assert first == again
    sections = {section.title: section.blocks for section in outline(small, first).details}
    assert [block.key for block in sections["Further figures"]] == [p.key for p in first]
    assert "Further figures" not in {section.title for section in outline(small, []).details}


def test_the_scoreboard_shows_the_interval_after_correction_around_the_plain_one(small):
    (board,) = boards(small.findings)
    lines = draw_board(board).axes[0].get_lines()
    ends = {tuple(line.get_xdata()): line.get_linewidth() for line in lines if len(line.get_xdata()) == 2}
    effect = small.findings.tables[0].cells[1].effect
    assert board.lines()[0].adjusted == (effect.adjusted_low, effect.adjusted_high)
    widths = {width for (low, high), width in ends.items() if low < high}
    assert max(widths) > 2 * min(widths)
    thick = [pair for pair, width in ends.items() if width == max(widths)]
    assert all(any(low <= a < b <= high for low, high in ends) for a, b in thick)
    assert effect.adjusted_low < effect.low < effect.high < effect.adjusted_high
