"""What a verdict table of a large file of results takes: `harness table` on 100,000 lines, and on 60.

    python benchmarks/bench_table.py [--repeats 3] [--shapes 20x5000 6x10] [--beside DIR] [--out FILE]

A shape is rows x seeds. Each figure is the median of `--repeats` fresh processes that write every format: CPU
seconds (user and system, with the interpreter and its imports), wall seconds, and the largest memory held.
The file is the same every time. Goals: 5 s of CPU and 1 GiB for 100,000 lines, 12 s where they are 20,000
rows, 2 s for 60 lines. `--beside DIR` times the checkout in DIR in turn with this one, and ends with an error
where the two do not write the same bytes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import figures

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ("6x10", "20x5000", "1000x100", "20000x5", "5x20000")
MOST_S = {60: 2.0, 100_000: 5.0}  # of CPU, by lines
MANY_ROWS, MOST_OF_MANY_S = 20_000, 12.0
MOST_MIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one command took."""

    cpu_s: float
    wall_s: float
    mib: float


def main() -> None:
    options = parse()
    table = figures.Figures()
    trees = [ROOT] + ([options.beside.resolve()] if options.beside else [])
    with tempfile.TemporaryDirectory() as name:
        for shape in options.shapes:
            rows, seeds = map(int, shape.split("x"))
            file = write_results(Path(name) / f"r{shape}.csv", rows, seeds)
            most_s = MOST_OF_MANY_S if rows >= MANY_ROWS else MOST_S.get(rows * seeds)
            what = f"{rows * seeds:,} lines, {rows:,} rows"
            add_rows(table, file, (what, most_s), trees, options.repeats)
    table.save(options.out)


def parse() -> argparse.Namespace:
    parser = figures.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="ROWSxSEEDS")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="another checkout, timed in turn")
    return parser.parse_args()


def write_results(file: Path, rows: int, seeds: int) -> Path:
    """A file with a line a run: seven sizes of effect, and luck of each seed that the rows share."""
    rng = random.Random(0)
    luck = [rng.gauss(0, 0.3) for _ in range(seeds)]
    with file.open("w") as out:
        out.write("recipe,seed,acc\n")
        for row, seed in itertools.product(range(rows), range(seeds)):
            name = f"row {row}" if row else "baseline"
            out.write(f"{name},{seed},{92 + row % 7 * 0.1 + luck[seed] + rng.gauss(0, 0.2):.2f}\n")
    return file


def add_rows(
    table: figures.Figures, file: Path, about: tuple[str, float | None], trees: list[Path], repeats: int
) -> None:
    """The figures of one file, of each checkout. about: what it is, and the goal in seconds of CPU."""
    what, most_s = about
    outs = [file.with_name(f"{file.stem}-{number}") for number in range(len(trees))]
    # The first of each compiles, where a file has not been compiled yet.
    rounds = [
        [harness_table(tree, file, out) for tree, out in zip(trees, outs, strict=True)]
        for _ in range(repeats + 1)
    ][1:]
    for place, tree in enumerate(trees):
        taken = [each[place] for each in rounds]
        label = what if tree == ROOT else f"{what}, beside"
        table.add(f"{label}: CPU", [each.cpu_s for each in taken], "s", most_s)
        table.add(f"{label}: wall", [each.wall_s for each in taken], "s")
        table.add(f"{label}: memory", [each.mib for each in taken], "MiB", MOST_MIB)
    if different := {name for out in outs for name in differences(outs[0], out)}:
        raise SystemExit(f"not the same bytes: {', '.join(sorted(different))}")


def harness_table(tree: Path, file: Path, out: Path) -> Taken:
    """One command of a checkout in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # Before all else, also where the environment has another checkout installed.
    code = f"import sys; sys.path.insert(0, {str(tree)!r}); from harness.cli import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", code, "table", str(file), "--percent", "--out", str(out)]
    start_s = time.perf_counter()
    process = subprocess.Popen(command, cwd=file.parent, env=kept, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Taken(
        cpu_s=used.ru_utime + used.ru_stime,
        wall_s=time.perf_counter() - start_s,
        mib=used.ru_maxrss / unit,
    )


def differences(one: Path, other: Path) -> list[str]:
    """The files of two reports that are not the same."""
    names = {path.relative_to(out) for out in (one, other) for path in out.rglob("*") if path.is_file()}
    return [str(name) for name in names if content(one / name) != content(other / name)]


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    main()
