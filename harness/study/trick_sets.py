"""Lists of tricks, looked up once for all the rows that share them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from harness.study.catalogue import Catalogue, TrickEntry
from harness.study.lookups import Mode, Unusable, needs_arm, trick_options
from harness.study.schema import Size
from harness.study.spec import Recipe, TrickSpec
from harness.study.uses import Use

MOST_MEMBERS = 1_000  # of one arm, evaluated together
TRAINING_ARMS = ("teacher", "source")  # what a training may need another run for; observers name any others


class Edit(NamedTuple):
    """What one trick does to a recipe."""

    trick: str
    edit: Callable[[Recipe, Mapping[str, Any]], Recipe]
    options: Mapping[str, Any]


class Part(NamedTuple):
    """The recipe edits of some tricks, those that stay in the arm, and the plugins' files they come from."""

    edits: tuple[Edit, ...]
    acting: tuple[TrickSpec, ...]
    plugins: frozenset[str]


class Observers(NamedTuple):
    """The tricks of a row that change only how trained networks are evaluated."""

    part: Part
    runs: int  # how many networks of the row's own training are evaluated together
    partners: tuple[tuple[str, int], ...]  # further named arms, and how many networks of each


class TrickSet(NamedTuple):
    """A list of tricks, looked up once: names, recipe edits, and what stays in the arm."""

    names: tuple[str, ...]
    training: Part
    teacher: str | None  # the name of an arm
    source: str | None
    observers: Observers | None  # None: the row's network is evaluated as every other


class _Found(NamedTuple):
    use: Use
    entry: TrickEntry
    options: dict[str, Any]


class TrickSets:
    """Trick sets at one size, where some tricks have a stand-in."""

    def __init__(self, catalogue: Catalogue, size: Size, mode: Mode) -> None:
        self.replaced: set[str] = set()  # tricks for which the size's stand-in was used
        self._catalogue, self._size = catalogue, size
        self._names_are_wrong = mode.names_are_wrong
        self._found: dict[tuple[Use, ...], TrickSet | str] = {}
        self._known: dict[Use, _Found] = {}

    def find(self, uses: tuple[Use, ...]) -> TrickSet:
        """The set for a list of tricks.

        Raises:
            ValueError: the tricks cannot be on together.
            Unusable: one of them is already reported as a mistake.
        """
        found = self._found.get(uses)
        if found is None:
            try:
                found = self._look_up(uses)
            except ValueError as error:
                found = str(error)
            self._found[uses] = found
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def _look_up(self, uses: tuple[Use, ...]) -> TrickSet:
        found = [self._known.get(use) or self._options(use) for use in uses]
        _check_together([each.entry for each in found])
        training = [each for each in found if not each.entry.observes]
        observing = [each for each in found if each.entry.observes]
        for each in training:
            if not set(each.entry.arms) <= set(TRAINING_ARMS):
                raise ValueError(
                    f"trick '{each.entry.name}' trains; the arms it names may be teacher and source"
                )
        return TrickSet(
            names=tuple(each.entry.name for each in found),
            training=_part(training),
            teacher=self._only_arm("teacher", training),
            source=self._only_arm("source", training),
            observers=self._observers(observing) if observing else None,
        )

    def _options(self, use: Use) -> _Found:
        stand_in = self._size.replace.get(use.name)
        if stand_in:
            self.replaced.add(use.name)
        try:
            found = _Found(use, *trick_options(Use(stand_in.by) if stand_in else use, self._catalogue))
            self._known[use] = found
            return found
        except ValueError:
            if self._names_are_wrong:
                raise Unusable from None
            raise

    def _observers(self, found: list[_Found]) -> Observers:
        choosing = [each for each in found if each.entry.arms or each.entry.members(each.options) != (1,)]
        if len(choosing) > 1:
            names = " and ".join(each.entry.name for each in choosing)
            raise ValueError(f"{names} each say which networks are evaluated together; only one trick may")
        partners: list[tuple[str, int]] = []
        runs = 1
        for each in choosing:
            runs, *others = each.entry.members(each.options)
            if max((runs, *others)) > MOST_MEMBERS:
                raise ValueError(
                    f"{each.entry.name}: at most {MOST_MEMBERS} networks are evaluated together,"
                    f" got {max((runs, *others))}"
                )
            named = (self._arm(option, each) for option in each.entry.arms)
            partners += zip(named, others, strict=True)
        return Observers(part=_part(found), runs=runs, partners=tuple(partners))

    def _only_arm(self, option: str, found: list[_Found]) -> str | None:
        """The arm that tricks name in an option of theirs, for a training of which one is possible."""
        wanting = [each for each in found if option in each.entry.arms]
        if len(wanting) > 1:
            names = " and ".join(each.entry.name for each in wanting)
            raise ValueError(f"a run has one {option}; {names} each want one")
        return self._arm(option, wanting[0]) if wanting else None

    def _arm(self, option: str, found: _Found) -> str:
        name = dict(found.use.options).get(option)
        if name is None:
            if self._names_are_wrong:
                raise Unusable
            raise ValueError(needs_arm(found.entry.name, option))
        return str(name)


def _part(found: list[_Found]) -> Part:
    return Part(
        edits=tuple(
            Edit(each.entry.name, each.entry.edit_recipe, each.options)
            for each in found
            if each.entry.edits_recipe
        ),
        acting=tuple(
            TrickSpec(name=each.entry.name, options=each.options)
            for each in found
            if each.entry.acts_in_training
        ),
        plugins=frozenset(
            each.entry.plugin for each in found if each.entry.plugin and each.entry.acts_in_training
        ),
    )


def _check_together(entries: list[TrickEntry]) -> None:
    for index, entry in enumerate(entries):
        for earlier in entries[:index]:
            if earlier.name == entry.name:
                raise ValueError(f"trick '{entry.name}' is on twice")
            if entry.name in earlier.conflicts or earlier.name in entry.conflicts:
                raise ValueError(f"tricks '{earlier.name}' and '{entry.name}' exclude each other")
