"""`harness table` and `harness audit`: what results that were not trained here show, or could."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gc
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from harness import __version__
from harness.analysis.precision import AssumedSd, Audit, AuditedRow, PrintedRow, PrintedTable, audit
from harness.errors import DONE, SOME_FAILED, Location, Problem, ProblemList, StudyError, masked, unknown
from harness.results.lines import Asked, ResultsFile, of_rows, of_series, open_results
from harness.results.table import FileResults, results_of
from harness.runs.records import read_quickly
from harness.study.declaration import ALPHA
from harness.study.yaml import read_source, read_text

if TYPE_CHECKING:
    from harness.analysis.findings import Settings
    from harness.reporting import ReportInput


VERDICT = 4  # place of the verdict in a row of a report's leading table
MOST_SHOWN = 60  # rows of a table on the terminal
TEXTS = ("run_id", "arm_id", "status", "error")  # columns of records


def main(args: argparse.Namespace) -> int:
    # Of 100,000 lines come a million objects that all stay: looking for garbage among them takes seconds.
    gc.disable()
    try:
        return _table(args)
    finally:
        gc.enable()


def _table(args: argparse.Namespace) -> int:
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


def source_of(named: Sequence[str]) -> ResultsFile:
    """The file that was named, the experiment of MLflow (STORE#EXPERIMENT), or one file a run.

    Raises:
        StudyError: it is not there, or cannot be read.
    """
    results = named[0]
    if len(named) > 1:
        return of_series([Path(name) for name in named])
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
        images=args.images,
        classes=args.classes,
    )


def refuse_study(out: Path) -> None:
    """Raises StudyError where the folder has the report of a study, whose results would be lost."""
    try:
        # Only one thing is asked of it: of 1,000 rows, looking through the whole takes half a second.
        report = json.loads(read_quickly(out / "report.json"))
    except (OSError, ValueError, RecursionError):
        return
    header = report.get("header") if isinstance(report, dict) else None
    if isinstance(header, dict) and not header.get("results"):
        text = "has the report of a study, which this one would replace; say another --out"
        raise StudyError([Problem(str(out), 0, text)])


def report_of(results: FileResults) -> ReportInput:
    """The way of `harness report`, without a store."""
    import pandas as pd

    from harness.analysis import analyse
    from harness.reporting import ReportInput
    from harness.reporting.frames import raw_digest, raw_files
    from harness.reporting.render import drawn_with
    from harness.study.reserved import CURVE_COLUMNS

    plan = results.plan
    # Texts as Python has them: pandas' own kind of text makes each of 100,000 anew whenever it is read.
    texts = {name: pd.Series(list(results.records[name]), dtype=object) for name in TEXTS}
    records = pd.DataFrame(dict(results.records) | texts)
    records["reason"] = records["error"]
    curves = pd.DataFrame({name: [] for name in CURVE_COLUMNS})
    software = {"harness": __version__, "drawn_with": drawn_with(plan)}
    raw = raw_files(records, curves, {})
    of_classes = records.drop(columns="predictions", errors="ignore")  # the bits are of all classes
    settings, classes = settings_of(results), plan.header["results"].get("classes", {})
    return ReportInput(
        findings=analyse(plan, records, curves, settings),
        by_class={
            name: analyse(plan, of_classes, curves, dataclasses.replace(settings, metric=column))
            for column, name in classes.items()
        },
        plan=plan,
        records=records,
        curves=curves,
        provenance={**software, "records": raw_digest(raw)},
        raw=raw,
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
    from harness.reporting.sections.tables import main_table, of_plan

    console = plain_console()
    found = report.plan.header["results"]
    read = ", ".join(f"{name} = {column}" for name, column in found["columns"].items())
    print(f"{found['file']}: {found['lines']:,} lines; {read}; compared with {found['versus']}")
    for table in report.findings.tables:
        shown = of_plan(main_table(table, report.findings.settings), report.plan)
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


# `harness audit`: read a published table and say what it could, and could not, have detected.


MINUS = "−"
MEMORY_MARK = "†"


def audit_tables(args: argparse.Namespace) -> int:
    tables = [read_printed_table(path) for path in args.tables]
    audits = [audit(table) for table in tables]
    if args.json:
        print(json.dumps([as_data(each) for each in audits], indent=1, ensure_ascii=False))
    else:
        print("\n".join(as_markdown(each) for each in audits), end="")
    return 0


def as_data(found: Audit) -> dict[str, object]:
    """Plain data; docs/json.md lists the keys."""
    table = found.table
    return {
        "title": table.title,
        "source": table.source,
        "metric": table.metric,
        "smallest_effect": table.smallest_effect,
        "assumed_sd": None if table.assume_sd is None else dataclasses.asdict(table.assume_sd),
        "seeds_for_smallest": found.seeds_for_smallest,
        "rows": [dataclasses.asdict(row) for row in found.rows],
    }


def as_markdown(found: Audit) -> str:
    """A section with the answer in a sentence, then the table."""
    table, reasons = found.table, {row.why for row in found.rows}
    common = reasons.pop() if len(reasons) == 1 else ""
    lines = [f"## {table.title}", ""]
    lines += (
        [f"Source: {table.source}. {table.metric[:1].upper()}{table.metric[1:]}.", ""] if table.source else []
    )
    lines += [_answer(found), ""]
    lines += [f"{table.note}", ""] if table.note else []
    lines += [
        "| row | over | improvement | 95 % interval | n | could detect | test images | verdict |",
        "|---|---|--:|--:|--:|--:|--:|---|",
        *(_line(row, common) for row in found.rows),
        "",
    ]
    lines += [f"In every row: {common}.", ""] if common else []
    if any(row.status == "memory" for row in found.rows):
        lines += [f"{MEMORY_MARK} a number behind it is from memory.", ""]
    return "\n".join(lines)


def _answer(found: Audit) -> str:
    table = found.table
    settled = sum(row.word in ("better", "worse", "no detectable difference") for row in found.rows)
    text = f"**{settled} of {len(found.rows)} comparisons are settled by what is printed"
    if table.assume_sd is not None:
        assumed = table.assume_sd
        text += f", if seeds vary by {assumed.value:g} ({assumed.source})"
    text += ".**"
    smallest = [row.detectable for row in found.rows if row.detectable is not None]
    if smallest:
        text += f" The smallest effect that it could have found with 80 % power: {min(smallest):.2f}."
    if found.seeds_for_smallest is not None:
        text += f" An effect of {table.smallest_effect:g} needs {found.seeds_for_smallest} runs of each row."
    return text


def _line(row: AuditedRow, common: str) -> str:
    mark = MEMORY_MARK if row.status == "memory" else ""
    interval = "—" if row.low is None or row.high is None else f"[{_signed(row.low)}, {_signed(row.high)}]"
    detectable = "—" if row.detectable is None else f"{row.detectable:.2f}"
    images = "—" if row.images_width is None else f"± {row.images_width:.2f}"
    runs = str(row.runs) if row.runs == row.versus_runs else f"{row.runs} / {row.versus_runs}"
    word = row.word + (f" ({row.why})" if row.why and row.why != common else "")
    cells = [
        _cell(row.label),
        _cell(row.versus),
        _signed(row.improvement) + mark,
        interval,
        runs,
        detectable,
        images,
    ]
    return "| " + " | ".join([*cells, _cell(word)]) + " |"


def _signed(value: float) -> str:
    text = f"{value:+.2f}"
    return text.replace("-", MINUS) if float(text) else "0.00"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# A published table: values, what is said of their spread, how many runs are behind them. YAML with the keys
# of `KEYS` and rows of `ROW_KEYS`, or CSV with a header of `ROW_KEYS` and nothing else.


SPREADS = ("sd", "se", "ci95", "unknown")  # what the number after a plus-minus sign may be
PREVIOUS = "previous"
KEYS = (
    "title", "source", "metric", "better", "test_images", "runs", "spread", "assume_sd", "smallest_effect",
    "versus", "note", "rows",
)  # fmt: skip
ROW_KEYS = ("label", "value", "plus_minus", "runs", "spread", "versus", "status")
BETTER = ("higher", "lower")
LARGEST = 1e60  # of any number: beyond it, squares of variances overflow


def read_printed_table(path: Path) -> PrintedTable:
    """
    Raises:
        StudyError: every mistake in the file, with its line.
    """
    if path.suffix == ".csv":
        return _from_csv(path)
    problems: list[Problem] = []
    source = read_source(path, problems)
    if problems:
        raise StudyError(problems)
    found = source.problem_list()
    table = _Reader(found).table(source.data, path)
    found.raise_if_any()
    assert table is not None
    return table


def _from_csv(path: Path) -> PrintedTable:
    reader = csv.DictReader(read_text(path).splitlines())
    rows = [{key: text for key, text in row.items() if text not in (None, "")} for row in reader]
    found = ProblemList(str(path), lambda place: int(place[1]) + 2 if len(place) > 1 else 1)
    if None in (reader.fieldnames or ()) or any(None in row for row in rows):
        found.add((), "a line has more cells than the header")
    plain = [{key: _number_or_text(text) for key, text in row.items() if key is not None} for row in rows]
    table = _Reader(found).table({"title": path.stem.replace("_", " "), "rows": plain}, path)
    found.raise_if_any()
    assert table is not None
    return table


def _number_or_text(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class _Reader:
    """Plain data to a table; every mistake is noted, nothing is guessed."""

    def __init__(self, problems: ProblemList) -> None:
        self.problems = problems

    def table(self, data: Any, path: Path) -> PrintedTable | None:
        if not isinstance(data, dict) or not isinstance(data.get("rows"), list) or not data["rows"]:
            self.problems.add((), "a table for the audit needs `rows`, a list of at least one row")
            return None
        self.known((), data, KEYS, "key")
        self.choice(("better",), data, BETTER)
        self.choice(("spread",), data, SPREADS)
        for key in ("test_images", "runs"):
            self.number((key,), data, least=1, whole=True)
        self.number(("smallest_effect",), data, above=0)
        rows = [self.row(("rows", index), row, data) for index, row in enumerate(data["rows"])]
        assumed = self.assumed(data)
        if len(self.problems):
            return None
        linked = self.linked([row for row in rows if row is not None], data)
        return PrintedTable(
            title=str(data.get("title", path.stem)),
            rows=linked,
            source=str(data.get("source", "")),
            metric=str(data.get("metric", "top-1 accuracy, percent")),
            better=data.get("better", "higher"),
            test_images=data.get("test_images"),
            assume_sd=assumed,
            smallest_effect=data.get("smallest_effect"),
            note=str(data.get("note", "")),
        )

    def row(self, place: Location, row: Any, table: Mapping[str, Any]) -> PrintedRow | None:
        if not isinstance(row, dict) or "label" not in row or "value" not in row:
            self.problems.add(place, "a row needs `label` and `value`")
            return None
        self.known(place, row, ROW_KEYS, "key of a row")
        self.choice((*place, "spread"), row, SPREADS)
        self.choice((*place, "status"), row, ("verified", "memory"))
        self.number((*place, "value"), row)
        self.number((*place, "plus_minus"), row, least=0)
        self.number((*place, "runs"), row, least=1, whole=True)
        given = {key: row.get(key, table.get(key)) for key in ("runs", "spread")}
        return PrintedRow(
            label=str(row["label"]),
            value=row["value"],
            plus_minus=row.get("plus_minus"),
            runs=given["runs"],
            spread=given["spread"] or "unknown",
            versus=None if row.get("versus") is None else str(row["versus"]),
            status=row.get("status", "verified"),
        )

    def linked(self, rows: list[PrintedRow], table: Mapping[str, Any]) -> tuple[PrintedRow, ...]:
        """The rows with what each is compared with; labels are checked."""

        labels = [row.label for row in rows]
        default = table.get("versus", PREVIOUS)
        for index, label in enumerate(labels):
            if label in labels[:index]:
                self.problems.add(("rows", index), f"two rows are labelled '{label}'")
        out = []
        for index, row in enumerate(rows):
            versus = row.versus if row.versus is not None else str(default)
            if versus == PREVIOUS:
                versus = labels[index - 1] if index else ""
            if versus in ("none", "", row.label):
                out.append(dataclasses.replace(row, versus=None))
                continue
            if versus not in labels:
                place: Location = ("rows", index) if row.versus is not None else ("versus",)
                self.problems.add(place, unknown("row", versus, [*labels, PREVIOUS, "none"]))
            out.append(dataclasses.replace(row, versus=versus))
        return tuple(out)

    def assumed(self, table: Mapping[str, Any]) -> AssumedSd | None:
        given = table.get("assume_sd")
        if given is None:
            return None
        place = ("assume_sd",)
        if not isinstance(given, dict) or set(given) != {"value", "runs", "source"}:
            text = "assume_sd needs `value` (sd over seeds), `runs` (it was estimated from) and `source`"
            self.problems.add(place, text)
            return None
        self.number((*place, "value"), given, above=0)
        self.number((*place, "runs"), given, least=2, whole=True)
        return AssumedSd(value=given["value"], runs=given["runs"], source=str(given["source"]))

    def known(self, place: Location, data: Mapping[str, Any], valid: tuple[str, ...], what: str) -> None:
        for key in data:
            if key not in valid:
                self.problems.add((*place, key), unknown(what, str(key), valid))

    def choice(self, place: Location, data: Mapping[str, Any], valid: tuple[str, ...]) -> None:
        value = data.get(str(place[-1]))
        if value is not None and value not in valid:
            self.problems.add(place, unknown(str(place[-1]), str(value), valid))

    def number(
        self, place: Location, data: Mapping[str, Any], *, least: float | None = None,
        above: float | None = None, whole: bool = False,
    ) -> None:  # fmt: skip
        value, name = data.get(str(place[-1])), place[-1]
        if value is None and name != "value":
            return
        kind = int if whole else (int, float)
        if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value):
            self.problems.add(place, f"{name} must be a {'whole ' if whole else ''}number, got {value!r}")
        elif abs(value) > LARGEST:
            self.problems.add(place, f"{name} is {value:.3g}: too large for a result")
        elif least is not None and value < least:
            self.problems.add(place, f"{name} must be at least {least:g}, got {value:g}")
        elif above is not None and value <= above:
            self.problems.add(place, f"{name} must be greater than {above:g}, got {value:g}")
