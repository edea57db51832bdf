"""The size and the order of the house, counted: `python scripts/measure_house.py [--times]`.

`make check` calls it. What must not grow (circles, shares, double names, files a package) is held by
tests/test_house.py with the numbers in `MUST`; totals are printed, and grow only with features.

A value enters a room where a function of that file is called with it: the calls are watched while they run.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "harness"
MUST = {
    "files in harness": 180,
    "lines in harness": 38_000,
    "lines in tests": 32_000,
    "imports, % of lines": 6.0,
    "public class names defined twice": 8,
    "import circles": 0,
    "files in a package, at most": 15,
}
MAY_HAVE_MORE_FILES = {"tricks", "reporting", "commands"}
MOST_ROOMS = {
    "the path of a study, command line to plan": 10,
    "a RunSpec, its arm or recipe, in run_one": 17,
    "records to findings": 11,
    "the Slurm controller": 6,
}
TIMED = {  # arguments -> seconds on one 2 GHz core of a 2017 server
    "--help": 0.1,
    "tricks": 0.2,
    "plan studies/bag_of_tricks.yaml": 0.3,
    "status studies/bag_of_tricks.yaml": 0.3,
}


@dataclass(frozen=True)
class File:
    """One module."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def module(self) -> str:
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def files(folder: Path = PACKAGE) -> tuple[File, ...]:
    texts = {path: path.read_text() for path in sorted(folder.rglob("*.py"))}
    return tuple(File(path, text, ast.parse(text)) for path, text in texts.items())


def lines_in(folder: Path) -> int:
    return sum(len(each.text.splitlines()) for each in files(folder))


def import_share() -> float:
    """Lines of import statements, in percent of all lines."""
    statements = [
        node
        for each in files()
        for node in ast.walk(each.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return 100 * sum((node.end_lineno or 0) - node.lineno + 1 for node in statements) / lines_in(PACKAGE)


def double_names() -> dict[str, int]:
    """Public classes at the top of more than one file."""
    names = Counter(
        node.name
        for each in files()
        for node in each.tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return {name: count for name, count in names.items() if count > 1}


def files_by_package() -> Counter[str]:
    """Without `__init__`; sub-packages count as packages."""
    return Counter(each.path.parent.name for each in files() if each.path.name != "__init__.py")


def imported_modules(file: File) -> set[str]:
    """Modules of the harness that a file imports at its top, also for the type checker alone."""
    known = {each.module for each in files()}
    inside = {
        node for each in ast.walk(file.tree) if isinstance(each, ast.FunctionDef) for node in ast.walk(each)
    }
    found = set()
    for node in ast.walk(file.tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node not in inside
            and (node.module or "").startswith("harness.")
        ):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known else str(node.module))
    return found & known


def circles() -> list[set[str]]:
    """Files that import each other, by whatever way round."""
    graph = {each.module: imported_modules(each) for each in files() if each.module != "harness"}
    reach = {module: _reachable(module, graph) for module in graph}
    groups = {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in graph if a in reach[a]}
    return [set(group) for group in groups]


def _reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    pending = list(graph[start])
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            pending += graph.get(module, ())
    return seen


def rooms(way: Callable[[], object], is_value: Callable[[object], bool]) -> list[str]:
    """The files in which a function is called with the value while `way` runs, in this order."""
    entered: dict[str, None] = {}
    prefix = f"{PACKAGE}{os.sep}"

    def look(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(prefix) and code.co_filename not in entered:
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(is_value(frame.f_locals.get(name)) for name in names):
                entered[code.co_filename] = None

    sys.setprofile(look)
    try:
        way()
    finally:
        sys.setprofile(None)
    return [name.removeprefix(prefix) for name in entered]


def rooms_of_a_path() -> list[str]:
    """From the command line to a plan."""
    from harness.cli import main as harness

    study = "studies/bag_of_tricks.yaml"
    with contextlib.redirect_stdout(io.StringIO()):
        return rooms(
            lambda: harness(["plan", study, "--json"]),
            lambda value: isinstance(value, str | Path) and str(value) == study,
        )


def rooms_of_a_spec() -> list[str]:
    """A run of the study that `harness calibrate` trains, which takes a second."""
    from harness.commands.workspace import build_catalogue
    from harness.runs.folder import RunFolder
    from harness.spec import Arm, Machine, Recipe, RunSpec
    from harness.study.expand import ExpandOptions, expand, load_study
    from harness.training.run import run_one

    catalogue = build_catalogue(ROOT / "data")
    study = load_study(PACKAGE / "calibration.yaml", catalogue)
    plan = expand(study, catalogue, ExpandOptions(size="mini"))
    spec = plan.spec(plan.runs[0])
    with tempfile.TemporaryDirectory() as runs:
        folder = RunFolder(Path(runs) / plan.runs[0].run_id)
        machine = Machine(runs_dir=Path(runs), data_dir=ROOT / "data")
        return rooms(
            lambda: run_one(spec, folder, machine, lambda: False),
            lambda value: isinstance(value, RunSpec | Arm | Recipe),
        )


def rooms_of_records() -> list[str]:
    """From the records of a committed report to its findings."""
    from argparse import Namespace

    import pandas as pd

    from harness.analysis.claims import Records
    from harness.analysis.findings import Outcome
    from harness.commands.report import report_input
    from harness.commands.verify import plan_of, read_report
    from harness.commands.workspace import Workspace
    from harness.reporting.frames import read_extra, read_raw

    folder = ROOT / "reports" / "inception_v3"
    place = Workspace(runs_dir=ROOT / "runs", data_dir=ROOT / "data", tracking_uri=None)
    report = read_report(folder)
    plan = plan_of(report, Namespace(study=None), place, folder)
    records, curves = read_raw(folder)
    extra = read_extra(folder)

    def is_records(value: object) -> bool:
        if isinstance(value, dict) and value:
            value = next(iter(value.values()))
            value = next(iter(value.values()), None) if isinstance(value, dict) else value
        return isinstance(value, pd.DataFrame | Records | Outcome)

    software = {key: report["provenance"].get(key) for key in ("harness", "drawn_with", "inputs")}
    found = rooms(lambda: report_input(plan, records, curves, software, extra), is_records)
    return [each for each in found if each.startswith("analysis/")]


def rooms_of_the_controller() -> list[str]:
    """The files of the two scheduling packages of which the Slurm controller calls something, and itself."""
    controller = next(each for each in files() if each.name == "slurm/controller.py")
    near = {each.module: each.name for each in files() if each.name.startswith(("slurm/", "scheduling/"))}
    called = {
        node.func.value.id
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
        else getattr(node.func, "id", "")
        for node in ast.walk(controller.tree)
        if isinstance(node, ast.Call)
    }
    home = {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(controller.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return [controller.name, *sorted({near[home[name]] for name in called if home.get(name) in near})]


def measured() -> dict[str, float]:
    """What `MUST` bounds."""
    by_package = {name: n for name, n in files_by_package().items() if name not in MAY_HAVE_MORE_FILES}
    return {
        "files in harness": len(files()),
        "lines in harness": lines_in(PACKAGE),
        "lines in tests": lines_in(ROOT / "tests"),
        "imports, % of lines": round(import_share(), 1),
        "public class names defined twice": len(double_names()),
        "import circles": len(circles()),
        "files in a package, at most": max(by_package.values()),
    }


def seconds(arguments: str, times: int = 5) -> float:
    """Median wall time of a command, bytecode cached."""
    took = []
    for _ in range(times + 1):
        began_s = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "harness", *arguments.split()],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        took.append(time.perf_counter() - began_s)
    return statistics.median(took[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", action="store_true", help="time commands too")
    options = parser.parse_args()
    for name, value in measured().items():
        print(f"{name:48} {value:>10,}   must: {MUST[name]:,}")
    walks = (rooms_of_a_path, rooms_of_a_spec, rooms_of_records, rooms_of_the_controller)
    for (name, most), walk in zip(MOST_ROOMS.items(), walks, strict=True):
        found = walk()
        print(f"{f'rooms: {name}':48} {len(found):>10}   must: {most}   ({' '.join(found)})")
    if options.times:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        for arguments, most_s in TIMED.items():
            print(f"{f'harness {arguments}':48} {seconds(arguments):>10.2f} s   must: {most_s} s")


if __name__ == "__main__":
    main()
