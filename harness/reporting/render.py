"""Write a report in every format, in its order. The same input gives the same bytes in each."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from harness.analysis.findings import SpeedFinding, TableFinding
from harness.errors import Problem, StudyError, printable
from harness.reporting import document as doc
from harness.reporting.credit import belongs_to, credit_section, credit_table, order_note, section_names
from harness.reporting.figures.runs import draw_all, steps_key
from harness.reporting.figures.style import STYLE, Picture, fonts_for, text_of
from harness.reporting.frames import (
    ARCHIVE,
    claims_to_csv,
    credit_to_csv,
    csv_text,
    extra_files,
    packed,
    raw_files,
    speed_to_csv,
    to_csv,
    to_json,
)
from harness.reporting.html import to_html
from harness.reporting.latex import paper_to_latex, to_latex
from harness.reporting.markdown import details_to_markdown, to_markdown, to_short
from harness.reporting.pdf import text_in, to_pdf
from harness.reporting.report_input import ReportInput, RunCost, arm_costs, place_labels, places
from harness.reporting.sections.claims import (
    claims_method,
    claims_section,
    claims_table,
    speed_section,
    speed_table,
)
from harness.reporting.sections.method import competence_section, evidence, method, provenance
from harness.reporting.sections.opening import (
    amendments_section,
    answer,
    banner,
    expected,
    question,
    sentences,
    settling,
    shortfalls,
)
from harness.reporting.sections.paper import boards, is_scoreboard, paper_tables
from harness.reporting.sections.recipes import runs_section
from harness.reporting.sections.results import CLASS_COLUMNS, class_effects, classes_table
from harness.reporting.sections.tables import details_table, main_table, of_plan, values_table
from harness.study.plan import Plan

# The order of a report.


def outline(report: ReportInput, pictures: list[Picture]) -> doc.Document:
    """Put the whole report together, without a format: what a reader looks at, and what lies behind it."""
    sections = [answer(report, _boards(report, pictures)), *_results(report), claims_section(report)]
    details = [
        expected(report),
        claims_method(report),
        *_details(report, pictures),
        speed_section(report, _step_figures(report, pictures)),
        *_overview(report, pictures),
        competence_section(report),
        settling(report),
        shortfalls(report),
        amendments_section(report),
        evidence(report),
        method(report),
        _further(pictures),
        runs_section(report),
        provenance(report),
    ]
    return doc.Document(
        banner=banner(report),
        under_way=report.under_way is not None,
        title=report.title,
        question=question(report),
        scope="",
        sections=_readable(sections),
        details=_readable(details),
    )


def _readable(sections: Iterable[doc.Section | None]) -> tuple[doc.Section, ...]:
    return tuple(
        replace(section, blocks=tuple(map(doc.readable, section.blocks)))
        for section in sections
        if section is not None
    )


def _boards(report: ReportInput, pictures: list[Picture]) -> list[doc.Block]:
    """The figures of the scoreboard, each with what it shows."""
    drawn = [picture for picture in pictures if is_scoreboard(picture.key)]
    if not drawn:
        return []
    return [
        doc.FigureBlock(picture.key, picture.caption, picture.alt, board)
        for picture, board in zip(drawn, boards(report.findings), strict=True)
    ]


def _results(report: ReportInput) -> list[doc.Section]:
    """The tables as the paper prints them."""
    settings, records = report.findings.settings, report.records
    return [
        doc.Section(
            doc.table_name(table),
            tuple(paper_tables(table, settings, records)),
            more=(details_title(table),),
        )
        for table in report.findings.tables
    ]


def details_title(table: TableFinding) -> str:
    """The heading under which everything else of a table stands."""
    name = doc.short_name(table.key)
    return f"{name[:1].upper()}{name[1:]} in detail"


def _details(report: ReportInput, pictures: list[Picture]) -> list[doc.Section]:
    sections = []
    labels, costs = place_labels(report.plan), arm_costs(report.records)
    names = section_names(report.findings.tables)
    for place, table in enumerate(report.findings.tables):
        blocks: list[doc.Block] = [
            sentences(table, f"{doc.short_name(table.key)} in words"),
            of_plan(main_table(table, report.findings.settings, labels), report.plan),
        ]
        blocks += [_block(picture) for picture in pictures if picture.table == table.key]
        blocks += [note] if (note := order_note(table)) else []
        if details := details_table(table, report.findings.settings, costs):
            blocks += [of_plan(values_table(table, report.findings.settings), report.plan), details]
        blocks += [classes_table(report, place)] if report.by_class else []
        sections.append(doc.Section(details_title(table), tuple(blocks)))
        figures = [_block(picture) for picture in pictures if picture.table == belongs_to(table.key)]
        if credit := credit_section(table, report.findings.settings, figures, names.get(table.key, "")):
            sections.append(credit)
    return sections


def _step_figures(report: ReportInput, pictures: list[Picture]) -> dict[str, doc.FigureBlock]:
    keys = {steps_key(speed.table): speed.table for speed in report.findings.speed}
    return {keys[picture.key]: _block(picture) for picture in pictures if picture.key in keys}


def _overview(report: ReportInput, pictures: list[Picture]) -> list[doc.Section]:
    elsewhere = _step_figures(report, pictures).values()
    own = [picture for picture in pictures if picture.table is None and not picture.further]
    blocks: list[doc.Block] = [_block(picture) for picture in own if not is_scoreboard(picture.key)]
    blocks = [block for block in blocks if block not in elsewhere]
    if not blocks:
        return []
    if not report.findings.settings.comparable_to_paper and report.plan.header.get("paper"):
        blocks.insert(0, doc.Paragraph(_setting_differs(report)))
    return [doc.Section("What was run", tuple(blocks))]


def _further(pictures: list[Picture]) -> doc.Section | None:
    blocks = tuple(_block(picture) for picture in pictures if picture.further)
    return doc.Section("Further figures", blocks) if blocks else None


def _setting_differs(report: ReportInput) -> str:
    return (
        f"The setting differs from the paper's: {', '.join(places(report.plan))}. The values are therefore "
        "not comparable with the printed ones; only the sign and the order of the effects may be read "
        "side by side."
    )


def _block(picture: Picture) -> doc.FigureBlock:
    return doc.FigureBlock(picture.key, picture.caption, picture.alt)


# Write a report in every format. The same input gives the same bytes in each of them.


Made = TypeVar("Made")
OWN_FILES = ("report.md", "details.md", "report_short.md", "report.html", "report.pdf", "report.json")
OWN_FOLDERS = {  # what each holds; replaced as a whole, so that no file of an older report stays behind
    "tables": frozenset({".csv", ".tex"}),
    "figures": frozenset({".svg", ".png", ".csv"}),
    "data": frozenset({".zip", ".csv", ".json", ".jsonl", ".patch"}),
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """What was written, sorted, and a sentence for each file that could not be, or shows a replacement."""

    paths: list[Path]
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def render(report: ReportInput, out_dir: Path) -> Rendered:
    """Write report.{md,html,pdf,json}, details.md, report_short.md, tables/*, figures/* and data/records.zip.

    Everything is written to a draft folder beside `out_dir` first: an error leaves the old report whole. One
    format that fails stops no other; what an older report had in its place goes.

    Raises:
        StudyError: a folder in `out_dir` that a report would replace is not a report's, such as data sets.
    """
    refuse_foreign_folders(out_dir)
    draft = ReportDraft()
    pictures = draft.attempt("figures", lambda: draw_all(report)) or []
    shown = text_of(report.plan) + _texts(report, pictures, draft)
    _tables(report, draft)
    draft.files |= _figures(pictures)
    draft.files[ARCHIVE] = packed(report.raw or raw_files(*report.kept, extra_files(report.extra)))
    said = fonts_for(shown).sentence()
    return Rendered(write_files(draft.files, out_dir), tuple(draft.failures), (said,) if said else ())


def drawn_with(plan: Plan) -> list[str]:
    """What decides the bytes of figures and PDF: versions, style, and what they need of the fonts here."""
    fonts = fonts_for(text_of(plan))
    return [
        *(f"{name} {version(name)}" for name in ("matplotlib", "typst", "pikepdf")),
        f"style {STYLE}",
        *(f"font {family}" for family in fonts.families),
    ]


@dataclass(slots=True)
class ReportDraft:
    """The files of a report so far, and in words those that could not be made."""

    files: dict[str, bytes] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, path: str, make: Callable[[], str | bytes]) -> None:
        """Put what `make` returns at this path; a failure of it is noted."""
        made = self.attempt(path, make)
        if made is not None:
            self.files[path] = made.encode() if isinstance(made, str) else made

    def attempt(self, what: str, make: Callable[[], Made]) -> Made | None:
        """What `make` returns; None, and a note, where it fails, whatever it stumbles over."""
        try:
            return make()
        except Exception as error:
            lines = str(error).strip().splitlines()
            why = f"{type(error).__name__}: {lines[0] if lines else 'no reason was given'}"
            self.failures.append(printable(f"{what} cannot be made: {why}; the other formats are written"))
            return None


def write_files(files: Mapping[str, bytes], out_dir: Path) -> list[Path]:
    """Put the files of a report into its folder, all or none. Returns: their paths, sorted.

    What an older report had and these lack goes, so that no file of another report stands among them.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=out_dir) as name:
        draft = Path(name)
        for path, content in files.items():
            (draft / path).parent.mkdir(exist_ok=True)
            (draft / path).write_bytes(content)
        _replace(draft, out_dir)
    return sorted(out_dir / path for path in files)


def refuse_foreign_folders(out_dir: Path) -> None:
    """Raises StudyError where a folder that a report would replace is not a report's."""
    has_report = any((out_dir / f"report.{kind}").is_file() for kind in ("json", "md", "html", "pdf"))
    for name, suffixes in OWN_FOLDERS.items():
        folder = out_dir / name
        inside = list(folder.iterdir()) if folder.is_dir() else []
        own = has_report and all(path.is_file() and path.suffix in suffixes for path in inside)
        if inside and not own:
            message = "is there already and is no part of a report, which would replace it; say another --out"
            raise StudyError([Problem(str(folder), 0, message)])


def _texts(report: ReportInput, pictures: list[Picture], draft: ReportDraft) -> str:
    """Adds what is to be read as a whole. Returns: every text on its pages."""
    svgs = {picture.key: picture.svg for picture in pictures}
    document = draft.attempt("the text of the report", lambda: outline(report, pictures))
    if document is not None:
        add_document(document, svgs, draft)
    draft.add("report_short.md", lambda: to_short(report))
    draft.add("report.json", lambda: to_json(report))
    return "" if document is None else text_in(document)


def add_document(document: doc.Document, svgs: Mapping[str, bytes], draft: ReportDraft) -> None:
    """A document in its three formats."""
    draft.add("report.md", lambda: to_markdown(document))
    if document.details:
        draft.add("details.md", lambda: details_to_markdown(document))
    draft.add("report.html", lambda: to_html(document, dict(svgs)))
    draft.add("report.pdf", lambda: to_pdf(document, svgs))


def _tables(report: ReportInput, draft: ReportDraft) -> None:
    findings = report.findings
    of_one = partial(_of_table, report, draft, arm_costs(report.records))
    for place, table in enumerate(findings.tables):
        draft.attempt(f"a table of {table.key}", partial(of_one, table))
        if report.by_class:
            draft.add(f"tables/{table.key}_classes.csv", partial(_classes_csv, report, place))
    for speed in findings.speed:
        draft.add(f"tables/{speed.table}_steps.csv", partial(speed_to_csv, speed))
        draft.add(f"tables/{speed.table}_steps.tex", partial(_speed_to_latex, speed, report))
    if findings.claims:
        draft.add("tables/paper_claims.csv", lambda: claims_to_csv(findings.claims))
        draft.add("tables/paper_claims.tex", lambda: to_latex(claims_table(report)))


def _classes_csv(report: ReportInput, place: int) -> str:
    return csv_text(CLASS_COLUMNS, (each.values() for each in class_effects(report, place)))


def _speed_to_latex(speed: SpeedFinding, report: ReportInput) -> str:
    return to_latex(speed_table(speed, report))


def _of_table(
    report: ReportInput, draft: ReportDraft, costs: Mapping[str, RunCost], table: TableFinding
) -> None:
    settings, places = report.findings.settings, place_labels(report.plan)
    draft.add(f"tables/{table.key}.csv", lambda: to_csv(table))
    draft.add(f"tables/{table.key}.tex", lambda: _paper_latex(report, table))
    effects = of_plan(main_table(table, settings, places), report.plan)
    if effects.key != table.key:
        draft.add(f"tables/{effects.key}.tex", partial(_latex, effects))
    if details := details_table(table, settings, costs):
        for more in (of_plan(values_table(table, settings), report.plan), details):
            draft.add(f"tables/{more.key}.tex", partial(_latex, more))
    if (credit := table.credit) is not None and credit.credits:
        shown = credit_table(table.key, credit, settings)
        draft.add(f"tables/{shown.key}.csv", lambda: credit_to_csv(credit))
        draft.add(f"tables/{shown.key}.tex", lambda: to_latex(shown))


def _paper_latex(report: ReportInput, table: TableFinding) -> str:
    tables = paper_tables(table, report.findings.settings, report.records)
    return "\n".join(paper_to_latex(doc.first_rows(table)) for table in tables)


def _latex(table: doc.TextTable) -> str:
    return to_latex(doc.first_rows(table))


def _figures(pictures: list[Picture]) -> dict[str, bytes]:
    svgs = {f"figures/{picture.key}.svg": picture.svg for picture in pictures}
    data = {f"figures/{picture.key}.csv": picture.data.encode() for picture in pictures if picture.data}
    return svgs | data


def _replace(draft: Path, out_dir: Path) -> None:
    """Move the draft's files into place; folders that belong to the report are swapped whole."""
    for name in OWN_FILES:
        if not (draft / name).exists():
            (out_dir / name).unlink(missing_ok=True)
    for folder in OWN_FOLDERS:
        if (out_dir / folder).exists():
            shutil.rmtree(out_dir / folder)
        if (draft / folder).exists():
            (draft / folder).replace(out_dir / folder)
    for file in sorted(path for path in draft.iterdir() if path.is_file()):
        file.replace(out_dir / file.name)
