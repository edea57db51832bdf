"""Run every study in its smallest form, from YAML to report, in a temporary folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    failed = []
    for study in sorted((ROOT / "studies").glob("*.yaml")):
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
