"""Errors that teach: where, what is wrong, the nearest valid name, the valid ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Location = tuple[
    str | int, ...
]  # keys and list indices from the top of the file, e.g. ("tables", "t1", "rows", 0)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a study, in the words a user sees."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        return f"{where}: {self.message}"


class StudyError(Exception):
    """Every mistake found in a study, not only the first. The CLI prints them and exits with 2."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Say that `name` is not a known `kind`, suggest the nearest one and list them all.

    >>> unknown("trick", "mixupp", ["mixup", "cosine"])
    "unknown trick 'mixupp'; did you mean 'mixup'? Valid: cosine, mixup"
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return f"unknown {kind} '{name}'{hint} Valid: {', '.join(names) or 'none'}"


class ProblemList:
    """Mistakes found so far. The same mistake in several rows or at several sizes is said once."""

    def __init__(self, path: str, line_of: Callable[[Location], int]) -> None:
        self._path = path
        self._line_of = line_of
        self._found: dict[tuple[int, str], tuple[dict[str, None], dict[str, None]]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, location: Location, message: str, *, row: str = "", size: str = "") -> None:
        """Note a mistake at a place in the file; `row` and `size` say where it shows."""
        rows, sizes = self._found.setdefault((self._line_of(location), message), ({}, {}))
        if row:
            rows[row] = None
        if size:
            sizes[size] = None

    def problems(self) -> list[Problem]:
        """What was found, one `Problem` per line and message."""
        return [
            Problem(self._path, line, message + _shown_in(list(rows), list(sizes)))
            for (line, message), (rows, sizes) in self._found.items()
        ]

    def raise_if_any(self) -> None:
        """Raises:
        StudyError: something was found.
        """
        if self._found:
            raise StudyError(self.problems())


def _shown_in(rows: list[str], sizes: list[str]) -> str:
    parts = []
    if rows:
        more = len(rows) - 1
        parts.append(rows[0] + (f" and {more} more row{'s' if more > 1 else ''}" if more else ""))
    if sizes:
        parts.append(f"size{'s' if len(sizes) > 1 else ''} {', '.join(sizes)}")
    return f" ({'; '.join(parts)})" if parts else ""
