"""`harness verify`: compute every number of a report again from its raw records, and compare every byte.

Computed numbers may differ in the last digits, as two CPUs do (`differences.with_own_numbers`).

Where the run folders are here too, the records are compared with them first: then every number is followed
back to what the runs themselves wrote.
"""

from __future__ import annotations

import argparse
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.differences import PERCENT, RELATIVE, differences, numbers_in, with_own_numbers
from harness.commands.report import drawn_with, inputs_digest, report_input
from harness.commands.workspace import Workspace, first_plan, workspace
from harness.study.checked import parsed, reason
from harness.study.declared import wrong_with
from harness.study.estimate import reconcile
from harness.study.grow import grow
from harness.study.other_data import data_key, data_name
from harness.study.plan import Plan
from harness.study.problems import DONE, SOME_FAILED, Problem, StudyError
from harness.study.records import ENDED, RunFolder
from harness.tracking.change import env_text

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.analysis.findings import Findings
    from harness.reporting import ReportInput

DRAWN = (".pdf", ".svg", ".png", ".html")  # their bytes depend on the versions of the drawing packages
FOLDERS = ("tables", "figures", "data")
SHOWN = 20  # differences
COMPARED = (
    *("top1", "top5", "loss", "train_loss", "params", "macs", "steps", "images_seen", "test_images"),
    *("train_time_s", "wall_time_s", "energy_j"),
)


@dataclass(slots=True)
class Verification:
    """What came of one report."""

    wrong: list[str] = field(default_factory=list)
    files: int = 0
    numbers: int = 0
    runs: int = 0
    runs_here: int = 0  # whose folders are on this machine
    notes: list[str] = field(default_factory=list)


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    exit_code = DONE
    for folder in args.reports:
        result = verify(folder, args, place)
        for text in result.wrong[:SHOWN]:
            print(f"  {text}")
        if len(result.wrong) > SHOWN:
            print(f"  and {len(result.wrong) - SHOWN} more")
        for text in result.notes:
            print(f"  note: {text}")
        print(f"{folder}: {_verdict(result)}", flush=True)
        exit_code = SOME_FAILED if result.wrong else exit_code
    return exit_code


def verify(folder: Path, args: argparse.Namespace, place: Workspace) -> Verification:
    """One report folder.

    Raises:
        StudyError: it is no report, its study is not found, or its records are missing or damaged.
    """
    from harness.reporting import render
    from harness.reporting.raw import read_extra, read_raw

    report = read_report(folder)
    plan = plan_of(report, args, place, folder)
    records, curves = read_raw(folder)
    extra = checked_extra(folder, read_extra(folder))
    result = Verification(runs=len(records))
    result.wrong += mixed_data(plan, records)
    _compare_runs(records, curves, place, result)
    software = {key: report["provenance"].get(key) for key in ("harness", "drawn_with", "inputs")}
    same_software = software["drawn_with"] == drawn_with(plan)
    if result.runs_here == len(plan.runs) and inputs_digest(plan, place) != software["inputs"]:
        result.wrong.append("report.json: provenance.inputs is not the digest of the run folders here")
    with tempfile.TemporaryDirectory() as name:
        again = Path(name)
        try:
            computed = report_input(plan, records, curves, software, extra)
            render(_as_reported(computed, report, result), again)
        except StudyError:
            raise
        except Exception as error:  # the analysis of records that no run writes may end in any way
            if not _were_changed(report, records, curves, extra):
                raise
            text = f"was changed since the report was written, and cannot be analysed ({error!r})"
            raise StudyError([Problem(str(folder / "data"), 0, text)]) from None
        _compare_files(folder, again, result, drawn=same_software)
    if not same_software:
        was, here = software["drawn_with"] or ["unknown versions"], drawn_with(plan)
        result.notes.append(f"figures, PDF and HTML not compared: drawn with {was}, here are {here}")
    return result


def _as_reported(computed: ReportInput, report: Mapping[str, Any], result: Verification) -> ReportInput:
    """What was computed, in the report's own numbers where they agree; a note says how many differ."""
    values = [abs(value) for value in levels(computed.findings)]
    scale = PERCENT if computed.findings.settings.in_percent else max(values, default=0.0)
    own = {key: report.get(key) for key in ("claims", "speed")}
    findings = report.get("findings")
    own |= findings if isinstance(findings, dict) else {}
    findings, last_digits = with_own_numbers(computed.findings, own, scale)
    if last_digits.pairs:
        result.notes.append(str(last_digits))
    return replace(computed, findings=findings)


def levels(findings: Findings) -> list[float]:
    """The means of all rows."""
    cells = [cell for table in findings.tables for cell in table.cells]
    return [cell.level.mean for cell in cells if cell.level and cell.level.mean is not None]


def _were_changed(
    report: Mapping[str, Any], records: DataFrame, curves: DataFrame, extra: Mapping[str, Mapping[str, Any]]
) -> bool:
    """Whether the records are not those that the report says it was computed from."""
    from harness.reporting.raw import extra_files, raw_digest

    return bool(report["provenance"].get("records") != raw_digest(records, curves, extra_files(extra)))


def mixed_data(plan: Plan, records: DataFrame) -> list[str]:
    """Data of which the report's own records saw several versions: their runs must not be in one mean."""
    seen: dict[str, set[str]] = {}
    for row in records.to_dict("records"):
        arm = plan.arms.get(row["arm_id"])
        if arm is not None and row["status"] in ENDED and isinstance(row.get("data_fingerprint"), str):
            seen.setdefault(data_key(arm.recipe.data), set()).add(row["data_fingerprint"])
    names = {data_key(arm.recipe.data): data_name(arm.recipe.data) for arm in plan.arms.values()}
    return [
        f"data/runs.jsonl: its runs saw {len(found)} different versions of {names[key]}"
        for key, found in sorted(seen.items())
        if len(found) > 1
    ]


def checked_extra(folder: Path, extra: dict[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """
    Raises:
        StudyError: the declaration beside the report is not one.
    """
    wrong = wrong_with(extra["declaration"]) if "declaration" in extra else None
    if wrong:
        raise StudyError([Problem(str(folder / "data" / "declaration.json"), 0, wrong)])
    return extra


def read_report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    try:
        report: dict[str, Any] = parsed(path.read_bytes())
        assert isinstance(report["provenance"], dict)
        assert isinstance(report["header"]["smoke"], bool)
        report = {"looks": [], "arm_seeds": {}, **report}  # a fixed design may lack them
        assert all(type(seeds) is int for seeds in [*report["looks"], *report["arm_seeds"].values()])
        assert isinstance(report["study"], str)
        assert isinstance(report["size"], str)
        assert type(len(report["findings"]["seeds"])) is int
        return report
    except FileNotFoundError:
        raise StudyError([Problem(str(path), 0, "is not there; give the folder of a report")]) from None
    except OSError as error:
        raise StudyError([Problem(str(path), 0, f"cannot be read: {reason(error)}")]) from None
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        text = f"is not a report: {reason(error) or 'a key is missing'}"
        raise StudyError([Problem(str(path), 0, text)]) from None


def plan_of(report: dict[str, Any], args: argparse.Namespace, place: Workspace, folder: Path) -> Plan:
    """The plan as the study says it today, with the report's seeds; other changes show as differences."""
    study = args.study or Path("studies") / f"{report['study']}.yaml"
    if not study.exists():
        text = f"its study {study} is not there; name the file with --study"
        raise StudyError([Problem(str(folder), 0, text)])
    looks = tuple(report["looks"] or [len(report["findings"]["seeds"])])
    how = Namespace(study=study, size=report["size"], seeds=looks, smoke=report["header"]["smoke"])
    plan = first_plan(how, place)
    if plan.is_adaptive:
        plan = _grown(plan, report, folder)
    reconcile(plan, place.runs_dir)
    return plan


def _grown(plan: Plan, report: dict[str, Any], folder: Path) -> Plan:
    """As far as the report says that the results asked for more seeds. Arms that the study lost are left out.

    Raises:
        StudyError: the report asks for seeds that no plan of the study has.
    """
    most = len(report["findings"]["seeds"])
    fewer = report["arm_seeds"]
    try:
        return grow(plan, {arm_id: fewer.get(arm_id, most) for arm_id in plan.arms})
    except ValueError as error:
        raise StudyError([Problem(str(folder / "report.json"), 0, f"its seeds: {error}")]) from None


def _compare_runs(records: DataFrame, curves: DataFrame, place: Workspace, result: Verification) -> None:
    """The records against the folders of those runs that are here."""
    points = {str(run_id): frame for run_id, frame in curves.groupby("run_id")}
    for row in records.to_dict("records"):
        folder = place.folder(row["run_id"])
        summary = folder.read_summary()
        if summary is None or row["status"] not in ENDED:
            continue
        result.runs_here += 1
        result.wrong += [
            f"data/runs.jsonl: run {folder.run_id}: {text}" for text in _run_differences(row, summary, folder)
        ]
        if folder.run_id in points:
            result.wrong += [
                f"data/curves.csv: run {folder.run_id}: {text}"
                for text in _curve_differences(points[folder.run_id], folder)
            ]


def _run_differences(row: Mapping[Any, Any], summary: Mapping[str, Any], folder: RunFolder) -> Iterator[str]:
    found = {**summary, **summary.get("metrics", {})}
    for name in COMPARED:
        if not _same(row.get(name), found.get(name)):
            yield f"{name} is {row.get(name)}, its folder has {found.get(name)}"
    if row.get("env") is not None and row["env"] != env_text(folder):
        yield "env differs from its folder's env.json"
    bits = folder.predictions.read_bytes() if folder.predictions.exists() else None
    if bits != row.get("predictions"):
        yield "predictions differ from its folder's"


def _curve_differences(own: DataFrame, folder: RunFolder) -> Iterator[str]:
    lines = {event["step"]: event for event in folder.read_events() if event["kind"] == "epoch"}
    for point in own.to_dict("records"):
        line = lines.get(point["step"], {})
        for name in ("val_top1", "train_loss"):
            if not _same(point[name], line.get(name)):
                yield f"step {point['step']}: {name} is {point[name]}, its folder has {line.get(name)}"


def _same(recorded: Any, found: Any) -> bool:
    """Absent numbers are None or NaN in a frame, None in a folder."""
    absent = recorded is None or recorded != recorded
    return found is None if absent else bool(found == recorded)


def _compare_files(folder: Path, again: Path, result: Verification, *, drawn: bool) -> None:
    names = {str(path.relative_to(again)) for path in again.rglob("*") if path.is_file()}
    own = [path for name in FOLDERS for path in (folder / name).rglob("*") if path.is_file()]
    result.wrong += [
        f"{path.relative_to(folder)}: is not a file of this report"
        for path in sorted(own)
        if str(path.relative_to(folder)) not in names
    ]
    for name in sorted(names):
        if not drawn and name.endswith(DRAWN):
            continue
        path = folder / name
        if not path.is_file():
            result.wrong.append(f"{name}: is missing")
            continue
        was, now = path.read_bytes(), (again / name).read_bytes()
        result.files += 1
        result.numbers += numbers_in(name, now)
        if was != now:
            result.wrong += [f"{name}: {text}" for text in differences(name, was, now)]


def _verdict(result: Verification) -> str:
    places = f"{result.runs_here} of {result.runs} runs compared with their folders"
    if not result.runs_here:
        places = f"computed from the records of {result.runs} runs (no run folder is here)"
    what = f"{result.files} files, {result.numbers:,} numbers; {places}"
    rule = f"computed floats within {RELATIVE:g} relative, all else exactly"
    return f"{len(result.wrong)} differences; {what}" if result.wrong else f"verified: {what}; {rule}"
