"""What the plan must know about tricks, models and data sets, without importing torch.

`study` imports nothing from the rest of the harness: the command line fills a `Catalogue` and hands it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.study.spec import DataSpec, ModelSpec, Recipe

Facts = tuple[int | None, int | None, int | None]  # classes, training images, test images; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class TrickEntry:
    """One paper trick: its options with their defaults, and how it edits a recipe."""

    name: str
    options: Mapping[str, Any]  # option name -> default
    conflicts: frozenset[str]  # names of tricks that may not be on beside this one
    acts_in_training: bool  # False: everything it does is in the edited recipe
    validate: Callable[[Mapping[str, Any]], None]  # raises ValueError on a bad option value
    edit_recipe: Callable[[Recipe, Mapping[str, Any]], Recipe]  # raises ValueError where it cannot apply
    edits_recipe: bool = True  # False: `edit_recipe` returns what it was given, and planning need not call it
    arms: tuple[str, ...] = ()  # options beside `options` in which a study must name an arm
    observes: bool = False  # changes only how trained networks are evaluated
    members: Callable[[Mapping[str, Any]], tuple[int, ...]] = lambda options: (
        1,
    )  # own runs, then of each arm
    plugin: str | None = None  # file name of the plugin it comes from; None: of this harness


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One architecture, or one variant of it: its constructor arguments with their defaults."""

    name: str
    args: Mapping[str, Any]  # of the family
    validate: Callable[[Mapping[str, Any]], None]  # raises ValueError on a bad argument value
    family: str = ""  # the name in a spec; of a variant: the architecture it is a setting of
    preset: Mapping[str, Any] = field(default_factory=dict)  # a variant's arguments
    minimum_input: Callable[[Mapping[str, Any]], int] = lambda args: (
        1
    )  # smallest side in pixels, of all arguments
    rule: Callable[[Mapping[str, Any]], None] = lambda args: (
        None
    )  # raises ValueError: they do not go together
    own_initialisation: bool = False  # keeps its constructor's weights, whatever a recipe says
    plugin: str | None = None

    def __post_init__(self) -> None:
        if not self.family:
            object.__setattr__(self, "family", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataEntry:
    """One data set: its arguments with their defaults, sizes and what is missing on this machine."""

    name: str
    args: Mapping[str, Any]
    classes: int | None  # None: known only once the files are read
    train_images: int | None
    test_images: int | None
    missing: Callable[[Mapping[str, Any]], str | None]  # None: ready; else what to put where
    validate: Callable[[Mapping[str, Any]], None] = lambda args: (
        None
    )  # raises ValueError on a bad argument value
    for_reports: bool = True  # False: generated pixels, for benchmarks only
    counts: Callable[[Mapping[str, Any]], Facts] | None = None  # where the arguments change the three numbers
    plugin: str | None = None
    said_if_set: frozenset[str] = frozenset()  # arguments that a spec holds where they are not the default

    def facts(self, args: Mapping[str, Any]) -> Facts:
        """Classes, training images and test images with all arguments given."""
        if self.counts is None:
            return self.classes, self.train_images, self.test_images
        return self.counts(args)


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
    trainers: Mapping[str, str | None] = field(default_factory=dict)  # name -> its plugin's file
    metrics: Mapping[str, str | None] = field(
        default_factory=dict
    )  # beside top1, top5 and loss; name -> file
    plugin_hashes: Mapping[str, str] = field(default_factory=dict)  # file name -> sha256 of its bytes
