"""What the plan must know about tricks, models and data sets, without importing torch.

`study` imports nothing from the rest of the harness: the command line fills a `Catalogue` and hands it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.study.spec import DataSpec, ModelSpec, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class TrickEntry:
    """One paper trick: its options with their defaults, and how it edits a recipe."""

    name: str
    options: Mapping[str, Any]  # option name -> default
    conflicts: frozenset[str]  # names of tricks that may not be on beside this one
    needs_teacher: bool
    acts_in_training: bool  # False: everything it does is in the edited recipe
    validate: Callable[[Mapping[str, Any]], None]  # raises ValueError on a bad option value
    edit_recipe: Callable[[Recipe, Mapping[str, Any]], Recipe]  # raises ValueError where it cannot apply
    edits_recipe: bool = True  # False: `edit_recipe` returns what it was given, and planning need not call it


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One architecture: its constructor arguments with their defaults."""

    name: str
    args: Mapping[str, Any]
    validate: Callable[[Mapping[str, Any]], None]  # raises ValueError on a bad argument value


@dataclass(frozen=True, slots=True, kw_only=True)
class DataEntry:
    """One data set: its arguments with their defaults, sizes and what is missing on this machine."""

    name: str
    args: Mapping[str, Any]
    classes: int | None  # None: known only once the files are read
    train_images: int | None
    test_images: int | None
    missing: Callable[[Mapping[str, Any]], str | None]  # None: ready; else what to put where
    for_reports: bool = True  # False: generated pixels, for benchmarks only


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one forward pass of one image: parameters, and multiply-adds of conv and linear layers."""

    params: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Every name a study may use."""

    tricks: Mapping[str, TrickEntry]
    models: Mapping[str, ModelEntry]
    data: Mapping[str, DataEntry]
    cost: Callable[[ModelSpec, DataSpec], Cost]
