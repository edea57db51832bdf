"""From a study and a size to the plan: unique runs, what each needs, what each costs, who shares them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from harness.study.catalogue import Catalogue
from harness.study.cells import resolve_table
from harness.study.claims import claims_of
from harness.study.drafts import Study
from harness.study.lookups import Mode
from harness.study.memory import without_garbage_collection
from harness.study.order import check_budget, planned_runs
from harness.study.plan import Plan, PlanTable
from harness.study.problems import Problem, ProblemList, StudyError, unknown
from harness.study.resolve import Resolver
from harness.study.schema import Size
from harness.study.seeds import check_looks
from harness.study.sizes import SMOKE_SEEDS, describe, smoke

SMOKE_NOTE = "smoke run: shows that everything runs; its numbers mean nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandOptions:
    """What the user chose on the command line."""

    size: str = "mini"
    seeds: int | tuple[int, ...] | None = None  # a number, or the looks; None: as the study says
    smoke: bool = False


def expand(study: Study, catalogue: Catalogue, options: ExpandOptions) -> Plan:
    """The plan of a study at one size: of an adaptive study, as it is before the first look.

    Runs are unique, seed-major (all arms of seed 0, then seed 1, ...), what a run needs before it.

    Raises:
        StudyError: every mistake that shows at this size, with file and line.
    """
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


def check_sizes(study: Study, catalogue: Catalogue, problems: ProblemList) -> None:
    """Add every mistake that shows when the study is resolved, at each of its sizes."""
    mode = Mode(names_are_wrong=len(problems) > 0, priced=False)
    for name, size in study.file.sizes.items():
        _resolve(study, catalogue, (name, size), problems, mode)


def _plan(study: Study, catalogue: Catalogue, size: Size, options: ExpandOptions) -> Plan:
    problems = study.source.problem_list()
    if options.smoke:
        unscaled, _ = _resolve(study, catalogue, (options.size, size), problems, Mode(priced=False))
        problems.raise_if_any()
        size = smoke(size, max(arm.recipe.epochs for arm in unscaled.arms.values()))
    resolver, tables = _resolve(study, catalogue, (options.size, size), problems, Mode())
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
        claims=claims_of(study.file),
        notes=tuple(_notes(study, size, options, resolver)),
        looks=looks if len(looks) > 1 else (),
    )


def _resolve(
    study: Study, catalogue: Catalogue, named_size: tuple[str, Size], problems: ProblemList, mode: Mode
) -> tuple[Resolver, tuple[PlanTable, ...]]:
    name, size = named_size
    resolver = Resolver(study, catalogue, size, mode)
    return resolver, tuple(resolve_table(key, study, resolver, problems, name) for key in study.file.tables)


def _wanted_looks(size: Size, study: Study, options: ExpandOptions) -> tuple[int, ...]:
    if options.seeds is None:
        return (size.seeds or study.file.seeds).planned_looks
    return (options.seeds,) if isinstance(options.seeds, int) else options.seeds


def _looks(size: Size, study: Study, options: ExpandOptions) -> tuple[int, ...]:
    """Seeds per arm at each look; one entry: a fixed design."""
    looks = _wanted_looks(size, study, options)
    return (min(looks[0], SMOKE_SEEDS),) if options.smoke else looks


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
        "metric": file.metric,
        "metrics": list(file.metrics),
        "smallest_effect": size.smallest_effect or file.smallest_effect,
        "seeds": {"start": declared[0], "at_most": declared[-1]},
        "smoke": options.smoke,
        "size_line": study.source.line(("sizes", options.size, "data")),
    }


def _notes(study: Study, size: Size, options: ExpandOptions, resolver: Resolver) -> Iterator[str]:
    if options.smoke:
        yield SMOKE_NOTE
    for plugin in study.file.plugins:
        name = PurePosixPath(plugin).name
        yield f"code of {name} (sha256 {resolver.catalogue.plugin_hashes[name][:8]}) runs in this study"
    yield from describe(size, resolver.baseline(), resolver.scale.baseline_epochs)
    for name, replacement in size.replace.items():
        if name in resolver.replaced:
            yield f"{name} is replaced by {replacement.by} at this size: {replacement.because}"
    sets = {arm.recipe.data.name: arm.recipe.data for arm in resolver.arms.values()}
    for name, data in sets.items():
        if not resolver.catalogue.data[name].for_reports:
            yield f"{name} is generated, for benchmarks only; its results belong in no report"
        if resolver.inputs.train_images(data) is None:
            yield f"how many images {name} has is not known before its files are read; costs are given as 0"
