"""From a study and a size to the plan: unique runs, what each needs, what each costs, who shares them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.study.catalogue import Catalogue
from harness.study.cells import resolve_table
from harness.study.drafts import Study
from harness.study.plan import Plan, PlannedRun, PlanTable
from harness.study.problems import Problem, ProblemList, StudyError, unknown
from harness.study.resolve import Resolver
from harness.study.schema import Size
from harness.study.sizes import SMOKE_SEEDS, describe, smoke
from harness.study.spec import run_id
from harness.study.trick_sets import Unusable

BACKWARD_FACTOR = 3  # training costs three forward passes: forward, and twice that backward
SMOKE_NOTE = "smoke run: shows that everything runs; its numbers mean nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandOptions:
    """What the user chose on the command line."""

    size: str = "mini"
    seeds: int | None = None  # None: as many as the study starts with
    smoke: bool = False


def expand(study: Study, catalogue: Catalogue, options: ExpandOptions) -> Plan:
    """The plan of a study at one size.

    Runs are unique, seed-major (all arms of seed 0, then seed 1, ...), teachers before students.

    Raises:
        StudyError: every mistake that shows at this size, with file and line.
    """
    size = study.file.sizes.get(options.size)
    if size is None:
        message = unknown("size", options.size, study.file.sizes)
        raise StudyError([Problem(study.source.path, study.source.line(("sizes",)), message)])
    if options.seeds is not None and options.seeds < 1:
        message = f"the number of seeds must be at least 1, got {options.seeds}"
        raise StudyError([Problem(study.source.path, study.source.line(("seeds",)), message)])
    with _without_garbage_collection():
        return _plan(study, catalogue, size, options)


def check_sizes(study: Study, catalogue: Catalogue, problems: ProblemList) -> None:
    """Add every mistake that shows when the study is resolved, at each of its sizes."""
    names_are_wrong = len(problems) > 0
    for name, size in study.file.sizes.items():
        _resolve(study, catalogue, (name, size), problems, names_are_wrong=names_are_wrong)


def _plan(study: Study, catalogue: Catalogue, size: Size, options: ExpandOptions) -> Plan:
    problems = study.source.problem_list()
    resolved = _resolve(study, catalogue, (options.size, size), problems)
    problems.raise_if_any()
    if options.smoke:
        longest = max(arm.recipe.epochs for arm in _resolver(resolved).arms.values())
        size = smoke(size, longest)
        resolved = _resolve(study, catalogue, (options.size, size), problems)
        problems.raise_if_any()
    resolver, tables = _resolver(resolved), resolved[1]
    seeds = _seeds(study, options)
    images = _images(size, catalogue)
    return Plan(
        study=study.name,
        size=options.size,
        seeds=seeds,
        header=_header(study, size, options),
        tables=tables,
        arms=resolver.arms,
        arm_labels=_labels(tables, resolver),
        runs=list(_runs(resolver, seeds, images or 0)),
        notes=tuple(_notes(size, options, resolver)),
    )


def _resolve(
    study: Study,
    catalogue: Catalogue,
    named_size: tuple[str, Size],
    problems: ProblemList,
    *,
    names_are_wrong: bool = False,
) -> tuple[Resolver | None, tuple[PlanTable, ...]]:
    name, size = named_size
    try:
        resolver = Resolver(study, catalogue, size, names_are_wrong=names_are_wrong)
    except Unusable:  # the size itself is wrong, which the check of names has reported
        return None, ()
    return resolver, tuple(resolve_table(key, study, resolver, problems, name) for key in study.file.tables)


def _resolver(resolved: tuple[Resolver | None, Any]) -> Resolver:
    assert resolved[0] is not None, "a study that was loaded has usable sizes"
    return resolved[0]


def _seeds(study: Study, options: ExpandOptions) -> tuple[int, ...]:
    count = options.seeds or study.file.seeds.start
    return tuple(range(min(count, SMOKE_SEEDS) if options.smoke else count))


def _images(size: Size, catalogue: Catalogue) -> int | None:
    return size.train_images or catalogue.data[size.data.name].train_images


def _runs(resolver: Resolver, seeds: tuple[int, ...], images: int) -> Iterator[PlannedRun]:
    work = [
        (
            arm_id,
            arm.teacher,
            float(BACKWARD_FACTOR * resolver.costs[arm_id].macs * images) * arm.recipe.epochs,
        )
        for arm_id, arm in resolver.arms.items()
    ]
    for seed in seeds:
        for arm_id, teacher, macs in work:
            needs = () if teacher is None else (run_id(teacher, seed),)
            yield PlannedRun(run_id=run_id(arm_id, seed), arm_id=arm_id, seed=seed, needs=needs, macs=macs)


def _labels(tables: tuple[PlanTable, ...], resolver: Resolver) -> dict[str, str]:
    labels: dict[str, str] = {}
    for table in tables:
        for cell in table.cells:
            if cell.arm_id is not None and cell.arm_id not in labels:
                labels[cell.arm_id] = " / ".join(filter(None, (table.key, cell.row, cell.column)))
    for arm_id, name in resolver.teachers.items():
        labels.setdefault(arm_id, f"teacher / {name}")
    return labels


def _header(study: Study, size: Size, options: ExpandOptions) -> dict[str, Any]:
    file = study.file
    return {
        "paper": file.paper,
        "question": file.question,
        "expect": file.expect,
        "unknown": list(file.unknown),
        "metric": file.metric,
        "smallest_effect": size.smallest_effect or file.smallest_effect,
        "seeds": {"start": file.seeds.start, "at_most": file.seeds.at_most},
        "smoke": options.smoke,
        "size_line": study.source.line(("sizes", options.size, "data")),
    }


def _notes(size: Size, options: ExpandOptions, resolver: Resolver) -> Iterator[str]:
    if options.smoke:
        yield SMOKE_NOTE
    yield from describe(size, resolver.baseline(), resolver.scale.baseline_epochs)
    for name, replacement in size.replace.items():
        if name in resolver.replaced:
            yield f"{name} is replaced by {replacement.by} at this size: {replacement.because}"
    entry = resolver.catalogue.data[size.data.name]
    if not entry.for_reports:
        yield f"{entry.name} is generated, for benchmarks only; its results belong in no report"
    if _images(size, resolver.catalogue) is None:
        yield f"how many images {entry.name} has is not known before its files are read; costs are given as 0"


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Half a million small objects are made and none is dropped; looking for dropped ones takes a third of
    the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
