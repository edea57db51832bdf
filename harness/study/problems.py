"""Errors that teach: where, what is wrong, the nearest valid name, the valid ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

# Exit codes of the command line.
DONE, SOME_FAILED, USAGE_ERROR, INTERRUPTED = 0, 1, 2, 3

Location = tuple[
    str | int, ...
]  # keys and list indices from the top of the file, e.g. ("tables", "t1", "rows", 0)

MOST_PROBLEMS = 500  # of one file; a file with more was not meant to be a study
MOST_NAMES = 1_000  # that are looked through for the nearest one
LONGEST_NAME = 100  # characters of a name, and
LONGEST_MESSAGE = 2_000  # of a whole sentence, that are shown
# Controls of a terminal, line ends, changes of direction, halves of characters, what no text may hold, tags
_NEVER = (
    "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufdd0-\ufdef\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f"
)
UNPRINTABLE = re.compile(f"[\x00-\x1f{_NEVER}]")
_COMMANDS = re.compile(f"[\x00-\x08\x0b-\x1f{_NEVER}]")  # lines and tabs are none


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a study, in the words a user sees."""

    path: str
    line: int
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", printable(self.message))

    def __str__(self) -> str:
        path = printable(self.path)
        where = f"{path}:{self.line}" if self.line else path
        return f"{where}: {self.message}"


class StudyError(Exception):
    """Every mistake found in a study, not only the first. The CLI prints them and exits with 2."""

    consequence = "nothing was started"  # what they mean for what the user asked for

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


def printable(text: str) -> str:
    """The text on one line and cut to a length that a person reads; a file's own words may be anything.

    >>> printable("a\\x1b[31m\\nb")
    'a\\\\x1b[31m\\\\nb'
    """
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE // 2]} ... {text[-LONGEST_MESSAGE // 2 :]}"
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible(text: str) -> str:
    """Lines of a terminal without what would move its cursor, colour it, or change the order of letters.

    >>> visible("a\\x1b[31m\\n\\tb")
    'a\\\\x1b[31m\\n\\tb'
    """
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shortened(name: str) -> str:
    """A name as it is shown in a sentence."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Say that `name` is not a known `kind`, suggest the nearest one and list them all.

    >>> unknown("trick", "mixupp", ["mixup", "cosine"])
    "unknown trick 'mixupp'; did you mean 'mixup'? Valid: cosine, mixup"
    """
    names = sorted(islice(valid, MOST_NAMES))
    name = shortened(name)
    close = difflib.get_close_matches(name, map(shortened, names), n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return f"unknown {kind} '{name}'{hint} Valid: {', '.join(map(shortened, names)) or 'none'}"


class ProblemList:
    """Mistakes found so far. The same mistake in several rows or at several sizes is said once."""

    def __init__(self, path: str, line_of: Callable[[Location], int]) -> None:
        self._path = path
        self._line_of = line_of
        self._found: dict[tuple[int, str], tuple[dict[str, None], dict[str, None]]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, location: Location, message: str, *, row: str = "", size: str = "") -> None:
        """Note a mistake at a place in the file; `row` and `size` say where it shows.

        Raises:
            StudyError: there are too many to go on.
        """
        if len(self._found) >= MOST_PROBLEMS:
            message = f"more than {MOST_PROBLEMS} mistakes; what follows was not read"
            raise StudyError([*self.problems(), Problem(self._path, self._line_of(location), message)])
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
