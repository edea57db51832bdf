"""A file of results, cell by cell: CSV, JSON lines, Parquet, a pandas frame; and which column is what.

Nothing is converted here: cells are texts as they stand in a CSV, or the values of the other kinds. What is
wrong with the form of a file is said with its line.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import itertools
import json
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Problem, StudyError, counted, shortened, unknown

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
    note: str = ""  # what a reader must know of it

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

    found = ResultsFile(
        path=path, kind="CSV", names=names, read=read, sha256=sha256, head=head,
        decimal_comma=separator != ",",
    )  # fmt: skip
    return _unpacked(found, [cell.strip() for cell in next(rows, (0, []))[1]])


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


# Columns of maps, such as `config` and `summary` where somebody wrote down what the API of W&B gave.


NAMES = {"nan": float("nan"), "inf": float("inf"), "infinity": float("inf"), "null": None}
NAMES |= {"true": True, "false": False}  # as JSON and numbers write them, which is no literal of Python


def _unpacked(source: ResultsFile, first: Sequence[Any]) -> ResultsFile:
    """The same with a column for each entry, `config.seed`. `first`: the cells of the first row.

    Raises:
        StudyError: a cell below a map is none.
    """
    maps = [name for name, cell in zip(source.names, first, strict=False) if _map_in(cell) is not None]
    if not maps:
        return source
    lines = source.read(maps)
    rows: list[dict[str, Any]] = [{} for _ in lines.at]
    for name, place in itertools.product(maps, range(len(rows))):
        cell = lines.cells[name][place]
        if (found := _map_in(cell)) is not None:
            rows[place] |= {f"{name}.{key}": value for key, value in found.items()}
        elif cell not in (None, ""):
            what = f"'{shortened(str(cell))}' is no map such as {{'seed': 1}}, as in the first line"
            raise source.wrong(lines.at[place], what, name)
    inner = dict.fromkeys(name for row in rows for name in row)

    def read(wanted: Sequence[str]) -> Lines:
        outer = source.read([name for name in wanted if name not in inner])
        more = {name: [row.get(name) for row in rows] for name in wanted if name in inner}
        return Lines(at=outer.at, cells={**outer.cells, **more})

    return replace(source, names=[*(name for name in source.names if name not in maps), *inner], read=read)


def _map_in(cell: Any) -> dict[str, Any] | None:
    """A map, flat, of a cell that is one or says one in JSON or Python; None: it is none.

    >>> _map_in("{'seed': 1, 'optim': {'lr': 0.1}, 'loss': nan}"), _map_in("{a}")
    ({'seed': 1, 'optim.lr': 0.1, 'loss': nan}, None)
    """
    if not isinstance(cell, dict | str) or (isinstance(cell, str) and not cell.startswith("{")):
        return None
    try:
        return dict(_flat(cell if isinstance(cell, dict) else _literal(cell)))
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError):
        return None


def _literal(text: str) -> Any:
    class Named(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.Constant(NAMES[node.id.lower()]) if node.id.lower() in NAMES else node

    try:
        return json.loads(text)
    except ValueError:
        with warnings.catch_warnings():  # of what would be an odd escape, if it were Python
            warnings.simplefilter("ignore")
            return ast.literal_eval(Named().visit(ast.parse(text, mode="eval")))


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


def of_rows(
    rows: Sequence[Mapping[str, Any]], path: str, kind: str, sha256: str | None = None
) -> ResultsFile:
    """Rows that somebody else has read, counted from 1."""
    names = list(dict.fromkeys(name for row in rows for name in row))

    def read(wanted: Sequence[str]) -> Lines:
        cells = {name: [row.get(name) for row in rows] for name in wanted}
        return Lines(at=range(1, len(rows) + 1), cells=cells)

    return ResultsFile(path=path, kind=kind, names=names, read=read, sha256=sha256, head=0)


# TensorBoard's export: a file a run, with the course of one number. Row and seed are in the file's name.


SERIES = ("wall_time", "step", "value")
EXPORTED = re.compile(r"(?:run-)?(?P<run>.+?)(?:-tag-(?P<tag>.+))?")  # as TensorBoard calls what it exports
SEEDED = re.compile(r"(?P<row>.+?)[-_. ]*seed[-_. =]*(?P<seed>[0-9]+)", re.IGNORECASE)


def of_series(paths: Sequence[Path]) -> ResultsFile:
    """One run a file, with the value at its last step.

    Raises:
        StudyError: a file is no such export, its name says no row or seed, or it is of another number.
    """
    problems: list[Problem] = []
    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            rows.append(_last_of(path, open_results(path)))
        except StudyError as error:
            problems += error.problems
    tags = {name: place for place, row in enumerate(rows) for name in list(row)[2:3]}
    if not problems and len(tags) > 1:
        (one, first), (other, second) = list(tags.items())[:2]
        what = f"has values of '{other}', and {paths[first].name} of '{one}': say the files of one number"
        problems.append(Problem(str(paths[second]), 0, what))
    if problems:
        raise StudyError(problems)
    sha256 = hashlib.sha256("".join(row.pop("sha256") for row in rows).encode()).hexdigest()
    steps = sorted({row["step"] for row in rows})
    found = of_rows(rows, str(paths[0].resolve().parent), "TensorBoard, at the last step of each run", sha256)
    what = f"The runs end at different steps, {steps[0]} to {steps[-1]}: some may have been cut off."
    return replace(found, note=what) if len(steps) > 1 else found


def _last_of(path: Path, source: ResultsFile) -> dict[str, Any]:
    names = {short(name): name for name in source.names}
    if not set(SERIES) <= names.keys():
        what = (
            "of several files, each must be a run as TensorBoard exports it, with Wall time, Step and Value"
        )
        raise source.wrong(source.head, f"{what}; runs that are lines go into one file")
    exported = EXPORTED.fullmatch(path.stem)
    seeded = SEEDED.fullmatch(exported["run"]) if exported else None
    if exported is None or seeded is None:
        raise source.wrong(0, "its name must say row and seed, such as mixup_seed3.csv")
    lines = source.read([names["step"], names["value"]])
    steps = []
    for line, step in zip(lines.at, lines.cells[names["step"]], strict=True):
        if not re.fullmatch(r"[0-9]{1,18}(\.0*)?", str(step)):
            raise source.wrong(line, f"'{shortened(str(step))}' is no step", names["step"])
        steps.append(int(str(step).partition(".")[0]))
    if not steps:
        raise source.wrong(source.head, "there is no line below the names of the columns")
    last = max(range(len(steps)), key=lambda place: (steps[place], place))
    tag = short(exported["tag"] or "") or "value"
    return {
        "row": seeded["row"], "seed": int(seeded["seed"]), tag: lines.cells[names["value"]][last],
        "step": steps[last], "sha256": source.sha256,
    }  # fmt: skip


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

    found = ResultsFile(path=path, kind=kind, names=names, read=read, sha256=sha256, head=0)
    return _unpacked(found, frame.iloc[0].tolist() if len(frame) else ())


# Which column of a file of results is what: as the user says, or as columns are usually called.


# What columns are usually called, the likeliest first. Only the part after the last dot or slash counts, in
# small letters, with _ in place of anything else.
ROWS = (
    *("row", "recipe", "variant", "method", "arm", "setting", "config", "condition", "trick", "ablation"),
    *("model", "group", "job_type", "name", "label", "run_name", "runname"),
)
SEEDS = ("seed", "random_seed", "rng_seed", "seed_id", "repeat", "repetition", "replicate", "trial", "fold")
TABLES = ("table",)
COLUMNS = ("column", "dataset", "data_set")
PAPERS = ("paper", "paper_value", "printed", "published")
STATES = ("state", "status")
ACCURACIES = (
    *("top1", "top_1", "top1_acc", "top1_accuracy", "acc1", "acc_1", "accuracy", "acc", "test_top1"),
    *("test_acc", "test_accuracy", "test_acc1", "val_top1", "val_acc", "val_accuracy", "val_acc1"),
    *("eval_top1", "eval_acc", "eval_accuracy", "valid_acc", "f1", "macro_f1", "auroc", "auc"),
)
OTHERS = ("test_loss", "val_loss", "eval_loss", "loss", "error", "test_error", "top1_err", "score", "metric")
REFERENCES = ("baseline", "reference", "control", "default")
IN_HUNDREDS = re.compile(r"(?:^|_)(?:acc\w*|top_?[0-9]\w*|f1|auroc|auc|precision|recall|map|miou)(?:_|$)")
LESS_WORDS = re.compile(
    r"(?:^|_)(?:\w*loss|err|error|time|seconds|latency|perplexity|ppl|nll|mse|mae|rmse|fid|top[0-9]_err|ece)"
    r"(?:_[smh]|_ms)?(?:$|_)"
)
UNITS = ("percent", "fraction", "plain")
SMALLEST_PP = 0.2  # smallest effect of interest of a percentage, as in studies


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user says of the file; None or empty: to be found by name."""

    rows: tuple[str, ...] = ()  # columns whose values together are a row's label
    seed: str | None = None
    metrics: tuple[str, ...] = ()  # verdicts are about the first, the others are shown
    versus: str | None = None  # the row that the others are compared with, or `previous`
    table: str | None = None
    column: str | None = None
    paper: str | None = None
    unit: str | None = None  # one of UNITS
    lower_is_better: bool | None = None
    smallest_effect: float | None = None
    images: str | None = None  # the column that names each run's file of right and wrong answers
    classes: str | None = None  # what the names of columns with the accuracy on one class begin with


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which column is what."""

    rows: tuple[str, ...]
    seed: str | None
    metrics: tuple[str, ...]
    table: str | None
    column: str | None
    paper: str | None
    state: str | None
    unit: str
    lower_is_better: bool
    smallest_effect: float
    images: str | None = None
    classes: Mapping[str, str] = field(default_factory=dict)  # column -> the class

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every column that is read."""
        more = (self.seed, self.table, self.column, self.paper, self.state, self.images)
        found = [*self.rows, *self.metrics, *self.classes, *(name for name in more if name is not None)]
        return tuple(dict.fromkeys(found))


def short(name: str) -> str:
    """The part of a column's name that says what it is.

    >>> short("params.random seed"), short("eval/Top-1"), short("config.seed")
    ('random_seed', 'top_1', 'seed')
    """
    return re.sub(r"[^a-z0-9]+", "_", re.split(r"[./]", name)[-1].strip().lower()).strip("_")


def choose(source: ResultsFile, asked: Asked) -> Chosen:
    """Which column is what: what was asked for, else what a column is called.

    Raises:
        StudyError: every column that is not there, cannot be found by name, or may be one of several.
    """
    problems: list[Problem] = []
    classes = _classes(source, asked, problems)
    said = (asked.seed, asked.table, asked.column, asked.paper, asked.images)
    for name in (*asked.rows, *asked.metrics, *classes, *said):
        if name is not None:
            problems += _not_there(source, name)
    if problems:
        raise StudyError(problems)
    rows = asked.rows or _likeliest(source, ROWS)
    if not rows:
        what = f"no column is called as a row's label ({', '.join(ROWS[:6])}, ...): say which, with --row"
        problems.append(source.problem(source.head, f"{what}. Columns: {listed(source.names)}"))
    metrics = asked.metrics or _metric(source, problems)
    if metrics:
        problems += _questions(source, metrics[0], asked)
    if problems:
        raise StudyError(problems)
    return Chosen(
        rows=rows,
        metrics=metrics,
        unit=asked.unit or "plain",
        lower_is_better=bool(asked.lower_is_better),
        smallest_effect=asked.smallest_effect or SMALLEST_PP,
        images=asked.images,
        classes=classes,
        **_others(source, asked, {*rows, *metrics}),
    )


def _classes(source: ResultsFile, asked: Asked, problems: list[Problem]) -> dict[str, str]:
    """The columns of single classes, and which class each is."""
    if asked.classes is None:
        return {}
    found = {name: name.removeprefix(asked.classes) or name for name in source.names
             if name.startswith(asked.classes) and name not in asked.metrics}  # fmt: skip
    if not found:
        what = f"no column's name begins with '{asked.classes}'. Columns: {listed(source.names)}"
        problems.append(source.problem(source.head, what))
    return found


def _others(source: ResultsFile, asked: Asked, taken: Collection[str]) -> dict[str, str | None]:
    """The columns that need not be there. One that is found by name is not two things."""
    found = {
        name: (given, next(iter(_likeliest(source, names)), None))
        for name, given, names in (
            ("seed", asked.seed, SEEDS),
            ("table", asked.table, TABLES),
            ("column", asked.column, COLUMNS),
            ("paper", asked.paper, PAPERS),
            ("state", None, STATES),
        )
    }
    return {name: given or (None if seen in taken else seen) for name, (given, seen) in found.items()}


def _not_there(source: ResultsFile, name: str) -> Iterator[Problem]:
    places = list(source.names).count(name)
    if not places:
        yield source.problem(source.head, unknown("column", name, dict.fromkeys(filter(None, source.names))))
    if places > 1:
        yield source.problem(source.head, f"{places} columns have this name: rename one", name)


def _likeliest(source: ResultsFile, known: Sequence[str]) -> tuple[str, ...]:
    """The column with the first of the known names; none, or one."""
    called: dict[str, str] = {}
    for name in source.names:
        called.setdefault(short(name), name)
    found = [called[name] for name in known if name in called]
    return tuple(found[:1])


def _metric(source: ResultsFile, problems: list[Problem]) -> tuple[str, ...]:
    """The only column that is called as a metric; of several, nobody but the user knows which."""
    for known in (ACCURACIES, OTHERS):
        found = [name for name in dict.fromkeys(source.names) if short(name) in known]
        if len(found) == 1:
            return (found[0],)
        if found:
            what = f"several columns may be the metric: {listed(found)}; say which, with --metric"
            problems.append(source.problem(source.head, what))
            return ()
    what = f"no column is called as a metric ({', '.join(ACCURACIES[:1] + ACCURACIES[6:8])}, loss, ...)"
    text = f"{what}: say which, with --metric. Columns: {listed(source.names)}"
    problems.append(source.problem(source.head, text))
    return ()


def _questions(source: ResultsFile, metric: str, asked: Asked) -> Iterator[Problem]:
    """What a number does not say of itself, and must be asked."""
    name, line = short(metric), source.head
    lesser = re.search(LESS_WORDS, name) is not None
    if asked.lower_is_better is None and lesser:
        what = "less of it is usually better: say --lower-is-better, or --higher-is-better"
        yield source.problem(line, what, metric)
    hundreds = re.search(IN_HUNDREDS, name) is not None
    if asked.unit is None and hundreds:
        what = "is it in percent (93.1) or a fraction (0.931)? say --percent or --fraction; --plain: as it is"
        yield source.problem(line, what, metric)
    percent = asked.unit in ("percent", "fraction") or (asked.unit is None and hundreds)
    if asked.images is not None and asked.unit not in ("percent", "fraction"):
        what = "images are right or wrong: the metric must be an accuracy; say --percent or --fraction"
        yield source.problem(line, what, metric)
    if asked.smallest_effect is None and not percent:
        what = "which difference of it would matter? say --smallest-effect"
        yield source.problem(line, what, metric)


def listed(names: Iterable[str], most: int = 12) -> str:
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(shortened(name) or "(no name)" for name in every[:most]) + more
