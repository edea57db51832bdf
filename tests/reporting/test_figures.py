"""Figures: what is drawn is what was found, and texts neither overlap nor leave the picture."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from harness.analysis.findings import GLYPHS
from harness.reporting.figures.curves import draw_curves, panels_of
from harness.reporting.figures.runs import draw_all, matrix_alt, matrix_caption
from harness.reporting.figures.style import (
    PNG_DPI,
    SVG,
    WIDTH_IN,
    XLINK,
    compact,
    house_style,
    new_figure,
    outlined,
    settle,
    to_png,
    to_svg,
    words_of,
)
from harness.reporting.figures.tables import draw_board, draw_values
from harness.reporting.html import inline_svg
from harness.reporting.sections.paper import boards
from tests.reporting.edits import comparable, only_table


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
    assert keys == ["scoreboard", "runs"]


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
        findings = replace(report.findings, tables=(replace(table, cells=cells),))
        figure = draw_board(boards(findings)[0])
        texts = " ".join(text.get_text() for text in figure.axes[0].texts)
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


def test_the_words_of_a_figure_are_text_and_no_digit_goes_beyond_a_hundredth_of_a_point(report):
    for picture in draw_all(only_table(report, "table3")):
        svg = picture.svg.decode()
        assert len(words_of(picture.svg)) > 5
        assert [word for word in words_of(picture.svg) if word != " ".join(word.split())] == []
        numbers = re.findall(r' (?:d|x|y|width|height|textLength)="([^"]*)"', svg[svg.index("</defs>") :])
        assert re.findall(r"\.\d{3}", " ".join(numbers)) == []


def bare_figure(height_in: float) -> Figure:
    """For texts that are placed by hand: nothing has to be laid out."""
    figure = new_figure(height_in)
    figure.set_layout_engine("none")
    return figure


def drawn_text(word: str, **options) -> tuple[ElementTree.Element, tuple[float, float, float, float]]:
    """The element of a text in the middle of a figure; its left, right, top and bottom in points."""
    with house_style(word):
        figure = bare_figure(2.0)
        text = figure.text(0.5, 0.5, word, fontsize=8, **options)
        box = text.get_window_extent(figure.canvas.get_renderer())
        svg = to_svg(figure)
    points = 72 / figure.dpi
    root = ElementTree.fromstring(svg)
    return root.find(f".//{{{SVG}}}text"), tuple(
        value * points for value in (box.x0, box.x1, figure.bbox.height - box.y1, figure.bbox.height - box.y0)
    )


@pytest.mark.parametrize("anchor", ["left", "center", "right"])
def test_a_text_begins_ends_and_is_as_wide_as_it_was_laid_out(anchor: str):
    """Whatever font a reader has: the place that is held, and the width to which it is spaced."""
    element, (left, right, _, _) = drawn_text("+ mixup, 0.2", ha=anchor)
    width = float(element.get("textLength"))
    held = {"left": left, "center": (left + right) / 2, "right": right}[anchor]
    names = {"left": None, "center": "middle", "right": "end"}
    assert element.get("text-anchor") == names[anchor]
    assert float(element.get("x")) == pytest.approx(held, abs=1)
    assert width == pytest.approx(right - left, abs=2)


@pytest.mark.parametrize("line", [0, 1])
def test_each_line_of_a_text_has_its_own_place_and_width(line: int):
    with house_style():
        figure = bare_figure(2.0)
        figure.text(0.5, 0.5, "a long first line\nsecond", fontsize=8, ha="right")
        root = ElementTree.fromstring(to_svg(figure))
    lines = root.findall(f".//{{{SVG}}}text")
    assert lines[line].text == ("a long first line", "second")[line]
    ends = [float(each.get("x")) + float(each.get("textLength")) for each in lines]
    assert ends[line] == pytest.approx(WIDTH_IN * 72 / 2, abs=1)


def test_a_turned_text_turns_about_its_place():
    element, (left, right, top, bottom) = drawn_text(
        "Top-1", rotation=90, rotation_mode="anchor", ha="center", va="bottom"
    )
    x, y = element.get("x"), element.get("y")
    assert element.get("transform") == f"rotate(-90 {x} {y})"
    assert left <= float(x) <= right
    assert float(y) == pytest.approx((top + bottom) / 2, abs=1)


def test_no_word_in_a_figure_is_read_as_markup():
    words = ['id="m1" href="#m1"', "url(#pab12ab12ab)", 'x "mab12ab12ab"', "<b> & </text>", "#mab12ab12ab"]
    with house_style():
        figure = new_figure(2.0)
        ax = figure.add_subplot()
        ax.plot([1.0, 2.0], [1.0, 2.0], "o")
        for place, word in enumerate(words):
            ax.text(1.0, 1.0 + place / 8, word)
        settle(figure)
        svg = to_svg(figure)
    assert set(words) <= set(words_of(svg))
    inline = inline_svg(svg.decode(), "key")
    assert set(words) <= set(words_of(inline.encode()))
    assert {name[:4] for name in re.findall(r'<[^>]* id="([^"]*)"', inline)} == {"key-"}


def test_outlines_stand_where_the_words_stood(report):
    """Pixels of the text alone, as matplotlib draws them and as the outlines do."""
    with house_style():
        figure = bare_figure(1.0)
        figure.text(0.5, 0.5, "Grey + mixup", fontsize=20, ha="center", fontweight="bold")
        figure.canvas.draw()
        box = figure.texts[0].get_tightbbox()
        svg = to_svg(figure)
    assert b"<text" not in outlined(svg)
    with Image.open(io.BytesIO(to_png(svg))) as image:
        dark = np.argwhere(np.asarray(image.convert("L")) < 128)
    points = dark / PNG_DPI * figure.dpi
    (top, left), (bottom, right) = points.min(axis=0), points.max(axis=0)
    height = figure.bbox.height
    assert (left, right) == pytest.approx((box.x0, box.x1), abs=4)
    assert box.y0 - 4 <= height - bottom <= height - top <= box.y1 + 4


def test_neighbours_share_a_style_and_what_is_transparent_keeps_its_own():
    paths = "".join(f'<path d="M 0 0 L {n} 1" style="{style}"/>' for n, style in enumerate(["fill: red"] * 3))
    seen = "".join('<path d="M 0 0 L 1 1" style="fill: red; opacity: 0.5"/>' for _ in range(2))
    root = ElementTree.fromstring(compact(f'<svg xmlns="{SVG}">{paths}{seen}</svg>'))
    assert [(child.tag.partition("}")[2], child.get("style"), len(child)) for child in root] == [
        ("g", "fill:red", 3),
        ("path", "fill:red;opacity:0.5", 0),
        ("path", "fill:red;opacity:0.5", 0),
    ]


def test_a_mark_keeps_of_its_style_what_its_shape_does_not_have():
    defs = '<defs><path id="m0123456789" d="M 0 0 L 1 1" style="stroke: red"/></defs>'
    use = '<use xlink:href="#m0123456789" x="1.234567" y="2" style="fill: blue; stroke: red"/>'
    names = f'xmlns="{SVG}" xmlns:xlink="{XLINK}"'
    root = ElementTree.fromstring(compact(f"<svg {names}>{defs}{use}</svg>"))
    assert root[1].attrib == {f"{{{XLINK}}}href": "#m1", "x": "1.23", "y": "2", "style": "fill:blue"}


def test_the_png_of_a_figure_is_its_svg_at_160_dots_an_inch(report):
    picture = draw_all(only_table(report, "table3"))[0]
    with Image.open(io.BytesIO(picture.png)) as image:
        width, height = image.size
        colours = len(image.convert("RGB").getcolors(width * height))
    points = [float(number) for number in re.findall(r'(?:width|height)="([\d.]+)pt"', picture.svg.decode())]
    assert (width, height) == tuple(round(number / 72 * 160) for number in points)
    assert colours > 20
