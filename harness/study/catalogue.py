"""What the plan must know about tricks, models and data sets, without importing torch; and looking it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.errors import Location, ProblemList, unknown
from harness.spec import DataSpec, ModelSpec, Recipe

# What the plan must know about tricks, models and data sets, without importing torch.
#
# `study` imports nothing from the rest of the harness: the command line fills a `Catalogue` and hands it
# in.


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


# A thing that a study names, with the options it gives: `mixup`, or `{mixup: {alpha: 0.4}}`.


MOST_USES = 100  # in one list


class Use(NamedTuple):
    """A trick, model or data set by name, and the options that differ from its defaults. Hashable."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name} ({', '.join(f'{key}={value}' for key, value in self.options)})"


def short_names(uses: Iterable[Use]) -> dict[Use, str]:
    """Each use by its name alone, with its options where another one has the same name.

    >>> list(short_names([Use("cosine"), Use("mixup", (("alpha", 0.2),))]).values())
    ['cosine', 'mixup']
    """
    listed = list(uses)
    count = Counter(use.name for use in listed)
    return {use: use.name if count[use.name] == 1 else str(use) for use in listed}


def parse_use(value: Any) -> Use:
    """A name, or a map of one name to its options.

    Raises:
        ValueError: anything else.

    >>> parse_use({"mixup": {"alpha": 0.4}})
    Use(name='mixup', options=(('alpha', 0.4),))
    """
    if isinstance(value, Use):
        return value
    if isinstance(value, str):
        return Use(value)
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, options),) = value.items()
        if isinstance(name, str) and isinstance(options, Mapping):
            return Use(name, tuple((str(key), plain(option)) for key, option in options.items()))
    raise ValueError(f"expected a name or {{name: {{option: value}}}}, got {value!r}")


def parse_uses(value: Any) -> tuple[Use, ...]:
    """One use, or a list of them, in order.

    >>> parse_uses("cosine"), parse_uses(["cosine", "mixup"])
    ((Use(name='cosine', options=()),), (Use(name='cosine', options=()), Use(name='mixup', options=())))
    """
    items = value if isinstance(value, list | tuple) and not isinstance(value, Use) else [value]
    if len(items) > MOST_USES:
        raise ValueError(f"expected at most {MOST_USES} of them, got {len(items)}")
    return tuple(parse_use(item) for item in items)


def fill_options(kind: str, use: Use, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a use: the given ones over the defaults, in the types of the defaults.

    Raises:
        ValueError: an option that does not exist.
    """
    filled = {name: plain(value) for name, value in defaults.items()}
    for name, value in use.options:
        if name not in filled:
            raise ValueError(f"{kind} '{use.name}': {unknown('option', name, filled)}")
        filled[name] = like(value, defaults[name])
    return filled


def like(value: Any, default: Any) -> Any:
    """`value` in the type of `default` where both mean the same: 1 and 1.0 are one value, hence one arm."""
    if type(value) is int and type(default) is float:
        return float(value)
    if isinstance(value, list | tuple):
        pattern = default[0] if isinstance(default, list | tuple) and default else None
        return tuple(like(item, pattern) for item in value)
    return value


def plain(value: Any) -> Any:
    """An option's value with lists as tuples, so that uses can be compared and hashed.

    Raises:
        ValueError: a map.
    """
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, Mapping):
        raise ValueError(f"an option is a plain value or a list, not a map: {dict(value)!r}")
    return value


# One name of a study file against the catalogue: a trick, a model, a data set.


class Mode(NamedTuple):
    """What a study is resolved for."""

    names_are_wrong: bool = False  # some were reported as mistakes, so that lookups may fail
    priced: bool = True  # False: only to find mistakes


class Unusable(Exception):
    """A draft uses something that is already reported as a mistake."""


def guarded(what: str, call: Callable[..., Any], *values: Any) -> Any:
    """Call what a plugin may have written.

    Raises:
        ValueError: the call's own, or in words whatever else it raised: a study never ends in a traceback.
    """
    try:
        return call(*values)
    except ValueError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ValueError(f"{what} failed: {type(error).__name__}: {first}") from error


def trick_options(use: Use, catalogue: Catalogue) -> tuple[TrickEntry, dict[str, Any]]:
    """A trick's entry, and every option of it but those that name an arm, in full.

    Raises:
        ValueError: the trick or an option does not exist, or a value is out of its range.
    """
    entry = catalogue.tricks.get(use.name)
    if entry is None:
        raise ValueError(unknown("trick", use.name, catalogue.tricks))
    if entry.arms:
        use = Use(use.name, tuple(pair for pair in use.options if pair[0] not in entry.arms))
    options = fill_options("trick", use, entry.options)
    guarded(f"checking the options of trick '{use.name}'", entry.validate, options)
    return entry, options


def needs_arm(trick: str, option: str) -> str:
    """The mistake of a trick that is not told which arm it needs, in words."""
    return f"trick '{trick}' needs a {option}: {{{trick}: {{{option}: NAME OF AN ARM}}}}"


def check_model(use: Use, catalogue: Catalogue) -> None:
    """Raises:
    ValueError: the model or an argument does not exist, or a value is out of its range.
    """
    entry = catalogue.models.get(use.name)
    if entry is None:
        raise ValueError(unknown("model", use.name, catalogue.models))
    args = fill_options("model", use, entry.args)
    guarded(f"checking the arguments of model '{use.name}'", entry.validate, args)


def check_data(use: Use, catalogue: Catalogue) -> None:
    """Raises:
    ValueError: the data set or an argument does not exist, or a value is out of its range.
    """
    entry = catalogue.data.get(use.name)
    if entry is None:
        raise ValueError(unknown("data set", use.name, catalogue.data))
    args = fill_options("data set", use, entry.args)
    guarded(f"checking the arguments of data set '{use.name}'", entry.validate, args)


def attempt(at: Location, problems: ProblemList, check: Callable[..., Any], *values: Any) -> None:
    """Call a check; a ValueError of it becomes a problem at this place."""
    try:
        check(*values)
    except ValueError as error:
        problems.add(at, str(error))
