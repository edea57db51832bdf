"""Results for Python and notebooks: `harness.load(...)`, `harness.open_report(...)`, `harness.compare(...)`.

It goes the way of the commands `plan` and `report` and says the same in case of a mistake. Nothing here
trains; nothing is written but by `Results.report` and `Study.results(sync=True)`.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.workspace import Workspace, load_plan, mirror, workspace
from harness.errors import Problem, StudyError, unknown
from harness.spec import ENDED
from harness.study.plan import Plan
from harness.study.yaml import study_file

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.analysis.findings import Findings, TableFinding
    from harness.reporting import ReportInput
    from harness.reporting.document import TextTable
    from harness.reporting.figures.style import Picture


# Findings, frames and figures of one study for Python and notebooks; `harness.api` makes them.
#
# It reads what it was made from, and nothing else; only `Results.report` writes.


class Results:
    """Findings, frames and figures of a study. In a notebook it shows its tables."""

    def __init__(self, report: ReportInput) -> None:
        self._report = report

    @property
    def findings(self) -> Findings:
        """Every number with its n, typed (`harness.analysis.findings`)."""
        return self._report.findings

    @property
    def plan(self) -> Plan:
        """The plan that the results belong to."""
        return self._report.plan

    @property
    def runs(self) -> DataFrame:
        """One row per run: run_id, arm_id, seed, status, top1 and top5 (percent), loss, times (s), ..."""
        return self._report.records.copy()

    @property
    def curves(self) -> DataFrame:
        """One row per point of a curve: run_id, arm_id, seed, epoch, step, val_top1 (percent), ..."""
        return self._report.curves.copy()

    @property
    def tables(self) -> dict[str, str]:
        """Key -> title of every table."""
        return {table.key: table.title for table in self.findings.tables}

    @property
    def claims(self) -> DataFrame:
        """One row per claim of the paper, with its answer."""
        from harness.reporting.frames import claims_frame

        return claims_frame(self.findings.claims)

    def table(self, key: str) -> DataFrame:
        """One row per cell: n, mean, sd, effect with interval, Holm-adjusted p, verdict, the paper's numbers.

        Raises:
            StudyError: there is no such table.
        """
        from harness.reporting.frames import cells_frame

        return cells_frame(self._table(key), self.findings.settings.metric)

    def seeds(self, key: str) -> DataFrame:
        """One row per cell and seed: the metric, and its difference from the row it is compared with.

        Raises:
            StudyError: there is no such table.
        """
        from harness.reporting.frames import seeds_frame

        return seeds_frame(self._table(key), self.findings.settings.metric)

    def figure(self, key: str) -> Picture:
        """A figure with its caption, alt text, and `svg` and `png` as bytes; a notebook shows it.

        key: that of a table for its effects, or of any figure, as in the folder figures/ of a report.

        Raises:
            StudyError: there is no such figure.
        """
        from harness.reporting.figures.runs import draw_table

        owner = next((table for table in self.findings.tables if f"{key}_".startswith(f"{table.key}_")), None)
        few = [] if owner is None else draw_table(self._report, owner)
        for picture in few:
            if picture.key in (key, f"{key}_effects"):
                return picture
        found = {picture.key: picture for picture in self._pictures}
        return found[_known("figure", key, found)]

    def report(self, out_dir: str | Path) -> Path:
        """Write the report in every format, as `harness report --out` does; returns the Markdown file.

        A format that cannot be written is a warning.

        Raises:
            StudyError: a folder in `out_dir` that a report would replace is not a report's.
        """
        from harness.reporting import render

        for text in (rendered := render(self._report, Path(out_dir))).failures + rendered.notes:
            warnings.warn(text, stacklevel=2)
        return Path(out_dir) / "report.md"

    @cached_property
    def _pictures(self) -> list[Picture]:
        from harness.reporting.figures.runs import draw_all

        return draw_all(self._report)

    def _table(self, key: str) -> TableFinding:
        found = {table.key: table for table in self.findings.tables}
        return found[_known("table", key, found)]

    def __repr__(self) -> str:
        found = self.findings
        return (
            f"<results of {found.study}, size {found.size}: {len(self._report.records)} runs, {self.tables}>"
        )

    def _repr_html_(self) -> str:
        from harness.reporting.report_input import place_labels
        from harness.reporting.sections.tables import main_table, of_plan

        labels = place_labels(self.plan)
        shown = [
            of_plan(main_table(table, self.findings.settings, labels), self.plan)
            for table in self.findings.tables
        ]
        heads = [f"<h4>{escape(table.title)}</h4>" for table in self.findings.tables]
        return "".join(head + _html(table) for head, table in zip(heads, shown, strict=True))


def _html(table: TextTable) -> str:
    head = "".join(f'<th scope="col">{escape(column.title)}</th>' for column in table.columns)
    rows = []
    for row in table.rows:
        first, *rest = (escape(cell.joined) for cell in row.cells)
        cells = "".join(f"<td>{text}</td>" for text in rest)
        rows.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    below = f"<ul>{notes}</ul>" if notes else ""
    return f"<table><caption>{escape(table.caption)}</caption>{body}</table>{below}"


def _known(kind: str, key: str, valid: Mapping[str, Any]) -> str:
    if key not in valid:
        raise StudyError([Problem("harness", 0, unknown(kind, key, valid))])
    return key


def load(
    study: str | Path,
    *,
    size: str = "",
    seeds: int | str | None = None,
    runs: str | Path | None = None,
    data: str | Path | None = None,
    tracking_uri: str | None = None,
) -> Study:
    """A study file at one size, with the places of its runs as on the command line.

    Args:
        size: one of the study's; "": `mini` where it has that, else its first.
        seeds: seeds per arm, such as 5, or "3..10" for an adaptive number; None: as the study says.
        runs: the run folders; None: $HARNESS_RUNS, or `runs` in the current folder.
        data: the data sets; None: $HARNESS_DATA, or `data` in the current folder.
        tracking_uri: the MLflow store; None: $MLFLOW_TRACKING_URI, or a SQLite file beside the run folders.
    Raises:
        StudyError: every mistake in the study.
    """
    found = Study(
        file=study_file(Path(study)),
        size=size,
        looks=_looks(seeds),
        place=_place(runs, data, tracking_uri, study_file(Path(study))),
    )
    return replace(found, size=found.plan().size)


def open_report(folder: str | Path, *, study: str | Path | None = None) -> Results:
    """The results in a report's folder, computed again from the raw records in it; no run folder is needed.

    Args:
        folder: such as `reports/mixup`; it keeps its records under data/.
        study: its study file; None: `studies/NAME.yaml` in this folder or in one that holds the report.
    Raises:
        StudyError: it is no report, its study is not found, or its records are missing or damaged.
    """
    from harness.commands.report import report_input
    from harness.commands.verify import checked_extra, plan_of, read_report
    from harness.reporting.frames import read_extra, read_raw

    place, folder = _place(None, None, None), Path(folder)
    report = read_report(folder)
    file = Path(study) if study is not None else _study_of(folder, str(report["study"]))
    plan = plan_of(report, Namespace(study=file), place, folder)
    records, curves = read_raw(folder)
    software = {key: report["provenance"].get(key) for key in ("harness", "drawn_with", "inputs")}
    extra = checked_extra(folder, read_extra(folder))
    return Results(report_input(plan, records, curves, software, extra))


def compare(
    frame: DataFrame, *, row: str | Sequence[str] = (), metric: str | Sequence[str] = (), **said: Any
) -> Results:
    """Verdicts and intervals from results that you have: `harness table` in Python.

    Args:
        frame: one row per run; columns for the row's label, the metric, and usually the seed.
        row, metric: names of columns; several of `row` are combined, verdicts are about the first `metric`.
        said: `seed`, `table`, `column`, `paper`, `images` (names of columns), `classes` (what the names of
            columns begin with), `versus` (a row, or "previous"), `unit` ("percent", "fraction" or "plain"),
            `lower_is_better`, `smallest_effect`. Columns that are not said are found by name.
    Raises:
        StudyError: what is wrong, with the number of the row (from 1) and the column.
    """
    from harness.commands.table import report_of
    from harness.results.lines import Asked, of_frame
    from harness.results.table import results_of

    if wrong := [
        name for name in said if name not in Asked.__dataclass_fields__ or name in ("rows", "metrics")
    ]:
        more = [name for name in Asked.__dataclass_fields__ if name not in ("rows", "metrics")]
        valid = ("row", "metric", *more)
        raise StudyError([Problem("harness.compare", 0, unknown("argument", wrong[0], valid))])
    rows, metrics = ((given,) if isinstance(given, str) else tuple(given) for given in (row, metric))
    return Results(report_of(results_of(of_frame(frame), Asked(rows=rows, metrics=metrics, **said))))


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study file at one size."""

    file: Path
    size: str
    looks: tuple[int, ...] | None  # asked for in place of the study's own
    place: Workspace

    def __repr__(self) -> str:
        plan = self.plan()
        done = sum(run.done for run in plan.runs)
        return f"<study {plan.study}, size {plan.size}: {done} of {len(plan.runs)} runs are done>"

    def plan(self) -> Plan:
        """The plan as it stands now, with what is done marked. Reads only.

        Raises:
            StudyError: every mistake in the study.
        """
        return load_plan(
            Namespace(study=self.file, size=self.size, seeds=self.looks, smoke=False), self.place
        )

    def results(self, *, sync: bool = False) -> Results:
        """What the mirrored runs show, as `harness report` would say it.

        Reads the tracking store only, and warns where run folders have ended that are not in it yet.

        Args:
            sync: mirror the run folders into the store and measure floors first, as `harness report` does.
        Raises:
            StudyError: a mistake in the study, or the store is not there or cannot be read.
        """
        from harness.commands.floors import measure_floors
        from harness.commands.report import collected_input

        plan = self.plan()
        store = self.place.store()
        if sync:
            mirror(plan, store).sync([self.place.folder(run.run_id) for run in plan.runs])
            measure_floors(plan, self.place)
        found = Results(collected_input(plan, self.place))
        ended = set(found.runs.loc[found.runs["status"].isin(ENDED), "run_id"])
        behind = sum(run.done and run.run_id not in ended for run in plan.runs)
        if behind:
            mend = "; a log line says why" if sync else "; results(sync=True) reads them too"
            text = f"{behind} runs that have ended are not in the tracking store{mend}"
            warnings.warn(text, stacklevel=2)
        return found


def _looks(seeds: int | str | None) -> tuple[int, ...] | None:
    from harness.study.plan import parse_seeds

    try:
        return None if seeds is None else parse_seeds(str(seeds))
    except ValueError as error:
        raise StudyError([Problem("seeds", 0, str(error))]) from None


def _place(
    runs: str | Path | None, data: str | Path | None, tracking_uri: str | None, study: Path | None = None
) -> Workspace:
    def path(given: str | Path | None) -> Path | None:
        return None if given is None else Path(given)

    return workspace(Namespace(runs=path(runs), data=path(data), tracking_uri=tracking_uri, study=study))


def _study_of(folder: Path, name: str) -> Path:
    """The study's file in the current folder, in the nearest one above the report, or one that ships."""
    places = [Path.cwd(), *folder.resolve().parents]
    files = [place / "studies" / f"{name}.yaml" for place in places]
    return next((file for file in files if file.is_file()), study_file(Path(f"{name}.yaml")))
