"""Errors that teach: where, what is wrong, the nearest valid name, the valid ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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
