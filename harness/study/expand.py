"""From a study file to the plan: read, checked, laid out in cells, ordered, grown block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from harness.errors import Location, Problem, ProblemList, StudyError, unknown
from harness.spec import MEMBER_STRIDE, Arm, run_id
from harness.study.arms import Resolver
from harness.study.catalogue import RECIPES, Catalogue, Mode, Unusable, Use, short_names
from harness.study.conditions import contradictions
from harness.study.designs import MOST_ROWS, make_rows
from harness.study.names import change_source, check_names, recipe_names, with_own_size
from harness.study.plan import (
    Cell,
    PaperValue,
    Plan,
    PlannedRun,
    PlanTable,
    check_looks,
    without_garbage_collection,
)
from harness.study.plan import ExpandOptions as ExpandOptions
from harness.study.rows import (
    ArmError,
    Draft,
    Row,
    Study,
    arms_at,
    check_claims,
    check_may_fail,
    claims_of,
    control_in,
    draft,
    named_arms,
    paper_values,
)
from harness.study.schema import Size, StudyFile, Table, parse_study
from harness.study.sizes import SMOKE_SEEDS, describe, smoke
from harness.study.yaml import read_source

# The cells of a study's tables at one size: the arm that answers each, its comparison, what was printed.


def check_rows(key: str, table: Table, rows: tuple[Row, ...], problems: ProblemList) -> None:
    """Add what is wrong with the rows of a table at every size: labels, references, printed values."""
    seen: dict[str, Row] = {}
    for row in rows:
        if row.label in seen:
            problems.add((*row.location, "label"), f"duplicate row label '{row.label}' in table '{key}'")
        seen.setdefault(row.label, row)
    if rows and all(row.cite for row in rows):
        problems.add(("tables", key), f"table '{key}' trains nothing: every row is a quoted number")
    columns = _columns(table)
    for row in rows:
        _check_references(row, seen, columns, problems)
        values = paper_values(row, columns, _paper_at(row), problems) if row.paper else {}
        if row.may_fail:
            check_may_fail(row, columns, values, problems)


def resolve_table(key: str, study: Study, resolver: Resolver, problems: ProblemList, size: str) -> PlanTable:
    """Its cells in reading order, with printed values where it is priced; what cannot be resolved is said."""
    table = study.file.tables[key]
    columns, switches = _columns(table), short_names(table.tricks)
    bases: dict[tuple[str | None, str], Draft] = {}
    cells = []
    for row in study.rows[key]:
        values = paper_values(row, columns, _paper_at(row), problems) if row.paper and resolver.priced else {}
        for column in columns:
            if row.columns is not None and column not in row.columns:
                continue
            if row.cite:
                cells.append(_cell(row, column, values, None, ()))
                continue
            settings = table.columns[column] if column is not None else None
            start = row.start_from or (settings and settings.start_from) or table.start_from
            base = bases.get((column, start))
            if base is None:
                if start not in study.arms:
                    continue  # reported with the names
                own = draft(settings.model, settings.set.values(), ()) if settings else Draft()
                base = bases[column, start] = own.then(study.arms[start])
            try:
                found = resolver.arm_id(base.then(row.draft))
            except Unusable:  # reported with the names
                continue
            except ValueError as error:
                shown = f"{key}, row '{row.label}'" + (f", column '{column}'" if column else "")
                at = ("arms", error.arm) if isinstance(error, ArmError) else row.location
                problems.add(at, str(error), row=shown, size=size)
                continue
            cells.append(_cell(row, column, values, *found, switches))
    return _table(key, table, tuple(cells))


def _table(key: str, table: Table, cells: tuple[Cell, ...]) -> PlanTable:
    return PlanTable(
        key=key,
        title=table.title,
        design=table.design,
        columns=_columns(table),
        cells=cells,
        note=table.note,
        target=_target(table),
        control=control_in(table, cells),
        switches=tuple(short_names(table.tricks).values()),
        ground=f"{table.start_from} {table.columns} {sorted(map(str, table.tricks))}" if table.tricks else "",
    )


def _target(table: Table) -> dict[str, Any] | None:
    given = table.target.values() if table.target else {}
    return {name: value for name, value in given.items() if value is not None} or None


def _cell(
    row: Row,
    column: str | None,
    values: Mapping[str | None, Mapping[str, PaperValue]],
    arm_id: str | None,
    tricks: tuple[str, ...],
    switches: Mapping[Use, str] | None = None,
) -> Cell:
    return Cell(
        row=row.label,
        column=column,
        arm_id=arm_id,
        tricks=tricks,
        versus=row.versus if arm_id else None,
        paper=values.get(column, {}) if values else {},
        paper_versus=row.paper_versus,
        note=row.note,
        may_fail=row.may_fail,
        switched_on=tuple(switches[use] for use in row.draft.tricks) if switches else None,
    )


def _columns(table: Table) -> tuple[str | None, ...]:
    return tuple(table.columns) or (None,)


def _paper_at(row: Row) -> Location:
    return row.location if "paper" in row.location else (*row.location, "paper")


def _check_references(
    row: Row, rows: Mapping[str, Row], columns: tuple[str | None, ...], problems: ProblemList
) -> None:
    for column in row.columns or ():
        if column not in columns:
            names = [name for name in columns if name is not None]
            problems.add((*row.location, "columns"), unknown("column", column, names))
    if row.cite:
        _check_quoted(row, problems)
        return
    if row.versus is not None:
        _check_other(row, row.versus, "versus", rows, problems)
        other = rows.get(row.versus)
        lacking: set[str | None] = set()
        if other is not None and other.columns is not None:
            lacking = _exists_in(row, columns) - _exists_in(other, columns)
        if other and other.cite:
            message = f"row '{row.versus}' is quoted, not trained; nothing can be compared with it"
            problems.add((*row.location, "versus"), message)
        elif lacking:
            names = sorted(str(column) for column in lacking)
            message = (
                f"row '{row.versus}' is not in column {', '.join(names)}; name another row with 'versus'"
            )
            problems.add((*row.location, "versus"), message)
    if row.paper_versus is not None:
        _check_other(row, row.paper_versus, "paper_versus", rows, problems)


def _check_quoted(row: Row, problems: ProblemList) -> None:
    if not row.paper:
        problems.add(row.location, f"row '{row.label}' is quoted (cite) but has no 'paper' values")
    if row.draft != Draft() or row.start_from:
        message = (
            f"row '{row.label}' is quoted (cite): nothing is trained, so it takes no add, set or start_from"
        )
        problems.add(row.location, message)


def _check_other(row: Row, name: str, key: str, rows: Mapping[str, Row], problems: ProblemList) -> None:
    if name not in rows:
        problems.add((*row.location, key), unknown("row", name, rows))
    elif rows[name] is row:
        problems.add((*row.location, key), f"row '{row.label}' cannot be compared with itself")


def _exists_in(row: Row, columns: tuple[str | None, ...]) -> set[str | None]:
    return set(columns if row.columns is None else row.columns)


# The runs of a plan in submission order, each with what it needs and what it costs.


MOST_RUNS = 500_000  # of a plan; more is a mistake in the file rather than a plan
BACKWARD_FACTOR = 3  # training costs three forward passes: forward, and twice that backward


class Work(NamedTuple):
    """What one run of an arm is."""

    arm_id: str
    needs_runs: bool  # of other arms
    macs: float  # multiply-adds


def planned_runs(resolver: Resolver, seeds: int) -> list[PlannedRun]:
    """Every arm with the seeds 0, 1, ... `seeds` - 1, in the order of `runs_of`.

    Raises:
        ValueError: they are more than MOST_RUNS.
    """
    work = list(_work(resolver))
    return runs_of(resolver.arms, work, dict.fromkeys(resolver.arms, seeds))


def runs_of(arms: Mapping[str, Arm], work: Iterable[Work], counts: Mapping[str, int]) -> list[PlannedRun]:
    """Seed-major: all arms of the first seed, those that others need first, then all of the next seed.

    The further members of an ensemble have seeds of their own, seed + k * MEMBER_STRIDE; they stand before
    the run that observes them, after the runs that they need themselves.

    Args:
        work: of every arm, those that others need first.
        counts: arm_id -> with how many seeds it is planned; no arm has more than those that it needs.
    Raises:
        ValueError: they are more than MOST_RUNS.
    """
    work = list(work)
    most = max(counts.values(), default=0)
    further = _FurtherRuns(arms, {each.arm_id: each.macs for each in work})
    runs: list[PlannedRun] = []
    for seed in range(most):
        if len(runs) + len(work) > MOST_RUNS:
            raise ValueError(_too_many(len(work), most))
        for arm_id, needs_runs, macs in work:
            if seed >= counts[arm_id]:
                continue
            needs = further.needs(arm_id, seed, runs) if needs_runs else ()
            runs.append(
                PlannedRun(run_id=run_id(arm_id, seed), arm_id=arm_id, seed=seed, needs=needs, macs=macs)
            )
    return runs


def check_budget(runs: Sequence[PlannedRun], looks: Sequence[int]) -> None:
    """
    Raises:
        ValueError: the runs of the first look would become more than MOST_RUNS at the last one.
    """
    if len(runs) // looks[0] * looks[-1] > MOST_RUNS:
        raise ValueError(_too_many(len({run.arm_id for run in runs}), looks[-1]))


def _too_many(arms: int, seeds: int) -> str:
    return f"{arms} arms x {seeds} seeds and what they need are more than {MOST_RUNS} runs"


class _FurtherRuns:
    """The runs that are there only because others need them: their seeds are MEMBER_STRIDE or more."""

    def __init__(self, arms: Mapping[str, Arm], macs: Mapping[str, float]) -> None:
        self._arms, self._macs = arms, macs
        self._taken: set[str] = set()

    def needs(self, arm_id: str, seed: int, runs: list[PlannedRun]) -> tuple[str, ...]:
        """The runs that a run needs, as `RunSpec.needs`; further ones among them are appended to `runs`."""
        if len(runs) > MOST_RUNS:
            raise ValueError(_too_many(len(self._arms), seed % MEMBER_STRIDE + 1))
        needed = _needed(self._arms[arm_id], seed)
        for other, its_seed in needed:
            if its_seed >= MEMBER_STRIDE:
                self._append(other, its_seed, runs)
        return tuple(run_id(*each) for each in needed)

    def _append(self, arm_id: str, seed: int, runs: list[PlannedRun]) -> None:
        name = run_id(arm_id, seed)
        if name in self._taken:
            return
        self._taken.add(name)
        needs = self.needs(arm_id, seed, runs)
        runs.append(PlannedRun(run_id=name, arm_id=arm_id, seed=seed, needs=needs, macs=self._macs[arm_id]))


def _needed(arm: Arm, seed: int) -> list[tuple[str, int]]:
    """(arm, seed) of what a run needs, in the order of `RunSpec.needs`."""
    needed = [(each, seed) for each in (arm.teacher, arm.source) if each is not None]
    for member in arm.observes:
        needed += [(member.arm, seed + index * MEMBER_STRIDE) for index in range(member.runs)]
    return needed


def needs_runs(arm: Arm) -> bool:
    """Whether a run of the arm needs runs of others."""
    return bool(arm.observes) or arm.teacher is not None or arm.source is not None


def _work(resolver: Resolver) -> Iterator[Work]:
    """Each arm, whether it needs other runs, and the multiply-adds of one run of it.

    A training: 3 x forward x images x epochs. An observer: forward x test images x crops, of every network
    that it evaluates. 0 where the number of images is not known yet.
    """
    images: dict[int, int] = {}  # by the id of the data, which arms share
    for arm_id, arm in resolver.arms.items():
        recipe = arm.recipe
        if arm.observes:
            yield Work(arm_id, True, _macs_of_observer(arm_id, resolver))
            continue
        count = images.get(id(recipe.data))
        if count is None:
            count = images[id(recipe.data)] = resolver.inputs.train_images(recipe.data) or 0
        macs = float(BACKWARD_FACTOR * resolver.costs[arm_id].macs * count) * recipe.epochs
        yield Work(arm_id, needs_runs(arm), macs)


def _macs_of_observer(arm_id: str, resolver: Resolver) -> float:
    recipe = resolver.arms[arm_id].recipe
    own, *partners = resolver.arms[arm_id].observes
    forward = own.runs * resolver.costs[arm_id].macs
    forward += sum(member.runs * resolver.costs[member.arm].macs for member in partners)
    return float(forward * (resolver.inputs.test_images(recipe.data) or 0) * recipe.eval_crops)


# From a study and a size to the plan: unique runs, what each needs, what each costs, who shares them.


SMOKE_NOTE = "smoke run: shows that everything runs; its numbers mean nothing"


def expand(study: Study, catalogue: Catalogue, options: ExpandOptions) -> Plan:
    """The plan of a study at one size: of an adaptive study, as it is before the first look.

    Runs are unique, seed-major (all arms of seed 0, then seed 1, ...), what a run needs before it.

    Raises:
        StudyError: every mistake that shows at this size, with file and line.
    """
    options = options._replace(size=options.wanted(study.file.sizes))
    size = study.file.sizes.get(options.size)
    if size is None:
        message = unknown("size", options.size, study.file.sizes)
        raise StudyError([Problem(study.source.path, study.source.line(("sizes",)), message)])
    try:
        check_looks(_wanted_looks(size, study, options))
    except ValueError as error:
        raise StudyError([Problem(study.source.path, study.source.line(("seeds",)), str(error))]) from None
    with without_garbage_collection():
        return _plan(study, catalogue, size, options)


def check_sizes(study: Study, catalogue: Catalogue, problems: ProblemList, planned: str = "") -> None:
    """Add every mistake that shows when the study is resolved, at each of its sizes.

    planned: what `expand` resolves next; here only where other sizes have mistakes, to say all at once."""
    mode = Mode(names_are_wrong=len(problems) > 0, priced=False)
    if planned and not problems and _is_right(study, catalogue, mode, without=planned):
        return
    for name, size in study.file.sizes.items():
        _resolve(study, catalogue, (name, size), problems, mode)


def _is_right(study: Study, catalogue: Catalogue, mode: Mode, *, without: str) -> bool:
    """Whether it is resolved without a mistake at every size but one."""
    problems = study.source.problem_list()
    for name, size in study.file.sizes.items():
        if name != without:
            try:
                _resolve(study, catalogue, (name, size), problems, mode)
            except StudyError:  # too many
                return False
    return not problems


def _plan(study: Study, catalogue: Catalogue, size: Size, options: ExpandOptions) -> Plan:
    problems = study.source.problem_list()
    if options.smoke:
        unscaled, _ = _resolve(study, catalogue, (options.size, size), problems, Mode(priced=False))
        problems.raise_if_any()
        size = smoke(size, max(arm.recipe.epochs for arm in unscaled.arms.values()))
    resolver, tables = _resolve(study, catalogue, (options.size, size), problems, Mode())
    if not options.smoke:
        for at, text in contradictions(tables, resolver.arms, resolver.inputs.train_images):
            problems.add(at, text, size=options.size)
    problems.raise_if_any()
    looks = _looks(size, study, options)
    try:
        runs = planned_runs(resolver, looks[0])
        check_budget(runs, looks)
    except ValueError as error:
        problems.add(("seeds",), str(error))
        raise StudyError(problems.problems()) from None
    return Plan(
        study=study.name,
        size=options.size,
        seeds=tuple(range(looks[0])),
        header=_header(study, size, options),
        tables=tables,
        arms=resolver.arms,
        arm_labels=_labels(tables, resolver),
        runs=runs,
        claims=claims_of(study.file, size.metric or study.file.metric),
        notes=tuple(_notes(study, size, options, resolver)),
        looks=looks if len(looks) > 1 else (),
        priority=study.file.priority,
    )


def _resolve(
    study: Study, catalogue: Catalogue, named_size: tuple[str, Size], problems: ProblemList, mode: Mode
) -> tuple[Resolver, tuple[PlanTable, ...]]:
    name, size = named_size
    if size.arms:
        unheard = study.source.problem_list()  # circles, which were reported when the file was loaded
        own = named_arms(arms_at(study.file.arms, size), catalogue, unheard)
        study = study._replace(arms=own)
    resolver = Resolver(study, catalogue, size, mode)
    return resolver, tuple(resolve_table(key, study, resolver, problems, name) for key in study.file.tables)


def _wanted_looks(size: Size, study: Study, options: ExpandOptions) -> tuple[int, ...]:
    if options.seeds is None:
        return (size.seeds or study.file.seeds).planned_looks
    return (options.seeds,) if isinstance(options.seeds, int) else options.seeds


def _looks(size: Size, study: Study, options: ExpandOptions) -> tuple[int, ...]:
    """Seeds per arm at each look; one entry: a fixed design."""
    looks = _wanted_looks(size, study, options)
    if not options.smoke:
        return looks
    return (looks[0] if options.seeds is not None else min(looks[0], SMOKE_SEEDS),)


def _labels(tables: tuple[PlanTable, ...], resolver: Resolver) -> dict[str, str]:
    """Where an arm is shown first; else why it is trained."""
    labels: dict[str, str] = {}
    observers: dict[str, str] = {}
    for table in tables:
        for cell in table.cells:
            if cell.arm_id is not None and cell.arm_id not in labels:
                label = f"{table.key} / {cell.row}" + (f" / {cell.column}" if cell.column else "")
                labels[cell.arm_id] = label
                if resolver.arms[cell.arm_id].observes:
                    observers[cell.arm_id] = label
    for arm_id, name in resolver.named.items():
        labels.setdefault(arm_id, name)
    for arm_id, label in observers.items():
        labels.setdefault(resolver.arms[arm_id].observes[0].arm, f"trained for / {label}")
    return labels


def _header(study: Study, size: Size, options: ExpandOptions) -> dict[str, Any]:
    file = study.file
    declared = (size.seeds or file.seeds).planned_looks
    return {
        "paper": file.paper,
        "question": file.question,
        "expect": file.expect,
        "unknown": list(file.unknown),
        "metric": size.metric or file.metric,
        "metrics": list(file.metrics),
        "smallest_effect": size.smallest_effect or file.smallest_effect,
        "seeds": {"start": declared[0], "at_most": declared[-1]},
        "smoke": options.smoke,
        "size_line": study.source.line(("sizes", options.size, "data")),
        **_data_of_paper(file),
        **({"set": list(options.changes)} if options.changes else {}),
    }


def _data_of_paper(file: StudyFile) -> dict[str, str]:
    """The data set of the paper's size, where it is not ImageNet, which headers leave unsaid."""
    paper = file.sizes.get("paper")
    return {} if paper is None or paper.data.name == "imagenet" else {"paper_data": paper.data.name}


def _notes(study: Study, size: Size, options: ExpandOptions, resolver: Resolver) -> Iterator[str]:
    if options.smoke:
        yield SMOKE_NOTE
    if options.changes:
        yield f"exploratory: {' '.join(f'--set {each}' for each in options.changes)}, not said by the study"
    for plugin in study.file.plugins:
        name = PurePosixPath(plugin).name
        yield f"code of {name} (sha256 {resolver.catalogue.plugin_hashes[name][:8]}) runs in this study"
    yield from describe(size, resolver.baseline(), resolver.scale.baseline_epochs)
    if size.metric and size.metric != study.file.metric:
        yield f"the metric is {size.metric} at this size, {study.file.metric} in the study"
    for name, replacement in size.replace.items():
        if name in resolver.replaced:
            yield f"{name} {replacement.says()} at this size: {replacement.because}"
    sets = {arm.recipe.data.name: arm.recipe.data for arm in resolver.arms.values()}
    for name, data in sets.items():
        if not resolver.catalogue.data[name].for_reports:
            yield f"{name} is generated, for benchmarks only; its results belong in no report"
        if resolver.inputs.train_images(data) is None:
            yield f"how many images {name} has is not known before its files are read; costs are given as 0"


# Reads a study file, and finds every mistake in it before anything is planned.


# Up to here every size is resolved when loading; of a larger study, only the size that is planned.
CHEAP_CELLS = 2_000


def load_study(path: Path, catalogue: Catalogue, options: ExpandOptions | None = None) -> Study:
    """Read, check and return a study, with the changes that the command line makes to it.

    Raises:
        StudyError: every mistake in the file, each with its line, the nearest valid name and the valid ones.
    """
    unreadable: list[Problem] = []
    source = read_source(path, unreadable)
    problems = source.problem_list()
    if options and options.changes and isinstance(source.data, dict):
        change_source(source, options.changes, options.wanted(map(str, source.data.get("sizes") or ())))
    file = parse_study(source.data, problems)
    file = with_own_size(file, source, problems) if file and not file.sizes else file
    if file is None:
        raise StudyError([*unreadable, *problems.problems()])
    one_size = None if options is None or options.every_size else (options.wanted(file.sizes),)
    check_names(file, catalogue, problems, one_size)
    rows: dict[str, tuple[Row, ...]] = {}
    with without_garbage_collection():
        for key, table in file.tables.items():
            rows[key] = make_rows(key, table, problems, file.replaced_options)
            check_rows(key, table, rows[key], problems)
            if _cells(file, rows) > MOST_ROWS:
                message = f"with this table, the study has more than {MOST_ROWS} rows x columns"
                problems.add(("tables", key), message)
                raise StudyError([*unreadable, *problems.problems()])
    check_claims(file, rows, problems)
    study = Study(file=file, source=source, arms=named_arms(file.arms, catalogue, problems), rows=rows)
    is_cheap = (
        all(recipe in RECIPES for _, recipe in recipe_names(file)) and _cells(file, rows) <= CHEAP_CELLS
    )
    if is_cheap and one_size is None:
        check_sizes(study, catalogue, problems, options.wanted(file.sizes) if options else "")
    if found := [*unreadable, *problems.problems()]:
        raise StudyError(found)
    return study


def _cells(file: StudyFile, rows: Mapping[str, tuple[Row, ...]]) -> int:
    return sum(len(made) * max(1, len(file.tables[key].columns)) for key, made in rows.items())


# The next block of an adaptive plan: which arms get more seeds, and the runs that those need.


def grow(plan: Plan, wanted: Mapping[str, int]) -> Plan:
    """The plan with at least the wanted seeds; what is known of its runs is kept.

    A run needs others of the same seed: its teacher, its source, the networks that it evaluates. Their arms
    get as many seeds. No arm loses any.

    Args:
        wanted: arm_id -> seeds. Arms that are not named stay as they are.
    Raises:
        ValueError: an arm is not of this plan, more seeds than at the last look, or too many runs.
    """
    counts = {arm_id: len(plan.seeds_of(arm_id)) for arm_id in plan.all_arms}
    most = plan.looks[-1] if plan.looks else len(plan.seeds)
    for arm_id, seeds in wanted.items():
        if arm_id not in counts:
            raise ValueError(f"{arm_id} is no arm of {plan.study}")
        if seeds > most:
            raise ValueError(f"{plan.arm_labels[arm_id]}: {seeds} seeds are more than the budget of {most}")
        _raise_to(seeds, arm_id, plan.arms, counts)
    largest = max(counts.values(), default=0)
    macs = {run.arm_id: run.macs for run in plan.runs}
    work = [Work(each, each in plan.arms and needs_runs(plan.arms[each]), macs[each]) for each in counts]
    known = {run.run_id: run for run in plan.runs}
    runs = runs_of(plan.arms, work, counts)
    return dataclasses.replace(
        plan,
        seeds=tuple(range(largest)),
        arm_seeds={arm_id: count for arm_id, count in counts.items() if count < largest},
        runs=[known.get(run.run_id, run) for run in runs],
    )


def _raise_to(seeds: int, arm_id: str, arms: Mapping[str, Arm], counts: dict[str, int]) -> None:
    """Of an arm and of all that its runs need."""
    if counts[arm_id] >= seeds:
        return  # and so have those that it needs
    counts[arm_id] = seeds
    arm = arms.get(arm_id)  # None: a command, which needs no other run
    for needed in (arm.teacher, arm.source, *(member.arm for member in arm.observes)) if arm else ():
        if needed is not None:
            _raise_to(seeds, needed, arms, counts)
