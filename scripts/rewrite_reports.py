"""Write reports again from their own records: after a change of how reports look, without a run or a store.

    python scripts/rewrite_reports.py [--anyway] [REPORT ...]      # all of reports/ where none is named

A report stays as it is where `harness verify` finds that more than its looks would change: its study may have
moved on since its runs. `--anyway` writes it then, too, if every format can be made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness import open_report
from harness.cli import build_parser
from harness.commands.verify import verify
from harness.commands.workspace import workspace
from harness.reporting.render import drawn_with, render

ROOT = Path(__file__).resolve().parents[1]


def rewrite(folder: Path, *, study: Path | None = None, anyway: bool = False) -> list[str]:
    """Write one report again. Returns: why it was left as it is; empty where it was written."""
    named = ["--study", str(study)] if study else []
    args = build_parser().parse_args(["verify", str(folder), "--runs", str(folder / "no-runs"), *named])
    wrong = [] if anyway else verify(folder, args, workspace(args)).wrong
    if wrong:
        return wrong
    report = open_report(folder, study=study)._report
    report = replace(report, provenance={**report.provenance, "drawn_with": drawn_with(report.plan)})
    with tempfile.TemporaryDirectory() as draft:
        failures = list(render(report, Path(draft)).failures)
    return failures or list(render(report, folder).failures)


def main(arguments: Sequence[str]) -> int:
    """Returns: 1 where a report was left as it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", nargs="*", type=Path, metavar="REPORT")
    parser.add_argument(
        "--anyway", action="store_true", help="write also what says something else than before"
    )
    args = parser.parse_args(arguments)
    left = 0
    for folder in args.reports or sorted(path.parent for path in ROOT.glob("reports/*/report.json")):
        why = rewrite(folder, anyway=args.anyway)
        left += bool(why)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        said = f"left as it is: {why[0]}; {len(why)} in all" if why else "written again"
        print(f"{folder.name}: {said}; {size / 1e6:.2f} MB", flush=True)
    return int(left > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
