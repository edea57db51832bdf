"""A file of results, cell by cell: CSV, JSON lines, Parquet, a pandas frame; each row with its line.

Nothing is converted here: cells are texts as they stand in a CSV, or the values of the other kinds. What is
wrong with the form of a file is said with its line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Problem, StudyError, counted, shortened

if TYPE_CHECKING:
    from pandas import DataFrame

SEPARATORS = (",", ";", "\t", "|")
SPELLED = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
JSON_LINES = (".jsonl", ".ndjson")
KINDS = (".csv", ".tsv", ".txt", *JSON_LINES, ".parquet")
LONGEST_CELL = 1_000_000  # characters; a longer one is a quotation mark that was never closed
MOST_BYTES = 2**31  # of a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Some columns of a file. Cells are texts, numbers, truth values or None (nothing there)."""

    at: Sequence[int]  # the line on which each row begins, counted from 1; of a frame, its row
    cells: Mapping[str, Sequence[Any]]  # column -> one cell per row


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsFile:
    """A file that has been opened: which columns it has, and how to read some of them."""

    path: str  # as messages name it
    kind: str  # what it is, in a word or two
    names: Sequence[str]
    read: Callable[[Sequence[str]], Lines]
    sha256: str | None  # of the file; None: there is none
    head: int = 1  # the line that names the columns; 0: none does
    decimal_comma: bool = False  # whether a comma may stand for the point of a number

    def problem(self, line: int, message: str, column: str | None = None) -> Problem:
        """One mistake at a line and a column."""
        where = "" if column is None else f"column '{shortened(column)}': "
        return Problem(self.path, line, where + message)

    def wrong(self, line: int, message: str, column: str | None = None) -> StudyError:
        """The same as an error."""
        return StudyError([self.problem(line, message, column)])


def open_results(path: Path) -> ResultsFile:
    """A file by its ending.

    Raises:
        StudyError: it is not there, is of another kind, or has no columns that can be told apart.
    """
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        what = f"is of a kind that is not read ('{suffix}')" if suffix else "has no ending that says its kind"
        raise StudyError([Problem(str(path), 0, f"{what}; valid endings: {', '.join(KINDS)}")])
    try:
        if path.stat().st_size > MOST_BYTES:
            raise StudyError([Problem(str(path), 0, f"is larger than {MOST_BYTES // 2**30} GiB")])
        content = path.read_bytes()
    except OSError as error:
        raise StudyError([Problem(str(path), 0, f"cannot be read: {error.strerror or error}")]) from None
    sha256 = hashlib.sha256(content).hexdigest()
    if suffix == ".parquet":
        return of_frame(_parquet(path), str(path), "Parquet", sha256)
    text = _text(str(path), content)
    if suffix in JSON_LINES:
        return _json_lines(str(path), text, sha256)
    return _separated(str(path), text, sha256)


def _text(path: str, content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise StudyError([Problem(path, 1, "is UTF-16 text; save it as UTF-8 (“CSV UTF-8”)")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 text (byte {content[error.start]:#04x}); save it as UTF-8"
        raise StudyError([Problem(path, line, what)]) from None
    if (place := text.find("\0")) >= 0:
        what = "has a zero byte, which no text has; export it again"
        raise StudyError([Problem(path, text.count("\n", 0, place) + 1, what)])
    return text


# Separated values.


def _separated(path: str, text: str, sha256: str) -> ResultsFile:
    rows = _rows(path, text, ",")
    head, first = next(rows, (1, []))
    separator = max(SEPARATORS, key=_outside_quotes(text, head).count)
    if separator != ",":
        rows = _rows(path, text, separator)
        head, first = next(rows, (1, []))
    names = [name.strip() for name in first]
    if not any(names):
        raise StudyError([Problem(path, 1, "is empty: its first line must name the columns")])
    if len(names) == 1:
        what = f"has one column only, '{shortened(names[0])}'; columns are separated by , ; | or a tab"
        raise StudyError([Problem(path, head, what)])

    def read(wanted: Sequence[str]) -> Lines:
        places = [names.index(name) for name in wanted]
        at: list[int] = []
        columns: list[list[str]] = [[] for _ in places]
        found = _rows(path, text, separator)
        next(found)
        for line, cells in found:
            if len(cells) != len(names):
                raise StudyError([Problem(path, line, _uneven(cells, names, separator))])
            at.append(line)
            for column, place in zip(columns, places, strict=True):
                column.append(cells[place].strip())
        return Lines(at=at, cells=dict(zip(wanted, columns, strict=True)))

    return ResultsFile(
        path=path, kind="CSV", names=names, read=read, sha256=sha256, head=head,
        decimal_comma=separator != ",",
    )  # fmt: skip


def _outside_quotes(text: str, head: int) -> str:
    """The line of names, without what stands in quotation marks."""
    lines = text.splitlines()
    line = lines[head - 1] if len(lines) >= head else ""
    return "".join(line.split('"')[::2])


def _rows(path: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, cells) of every row that is not blank."""
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    begin = 1
    try:
        for cells in reader:
            if cells and any(cells):
                yield begin, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        what = f"cannot be read as a row ({error}); is a quotation mark not closed?"
        raise StudyError([Problem(path, begin, what)]) from None


def _uneven(cells: Sequence[str], names: Sequence[str], separator: str) -> str:
    text = f"has {counted(len(cells), 'cell')}, the line of names has {len(names)}"
    if len(cells) > len(names):
        text += f"; put a value that has {SPELLED[separator]} in it into quotation marks"
    return text


# JSON lines: one object per line; what is nested is named with a dot.


def _json_lines(path: str, text: str, sha256: str) -> ResultsFile:
    rows = list(_objects(path, text))
    if not rows:
        raise StudyError([Problem(path, 1, "is empty: each line must be one JSON object")])
    names = list(dict.fromkeys(name for _, row in rows for name in row))

    def read(wanted: Sequence[str]) -> Lines:
        cells = {name: [row.get(name) for _, row in rows] for name in wanted}
        return Lines(at=[line for line, _ in rows], cells=cells)

    return ResultsFile(path=path, kind="JSON lines", names=names, read=read, sha256=sha256, head=0)


def _objects(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:
            what = f"is not JSON: {getattr(error, 'msg', error)} at character {getattr(error, 'colno', 1)}"
            raise StudyError([Problem(path, line, what)]) from None
        except RecursionError:
            raise StudyError([Problem(path, line, "is nested too deeply to be a result")]) from None
        if not isinstance(row, dict):
            what = f'is a {type(row).__name__}, and must be an object such as {{"row": "baseline"}}'
            raise StudyError([Problem(path, line, what)])
        yield line, dict(_flat(row))


def _flat(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def of_rows(rows: Sequence[Mapping[str, Any]], path: str, kind: str) -> ResultsFile:
    """Rows that somebody else has read, counted from 1."""
    names = list(dict.fromkeys(name for row in rows for name in row))

    def read(wanted: Sequence[str]) -> Lines:
        cells = {name: [row.get(name) for row in rows] for name in wanted}
        return Lines(at=range(1, len(rows) + 1), cells=cells)

    return ResultsFile(path=path, kind=kind, names=names, read=read, sha256=None, head=0)


# Frames, and files that pandas reads.


def _parquet(path: Path) -> DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ImportError:
        what = "needs the package pyarrow to be read: install it, or save the file as CSV"
        raise StudyError([Problem(str(path), 0, what)]) from None
    except Exception as error:  # of pyarrow, which has many
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise StudyError([Problem(str(path), 0, f"cannot be read as Parquet: {lines[0]}")]) from None


def of_frame(
    frame: DataFrame, path: str = "frame", kind: str = "a frame", sha256: str | None = None
) -> ResultsFile:
    """A pandas frame; its index is a column where it has a name. Rows are counted from 1.

    NaN is nothing there: a frame does not tell a run that diverged from one without a value.
    """
    import pandas as pd

    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    names = [".".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns]

    def read(wanted: Sequence[str]) -> Lines:
        cells: dict[str, list[Any]] = {}
        for name in wanted:
            column = frame.iloc[:, names.index(name)]
            absent = pd.isna(column).tolist()
            values = zip(column.tolist(), absent, strict=True)
            cells[name] = [None if gone else value for value, gone in values]
        return Lines(at=range(1, len(frame) + 1), cells=cells)

    return ResultsFile(path=path, kind=kind, names=names, read=read, sha256=sha256, head=0)
