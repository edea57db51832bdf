"""Reads a study file, and finds every mistake in it before anything is planned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.study.catalogue import Catalogue
from harness.study.cells import check_rows
from harness.study.claims import check_claims
from harness.study.designs import MOST_ROWS, make_rows
from harness.study.drafts import Row, Study, named_arms
from harness.study.expand import check_sizes
from harness.study.memory import without_garbage_collection
from harness.study.mentions import recipe_names
from harness.study.names import check_names, check_sizes_exist
from harness.study.problems import Problem, StudyError
from harness.study.recipes import RECIPES
from harness.study.schema import StudyFile
from harness.study.schema_problems import parse_study
from harness.study.source import read_source

CHEAP_CELLS = (
    2_000  # up to here every size is resolved when loading; a larger study, only the size that is planned
)


def load_study(path: Path, catalogue: Catalogue) -> Study:
    """Read, check and return a study.

    Raises:
        StudyError: every mistake in the file, each with its line, the nearest valid name and the valid ones.
    """
    unreadable: list[Problem] = []
    source = read_source(path, unreadable)
    problems = source.problem_list()
    check_sizes_exist(source.data, problems)
    file = parse_study(source.data, problems)
    if file is None:
        raise StudyError([*unreadable, *problems.problems()])
    check_names(file, catalogue, problems)
    rows: dict[str, tuple[Row, ...]] = {}
    with without_garbage_collection():
        for key, table in file.tables.items():
            rows[key] = make_rows(key, table, problems)
            check_rows(key, table, rows[key], problems)
            if _cells(file, rows) > MOST_ROWS:
                message = f"with this table, the study has more than {MOST_ROWS} rows x columns"
                problems.add(("tables", key), message)
                raise StudyError([*unreadable, *problems.problems()])
    check_claims(file, rows, problems)
    study = Study(file=file, source=source, arms=named_arms(file.arms, catalogue, problems), rows=rows)
    if all(recipe in RECIPES for _, recipe in recipe_names(file)) and _cells(file, rows) <= CHEAP_CELLS:
        check_sizes(study, catalogue, problems)
    found = [*unreadable, *problems.problems()]
    if found:
        raise StudyError(found)
    return study


def _cells(file: StudyFile, rows: Mapping[str, tuple[Row, ...]]) -> int:
    return sum(len(made) * max(1, len(file.tables[key].columns)) for key, made in rows.items())
