"""`harness table`: verdicts, intervals and a report from results that were not trained here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from harness import __version__
from harness.commands.report import drawn_with
from harness.errors import DONE, SOME_FAILED, Problem, StudyError, masked
from harness.results.columns import Asked
from harness.results.lines import ResultsFile, of_rows, open_results
from harness.results.table import FileResults, results_of
from harness.runs.records import read_map
from harness.study.declaration import ALPHA

VERDICT = 4  # place of the verdict in a row of a report's leading table
MOST_SHOWN = 60  # rows of a table on the terminal

if TYPE_CHECKING:
    from harness.analysis.findings import Settings
    from harness.reporting import ReportInput


def main(args: argparse.Namespace) -> int:
    from harness.commands.display import show_shortfalls
    from harness.reporting import render

    results = results_of(source_of(args.results), asked_of(args))
    out = args.out or Path("reports") / results.plan.study
    refuse_study(out)
    report = report_of(results)
    show(report)
    rendered = render(report, out)
    print(f"report: {out / 'report.md'} (.html, .pdf, .json; tables, figures and raw records beside)")
    show_shortfalls(rendered.failures, rendered.notes)
    return SOME_FAILED if rendered.failures else DONE


def source_of(results: str) -> ResultsFile:
    """The file that was named, or the experiment of MLflow: STORE#EXPERIMENT.

    Raises:
        StudyError: it is not there, or cannot be read.
    """
    if "://" not in results and not results.startswith("sqlite:"):
        return open_results(Path(results))
    from harness.tracking.collect import read_experiment

    uri, mark, name = results.rpartition("#")
    if not mark or not name:
        what = "names no experiment; say it after a #, such as sqlite:///mlflow.db#my_experiment"
        raise StudyError([Problem(masked(results), 0, what)])
    rows = read_experiment(uri, unquote(name))
    if not rows:
        raise StudyError([Problem(masked(results), 0, "has no runs")])
    return of_rows(rows, f"MLflow experiment {unquote(name)}", "MLflow")


def asked_of(args: argparse.Namespace) -> Asked:
    """What was said of the file on the command line."""
    if args.smallest_effect is not None and not args.smallest_effect > 0:
        raise StudyError([Problem("--smallest-effect", 0, f"must be above 0, got {args.smallest_effect:g}")])
    return Asked(
        rows=tuple(args.row or ()),
        seed=args.seed,
        metrics=tuple(args.metric or ()),
        versus=args.versus,
        table=args.table,
        column=args.column,
        paper=args.paper,
        unit=args.unit,
        lower_is_better=args.lower_is_better,
        smallest_effect=args.smallest_effect,
    )


def refuse_study(out: Path) -> None:
    """Raises StudyError where the folder has the report of a study, whose results would be lost."""
    header = read_map(out / "report.json").get("header")
    if isinstance(header, dict) and not header.get("results"):
        text = "has the report of a study, which this one would replace; say another --out"
        raise StudyError([Problem(str(out), 0, text)])


def report_of(results: FileResults) -> ReportInput:
    """The way of `harness report`, without a store."""
    import pandas as pd

    from harness.analysis import analyse
    from harness.reporting import ReportInput
    from harness.reporting.frames import raw_digest
    from harness.study.reserved import CURVE_COLUMNS

    plan = results.plan
    records = pd.DataFrame(dict(results.records))
    records["reason"] = records["error"]
    curves = pd.DataFrame({name: [] for name in CURVE_COLUMNS})
    software = {"harness": __version__, "drawn_with": drawn_with(plan)}
    return ReportInput(
        findings=analyse(plan, records, curves, settings_of(results)),
        plan=plan,
        records=records,
        curves=curves,
        provenance={**software, "records": raw_digest(records, curves, {})},
        title=str(plan.header["title"]),
    )


def settings_of(results: FileResults) -> Settings:
    """How the metric is read, and what would matter."""
    from harness.analysis.findings import Settings

    chosen = results.chosen
    return Settings(
        metric=results.metric,
        alpha=ALPHA,
        smallest_effect_pp=chosen.smallest_effect,
        percent=chosen.unit != "plain",
        lower_is_better=chosen.lower_is_better,
        seeds_shared=results.seeds_shared,
    )


def show(report: ReportInput) -> None:
    """The tables on the terminal, and what was understood of the file."""
    from rich.table import Table

    from harness.commands.progress import plain_console
    from harness.reporting.sections.tables import main_table

    console = plain_console()
    found = report.plan.header["results"]
    read = ", ".join(f"{name} = {column}" for name, column in found["columns"].items())
    print(f"{found['file']}: {found['lines']:,} lines; {read}; compared with {found['versus']}")
    for table in report.findings.tables:
        shown = main_table(table, report.findings.settings)
        grid = Table(title=shown.title, title_justify="left", box=None, pad_edge=False)
        for place, column in enumerate(shown.columns):
            grid.add_column(column.title, justify="left" if place in (0, VERDICT) else "right")
        for row in shown.rows[:MOST_SHOWN]:
            cells = [cell.text if place == VERDICT else cell.joined for place, cell in enumerate(row.cells)]
            grid.add_row(*(f"{row.group} / {cells[0]}" if row.group else cells[0], *cells[1:]))
        console.print(grid)
        if len(shown.rows) > MOST_SHOWN:
            print(f"and {len(shown.rows) - MOST_SHOWN:,} more rows, which the report has")
    for note in report.plan.notes:
        print(note)
