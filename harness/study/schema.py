"""The study file, key by key. What a key means is written beside it; docs/studies.md has examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from harness.study.changes import AnyUse, Changes, Closed, Count, Name, Pixels, Positive, Text, Whole
from harness.study.plan import MEASURES
from harness.study.seeds import MOST_SEEDS, START, default_looks
from harness.study.uses import Use, parse_uses

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_PLAIN_FRACTION = re.compile(r"[0-9.]{1,30}(?:/[0-9.]{1,30}|[eE][-+]?[0-9]{1,2})?")
_LARGEST_SCALE = 10**6


def _file_name(value: str) -> str:
    if not _FILE_NAME.fullmatch(value):
        raise ValueError("must be letters, digits, _ . and -, at most 100: files are named after it")
    return value


FileName = Annotated[str, AfterValidator(_file_name)]
Uses = Annotated[tuple[Use, ...], PlainValidator(parse_uses)]
SeedCount = Annotated[Whole, Field(ge=1, le=MOST_SEEDS)]


def _fraction(value: Any) -> Fraction:
    """`1/8`, `0.125` or `2`, greater than 0."""
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        text = str(value).replace(" ", "")
        if not _PLAIN_FRACTION.fullmatch(text.removeprefix("-")):
            raise ValueError  # also 1e999999999, of which Python would write every digit
        fraction = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"must be a fraction such as 1/8, got {value!r}") from None
    if fraction <= 0:
        raise ValueError(f"must be greater than 0, got {value!r}")
    if not 1 <= fraction * _LARGEST_SCALE <= _LARGEST_SCALE**2:
        raise ValueError(f"must be from 1/{_LARGEST_SCALE} to {_LARGEST_SCALE}, got {value!r}")
    return fraction


class Seeds(Closed):
    """How often every arm is trained: at first, and at most where the results at each look ask for more.

    `seeds: 3` is short for `{start: 3, at_most: 3}`. With `at_most` above `start` the study is adaptive.
    """

    start: SeedCount | None = None  # None: the first look, or 3
    at_most: SeedCount | None = None  # None: the last look, or as many as at the start
    looks: Annotated[tuple[SeedCount, ...], Field(min_length=1)] | None = None  # None: made from the two

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"start": value}
        if not isinstance(value, Mapping | cls):
            shown = repr(value) if isinstance(value, str | float | bool | None) else type(value).__name__
            raise ValueError(f"must be a number of seeds, or {{start: 3, at_most: 10}}, got {shown}")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        looks = self.planned_looks
        start, at_most = self.start or looks[0], self.at_most or looks[-1]
        if at_most < start:
            raise ValueError(f"must have at_most >= start, got start {start} and at_most {at_most}")
        if (looks[0], looks[-1]) != (start, at_most) or list(looks) != sorted(set(looks)):
            such = list(default_looks(start, at_most))
            raise ValueError(
                f"must have looks that rise from start {start} to at_most {at_most}, such as {such},"
                f" got {list(looks)}"
            )
        return self

    @property
    def planned_looks(self) -> tuple[int, ...]:
        """Seeds per arm at each look; one entry: a fixed design."""
        if self.looks:
            return self.looks
        start = self.start or START
        return default_looks(start, start if self.at_most is None else self.at_most)


class Baseline(Closed):
    """Where every row starts unless it says otherwise."""

    model: AnyUse
    recipe: Name  # a name in harness/study/recipes.py
    set: Changes = Field(default_factory=Changes)


class Replacement(Closed):
    """At one size, one trick stands in for another."""

    by: Name
    because: Text


class Size(Closed):
    """The scale at which the tables are run. harness/study/sizes.py has the rules."""

    data: AnyUse
    resolution: Pixels  # side of the square input of the study's baseline, in pixels
    epochs: Positive  # length of the baseline; every other time scales with it
    batch_scale: Annotated[Fraction, PlainValidator(_fraction)] = Fraction(1)  # factor on every batch size
    models: dict[str, dict[str, Any]] = Field(default={})  # model name -> constructor arguments at this size
    resolutions: dict[Pixels, Pixels] = Field(default={})  # other pixels that a row asks for -> pixels here
    datasets: dict[str, AnyUse] = Field(default={})  # another data set that a row asks for -> the one here
    train_images: Count | None = None  # None: all
    test_images: Count | None = None
    set: Changes = Field(default_factory=Changes)  # changes to the baseline at this size
    replace: dict[str, Replacement] = Field(default={})  # trick -> its stand-in
    smallest_effect: Positive | None = None  # percentage points, in place of the study's
    seeds: Seeds | None = None  # in place of the study's


class NamedArm(Closed):
    """A starting point that tables and teachers refer to by name."""

    start: Name = Field(default="baseline", alias="from")  # another named arm
    recipe: Name | None = None  # a name in harness/study/recipes.py, in place of all numbers set so far
    model: AnyUse | None = None
    set: Changes = Field(default_factory=Changes)
    add: Uses = ()


class Column(Closed):
    """One column of a table: every row of the table once more, on another model or with other numbers."""

    start_from: Name | None = None  # in place of the table's
    model: AnyUse | None = None
    set: Changes = Field(default_factory=Changes)


class RowEntry(Closed):
    """One row of the designs `rows` and `stack`."""

    label: Name
    add: Uses = ()
    set: Changes = Field(default_factory=Changes)
    start_from: Name | None = None  # a named arm, in place of the table's
    on: Name | None = None  # design `stack`: an earlier row, in place of the one above
    versus: Name | None = None  # the row this one is compared with
    paper: dict[str, Any] = Field(default={})  # printed values; with columns, one map per column
    paper_versus: Name | None = None  # where the paper's own effect is measured from another row
    columns: tuple[str, ...] | None = None  # the columns in which this row exists; None: all
    cite: bool = False  # a number quoted from elsewhere: nothing is trained
    note: Text | None = None


class TargetEntry(Closed):
    """The accuracy of which `steps_to_target` asks when it is first reached: a row's own, or a number."""

    row: Name | None = None
    top1: Annotated[Positive, Field(le=100)] | None = None  # percent

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.row is None) == (self.top1 is None):
            raise ValueError("must be {row: LABEL} or {top1: PERCENT}")
        return self


class ClaimEntry(Closed):
    """A sentence of the paper, as a comparison of two cells of a table."""

    says: Text
    source: Text  # section, table or figure
    table: Name
    row: Name
    versus: Name
    column: Name | None = None
    versus_column: Name | None = None  # None: the same column
    measure: Literal[MEASURES]  # type: ignore[valid-type]  # the words of `plan.Claim`
    expect: Literal["higher", "lower"]


class Table(Closed):
    """Rows, and how they are made (harness/study/designs.py)."""

    title: Name
    design: Name
    start_from: Name = "baseline"
    columns: dict[Name, Column] = Field(default={})
    target: TargetEntry | None = None
    note: Text | None = None
    rows: tuple[RowEntry, ...] = ()  # rows, stack
    tricks: Uses = ()  # add_one_in, leave_one_out, both_ends, both_ways, factorial, fractional
    factors: dict[str, list[Any]] = Field(default={})  # grid: field, trick or trick.option -> its levels
    exclude: tuple[dict[str, Any], ...] = ()  # grid: combinations that are left out
    resolution: Annotated[Whole, Field(ge=3, le=8)] | None = None  # fractional
    paper: dict[str, dict[str, Any]] = Field(default={})  # generated label -> printed values


def _expectation(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and all(isinstance(part, str) for item in value.items() for part in item):
        return value
    raise ValueError("must be a text, or a map of trick to text")


class StudyFile(Closed):
    """One question, answered by one or more tables."""

    study: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$")]
    paper: Name | None = None  # key in docs/references.bib
    question: Text
    expect: Annotated[Any, AfterValidator(_expectation)] = ""
    unknown: tuple[Text, ...] = ()  # what the paper leaves out
    plugins: tuple[Name, ...] = ()  # files with code of the user's own (harness/study/plugins.py)
    metric: Name = "top1"  # or top5, or a plugin's: what every table is read by
    metrics: tuple[Name, ...] = ()  # of plugins, measured beside top1, top5 and loss
    smallest_effect: Positive = 0.2  # percentage points
    seeds: Seeds = Field(default_factory=Seeds)
    baseline: Baseline
    sizes: dict[FileName, Size]
    arms: dict[Name, NamedArm] = Field(default={})
    claims: tuple[ClaimEntry, ...] = ()
    tables: dict[FileName, Table]
