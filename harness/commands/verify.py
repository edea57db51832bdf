"""`harness verify`: compute every number of a report again from its records, and compare every byte."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.report import (
    folder_of,
    inputs_digest,
    report_input,
)
from harness.commands.workspace import Workspace, first_plan, workspace
from harness.errors import DONE, SOME_FAILED, Problem, StudyError, printable
from harness.reporting.numbers import PERCENT, PRINTED, RELATIVE, count, is_number, with_own_numbers
from harness.runs.folder import RunFolder
from harness.runs.provenance import data_key, data_name
from harness.runs.records import parsed, reason
from harness.runs.state import reconcile, wrong_with
from harness.spec import ENDED
from harness.study.conditions import wrong_with_floors
from harness.study.expand import grow
from harness.study.names import name_of_changes
from harness.study.plan import Plan
from harness.study.yaml import study_file
from harness.tracking.content import env_text

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.analysis.findings import Findings
    from harness.reporting import ReportInput


# Where two versions of a report differ, in words.


NUMBER = re.compile(rb"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])")
# Of a page of HTML: what is not words; its tags; what it says to those who cannot see it and to its script.
LOOKS = re.compile(r"<(svg|style|script)\b.*?</\1>", re.DOTALL)
TAG = re.compile(r"<[^>]*>")
SAID = re.compile(r'\b(?:aria-label|data-value)="([^"]*)"')
TEXTS = (".md", ".csv", ".tex", ".jsonl", ".html", ".svg")
MOST = 5  # of one file


def numbers_in(name: str, content: bytes) -> int:
    """How many numbers a text has; 0 for pictures and PDF, which are compared as a whole."""
    return len(NUMBER.findall(content)) if name.endswith((".json", ".csv", ".jsonl", ".md", ".tex")) else 0


def differences(name: str, was: bytes, now: bytes) -> list[str]:
    """Up to `MOST` differences between what the report has and what was computed."""
    if name.endswith(".json"):
        found = _in_json(was, now)
    elif name.endswith(TEXTS):
        found = _in_text(was, now)
    else:
        found = iter(())
    listed = [text for text, _ in zip(found, range(MOST + 1), strict=False)]
    if len(listed) > MOST:
        listed[MOST] = "and more"
    return listed or ["its bytes are others"]


def _in_text(was: bytes, now: bytes) -> Iterator[str]:
    before, after = (content.decode("utf-8", "replace").splitlines() for content in (was, now))
    for number, (old, new) in enumerate(zip(before, after, strict=False), start=1):
        if old != new:
            at = next(
                (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
            )
            start = max(0, at - 12)
            yield f"line {number} has {old[start : at + 12]!r}, computed: {new[start : at + 12]!r}"
    if len(before) != len(after):
        yield f"has {len(before)} lines, computed: {len(after)}"


def words_in(name: str, content: bytes, *, ticks: bool) -> list[str]:
    """What a figure or a page of HTML says, whatever it looks like.

    ticks: whether bare numbers count in a figure; where another matplotlib may have placed them, they do not.
    """
    from harness.reporting.figures.style import words_of

    if name.endswith(".svg"):
        found = " ".join(words_of(content)).split()
        return sorted(word for word in found if ticks or not PRINTED.fullmatch(word))
    page = LOOKS.sub(" ", content.decode("utf-8", "replace"))
    return [*TAG.sub(" ", page).split(), *SAID.findall(page)]


def in_words(was: list[str], now: list[str]) -> Iterator[str]:
    """In which words two drawings differ."""
    more, fewer = Counter(was) - Counter(now), Counter(now) - Counter(was)
    if more:
        yield f"says {' '.join(list(more)[:MOST])!r}, which was not computed"
    if fewer:
        yield f"does not say {' '.join(list(fewer)[:MOST])!r}"
    if was != now and not more and not fewer:
        yield "says the same words in another order"


def _in_json(was: bytes, now: bytes) -> Iterator[str]:
    try:
        yield from _in_value("", json.loads(was), json.loads(now))
    except ValueError as error:
        yield f"is not JSON: {error}"


def _in_value(path: str, was: Any, now: Any) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            if key not in was or key not in now:
                yield f"{path}.{key}".lstrip(".") + (" is missing" if key in now else " is not computed")
            else:
                yield from _in_value(f"{path}.{key}", was[key], now[key])
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (old, new) in enumerate(zip(was, now, strict=True)):
            yield from _in_value(f"{path}[{index}]", old, new)
    elif was != now or type(was) is not type(now):
        yield f"{path.lstrip('.')} is {_short(was)}, computed: {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


# `harness verify`: compute every number of a report again from its raw records, and compare every byte.
#
# Computed numbers may differ in the last digits, as two CPUs do (`reporting.numbers.with_own_numbers`).
#
# Where the folders of the same trainings are here too, the records are compared with them first: then every
# number is followed back to what the runs themselves wrote. A run_id says what is trained, not when or where,
# so a folder may have another training of the run, such as the demo's of a report that came with the code.


# Their bytes depend on the style of the drawings and on the versions of the packages that draw. Where those
# are others, words and data are compared, and a PDF, whose words are not read, is not.
DRAWN = (".pdf", ".svg", ".html")
UNKNOWN = "unknown versions"
# What a reader looks at: other files and other sentences in a report that an earlier version laid out.
PAGES = (".md", ".html", ".pdf", ".svg", ".tex")
FOLDERS = ("tables", "figures", "data")
SHOWN = 20  # differences
COMPARED = (
    *("top1", "top5", "loss", "train_loss", "params", "macs", "steps", "images_seen", "test_images"),
    *("train_time_s", "wall_time_s", "energy_j", "started_s", "ended_s"),
)
TIMES = ("started_s", "ended_s")  # which training it was: to the microsecond
RESULTS = ("top1", "top5", "loss", "train_loss", "predictions")  # what two trainings may have in common
CHANGED = "data/: is not what the report was computed from: report.json has another digest of its records"
HALF_AN_IMAGE = 50.0  # over the number of test images, in percent: rounding


@dataclass(frozen=True, slots=True)
class OtherTraining:
    """A run that was trained for the report, and once more in the folder that is here."""

    report: tuple[float, str]  # when it began (seconds since 1970), and on which device
    here: tuple[float, str]
    is_alike: bool  # whether both came to the same results, to the last bit


@dataclass(slots=True)
class Verification:
    """What came of one report."""

    wrong: list[str] = field(default_factory=list)
    files: int = 0
    numbers: int = 0
    runs: int = 0
    runs_here: int = 0  # whose folders are on this machine
    others: list[OtherTraining] = field(default_factory=list)  # in folders that are here
    notes: list[str] = field(default_factory=list)


def main(args: argparse.Namespace) -> int:
    place = workspace(args)
    exit_code = DONE
    for folder in map(folder_of, args.reports):
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
    from harness.reporting.frames import read_extra, read_raw
    from harness.reporting.render import drawn_with, render

    report = read_report(folder)
    plan = plan_of(report, args, place, folder)
    records, curves = read_raw(folder)
    extra = checked_extra(folder, read_extra(folder))
    result = Verification(runs=len(records))
    were_changed = _were_changed(report, records, curves, extra)
    result.wrong = [CHANGED] if were_changed else not_planned(plan, records)
    if result.wrong and not were_changed:
        return result
    result.wrong += [*mixed_data(plan, records), *_miscounted(records)]
    _compare_runs(records, curves, place, result)
    software = {key: report["provenance"].get(key) for key in ("harness", "drawn_with", "inputs")}
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
            if not were_changed:
                raise
            text = f"was changed since the report was written, and cannot be analysed ({error!r})"
            raise StudyError([Problem(str(folder / "data"), 0, text)]) from None
        _compare_files(folder, again, result, (software["drawn_with"] or [UNKNOWN], drawn_with(plan)))
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
    from harness.reporting.frames import extra_files, raw_digest, raw_files

    digest = raw_digest(raw_files(records, curves, extra_files(extra)))
    return bool(report["provenance"].get("records") != digest)


def not_planned(plan: Plan, records: DataFrame) -> list[str]:
    """That the study asks for other runs today than those of the report: no number of it can be computed."""
    planned, reported = {run.run_id for run in plan.runs}, set(records["run_id"])
    gone = len(reported - planned)
    if not gone:
        return []
    return [
        f"the study has changed since: of the report's {len(reported)} runs it plans {gone} no more; "
        "verify with the study of that time (--study FILE, or its commit), or train and report anew"
    ]


def mixed_data(plan: Plan, records: DataFrame) -> list[str]:
    """Data of which the report's own records saw several versions: their runs must not be in one mean."""
    from harness.reporting.frames import ARCHIVE, RUNS

    seen: dict[str, set[str]] = {}
    for row in records.to_dict("records"):
        arm = plan.arms.get(row["arm_id"])
        if arm is not None and row["status"] in ENDED and isinstance(row.get("data_fingerprint"), str):
            seen.setdefault(data_key(arm.recipe.data), set()).add(row["data_fingerprint"])
    names = {data_key(arm.recipe.data): data_name(arm.recipe.data) for arm in plan.arms.values()}
    return [
        f"{ARCHIVE}/{RUNS}: its runs saw {len(found)} different versions of {names[key]}"
        for key, found in sorted(seen.items())
        if len(found) > 1
    ]


def checked_extra(folder: Path, extra: dict[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """
    Raises:
        StudyError: the declaration, the floors, the part or what is under way, beside the report, is none.
    """
    from harness.reporting.frames import unpacked

    for name, check in (
        ("declaration", wrong_with),
        ("floors", wrong_with_floors),
        ("part", wrong_with_part),
        ("under_way", wrong_with_says),
    ):
        wrong = check(extra[name]) if name in extra else None
        if wrong:
            raise StudyError([Problem(str(unpacked(folder)[0] / f"{name}.json"), 0, wrong)])
    return extra


def wrong_with_part(kept: Mapping[str, Any]) -> str | None:
    """What is not as `part_json` writes it; None: nothing."""
    names = [kept.get(name) for name in ("tables", "rows", "columns")]
    lists = all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in names)
    if not lists or not any(names) or not isinstance(kept.get("says"), str):
        return "is damaged: it names no part of a study"
    return None


def wrong_with_says(kept: Mapping[str, Any]) -> str | None:
    """What is wrong with what a report under way kept; None: nothing."""
    return None if isinstance(kept.get("says"), str) else "is damaged: it says nothing"


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
    if report["header"].get("results"):
        text = (
            "is made from a file of results; to verify it, make it again: `harness table FILE --out ANOTHER`"
        )
        raise StudyError([Problem(str(folder), 0, text)])
    changes = report["header"].get("set") or ()
    name = str(report["study"]).removesuffix(name_of_changes("", changes)) if changes else report["study"]
    study = args.study or study_file(Path(f"{name}.yaml"))
    if not study.exists():
        text = f"its study {study} is not there; name the file with --study"
        raise StudyError([Problem(str(folder), 0, text)])
    looks = tuple(report["looks"] or [len(report["findings"]["seeds"])])
    is_smoke = report["header"]["smoke"]
    how = Namespace(study=study, size=report["size"], seeds=looks, smoke=is_smoke, set=changes)
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
        return grow(plan, {arm_id: fewer.get(arm_id, most) for arm_id in plan.all_arms})
    except ValueError as error:
        raise StudyError([Problem(str(folder / "report.json"), 0, f"its seeds: {error}")]) from None


def _miscounted(records: DataFrame) -> Iterator[str]:
    """Records of which the top-1 accuracy is not the share of the images that they say were right."""
    from harness.analysis.intervals import unpack
    from harness.reporting.frames import ARCHIVE, RUNS

    for row in records.to_dict("records"):
        bits, top1, images = (row.get(name) for name in ("predictions", "top1", "test_images"))
        if not isinstance(bits, bytes) or not is_number(top1) or not is_number(images):
            continue
        right = unpack(bits, int(images))
        if right is None:
            yield f"{ARCHIVE}/{RUNS}: run {row['run_id']}: has not one prediction for each of its test images"
        elif abs((share := PERCENT * float(right.mean())) - top1) > HALF_AN_IMAGE / images:
            yield f"{ARCHIVE}/{RUNS}: run {row['run_id']}: top1 is {top1}, its predictions say {share}"


def _compare_runs(records: DataFrame, curves: DataFrame, place: Workspace, result: Verification) -> None:
    """The records against the folders of those runs that are here."""
    from harness.reporting.frames import ARCHIVE, CURVES, RUNS

    points = {str(run_id): frame for run_id, frame in curves.groupby("run_id")}
    for row in records.to_dict("records"):
        folder = place.folder(row["run_id"])
        summary = folder.read_summary()
        if summary is None or row["status"] not in ENDED:
            continue
        if _is_another(row, summary):
            result.others.append(_other(row, summary, folder))
            continue
        result.runs_here += 1
        result.wrong += [
            f"{ARCHIVE}/{RUNS}: run {folder.run_id}: {text}"
            for text in _run_differences(row, summary, folder)
        ]
        if folder.run_id in points:
            result.wrong += [
                f"{ARCHIVE}/{CURVES}: run {folder.run_id}: {text}"
                for text in _curve_differences(points[folder.run_id], folder)
            ]
    if result.others:
        result.notes.append(_trained_again(result.others, len(records)))


def _is_another(row: Mapping[Any, Any], summary: Mapping[str, Any]) -> bool:
    """Whether the folder has another training of the run: it began and ended at other times.

    Where one of the two times is the record's, it is the same training, and whatever else differs is a
    difference. An edited record is no other training either: the report's digest of its records says so.
    """
    return all(is_number(row.get(name)) and row[name] != summary[name] for name in TIMES)


def _other(row: Mapping[Any, Any], summary: Mapping[str, Any], folder: RunFolder) -> OtherTraining:
    found = {**summary, **summary.get("metrics", {}), "predictions": _predictions(folder)}
    return OtherTraining(
        report=(row["started_s"], str(row.get("device"))),
        here=(summary["started_s"], str(summary.get("device"))),
        is_alike=all(_same(row.get(name), found.get(name)) for name in RESULTS),
    )


def _trained_again(others: Sequence[OtherTraining], runs: int) -> str:
    """That folders here have other trainings of a report's runs, in one line."""
    from harness.reporting.frames import ARCHIVE

    alike = sum(each.is_alike for each in others)
    here, report = (_first([getattr(each, name) for each in others]) for name in ("here", "report"))
    return (
        f"{len(others)} of the report's {count(runs, 'run')} {'was' if len(others) == 1 else 'were'} trained "
        f"again here ({here}; {alike} to the same results): the report was computed from other trainings of "
        f"{'it' if len(others) == 1 else 'them'} ({report}), and is verified against their records, {ARCHIVE}"
    )


def _first(trainings: Sequence[tuple[float, str]]) -> str:
    """When the first of them began, and on which devices they were."""
    try:
        began = f"from {datetime.fromtimestamp(min(trainings)[0], UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):  # an edited record may say any number
        began = "at an unknown time"
    return f"{began} on {' and '.join(sorted({printable(device) for _, device in trainings}))}"


def _run_differences(row: Mapping[Any, Any], summary: Mapping[str, Any], folder: RunFolder) -> Iterator[str]:
    found = {**summary, **summary.get("metrics", {})}
    for name in COMPARED:
        if (name in row or name not in TIMES) and not _same(row.get(name), found.get(name)):
            yield f"{name} is {row.get(name)}, its folder has {found.get(name)}"
    if row.get("env") is not None and row["env"] != env_text(folder):
        yield "env differs from its folder's env.json"
    if _predictions(folder) != row.get("predictions"):
        yield "predictions differ from its folder's"


def _predictions(folder: RunFolder) -> bytes | None:
    return folder.predictions.read_bytes() if folder.predictions.exists() else None


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


def _compare_files(
    folder: Path, again: Path, result: Verification, drawn_with: tuple[list[str], list[str]]
) -> None:
    """Every file. Of drawings the words, where the report and this machine draw with different things."""
    own, computed = _contents(folder), _contents(again)
    was, here = drawn_with
    if _is_of_before(was):
        own, computed = (
            {n: c for n, c in files.items() if not n.endswith(PAGES)} for files in (own, computed)
        )
        text = "its report.json, its CSV files and its records were compared, its pages were not"
        result.notes.append(f"the report is laid out as an earlier version did it: {text}")
    result.wrong += [
        f"{name}: is not a file of this report"
        for name in sorted(own.keys() - computed.keys())
        if name.partition("/")[0] in FOLDERS
    ]
    result.wrong += [f"{name}: is missing" for name in sorted(computed.keys() - own.keys())]
    drawings = {name for name in computed if name.endswith(DRAWN)} if was != here else set()
    for name in sorted(computed.keys() & own.keys() - drawings):
        result.files += 1
        result.numbers += numbers_in(name, computed[name])
        if own[name] != computed[name]:
            result.wrong += [f"{name}: {text}" for text in differences(name, own[name], computed[name])]
    if drawings:
        ticks = _matplotlib(was) == _matplotlib(here)
        pairs = {name: (own[name], computed[name]) for name in sorted(drawings & own.keys())}
        _compare_words(pairs, result, ticks=ticks)
        what = "their words were compared, not their looks; not compared: report.pdf"
        result.notes.append(f"drawings are made with {', '.join(was)}, here with {', '.join(here)}: {what}")


def _is_of_before(drawn_with: list[str]) -> bool:
    """Whether a report says that it was drawn in a style of before its pages had their shape of today."""
    from harness.reporting.figures.style import FIRST_IN_THIS_SHAPE

    return any(f"style {style}" in drawn_with for style in range(FIRST_IN_THIS_SHAPE))


def _matplotlib(drawn_with: list[str]) -> list[str]:
    return [each for each in drawn_with if each.startswith("matplotlib ")]


def _compare_words(pairs: Mapping[str, tuple[bytes, bytes]], result: Verification, *, ticks: bool) -> None:
    """Of drawings by name, the report's and the computed one."""
    for name, (was, now) in pairs.items():
        if not name.endswith(".pdf"):
            said = [words_in(name, each, ticks=ticks) for each in (was, now)]
            result.wrong += [f"{name}: {text}" for text in in_words(*said)]


def _contents(folder: Path) -> dict[str, bytes]:
    """Path -> content of the files of a report, with the members of the archive in its place."""
    from harness.reporting.frames import ARCHIVE, unpacked

    place, raw = unpacked(folder)
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    packed = {f"{ARCHIVE}/{name}": content for name, content in raw.items()}
    rest = [name for name, path in files.items() if place not in (path, path.parent)]
    return packed | {name: files[name].read_bytes() for name in rest}


def _verdict(result: Verification) -> str:
    places = f"{result.runs_here} of {result.runs} runs compared with their folders"
    if not result.runs_here:
        none = "no folder of these trainings" if result.others else "no run folder"
        places = f"computed from the records of {result.runs} runs ({none} is here)"
    what = f"{result.files} files, {result.numbers:,} numbers; {places}"
    rule = f"computed floats within {RELATIVE:g} relative, all else exactly"
    return (
        f"{count(len(result.wrong), 'difference')}; {what}" if result.wrong else f"verified: {what}; {rule}"
    )
