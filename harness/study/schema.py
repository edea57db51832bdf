"""The study file, key by key, what `set:` may change, and what is said of a file that does not fit."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    ValidationError,
    field_validator,
    model_validator,
)

from harness.errors import Location, ProblemList, unknown
from harness.study.catalogue import Use, parse_use, parse_uses
from harness.study.plan import MEASURES
from harness.study.seeds import MOST_SEEDS, START, default_looks

# What `set:` may change: the fields of a recipe and of its augmentation, each with its type and range.


LARGEST, SMALLEST = 10**9, 1e-12  # of any number in a study: products of a few of them stay finite
_SHARE = re.compile(r"1/([1-9][0-9]{0,5})")
LONGEST_NAME = 200  # characters: names and labels stand in tables, figures and file names


def _not_tiny(value: float) -> float:
    if value < SMALLEST:
        raise ValueError(f"must be at least {SMALLEST:g}, got {value!r}")
    return value


def _one_line(value: str) -> str:
    if "\n" in value or "\t" in value or len(value) > LONGEST_NAME:
        raise ValueError(f"must be one line of at most {LONGEST_NAME} characters")
    return value


Number = Annotated[float, Field(strict=True, ge=-LARGEST, le=LARGEST)]
Whole = Annotated[int, Field(strict=True, ge=-LARGEST, le=LARGEST)]
Positive = Annotated[float, Field(strict=True, gt=0, le=LARGEST), AfterValidator(_not_tiny)]
NotNegative = Annotated[float, Field(strict=True, ge=0, le=LARGEST)]
Fraction1 = Annotated[float, Field(strict=True, gt=0, le=1), AfterValidator(_not_tiny)]
Count = Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
Pixels = Annotated[int, Field(strict=True, ge=1, le=10_000)]  # a side of an image
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
AnyUse = Annotated[Use, PlainValidator(parse_use)]

# The arguments of torch.optim's constructors that a recipe may give; lr and weight_decay are its own fields.
OPTIMIZER_ARGS: Mapping[str, frozenset[str]] = {
    "sgd": frozenset({"momentum", "nesterov", "dampening"}),
    "adam": frozenset({"betas", "eps", "amsgrad"}),
    "adamw": frozenset({"betas", "eps", "amsgrad"}),
    "rmsprop": frozenset({"alpha", "eps", "momentum", "centered"}),
    "rmsprop_tf": frozenset({"alpha", "eps", "momentum"}),  # epsilon inside the square root
}


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise ValueError(f"must rise from left to right, got {list(values)}")
    return values


def _images_or_share(value: Any) -> int | Fraction:
    """`32` images; or `1/8` of a batch, the share of one of 8 workers."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST:
        return value
    if isinstance(value, Fraction):
        return value
    if isinstance(value, str) and (found := _SHARE.fullmatch(value)):
        return Fraction(1, int(found[1]))
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    raise ValueError(f"must be a whole number of images, or a share of the batch such as 1/8, got {shown}")


def _one_of(*valid: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if value not in valid:
            raise ValueError(f"must be one of {', '.join(map(str, valid))}, got {value}")
        return value

    return check


class Closed(BaseModel):
    """Unknown keys are mistakes; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Changes(Closed):
    """Values that replace those of the recipe, in the paper's units. What is left out stays as it is."""

    model: AnyUse | None = None
    data: AnyUse | None = None  # the paper's data set; a size maps it
    resolution: Pixels | None = None  # the paper's pixels; a size maps them
    # Recipe
    epochs: Positive | None = None
    batch_size: Count | None = None
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "rmsprop_tf"] | None = None
    optimizer_args: dict[str, StrictBool | Number | tuple[Number, ...]] | None = None
    lr: Positive | None = None
    weight_decay: NotNegative | None = None
    clip_norm: NotNegative | None = None
    clip_value: NotNegative | None = None
    schedule: Literal["constant", "step", "cosine", "exponential"] | None = None
    milestones: Annotated[tuple[Positive, ...], AfterValidator(_rising)] | None = None
    decay: Fraction1 | None = None
    decay_every: Positive | None = None
    warmup_epochs: NotNegative | None = None
    warmup_lr: NotNegative | None = None
    warmup_shape: Literal["proportional", "linear", "constant"] | None = None
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    initialisation: (
        Literal["he_fan_out", "he_fan_in", "he_average", "xavier", "truncated_normal", "gaussian", "own"]
        | None
    ) = None
    auxiliary_weight: NotNegative | None = None
    norm_images: Annotated[int | Fraction, PlainValidator(_images_or_share)] | None = None
    shuffle: Literal["images", "within_shards", "shards"] | None = None
    eval_crop: Fraction1 | None = None
    eval_crops: Annotated[Whole, AfterValidator(_one_of(1, 10, 12, 144))] | None = None
    eval_weights: Literal["own", "raw"] | None = None
    curve_points: Count | None = None
    read_out: Literal["last_epoch", "median_of_last_5"] | None = None
    metrics: tuple[Name, ...] | None = None  # of plugins
    trainer: Name | None = None  # harness, or a training function of a plugin
    # AugmentSpec
    crop_area: Annotated[tuple[Fraction1, Fraction1], AfterValidator(_rising)] | None = None
    crop_ratio: Annotated[tuple[Positive, Positive], AfterValidator(_rising)] | None = None
    flip: Annotated[Number, Field(ge=0, le=1)] | None = None
    jitter: Annotated[Number, Field(ge=0, le=1)] | None = None
    pca_noise: NotNegative | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must have a value; leave the key out to keep what is set below it")
        return value

    def values(self) -> dict[str, Any]:
        """The fields that were given, and their values."""
        return {
            name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set
        }


DATA_FIELDS = frozenset({"data", "resolution"})
AUGMENT_FIELDS = frozenset({"crop_area", "crop_ratio", "flip", "jitter", "pca_noise"})
CHANGE_FIELDS = frozenset(Changes.model_fields)


def check_optimizer(optimizer: str, args: Mapping[str, Any]) -> None:
    """Raises:
    ValueError: an optimizer or an argument of it that does not exist.
    """
    if optimizer not in OPTIMIZER_ARGS:
        raise ValueError(unknown("optimizer", optimizer, OPTIMIZER_ARGS))
    for name in args:
        if name not in OPTIMIZER_ARGS[optimizer]:
            raise ValueError(unknown(f"argument of optimizer {optimizer}", name, OPTIMIZER_ARGS[optimizer]))


# The study file, key by key. What a key means is written beside it; docs/studies.md has examples.


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
    arms: dict[Name, Changes] = Field(default={})  # named arm -> changes to its own `set` at this size
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
    plugins: tuple[Name, ...] = ()  # files with code of the user's own (harness/study/names.py)
    metric: Name = "top1"  # or top5, or a plugin's: what every table is read by
    metrics: tuple[Name, ...] = ()  # of plugins, measured beside top1, top5 and loss
    smallest_effect: Positive = 0.2  # percentage points
    seeds: Seeds = Field(default_factory=Seeds)
    baseline: Baseline
    sizes: dict[FileName, Size]
    arms: dict[Name, NamedArm] = Field(default={})
    claims: tuple[ClaimEntry, ...] = ()
    tables: dict[FileName, Table]


# Turns what pydantic says about a study file into problems with lines, in the words of the study.


_WORDS = {
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "dict_type": "must be a map (key: value)",
    "model_type": "must be a map (key: value)",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "finite_number": "must be finite",
    "string_pattern_mismatch": "must be lower-case letters, digits, - and _",
    "string_too_short": "must not be empty",
}


_PLACEHOLDERS = {"study": "unnamed", "question": "?"}  # needed, but no other check depends on them


def parse_study(data: Any, problems: ProblemList) -> StudyFile | None:
    """The typed file, with every mistake of form added to `problems`.

    What is wrong is left out (with the row, size or table around it where that cannot be without it) and the
    rest is read again, so that mistakes of other kinds are found too. None where what is left is no study.
    """
    reported = False
    while isinstance(data, Mapping):
        try:
            return StudyFile.model_validate(data)
        except ValidationError as error:
            if not reported:
                add_problems(error, (), problems, StudyFile)
            reported = True
            smaller = _without(data, [_to_leave_out(detail) for detail in error.errors(include_url=False)])
            smaller = {**_PLACEHOLDERS, **smaller}
            if smaller == data:
                return None
            data = smaller
    if not reported:
        problems.add((), "the file must be a map with the keys study, question, baseline, sizes, tables")
    return None


def _to_leave_out(detail: Any) -> Location:
    location = tuple(detail["loc"])
    return location[:-1] if detail["type"] == "missing" else location


def add_problems(error: ValidationError, at: Location, problems: ProblemList, model: type[BaseModel]) -> None:
    """Add each mistake; `at` is where in the file the validated part is."""
    for detail in error.errors(include_url=False):
        location = tuple(detail["loc"])
        kind = detail["type"]
        if location and location[-1] == "[key]":
            location = location[:-1]
        here = _inside_file(location, model)
        if kind == "extra_forbidden":
            message = unknown("key", str(location[-1]), _keys(model, location[:-1])) + _in(location[:-1])
            here = location
        elif kind == "missing":
            message = f"missing key '{location[-1]}'{_in(location[:-1])}"
        else:
            message = f"{dotted(here) or 'the file'} {_say(detail)}"
        problems.add((*at, *here), message)


def dotted(location: Location) -> str:
    """The place in words.

    >>> dotted(("tables", "table5", "rows", 2, "label"))
    'tables.table5.rows[2].label'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _say(detail: Any) -> str:
    kind = detail["type"]
    given = detail["input"]
    if kind == "value_error":
        text = str(detail["ctx"]["error"])
        return text if text.startswith("must") else f"is wrong: {text}"
    if kind == "literal_error":
        valid = typing.cast(str, detail["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        return f"is wrong: {unknown('value', str(given), valid)}"
    words = _WORDS.get(kind)
    if words is None:
        words = detail["msg"].replace("Input should be", "must be").replace("Tuple should", "must")
    shown = repr(given) if isinstance(given, str | int | float | bool | None) else type(given).__name__
    return f"{words}, got {shown}"


def _in(location: Location) -> str:
    return f" (in {dotted(location)})" if location else ""


def _model_at(model: type[BaseModel], location: Location) -> tuple[type[BaseModel] | None, int]:
    """The model that describes a place, and how much of the location is real keys (not union branches)."""
    found: Any = model
    for depth, part in enumerate(location):
        if isinstance(found, type) and issubclass(found, BaseModel):
            fields = {field.alias or name: field for name, field in found.model_fields.items()}
            if part not in fields:
                return None, depth
            found = _core(fields[str(part)].annotation)
        elif typing.get_origin(found) in (dict, tuple, list):
            found = _core(typing.get_args(found)[1 if typing.get_origin(found) is dict else 0])
        else:
            return None, depth
    is_model = isinstance(found, type) and issubclass(found, BaseModel)
    return (found if is_model else None), len(location)


def _core(annotation: Any) -> Any:
    """Without Annotated and None."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
        else:
            return annotation


def _keys(model: type[BaseModel], location: Location) -> list[str]:
    found, _ = _model_at(model, location)
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _inside_file(location: Location, model: type[BaseModel]) -> Location:
    return location[: _model_at(model, location)[1]]


def _without(data: Any, wrong: list[Location]) -> Any:
    """A copy of the data without the places named; list items become None-free by leaving them out."""
    if not isinstance(data, Mapping | list):
        return data
    leave_out = {location[0] for location in wrong if len(location) == 1}
    deeper: dict[Any, list[Location]] = {}
    for location in wrong:
        if len(location) > 1:
            deeper.setdefault(location[0], []).append(location[1:])
    items = data.items() if isinstance(data, Mapping) else enumerate(data)
    kept = {}
    for key, value in items:
        if key in leave_out:
            continue
        rest = deeper.get(key, [])
        usable = isinstance(value, Mapping | list)
        if rest and not usable:
            continue
        kept[key] = _without(value, rest) if rest else value
    return kept if isinstance(data, Mapping) else list(kept.values())
