"""Reports side by side, as a document and as files. How numbers are compared: analysis/comparison.py."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.analysis.comparison import (
    AGREE,
    DIFFER,
    OPEN,
    UNTESTED,
    Apart,
    ComparedRow,
    Difference,
    SideRow,
    compare,
    recipes_apart,
    settings_apart,
)
from harness.analysis.findings import GLYPHS, Settings
from harness.analysis.verdicts import metric_name, size_text
from harness.errors import Problem, StudyError
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.frames import csv_text
from harness.reporting.html import to_html
from harness.reporting.latex import to_latex
from harness.reporting.markdown import to_markdown
from harness.reporting.pdf import to_pdf
from harness.reporting.render import Rendered, ReportDraft, refuse_foreign_folders, write_files
from harness.reporting.report_input import plain
from harness.runs.records import parsed, reason

# The parts of a comparison of reports.


ANSWER_GLYPHS = {DIFFER: "≠", AGREE: "≈", OPEN: "?", UNTESTED: num.DASH}
MOST_LINES = 60  # of settings that differ


def letters_of(sides: int) -> tuple[str, ...]:
    """A, B, C, ...: how tables call the sides."""
    return tuple(chr(ord("A") + place) for place in range(sides))


def opening_section(
    names: Sequence[str], reports: Sequence[Mapping[str, Any]], rows: Sequence[ComparedRow]
) -> doc.Section:
    """Which sides there are, and how often their effects differ."""
    letters = letters_of(len(names))
    sides = [
        (f"{letter}: {name}", f"{report['title']}, size {report['size']}, {_seeds(report)}")
        for letter, name, report in zip(letters, names, reports, strict=True)
    ]
    return doc.Section("Answer", (doc.Bullets(tuple(_tallies(rows, letters))), doc.Definitions(tuple(sides))))


def compared_tables(rows: Sequence[ComparedRow], settings: Settings) -> tuple[doc.TextTable, ...]:
    """One table per table of the studies: each side's effect, and the difference from the first side."""
    letters, unit = letters_of(len(rows[0].sides) if rows else 0), doc.effect_suffix(settings)
    columns = [doc.TextColumn(title="Row")]
    for letter in letters:
        columns += [doc.TextColumn(title=f"{letter}: effect{unit}", kind=doc.SPREAD, detail_title="95 % CI"),
                    doc.TextColumn(title=f"{letter}: verdict", kind=doc.TEXT, detail_title="n")]  # fmt: skip
    for letter in letters[1:]:
        columns += [doc.TextColumn(title=f"{letter} − A{unit}", kind=doc.SPREAD, detail_title="95 % CI"),
                    doc.TextColumn(title=f"{letter} and A", kind=doc.TEXT)]  # fmt: skip
    caption = (
        f"Effects on {metric_name(settings.metric)}, each against the row that its own study compares with."
    )
    return tuple(
        doc.TextTable(
            key=f"{key}_sides",
            caption=f"{doc.short_name(key)}. {caption}",
            columns=tuple(columns),
            rows=tuple(_effects_row(row, settings) for row in group),
        )
        for key, group in _by_table(rows).items()
    )


def level_tables(rows: Sequence[ComparedRow], settings: Settings) -> tuple[doc.TextTable, ...]:
    """One table per table of the studies: each side's mean, sd and n."""
    letters = letters_of(len(rows[0].sides) if rows else 0)
    named = f"{metric_name(settings.metric)}{doc.percent_suffix(settings.metric)}"
    columns = [doc.TextColumn(title="Row")]
    for letter in letters:
        columns += [doc.TextColumn(title=f"{letter}: {named}, mean ± sd", kind=doc.SPREAD),
                    doc.TextColumn(title=f"{letter}: n", kind=doc.NUMBER)]  # fmt: skip
    return tuple(
        doc.TextTable(
            key=f"{key}_levels",
            caption=f"{doc.short_name(key)}. sd: over seeds; n: seeds with a value.",
            columns=tuple(columns),
            rows=tuple(_levels_row(row, settings) for row in group),
        )
        for key, group in _by_table(rows).items()
    )


def apart_sections(
    whole: Sequence[Apart], recipes: tuple[int, Sequence[Apart]], letters: Sequence[str]
) -> list[doc.Section]:
    """What of the settings differs, and what of the recipes of shared rows."""
    shared, fields = recipes
    title = "What differs besides the results"
    if not whole and not fields:
        return [doc.Section(title, (doc.Paragraph("No setting, version or recipe differs."),))]
    kinds = {"Setting": doc.TEXT, **dict.fromkeys(letters, doc.TEXT)}
    blocks: list[Any] = []
    if whole:
        lines = [[each.name, *each.values] for each in whole]
        blocks.append(doc.plain_table("settings_apart", "Of the reports as a whole.", kinds, lines))
    if fields:
        shown = sorted(fields, key=lambda each: (-(each.rows or 0), each.name))[:MOST_LINES]
        lines = [[each.name, *each.values, f"{each.rows} of {shared}"] for each in shown]
        caption = f"Of the recipes of the {num.count(shared, 'row')} that all sides have."
        if len(shown) < len(fields):
            caption += f" The {MOST_LINES} most frequent of {len(fields)} differences; report.json has all."
        blocks.append(doc.plain_table("recipes_apart", caption, {**kinds, "Rows": doc.TEXT}, lines))
    elif not shared:
        blocks.append(doc.Paragraph("No row is on every side, so no recipes are compared."))
    else:
        blocks.append(
            doc.Paragraph(f"The recipes of the {num.count(shared, 'row')} that all sides have are equal.")
        )
    return [doc.Section(title, tuple(blocks))]


def only_in_one(rows: Sequence[ComparedRow], letters: Sequence[str]) -> doc.Section | None:
    """Rows that not every side has; None where there are none."""
    items = []
    for row in rows:
        there = [letter for letter, side in zip(letters, row.sides, strict=True) if side is not None]
        if len(there) < len(letters):
            table, name, column = row.key
            label = f"{name} ({column})" if column else name
            items.append(f"{doc.short_name(table)}: {label}: only in {' and '.join(there)}.")
    return doc.Section("Rows that not every side has", (doc.Bullets(tuple(items)),)) if items else None


def method_section(settings: Settings, reports: Sequence[Mapping[str, Any]]) -> doc.Section:
    """How the differences were tested."""
    sizes = {report["findings"]["settings"]["smallest_effect_pp"] for report in reports}
    delta = size_text(settings.smallest_effect_pp, settings)
    several = ", the smallest that a side declared" if len(sizes) > 1 else ""
    text = (
        "Rows are matched by the names of table, row and column. Each effect, its interval and its verdict "
        "are those of the side's own report. The difference of two effects gets a Welch interval with "
        "Satterthwaite's degrees of freedom from the two standard errors; sides are taken as independent. "
        "Recipes trained with the same seeds on both sides may give results that go together: the interval "
        "is then wider than needed. Where sides share runs they are not independent, and nothing is tested. "
        f"{ANSWER_GLYPHS[DIFFER]} differ: p at most {settings.alpha:g} after Holm's correction over the rows "
        f"that two sides share. {ANSWER_GLYPHS[AGREE]} agree: not that, and the 90 % interval lies within "
        f"{delta} of 0{several}. {ANSWER_GLYPHS[OPEN]} not settled: neither. These words say nothing about "
        "which side is right."
    )
    return doc.Section("Method", (doc.Paragraph(text),))


def _seeds(report: Mapping[str, Any]) -> str:
    return num.count(len(report["findings"]["seeds"]), "seed")


def _tallies(rows: Sequence[ComparedRow], letters: Sequence[str]) -> list[str]:
    texts = []
    for place, letter in enumerate(letters[1:]):
        found = Counter(row.differences[place].answer for row in rows)
        words = ", ".join(
            f"{found[word]} {ANSWER_GLYPHS[word]} {word}" for word in (DIFFER, AGREE, OPEN) if found[word]
        )
        shared = sum(row.sides[0] is not None and row.sides[place + 1] is not None for row in rows)
        why = Counter(row.differences[place].why for row in rows if row.differences[place].answer == UNTESTED)
        untested = "; ".join(f"{n} {reason}" for reason, n in why.items())
        tested = words or "nothing could be tested"
        texts.append(
            f"{letter} against A: {num.count(shared, 'shared row')}. Effects: {tested}."
            + (f" Not tested: {untested}." if untested else "")
        )
    return texts


def _by_table(rows: Sequence[ComparedRow]) -> dict[str, list[ComparedRow]]:
    """Tables of which at least two sides share a row, stacked by column; the others are in `only_in_one`."""
    groups: dict[str, list[ComparedRow]] = {}
    for row in rows:
        groups.setdefault(row.key[0], []).append(row)
    return {
        key: sorted(group, key=_place_of_column(group))
        for key, group in groups.items()
        if any(sum(side is not None for side in row.sides) > 1 for row in group)
    }


def _place_of_column(group: Sequence[ComparedRow]) -> Callable[[ComparedRow], int]:
    columns = list(dict.fromkeys(row.key[2] for row in group))
    return lambda row: columns.index(row.key[2])


def _effects_row(row: ComparedRow, settings: Settings) -> doc.TextRow:
    cells = [doc.TextCell(row.key[1])]
    for side in row.sides:
        cells += _side_cells(side, settings)
    for difference in row.differences:
        cells += _difference_cells(difference, settings)
    return doc.TextRow(tuple(cells), row.key[2] or "")


def _side_cells(side: SideRow | None, settings: Settings) -> list[doc.TextCell]:
    if side is None:
        return [doc.TextCell(num.DASH, "(no such row)")] * 2
    n = f"n={side.n}"
    if side.estimate is None:
        why = "(reference)" if side.versus is None else "(no effect)"
        return [doc.TextCell(num.DASH, why), doc.TextCell(num.DASH, f"{why} {n}")]
    digits = _digits(side.low, side.high, settings)
    word = side.verdict or ""
    return [
        doc.TextCell(num.signed(side.estimate, digits), num.interval(side.low, side.high, digits)),
        doc.TextCell(f"{GLYPHS.get(word, '')} {word}".strip(), n, word),
    ]


def _difference_cells(found: Difference, settings: Settings) -> list[doc.TextCell]:
    word = f"{ANSWER_GLYPHS[found.answer]} {found.answer}"
    if found.estimate is None:
        return [doc.TextCell(num.DASH, f"({found.why})"), doc.TextCell(word)]
    digits = _digits(found.low, found.high, settings)
    said = num.interval(found.low, found.high, digits) or f"({found.why})"
    return [doc.TextCell(num.signed(found.estimate, digits), said), doc.TextCell(word)]


def _levels_row(row: ComparedRow, settings: Settings) -> doc.TextRow:
    cells = [doc.TextCell(row.key[1])]
    for side in row.sides:
        if side is None:
            cells += [doc.TextCell(num.DASH, "(no such row)")] * 2
        else:
            cells += [_level_cell(side, settings), doc.TextCell(str(side.n))]
    return doc.TextRow(tuple(cells), row.key[2] or "")


def _level_cell(side: SideRow, settings: Settings) -> doc.TextCell:
    if side.mean is None:
        return doc.TextCell(num.DASH, "(no value)")
    if side.sd is None:
        return doc.TextCell(
            num.number(side.mean, num.digits_for(None) if settings.in_percent else None),
            "(1 seed: no sd)",
        )
    digits = num.digits_for(side.sd / side.n**0.5) if settings.in_percent else None
    return doc.TextCell(f"{num.number(side.mean, digits)} ± {num.number(side.sd, digits)}")


def _digits(low: float | None, high: float | None, settings: Settings) -> num.Digits:
    if not settings.in_percent:
        return None
    return num.digits_for(None if low is None or high is None else (high - low) / 4)


# Reports side by side, as a document and as files. How numbers are compared: analysis/comparison.py.


SCHEMA_VERSION = 1
NOTHING_SHARED = doc.Paragraph(
    "No row is on more than one side: rows are matched by the names of table, row and column."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareInput:
    """The reports, as their report.json has them, and how they are called."""

    names: tuple[str, ...]
    reports: tuple[Mapping[str, Any], ...]

    @property
    def settings(self) -> Settings:
        """The first side's, with the smallest effect of interest that all sides can live with."""
        first = self.reports[0]["findings"]["settings"]
        smallest = min(report["findings"]["settings"]["smallest_effect_pp"] for report in self.reports)
        return Settings(
            metric=first["metric"],
            percent=first.get("percent", False),
            alpha=first["alpha"],
            smallest_effect_pp=smallest,
        )


def render_comparison(inputs: CompareInput, out_dir: Path) -> Rendered:
    """Write report.{md,html,pdf,json} and tables/*.{csv,tex}; the same input gives the same bytes.

    Raises:
        StudyError: `out_dir` has folders that are not a report's.
        KeyError, TypeError, ValueError: something of a report is not there, or not of its kind.
    """
    refuse_foreign_folders(out_dir)
    rows = compare(inputs.reports, inputs.settings.alpha)
    document = comparison_document(inputs, rows)
    draft = ReportDraft()
    draft.files |= {
        "report.md": to_markdown(document).encode(),
        "report.html": to_html(document, {}).encode(),
        "report.json": _json(inputs, rows).encode(),
        "tables/comparison.csv": _csv(inputs, rows).encode(),
    }
    draft.add("report.pdf", lambda: to_pdf(document, {}))
    for shown in (*compared_tables(rows, inputs.settings), *level_tables(rows, inputs.settings)):
        draft.files[f"tables/{shown.key}.tex"] = to_latex(shown).encode()
    return Rendered(write_files(draft.files, out_dir), tuple(draft.failures))


def comparison_document(inputs: CompareInput, rows: Sequence[ComparedRow]) -> doc.Document:
    """Answer, tables, what differs, rows of one side, method."""
    settings, reports = inputs.settings, inputs.reports
    letters = letters_of(len(reports))
    sections = [
        opening_section(inputs.names, reports, rows),
        doc.Section("Effects side by side", compared_tables(rows, settings) or (NOTHING_SHARED,)),
        doc.Section("Values side by side", level_tables(rows, settings) or (NOTHING_SHARED,)),
        *apart_sections(settings_apart(reports), recipes_apart(reports), letters),
        only_in_one(rows, letters),
        method_section(settings, reports),
    ]
    sides = " · ".join(f"{letter}: {name}" for letter, name in zip(letters, inputs.names, strict=True))
    return doc.Document(
        banner="",
        title=f"{' and '.join(inputs.names)}: side by side",
        question="Which effects are the same on every side, and which differ?",
        scope=sides,
        sections=tuple(section for section in sections if section is not None),
    )


def _json(inputs: CompareInput, rows: Sequence[ComparedRow]) -> str:
    """Keys: schema, kind ("comparison"), sides, settings, recipes, rows."""
    shared, recipes = recipes_apart(inputs.reports)
    data = {
        "schema": SCHEMA_VERSION,
        "kind": "comparison",
        "sides": [
            {"name": name, "study": report["study"], "size": report["size"]}
            for name, report in zip(inputs.names, inputs.reports, strict=True)
        ],
        "settings": [asdict(each) for each in settings_apart(inputs.reports)],
        "recipes": {"shared_rows": shared, "differences": [asdict(each) for each in recipes]},
        "rows": [_plain_row(row) for row in rows],
    }
    return json.dumps(plain(data), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain_row(row: ComparedRow) -> dict[str, Any]:
    table, name, column = row.key
    bare = [side and replace(side, runs=frozenset()) for side in row.sides]
    sides = [side and {k: v for k, v in asdict(side).items() if k != "runs"} for side in bare]
    return {
        "table": table,
        "row": name,
        "column": column,
        "sides": sides,
        "differences": [asdict(each) for each in row.differences],
    }


def _csv(inputs: CompareInput, rows: Sequence[ComparedRow]) -> str:
    """One line per row and side; the first side's lines have no difference."""
    fields = ("mean", "sd", "n", "versus", "estimate", "low", "high", "df", "verdict")
    further = ("estimate", "low", "high", "df", "p", "p_holm", "answer", "why")
    head = ["table", "row", "column", "side", *fields, *(f"difference_{name}" for name in further)]
    lines = []
    for row in rows:
        for place, (name, side) in enumerate(zip(inputs.names, row.sides, strict=True)):
            apart = row.differences[place - 1] if place else None
            values = [*row.key, name, *(getattr(side, f, None) for f in fields)]
            values += [getattr(apart, f, None) for f in further]
            lines.append(values)
    return csv_text(head, lines)


# Which reports are compared: their report.json, checked, and what they are called.


KINDS: Mapping[str, type | tuple[type, ...]] = {
    "study": str,
    "title": str,
    "size": str,
    "findings": dict,
    "arms": dict,
    "runs": list,
    "provenance": dict,
}  # of report.json: what a comparison reads
SCHEMAS = (1, 2)  # of report.json; 1: of before floors were measured


def read_report(folder: Path) -> dict[str, Any]:
    """report.json of a folder.

    Raises:
        StudyError: it is not there, is damaged, or is not that of a report of this schema.
    """
    path = folder / "report.json"
    try:
        report = parsed(path.read_bytes())
    except FileNotFoundError:
        raise StudyError([Problem(str(path), 0, "is not there; give the folder of a report")]) from None
    except (OSError, ValueError) as error:
        raise StudyError([Problem(str(path), 0, f"cannot be read: {reason(error)}")]) from None
    if not isinstance(report, dict) or report.get("kind") == "comparison":
        raise StudyError([Problem(str(path), 0, "is not the report of a study")])
    if report.get("schema") not in SCHEMAS:
        text = f"is of schema {report.get('schema')}, this version reads {SCHEMAS[-1]}; write it again"
        raise StudyError([Problem(str(path), 0, text)])
    for key, kind in KINDS.items():
        if not isinstance(report.get(key), kind):
            raise StudyError([Problem(str(path), 0, f"is not a report: `{key}` is not there or damaged")])
    return report


def names_of(folders: Sequence[Path]) -> tuple[str, ...]:
    """The folders' names, with as many of their parents as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise StudyError([Problem(str(folders[0]), 0, "is given twice; name two different reports")])
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return tuple("/".join(part[-depth:]) for part in parts)


def refuse_different_metrics(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> None:
    """Raises StudyError where the sides do not measure the same thing."""
    try:
        metrics = [report["findings"]["settings"]["metric"] for report in reports]
    except (KeyError, TypeError):
        raise StudyError([Problem(" and ".join(names), 0, "one has no settings; write it again")]) from None
    if len(set(metrics)) > 1:
        said = ", ".join(f"{name}: {metric}" for name, metric in zip(names, metrics, strict=True))
        raise StudyError(
            [Problem(" and ".join(names), 0, f"measure different things ({said}); nothing to compare")]
        )
