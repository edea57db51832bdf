"""A study of a user's own command: rows are flags, runs are command lines, results are read from files.

The designs, seeds, looks and comparisons are those of every study. What a row changes is a `Use` that names
it, as a trick is; here it is looked up among the rows, and edits the command instead of a recipe.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import Location, Problem, ProblemList, StudyError, unknown
from harness.scripts.study_file import (
    FLAGS,
    IN_BRACES,
    PLACEHOLDERS,
    FlagChange,
    Line,
    ScriptRow,
    ScriptSize,
    ScriptStudy,
    ScriptTable,
    groups_of,
)
from harness.spec import ACCURACIES, ScriptArm, ScriptPlace
from harness.study.catalogue import Use, short_names
from harness.study.designs import DESIGNS, MOST_ROWS, make_rows
from harness.study.expand import ExpandOptions, Work, check_budget, check_rows, runs_of
from harness.study.plan import Cell, PaperValue, Plan, PlanTable, check_looks
from harness.study.reserved import RESULTS, check_apart, check_files, why_not
from harness.study.rows import Draft, Row, check_claims, claims_of, control_in, paper_values
from harness.study.schema import ALL, RowEntry, StudyFile, Table, parse_as
from harness.study.yaml import YamlFile, read_source

# Reading and checking.


CodeOf = Callable[[Path, Path], tuple[str | None, str | None]]
"""(a file, the study file) -> the top of the file's repository, and the digest of what it tracks."""

_LIKE_A_SCRIPT = (".py", ".sh", ".pl", ".rb", ".jl", ".R")
_FLAG = re.compile(r"""(?<![\w-])--[A-Za-z][\w-]*|(?<=['"])-[A-Za-z](?=['"])""")  # in a script's own text
_COMBINED = frozenset(name for name, design in DESIGNS.items() if design.rows_from == "tricks")


@dataclass(slots=True, kw_only=True)
class _Loading:
    """One study file on its way to plans."""

    path: Path
    file: ScriptStudy
    source: YamlFile
    problems: ProblemList
    code_of: CodeOf
    rows: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    changes: dict[str, dict[Use, FlagChange]] = field(default_factory=dict)  # of a table

    @property
    def folder(self) -> Path:
        return self.path.resolve().parent

    def known_flags(self) -> frozenset[str]:
        """The flags that the script itself names: their defaults may be replaced, too."""
        found: set[str] = set()
        for word in shlex.split(self.file.script.run):
            if word.endswith(_LIKE_A_SCRIPT) and (self.folder / word).is_file():
                found.update(_FLAG.findall((self.folder / word).read_text(errors="replace")))
        return frozenset(found)

    # What a whole study must be.

    def check(self) -> None:
        file, problems = self.file, self.problems
        if not file.tables:
            problems.add(("tables",), "the study has no tables")
        check_files(file.study, file.sizes, tuple(file.tables), problems)
        for index, named in enumerate(file.priority):
            if named not in file.tables:
                problems.add(("priority", index), unknown("table", named, file.tables))
        for name in file.script.results:
            if name not in RESULTS and (wrong := why_not("metric", name)):
                problems.add(("script", "results", name), wrong)
        if file.metric_name not in file.script.results:
            problems.add(("metric",), unknown("metric", file.metric_name, file.script.results))
        if file.metric_name not in ACCURACIES and file.smallest_effect is None:
            what = f"say smallest_effect: the difference in {file.metric_name} that matters, in its own units"
            problems.add(("metric",), what)
        if file.lower_is_better and file.metric_name in ACCURACIES:
            problems.add(("lower_is_better",), f"of {file.metric_name}, more is better")
        self._check_command()

    def _check_command(self) -> None:
        script, at = self.file.script, ("script", "run")
        words = shlex.split(script.run)
        named = [name for word in words for name in IN_BRACES.findall(word)]
        if not words:
            self.problems.add(at, "'run' is empty")
            return
        if "seed" not in named:
            mend = "a script that takes none is started by one that sets it (docs/scripts.md)"
            self.problems.add(at, f"'run' has no {{seed}}: every seed would be the same run; {mend}")
        if named.count("flags") > 1 or ("flags" in named and FLAGS not in words):
            self.problems.add(at, "{flags} stands alone, and once: it becomes several arguments")
        self.check_names(words, at)
        self.check_names(shlex.split(script.resume or ""), ("script", "resume"))
        if script.resume and "{folder}" not in script.resume:
            text = "'resume' names no file of the run, such as {folder}/last.pth, by which it is known when"
            self.problems.add(("script", "resume"), f"{text} to go on")
        self._check_program(words[0], at)
        for word in words[1:]:
            if word.endswith(_LIKE_A_SCRIPT) and not IN_BRACES.search(word) and not word.startswith("-"):
                self._check_there(word, at)

    def check_names(self, words: Iterable[str], at: Location) -> None:
        for word in words:
            for name in IN_BRACES.findall(word):
                if name not in PLACEHOLDERS:
                    braced = [f"{{{each}}}" for each in PLACEHOLDERS]
                    self.problems.add(at, unknown("placeholder", f"{{{name}}}", braced))

    def _check_program(self, word: str, at: Location) -> None:
        if IN_BRACES.search(word):
            self.problems.add(at, f"'run' begins with {word}: say a program, such as python")
        elif "/" not in word:
            if shutil.which(word) is None:
                beside = f"; ./{word} is the file beside the study" if (self.folder / word).is_file() else ""
                self.problems.add(at, f"the program '{word}' is not on the PATH{beside}")
        elif self._check_there(word, at) and shutil.which(str(self.folder / word)) is None:
            self.problems.add(
                at, f"'{word}' is not executable: chmod +x {word}, or say what runs it: sh {word}"
            )

    def _check_there(self, word: str, at: Location) -> bool:
        path = self.folder / word
        if path.is_file():
            return True
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        kin = [name for name in beside if PurePosixPath(name).suffix == path.suffix]
        self.problems.add(at, f"there is no {word} in {self.folder}; {unknown('file', path.name, kin)}")
        return False

    # Rows.

    def make_rows(self) -> None:
        for name, table in self.file.tables.items():
            at = ("tables", name)
            check_apart([row.label for row in table.rows], (*at, "rows"), self.problems, case=True)
            check_apart(list(table.columns), (*at, "columns"), self.problems, case=True)
            self.check_names(shlex.split(table.baseline), (*at, "baseline"))
            for index, row in enumerate(table.rows):
                self.check_names(shlex.split(row.flags), (*at, "rows", index, "flags"))
            self.changes[name] = {}
            made = self._grid(name, table) if table.design == "grid" else self._designed(name, table)
            self.rows[name] = tuple(made)
            check_rows(name, self.as_table(name, table), self.rows[name], self.problems)

    def as_table(self, name: str, table: ScriptTable) -> Table:
        """The table as designs and checks read it: what rows change are uses that name them."""
        keys = ("design", "exclude", "resolution", "control", "paper", "note")
        given: dict[str, Any] = {each: getattr(table, each) for each in keys if each in table.given}
        given |= {"title": table.title or name, "columns": dict.fromkeys(table.columns)}
        if table.design in _COMBINED and table.rows:
            given["tricks"] = tuple(Use(row.label) for row in table.rows)
        elif table.rows:
            given["rows"] = tuple(_entry(row) for row in table.rows)
        if table.factors:
            given["factors"] = table.factors
        return Table(**given)

    def _designed(self, name: str, table: ScriptTable) -> tuple[Row, ...]:
        at = ("tables", name)
        if table.design in _COMBINED:
            if not table.rows:
                text = (
                    f"table '{name}' is empty: the design '{table.design}' needs 'rows' to switch on and off"
                )
                self.problems.add(at, text)
                return ()
            for index, row in enumerate(table.rows):
                self._check_combined(row, (*at, "rows", index), table.design)
        for row in table.rows:
            change = FlagChange(row.label, tuple(shlex.split(row.flags)), row.replace)
            self.changes[name][Use(row.label)] = change
        return make_rows(name, self.as_table(name, table), self.problems)

    def _check_combined(self, row: ScriptRow, at: Location, design: str) -> None:
        for each in sorted(row.given - {"label", "flags", "replace"}):
            text = f"the design '{design}' makes its own rows: a row that it switches on has no '{each}'"
            self.problems.add(
                (*at, each), text + "; printed values stand under the table's 'paper'" * (each == "paper")
            )
        if not row.flags and not row.replace:
            self.problems.add(at, f"row '{row.label}' changes nothing: give it 'flags' or 'replace'")

    def _grid(self, name: str, table: ScriptTable) -> Iterator[Row]:
        """Every combination of the values of flags; all are compared with the first."""
        at: Location = ("tables", name)
        if not table.factors or table.rows:
            self.problems.add(at, "the design 'grid' needs 'factors', flags with their values, and no 'rows'")
            return
        if math.prod(len(levels) for levels in table.factors.values()) > MOST_ROWS:
            self.problems.add((*at, "factors"), f"the factors have more than {MOST_ROWS} combinations")
            return
        uses = {
            flag: [self._level(name, flag, level) for level in levels]
            for flag, levels in table.factors.items()
        }
        excluded = [{Use(_level_label(*item)) for item in part.items()} for part in table.exclude]
        for index, part in enumerate(excluded):
            for use in part - self.changes[name].keys():
                self.problems.add((*at, "exclude", index), f"no factor has the level {use.name}")
        first: str | None = None
        for chosen in itertools.product(*uses.values()):
            if any(part <= set(chosen) for part in excluded if part):
                continue
            label = ", ".join(use.name for use in chosen)
            yield Row(label, (*at, "factors"), Draft(tricks=chosen), None, first)
            first = first or label

    def _level(self, name: str, flag: str, level: Any) -> Use:
        use = Use(_level_label(flag, level))
        if use in self.changes[name]:
            self.problems.add(("tables", name, "factors", flag), f"duplicate level {use.name}")
        self.changes[name][use] = FlagChange(use.name, (), {flag: level}, either=True)
        return use


def _level_label(flag: str, level: Any) -> str:
    """
    >>> _level_label("--lr", 0.1), _level_label("--amp", True), _level_label("--amp", None)
    ('lr=0.1', 'amp', 'no amp')
    """
    name = flag.lstrip("-")
    if level is None or level is True:
        return name if level else f"no {name}"
    return f"{name}={' '.join(map(str, level)) if isinstance(level, list | tuple) else level}"


def _entry(row: ScriptRow) -> RowEntry:
    keys = ("label", "versus", "on", "paper", "columns", "note")
    given: dict[str, Any] = {each: getattr(row, each) for each in keys if each in row.given}
    return RowEntry(**given, add=(Use(row.label),) if row.flags or row.replace else ())


# From rows to arms at one size.


@dataclass(slots=True)
class _Arms:
    """The arms of a study at one size, and where they are executed here."""

    loading: _Loading
    size: ScriptSize
    data_dir: Path | None = None  # what {data} stands for where the study does not say it
    known: frozenset[str] = frozenset()  # flags that the script names
    arms: dict[str, ScriptArm] = field(default_factory=dict)
    places: dict[str, ScriptPlace] = field(default_factory=dict)

    def table(self, name: str, size_name: str) -> PlanTable:
        own = self.loading.file.tables[name]
        table = self.loading.as_table(name, own)
        columns: tuple[str | None, ...] = tuple(own.columns) or (None,)
        switches = short_names(table.tricks)
        cells = []
        for row in self.loading.rows[name]:
            at = row.location if "paper" in row.location else (*row.location, "paper")
            printed = paper_values(row, columns, at, self.loading.problems) if row.paper else {}
            for column in columns:
                if row.columns is not None and column not in row.columns:
                    continue
                try:
                    arm_id = self.arm(name, row, column)
                except ValueError as error:
                    shown = f"{name}, row '{row.label}'" + (f", column '{column}'" if column else "")
                    self.loading.problems.add(
                        row.location, str(error), row=shown, size="" if size_name == ALL else size_name
                    )
                    continue
                on = tuple(switches[use] for use in row.draft.tricks) if switches else None
                cells.append(_cell(row, column, arm_id, printed.get(column, {}), on))
        return PlanTable(
            key=name,
            title=table.title,
            design=own.design,
            columns=columns,
            cells=tuple(cells),
            note=own.note,
            control=control_in(table, tuple(cells)),
            switches=tuple(switches.values()),
            ground=f"{own.baseline} {list(own.columns)} {sorted(map(str, table.tricks))}" if switches else "",
        )

    def arm(self, name: str, row: Row, column: str | None) -> str:
        """
        Raises:
            ValueError: its flags clash, or replace what is not there.
        """
        file = self.loading.file
        own = file.tables[name]
        line = Line(groups_of(shlex.split(file.script.run)), self.known)
        line.apply(FlagChange("baseline", tuple(shlex.split(own.baseline))), in_order=True)
        line.apply(FlagChange("the size", tuple(shlex.split(self.size.flags))), in_order=True)
        if column is not None:
            of_column = own.columns[column]
            change = FlagChange(column, tuple(shlex.split(of_column.flags)), of_column.replace)
            line.apply(change, in_order=True)
        line.of.clear()
        for use in row.draft.tricks:
            line.apply(self.loading.changes[name][use], in_order=own.design not in _COMBINED)
        return self._added(line.words())

    def _added(self, words: tuple[str, ...]) -> str:
        data = self.data
        if data is None and any("{data}" in word for word in words):
            if self.data_dir is None:
                raise ValueError("the command names {data}; say data: FOLDER in the script or in the size")
            data = str(self.data_dir.absolute())
        found = _Files(self.loading.folder)
        command = tuple(found.named(word, is_first=place == 0) for place, word in enumerate(words))
        repository, code = self._code(found)
        script = self.loading.file.script
        arm = ScriptArm(command=command, results=dict(script.results), files=found.hashes, repository=code)
        self.arms.setdefault(arm.arm_id, arm)
        self.places[arm.arm_id] = ScriptPlace(
            folder=str(self.loading.folder),
            data=data,
            paths=found.paths,
            resume=tuple(shlex.split(script.resume or "")),
            progress=script.progress,
            grace_s=script.grace,
            repository=repository,
            study=str(self.loading.path.resolve()),
            command_id=arm.command_id,
        )
        return arm.arm_id

    def _code(self, found: _Files) -> tuple[str | None, str | None]:
        main = found.first or self.loading.folder / "study"
        return self.loading.code_of(main, self.loading.path.resolve())

    @property
    def data(self) -> str | None:
        given = self.size.data or self.loading.file.script.data
        return None if given is None else str((self.loading.folder / Path(given).expanduser()).absolute())


@dataclass(slots=True)
class _Files:
    """The files that a command names: hashed, and those elsewhere called by their name in braces."""

    folder: Path
    hashes: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    first: Path | None = None  # the script, as far as can be told

    def named(self, word: str, *, is_first: bool) -> str:
        """The argument without a path of this machine."""
        flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if not value or IN_BRACES.search(value) or (is_first and "/" not in value):
            return word
        path = self.folder / value
        try:
            if not path.is_file():
                return word
        except (OSError, ValueError):  # too long, or no name that a file can have
            return word
        elsewhere = Path(value).is_absolute() or ".." in PurePosixPath(value).parts
        shown = self._in_braces(path) if elsewhere else value
        if not (is_first and elsewhere):  # an interpreter, of which versions come and go
            self.hashes[shown] = sha256_of(str(path), path.stat().st_mtime_ns)
            self.first = self.first or path
        return f"{flag}{equals}{shown}"

    def _in_braces(self, path: Path) -> str:
        resolved = str(path.absolute())
        taken = path.name in PLACEHOLDERS
        for count in itertools.count(2 if taken else 1):
            name = f"{{{path.name}{'' if count == 1 else f':{count}'}}}"
            if self.paths.setdefault(name, resolved) == resolved:
                return name
        raise AssertionError


RACY_NS = 2_000_000_000  # a file that changed so shortly before it was read may change again unseen


def sha256_of(path: str, modified_ns: int) -> str:
    """Of a file's content; read once while it is not touched."""
    is_settled = time.time_ns() - modified_ns > RACY_NS
    return _sha256(path, modified_ns) if is_settled else _sha256.__wrapped__(path, modified_ns)


@cache
def _sha256(path: str, modified_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cell(
    row: Row, column: str | None, arm_id: str, printed: Mapping[str, PaperValue], on: tuple[str, ...] | None
) -> Cell:
    return Cell(
        row=row.label,
        column=column,
        arm_id=arm_id,
        tricks=tuple(use.name for use in row.draft.tricks),
        versus=row.versus,
        paper=printed,
        note=row.note,
        switched_on=on,
    )


# The plan.


def plan_scripts(path: Path, code_of: CodeOf, options: ExpandOptions, data_dir: Path | None = None) -> Plan:
    """The plan of a study with a script, at one size: of an adaptive study, as it is before the first look.

    data_dir: what {data} stands for where the study does not say it.

    Raises:
        StudyError: every mistake in the file, each with its line, the nearest valid name and the valid ones.
    """
    loading = _load(path, code_of)
    file, source = loading.file, loading.source
    sizes = file.sizes or {ALL: ScriptSize()}
    known = loading.known_flags()
    plans = {name: _Arms(loading, size, data_dir, known) for name, size in sizes.items()}
    tables = {name: tuple(each.table(key, name) for key in file.tables) for name, each in plans.items()}
    loading.problems.raise_if_any()
    wanted = options.wanted(sizes)
    if wanted not in sizes:
        raise StudyError([Problem(str(path), source.line(("sizes",)), unknown("size", wanted, sizes))])
    if options.smoke:
        text = "a script has no smoke form of ours; give the study a small size, or say --seeds 1 --row LABEL"
        raise StudyError([Problem(str(path), source.line(("script",)), f"--smoke: {text}")])
    return _planned(loading, wanted, (sizes[wanted], plans[wanted], tables[wanted]), options)


def _load(path: Path, code_of: CodeOf) -> _Loading:
    unreadable: list[Problem] = []
    source = read_source(path, unreadable)
    problems = source.problem_list()
    file = parse_as(ScriptStudy, source.data, problems)
    if file is None:
        raise StudyError([*unreadable, *problems.problems()])
    loading = _Loading(path=path, file=file, source=source, problems=problems, code_of=cache(code_of))
    loading.check()
    loading.make_rows()
    check_claims(_as_study_file(loading), loading.rows, problems)
    if unreadable:
        raise StudyError([*unreadable, *problems.problems()])
    return loading


def _as_study_file(loading: _Loading) -> StudyFile:
    """What checks of claims and targets read of a study."""
    file = loading.file
    tables = {name: loading.as_table(name, table) for name, table in file.tables.items()}
    return StudyFile(
        study=file.study,
        question=file.question,
        metric=file.metric_name,
        sizes={},
        tables=tables,
        claims=file.claims,
    )


def _planned(
    loading: _Loading,
    name: str,
    chosen: tuple[ScriptSize, _Arms, tuple[PlanTable, ...]],
    options: ExpandOptions,
) -> Plan:
    size, made, tables = chosen
    file, source = loading.file, loading.source
    declared = (size.seeds or file.seeds).planned_looks
    looks = declared if options.seeds is None else options.seeds
    looks = (looks,) if isinstance(looks, int) else tuple(looks)
    try:
        check_looks(looks)
        work = [Work(arm_id, False, 0.0) for arm_id in made.arms]
        runs = runs_of({}, work, dict.fromkeys(made.arms, looks[0]))
        check_budget(runs, looks)
    except ValueError as error:
        raise StudyError([Problem(source.path, source.line(("seeds",)), str(error))]) from None
    return Plan(
        study=file.study,
        size=name,
        seeds=tuple(range(looks[0])),
        header=_header(loading, size, declared),
        tables=tables,
        arms={},
        arm_labels=_labels(tables),
        runs=runs,
        claims=claims_of(_as_study_file(loading), file.metric_name),
        notes=tuple(_notes(loading, made)),
        looks=looks if len(looks) > 1 else (),
        priority=file.priority,
        scripts=made.arms,
        places=made.places,
    )


def _labels(tables: Sequence[PlanTable]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for table in tables:
        for cell in table.cells:
            label = f"{table.key} / {cell.row}" + (f" / {cell.column}" if cell.column else "")
            labels.setdefault(str(cell.arm_id), label)
    return labels


def _header(loading: _Loading, size: ScriptSize, declared: tuple[int, ...]) -> dict[str, Any]:
    file = loading.file
    metric = file.metric_name
    return {
        "paper": file.paper,
        "question": file.question,
        "expect": file.expect,
        "unknown": [],
        "metric": metric,
        "metrics": [name for name in file.script.results if name != metric],
        "smallest_effect": size.smallest_effect
        or file.smallest_effect
        or StudyFile._defaults["smallest_effect"],
        "seeds": {"start": declared[0], "at_most": declared[-1]},
        "smoke": False,
        "size_line": loading.source.line(("script", "data")),
        "script": {
            "run": file.script.run,
            "results": dict(file.script.results),
            "lower_is_better": file.lower_is_better,
        },
    }


def _notes(loading: _Loading, made: _Arms) -> Iterator[str]:
    yield f"each run is: {loading.file.script.run}"
    arms = list(made.arms.values())
    hashes = {name: sha for arm in arms for name, sha in arm.files.items()}
    for name, sha in hashes.items():
        yield f"{name.strip('{}')} (sha256 {sha[:8]}) is part of what these runs are"
    codes = {arm.repository for arm in arms if arm.repository is not None}
    if codes:
        yield f"so is every file that its repository tracks (sha256 {min(codes)[:8]})"
    else:
        yield "the script is in no git repository: changes of files that it does not name go unseen"
