"""Where things are on this machine: run folders, the tracking store, reports, the user's data."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.catalogue import build_catalogue
from harness.commands.data_now import LOOK, QUICK, DataNow, look_at_records
from harness.commands.plugins import load_plugins
from harness.commands.step_times import estimate
from harness.data import look_at_data as look_at_one
from harness.data import missing_data as missing_of_one
from harness.data.entry import Look
from harness.study.blocks import as_it_stands
from harness.study.expand import ExpandOptions, expand
from harness.study.loader import load_study
from harness.study.plan import Plan
from harness.study.problems import Problem, StudyError
from harness.study.records import RunFolder

if TYPE_CHECKING:
    from harness.tracking.mirror import Mirror
    from harness.tracking.store import Store

MOST_NAMED = 10  # files that cannot be read, rows that cannot be trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The folders of one working place. Run folders are the truth; the rest can be made again from them."""

    runs_dir: Path
    data_dir: Path
    tracking_uri: str | None  # None: a SQLite file beside the run folders

    def folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs_dir / run_id)

    def store(self) -> Store:
        """The tracking store; imports MLflow when it is first used."""
        from harness.tracking.store import Store

        beside = self.runs_dir.parent
        uri = self.tracking_uri or f"sqlite:///{beside / 'mlflow.db'}"
        return Store(uri=uri, artifacts=beside / "mlartifacts")


def workspace(args: argparse.Namespace) -> Workspace:
    """Command line first, then the environment, then the current folder."""
    runs = args.runs or Path(os.environ.get("HARNESS_RUNS", "runs"))
    data = args.data or Path(os.environ.get("HARNESS_DATA", "data"))
    return Workspace(
        runs_dir=runs.resolve(),
        data_dir=data.resolve(),
        tracking_uri=args.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"),
    )


def load_plan(args: argparse.Namespace, place: Workspace, file: Path | None = None) -> Plan:
    """Read the study (`args.study`, or `file`), expand it at the wanted size, and mark what is already done.
    What the rest takes is said as far as runs that ended here, or an earlier measurement, tell.

    Until the next plan is loaded, this process knows the names of the study's plugins.

    Raises:
        StudyError: every mistake in the study.
    """
    return load_with_data(args, place, file, how=QUICK)[0]


def load_with_data(
    args: argparse.Namespace, place: Workspace, file: Path | None = None, *, how: str = LOOK
) -> tuple[Plan, DataNow]:
    """As `load_plan`, and which records saw other data than are there now; `how` to look at these."""
    plan = expand_plan(args, place, file)
    found = look_at_records(plan, place.runs_dir, place.data_dir, how)
    estimate(plan, place.data_dir, measure=False)
    return plan, found


def expand_plan(args: argparse.Namespace, place: Workspace, file: Path | None = None) -> Plan:
    """As `load_plan`, without a look at the run folders: an adaptive study as the last look at it left it."""
    return as_it_stands(first_plan(args, place, file), place.runs_dir)


def first_plan(args: argparse.Namespace, place: Workspace, file: Path | None = None) -> Plan:
    """The plan as the study says it, before any look at results."""
    file = file or args.study
    catalogue = build_catalogue(place.data_dir, load_plugins(file))
    study = load_study(file, catalogue)
    return expand(study, catalogue, ExpandOptions(size=args.size, seeds=args.seeds, smoke=args.smoke))


def look_at_data(plan: Plan, place: Workspace) -> Look:
    """What the plan's data sets lack on this machine, in words that say what to put where, and what is worth
    knowing about their files (left out, of a depth that needs a range).

    To be asked before another plan is loaded, because data sets may come from the study's plugins.
    """
    specs = {
        (arm.recipe.data.name, repr(arm.recipe.data.args)): arm.recipe.data for arm in plan.arms.values()
    }
    problems: list[str] = []
    notes: list[str] = []
    for spec in specs.values():
        missing = missing_of_one(spec.name, spec.args, place.data_dir)
        found = look_at_one(spec.name, spec.args, place.data_dir)
        problems += [missing] if missing else found.problems
        notes += found.notes
    return Look(problems=tuple(dict.fromkeys(problems)), notes=tuple(dict.fromkeys(notes)))


def require_data(args: argparse.Namespace, plan: Plan, place: Workspace) -> tuple[str, ...]:
    """Refuse to start when data are missing; returns what is worth knowing about them.

    Raises:
        StudyError: naming the line of the size and what to put where.
    """
    found = look_at_data(plan, place)
    if found.problems:
        raise StudyError(
            [Problem(str(args.study), plan.header.get("size_line", 0), text) for text in found.problems]
        )
    return found.notes


def require_none(args: argparse.Namespace, plan: Plan, wrong: Sequence[str]) -> None:
    """Refuse to start when something is wrong with what the runs would read or do.

    Raises:
        StudyError: the first sentences, at the line of the size's data.
    """
    if wrong:
        texts = list(wrong[:MOST_NAMED])
        if len(wrong) > MOST_NAMED:
            texts.append(f"and {len(wrong) - MOST_NAMED} more of this kind")
        line = plan.header.get("size_line", 0)
        raise StudyError([Problem(str(args.study), line, text) for text in texts])


def mirror(plan: Plan, store: Store) -> Mirror:
    """The mirror of this plan's runs in the store."""
    from harness.tracking.mirror import Mirror

    cells: dict[str, list[dict[str, str]]] = {arm_id: [] for arm_id in plan.arms}
    for table in plan.tables:
        for cell in table.cells:
            if cell.arm_id is not None:
                cells[cell.arm_id].append({"table": table.key, "row": cell.row, "column": cell.column or ""})
    return Mirror(store, study=plan.study, size=plan.size, cells=cells)


def report_folder(args: argparse.Namespace, plan: Plan) -> Path:
    """`reports/<study>` at the default size, with the size in the name at any other."""
    if args.out:
        return args.out
    suffix = "-smoke" if args.smoke else "" if plan.size == "mini" else f"-{plan.size}"
    return Path("reports") / f"{plan.study}{suffix}"
