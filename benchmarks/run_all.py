"""Every benchmark that needs no GPU, one after the other, each in a process of its own.

    python benchmarks/run_all.py                        all of them, 15 to 20 minutes on 2 quiet cores
    python benchmarks/run_all.py bench_cli bench_expand     some

Prints what they print, under headings. Ends with 1 where one of them failed, after all have run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHMARKS: Mapping[str, tuple[str, ...]] = {  # script -> its arguments
    "bench_cli": (),
    "bench_expand": (),
    "bench_scheduling": (),
    "bench_journal": (),
    "bench_claims": (),
    "bench_checkpoint": (),
    "bench_half": ("--rounds", "1"),
    "bench_processes": ("--repeats", "1"),
    "bench_many_runs": ("--repeats", "1"),
    "bench_analysis": ("--repeats", "1"),
    "bench_collect": ("--repeats", "1"),
    "validate_statistics": ("--quick",),
}


def main(names: Sequence[str], folder: Path = HERE) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"unknown benchmark '{unknown[0]}'. Valid: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    failed = [name for name in names or BENCHMARKS if not run(folder / f"{name}.py", BENCHMARKS[name])]
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


def run(script: Path, arguments: Sequence[str]) -> bool:
    """Run one script with its output passed through; whether it ended with 0."""
    print(f"\n## {' '.join([script.name, *arguments])}\n", flush=True)
    started_s = time.monotonic()
    code = subprocess.call([sys.executable, str(script), *arguments], cwd=HERE.parent)
    word = "done" if code == 0 else f"FAILED (exit code {code})"
    print(f"\n{word} in {time.monotonic() - started_s:.0f} s", flush=True)
    return code == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
