"""The first screen: every effect on one axis, and tables in the shape in which the paper prints them."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from dataclasses import replace
from statistics import stdev

import pytest

from harness.analysis.findings import CANNOT_TEST, HELPS
from harness.reporting.document import ScoreLine, ScorePanel, arm_target
from harness.reporting.figures.runs import draw_table
from harness.reporting.figures.style import WIDTH_IN, house_style
from harness.reporting.figures.tables import draw_board
from harness.reporting.latex import paper_to_latex
from harness.reporting.pdf import to_pdf
from harness.reporting.render import outline
from harness.reporting.sections import paper as section
from harness.reporting.sections.paper import LINES_OF_A_PAGE, MOST_PAGES, boards, caption, paper_tables
from harness.reporting.sections.recipes import runs_section
from harness.study import conditions
from tests.conftest import mostly_campaign
from tests.reporting.edits import edit_cells, edit_tables, only_table
from tests.reporting.large import large_report
from tests.reporting.sample import SETTINGS

HEBREW = "\u05e8\u05e9\u05ea + mixup"


def table_of(report, key: str):
    return next(table for table in report.findings.tables if table.key == key)


def lines_of(report) -> list[ScoreLine]:
    return [line for board in boards(report.findings) for line in board.lines()]


def test_the_scoreboard_has_every_effect_of_the_study_in_its_order(report):
    effects = [
        (cell.row, cell.effect.estimate, cell.effect.low, cell.effect.high, cell.effect.paper)
        for table in report.findings.tables
        for column in table.columns
        for cell in table.cells
        if cell.column == column and cell.effect is not None
    ]
    shown = [(line.label, line.estimate, line.low, line.high, line.paper) for line in lines_of(report)]
    assert shown == effects
    titles = [panel.title for panel in boards(report.findings)[0].panels]
    assert titles == ["Table 3: Efficient training", "Table 4, BS=256", "Table 4, BS=1024",
                      "Table 5: Model tweaks", "Table 6: Training refinements"]  # fmt: skip


def test_a_study_that_compares_nothing_has_no_scoreboard(report):
    assert boards(only_table(report, "table2").findings) == []


def collapse(report, row: str, to: float):
    def lower(cell):
        if cell.row != row:
            return cell
        return replace(cell, effect=replace(cell.effect, estimate=to, low=to - 1, high=to + 1))

    return edit_cells(report, lower)


def test_a_collapsed_row_is_cut_off_and_said_so_and_does_not_stretch_the_axis(report):
    (before,) = boards(report.findings)
    broken = collapse(report, "ResNet-50-C", -70.0)
    (board,) = boards(broken.findings)
    assert (board.low, board.high) == pytest.approx((before.low, before.high), abs=1.0)
    line = next(each for each in board.lines() if each.label == "ResNet-50-C")
    assert board.is_beyond(line.estimate)
    assert line.effect.startswith("−70")
    said = caption(broken.findings, [board])
    assert re.search(r"The axis is cut at −\d+ and \d+: 1 row beyond it \(arrows\)\.", said)
    assert "cut" not in caption(report.findings, [before])


FLOOR = conditions.Floor(chance=10, guessing=10, neighbours=70, linear=83)


def test_a_row_that_cannot_be_tested_says_why_in_a_few_words(report):
    reason = conditions.both_below_floor((74.8, 74.4), FLOOR)

    def untested(cell):
        effect = cell.effect and replace(cell.effect, verdict=CANNOT_TEST, qualifier=reason)
        return replace(cell, effect=effect)

    other = edit_cells(report, untested)
    assert {line.says for line in lines_of(other)} == {"∅ both below the floor"}
    assert "Grey rows (∅) cannot be tested here" in caption(other.findings, boards(other.findings))
    said = outline(other, []).sections[0].blocks[0].text
    assert "Why most rows cannot be tested: both below the floor (18 of 18 rows; the floor: " in said


def test_one_row_that_cannot_be_tested_is_not_most_rows(report):
    first = next(cell for table in report.findings.tables for cell in table.cells if cell.effect)
    reason = conditions.both_below_floor((74.8, 74.4), FLOOR)

    def decided(cell):
        if not cell.effect:
            return cell
        here = (cell.row, cell.column) == (first.row, first.column)
        word = {"verdict": CANNOT_TEST, "qualifier": reason} if here else {"verdict": HELPS, "qualifier": ""}
        return replace(cell, effect=replace(cell.effect, **word))

    said = outline(edit_cells(report, decided), []).sections[0].blocks[0].text
    assert "Why one row cannot be tested: both below the floor (the floor: what a simple classifier" in said


def test_where_no_reason_is_that_of_most_rows_each_is_counted(report):
    reasons = itertools.cycle(
        (
            conditions.both_below_floor((74.8, 74.4), FLOOR),
            conditions.diverged("A", 1, 3),
            conditions.other_regime(("A", "B"), 9.0, 0.1),
        )
    )

    def untested(cell):
        effect = cell.effect and replace(cell.effect, verdict=CANNOT_TEST, qualifier=next(reasons))
        return replace(cell, effect=effect)

    said = outline(edit_cells(report, untested), []).sections[0].blocks[0].text
    assert "Why rows cannot be tested: both below the floor (6), " in said
    assert "another regime (6)" in said
    assert "; the floor: what a simple classifier reaches on the same images." in said


REASONS = (
    conditions.below_floor("A", 70.0, 69.0, FLOOR),
    conditions.below_floor("A", 84.0, 82.0, FLOOR),
    conditions.both_below_floor((70.0, 71.0), FLOOR),
    conditions.collapsed("A", {0: 11.0}, FLOOR),
    conditions.diverged("A", 1, 3),
    conditions.other_regime(("A", "B"), 9.0, 0.1),
    conditions.no_headroom("top-1", 99.0, 1.0),
    conditions.same_arm("A"),
    conditions.other_loss(["mixup"], []),
    conditions.not_sensitive(3.0, 1.0, ""),
    conditions.too_few_updates("A", conditions.Dose(updates=9, warmup=0, shortest_phase=None)),
    conditions.too_few_updates("A", conditions.Dose(updates=900, warmup=0, shortest_phase=3)),
    conditions.too_short_warmup(
        ("A", "B"),
        (conditions.Dose(updates=900, warmup=3, shortest_phase=None),
         conditions.Dose(updates=900, warmup=0, shortest_phase=None)),
    ),
)  # fmt: skip


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_a_short_form_that_fits_beside_its_row(reason):
    assert reason
    assert 0 < len(conditions.in_short(reason)) <= 26


def stretched(report, rows: int):
    """Table 5 with many rows."""

    def grow(table):
        cells = [replace(table.cells[1], row=f"row {k}") for k in range(rows)]
        return replace(table, cells=(table.cells[0], *cells))

    return edit_tables(only_table(report, "table5"), grow)


@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (71, 1), (100, 2), (2_000, MOST_PAGES)])
def test_rows_that_do_not_fit_on_a_page_go_on_and_what_is_left_out_is_counted(report, rows, parts):
    many = stretched(report, rows)
    found = boards(many.findings)
    assert len(found) == parts
    lines = [line for board in found for line in board.lines()]
    assert all(len(board.lines()) + len(board.panels) <= LINES_OF_A_PAGE for board in found)
    said = caption(many.findings, found)
    if len(lines) < rows:
        assert f"The first {len(lines)} of {rows:,} rows; the tables have all of them." in said
    else:
        assert [line.label for line in lines] == [f"row {k}" for k in range(rows)]
        assert "The first" not in said


@pytest.mark.parametrize("label", ["+ a trick whose name goes on " * 10, HEBREW, "$x_1$ <b>"])
@pytest.mark.parametrize("rows", mostly_campaign([2, 20, 60], 2, 20))
def test_no_text_of_the_scoreboard_leaves_its_place(report, label, rows):
    many = edit_cells(stretched(report, rows), lambda cell: replace(cell, row=f"{cell.row} {label}"))
    with house_style(label):
        figure = draw_board(boards(many.findings)[0])
        renderer = figure.canvas.get_renderer()
        figure.draw(renderer)
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in figure.axes[0].texts]
    width, height = figure.canvas.get_width_height()
    assert height < 8.9 * width / WIDTH_IN
    for text, box in boxes:
        assert box.x0 >= -2, text
        assert box.x1 <= width + 4, text
    for k, (one, a) in enumerate(boxes):
        for other, b in boxes[k + 1 :]:
            assert not a.shrunk(0.97, 0.7).overlaps(b.shrunk(0.97, 0.7)), (one, other)


def test_two_columns_share_the_rows_and_a_table_that_is_cut_says_that_it_goes_on(report):
    with house_style():
        figure = draw_board(boards(stretched(report, 60).findings)[0])
    titles = [t.get_text() for t in figure.axes[0].texts if t.get_fontweight() == "bold"]
    assert titles == ["Table 5: Model tweaks", "Table 5: Model tweaks (continued)"]


def test_a_notebook_gets_the_effects_of_one_table(report):
    found = {picture.key: picture for picture in draw_table(report, table_of(report, "table5"))}
    assert "ResNet-50-C +1.54 [1.00, 2.08] ▲ helps (paper +0.21)" in found["table5_effects"].alt


# Tables as the paper prints them.


def paper(report, key: str):
    return paper_tables(table_of(report, key), SETTINGS, report.records)


def test_networks_stand_side_by_side_and_a_cell_has_ours_the_papers_and_the_glyph(report):
    (table,) = paper(report, "table4")
    assert table.spans == (("", 1), ("BS=256", 2), ("BS=1024", 2))
    assert [column.title for column in table.columns] == ["Row", *["top-1, %", "top-5, %"] * 2]
    cells = {(cell.row, cell.column): cell for cell in table_of(report, "table4").cells}
    for row in table.rows:
        for place, column in ((1, "BS=256"), (3, "BS=1024")):
            cell = cells[row.cells[0].text, column]
            found = re.fullmatch(r"(\d+\.\d+) ± (\d+\.\d+)( [▲▼≈?])?", row.cells[place].text)
            assert float(found[1]) == pytest.approx(cell.level.mean, abs=0.051)
            assert bool(found[3]) == (cell.effect is not None)
            assert row.cells[place].detail == f"({cell.paper['top1'].value:.2f}†)"
            assert row.cells[place].target == arm_target(cell.arm_id)


def test_the_other_accuracy_has_its_sd_over_the_same_seeds(report):
    cell = table_of(report, "table5").cells[1]
    spread = {seed: 98.0 + seed for seed in (0, 1, 2)}
    top5 = [spread.get(s, 0.0) if a == cell.arm_id else 99.0
            for a, s in zip(report.records["arm_id"], report.records["seed"], strict=True)]  # fmt: skip
    changed = replace(report, records=report.records.assign(top5=top5))
    (table,) = paper_tables(table_of(report, "table5"), SETTINGS, changed.records)
    assert table.rows[1].cells[2].text.endswith(f" ± {stdev(spread.values()):.2f}")


def test_more_networks_than_a_page_is_wide_go_on_below(report):
    cells = table_of(report, "table5").cells
    wide = replace(
        table_of(report, "table5"),
        columns=tuple("ABCDEFG"),
        cells=tuple(replace(cell, column=column) for cell in cells for column in "ABCDEFG"),
    )
    tables = paper_tables(wide, SETTINGS, report.records)
    assert [title for table in tables for title, _ in table.spans if title] == list("ABCDEFG")
    assert len({table.key for table in tables}) == len(tables) == 3


def test_a_row_with_fewer_seeds_is_named_below_the_table(report):
    (table,) = paper(report, "table6")
    assert "n = 1: + mixup w/o distill." in table.notes
    assert "n = 3 unless a note says otherwise" in table.caption


def test_latex_has_as_many_cells_as_columns_and_spans_over_both_columns_where_it_is_wide(report):
    narrow, wide = (paper_to_latex(paper(report, key)[0]) for key in ("table5", "table4"))
    assert narrow.count("\\begin{table}") == wide.count("\\begin{table*}") == 1
    assert "\\multicolumn{2}{c}{BS=256}" in wide
    body = wide.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    assert {len(re.findall(r"(?<!\\)&", row)) for row in body} == {4}


# From a number to its runs.


def test_every_cell_leads_to_its_recipe_and_from_there_to_every_run(rendered, report):
    page = (rendered / "report.html").read_text()
    targets = set(re.findall(r'<a[^>]* href="#(recipe-[0-9a-f]+)"', page))
    assert targets == {arm_target(arm) for arm in report.plan.arms if arm in
                       {c.arm_id for t in report.findings.tables for c in t.cells}}  # fmt: skip
    assert targets <= set(re.findall(r'<details class="recipe" id="([^"]+)"', page))
    details = (rendered / "details.md").read_text()
    for run in report.plan.runs:
        assert page.count(f"<code>{run.run_id}</code>") == 1
        assert details.count(f"`{run.run_id}`") == 1


def test_an_entry_has_the_learning_rate_first_and_the_curve_of_each_run(report):
    block = runs_section(report).blocks[1]
    recipe = block.recipes[3]
    assert recipe.settings.startswith("lr 0.13; batch_size 32; epochs 8")
    assert recipe.says[0][0] == "Table 4"
    assert [run.seed for run in recipe.runs] == [0, 1, 2]
    run_id = recipe.runs[1].run_id
    ends = report.curves[report.curves["run_id"] == run_id]["val_top1"]
    assert recipe.runs[1].curve == pytest.approx(list(ends))


def test_a_run_without_a_value_says_what_became_of_it(report):
    runs = [run for recipe in runs_section(report).blocks[1].recipes for run in recipe.runs]
    assert {run.value for run in runs if not run.value.startswith("top-1")} == {"diverged", "failed"}


def test_the_appendix_begins_on_a_page_of_its_own_after_the_tables(report, tmp_path):
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed: the text of the PDF cannot be read back")
    large = large_report()
    (tmp_path / "x.pdf").write_bytes(to_pdf(outline(large, []), {}))
    command = ["pdftotext", "-layout", str(tmp_path / "x.pdf"), "-"]
    pages = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\f")
    first = next(k for k, page in enumerate(pages) if re.search(r"^Appendix$", page, re.M))
    assert first <= 8
    assert "The paper's claims" in "".join(pages[:first])
    assert "in detail" not in "".join(pages[:first])


def test_an_axis_has_room_for_a_study_with_one_effect_of_nothing():
    line = ScoreLine("only", "0.00", "? undecided", "undecided", 0.0, 0.0, 0.0)
    low, high = section.axis([line], replace(SETTINGS, smallest_effect_pp=0.0))
    assert low < 0 < high
    assert ScorePanel("t", (line,)).lines == (line,)
