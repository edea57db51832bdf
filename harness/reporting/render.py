"""Write a report in every format. The same input gives the same bytes in each of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness.reporting.cells import Table
from harness.reporting.costs import arm_costs
from harness.reporting.credit_csv import credit_to_csv
from harness.reporting.csv_tables import claims_to_csv, speed_to_csv, to_csv
from harness.reporting.figures.gallery import Picture, draw_all
from harness.reporting.html import to_html
from harness.reporting.inputs import ReportInput
from harness.reporting.json_report import to_json
from harness.reporting.latex import to_latex
from harness.reporting.markdown import to_markdown
from harness.reporting.outline import outline
from harness.reporting.pdf import to_pdf
from harness.reporting.places import place_labels
from harness.reporting.raw import extra_files, raw_files
from harness.reporting.sections.claims import claims_table
from harness.reporting.sections.credit import credit_table
from harness.reporting.sections.details import details_table
from harness.reporting.sections.results import main_table
from harness.reporting.sections.speed import speed_table
from harness.reporting.sections.values import values_table
from harness.reporting.short import to_short
from harness.study.problems import Problem, StudyError

OWN_FOLDERS = {  # what each holds; replaced as a whole, so that no file of an older report stays behind
    "tables": frozenset({".csv", ".tex"}),
    "figures": frozenset({".svg", ".png", ".csv"}),
    "data": frozenset({".csv", ".json", ".jsonl", ".patch"}),
}


def render(report: ReportInput, out_dir: Path) -> list[Path]:
    """Write report.{md,html,pdf,json}, report_short.md, tables/*, figures/*, and the raw records (data/*).

    Returns: their paths, sorted.

    Everything is written to a draft folder beside `out_dir` first: an error leaves the old report whole.

    Raises:
        StudyError: a folder in `out_dir` that a report would replace is not a report's, such as data sets.
    """
    refuse_foreign_folders(out_dir)
    pictures = draw_all(report)
    files = {
        **_texts(report, pictures),
        **_tables(report),
        **_figures(pictures),
        **raw_files(report.records, report.curves, extra_files(report.extra)),
    }
    return write_files(files, out_dir)


def write_files(files: Mapping[str, bytes], out_dir: Path) -> list[Path]:
    """Put the files of a report into its folder, all or none. Returns: their paths, sorted."""
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


def _texts(report: ReportInput, pictures: list[Picture]) -> dict[str, bytes]:
    document = outline(report, pictures)
    svgs = {picture.key: picture.svg for picture in pictures}
    return {
        "report.md": to_markdown(document).encode(),
        "report_short.md": to_short(report).encode(),
        "report.html": to_html(document, svgs).encode(),
        "report.pdf": to_pdf(document, svgs),
        "report.json": to_json(report).encode(),
    }


def _tables(report: ReportInput) -> dict[str, bytes]:
    findings = report.findings
    files, places, costs = {}, place_labels(report.plan), arm_costs(report.records)
    for table in findings.tables:
        shown: Table = main_table(table, findings.settings, places)
        files[f"tables/{table.key}.csv"] = to_csv(table).encode()
        files[f"tables/{table.key}.tex"] = to_latex(shown).encode()
        if details := details_table(table, findings.settings, costs):
            for more in (values_table(table, findings.settings), details):
                files[f"tables/{more.key}.tex"] = to_latex(more).encode()
        if table.credit is not None and table.credit.credits:
            shown = credit_table(table.key, table.credit, findings.settings)
            files[f"tables/{shown.key}.csv"] = credit_to_csv(table.credit).encode()
            files[f"tables/{shown.key}.tex"] = to_latex(shown).encode()
    for speed in findings.speed:
        files[f"tables/{speed.table}_steps.csv"] = speed_to_csv(speed).encode()
        files[f"tables/{speed.table}_steps.tex"] = to_latex(speed_table(speed, report)).encode()
    if findings.claims:
        files["tables/paper_claims.csv"] = claims_to_csv(findings.claims).encode()
        files["tables/paper_claims.tex"] = to_latex(claims_table(findings)).encode()
    return files


def _figures(pictures: list[Picture]) -> dict[str, bytes]:
    svgs = {f"figures/{picture.key}.svg": picture.svg for picture in pictures}
    pngs = {f"figures/{picture.key}.png": picture.png for picture in pictures}
    data = {f"figures/{picture.key}.csv": picture.data.encode() for picture in pictures if picture.data}
    return svgs | pngs | data


def _replace(draft: Path, out_dir: Path) -> None:
    """Move the draft's files into place; folders that belong to the report are swapped whole."""
    for folder in OWN_FOLDERS:
        if (out_dir / folder).exists():
            shutil.rmtree(out_dir / folder)
        if (draft / folder).exists():
            (draft / folder).replace(out_dir / folder)
    for file in sorted(path for path in draft.iterdir() if path.is_file()):
        file.replace(out_dir / file.name)
