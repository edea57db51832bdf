"""Runs of a file of results made into a plan and records: which rows and seeds there are.

The plan has rows and seeds as a study's has, and no recipes: how the runs were trained is not known here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import PurePath
from typing import Any

from harness.errors import shortened, unknown
from harness.results.lines import REFERENCES, Asked, Chosen, ResultsFile, choose, listed, short
from harness.results.reading import PERCENT, FileRuns, Key, are_finite, read_runs
from harness.spec import canonical_json, digest, run_id
from harness.study.plan import OF_A_FILE, Cell, PaperValue, Plan, PlannedRun, PlanTable
from harness.study.reserved import METRICS as RESERVED
from harness.study.reserved import RESULTS as OWN_RESULTS

ABOVE = "previous"  # in place of a row's label: each row is compared with the one above it
LARGEST_FIT = 4_000_000  # runs times (rows + seeds) of a table, up to which a block fit is made


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResults:
    """A plan without recipes, what its runs came to, and what a reader must know of both."""

    plan: Plan
    records: Mapping[str, Sequence[Any]]  # column -> one value per run, as a frame of records has them
    metric: str
    chosen: Chosen
    seeds_shared: bool
    notes: tuple[str, ...] = field(default=())


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
        if self._largest_fit(own, len(counts)) > LARGEST_FIT:
            return f"There are too many runs for one fit over all seeds: {each}"
        return ""

    def _largest_fit(self, own: Mapping[str, Sequence[int]], seeds: int) -> int:
        """Runs times (rows + seeds) of the largest table: each table has a fit of its own."""
        whole = len(self.runs.keys) * (len(own) + seeds)
        if whole <= LARGEST_FIT:
            return whole
        runs = Counter(table for table, _, _ in self.runs.keys)
        rows = Counter(table for table, _, _ in set(self.runs.keys))
        return max(runs[table] * (rows[table] + seeds) for table in runs)

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
    if are_finite(values):
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
