"""Figures: what is drawn is what was found, and texts neither overlap nor leave the picture."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from harness.analysis.findings import GLYPHS
from harness.reporting.figures.curves import draw_curves, panels_of
from harness.reporting.figures.runs import draw_all, matrix_alt, matrix_caption
from harness.reporting.figures.style import SVG, XLINK, compact, house_style, new_figure, settle, to_svg
from harness.reporting.figures.tables import draw_effects, draw_forest, draw_values, lines_of, sign_agreement
from tests.reporting.edits import comparable, edit_tables, only_table
from tests.reporting.sample import SETTINGS


def table_of(report, key: str):
    return next(table for table in report.findings.tables if table.key == key)


def texts_of(figure) -> list:
    """The bounding boxes of all texts that are visible, by text."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    found = []
    for ax in figure.axes:
        labels = [*ax.get_yticklabels(), ax.yaxis.label, ax.title]
        labels += [*ax.get_xticklabels(), ax.xaxis.label] * ax.xaxis.get_visible()
        found += [label for label in labels if label.get_visible() and label.get_text()]
    return [(label.get_text(), label.get_window_extent(renderer)) for label in found]


def test_long_labels_neither_overlap_nor_leave_the_figure(report):
    def lengthen(table):
        name = {
            cell.row: f"{cell.row} and a very long explanation of this row {i}"
            for i, cell in enumerate(table.cells)
        }
        cells = tuple(
            replace(c, row=name[c.row], effect=c.effect and replace(c.effect, versus=name[c.effect.versus]))
            for c in table.cells
        )
        return replace(table, cells=cells)

    table = table_of(edit_tables(report, lengthen), "table4")
    with house_style():
        figure = draw_forest(table, SETTINGS)
        texts = texts_of(figure)
    width, height = figure.canvas.get_width_height()
    assert len(texts) > 16
    for text, box in texts:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    for (one, a), (other, b) in combinations(texts, 2):
        assert not a.shrunk(0.98, 0.9).overlaps(b.shrunk(0.98, 0.9)), (one, other)


def test_a_forest_draws_each_estimate_interval_seed_and_paper_effect(report):
    table = table_of(report, "table5")
    with house_style():
        ax = draw_forest(table, SETTINGS).axes[0]
    drawn = [np.asarray(line.get_xdata(), dtype=float) for line in ax.get_lines()]

    def is_drawn(values) -> bool:
        return any(len(x) == len(values) and np.allclose(x, values) for x in drawn)

    effects = [line.effect for line in lines_of(table) if line.effect]
    assert len(effects) == 3
    for effect in effects:
        assert is_drawn([effect.estimate])
        assert is_drawn([effect.low, effect.high])
        assert is_drawn(list(effect.differences.values()))
        assert is_drawn([effect.paper])


def test_a_table_without_effects_has_no_forest(report):
    assert draw_forest(table_of(report, "table2"), SETTINGS) is None


def test_curves_are_means_over_seeds_with_the_range_as_band(report):
    table = table_of(report, "table5")
    curve = panels_of(table, report.curves)[""][2]
    rows = report.curves[report.curves["arm_id"] == table.cells[2].arm_id]
    last = rows[rows["epoch"] == rows["epoch"].max()]["val_top1"]
    assert curve.seeds == 3
    assert curve.mean[-1] == pytest.approx(last.mean())
    assert (curve.low[-1], curve.high[-1]) == (last.min(), last.max())


def test_rows_that_share_an_arm_share_a_curve(report):
    table = table_of(report, "table5")
    same = replace(table, cells=(*table.cells, replace(table.cells[0], row="again")))
    labels = [curve.label for curve in panels_of(same, report.curves)[""]]
    assert labels == ["ResNet-50 = again", "ResNet-50-B", "ResNet-50-C", "ResNet-50-D"]


def test_a_curve_of_one_epoch_is_visible(report):
    first = report.curves[report.curves["epoch"] == 1]
    with house_style():
        figure = draw_curves(panels_of(table_of(report, "table5"), first))
    assert all(line.get_marker() == "o" for line in figure.axes[0].get_lines())


def test_curves_without_any_point_are_left_out(report):
    empty = replace(only_table(report, "table3"), curves=report.curves.iloc[:0])
    keys = [picture.key for picture in draw_all(empty) if not picture.further]
    assert keys == ["table3_effects", "paper_effects", "runs"]


def test_the_paper_figure_counts_agreeing_signs(report):
    points = [
        (c.effect.estimate, c.effect.paper) for t in report.findings.tables for c in t.cells if c.effect
    ]
    both = [(ours, paper) for ours, paper in points if paper is not None]
    assert sign_agreement(report.findings) == (sum(a * b > 0 for a, b in both), len(both))
    with house_style():
        assert draw_effects(report.findings) is not None


def test_values_are_drawn_only_in_the_papers_setting(report, rendered):
    assert not (rendered / "figures" / "paper_values.svg").exists()
    pictures = draw_all(comparable(only_table(report, "table3")))
    keys = [picture.key for picture in pictures if not picture.further]
    assert keys[-2:] == ["paper_values", "runs"]
    with house_style():
        ax = draw_values(report.findings).axes[0]
    assert (
        len(ax.get_yticklabels()) == 23
    )  # 25 cells, of them one quoted and one that the paper does not have


def test_the_run_matrix_says_what_did_not_finish(report):
    assert matrix_alt(report) == (
        "Matrix of 57 runs: 55 finished. Others: Table 6 / + mixup w/o distill seed 1 diverged; "
        "Table 6 / + mixup w/o distill seed 2 failed."
    )
    assert "✗ diverged (1)" in matrix_caption(report)


def test_the_glyph_of_every_verdict_is_in_the_font(report, recwarn):
    table = table_of(report, "table6")
    effect = table.cells[1].effect
    cells = tuple(replace(table.cells[1], row=word, effect=replace(effect, verdict=word)) for word in GLYPHS)
    with house_style():
        figure = draw_forest(replace(table, cells=cells), SETTINGS)
        texts = " ".join(text for text, _ in texts_of(figure))
    assert all(f"{glyph} " in texts for glyph in GLYPHS.values())
    assert [str(w.message) for w in recwarn if "missing from" in str(w.message)] == []


def svg_of_a_line(scale: float) -> str:
    """A line with markers on logarithmic axes, whose limits matplotlib finds from the data."""
    with house_style():
        figure = new_figure(2.0)
        ax = figure.add_subplot()
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.plot([1.0, 2.0, 5.0 * scale], [0.3 * scale, 1.7, 2.9], "o-")
        ax.scatter([2.0 * scale], [1.0])
        settle(figure)
        return to_svg(figure).decode()


def test_a_drawing_does_not_show_the_last_digits_of_another_cpu():
    """matplotlib hashes all digits of clip rectangles into their names."""
    drawn = svg_of_a_line(1.0)
    assert svg_of_a_line(1 + 4e-16) == drawn
    assert 'clip-path="url(#p' in drawn
    assert svg_of_a_line(1.01) != drawn


def test_a_figure_has_each_letter_once_and_no_digit_beyond_a_hundredth_of_a_point(report):
    for picture in draw_all(only_table(report, "table3")):
        svg = picture.svg.decode()
        outlines = re.findall(r'<path id="(G[^"]*)"', svg)
        assert outlines
        assert len(set(outlines)) == len(outlines)
        assert {name for name in re.findall(r'href="#(G[^"]*)"', svg)} == set(outlines)
        numbers = re.findall(r' (?:d|x|y|width|height)="([^"]*)"', svg[svg.index("</defs>") :])
        assert re.findall(r"\.\d{3}", " ".join(numbers)) == []


def test_the_png_of_a_figure_is_its_svg_at_160_dots_an_inch(report):
    picture = draw_all(only_table(report, "table3"))[0]
    with Image.open(io.BytesIO(picture.png)) as image:
        width, height = image.size
        colours = len(image.convert("RGB").getcolors(width * height))
    points = [float(number) for number in re.findall(r'(?:width|height)="([\d.]+)pt"', picture.svg.decode())]
    assert (width, height) == tuple(round(number / 72 * 160) for number in points)
    assert colours > 20


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("translate(63.625 0)", {"x": "63.6"}),
        ("translate(63.625 -12.5)", {"x": "63.6", "y": "-12.5"}),
        ("translate(3 4) scale(0.7)", {"transform": "translate(3 4) scale(0.7)"}),
    ],
)
def test_a_letter_stays_at_its_place(place, shown):
    """Across, and up or down where it is a mark above another; of its own size where it has one."""
    glyph = '<path id="DejaVuSans-41" d="M 8 16 L 800 0 z" transform="scale(0.015625)"/>'
    use = f'<use xlink:href="#DejaVuSans-41" transform="{place}"/>'
    names = f'xmlns="{SVG}" xmlns:xlink="{XLINK}"'
    root = ElementTree.fromstring(compact(f"<svg {names}><defs>{glyph}</defs><g>{use}</g></svg>"))
    outline, letter = root[0][0], root[1]
    assert outline.attrib == {"id": "G41", "d": "M1 2l99-2z", "transform": "scale(0.125)"}
    assert letter.attrib == {f"{{{XLINK}}}href": "#G41", **shown}
