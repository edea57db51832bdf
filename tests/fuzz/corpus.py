"""What fuzzed studies are made from: the shipped studies and examples, and every word that stands in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import Problem
from harness.study.yaml import read_source

ROOT = Path(__file__).parents[2]
EXAMPLES = (ROOT / "examples" / "my_study.yaml", ROOT / "examples" / "story" / "clothes.yaml")
TINY = ROOT / "tests" / "end_to_end" / "tiny.yaml"


@dataclass(frozen=True)
class Seed:
    """A study that is fine: its text, and the same as plain data."""

    name: str
    text: str
    data: Any


@cache
def seeds() -> tuple[Seed, ...]:
    """The nine studies, the examples and the small study of the end-to-end tests."""
    files = (*sorted((ROOT / "studies").glob("*.yaml")), *EXAMPLES, TINY)
    return tuple(Seed(file.name, file.read_text(encoding="utf-8"), plain(file)) for file in files)


def plain(file: Path) -> Any:
    """The study file as plain data."""
    unreadable: list[Problem] = []
    return read_source(file, unreadable).data


def copy_plugins(folder: Path) -> None:
    """Put the examples' own code beside a fuzzed study, as it stands beside the examples."""
    for example in EXAMPLES:
        for plugin in example.parent.glob("*.py"):
            shutil.copy(plugin, folder)


@cache
def words() -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """(every key, every value but maps and lists) of the seeds."""
    keys: dict[str, None] = {}
    values: dict[str, Any] = {}
    for seed in seeds():
        for key, value in _leaves(seed.data):
            if isinstance(key, str):
                keys[key] = None
            if not isinstance(value, Mapping | list):
                values[repr(value)] = value
    return tuple(keys), tuple(values.values())


@cache
def parts() -> tuple[Any, ...]:
    """Every map and list below the top of the seeds, for transplanting."""
    found = [value for seed in seeds() for _, value in _leaves(seed.data)]
    return tuple(value for value in found if isinstance(value, Mapping | list) and value)


def _leaves(data: Any) -> Iterator[tuple[Any, Any]]:
    pairs = data.items() if isinstance(data, Mapping) else enumerate(data)
    for key, value in pairs:
        yield key, value
        if isinstance(value, Mapping | list):
            yield from _leaves(value)
