"""Run every study in its smallest form, from YAML to report, in a temporary folder.

A study whose smallest size needs files that are not in the data folder ($HARNESS_DATA or data) is named and
left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.commands.workspace import build_catalogue
from harness.study.expand import load_study

ROOT = Path(__file__).resolve().parents[1]


def missing(study: Path) -> str | None:
    """What a study's smallest size needs and the data folder does not have."""
    catalogue = build_catalogue(Path(os.environ.get("HARNESS_DATA", "data")))
    data = load_study(study, catalogue).file.sizes["mini"].data
    entry = catalogue.data[data.name]
    return entry.missing({**entry.args, **dict(data.options)})


def main() -> int:
    failed = []
    for study in sorted((ROOT / "studies").glob("*.yaml")):
        if absent := missing(study):
            print(f"{study.name}: not run, {absent}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "harness.cli", "run", str(study), "--smoke"]
            start_s = time.monotonic()
            code = subprocess.call([*command, "--runs", f"{folder}/runs", "--out", f"{folder}/report"])
            written = (Path(folder) / "report" / "report.pdf").exists()
        print(f"{study.name}: exit code {code}, {time.monotonic() - start_s:.0f} s")
        if code or not written:
            failed.append(study.name)
    print(f"failed: {', '.join(failed)}" if failed else "every study went through")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
