"""A document as PDF, set by Typst. The template gets data, never markup."""

from __future__ import annotations

import datetime
import io
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pikepdf
import typst

from harness.reporting.document import (
    TEXT,
    Block,
    Document,
    FigureBlock,
    RecipeRuns,
    RunsBlock,
    TextCell,
    TextTable,
    all_text,
    code_spans,
)
from harness.reporting.figures.style import OWN, Fonts, files_of, fonts_for, outlined
from harness.reporting.html import TEMPLATES, block_kind

EPOCH = datetime.datetime(
    2000, 1, 1, tzinfo=datetime.UTC
)  # a fixed date, so that equal reports are equal files
PAGE_CHARS = 108  # of the text width, in a table's type
LONGEST_TEXT, LONGEST_DETAIL, SHORT_DETAIL, DETAIL_SHARE = 90, 40, 12, 0.55  # in characters; texts may wrap
WHOLE_TABLE_ROWS = 8  # a table up to this length stays on one page
# What typst says, under UA-1, of a text without a glyph, and of a glyph without a text.
_NO_GLYPH = ("could not be displayed", "missing codepoints")
CELL_FIELDS = tuple(each.name for each in fields(TextCell))
FIRST_WITH_UA1 = (0, 14)  # the typst release that can check PDF/UA-1


def to_pdf(document: Document, svgs: Mapping[str, bytes]) -> bytes:
    """The whole report, as PDF/UA-1 where the installed typst can make it. `svgs`: a figure's key -> its SVG.

    Raises:
        typst.TypstError: the template does not compile; never because of a text in the document.
    """
    return packed(typeset(document, svgs))


def packed(pdf: bytes) -> bytes:
    """The same document in half the bytes: its objects in compressed streams.

    typst 0.15 writes the tags of a document, one for each cell of a table, uncompressed
    (https://github.com/typst/typst/issues/7142).
    """
    buffer = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf)) as document:
        document.save(
            buffer,
            object_stream_mode=pikepdf.ObjectStreamMode.generate,
            fix_metadata_version=False,
            deterministic_id=True,
        )
    return buffer.getvalue()


def typeset(document: Document, svgs: Mapping[str, bytes]) -> bytes:
    """The report as typst writes it.

    Typst's own fonts set its pages, DejaVu Sans its figures. Where they lack a character it is set again with
    fonts of this machine, and what those lack is replaced (`fonts`): a PDF/UA-1 may hold no character without
    a glyph. Nor may a figure, in typst 0.15, hold a mark that is no part of its letter's glyph: outlines then
    stand in the place of its words (https://github.com/typst/typst/issues/7432).

    Raises:
        typst.TypstError: the template does not compile; never because of a text in the document.
    """
    data = _data(document)
    try:
        return _compiled(data, svgs, files_of(Fonts()), checked=True)
    except typst.TypstError as error:
        if not _is_about_letters(error):
            raise
    fonts = fonts_for("".join([*all_text(data), *(svg.decode() for svg in svgs.values())]))
    data = {**_replaced(data, fonts), "fonts": [OWN, *fonts.families]}
    drawn = {key: fonts.replaced(svg.decode()).encode() for key, svg in svgs.items()}
    for change in (bytes, outlined):
        drawn = {key: change(svg) for key, svg in drawn.items()}
        try:
            return _compiled(data, drawn, files_of(fonts), checked=True)
        except typst.TypstError as error:
            if not _is_about_letters(error):
                raise
    return _compiled(data, drawn, files_of(fonts), checked=False)  # an empty box, in no standard


def _is_about_letters(error: typst.TypstError) -> bool:
    return any(text in str(error) for text in _NO_GLYPH)


def text_in(document: Document) -> str:
    """Every text on the pages."""
    return "".join(all_text(_data(document)))


def _compiled(
    data: Mapping[str, Any], svgs: Mapping[str, bytes], fonts: Sequence[Path], *, checked: bool
) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "report.typ").write_bytes((TEMPLATES / "report.typ").read_bytes())
        (folder / "report.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        (folder / "figures").mkdir()
        for key, svg in svgs.items():
            (folder / "figures" / f"{key}.svg").write_bytes(svg)
        (folder / "fonts").mkdir()
        for number, path in enumerate(fonts):
            shutil.copyfile(path, folder / "fonts" / f"{number}{path.suffix}")
        return typst.compile(
            str(folder / "report.typ"),
            root=str(folder),
            font_paths=[str(folder / "fonts")],
            ignore_system_fonts=True,
            pdf_standards=["ua-1"] if checked and _can_check_ua1() else [],
            timestamp=EPOCH,
        )


def _replaced(value: Any, fonts: Fonts) -> Any:
    """Plain data without the characters that no font has."""
    if isinstance(value, str):
        return fonts.replaced(value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, fonts) for key, item in value.items()}
    return [_replaced(item, fonts) for item in value] if isinstance(value, list | tuple) else value


def _can_check_ua1() -> bool:
    return tuple(int(part) for part in version("typst").split(".")[:2]) >= FIRST_WITH_UA1


def _data(document: Document) -> dict[str, Any]:
    parts = {
        name: [
            {"title": section.title, "blocks": [_block(block) for block in section.blocks]}
            for section in sections
        ]
        for name, sections in (("sections", document.sections), ("details", document.details))
    }
    banner = [{"text": text, "code": code} for text, code in code_spans(document.banner)]
    return {
        "banner": banner,
        "title": document.title,
        "question": document.question,
        "scope": document.scope,
        **parts,
    }


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, TextTable):
        return _table(block)
    if isinstance(block, FigureBlock):
        return {"block": "figure", "key": block.key, "caption": block.caption, "alt": block.alt}
    if isinstance(block, RunsBlock):
        return {"block": "runs", "recipes": [_recipe(recipe) for recipe in block.recipes]}
    return {"block": block_kind(block), **asdict(block)}


def _recipe(recipe: RecipeRuns) -> dict[str, Any]:
    runs = [f"seed {run.seed}: {run.value}, {run.run_id}" for run in recipe.runs]
    return {"name": recipe.name, "settings": recipe.brief, "runs": runs}


def _table(table: TextTable) -> dict[str, Any]:
    widths = column_widths(table)
    columns = [
        {
            "title": column.title,
            "kind": column.kind,
            "detail": column.detail_title if table.has_detail(index) else "",
            "width": widths[index],
        }
        for index, column in enumerate(table.columns)
    ]
    groups = [
        {"name": name, "rows": [[_cell(cell) for cell in row.cells] for row in rows]}
        for name, rows in table.groups()
    ]
    return {
        "block": "table",
        "caption": table.caption,
        "columns": columns,
        "groups": groups,
        "notes": table.notes,
        "share": _share(table, widths),
        "spans": [{"title": title, "columns": columns} for title, columns in table.spans],
        "breakable": len(table.rows) > WHOLE_TABLE_ROWS,
    }


def _cell(cell: TextCell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in CELL_FIELDS}


def _share(table: TextTable, widths: list[float]) -> float:
    """Of the page's width, in percent: a table in the paper's shape is no wider than its columns need."""
    is_papers = any(cell.target for row in table.rows for cell in row.cells)
    return min(100.0, max(40.0, 130 * sum(widths) / PAGE_CHARS)) if is_papers else 100.0


def _detail_length(cell: TextCell) -> float:
    """In characters. Intervals and short remarks get their length, other second lines may wrap."""
    length = len(cell.detail)
    if cell.detail.startswith("[") or length <= SHORT_DETAIL:
        return float(length)
    return min(length * DETAIL_SHARE, LONGEST_DETAIL)


def column_widths(table: TextTable) -> list[float]:
    """Shares of the page for the columns, in characters.

    Numbers get the length of their longest text, so that none wraps. Texts share what is left, in proportion
    to a root of their length and at least with room for their longest word: long ones wrap.
    """
    needs = [_needed(table, index) for index in range(len(table.columns))]
    texts = [index for index, column in enumerate(table.columns) if column.kind == TEXT]
    left = PAGE_CHARS - sum(need for index, need in enumerate(needs) if index not in texts)
    roots = {index: needs[index] ** 0.75 for index in texts}
    for index in texts:
        share = left * roots[index] / sum(roots.values())
        needs[index] = min(needs[index], max(share, _longest_word(table, index)))
    return needs


def _needed(table: TextTable, index: int) -> float:
    cells = [row.cells[index] for row in table.rows]
    longest = max((max(len(cell.text), _detail_length(cell)) for cell in cells), default=0)
    words = max((len(word) for word in table.columns[index].title.split()), default=0)
    return float(min(max(longest, words, 4), LONGEST_TEXT)) + 1.0


def _longest_word(table: TextTable, index: int) -> float:
    texts = [table.columns[index].title, *(row.cells[index].text for row in table.rows)]
    return max((len(word) for text in texts for word in text.split()), default=0) + 1.0
