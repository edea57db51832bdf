"""Which files of the user's own code a study names, read before anything else of the study is checked."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath
from typing import Any

from harness.study.problems import Problem, ProblemList, shortened, unknown
from harness.study.source import read_source, read_text

KEY = "plugins"
GROUP = "harness.plugins"  # of the entry points of installed packages
LONGEST_PATH = 200  # bytes; file systems take 255 of a name
PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # the name of an entry point


def study_plugins(path: Path) -> tuple[Path, ...]:
    """The plugins of a study, in the order of its key `plugins`; nothing in them is run.

    Files stand beside the study file or in a folder below it. A name without `.py` is that of an installed
    package, and is given back as it is.

    Raises:
        StudyError: the study cannot be read, the key is not a list of such files, or one does not exist.
    """
    if KEY not in read_text(path):  # the file need not be parsed for them
        return ()
    unreadable: list[Problem] = []  # said when the whole study is loaded
    source = read_source(path, unreadable)
    given = source.data.get(KEY) if isinstance(source.data, dict) else None
    if given is None:
        return ()
    problems = source.problem_list()
    if not isinstance(given, list):
        problems.add((KEY,), f"{KEY} must be a list of file names such as [my_lab.py], got {given!r}")
        given = []
    found: dict[str, Path] = {}
    for index, name in enumerate(given):
        file = _file(path.parent, name, (KEY, index), problems)
        if file is not None and file.name in found:
            problems.add((KEY, index), f"two plugins are called '{file.name}'; results name them by that")
        elif file is not None:
            found[file.name] = file
    problems.raise_if_any()
    return tuple(found.values())


def _file(folder: Path, name: Any, at: tuple[str, int], problems: ProblemList) -> Path | None:
    if isinstance(name, str) and PACKAGE.fullmatch(name):
        return _package(name, at, problems)
    wrong = _wrong(name)
    if wrong is not None:
        problems.add(at, wrong)
        return None
    file: Path = folder / name
    if not file.is_file():
        beside = [each.name for each in file.parent.glob("*.py")] if file.parent.is_dir() else []
        problems.add(at, f"no such file; {unknown('plugin', name, beside)}")
        return None
    if not file.resolve().is_relative_to(folder.resolve()):
        outside = f"'{name}' is a link to {file.resolve()}, outside the study's folder"
        problems.add(at, f"{outside}; a plugin stands beside the study or below it: copy the file there")
        return None
    return file


def _package(name: str, at: tuple[str, int], problems: ProblemList) -> Path | None:
    offered = {each.name for each in entry_points(group=GROUP)}
    if name not in offered:
        valid = unknown("plugin", name, offered)
        problems.add(at, f"{valid} of installed packages (group {GROUP}); a file's name ends in .py")
        return None
    return Path(name)


def _wrong(name: Any) -> str | None:
    """What is wrong with the name of a file; None: nothing."""
    if not isinstance(name, str) or not name.endswith(".py"):
        return f"a plugin is a Python file such as my_lab.py, or an installed package, got {name!r}"
    if len(name.encode()) > LONGEST_PATH:
        return f"the name of a plugin has at most {LONGEST_PATH} bytes, got '{shortened(name)}'"
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name:
        return f"a plugin stands beside the study or below it, given by a relative path; got '{name}'"
    return None
