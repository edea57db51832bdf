"""The results of a study for Python and notebooks: `harness.load(...)` and `harness.open_report(...)`.

It goes the way of the commands `plan` and `report` and says the same in case of a mistake. Nothing here
trains; nothing is written but by `Results.report` and `Study.results(sync=True)`.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from harness.commands.workspace import Workspace, load_plan, mirror, workspace
from harness.results import Results
from harness.study.plan import Plan
from harness.study.problems import Problem, StudyError
from harness.study.records import ENDED


def load(
    study: str | Path,
    *,
    size: str = "mini",
    seeds: int | str | None = None,
    runs: str | Path | None = None,
    data: str | Path | None = None,
    tracking_uri: str | None = None,
) -> Study:
    """A study file at one size, with the places of its runs as on the command line.

    Args:
        seeds: seeds per arm, such as 5, or "3..10" for an adaptive number; None: as the study says.
        runs: the run folders; None: $HARNESS_RUNS, or `runs` in the current folder.
        data: the data sets; None: $HARNESS_DATA, or `data` in the current folder.
        tracking_uri: the MLflow store; None: $MLFLOW_TRACKING_URI, or a SQLite file beside the run folders.
    Raises:
        StudyError: every mistake in the study.
    """
    found = Study(
        file=Path(study),
        size=size,
        looks=_looks(seeds),
        place=_place(runs, data, tracking_uri),
    )
    found.plan()
    return found


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
    from harness.reporting.raw import read_extra, read_raw

    place, folder = _place(None, None, None), Path(folder)
    report = read_report(folder)
    file = Path(study) if study is not None else _study_of(folder, str(report["study"]))
    plan = plan_of(report, Namespace(study=file), place, folder)
    records, curves = read_raw(folder)
    software = {key: report["provenance"].get(key) for key in ("harness", "drawn_with", "inputs")}
    extra = checked_extra(folder, read_extra(folder))
    return Results(report_input(plan, records, curves, software, extra))


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
            sync: mirror the run folders into the store first, as `harness report` and `harness sync` do.
        Raises:
            StudyError: a mistake in the study, or the store is not there or cannot be read.
        """
        from harness.commands.report import collected_input

        plan = self.plan()
        store = self.place.store()
        if sync:
            mirror(plan, store).sync([self.place.folder(run.run_id) for run in plan.runs])
        found = Results(collected_input(plan, self.place))
        ended = set(found.runs.loc[found.runs["status"].isin(ENDED), "run_id"])
        behind = sum(run.done and run.run_id not in ended for run in plan.runs)
        if behind:
            mend = "; a log line says why" if sync else "; results(sync=True) reads them too"
            text = f"{behind} runs that have ended are not in the tracking store{mend}"
            warnings.warn(text, stacklevel=2)
        return found


def _looks(seeds: int | str | None) -> tuple[int, ...] | None:
    from harness.study.seeds import parse_seeds

    try:
        return None if seeds is None else parse_seeds(str(seeds))
    except ValueError as error:
        raise StudyError([Problem("seeds", 0, str(error))]) from None


def _place(runs: str | Path | None, data: str | Path | None, tracking_uri: str | None) -> Workspace:
    def path(given: str | Path | None) -> Path | None:
        return None if given is None else Path(given)

    return workspace(Namespace(runs=path(runs), data=path(data), tracking_uri=tracking_uri))


def _study_of(folder: Path, name: str) -> Path:
    """The study's file in the current folder, or in the nearest one above the report that has it."""
    places = [Path.cwd(), *folder.resolve().parents]
    files = [place / "studies" / f"{name}.yaml" for place in places]
    return next((file for file in files if file.is_file()), Path("studies") / f"{name}.yaml")
