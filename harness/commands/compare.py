"""`harness report A B`: reports side by side, from their report.json."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.display import show_shortfalls
from harness.study.checked import parsed, reason
from harness.study.problems import DONE, SOME_FAILED, Problem, StudyError

KINDS: Mapping[str, type | tuple[type, ...]] = {
    "study": str,
    "title": str,
    "size": str,
    "findings": dict,
    "arms": dict,
    "runs": list,
    "provenance": dict,
}  # of report.json: what a comparison reads
SCHEMA_VERSION = 1


def main(args: argparse.Namespace) -> int:
    """args.study: two or more studies or folders of reports."""
    from harness.reporting.compare import CompareInput, render_comparison

    folders = [folder_of(path, args) for path in args.study]
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


def folder_of(path: Path, args: argparse.Namespace) -> Path:
    """A folder is a report's own; a study, by file or name, means its report folder at this size."""
    if path.is_dir():
        return path
    suffix = "-smoke" if args.smoke else "" if args.size == "mini" else f"-{args.size}"
    folder = Path("reports") / f"{path.stem if path.suffix in ('.yaml', '.yml') else path.name}{suffix}"
    if folder.is_dir():
        return folder
    text = f"has no report in {folder}; `harness report` writes one, or give the folder of a report"
    raise StudyError([Problem(str(path), 0, text)])


def read_report(folder: Path) -> dict[str, Any]:
    """report.json of a folder.

    Raises:
        StudyError: it is not there, is damaged, or is not that of a report of this schema.
    """
    path = folder / "report.json"
    try:
        report = parsed(path.read_bytes())
    except FileNotFoundError:
        raise StudyError([Problem(str(path), 0, "is not there; give the folder of a report")]) from None
    except (OSError, ValueError) as error:
        raise StudyError([Problem(str(path), 0, f"cannot be read: {reason(error)}")]) from None
    if not isinstance(report, dict) or report.get("kind") == "comparison":
        raise StudyError([Problem(str(path), 0, "is not the report of a study")])
    if report.get("schema") != SCHEMA_VERSION:
        text = f"is of schema {report.get('schema')}, this version reads {SCHEMA_VERSION}; write it again"
        raise StudyError([Problem(str(path), 0, text)])
    for key, kind in KINDS.items():
        if not isinstance(report.get(key), kind):
            raise StudyError([Problem(str(path), 0, f"is not a report: `{key}` is not there or damaged")])
    return report


def names_of(folders: Sequence[Path]) -> tuple[str, ...]:
    """The folders' names, with as many of their parents as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise StudyError([Problem(str(folders[0]), 0, "is given twice; name two different reports")])
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return tuple("/".join(part[-depth:]) for part in parts)


def refuse_different_metrics(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> None:
    """Raises StudyError where the sides do not measure the same thing."""
    try:
        metrics = [report["findings"]["settings"]["metric"] for report in reports]
    except (KeyError, TypeError):
        raise StudyError([Problem(" and ".join(names), 0, "one has no settings; write it again")]) from None
    if len(set(metrics)) > 1:
        said = ", ".join(f"{name}: {metric}" for name, metric in zip(names, metrics, strict=True))
        raise StudyError(
            [Problem(" and ".join(names), 0, f"measure different things ({said}); nothing to compare")]
        )
