"""Lines of results made into a plan and records: what is wrong with a line, which rows and seeds there are.

The plan has rows and seeds as a study's has, and no recipes: how the runs were trained is not known here.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from harness.errors import Problem, StudyError, counted, shortened, unknown
from harness.results.lines import REFERENCES, Asked, Chosen, Lines, ResultsFile, choose, listed, short
from harness.spec import DIVERGED, FAILED, FINISHED, canonical_json, digest, run_id
from harness.study.plan import OF_A_FILE, Cell, PaperValue, Plan, PlannedRun, PlanTable
from harness.study.reserved import METRICS as RESERVED
from harness.study.reserved import RESULTS as OWN_RESULTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENDED_WELL = ("finished", "completed", "complete", "done", "success", "succeeded", "ok")
NOTHING = ("", "none", "null", "n/a", "na", "-", "–", "—")
NOT_FINITE = ("nan", "inf", "+inf", "-inf", "infinity", "-infinity")
ABOVE = "previous"  # in place of a row's label: each row is compared with the one above it
LARGEST_SEED = 2**62
LARGEST = 1e60  # of a metric: beyond it, squares of variances overflow
MOST_PROBLEMS = 20  # that are said of one file
PERCENT = 100.0
MOST = {"percent": PERCENT, "fraction": 1.0}
GAP = 10.0  # times as large as the next: what one file's values in one unit never are, near 1
ROUNDED = 0.00051  # as a share: an accuracy that was rounded to a tenth of a percent
LARGEST_FIT = 4_000_000  # runs times (rows + seeds) of a table, up to which a block fit is made


@dataclass(frozen=True, slots=True)
class FileRun:
    """One line of the file."""

    line: int
    table: str
    column: str | None
    row: str
    seed: int | None  # None: the file has no seeds
    values: tuple[float | None, ...]  # one per metric; None: nothing there, or not finite
    paper: float | None
    status: str
    reason: str | None
    classes: tuple[float | None, ...] = ()  # one per class
    right: bytes | None = None  # one bit per test image, packed; None: not known
    images: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResults:
    """A plan without recipes, what its runs came to, and what a reader must know of both."""

    plan: Plan
    records: Mapping[str, Sequence[Any]]  # column -> one value per run, as a frame of records has them
    metric: str
    chosen: Chosen
    seeds_shared: bool
    notes: tuple[str, ...] = field(default=())


# What the lines say.


def read_runs(source: ResultsFile, chosen: Chosen) -> list[FileRun]:
    """Every line as a run.

    Raises:
        StudyError: the lines that are wrong, each with its column; at most `MOST_PROBLEMS`.
    """
    lines = source.read(chosen.wanted)
    if not len(lines.at):
        raise source.wrong(source.head, "there is no line below the names of the columns")
    reading = _Reading(source=source, chosen=chosen, lines=lines)
    runs = [run for place in range(len(lines.at)) if (run := reading.run(place)) is not None]
    reading.check_units(runs)
    reading.check_twice(runs)
    reading.raise_if_any()
    return runs


@dataclass(slots=True, kw_only=True)
class _Reading:
    """The lines of one file, and what is wrong with them so far."""

    source: ResultsFile
    chosen: Chosen
    lines: Lines
    problems: list[Problem] = field(default_factory=list)
    more: int = 0  # that are counted only,
    from_line: int = 0  # from this one on
    images: tuple[int, int] | None = None  # of the first file of answers: how many images, and on which line

    def add(self, line: int, message: str, column: str | None) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(self.source.problem(line, message, column))
        else:
            self.more += 1
            self.from_line = self.from_line or line

    def raise_if_any(self) -> None:
        if not self.problems:
            return
        if self.more:
            what = f"and {counted(self.more, 'more mistake')} from here on"
            self.problems.append(Problem(self.source.path, self.from_line, what))
        raise StudyError(self.problems)

    def run(self, place: int) -> FileRun | None:
        """One line; None where something is wrong with it."""
        chosen, line, before = self.chosen, self.lines.at[place], len(self.problems) + self.more
        row = self._label(place, line)
        seed = self._seed(place, line)
        values = tuple(self._value(name, place, line) for name in chosen.metrics)
        status, reason = self._status(place, values[0], line)
        paper = None if chosen.paper is None else self._value(chosen.paper, place, line)
        classes = tuple(self._of_class(name, place, line) for name in chosen.classes)
        right, images = self._right(place, line, values[0]) if chosen.images else (None, 0)
        if len(self.problems) + self.more > before:
            return None
        return FileRun(
            line=line,
            table=self._text(chosen.table, place) or OF_A_FILE,
            column=self._text(chosen.column, place) or None,
            row=row,
            seed=seed,
            values=tuple(None if value is None or not math.isfinite(value) else value for value in values),
            paper=paper,
            status=status,
            reason=reason,
            classes=classes,
            right=right,
            images=images,
        )

    def _of_class(self, name: str, place: int, line: int) -> float | None:
        value, most = self._value(name, place, line), MOST.get(self.chosen.unit, math.inf)
        if value is None or not math.isfinite(value):
            return None
        if most < math.inf and not 0.0 <= value <= most:
            word = {"percent": "percentage"}.get(self.chosen.unit, self.chosen.unit)
            self.add(line, f"{value:g} is no {word} (0 to {most:g})", name)
        return value

    def _right(self, place: int, line: int, value: float | None) -> tuple[bytes | None, int]:
        """The file of a run's answers, which must be of as many images as the others, and of this run."""
        import numpy as np

        chosen, name = self.chosen, self._text(self.chosen.images, place)
        if not name:
            return None, 0
        try:
            right = read_right(Path(self.source.path).parent / name)
        except ValueError as error:
            self.add(line, f"{name} {error}", chosen.images)
            return None, 0
        if self.images is None:
            self.images = right.size, line
        if right.size != self.images[0]:
            most, first = self.images
            what = f"{name} has {counted(right.size, 'image')}, that of line {first} has {most}"
            self.add(line, f"{what}: all runs need the same test images", chosen.images)
            return None, 0
        share = float(right.mean()) * MOST[chosen.unit]
        share = MOST[chosen.unit] - share if chosen.lower_is_better else share
        if value is not None and abs(share - value) > ROUNDED * MOST[chosen.unit]:
            what = f"by {name} it is {share:.4g}, the column '{shortened(chosen.metrics[0])}' says {value:g}"
            self.add(line, f"{what}: they are not of one run", chosen.images)
        return np.packbits(right).tobytes(), right.size

    def _cell(self, name: str, place: int) -> Any:
        return self.lines.cells[name][place]

    def _text(self, name: str | None, place: int) -> str:
        value = None if name is None else self._cell(name, place)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return "" if value is None else " ".join(str(value).split())

    def _label(self, place: int, line: int) -> str:
        rows = self.chosen.rows
        texts = [self._text(name, place) for name in rows]
        if len(rows) > 1:
            named = zip((re.split("[./]", name)[-1] for name in rows), texts, strict=True)
            return ", ".join(f"{name} {text or 'none'}" for name, text in named)
        if not texts[0]:
            self.add(line, "is empty: every line must say which row it is a run of", rows[0])
        return texts[0]

    def _seed(self, place: int, line: int) -> int | None:
        name = self.chosen.seed
        if name is None:
            return None
        value = self._cell(name, place)
        found = _number(value, self.source.decimal_comma)
        if found is not None and math.isfinite(found) and found == int(found) and abs(found) < LARGEST_SEED:
            return int(value) if isinstance(value, str) and value.lstrip("+-").isdigit() else int(found)
        what = "is empty" if _is_nothing(value) else f"'{shortened(str(value))}' is no whole number"
        self.add(line, f"{what}: a seed is one, such as 0", name)
        return None

    def _value(self, name: str, place: int, line: int) -> float | None:
        """A number; None where nothing is there; not finite where the run diverged."""
        value = self._cell(name, place)
        if _is_nothing(value):
            return None
        found = _number(value, self.source.decimal_comma)
        if found is None:
            self.add(line, _no_number(str(value)), name)
            return None
        if abs(found) > LARGEST and math.isfinite(found):
            self.add(line, f"{found:g} is too large to be reckoned with", name)
        return found

    def _status(self, place: int, value: float | None, line: int) -> tuple[str, str | None]:
        """What came of the run. One that did not end well has a metric of some other time than the end."""
        state = self._text(self.chosen.state, place)
        if state and short(state) not in ENDED_WELL:
            return FAILED, f"{self.chosen.state} is {shortened(state)}"
        if value is None:
            return FAILED, f"nothing in column {shortened(self.chosen.metrics[0])}"
        return (FINISHED, None) if math.isfinite(value) else (DIVERGED, None)

    def check_units(self, runs: Sequence[FileRun]) -> None:
        """Percentages beside fractions, and what is neither."""
        known = [(run.line, run.values[0]) for run in runs if run.values[0] is not None]
        wrong = {"percent": _no_percentage, "fraction": _no_fraction}.get(self.chosen.unit)
        if wrong is None:
            return
        values = [value for _, value in known]
        span = (
            min((value for value in values if 1.0 < value <= PERCENT), default=None),
            max((value for value in values if value <= 1.0), default=None),
        )
        for line, value in known:
            if said := wrong(value, *span):
                self.add(line, said, self.chosen.metrics[0])

    def check_twice(self, runs: Sequence[FileRun]) -> None:
        """Two lines that say they are the same run."""
        first: dict[tuple[str, str | None, str, int], int] = {}
        for run in runs:
            if run.seed is None:
                continue
            key = (run.table, run.column, run.row, run.seed)
            if (line := first.setdefault(key, run.line)) != run.line:
                what = (
                    f"row '{shortened(run.row)}' has seed {run.seed} twice, here and on line {line}; take "
                    "one out, "
                    "or say --column or --table where another column tells them apart"
                )
                self.add(run.line, what, self.chosen.seed)


def _no_percentage(value: float, least: float | None, most: float | None) -> str:
    """What is wrong with a percentage; "": nothing.

    Of the file: `least` is its smallest value above 1, which can be nothing else; `most` its largest up to 1.
    """
    if not 0.0 <= value <= PERCENT:
        return f"{value:g} is no percentage (0 to 100); mend it, or say --plain"
    if not 0.0 < value <= 1.0:
        return ""
    if least is None:
        return f"{value:g} is at most 1, as all of them: say --fraction"
    # Percentages that go down to some thousandths, as on ImageNet-A, leave no gap; fractions beside them do.
    if value * PERCENT < least or (most is not None and least < GAP * most):
        return ""
    return f"{value:g} is a fraction beside percentages ({least:g} and above): write {value * PERCENT:g}"


def _no_fraction(value: float, _least: float | None, most: float | None) -> str:
    """The same of a fraction."""
    if 0.0 <= value <= 1.0:
        return ""
    if not 1.0 < value <= PERCENT:
        mend = "mend it, or say --plain"
    else:
        mend = "all are percentages: say --percent" if most is None else "percent beside fractions: mend it"
    return f"{value:g} is no fraction (0 to 1); {mend}"


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in NOTHING)


def _number(value: Any, decimal_comma: bool) -> float | None:
    """A number as it stands in a file; None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float) or hasattr(value, "__float__"):
        return float(value)
    text = str(value).strip()
    if text.lower() in NOT_FINITE:
        return float(text)
    if decimal_comma and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    if "_" in text or not text.isascii():
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _no_number(text: str) -> str:
    shown = f"'{shortened(text)}' is no number"
    if text.rstrip().endswith("%"):
        return f"{shown}: leave out the sign and say --percent"
    if "±" in text or "+-" in text:
        return f"{shown}: one line is one run; take the spread out"
    if re.fullmatch(r"[-+]?\d+,\d+", text.strip()):
        return f"{shown}: a decimal comma is read where ; or a tab separates columns, write a point here"
    return shown


# Which test images one run had right.


def read_right(path: Path) -> NDArray[np.uint8]:
    """1 for each test image that the run had right, else 0, (N,).

    Of a .npy, a .npz with one array or one called `correct`, or a text with one line an image, below a name
    or not.

    Raises:
        ValueError: what is wrong with it, in words.
    """
    import numpy as np

    try:
        if path.suffix not in (".npy", ".npz"):
            words = path.read_text(encoding="utf-8-sig").split()
            named = bool(words) and not words[0].isdigit()
            found: Any = np.array([{"0": 0, "1": 1}.get(word, 2) for word in words[named:]])
        else:
            found = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            names = found.files
            if "correct" not in names and len(names) != 1:
                raise ValueError(f"has the arrays {listed(names)}; one, or one called correct, is needed")
            found = found["correct" if "correct" in names else names[0]]
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"is damaged: {error}") from None
    if found.ndim != 1 or not found.size or found.dtype.kind not in "biuf":
        raise ValueError("must have one number for each test image")
    if not (fits := np.isin(found, (0, 1))).all():
        raise ValueError(f"has neither 1 (right) nor 0 for image {int(np.argmin(fits)) + 1}")
    right: NDArray[np.uint8] = found.astype(np.uint8)
    return right


# From runs to a plan and records.


def results_of(source: ResultsFile, asked: Asked) -> FileResults:
    """A file as a plan and records.

    Raises:
        StudyError: every mistake, with its line and column.
    """
    chosen = choose(source, asked)
    runs = read_runs(source, chosen)
    labels = {run.row for run in runs}
    if len(labels) == 1:
        what = f"every line is a run of '{shortened(runs[0].row)}': nothing to compare; say --row"
        raise source.wrong(source.head, f"{what}. Columns: {listed(source.names)}", chosen.rows[0])
    versus = _versus(source, chosen, asked.versus, runs)
    return _Making(source=source, chosen=chosen, runs=runs, versus=versus).results()


def _versus(source: ResultsFile, chosen: Chosen, asked: str | None, runs: Sequence[FileRun]) -> str:
    """The row that the others are compared with: as said, else one that is called so, else the first."""
    labels = dict.fromkeys(run.row for run in runs)
    if asked == ABOVE and asked not in labels:
        return ABOVE
    if asked is not None:
        if asked not in labels:
            raise source.wrong(source.head, unknown("row", asked, labels), chosen.rows[0])
        return asked
    called = {short(label): label for label in reversed(labels)}
    return next((called[name] for name in REFERENCES if name in called), runs[0].row)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Making:
    """The runs of one file on their way into a plan."""

    source: ResultsFile
    chosen: Chosen
    runs: Sequence[FileRun]
    versus: str

    def results(self) -> FileResults:
        numbered = [(run, seed) for run, seed in zip(self.runs, self._seeds(), strict=True)]
        arms: dict[tuple[str, str | None, str], str] = {}
        own: dict[str, list[int]] = {}
        planned = []
        for run, seed in numbered:
            key = (run.table, run.column, run.row)
            if key not in arms:
                arms[key] = digest(canonical_json([OF_A_FILE, *key]))
            own.setdefault(arms[key], []).append(seed)
            planned.append(
                PlannedRun(
                    run_id=run_id(arms[key], seed), arm_id=arms[key], seed=seed, needs=(), macs=0.0, done=True
                )
            )
        why_welch = self._why_welch(own)
        metric = self._names()[0]
        plan = Plan(
            study=_study_name(self.source.path),
            size=OF_A_FILE,
            seeds=tuple(sorted({seed for seeds in own.values() for seed in seeds})),
            header=self._header(),
            tables=self._tables(arms),
            arms={},
            arm_labels={arm: " / ".join(filter(None, (t, r, c))) for (t, c, r), arm in arms.items()},
            runs=planned,
            notes=tuple(self._notes(own, why_welch)),
            own_seeds={arm: tuple(sorted(seeds)) for arm, seeds in own.items()},
        )
        records = self._records(planned)
        return FileResults(
            plan=plan,
            records=records,
            metric=metric,
            chosen=self.chosen,
            seeds_shared=not why_welch,
            notes=plan.notes,
        )

    def _seeds(self) -> Iterator[int]:
        """The file's seeds; without any, the runs of each row are counted."""
        seen: Counter[tuple[str, str | None, str]] = Counter()
        for run in self.runs:
            if run.seed is not None:
                yield run.seed
                continue
            key = (run.table, run.column, run.row)
            yield seen[key]
            seen[key] += 1

    def _why_welch(self, own: Mapping[str, Sequence[int]]) -> str:
        """Why no fit over the seeds is made; "": it is."""
        each = "every comparison is Welch's test, in which each row has its own variance."
        counts = Counter(seed for seeds in own.values() for seed in seeds)
        if self.chosen.seed is None:
            return f"The file has no seeds: no two runs are paired, and {each}"
        if max(counts.values()) < 2:
            return f"No two rows share a seed: {each}"
        if len(self.runs) * (len(own) + len(counts)) > LARGEST_FIT:
            return f"There are too many runs for one fit over all seeds: {each}"
        return ""

    def _names(self) -> list[str]:
        """The metrics as records call them."""
        names: list[str] = []
        for column in self.chosen.metrics:
            name = short(column) or "metric"
            is_own = name in OWN_RESULTS and (self.chosen.unit != "plain" or name == "loss")
            if (name in RESERVED and not is_own) or name in names:
                name = f"{name}_{len(names) + 1}"
            names.append(name)
        return names

    def _scale(self, place: int) -> float:
        return PERCENT if place == 0 and self.chosen.unit == "fraction" else 1.0

    def _header(self) -> dict[str, Any]:
        chosen, names = self.chosen, self._names()
        said = {"rows": " and ".join(chosen.rows), "seed": chosen.seed, "metric": chosen.metrics[0]}
        said |= {name: getattr(chosen, name) for name in ("table", "column", "paper", "state", "images")}
        return {
            "title": f"Results of {PurePath(self.source.path).name}",
            "question": "",
            "metric": names[0],
            "metrics": names[1:],
            "smallest_effect": chosen.smallest_effect,
            "smoke": False,
            "results": {
                "file": PurePath(self.source.path).name,
                "kind": self.source.kind,
                "sha256": self.source.sha256,
                "lines": len(self.runs),
                "columns": {name: column for name, column in said.items() if column is not None},
                "unit": chosen.unit,
                "lower_is_better": chosen.lower_is_better,
                "versus": self.versus,
                **({"classes": self._class_names()} if chosen.classes else {}),
            },
        }

    def _tables(self, arms: Mapping[tuple[str, str | None, str], str]) -> tuple[PlanTable, ...]:
        paper, metric = self._paper(), self._names()[0]
        keys: dict[str, str] = {}
        tables = []
        of_table: dict[str, list[tuple[str, str | None, str]]] = {}
        for key in arms:
            of_table.setdefault(key[0], []).append(key)
        for table, inside in of_table.items():
            rows = {row: place for place, row in enumerate(dict.fromkeys(row for _, _, row in inside))}
            labels = list(rows)
            above = dict(zip(labels[1:], labels, strict=False))
            first = self.versus if self.versus in rows else labels[0]
            cells = [
                Cell(
                    row=row,
                    column=column,
                    arm_id=arms[table, column, row],
                    tricks=(),
                    versus=above.get(row) if self.versus == ABOVE else None if row == first else first,
                    paper={metric: paper[table, column, row]} if (table, column, row) in paper else {},
                )
                for _, column, row in sorted(inside, key=lambda key: rows[key[2]])
            ]
            keys[table] = _key(table, keys.values())
            columns = tuple(dict.fromkeys(column for _, column, _ in inside))
            title = table if table != OF_A_FILE or self.chosen.table else PurePath(self.source.path).name
            tables.append(
                PlanTable(key=keys[table], title=title, design=OF_A_FILE, columns=columns, cells=tuple(cells))
            )
        return tuple(tables)

    def _paper(self) -> dict[tuple[str, str | None, str], PaperValue]:
        """The printed value of each row, which its lines must agree on."""
        found: dict[tuple[str, str | None, str], tuple[float, int]] = {}
        for run in self.runs:
            if run.paper is None:
                continue
            key = (run.table, run.column, run.row)
            value, line = found.setdefault(key, (run.paper, run.line))
            if value != run.paper:
                what = f"row '{shortened(run.row)}' has {run.paper:g} here and {value:g} on line {line}"
                raise self.source.wrong(run.line, f"{what}; a row has one printed value", self.chosen.paper)
        scale = self._scale(0)
        return {key: PaperValue(value=value * scale, status="verified") for key, (value, _) in found.items()}

    def _notes(self, own: Mapping[str, Sequence[int]], why_welch: str) -> Iterator[str]:
        yield from filter(None, (why_welch, self.source.note))
        counts = {len(seeds) for seeds in own.values()}
        if len(counts) > 1:
            yield f"The rows have {min(counts)} to {max(counts)} runs each, as the file has them."

    def _records(self, planned: Sequence[PlannedRun]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {
            "run_id": [run.run_id for run in planned],
            "arm_id": [run.arm_id for run in planned],
            "seed": [run.seed for run in planned],
            "status": [run.status for run in self.runs],
            "error": [run.reason for run in self.runs],
            "line": [run.line for run in self.runs],
        }
        for place, name in enumerate(self._names()):
            scale = self._scale(place)
            values = [run.values[place] for run in self.runs]
            columns[name] = [math.nan if value is None else value * scale for value in values]
        for place, name in enumerate(self._class_names()):
            values = [run.classes[place] for run in self.runs]
            columns[name] = [math.nan if value is None else value * self._scale(0) for value in values]
        if self.chosen.images:
            columns["predictions"] = [run.right for run in self.runs]
            columns["test_images"] = [run.images for run in self.runs]
        return columns

    def _class_names(self) -> dict[str, str]:
        """The column of records of each class -> the class."""
        return {f"class {name}": name for name in self.chosen.classes.values()}


def _study_name(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", PurePath(path).stem).strip("_").lower()[:60] or OF_A_FILE


def _key(title: str, taken: Iterable[str]) -> str:
    """A table's name as a file of it is called."""
    key = short(title)[:40] or "table"
    if key[0].isdigit():
        key = f"table_{key}"
    used, number = set(taken), 2
    while key in used:
        key, number = f"{key}_{number}", number + 1
    return key
