"""Lists of tricks, looked up once for all the rows that share them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from harness.study.catalogue import Catalogue, TrickEntry
from harness.study.names import needs_teacher, trick_options
from harness.study.schema import Size
from harness.study.spec import Recipe, TrickSpec
from harness.study.uses import Use


class TrickSet(NamedTuple):
    """A list of tricks, looked up once: names, recipe edits, and what stays in the arm."""

    names: tuple[str, ...]
    edits: tuple[tuple[Callable[[Recipe, Mapping[str, Any]], Recipe], Mapping[str, Any]], ...]
    acting: tuple[TrickSpec, ...]
    teacher: str | None


class Unusable(Exception):
    """A draft uses something that is already reported as a mistake."""


class TrickSets:
    """Trick sets at one size, where some tricks have a stand-in."""

    def __init__(self, catalogue: Catalogue, size: Size, *, names_are_wrong: bool) -> None:
        self.replaced: set[str] = set()  # tricks for which the size's stand-in was used
        self._catalogue, self._size = catalogue, size
        self._names_are_wrong = names_are_wrong
        self._found: dict[tuple[Use, ...], TrickSet | str] = {}

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
        found = [self._options(use) for use in uses]
        entries = [entry for entry, _ in found]
        _check_together(entries)
        teacher = self._teacher(uses, entries)
        return TrickSet(
            names=tuple(entry.name for entry in entries),
            edits=tuple((entry.edit_recipe, options) for entry, options in found if entry.edits_recipe),
            acting=tuple(
                TrickSpec(name=entry.name, options=options)
                for entry, options in found
                if entry.acts_in_training
            ),
            teacher=teacher,
        )

    def _options(self, use: Use) -> tuple[TrickEntry, dict[str, Any]]:
        stand_in = self._size.replace.get(use.name)
        if stand_in:
            self.replaced.add(use.name)
        try:
            return trick_options(Use(stand_in.by) if stand_in else use, self._catalogue)
        except ValueError:
            if self._names_are_wrong:
                raise Unusable from None
            raise

    def _teacher(self, uses: tuple[Use, ...], entries: list[TrickEntry]) -> str | None:
        wanting = [
            (entry.name, dict(use.options).get("teacher"))
            for use, entry in zip(uses, entries, strict=True)
            if entry.needs_teacher
        ]
        if not wanting:
            return None
        if len(wanting) > 1:
            raise ValueError(
                f"a run has one teacher; {' and '.join(name for name, _ in wanting)} each want one"
            )
        name, teacher = wanting[0]
        if teacher is None:
            if self._names_are_wrong:
                raise Unusable
            raise ValueError(needs_teacher(name))
        return str(teacher)


def _check_together(entries: list[TrickEntry]) -> None:
    for index, entry in enumerate(entries):
        for earlier in entries[:index]:
            if earlier.name == entry.name:
                raise ValueError(f"trick '{entry.name}' is on twice")
            if entry.name in earlier.conflicts or earlier.name in entry.conflicts:
                raise ValueError(f"tricks '{earlier.name}' and '{entry.name}' exclude each other")
