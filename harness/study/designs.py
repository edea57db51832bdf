"""How a table's rows are made. Every design is one function that returns the same plain rows.

Adding a design: one function and one entry in `DESIGNS`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from harness.errors import Location, ProblemList, unknown
from harness.study.catalogue import Use, plain
from harness.study.kinds import Misfit
from harness.study.rows import Draft, Row, draft
from harness.study.schema import CHANGE_FIELDS, Changes, RowEntry, Table, add_problems

# The design `grid`: every combination of the levels of its factors.


_OFF = object()  # the value of the level `off`; a trick's option may itself be False
_SWITCH = {"off": _OFF, "on": True, False: _OFF, True: True}  # YAML 1.2 reads `off` as a text


class _Factor:
    """One factor: the text and the effect of each of its levels."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: list[str] = []
        self.values: list[Any] = []

    @property
    def is_field(self) -> bool:
        return self.name in CHANGE_FIELDS


def grid_rows(table: Table, at: Location, problems: ProblemList) -> Iterator[Row]:
    """A field of the recipe takes each value; a trick is `off` or `on`; `trick.option` switches its trick on
    with that value, unless the level is `off` or a factor with the trick's own name says so."""
    before = len(problems)
    factors = [_read(name, levels, at, problems) for name, levels in table.factors.items()]
    excluded = [_excluded(index, part, factors, at, problems) for index, part in enumerate(table.exclude)]
    if len(problems) > before:
        return
    here = (*at, "factors")
    first: str | None = None
    texts = [[f"{factor.name}={text}" for text in factor.texts] for factor in factors]
    fields = [(place, factor.name, factor.values) for place, factor in enumerate(factors) if factor.is_field]
    switches = [(place, factor) for place, factor in enumerate(factors) if not factor.is_field]
    tricks: dict[tuple[int, ...], tuple[Use, ...]] = {}
    for levels in itertools.product(*(range(len(factor.values)) for factor in factors)):
        if excluded and any(_matches(levels, part) for part in excluded):
            continue
        chosen = tuple([levels[place] for place, _ in switches])
        if chosen not in tricks:
            tricks[chosen] = _tricks([factor for _, factor in switches], chosen)
        changes = {name: values[levels[place]] for place, name, values in fields}
        label = ", ".join([names[level] for names, level in zip(texts, levels, strict=True)])
        change = draft(None, changes, tricks[chosen])
        yield Row(label, here, change, None, first)
        first = first or label


def _read(name: str, levels: Sequence[Any], at: Location, problems: ProblemList) -> _Factor:
    factor = _Factor(name)
    here = (*at, "factors", name)
    if not levels:
        problems.add(here, f"factor '{name}' has no levels")
    for index, level in enumerate(levels):
        try:
            text, value = _level(name, level)
        except Misfit as error:
            add_problems(error, here, problems)
            continue
        except ValueError as error:
            problems.add((*here, index), str(error))
            continue
        if text in factor.texts:
            problems.add((*here, index), f"duplicate level '{text}' of factor '{name}'")
        factor.texts.append(text)
        factor.values.append(value)
    return factor


def _level(name: str, level: Any) -> tuple[str, Any]:
    if name in CHANGE_FIELDS:
        value = Changes.read({name: level}).values()[name]
        return str(value if name == "model" else level), value
    if "." in name:
        return str(level), _OFF if level == "off" else plain(level)
    if isinstance(level, bool | str) and level in _SWITCH:
        value = _SWITCH[level]
        return ("off" if value is _OFF else "on"), value
    raise ValueError(f"factor '{name}' is a trick; its levels are off and on, got {level!r}")


def _excluded(
    index: int, part: Mapping[str, Any], factors: list[_Factor], at: Location, problems: ProblemList
) -> list[tuple[int, int]]:
    """(factor, level) pairs that together are left out."""
    names = [factor.name for factor in factors]
    pairs = []
    for name, level in part.items():
        here = (*at, "exclude", index, name)
        if name not in names:
            problems.add(here, unknown("factor", name, names))
            continue
        place = names.index(name)
        switched = isinstance(level, bool) and "." not in name and not factors[names.index(name)].is_field
        text = ("on" if level else "off") if switched else str(level)
        if text not in factors[place].texts:
            problems.add(here, unknown(f"level of factor '{name}'", text, factors[place].texts))
            continue
        pairs.append((place, factors[place].texts.index(text)))
    if not part:
        problems.add((*at, "exclude", index), "an empty exclusion would leave nothing")
    return pairs


def _matches(levels: tuple[int, ...], excluded: list[tuple[int, int]]) -> bool:
    return all(levels[place] == level for place, level in excluded)


def _tricks(factors: list[_Factor], levels: tuple[int, ...]) -> tuple[Use, ...]:
    """The tricks that are on at these levels, in the order in which the factors name them."""
    options: dict[str, list[tuple[str, Any]]] = {}
    off: set[str] = set()
    for factor, level in zip(factors, levels, strict=True):
        trick, _, option = factor.name.partition(".")
        value = factor.values[level]
        if value is _OFF:
            off.add(trick)
            continue
        given = options.setdefault(trick, [])
        if option:
            given.append((option, value))
    return tuple(Use(trick, tuple(given)) for trick, given in options.items() if trick not in off)


# Regular two-level fractional factorial designs of a wanted resolution.
#
# pyDOE3 builds the design from its generators. The generators are chosen here, because pyDOE3's own choice
# (`fracfact_by_res`) does not reach the resolution it is asked for: for 7 factors at resolution 5 it
# returns generators abcd and abce, whose product is the word `de` with the two new letters, of length 4.


MOST_FACTORS = 20  # the search goes through 2 to the power of the further ones
MOST_BASE = 17  # 131,072 rows


def fraction(factors: int, resolution: int) -> list[list[bool]]:
    """Which factors are on in each run, (runs, factors), in order: the smallest fraction the search finds.

    A design has resolution R when no effect of fewer than R letters is confounded with the mean, so that at 5
    main effects and pairs are all apart (Box, Hunter and Hunter, Statistics for Experimenters, ch. 6).

    Raises:
        ValueError: no proper fraction exists; the message says what to use instead.
    """
    if factors > MOST_FACTORS:
        raise ValueError(f"a fraction is made of at most {MOST_FACTORS} tricks, here are {factors}")
    words = generators(factors, resolution)
    if words is None:
        raise ValueError(
            f"no fraction of {factors} factors has resolution {resolution}; use the design 'factorial',"
            " or a lower resolution"
        )
    import string

    import pyDOE3  # imports scipy: only where it is used

    base = factors - len(words)
    if base > MOST_BASE:
        raise ValueError(f"the fraction of {factors} factors with resolution {resolution} has {2**base} rows")
    letters = string.ascii_lowercase[:base]
    extra = ["".join(letters[i] for i in range(base) if word >> i & 1) for word in words]
    design = pyDOE3.fracfact(" ".join([*letters, *extra]))
    return sorted([value > 0 for value in row] for row in design.tolist())


def generators(factors: int, resolution: int) -> list[int] | None:
    """Words over the base factors (bit i: factor i), one per further factor; None where there are none.

    The number of base factors grows until a greedy choice of words, long ones last, keeps every product of
    defining words at least `resolution` letters long.

    >>> [f"{word:b}" for word in generators(5, 5)]
    ['1111']
    """
    for base in range(min(resolution - 1, factors), factors):
        chosen = _greedy(base, factors - base, resolution)
        if chosen is not None:
            return chosen
    return None


def _greedy(base: int, wanted: int, resolution: int) -> list[int] | None:
    chosen: list[int] = []
    products = [0]  # of defining words chosen so far; each new factor has a bit of its own above `base`
    for size in range(resolution - 1, base + 1):
        for letters in itertools.combinations(range(base), size):
            word = sum(1 << letter for letter in letters)
            defining = word | 1 << (base + len(chosen))
            made = [product ^ defining for product in products]
            if all(product.bit_count() >= resolution for product in made):
                chosen.append(word)
                products += made
                if len(chosen) == wanted:
                    return chosen
    return None


MOST_ROWS = 200_000  # of a study; more is a mistake in the file rather than a plan


def make_rows(
    key: str, table: Table, problems: ProblemList, replaced: frozenset[tuple[str, str]] = frozenset()
) -> tuple[Row, ...]:
    """The rows of a table, in order, with `versus` filled in; mistakes are added to `problems`.

    replaced: (trick, option) that have another value at some size: they stay out of the labels that designs
    make, because a row has one label, true at every size.
    """
    at: Location = ("tables", key)
    design = DESIGNS.get(table.design)
    if design is None:
        problems.add((*at, "design"), unknown("design", table.design, DESIGNS))
        return ()
    given = table.given & _OF_DESIGNS
    for name in sorted(given - design.keys):
        takes = ", ".join(sorted(design.keys))
        problems.add(
            (*at, name), f"the design '{table.design}' does not use the key '{name}'; it takes {takes}"
        )
    if not getattr(table, design.rows_from):
        problems.add(at, f"table '{key}' is empty: the design '{table.design}' needs '{design.rows_from}'")
        return ()
    rows = tuple(design.make(table, at, problems))
    if replaced:
        rows = _without_options(rows, table.tricks, replaced)
    if "paper" in design.keys:
        rows = _with_paper(rows, table, at, problems)
    return rows


def _without_options(
    rows: tuple[Row, ...], tricks: tuple[Use, ...], replaced: frozenset[tuple[str, str]]
) -> tuple[Row, ...]:
    kept = {use: tuple(pair for pair in use.options if (use.name, pair[0]) not in replaced) for use in tricks}
    new = {str(use): str(Use(use.name, options)) for use, options in kept.items() if options != use.options}
    if not new:
        return rows
    names = re.compile("|".join(rf"(?<!\w){re.escape(name)}" for name in new))

    def called(label: str | None) -> Any:
        return label and names.sub(lambda found: new[found[0]], label)

    named = tuple(row._replace(label=called(row.label), versus=called(row.versus)) for row in rows)
    return named if len({row.label for row in named}) == len(rows) else rows


def _rows(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """As written. Each is compared with the row it names, or with the first one that is trained."""
    first: str | None = None
    for index, entry in enumerate(table.rows):
        here = (*at, "rows", index)
        if entry.on is not None:
            problems.add((*here, "on"), "'on' belongs to the design 'stack'; here, say start_from")
        change = draft(None, entry.set.values(), entry.add)
        yield _row(entry, here, change, entry.start_from, entry.versus or first)
        if first is None and not entry.cite:
            first = entry.label


def _stack(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """Each row adds to the one above (or to the row named by `on`) and is compared with it."""
    done: dict[str, tuple[Draft, str | None]] = {}
    above: str | None = None
    for index, entry in enumerate(table.rows):
        here = (*at, "rows", index)
        if entry.cite:
            yield _row(entry, here, draft(None, entry.set.values(), entry.add), entry.start_from, None)
            continue
        base = entry.on or (None if entry.start_from else above)
        if entry.on is not None and entry.on not in done:
            problems.add((*here, "on"), unknown("earlier row", entry.on, done))
            base = above
        below, start_from = done[base] if base else (Draft(), entry.start_from)
        change = below.then(draft(None, entry.set.values(), entry.add))
        versus = entry.versus or base or (next(iter(done), None))
        yield _row(entry, here, change, start_from, versus)
        done[entry.label] = (change, start_from)
        above = entry.label


def _add_one_in(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """The starting point, then one row per trick that adds it alone. All are compared with the first."""
    here = (*at, "tricks")
    yield Row("baseline", here)
    for use in table.tricks:
        yield Row(f"+ {use}", here, Draft(tricks=(use,)), versus="baseline")


def _leave_one_out(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """Every trick, then one row per trick that leaves it out. All are compared with the first."""
    here = (*at, "tricks")
    yield Row("all", here, Draft(tricks=table.tricks))
    for index, use in enumerate(table.tricks):
        rest = table.tricks[:index] + table.tricks[index + 1 :]
        yield Row(f"without {use}", here, Draft(tricks=rest), versus="all")


def _both_ends(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """`add_one_in` and `leave_one_out` in one table, 2T + 2 rows: what each trick does first, and last.

    With all tricks on, the row is compared with the one that has none.
    """
    yield from _add_one_in(table, at, problems)
    every, *without = _leave_one_out(table, at, problems)
    yield every._replace(versus="baseline")
    yield from without


def _both_ways(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """The tricks added in the given order, and once more from the last to the first: 2T rows.

    Each row is compared with the one before it on its way; the ways share the first row and the last one.
    """
    here, tricks = (*at, "tricks"), table.tricks
    yield Row("baseline", here)
    above = "baseline"
    for index, use in enumerate(tricks):
        yield Row(f"+ {use}", here, Draft(tricks=tricks[: index + 1]), versus=above)
        above = f"+ {use}"
    above = "baseline"
    for index in range(len(tricks) - 1, 0, -1):
        label = f"+ {tricks[index]} (reverse order)"
        yield Row(label, here, Draft(tricks=tricks[index:]), versus=above)
        above = label


def _factorial(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """Every subset of the tricks, 2^T rows. All are compared with the first, which has none of them."""
    if 2 ** len(table.tricks) > MOST_ROWS:
        problems.add(
            (*at, "tricks"),
            f"{len(table.tricks)} tricks have 2^{len(table.tricks)} subsets, more than {MOST_ROWS};"
            " use the design 'fractional'",
        )
        return
    switches = itertools.product((False, True), repeat=len(table.tricks))
    yield from _subsets(table.tricks, switches, (*at, "tricks"))


def _fractional(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """A regular fraction of the subsets that keeps effects apart up to `resolution` (default 5)."""
    try:
        switches = fraction(len(table.tricks), table.resolution or 5)
    except ValueError as error:
        problems.add((*at, "tricks"), str(error))
        return
    yield from _subsets(table.tricks, switches, (*at, "tricks"))


def _grid(table: Table, at: Location, problems: ProblemList) -> Iterable[Row]:
    """Every combination of the factors' levels but the excluded ones; all are compared with the first."""
    count = math.prod(len(levels) for levels in table.factors.values())
    if count > MOST_ROWS:
        problems.add((*at, "factors"), f"the factors have {count} combinations, more than {MOST_ROWS}")
        return ()
    return grid_rows(table, at, problems)


def _subsets(tricks: tuple[Use, ...], switches: Iterable[Iterable[bool]], here: Location) -> Iterable[Row]:
    first: str | None = None
    for row in switches:
        on = tuple(use for use, is_on in zip(tricks, row, strict=True) if is_on)
        label = " + ".join(map(str, on)) or "none"
        yield Row(label, here, Draft(tricks=on), versus=first)
        first = first or label


def _row(entry: RowEntry, at: Location, change: Draft, start_from: str | None, versus: str | None) -> Row:
    return Row(
        entry.label, at, change, start_from, versus, entry.paper, entry.paper_versus, entry.cite, entry.note,
        entry.columns, entry.may_fail,
    )  # fmt: skip


def _with_paper(rows: tuple[Row, ...], table: Table, at: Location, problems: ProblemList) -> tuple[Row, ...]:
    if not table.paper:
        return rows
    labels = {row.label for row in rows}
    for label in table.paper:
        if label not in labels:
            problems.add((*at, "paper", label), unknown("row", label, labels))
    return tuple(
        row._replace(paper=table.paper[row.label], location=(*at, "paper", row.label))
        if row.label in table.paper
        else row
        for row in rows
    )


class Design(NamedTuple):
    """A way to make rows: the function, the key it reads them from, and every key it takes."""

    make: Callable[[Table, Location, ProblemList], Iterable[Row]]
    rows_from: str
    keys: frozenset[str]


_OF_DESIGNS = frozenset({"rows", "tricks", "factors", "exclude", "resolution", "paper"})

DESIGNS: Mapping[str, Design] = {
    "rows": Design(_rows, "rows", frozenset({"rows"})),
    "stack": Design(_stack, "rows", frozenset({"rows"})),
    "add_one_in": Design(_add_one_in, "tricks", frozenset({"tricks", "paper"})),
    "leave_one_out": Design(_leave_one_out, "tricks", frozenset({"tricks", "paper"})),
    "both_ends": Design(_both_ends, "tricks", frozenset({"tricks", "paper"})),
    "both_ways": Design(_both_ways, "tricks", frozenset({"tricks", "paper"})),
    "grid": Design(_grid, "factors", frozenset({"factors", "exclude", "paper"})),
    "factorial": Design(_factorial, "tricks", frozenset({"tricks", "paper"})),
    "fractional": Design(_fractional, "tricks", frozenset({"tricks", "resolution", "paper"})),
}
