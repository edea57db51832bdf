"""The size and the order of the house, counted: `python scripts/measure_house.py [--times]`.

`make check` calls it. What must not grow (circles, shares, double names, files a package) is held by
tests/test_house.py with the numbers in `MUST`; totals are printed, and grow only with features.

A value enters a room where a function of another file is called with it. Calls are followed from the syntax
trees: through parameters, fields that are set to them, methods by their name where one class has it.
"""

from __future__ import annotations

import argparse
import ast
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
# value -> where its way begins (file, function, parameter), and how many rooms it may enter
WALKS = {
    "the path of a study, to its plan": ("commands/workspace.py", "load_plan", "args", 10),
    "a RunSpec in run_one": ("training/__init__.py", "run_one", "spec", 17),
    "records to findings": ("analysis/analyse.py", "analyse", "records", 11),
    "the Slurm controller's session": ("slurm/controller.py", "execute", "self", 6),
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


Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def functions() -> dict[str, list[tuple[File, Function]]]:
    """Name -> every function or method that has it; a class stands for its `__init__`."""
    found: dict[str, list[tuple[File, Function]]] = {}
    for file in files():
        for node in ast.walk(file.tree):
            if isinstance(node, Function):
                found.setdefault(node.name, []).append((file, node))
    return found


def rooms(file_name: str, function: str, parameter: str) -> list[str]:
    """The files that a parameter enters, in the order in which it does."""
    start = next((file, node) for file, node in functions()[function] if file.name == file_name)
    seen: set[tuple[str, str, int, str]] = set()
    entered: dict[str, None] = {}
    pending = [(*start, parameter)]
    while pending:
        file, node, name = pending.pop(0)
        key = (file.name, node.name, node.lineno, name)
        if key in seen:
            continue
        seen.add(key)
        entered[file.name] = None
        pending += list(_passed_on(file, node, name))
    return list(entered)


def _passed_on(file: File, function: Function, name: str) -> Iterator[tuple[File, Function, str]]:
    for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
        given: list[tuple[int | str, ast.expr]] = [*enumerate(call.args)]
        given += [(each.arg, each.value) for each in call.keywords if each.arg]
        for place, value in given:
            if isinstance(value, ast.Name) and value.id == name:
                for where, called in _called(file, call.func):
                    parameter = _parameter(called, place, is_method=isinstance(call.func, ast.Attribute))
                    if parameter:
                        yield where, called, parameter
        method = call.func
        if (
            isinstance(method, ast.Attribute)
            and isinstance(method.value, ast.Name)
            and method.value.id == name
        ):
            for where, called in _called(file, method):
                if called.args.args and called.args.args[0].arg == "self":
                    yield where, called, "self"


def _called(file: File, called: ast.expr) -> list[tuple[File, Function]]:
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    candidates = functions().get(name, [])
    here = [each for each in candidates if each[0] is file]
    near = imported_modules(file) | {file.module}
    known = here or [each for each in candidates if each[0].module in near]
    known = known or (candidates if isinstance(called, ast.Name) else [])
    return known if len(known) == 1 else []


def _parameter(function: Function, place: int | str, *, is_method: bool) -> str | None:
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    if isinstance(place, str):
        return place if place in {*names, *(each.arg for each in function.args.kwonlyargs)} else None
    shift = 1 if names[:1] in (["self"], ["cls"]) and is_method else 0
    return names[place + shift] if place + shift < len(names) else None


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
        print(f"{name:40} {value:>10,}   must: {MUST[name]:,}")
    for name, (file, function, parameter, most) in WALKS.items():
        found = rooms(file, function, parameter)
        print(f"{f'rooms: {name}':40} {len(found):>10}   must: {most}   {' '.join(found)}")
    if options.times:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        for arguments, most_s in TIMED.items():
            print(f"{f'harness {arguments}':40} {seconds(arguments):>10.2f} s   must: {most_s} s")


if __name__ == "__main__":
    main()
