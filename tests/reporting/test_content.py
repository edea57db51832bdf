"""What a reader is told: caveats first, n everywhere, failures shown, memory values marked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from statistics import median

import pandas as pd
import pytest

from harness.analysis.findings import HELPS, UNDECIDED
from harness.commands.workspace import build_catalogue
from harness.reporting.document import TextTable
from harness.reporting.markdown import to_short
from harness.reporting.render import outline
from harness.reporting.report_input import gains_at_the_end
from harness.reporting.sections import opening
from harness.reporting.sections.opening import more_seeds, settling, shortfalls
from harness.reporting.sections.recipes import last_quarter
from harness.reporting.sections.tables import main_table, values_table, without_paper
from harness.study.expand import ExpandOptions, expand, load_study
from tests.reporting.edits import comparable, edit_cells, whole_text
from tests.reporting.sample import SETTINGS


def markdown(report) -> str:
    return whole_text(report)


def shown(report, key: str) -> TextTable:
    table = next(table for table in report.findings.tables if table.key == key)
    return main_table(table, report.findings.settings)


def printed(report, key: str) -> TextTable:
    table = next(table for table in report.findings.tables if table.key == key)
    return values_table(table, report.findings.settings)


def column(table: TextTable, title: str) -> list[str]:
    index = next(i for i, column in enumerate(table.columns) if column.title.startswith(title))
    return [row.cells[index].joined for row in table.rows]


def test_a_study_without_a_paper_has_no_columns_and_no_words_for_one(report):
    """Printed values that such a study names are still shown."""
    ours = edit_cells(
        report, lambda cell: replace(cell, paper={}, effect=cell.effect and replace(cell.effect, paper=None))
    )
    plan = replace(ours.plan, header={**ours.plan.header, "paper": None})
    claims = tuple(replace(claim, paper=None) for claim in ours.findings.claims)
    ours = replace(ours, plan=plan, findings=replace(ours.findings, claims=claims))
    for table in ours.findings.tables:
        for made in (main_table, values_table):
            whole = made(table, ours.findings.settings)
            assert any("Paper" in each.title for each in whole.columns)
            assert not any("aper" in each.title for each in without_paper(whole).columns)
    details = whole_text(ours)
    assert "Paper effect" not in details
    assert "Paper effect" not in to_short(ours)
    assert "Paper effect" in to_short(report)
    assert "differs from the paper" not in details
    for table in report.findings.tables:
        whole = main_table(table, report.findings.settings)
        if any(cell.effect and cell.effect.paper is not None for cell in table.cells):
            assert without_paper(whole) == whole


def test_a_mini_report_says_on_its_first_line_that_it_reproduces_nothing(rendered):
    first = (rendered / "report.md").read_text().splitlines()[0]
    assert first == (
        "This is a `mini` run on fashion_mnist: it is not a reproduction of the paper's ImageNet numbers."
    )


@pytest.mark.parametrize(
    ("study", "data"), [("resnet_cifar", "CIFAR-10"), ("batch_norm_mnist", "MNIST"), ("mixup", "ImageNet")]
)
def test_the_first_line_names_the_data_of_the_studys_own_paper(report, study, data):
    file = Path(__file__).parents[2] / "studies" / f"{study}.yaml"
    catalogue = build_catalogue(Path("no-data"))
    header = expand(load_study(file, catalogue), catalogue, ExpandOptions()).header
    other = replace(report, plan=replace(report.plan, header=header))
    assert opening.banner(other).endswith(f"it is not a reproduction of the paper's {data} numbers.")


def test_a_report_of_numbers_from_the_command_line_says_first_that_it_is_exploratory(report):
    header = {**report.plan.header, "set": ["epochs=3", "lr=0.1"]}
    other = replace(report, plan=replace(report.plan, header=header))
    said = "Exploratory: `epochs=3`, `lr=0.1` was set on the command line and is not what the study says."
    assert opening.banner(other).startswith(said)


def test_a_report_of_a_study_without_sizes_and_paper_names_neither(report):
    plan = replace(report.plan, header={**report.plan.header, "paper": None})
    other = replace(report, plan=plan, findings=replace(report.findings, size="all"))
    assert opening.banner(other) == "This is a run on fashion_mnist."


def test_a_report_in_the_papers_setting_has_no_such_line_but_a_gap(report):
    text = markdown(comparable(report))
    assert text.startswith("# Bag of Tricks")
    assert "Effect minus paper's" in text
    assert "Effect minus paper's" not in markdown(report)


def test_the_answer_is_at_most_three_sentences_with_the_count_of_each_verdict(report):
    first = outline(report, []).sections[0]
    assert first.title == "Answer"
    said = first.blocks[0].text
    cells = [cell for table in report.findings.tables for cell in table.cells]
    helps = sum(cell.effect is not None and cell.effect.verdict == HELPS for cell in cells)
    assert f"{helps} ▲ helps" in said
    assert 1 <= len(re.findall(r"\.(?= [A-Z]|$)", said)) <= 3
    lines = [line for line in markdown(report).splitlines() if re.match(r"- [·▲▼≈?—] ", line)]
    assert len(lines) == len(cells), "one sentence per row, behind the tables"


def test_a_claim_shows_the_verdict_word_even_if_the_sentence_lacks_it(report):
    bare = edit_cells(report, lambda cell: replace(cell, sentence=f"{cell.row}."))
    assert "- ▲ helps ResNet-50-C." in markdown(bare)


def test_only_negative_numbers_get_a_minus_sign_not_hyphens_of_names(report):
    words = edit_cells(
        report, lambda cell: replace(cell, sentence="- mixup: -0.30 pp [-0.5, -0.1] on ResNet-50")
    )
    assert "- mixup: −0.30 pp [−0.5, −0.1] on ResNet-50" in markdown(words)


def test_numbers_have_the_digits_that_their_standard_error_deserves(report):
    noisy = edit_cells(
        report,
        lambda c: replace(c, level=c.level and replace(c.level, sd=4.0, mean=80.1234, low=70.0, high=90.0)),
    )
    assert column(shown(noisy, "table5"), "top-1")[0] == "80.1 ± 4.0"
    assert column(printed(noisy, "table5"), "top-1")[0] == "80.1 ± 4.0 [70.0, 90.0]"


def test_diverged_and_missing_runs_stand_beside_n(report):
    table = shown(report, "table6")
    row = next(row for row in table.rows if row.cells[0].text == "+ mixup w/o distill")
    assert row.cells[1].joined == "1 1 diverged, 1 missing"
    assert row.cells[2].joined.endswith("(1 seed: no sd)")
    assert "+ mixup w/o distill: 1 failed: out of memory" in table.notes


def test_a_row_without_any_value_keeps_its_place_with_the_reason(report):
    def lose(cell):
        if cell.row != "ResNet-50-C":
            return cell
        level = replace(
            cell.level, n=0, missing=3, missing_reason="3 not run yet", mean=None, sd=None, low=None,
            high=None,            values={}, secondary={},
        )  # fmt: skip
        nothing = dict.fromkeys(("estimate", "low", "high", "p", "p_holm", "df", "detectable", "prob_better"))
        effect = replace(cell.effect, **nothing, verdict="not evaluable", qualifier="no run", differences={})
        return replace(cell, level=level, effect=effect)

    lost = edit_cells(report, lose)
    table = shown(lost, "table5")
    assert column(table, "Row")[2] == "ResNet-50-C"
    assert column(table, "top-1")[2] == "— (3 not run yet)"
    assert column(table, "Effect")[2] == "— (no run)"
    assert column(table, "Verdict")[2] == "— not evaluable no run"
    assert "None" not in markdown(lost)


def test_unfinished_runs_are_listed_with_seed_status_and_error(report):
    records = report.records.assign(error=None)
    records.loc[records["status"] == "failed", "error"] = "OutOfMemoryError: no memory left\nTraceback ..."
    section = shortfalls(replace(report, records=records))
    table = next(block for block in section.blocks if isinstance(block, TextTable))
    rows = [[cell.text for cell in row.cells] for row in table.rows]
    assert rows == [
        ["Table 6 / + mixup w/o distill", "1", "diverged", "1", "— (none recorded)"],
        ["Table 6 / + mixup w/o distill", "2", "failed", "1", "OutOfMemoryError: no memory left"],
    ]
    text = markdown(report)
    assert "fp16 is replaced by bf16" in text
    assert "Whether the teacher saw mixup." in text


def test_memory_values_are_marked_and_verified_ones_are_not(report):
    table = shown(report, "table5")
    assert column(printed(report, "table5"), "Paper top-1") == [
        "76.21† (92.97†)", "76.66† (93.28†)", "76.87† (93.48†)", "77.16 (93.52)",
    ]  # fmt: skip
    assert column(table, "Paper effect")[1] == "+0.45†"
    assert any("from memory, not verified" in note for note in table.notes)


def test_columns_of_a_table_are_stacked_as_groups(report):
    groups = shown(report, "table4").groups()
    assert [name for name, _ in groups] == ["BS=256", "BS=1024"]
    assert all(rows[0].cells[0].text == "Linear scaling" for _, rows in groups)
    assert "this row minus the row above" in shown(report, "table4").caption
    assert all("minus" not in text for text in column(shown(report, "table4"), "Row"))
    assert "+ mixup w/o distill minus + 200 epochs (control)" in column(shown(report, "table6"), "Row")


def test_a_table_that_compares_nothing_has_no_effect_columns(report):
    assert [c.title for c in shown(report, "table2").columns][-1] == "Paper top-1"


def test_no_number_of_a_table_is_bold(rendered):
    rows = [line for line in (rendered / "report.md").read_text().splitlines() if line.startswith("|")]
    assert [line for line in rows if "**" in line] == [line for line in rows if line.startswith("| **BS=")]


def test_settling_costs_count_both_arms_their_teacher_and_shared_runs_once(report):
    only = {"+ distill w/o mixup", "+ 200 epochs (control)"}

    def open_up(cell):
        if cell.effect is None:
            return cell
        verdict = UNDECIDED if cell.row in only else HELPS
        return replace(cell, effect=replace(cell.effect, verdict=verdict, more_seeds=4))

    section = settling(edit_cells(report, open_up))
    table = section.blocks[1]
    # the row, the row it is compared with and its teacher: 3 arms x 4 seeds x 11.5 s; then a row without a
    # teacher that shares one of these arms, and adds one
    assert [cell.text for cell in table.rows[0].cells[2:]] == ["about 4", "12", "2.3 min"]
    assert [cell.text for cell in table.rows[1].cells[2:]] == ["about 4", "8", "1.5 min"]
    assert "all open rows together need 16 runs, 3.1 min" in section.blocks[0].text


@pytest.mark.parametrize("seeds", [12, None])
def test_the_number_of_seeds_is_the_analysis_own(report, seeds):
    cell = report.findings.tables[3].cells[1]
    assert more_seeds(replace(cell, effect=replace(cell.effect, more_seeds=seeds))) == seeds


def test_the_method_states_the_declared_settings(report):
    changed = replace(SETTINGS, alpha=0.01, smallest_effect_pp=0.7)
    text = markdown(replace(report, findings=replace(report.findings, settings=changed)))
    method = text.split("## Method")[1].split("## Provenance")[0]
    assert "family-wise error rate of 0.01" in method
    assert "by at least 0.7 pp" in method
    for word in (
        "▲ helps",
        "▼ hurts",
        "≈ no detectable difference",
        "? undecided",
        "— not evaluable",
        "fragile",
    ):
        assert word in method


def test_provenance_names_versions_recipe_changes_and_where_every_run_stands(report):
    text = markdown(report).split("## Provenance")[1]
    assert "**data.fingerprint**: sha256:9f2c" in text
    assert "lr: 0.1 → 0.2; tricks in training: none → mixup(alpha=0.2)" in text
    assert "teacher: Table 5 / ResNet-50-B" in text
    assert f"**Runs**: {len(report.plan.runs)} runs (" in text
    assert (
        "each with seed, status, result and time in report.json, and in runs.jsonl of data/records.zip"
        in text
    )


def test_it_is_said_how_much_the_last_quarter_of_training_still_brought():
    epochs = [1.0, 2.0, 3.0, 4.0]
    curves = pd.DataFrame(
        [
            {"arm_id": arm, "seed": seed, "epoch": epoch, "val_top1": level}
            for arm, seed, levels in [
                ("flat", 0, [60.0, 70.0, 80.0, 80.0]),
                ("flat", 1, [60.0, 70.0, 80.0, 81.0]),
                ("steep", 0, [10.0, 20.0, 30.0, 40.0]),
                ("brief", 0, [float("nan"), float("nan"), float("nan"), 50.0]),
            ]
            for epoch, level in zip(epochs, levels, strict=True)
        ]
    )
    assert gains_at_the_end(curves) == {"flat": 0.5, "steep": 10.0}


def test_the_report_says_what_the_last_quarter_brought_in_the_median_of_its_recipes(report):
    gains = gains_at_the_end(report.curves)
    (said,) = last_quarter(report)
    found = re.match(
        r"The last quarter of training changed top-1 by (\S+) pp in the median of (\d+)", said.text
    )
    assert found is not None
    assert int(found[2]) == len(gains)
    assert float(found[1].replace("−", "-")) == pytest.approx(median(gains.values()), abs=0.06)
