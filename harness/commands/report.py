"""`harness report`: store -> frames -> verdicts -> report; several studies side by side, one under way."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness import __version__
from harness.commands.budget import short_of_seeds
from harness.commands.calibrate import newest
from harness.commands.data import DataNow, look_at_records, with_records
from harness.commands.display import duration, show_shortfalls
from harness.commands.floors import measure_floors, read_floors
from harness.commands.plan import history_of
from harness.commands.workspace import (
    Workspace,
    asked_part,
    load_plan,
    mirror,
    project_folder,
    refuse_parts_of_several,
    report_folder,
    workspace,
)
from harness.errors import DONE, SOME_FAILED, Problem, StudyError, counted
from harness.runs.folder import RunFolder
from harness.runs.provenance import OTHER_DATA, kept_changes
from harness.runs.records import read_map
from harness.scheduling.base import Progress
from harness.spec import ENDED, PER_CLASS, canonical_json
from harness.study.declaration import ALPHA, exploratory
from harness.study.part import PartNames, PlanPart, part_of
from harness.study.plan import Plan, plan_to_json
from harness.study.schema import ALL

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.analysis.findings import Settings
    from harness.reporting import ReportInput


# `harness report`: tracking store -> frames -> verdicts -> report. Runs are read through MLflow.


FORMATS = ("report.md", "report_short.md", "report.html", "report.pdf")  # which one failure may leave out


def main(args: argparse.Namespace) -> int:
    if len(args.study) > 1:
        refuse_parts_of_several(args)
        return compare(args)
    (args.study,) = args.study
    place = workspace(args)
    plan = load_plan(args, place)
    part = asked_part(args, plan)
    _mirror_what_is_new(plan, place)
    measure_floors(part.plan if part else plan, place)
    if args.short:
        from harness.reporting.markdown import to_short

        print(to_short(collected_input(plan, place, part)), end="")
        return DONE
    return write_report(args, plan, place, part)


def _mirror_what_is_new(plan: Plan, place: Workspace) -> None:
    """Before a report is read from the store. One that can be read only is read as it is."""
    from harness.tracking.store import ReadOnlyStore

    store = place.store()
    try:
        mirror(plan, store).sync([place.folder(run.run_id) for run in plan.runs])
    except ReadOnlyStore as error:
        if not store.exists():
            raise
        print(f"{error}; the report shows what was mirrored before", file=sys.stderr)


def write_report(args: argparse.Namespace, plan: Plan, place: Workspace, part: PlanPart | None = None) -> int:
    """Write every format into the report's folder and say so. Returns: the exit code."""
    from harness.reporting import render

    found = collected_input(plan, place, part)
    out_dir, why = _where_nothing_is_lost(args, found, place)
    if why:
        print(why, file=sys.stderr)
    rendered = render(found, out_dir)
    print(f"report: {out_dir / 'report.md'} (.html, .pdf, .json; tables, figures and raw records beside)")
    show_shortfalls(rendered.failures, rendered.notes)
    return SOME_FAILED if rendered.failures else DONE


BESIDE = "-here"  # after the name of a report's folder, where that keeps what is nowhere else


def _where_nothing_is_lost(
    args: argparse.Namespace, found: ReportInput, place: Workspace
) -> tuple[Path, str]:
    """The folder for a report, and what is to be said of it.

    A report may be all that is left of its runs, as those that come with the code. Where it has runs of these
    arms that are not here, this one is written beside it, unless `--out` names a folder.
    """
    folder, beside = report_folders(args, found.plan)
    records = found.records[found.records["status"].isin(ENDED)]
    here = dict(zip(records["run_id"], records["started_s"], strict=True)) if len(records) else {}
    there = _ended_runs(folder, {run.arm_id for run in found.plan.runs})
    only = [run_id for run_id in there if run_id not in here and not _was_here(place.folder(run_id))]
    if args.out is None and only:
        says = f"has {counted(len(only), 'run')} of which nothing is here, so it stays as it is"
        return beside, f"{folder} {says}; this report is written beside it (--out {folder} would replace it)"
    again = sum(run_id in here and here[run_id] != began_s for run_id, began_s in there.items())
    says = f"{folder} was computed from other trainings of {counted(again, 'run')}; it is replaced"
    return folder, says if again else ""


def _ended_runs(folder: Path, arms: Collection[str]) -> dict[str, float | None]:
    """run_id -> when it began, for the runs of these arms that a report lists; empty where there is none."""
    listed = read_map(folder / "report.json").get("runs")
    runs = [run for run in listed if isinstance(run, dict)] if isinstance(listed, list) else []
    ended = [run for run in runs if run.get("status") in ENDED and run.get("arm_id") in arms]
    return {str(run.get("run_id")): run.get("started_s") for run in ended}


def _was_here(folder: RunFolder) -> bool:
    """Whether a run has left something in its folder, be it on other data."""
    return folder.summary.exists() or (folder.path / OTHER_DATA).exists()


def report_folders(args: argparse.Namespace, plan: Plan) -> tuple[Path, Path]:
    """Where the report of a study may be: in its folder, or in the one beside it."""
    folder = report_folder(args, plan)
    return folder, folder.with_name(folder.name + BESIDE)


def written(args: argparse.Namespace, plan: Plan) -> Path:
    """The one of these folders in which a report was written last."""
    folders = report_folders(args, plan)
    found = [path for folder in folders if (path := folder / "report.json").exists()]
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent if found else folders[0]


def collected_input(
    plan: Plan, place: Workspace, part: PlanPart | None = None, under_way: str = ""
) -> ReportInput:
    """What a report of the mirrored runs is written from, or one of a part. Reads the tracking store, writes
    nothing. under_way: what is still to come, in words, where runs are being trained."""
    from harness.reporting.render import drawn_with
    from harness.tracking.collect import collect

    records, curves = collect(place.store(), study=plan.study, size=plan.size)
    records, curves = _planned(plan, records), _planned(plan, curves)
    out = _left_out(plan, place, records)
    if out is not None:
        others = [run["run_id"] for run in out["runs"]]
        records = records[~records["run_id"].isin(others)].reset_index(drop=True)
        curves = curves[~curves["run_id"].isin(others)].reset_index(drop=True)
    records["reason"] = records["error"]  # why a run failed, in the words of the analysis
    software = {"harness": __version__, "drawn_with": drawn_with(plan), "inputs": inputs_digest(plan, place)}
    extra = {**extra_inputs(plan, place), "left_out": out, "changes": _changes(records, place)}
    extra["part"] = part_json(part)
    extra["under_way"] = {"schema": 1, "says": under_way} if under_way else None
    return report_input(plan, records, curves, software, extra)


def _planned(plan: Plan, frame: DataFrame) -> DataFrame:
    """The rows of the plan's runs."""
    wanted = {run.run_id for run in plan.runs}
    return frame[frame["run_id"].isin(wanted)].reset_index(drop=True)


def _left_out(plan: Plan, place: Workspace, records: DataFrame) -> dict[str, Any] | None:
    """Of the mirrored runs those that saw other data than are there now, or than the run that ended last."""
    ended = [row for row in records.to_dict("records") if row["status"] in ENDED]
    if not ended:
        return None
    here = look_at_records(plan, place.runs_dir, place.data_dir)
    summaries = {**here.summaries, **here.others}
    seen = {row["run_id"]: {**summaries.get(row["run_id"], {}), **_about_data(row)} for row in ended}
    return left_out(plan, place, with_records(plan, seen, place.data_dir, here))


def _about_data(row: Mapping[Any, Any]) -> dict[str, Any]:
    """What the mirror says; a run whose folder is not here has nothing else."""
    return {name: row.get(name) for name in ("data_fingerprint", "ended_s")}


def left_out(plan: Plan, place: Workspace, found: DataNow) -> dict[str, Any] | None:
    """What a report keeps of the runs that it leaves out, and what its first line says; None: none."""
    if not found.why:
        return None
    runs = {run.run_id: run for run in plan.runs}
    size = "" if plan.size in ("mini", ALL) else f" --size {plan.size}"
    command = f"`harness run {plan.study}.yaml{size}` trains the rest."
    says = [f"Left out, because they saw other data: {text}." for text in found.says]
    return {
        "schema": 1,
        "says": [*says, command],
        "runs": [
            {
                "run_id": run_id,
                "arm": plan.arm_labels[runs[run_id].arm_id],
                "seed": runs[run_id].seed,
                "data_fingerprint": found.others[run_id].get("data_fingerprint"),
            }
            for run_id in sorted(found.why)
        ],
    }


def _changes(records: DataFrame, place: Workspace) -> dict[str, str] | None:
    """What the code of the runs had changed since its commit: digest -> patch; None where none was kept."""
    from harness.reporting.report_input import distinct, environments

    return kept_changes(place.runs_dir, distinct(environments(records).values(), "changes")) or None


def extra_inputs(plan: Plan, place: Workspace) -> dict[str, Mapping[str, Any] | None]:
    """What a report is written from beside plan and records, by field of `ReportInput`; None: not there."""
    return {
        "declaration": history_of(plan, place),
        "calibration": newest(plan, place),
        # What a command of the user's trains on is not known here.
        "floors": None if plan.scripts else read_floors(plan, place),
    }


def part_json(part: PlanPart | None) -> dict[str, Any] | None:
    """What a report keeps of the part that it is of, for `ReportInput.part`."""
    if part is None:
        return None
    plan = part.whole
    size = "" if plan.size in ("mini", ALL) else f" --size {plan.size}"
    says = (
        f"Part of the study: {part.says}. Its verdicts are those of the whole declared plan, of which"
        f" `harness run {plan.study}{size}` trains the rest."
    )
    return {"schema": 1, **part.names.to_json(), "says": says}


def _kept_part(plan: Plan, kept: Mapping[str, Any] | None) -> PlanPart | None:
    if not kept:
        return None
    tables, rows, columns = (tuple(kept[name]) for name in ("tables", "rows", "columns"))
    return part_of(plan, PartNames(tables=tables, rows=rows, columns=columns), plan.study)


def report_input(
    plan: Plan,
    records: DataFrame,
    curves: DataFrame,
    software: Mapping[str, Any],
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> ReportInput:
    """The one way from records to a report: `harness report` and `harness verify` both go it.

    software: what of the provenance is not in the records.
    extra: what else a report may be written from, by field of `ReportInput` (`reporting.frames.EXTRA`).
    """
    from harness.analysis import analyse, findings_of_part
    from harness.analysis.effects import mark_exploratory
    from harness.reporting import ReportInput
    from harness.reporting.frames import extra_files, raw_digest, raw_files
    from harness.reporting.report_input import Whole, ran_with

    declared = (extra.get("declaration") or {}).get("declarations", [])

    digest = raw_digest(raw_files(records, curves, extra_files(extra)))
    found = mark_exploratory(
        analyse(plan, records, curves, settings_of(plan), extra.get("floors")), exploratory(plan, declared)
    )
    whole = None
    if part := _kept_part(plan, extra.get("part")):
        whole = Whole(plan=plan, records=records, curves=curves)
        found, plan = findings_of_part(found, part), part.plan
        records, curves = _planned(plan, records), _planned(plan, curves)
    return ReportInput(
        findings=found,
        plan=plan,
        whole=whole,
        records=records,
        curves=curves,
        provenance={**software, **ran_with(records), "records": digest},
        title=plan.header.get("title") or _heading(plan.study),
        **extra,
    )


def _heading(study: str) -> str:
    from harness.reporting.document import heading

    return heading(study)


def settings_of(plan: Plan) -> Settings:
    """What was declared. Only an uncut run at size `paper` may be held against the printed values."""
    from harness.analysis.findings import Settings

    return Settings(
        metric=plan.header["metric"],
        percent=not plan.scripts and plan.header["metric"] in PER_CLASS,
        alpha=ALPHA,
        smallest_effect_pp=plan.header["smallest_effect"],
        comparable_to_paper=plan.size == "paper" and not plan.header["smoke"],
        looks=plan.looks,
        lower_is_better=plan.header.get("script", {}).get("lower_is_better", False),
    )


def up_to_date(args: argparse.Namespace, plan: Plan, place: Workspace) -> Path | None:
    """The folder whose report needs no writing; None: there is none."""
    part = asked_part(args, plan)
    found = (folder for folder in report_folders(args, plan) if _is_up_to_date(plan, place, folder, part))
    return next(found, None)


def _is_up_to_date(plan: Plan, place: Workspace, out_dir: Path, part: PlanPart | None) -> bool:
    """Whether the report in `out_dir` was written from just these inputs by this version."""
    from harness.reporting.frames import read_extra

    provenance = read_map(out_dir / "report.json").get("provenance")
    if not isinstance(provenance, dict) or provenance.get("inputs") != inputs_digest(plan, place):
        return False
    if not all((out_dir / name).is_file() for name in FORMATS):
        return False
    here = look_at_records(plan, place.runs_dir, place.data_dir)
    wanted = {**extra_inputs(plan, place), "left_out": left_out(plan, place, here), "part": part_json(part)}
    wanted["under_way"] = None
    try:
        kept = read_extra(out_dir)
    except StudyError:
        return False
    return all(kept.get(name, {}) == (wanted[name] or {}) for name in wanted)


def inputs_digest(plan: Plan, place: Workspace) -> str:
    """One hash over the plan, every summary and the harness version."""
    sha = hashlib.sha256(f"{__version__}\n".encode())
    sha.update(canonical_json({**plan_to_json(plan), "runs": None, "totals": None}).encode())
    for run in sorted(plan.runs, key=lambda run: run.run_id):
        path = place.folder(run.run_id).summary
        sha.update(run.run_id.encode() + (path.read_bytes() if path.is_file() else b"-"))
    return sha.hexdigest()


# `harness report A B`: reports side by side, from their report.json.


def compare(args: argparse.Namespace) -> int:
    """args.study: two or more studies or folders of reports."""
    from harness.reporting.compare import (
        CompareInput,
        names_of,
        read_report,
        refuse_different_metrics,
        render_comparison,
    )

    folders = [folder_of(path, args.size, args.smoke) for path in args.study]
    reports = tuple(read_report(folder) for folder in folders)
    names = names_of(folders)
    refuse_different_metrics(names, reports)
    out = args.out or Path("reports") / "-vs-".join(name.replace("/", "-") for name in names)
    try:
        rendered = render_comparison(CompareInput(names=names, reports=reports), out)
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError) as error:
        what = f"cannot be compared: something that a report has is not there or damaged ({error!r})"
        raise StudyError([Problem(" and ".join(str(folder) for folder in folders), 0, what)]) from None
    print(f"comparison: {out / 'report.md'} (.html, .pdf, .json; tables beside)")
    show_shortfalls(rendered.failures, rendered.notes)
    return SOME_FAILED if rendered.failures else DONE


def folder_of(path: Path, size: str = "", smoke: bool = False) -> Path:
    """A folder is a report's own; a study, by file or name, means its report folder at this size."""
    if path.is_dir():
        return path
    suffix = "-smoke" if smoke else "" if size in ("", "mini", ALL) else f"-{size}"
    folder = (
        project_folder(path)
        / "reports"
        / f"{path.stem if path.suffix in ('.yaml', '.yml') else path.name}{suffix}"
    )
    if folder.is_dir():
        return folder
    text = f"has no report in {folder}; `harness report` writes one, or give the folder of a report"
    raise StudyError([Problem(str(path), 0, text)])


# The report of a study that is under way: a process of its own writes it when another row is complete.


SOONEST_S = 60.0  # between the beginnings of two writings, and before the first
SHARE = 50  # the time between two writings over what the last one cost: 2 %
STOPS_S = 2.0  # the time a writing has to clear up behind itself
PRIORITY = 10
NAMED = [
    "study",
    "size",
    "seeds",
    "smoke",
    "set",
    "runs",
    "data",
    "tracking_uri",
    "table",
    "row",
    "column",
    "out",
]
WRITE = "from harness.commands.report import write_under_way; write_under_way()"
TERMINALS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")  # without any, a browser would take this terminal

Start = Callable[[Mapping[str, Any]], "subprocess.Popen[str]"]


class GrowingReport:
    """Told what the scheduler says; to be closed before the last report is written.

    A writing costs what it costs: the next one begins `SHARE` times as long after it, and not before another
    row is complete.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        plan: Plan,
        *,
        clock: Callable[[], float] = time.monotonic,
        start: Start | None = None,
    ) -> None:
        self._args, self._clock, self._start = args, clock, start or start_writing
        self._written = partial(written, args, plan)
        self._left: dict[str, set[str]] = {}  # arm -> runs that have not ended
        for run in plan.runs:
            if not run.done:
                self._left.setdefault(run.arm_id, set()).add(run.run_id)
        self._arm_of = {run.run_id: run.arm_id for run in plan.runs}
        self._told: set[str] = set()
        self._has_news = self.is_open = False
        self._process: subprocess.Popen[str] | None = None
        self._next_s = clock() + SOONEST_S
        self._began_s = self._spent_s = 0.0

    def watch(self, progress: Progress, left_s: float | None) -> None:
        """Called by the scheduler between two hand-outs. left_s: until all have ended; None: not known."""
        for run_id in progress.ended.keys() - self._told:
            if progress.ended[run_id] in ENDED and run_id in self._arm_of:
                left = self._left.get(self._arm_of[run_id], set())
                left.discard(run_id)
                self._has_news = self._has_news or not left
        self._told |= progress.ended.keys()
        self._look()
        if self._has_news and self._process is None and self._clock() >= self._next_s:
            self._has_news = False
            self._began_s, self._spent_s = self._clock(), _children_s()
            self._process = self._start(options_of(self._args, left_s))

    def close(self) -> None:
        """Stop a writing that is under way: a whole report follows."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOPS_S)
            self._process.kill()
            self._process.wait()
            self._process = None

    def _look(self) -> None:
        if self._process is None or self._process.poll() is None:
            return
        is_written = self._process.returncode == 0
        self._process = None
        cost_s = _children_s() - self._spent_s
        self._next_s = max(self._began_s + SOONEST_S, self._clock() + SHARE * cost_s)
        if is_written and self._args.open and not self.is_open:
            self.is_open = True
            open_report(self._written())


def options_of(args: argparse.Namespace, left_s: float | None) -> dict[str, Any]:
    """What the process that writes is told, as JSON."""
    named = {name: getattr(args, name, None) for name in NAMED}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in named.items()}
    return plain | {"left_s": left_s}


def start_writing(options: Mapping[str, Any]) -> subprocess.Popen[str]:
    """A process in a session of its own: a Ctrl-C in the terminal is for who started it."""
    process = subprocess.Popen(  # noqa: S603  this interpreter, and a fixed text
        [sys.executable, "-c", WRITE],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(dict(options)))
        process.stdin.close()
    return process


def write_under_way() -> None:
    """Write the report of what is mirrored by now. The process that trains mirrors it, and no other may."""
    from harness.reporting import render

    with suppress(OSError):
        os.nice(PRIORITY)
    options = json.load(sys.stdin)
    args = argparse.Namespace(**options)
    for name in ("study", "runs", "data", "out"):
        setattr(args, name, Path(options[name]) if options[name] else None)
    args.seeds = tuple(options["seeds"]) if options["seeds"] else None
    place = workspace(args)
    plan = load_plan(args, place)
    part = asked_part(args, plan)
    mine = part.plan if part else plan
    says = under_way(mine, options["left_s"])
    found = collected_input(plan, place, part, says)
    render(found, _where_nothing_is_lost(args, found, place)[0])


def under_way(plan: Plan, left_s: float | None) -> str:
    """What the first line of a report says of what is still to come."""
    ended = sum(run.done for run in plan.runs)
    text = f"Under way: {ended} of {counted(len(plan.runs), 'run')} have ended"
    if left_s is not None:
        text += f", about {duration(left_s)} left"
    to_come = " ".join(f"{line}." for line in short_of_seeds(plan))
    return f"{text}. {to_come}".strip()


def _children_s() -> float:
    """CPU time of the processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def open_report(out_dir: Path) -> None:
    """In a browser, or where there is none say where it is."""
    page = (out_dir / "report.html").resolve()
    has_screen = sys.platform == "darwin" or any(os.environ.get(name) for name in TERMINALS)
    if not has_screen or not webbrowser.open(page.as_uri()):
        print(f"no browser was found here; the report is {page}", file=sys.stderr)
