"""Lines of results made into a plan and records: what is wrong with a line, which rows and seeds there are.

The plan has rows and seeds as a study's has, and no recipes: how the runs were trained is not known here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path, PurePath
from typing import Any

from harness.errors import Problem, StudyError, counted, shortened, unknown
from harness.results import read_right
from harness.results.lines import REFERENCES, Asked, Chosen, Lines, ResultsFile, choose, listed, short
from harness.spec import DIVERGED, FAILED, FINISHED, canonical_json, digest, run_id
from harness.study.plan import OF_A_FILE, Cell, PaperValue, Plan, PlannedRun, PlanTable
from harness.study.reserved import METRICS as RESERVED
from harness.study.reserved import RESULTS as OWN_RESULTS

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


Key = tuple[str, str | None, str]  # table, column and row: what a run is one of


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRuns:
    """The lines of the file by columns, one value per run: of 100,000 lines, objects would take a second."""

    lines: Sequence[int]
    keys: Sequence[Key]
    seeds: Sequence[int] | None  # None: the file has no seeds
    values: Sequence[Sequence[float | None]]  # one column per metric; None: nothing there
    papers: Sequence[float | None]
    statuses: Sequence[str]
    reasons: Sequence[str | None]
    classes: Sequence[Sequence[float | None]]  # one column per class
    right: Sequence[bytes | None]  # one bit per test image, packed; None: not known
    images: Sequence[int]


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


def read_runs(source: ResultsFile, chosen: Chosen) -> FileRuns:
    """Every line as a run.

    Raises:
        StudyError: the lines that are wrong, each with its column; at most `MOST_PROBLEMS`.
    """
    lines = source.read(chosen.wanted)
    if not len(lines.at):
        raise source.wrong(source.head, "there is no line below the names of the columns")
    return _Reading(source=source, chosen=chosen, lines=lines).runs()


@dataclass(slots=True, kw_only=True)
class _Reading:
    """The lines of one file, and what is wrong with them so far."""

    source: ResultsFile
    chosen: Chosen
    lines: Lines
    wrong: dict[int, list[tuple[str, str | None]]] = field(default_factory=dict)  # place -> what, column
    problems: list[Problem] = field(default_factory=list)
    images: tuple[int, int] | None = None  # of the first file of answers: how many images, and on which line

    def add(self, line: int, message: str, column: str | None) -> None:
        self.problems.append(self.source.problem(line, message, column))

    def raise_if_any(self) -> None:
        said, more = self.problems[:MOST_PROBLEMS], self.problems[MOST_PROBLEMS:]
        if more:
            what = f"and {counted(len(more), 'more mistake')} from here on"
            said.append(Problem(self.source.path, more[0].line, what))
        if said:
            raise StudyError(said)

    def runs(self) -> FileRuns:
        """All columns, in the order in which a line's mistakes are said."""
        chosen, nothing = self.chosen, [None] * len(self.lines.at)
        rows = self._labels()
        seeds = None if chosen.seed is None else self._column(chosen.seed, self._seed)
        values = [self._numbers(name) for name in chosen.metrics]
        papers = nothing if chosen.paper is None else self._numbers(chosen.paper)
        classes = [self._column(name, self._of_class) for name in chosen.classes]
        right = self._answers(values[0]) if chosen.images else [(None, 0)] * len(self.lines.at)
        statuses, reasons = self._ends(values[0])
        tables = [table or OF_A_FILE for table in self._texts(chosen.table)]
        columns = [column or None for column in self._texts(chosen.column)]
        runs = FileRuns(
            lines=self.lines.at, keys=list(zip(tables, columns, rows, strict=True)), seeds=seeds,
            values=values, papers=papers, statuses=statuses, reasons=reasons, classes=classes,
            right=[bits for bits, _ in right], images=[size for _, size in right],
        )  # fmt: skip
        for place in sorted(self.wrong):
            for what, name in self.wrong[place]:
                self.add(self.lines.at[place], what, name)
        self.check_units(runs)
        self.check_twice(runs)
        self.raise_if_any()
        return runs

    def _column(self, name: str, of_one: Callable[[Any], Any]) -> list[Any]:
        """Each cell as `of_one` reads it; None, and a mistake of its line, where it raises ValueError."""
        cells = self.lines.cells[name]
        try:
            return _each(cells, of_one)
        except ValueError:
            return [self._one(name, place, partial(of_one, cell)) for place, cell in enumerate(cells)]

    def _one(self, name: str | None, place: int, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except ValueError as error:
            self.wrong.setdefault(place, []).append((str(error), name))
            return None

    def _numbers(self, name: str) -> list[float | None]:
        """None where nothing is there; not finite where the run diverged."""
        found = _all_numbers(self.lines.cells[name])
        return self._column(name, self._value) if found is None else list(found)

    def _of_class(self, cell: Any) -> float | None:
        value, most = self._value(cell), MOST.get(self.chosen.unit, math.inf)
        if value is not None and most < math.inf and math.isfinite(value) and not 0.0 <= value <= most:
            word = {"percent": "percentage"}.get(self.chosen.unit, self.chosen.unit)
            raise ValueError(f"{value:g} is no {word} (0 to {most:g})")
        return value

    def _answers(self, values: Sequence[float | None]) -> list[tuple[bytes | None, int]]:
        """Which images each run had right, packed, and of how many."""
        name = self.chosen.images
        found = []
        for place, (file, value) in enumerate(zip(self._texts(name), values, strict=True)):
            read = partial(self._right, file, value, self.lines.at[place])
            found.append(self._one(name, place, read) or (None, 0))
        return found

    def _right(self, name: str, value: float | None, line: int) -> tuple[bytes | None, int]:
        """The file of a run's answers, which must be of as many images as the others, and of this run."""
        import numpy as np

        chosen = self.chosen
        if not name:
            return None, 0
        try:
            right = read_right(Path(self.source.path).parent / name)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
        if self.images is None:
            self.images = right.size, line
        if right.size != self.images[0]:
            most, first = self.images
            what = f"{name} has {counted(right.size, 'image')}, that of line {first} has {most}"
            raise ValueError(f"{what}: all runs need the same test images")
        share = float(right.mean()) * MOST[chosen.unit]
        share = MOST[chosen.unit] - share if chosen.lower_is_better else share
        if value is not None and abs(share - value) > ROUNDED * MOST[chosen.unit]:
            what = f"by {name} it is {share:.4g}, the column '{shortened(chosen.metrics[0])}' says {value:g}"
            raise ValueError(f"{what}: they are not of one run")
        return np.packbits(right).tobytes(), right.size

    def _texts(self, name: str | None) -> list[str]:
        return [""] * len(self.lines.at) if name is None else _each(self.lines.cells[name], _text)

    def _labels(self) -> list[str]:
        rows = self.chosen.rows
        columns = [self._texts(name) for name in rows]
        if len(rows) > 1:
            named = [re.split("[./]", name)[-1] for name in rows]
            known = {
                texts: ", ".join(f"{name} {text or 'none'}" for name, text in zip(named, texts, strict=True))
                for texts in set(zip(*columns, strict=True))
            }
            return [known[texts] for texts in zip(*columns, strict=True)]
        if "" in columns[0]:
            what = "is empty: every line must say which row it is a run of"
            self.wrong |= {place: [(what, rows[0])] for place, text in enumerate(columns[0]) if not text}
        return columns[0]

    def _seed(self, cell: Any) -> int:
        found = _number(cell, self.source.decimal_comma)
        if found is not None and math.isfinite(found) and found == int(found) and abs(found) < LARGEST_SEED:
            return int(cell) if isinstance(cell, str) and cell.lstrip("+-").isdigit() else int(found)
        what = "is empty" if _is_nothing(cell) else f"'{shortened(str(cell))}' is no whole number"
        raise ValueError(f"{what}: a seed is one, such as 0")

    def _value(self, cell: Any) -> float | None:
        """A number; None where nothing is there; not finite where the run diverged."""
        if _is_nothing(cell):
            return None
        found = _number(cell, self.source.decimal_comma)
        if found is None:
            raise ValueError(_no_number(str(cell)))
        if abs(found) > LARGEST and math.isfinite(found):
            raise ValueError(f"{found:g} is too large to be reckoned with")
        return found

    def _ends(self, values: Sequence[float | None]) -> tuple[list[str], list[str | None]]:
        """What came of each run. One that did not end well has a metric of some other time than the end."""
        statuses, found = [FINISHED] * len(values), list[str | None]([None] * len(values))
        if not _are_finite(values):
            empty = f"nothing in column {shortened(self.chosen.metrics[0])}"
            ends = {True: FINISHED, False: DIVERGED}
            statuses = [FAILED if each is None else ends[math.isfinite(each)] for each in values]
            found = [empty if each is None else None for each in values]
        for place, why in enumerate(_each(self._texts(self.chosen.state), self._failed)):
            if why:
                statuses[place], found[place] = FAILED, why
        return statuses, found

    def _failed(self, state: str) -> str:
        ended = not state or short(state) in ENDED_WELL
        return "" if ended else f"{self.chosen.state} is {shortened(state)}"

    def check_units(self, runs: FileRuns) -> None:
        """Percentages beside fractions, and what is neither."""
        values = [math.nan if place in self.wrong else value for place, value in enumerate(runs.values[0])]
        known = [value for value in values if value is not None and math.isfinite(value)]
        wrong = {"percent": _no_percentage, "fraction": _no_fraction}.get(self.chosen.unit)
        if wrong is None or not known or _fit(self.chosen.unit, known):
            return
        least = min((value for value in known if 1.0 < value <= PERCENT), default=None)
        most = max((value for value in known if value <= 1.0), default=None)
        for line, value in zip(runs.lines, values, strict=True):
            if value is not None and math.isfinite(value) and (said := wrong(value, least, most)):
                self.add(line, said, self.chosen.metrics[0])

    def check_twice(self, runs: FileRuns) -> None:
        """Two lines that say they are the same run."""
        if runs.seeds is None:
            return
        names = list(zip(runs.keys, runs.seeds, strict=True))
        if len(set(names)) == len(names):
            return
        first: dict[tuple[Key, int], int] = {}
        for place, (name, seen) in enumerate(zip(names, runs.lines, strict=True)):
            if place not in self.wrong and (line := first.setdefault(name, seen)) != seen:
                what = (
                    f"row '{shortened(name[0][2])}' has seed {name[1]} twice, here and on line {line}; take "
                    "one out, or say --column or --table where another column tells them apart"
                )
                self.add(seen, what, self.chosen.seed)


def _each(cells: Sequence[Any], of_one: Callable[[Any], Any]) -> list[Any]:
    """Of every cell; texts that are there more than once are looked at once."""
    if set(map(type, cells)) != {str}:
        return list(map(of_one, cells))
    known = {cell: of_one(cell) for cell in set(cells)}
    return [known[cell] for cell in cells]


def _text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else " ".join(str(cell).split())


def _all_numbers(cells: Sequence[Any]) -> list[float] | None:
    """Texts that all are numbers as `_number` reads them; None: each has to be looked at."""
    import numpy as np

    if set(map(type, cells)) != {str}:
        return None
    every = "".join(cells)
    if not every.isascii() or "_" in every:
        return None
    try:
        found = np.array(list(map(float, cells)))
    except ValueError:
        return None
    too_large = (np.abs(found) > LARGEST) & np.isfinite(found)
    return None if too_large.any() else found.tolist()


def _are_finite(values: Sequence[float | None]) -> bool:
    return None not in values and all(map(math.isfinite, values))  # type: ignore[arg-type]


def _fit(unit: str, values: Sequence[float]) -> bool:
    """Whether all plainly are of the unit, so that none has to be looked at by itself."""
    return max(values) <= MOST[unit] and min(values) >= 0.0 and (unit == "fraction" or min(values) > 1.0)


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


# From runs to a plan and records.


def results_of(source: ResultsFile, asked: Asked) -> FileResults:
    """A file as a plan and records.

    Raises:
        StudyError: every mistake, with its line and column.
    """
    chosen = choose(source, asked)
    runs = read_runs(source, chosen)
    labels = dict.fromkeys(row for _, _, row in dict.fromkeys(runs.keys))
    if len(labels) == 1:
        what = f"every line is a run of '{shortened(runs.keys[0][2])}': nothing to compare; say --row"
        raise source.wrong(source.head, f"{what}. Columns: {listed(source.names)}", chosen.rows[0])
    versus = _versus(source, chosen, asked.versus, list(labels))
    return _Making(source=source, chosen=chosen, runs=runs, versus=versus).results()


def _versus(source: ResultsFile, chosen: Chosen, asked: str | None, labels: Sequence[str]) -> str:
    """The row that the others are compared with: as said, else one that is called so, else the first."""
    if asked == ABOVE and asked not in labels:
        return ABOVE
    if asked is not None:
        if asked not in labels:
            raise source.wrong(source.head, unknown("row", asked, labels), chosen.rows[0])
        return asked
    called = {short(label): label for label in reversed(labels)}
    return next((called[name] for name in REFERENCES if name in called), labels[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Making:
    """The runs of one file on their way into a plan."""

    source: ResultsFile
    chosen: Chosen
    runs: FileRuns
    versus: str

    def results(self) -> FileResults:
        seeds = self._seeds()
        arms = {key: digest(canonical_json([OF_A_FILE, *key])) for key in dict.fromkeys(self.runs.keys)}
        own: dict[str, list[int]] = {arm: [] for arm in arms.values()}
        planned = []
        for key, seed in zip(self.runs.keys, seeds, strict=True):
            arm = arms[key]
            own[arm].append(seed)
            run = PlannedRun(run_id=run_id(arm, seed), arm_id=arm, seed=seed, needs=(), macs=0.0, done=True)
            planned.append(run)
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
            plan=plan, records=records, metric=metric, chosen=self.chosen, seeds_shared=not why_welch,
            notes=plan.notes,
        )  # fmt: skip

    def _seeds(self) -> Sequence[int]:
        """The file's seeds; without any, the runs of each row are counted."""
        if self.runs.seeds is not None:
            return self.runs.seeds
        counters: dict[Key, Iterator[int]] = {}
        return [next(counters.setdefault(key, count())) for key in self.runs.keys]

    def _why_welch(self, own: Mapping[str, Sequence[int]]) -> str:
        """Why no fit over the seeds is made; "": it is."""
        each = "every comparison is Welch's test, in which each row has its own variance."
        counts = Counter(chain.from_iterable(own.values()))
        if self.chosen.seed is None:
            return f"The file has no seeds: no two runs are paired, and {each}"
        if max(counts.values()) < 2:
            return f"No two rows share a seed: {each}"
        if len(self.runs.keys) * (len(own) + len(counts)) > LARGEST_FIT:
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
                "lines": len(self.runs.keys),
                "columns": {name: column for name, column in said.items() if column is not None},
                "unit": chosen.unit,
                "lower_is_better": chosen.lower_is_better,
                "versus": self.versus,
                **({"classes": self._class_names()} if chosen.classes else {}),
            },
        }

    def _tables(self, arms: Mapping[Key, str]) -> tuple[PlanTable, ...]:
        paper, metric = self._paper(), self._names()[0]
        tables = []
        of_table: dict[str, list[Key]] = {}
        for key in arms:
            of_table.setdefault(key[0], []).append(key)
        keys = _keys(of_table)
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
            columns = tuple(dict.fromkeys(column for _, column, _ in inside))
            title = table if table != OF_A_FILE or self.chosen.table else PurePath(self.source.path).name
            tables.append(
                PlanTable(key=keys[table], title=title, design=OF_A_FILE, columns=columns, cells=tuple(cells))
            )
        return tuple(tables)

    def _paper(self) -> dict[Key, PaperValue]:
        """The printed value of each row, which its lines must agree on."""
        found: dict[Key, tuple[float, int]] = {}
        for key, paper, at in zip(self.runs.keys, self.runs.papers, self.runs.lines, strict=True):
            if paper is None:
                continue
            value, line = found.setdefault(key, (paper, at))
            if value != paper:
                what = f"row '{shortened(key[2])}' has {paper:g} here and {value:g} on line {line}"
                raise self.source.wrong(at, f"{what}; a row has one printed value", self.chosen.paper)
        scale = self._scale(0)
        return {key: PaperValue(value=value * scale, status="verified") for key, (value, _) in found.items()}

    def _notes(self, own: Mapping[str, Sequence[int]], why_welch: str) -> Iterator[str]:
        yield from filter(None, (why_welch, self.source.note))
        counts = {len(seeds) for seeds in own.values()}
        if len(counts) > 1:
            yield f"The rows have {min(counts)} to {max(counts)} runs each, as the file has them."

    def _records(self, planned: Sequence[PlannedRun]) -> dict[str, Sequence[Any]]:
        runs = self.runs
        columns: dict[str, Sequence[Any]] = {
            "run_id": [run.run_id for run in planned],
            "arm_id": [run.arm_id for run in planned],
            "seed": [run.seed for run in planned],
            "status": runs.statuses,
            "error": runs.reasons,
            "line": list(runs.lines),
        }
        for place, (name, values) in enumerate(zip(self._names(), runs.values, strict=True)):
            columns[name] = _scaled(values, self._scale(place))
        for name, values in zip(self._class_names(), runs.classes, strict=True):
            columns[name] = _scaled(values, self._scale(0))
        if self.chosen.images:
            columns |= {"predictions": runs.right, "test_images": runs.images}
        return columns

    def _class_names(self) -> dict[str, str]:
        """The column of records of each class -> the class."""
        return {f"class {name}": name for name in self.chosen.classes.values()}


def _scaled(values: Sequence[float | None], scale: float) -> list[float]:
    if _are_finite(values):
        return [value * scale for value in values if value is not None]
    return [value * scale if value is not None and math.isfinite(value) else math.nan for value in values]


def _study_name(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", PurePath(path).stem).strip("_").lower()[:60] or OF_A_FILE


def _keys(titles: Iterable[str]) -> dict[str, str]:
    """Of each table what its files are called: a, a_2, a_3 where titles begin alike."""
    keys: dict[str, str] = {}
    used, numbers = set[str](), dict[str, int]()
    for title in titles:
        first = short(title)[:40] or "table"
        key = first = f"table_{first}" if first[0].isdigit() else first
        while key in used:
            numbers[first] = numbers.get(first, 1) + 1
            key = f"{first}_{numbers[first]}"
        used.add(key)
        keys[title] = key
    return keys
