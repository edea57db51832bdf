"""Lines of results read as runs: what each cell says, and what is wrong with a line."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Problem, StudyError, counted, shortened
from harness.results.lines import Chosen, Lines, ResultsFile, listed, short
from harness.spec import DIVERGED, FAILED, FINISHED
from harness.study.plan import OF_A_FILE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENDED_WELL = ("finished", "completed", "complete", "done", "success", "succeeded", "ok")
NOTHING = ("", "none", "null", "n/a", "na", "-", "–", "—")
NOT_FINITE = ("nan", "inf", "+inf", "-inf", "infinity", "-infinity")
LARGEST_SEED = 2**62
LARGEST = 1e60  # of a metric: beyond it, squares of variances overflow
MOST_PROBLEMS = 20  # that are said of one file
PERCENT = 100.0
MOST = {"percent": PERCENT, "fraction": 1.0}
GAP = 10.0  # times as large as the next: what one file's values in one unit never are, near 1
ROUNDED = 0.00051  # as a share: an accuracy that was rounded to a tenth of a percent


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
        if not are_finite(values):
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


def are_finite(values: Sequence[float | None]) -> bool:
    """Whether each is there and a number."""
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
