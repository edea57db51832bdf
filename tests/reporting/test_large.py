"""A large study: claims, speeds, observers, other data, further printed numbers; everything on its page."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from harness.analysis import analyse
from harness.analysis.findings import NOT_SETTLED, UNDECIDED, YES, Settings
from harness.reporting import ReportInput
from harness.reporting.document import TEXT, TextTable
from harness.reporting.figures.curves import STEP, draw_curves, panels_of
from harness.reporting.figures.runs import MOST_ROWS, draw_all, matrix_alt, matrix_caption, matrix_pages
from harness.reporting.figures.style import house_style
from harness.reporting.frames import claims_to_csv, speed_to_csv, to_json
from harness.reporting.latex import to_latex
from harness.reporting.pdf import PAGE_CHARS, column_widths
from harness.reporting.render import outline
from harness.reporting.report_input import place_labels
from harness.reporting.sections.claims import claims_table, speed_table
from harness.reporting.sections.opening import scope, settling
from harness.reporting.sections.tables import main_table, values_table
from harness.study.plan import Claim
from tests.analysis.plans import Noise, Row, frames_of, make_plan, trained
from tests.reporting.edits import edit_cells, sections_of, whole_text
from tests.reporting.large import large_report
from tests.reporting.test_figures import texts_of

DOCS = Path(__file__).resolve().parents[2] / "docs" / "json.md"


@pytest.fixture(scope="module")
def large() -> ReportInput:
    return large_report()


@pytest.fixture(scope="module")
def text(large) -> str:
    return whole_text(large)


def table_of(report, key):
    return next(table for table in report.findings.tables if table.key == key)


def shown(report, key) -> TextTable:
    return main_table(table_of(report, key), report.findings.settings, place_labels(report.plan))


def printed(report, key) -> TextTable:
    return values_table(table_of(report, key), report.findings.settings)


def column(table: TextTable, title: str) -> list[str]:
    index = next(i for i, each in enumerate(table.columns) if each.title.startswith(title))
    return [row.cells[index].joined for row in table.rows]


def test_the_claims_stand_right_after_the_tables_with_glyph_word_interval_and_n(large, text):
    sections = re.findall(r"^## (.+)$", text, re.M)
    assert sections[0] == "Answer"
    assert sections[len(large.findings.tables) + 1] == "The paper's claims"
    table = claims_table(large)
    for claim, answer, difference, n in zip(
        large.findings.claims, column(table, "Answer"), column(table, "Difference"), column(table, "n"),
        strict=True,
    ):  # fmt: skip
        glyph = {"yes": "✓", "no": "✗", NOT_SETTLED: "?"}[claim.answer]
        assert answer.startswith(f"{glyph} {claim.answer}")
        assert int(n) == claim.n
        assert bool(re.search(r"\[.+, .+\]", difference)) == (claim.low is not None)
        if claim.answer != claim.answer_holm:
            assert answer.endswith("not settled after Holm's correction")
    counts = Counter(claim.answer for claim in large.findings.claims)
    assert f"The paper's claims: {counts['yes']} ✓ yes, {counts['no']} ✗ no" in text
    assert f"not corrected for their number ({len(large.findings.claims)})" in text


def test_steps_are_told_as_times_fewer_beside_the_papers(large):
    cell = claims_table(large).rows[1].cells
    found = large.findings.claims[1]
    assert cell[2].text == f"{1 / found.estimate:.2f} times fewer"
    assert cell[2].detail == f"[{1 / found.high:.2f}, {1 / found.low:.2f}]"
    assert cell[5].text == "14.8 times fewer"


def test_a_quoted_row_is_named_where_a_claim_needs_it(large):
    assert column(claims_table(large), "Answer")[-1] == (
        "? not settled VGG (quoted) is a quoted number, not trained here"
    )


def test_a_study_without_claims_or_targets_has_neither_section(report):
    titles = [section.title for section in sections_of(outline(report, []))]
    assert not {"The paper's claims", "Claims", "Steps to the target accuracy"} & set(titles)


def test_speeds_have_their_own_section_with_the_papers_steps(large, text):
    speed = large.findings.speed[0]
    assert f"the target is {speed.panels[0].target_top1:.2f} % top-1" in text
    table = speed_table(speed, large)
    assert column(table, "Row")[0] == "Inception"
    assert column(table, "Paper, million")[:3] == ["31", "13.3", "2.1"]
    assert column(table, "Paper: times")[2] == "14.8"
    assert column(table, "Steps")[-1] == "— (no median) (never)"
    assert "Times fewer than Inception" in [each.title for each in table.columns]


def few(report, key: str) -> ReportInput:
    """The same report with one table and a handful of runs: quicker to draw."""
    findings = replace(report.findings, tables=(table_of(report, key),))
    return replace(report, findings=findings, plan=replace(report.plan, runs=report.plan.runs[:6]))


def test_the_figure_of_steps_replaces_the_one_of_epochs_and_marks_the_target(large):
    pictures = draw_all(few(large, "figure3"))
    assert "figure3_steps" in [picture.key for picture in pictures]
    assert "figure3_curves" not in [picture.key for picture in pictures]
    level = large.findings.speed[0].panels[0].target_top1
    with house_style():
        panels = panels_of(table_of(large, "figure3"), large.curves, STEP)
        ax = draw_curves(panels, STEP, {"": level}).axes[0]
    assert any(set(line.get_ydata()) == {level} for line in ax.get_lines())
    assert ax.get_xlabel() == "Optimizer steps"
    sections = {section.title: section.blocks for section in outline(few(large, "figure3"), pictures).details}
    keys = [getattr(block, "key", "") for block in sections["Steps to the target accuracy"]]
    assert keys == ["", "figure3_steps", "figure3_steps"]  # a paragraph, the table, the figure
    elsewhere = [getattr(block, "key", "") for block in sections["What was run"]]
    assert "figure3_steps" not in elsewhere


def documented(part: str) -> set[str]:
    section = DOCS.read_text().split("## report.json")[1].split("\n## ")[0]
    return {key for key in re.findall(r"^\| `([^`]+)` \|", section, re.M) if key.startswith(part)}


def keys_of(value, path: str) -> set[str]:
    found = {path}
    if isinstance(value, list):
        found |= {key for entry in value if isinstance(entry, dict) for key in keys_of(entry, f"{path}[]")}
    elif isinstance(value, dict):
        path = path.removesuffix("[]") + "[]" if path.endswith("[]") else path
        for name, entry in value.items():
            if not name.isdigit():
                found |= keys_of(entry, f"{path}.{name}")
    return found


def test_claims_and_speeds_are_in_the_json_as_documented(large):
    data = json.loads(to_json(large))
    assert "claims" not in data["findings"]
    assert "speed" not in data["findings"]
    for part in ("claims", "speed"):
        emitted = {key for key in keys_of(data[part], part) if not key.endswith("[]")}
        assert emitted == documented(part)
    assert data["claims"][0]["says"].startswith("Batch normalisation")
    assert data["claims"][0]["estimate"] == large.findings.claims[0].estimate


def test_claims_and_speeds_are_tables_for_other_programs_too(large):
    rows = list(csv.DictReader(claims_to_csv(large.findings.claims).splitlines()))
    assert [row["answer"] for row in rows] == [claim.answer for claim in large.findings.claims]
    assert float(rows[3]["low"]) == large.findings.claims[3].low
    speeds = list(csv.DictReader(speed_to_csv(large.findings.speed[0]).splitlines()))
    assert [row["steps_seed_0"] for row in speeds][-1] == ""
    assert speeds[2]["paper_steps_m"] == "2.1"
    latex = to_latex(claims_table(large))
    assert "✓" not in latex
    assert latex.count(r"$\surd$") == sum(claim.answer == YES for claim in large.findings.claims)


def test_further_printed_numbers_have_a_column_only_where_there_are_any(large):
    assert column(printed(large, "table7"), "Also printed")[0] == (
        "25.557 M parameters, 3.8 G multiply-adds, 13.1 min per epoch"
    )
    assert column(printed(large, "table5"), "Also printed")[-1] == "— (nothing)"
    assert "Also printed" not in [each.title for each in printed(large, "table2").columns]


def test_the_papers_own_sd_stands_beside_its_value(large):
    table = printed(large, "table7")
    assert column(table, "Paper top-1") == ["76.40 (sd 0.12)", "64.40 (sd 0.12)", "54.10"]
    assert any("sd beside a value of the paper" in note for note in table.notes)


def test_rows_on_other_data_or_at_another_resolution_say_so(large):
    assert column(shown(large, "table7"), "Row") == [
        "1.0 MobileNet-224",
        "1.0 MobileNet-128 at 20 × 20 pixels",
        "Places365, fine-tuned on fashion_mnist (part last5)",
    ]
    assert all(" pixels" not in label for label in column(shown(large, "table2"), "Row"))
    assert "data: fashion_mnist (20, 32 pixels)" in scope(large)


def test_the_header_counts_trainings_members_and_evaluations_apart(large):
    plan = large.plan
    observers = {arm_id for arm_id, arm in plan.arms.items() if arm.observes}
    line = scope(large)
    members = sum(run.seed >= 1000 for run in plan.runs)
    assert members == 3 * (6 + 2)
    assert f"{len(plan.arms) - len(observers)} distinct recipes" in line
    assert f"{3 * (len(plan.arms) - len(observers))} runs (3 seeds each)" in line
    assert f"{members} further trainings for ensembles" in line
    assert f"{3 * len(observers)} evaluations of trained networks" in line


def test_the_method_says_what_rows_without_a_training_evaluate(text):
    method = text.split("## Method")[1].split("## Provenance")[0]
    assert "cost no training" in method
    assert "paired differences (paired t interval)" in method
    assert (
        "- Table 5 / 1 model x 10 crops: the run of “Table 5 / 1 model x 1 crop” with the same seed; 10 crops"
        in (method)
    )
    assert "7 runs of “Table 5 / 1 model x 1 crop” (seeds s, s + 1000, ..., s + 6000 for seed s)" in method
    assert "and 3 runs of “Table 5 / Another network” (seeds s, s + 1000, s + 2000 for seed s)" in method


def test_provenance_names_source_and_members(text):
    part = text.split("## Provenance")[1]
    assert "starts from the weights of: Table 7 / 1.0 MobileNet-224" in part
    assert "trains nothing, evaluates: 7 runs of “Table 5 / 1 model x 1 crop”" in part


def test_the_run_matrix_keeps_the_planned_seeds_as_columns_and_fits_on_pages(large):
    pages = matrix_pages(large)
    assert max(map(len, pages)) <= MOST_ROWS
    lines = [line for page in pages for line in page]
    assert len(lines) == len(set(lines)) == len(large.plan.arms) + 6 + 2
    assert "a further training for an ensemble" in matrix_caption(large)
    lost = next(run for run in large.plan.runs if run.seed >= 1000)
    records = large.records[large.records["run_id"] != lost.run_id]
    assert f", member {lost.seed // 1000 + 1} seed {lost.seed} not run" in matrix_alt(
        replace(large, records=records)
    )


def test_settling_an_ensemble_counts_its_members_trainings(large):
    def only(cell):
        is_open = cell.row == "7 models x 1 crop"
        word = UNDECIDED if is_open else YES
        effect = cell.effect and replace(cell.effect, verdict=word, more_seeds=2 if is_open else None)
        return replace(cell, effect=effect)

    row = settling(edit_cells(large, only)).blocks[1].rows[0]
    # per seed seven trainings of 10 s and the evaluation; the row it is compared with is one of the seven
    assert [cell.text for cell in row.cells[2:]] == ["about 2", "16", "2.3 min"]


def test_in_a_large_study_every_sentence_stands_once_behind_the_tables(large, text):
    for table in large.findings.tables:
        for cell in table.cells:
            said = cell.sentence.split(":")[0]
            assert said in text
    assert text.count("Table 4 in words") == 1


def test_numbers_never_wrap_and_texts_share_the_rest_of_the_page(large):
    for key in ("table2", "table5", "table7", "figure3"):
        table = shown(large, key)
        widths = column_widths(table)
        for index, each in enumerate(table.columns):
            if each.kind != TEXT:
                assert widths[index] > max(len(row.cells[index].text) for row in table.rows)
        words = max(len(word) for row in table.rows for word in row.cells[0].text.split())
        assert words < widths[0] < PAGE_CHARS / 2


def test_twenty_direct_labels_do_not_overlap(large):
    with house_style():
        figure = draw_curves(panels_of(table_of(large, "table4"), large.curves))
        found = [(label, box) for label, box in texts_of(figure) if label.startswith("Row")]
    assert len(found) == 20
    bottom = figure.axes[0].get_window_extent().y0
    assert min((box.y0 + box.y1) / 2 for _, box in found) >= bottom
    for (one, a), (other, b) in combinations(found, 2):
        assert not a.shrunk(1.0, 0.8).overlaps(b.shrunk(1.0, 0.8)), (one, other)


def test_curves_leave_out_the_further_members_of_ensembles(large):
    arm = table_of(large, "table5").cells[0].arm_id
    assert set(large.curves[large.curves["arm_id"] == arm]["seed"]) > {0, 1, 2}
    caption = next(p.caption for p in draw_all(few(large, "table5")) if p.key == "table5_curves")
    assert "(n = 3)" in caption or "(n = 2 to 3)" in caption


def plugin_report() -> ReportInput:
    arms = [trained(k, metrics=("macro_f1", "calibration")) for k in range(4)]
    rows = [Row(label=f"row {k}", arm=arm, versus="row 0" if k else None) for k, arm in enumerate(arms)]
    said = Claim(says="It rises", source="Sec. 2", table="t", row="row 1", versus="row 0", measure="top1")
    plan = make_plan({"t": rows}, claims=[said])
    levels = {arm.arm_id: 70.0 + 3 * k for k, arm in enumerate(arms)}
    noise = Noise(metrics=("macro_f1", "calibration"), sd=0.2)
    records, curves = frames_of(plan, levels, noise)
    findings = analyse(plan, records, curves, Settings(metric="macro_f1", smallest_effect_pp=0.001))
    return ReportInput(
        title="F1", findings=findings, plan=plan, records=records, curves=curves, provenance={"harness": "1"}
    )


def test_a_plugins_metric_is_written_without_percent_and_all_metrics_are_listed():
    made = plugin_report()
    table = main_table(made.findings.tables[0], made.findings.settings)
    titles = [each.title for each in table.columns]
    assert "macro f1: mean ± sd" in titles
    assert "Effect" in titles
    values = values_table(made.findings.tables[0], made.findings.settings)
    assert "top-1, %" in [each.title for each in values.columns]
    assert re.fullmatch(r"0\.\d{3,4} ± 0\.\d+ \[0\.\d+, 0\.\d+\]", column(values, "macro f1")[0])
    said = whole_text(made)
    results = said.split("## T in detail")[1].split("## Provenance")[0]
    assert " pp" not in results.replace("+", "")
    assert "the worst value of the table" in results
    runs = json.loads(to_json(made))["runs"]
    assert {"macro_f1", "calibration"} <= set(runs[0])
    level = json.loads(to_json(made))["findings"]["tables"][0]["cells"][0]["level"]
    assert "calibration" in level["secondary"]
