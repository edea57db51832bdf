"""Credit in a report: the section, its numbers in every format, and its two figures."""

from __future__ import annotations

import csv
import io
import itertools
import json
from dataclasses import replace
from importlib import import_module

import pytest

from harness.analysis.findings import NOT_EVALUABLE, Amount
from harness.reporting.credit import (
    GIVEN_ABOVE,
    THIN,
    amount_text,
    credit_pictures,
    credit_section,
    credit_table,
    draw_scatter,
    draw_waterfall,
    order_note,
    panels_of,
    scatter_alt,
    section_names,
    waterfall_alt,
)
from harness.reporting.figures.style import house_style
from harness.reporting.frames import credit_to_csv
from harness.reporting.latex import to_latex
from harness.reporting.numbers import signed
from tests.reporting.credit_sample import SETTINGS, credit_report
from tests.reporting.test_latex_compiles import compile_in, needs_latex

rendering = import_module("harness.reporting.render")  # the package has a function of that name
DESIGNS = ("ends", "ways", "columns", "half")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return credit_report(tmp_path_factory.mktemp("study"), *DESIGNS, "pile")


@pytest.fixture(scope="module")
def tables(report):
    return {table.key: table for table in report.findings.tables}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The report on one table and one stack, without a PDF and with no figure but those of the credit."""
    folder = tmp_path_factory.mktemp("credit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "draw_all", lambda report: pictures_of(report))
        patch.setattr(rendering, "to_pdf", lambda document, svgs: b"")
        rendering.render(credit_report(tmp_path_factory.mktemp("short"), "ends", "pile"), folder)
    return folder


def pictures_of(report):
    with house_style():
        return [p for table in report.findings.tables for p in credit_pictures(table, SETTINGS)]


def texts_in_view(figure):
    """The bounding boxes of all texts, without the labels of ticks that lie outside the axes."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    found = []
    for ax in figure.axes:
        found += [ax.xaxis.label, ax.yaxis.label, ax.title]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [label for tick in ticks for label in (tick.label1, tick.label2)] * axis.get_visible()
    shown = [text for text in found if text.get_visible() and text.get_text()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown]


def test_the_section_stands_after_its_table_and_says_every_credit(rendered):
    text = (rendered / "details.md").read_text()
    at = text.index("## Credit: how the total splits")
    assert text.index("## Ends in detail") < at < text.index("## Pile in detail")
    section = text[at : text.index("## Pile in detail")]
    for trick in ("cosine", "mixup", "label_smoothing", "zero_gamma"):
        assert section.count(f"| {trick} |") == 1
        assert f"- ▲ {trick} " in section or f"- ≈ {trick} " in section or f"- ▼ {trick} " in section
    assert "The credits add up to exactly this." in section
    assert "if interactions are at most pairwise" in section
    assert "Holm-adjusted over the 4 credits" in section
    assert "(figures/ends_credit.svg)" in section
    assert "(figures/ends_credit_order.svg)" in section


def test_a_stack_says_that_its_effects_are_given_the_rows_above(rendered, tables):
    text = (rendered / "details.md").read_text()
    assert text.count(GIVEN_ABOVE.replace("_", "\\_")) + text.count(GIVEN_ABOVE) == 1
    assert order_note(tables["ends"]) is None
    assert credit_section(tables["pile"], SETTINGS, []) is None


def test_every_format_has_the_numbers_of_the_findings(rendered):
    texts = {kind: (rendered / f"report.{kind}").read_text() for kind in ("html", "json")}
    texts["md"] = (rendered / "details.md").read_text()
    credit = json.loads(texts["json"])["findings"]["tables"][0]["credit"]
    lines = list(csv.DictReader(io.StringIO((rendered / "tables" / "ends_credit.csv").read_text())))
    assert [line["trick"] for line in lines] == [*(c["trick"] for c in credit["credits"]), "all tricks"]
    assert [float(line["p"]) for line in lines[:-1]] == [c["p"] for c in credit["credits"]]
    shown = [signed(float(line["credit_estimate"])) for line in lines]
    for number in shown:
        assert number in texts["md"]
        assert number in texts["html"]


def test_the_csv_has_full_precision_and_the_total(tables):
    credit = tables["columns"].credit
    lines = list(csv.DictReader(io.StringIO(credit_to_csv(credit))))
    assert len(lines) == len(credit.credits) + 2
    for line, each in zip(lines, credit.credits, strict=False):
        assert float(line["credit_estimate"]) == each.credit.estimate
        assert float(line["half_gap_low"]) == each.half_gap.low
        assert (line["verdict"], line["column"]) == (each.verdict, each.column)
    totals = [float(line["credit_estimate"]) for line in lines if line["trick"] == "all tricks"]
    assert totals == [total.total.estimate for total in credit.totals]


@pytest.mark.parametrize("key", DESIGNS)
def test_the_shown_credits_add_up_to_the_shown_total(tables, key):
    credit = tables[key].credit
    table = credit_table(key, credit, SETTINGS)
    place = [column.title for column in table.columns].index("Credit, pp")
    for _, rows in table.groups():
        *parts, total = (float(row.cells[place].text.replace("−", "-")) for row in rows)
        assert sum(parts) == pytest.approx(total, abs=0.005 * (len(parts) + 1))
    assert table.rows[-1].cells[0].text == "All tricks"


@pytest.mark.parametrize("key", DESIGNS)
def test_bars_lead_from_none_to_all(tables, key):
    panels = panels_of(tables[key].credit)
    with house_style():
        figure = draw_waterfall(panels, SETTINGS)
    axes = [ax for ax in figure.axes if ax.patches]
    for ax, panel in zip(axes, panels, strict=True):
        bars = [bar for bar in ax.patches if bar.get_height() != pytest.approx(THIN)]
        assert [bar.get_width() for bar in bars] == pytest.approx(
            [each.credit.estimate for each in panel.credits]
        )
        assert bars[0].get_x() == pytest.approx(panel.start)
        end = bars[-1].get_x() + bars[-1].get_width()
        assert end - panel.start == pytest.approx(panel.total.total.estimate)
    thin = [bar for ax in axes for bar in ax.patches if bar.get_height() == pytest.approx(THIN)]
    expected = [each.forward.estimate for p in panels for each in p.credits] if key == "ways" else []
    assert [bar.get_width() for bar in thin] == pytest.approx(expected)
    for above, below in itertools.pairwise(thin):
        assert below.get_x() == pytest.approx(above.get_x() + above.get_width())


@pytest.mark.parametrize("key", ["columns", "ways"])
def test_texts_of_both_figures_stay_inside_and_apart(tables, key):
    credit = tables[key].credit
    long = "a trick with quite a long name and an option (temperature=20, teacher=large)"
    credit = replace(credit, credits=(replace(credit.credits[0], trick=long), *credit.credits[1:]))
    panels = panels_of(credit)
    with house_style():
        for figure in (draw_waterfall(panels, SETTINGS), draw_scatter(credit, panels, SETTINGS)):
            texts = texts_in_view(figure)
            width, height = figure.canvas.get_width_height()
            for text, box in texts:
                assert min(box.x0, box.y0) >= -1, text
                assert box.x1 <= width + 1, text
                assert box.y1 <= height + 1, text
            for (one, box), (other, second) in itertools.combinations(texts, 2):
                assert not box.shrunk(0.9, 0.9).overlaps(second.shrunk(0.9, 0.9)), (one, other)
            for legend in (ax.get_legend() for ax in figure.axes):
                if legend is not None:
                    assert legend.get_window_extent().x1 <= width + 1


def test_alt_texts_name_every_trick_with_its_numbers(tables):
    credit = tables["columns"].credit
    panels = panels_of(credit)
    waterfall, scatter = waterfall_alt(panels, SETTINGS), scatter_alt(credit, panels, SETTINGS)
    for each in credit.credits:
        assert f"{each.trick} {amount_text(each.credit, SETTINGS)} pp, {each.verdict}" in waterfall
        assert f"first {amount_text(each.first, SETTINGS)} pp" in scatter
    assert scatter.count("path-dependent") == sum(each.path_dependent for each in credit.credits)
    assert waterfall.count("wide:") == waterfall.count("plain:") == 1


def test_a_credit_without_a_value_is_a_reason_in_the_table_and_no_figure(tables):
    credit = tables["ends"].credit
    lost = replace(
        credit.credits[0], credit=Amount(), verdict=NOT_EVALUABLE, qualifier="row baseline: 3 not run yet"
    )
    credit = replace(credit, credits=(lost, *credit.credits[1:]))
    row = credit_table("ends", credit, SETTINGS).rows[0]
    assert [cell.joined for cell in row.cells][4] == "— (no value)"
    assert row.cells[-1].detail.startswith("row baseline: 3 not run yet")
    assert panels_of(credit) == []


def test_several_sections_are_told_apart_by_their_tables(report, tables):
    assert section_names(report.findings.tables) == {key: key for key in DESIGNS}
    assert section_names([tables["ends"], tables["pile"]]) == {"ends": ""}
    assert credit_section(tables["ends"], SETTINGS, [], "ends").title == "Credit: how the total splits (ends)"


def test_no_credit_says_why(tables):
    table = replace(tables["ends"], credit=replace(tables["ends"].credit, credits=(), why_not="because"))
    section = credit_section(table, SETTINGS, [])
    assert [block.text for block in section.blocks] == ["No credit is given: because."]


@pytest.mark.campaign
@needs_latex
def test_the_latex_table_compiles(tables, tmp_path):
    body = "\n".join(to_latex(credit_table(key, tables[key].credit, SETTINGS)) for key in DESIGNS)
    assert compile_in(tmp_path, body) == ""
