"""The study file, key by key, what `set:` may change, and what is said of a file that does not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, TypeVar

from harness.errors import Location, ProblemList, unknown
from harness.spec import BACKBONE, CLASSIFIER
from harness.study.catalogue import Use, parse_use, parse_uses
from harness.study.kinds import (
    LARGEST,
    Closed,
    Kind,
    Misfit,
    Mistake,
    any_of,
    any_text,
    anything,
    key,
    list_of,
    map_of,
    must,
    not_falling,
    number,
    one_line,
    one_of,
    pair_of,
    positive,
    rising,
    switch,
    text,
    true_or_false,
    whole,
    word,
)
from harness.study.plan import MEASURES, MOST_SEEDS, START, default_looks

# What `set:` may change: the fields of a recipe and of its augmentation, each with its type and range.


NUMBER, POSITIVE, NOT_NEGATIVE = number(), positive(), number(at_least=0)
SHARE = positive(at_most=1)
COUNT = whole(at_least=1)
_SHARE_OF_BATCH = re.compile(r"1/([1-9][0-9]{0,5})")
PIXELS = whole(at_least=1, at_most=10_000)  # a side of an image

# The arguments of torch.optim's constructors that a recipe may give; lr and weight_decay are its own fields.
OPTIMIZER_ARGS: Mapping[str, frozenset[str]] = {
    "sgd": frozenset({"momentum", "nesterov", "dampening"}),
    "adam": frozenset({"betas", "eps", "amsgrad"}),
    "adamw": frozenset({"betas", "eps", "amsgrad"}),
    "rmsprop": frozenset({"alpha", "eps", "momentum", "centered"}),
    "rmsprop_tf": frozenset({"alpha", "eps", "momentum"}),  # epsilon inside the square root
}


def _images_or_share(value: Any) -> int | Fraction:
    """`32` images; or `1/8` of a batch, the share of one of 8 workers."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST:
        return value
    if isinstance(value, Fraction):
        return value
    if isinstance(value, str) and (found := _SHARE_OF_BATCH.fullmatch(value)):
        return Fraction(1, int(found[1]))
    raise must("be a whole number of images, or a share of the batch such as 1/8", value)


def _parts(value: Any) -> tuple[str, ...]:
    """`backbone`, or a list of parts; their order means nothing."""
    named = set(list_of(one_line)([value] if isinstance(value, str) else value))
    if {BACKBONE, CLASSIFIER} <= named:
        raise ValueError(f"must leave something to learn: {BACKBONE} and {CLASSIFIER} are the whole network")
    return tuple(sorted(named))


def _scales(value: Any) -> dict[str, float]:
    """`{backbone: 0.1}`. Where every factor is 1, nothing is said."""

    def factor(given: Any) -> float:
        if given == 0:
            raise ValueError("must be greater than 0; a part that does not learn is named in 'freeze'")
        scale: float = positive(at_most=1_000)(given)
        return scale

    scales: dict[str, float] = map_of(one_line, factor)(value)
    return scales if any(scale != 1 for scale in scales.values()) else {}


class Changes(Closed):
    """Values that replace those of the recipe, in the paper's units. What is left out stays as it is."""

    model: Use | None = key(parse_use, None)
    data: Use | None = key(parse_use, None)  # the paper's data set; a size maps it
    resolution: int | None = key(PIXELS, None)  # the paper's pixels; a size maps them
    # Recipe
    epochs: float | None = key(POSITIVE, None)
    batch_size: int | None = key(COUNT, None)
    optimizer: str | None = key(word(*OPTIMIZER_ARGS), None)
    optimizer_args: dict[str, bool | float | tuple[float, ...]] | None = key(
        map_of(any_text, any_of(true_or_false, NUMBER, list_of(NUMBER))), None
    )
    lr: float | None = key(POSITIVE, None)
    weight_decay: float | None = key(NOT_NEGATIVE, None)
    clip_norm: float | None = key(NOT_NEGATIVE, None)
    clip_value: float | None = key(NOT_NEGATIVE, None)
    schedule: str | None = key(word("constant", "step", "cosine", "exponential"), None)
    milestones: tuple[float, ...] | None = key(rising(list_of(POSITIVE)), None)
    decay: float | None = key(SHARE, None)
    decay_every: float | None = key(POSITIVE, None)
    warmup_epochs: float | None = key(NOT_NEGATIVE, None)
    warmup_lr: float | None = key(NOT_NEGATIVE, None)
    warmup_shape: str | None = key(word("proportional", "linear", "constant"), None)
    precision: str | None = key(word("fp32", "fp16", "bf16"), None)
    initialisation: str | None = key(
        word("he_fan_out", "he_fan_in", "he_average", "xavier", "truncated_normal", "gaussian", "own"), None
    )
    auxiliary_weight: float | None = key(NOT_NEGATIVE, None)
    freeze: tuple[str, ...] | None = key(_parts, None)  # of the network: do not learn
    lr_scale: dict[str, float] | None = key(_scales, None)  # part -> factor on the learning rate
    norm_images: int | Fraction | None = key(_images_or_share, None)
    shuffle: str | None = key(word("images", "within_shards", "shards"), None)
    eval_crop: float | None = key(SHARE, None)
    eval_crops: int | None = key(one_of(1, 10, 12, 144), None)
    eval_weights: str | None = key(word("own", "raw"), None)
    curve_points: int | None = key(COUNT, None)
    read_out: str | None = key(word("last_epoch", "median_of_last_5"), None)
    metrics: tuple[str, ...] | None = key(list_of(one_line), None)  # beside top1, top5 and loss
    trainer: str | None = key(one_line, None)  # harness, or a training function of a plugin
    # AugmentSpec
    crop_area: tuple[float, float] | None = key(not_falling(pair_of(SHARE)), None)
    crop_ratio: tuple[float, float] | None = key(not_falling(pair_of(POSITIVE)), None)
    flip: float | None = key(number(at_least=0, at_most=1), None)
    jitter: float | None = key(number(at_least=0, at_most=1), None)
    pca_noise: float | None = key(NOT_NEGATIVE, None)
    crop_pad: int | None = key(whole(at_least=0, at_most=1_000), None)

    @staticmethod
    def _or_null(kind: Kind) -> Kind:
        def given(value: Any) -> Any:
            if value is None:
                raise ValueError("must have a value; leave the key out to keep what is set below it")
            return kind(value)

        return given


DATA_FIELDS = frozenset({"data", "resolution"})
AUGMENT_FIELDS = frozenset({"crop_area", "crop_ratio", "flip", "jitter", "pca_noise", "crop_pad"})
CHANGE_FIELDS = Changes.fields()


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


_STUDY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_PLAIN_FRACTION = re.compile(r"[0-9.]{1,30}(?:/[0-9.]{1,30}|[eE][-+]?[0-9]{1,2})?")
_LARGEST_SCALE = 10**6


def study_name(value: Any) -> str:
    if not _STUDY_NAME.fullmatch(any_text(value)):
        raise must("be lower-case letters, digits, - and _", value)
    return str(value)


def file_name(value: Any) -> str:
    if not _FILE_NAME.fullmatch(any_text(value)):
        raise ValueError("must be letters, digits, _ . and -, at most 100: files are named after it")
    return str(value)


SEED_COUNT = whole(at_least=1, at_most=MOST_SEEDS)


def _fraction(value: Any) -> Fraction:
    """`1/8`, `0.125` or `2`, greater than 0."""
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        written = str(value).replace(" ", "")
        if not _PLAIN_FRACTION.fullmatch(written.removeprefix("-")):
            raise ValueError  # also 1e999999999, of which Python would write every digit
        fraction = Fraction(written)
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

    start: int | None = key(SEED_COUNT, None)  # None: the first look, or 3
    at_most: int | None = key(SEED_COUNT, None)  # None: the last look, or as many as at the start
    looks: tuple[int, ...] | None = key(list_of(SEED_COUNT, at_least=1), None)  # None: made from the two

    @classmethod
    def _written_out(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"start": value}
        if not isinstance(value, Mapping):
            raise must("be a number of seeds, or {start: 3, at_most: 10}", value)
        return value

    def _check(self) -> None:
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

    @property
    def planned_looks(self) -> tuple[int, ...]:
        """Seeds per arm at each look; one entry: a fixed design."""
        if self.looks:
            return self.looks
        start = self.start or START
        return default_looks(start, start if self.at_most is None else self.at_most)


class Baseline(Closed):
    """Where every row starts unless it says otherwise."""

    model: Use = key(parse_use)
    recipe: str = key(one_line)  # a name in harness/study/catalogue.py
    set: Changes = key(Changes.read, Changes())


class Replacement(Closed):
    """At one size, another trick stands in for one, or it has other options."""

    because: str = key(text)
    by: str | None = key(one_line, None)  # the other trick
    options: dict[str, Any] = key(map_of(any_text, anything), {})  # over those that rows give the trick

    def _check(self) -> None:
        if (self.by is None) == (not self.options):
            raise ValueError("must have either 'by', another trick, or 'options' that the trick has here")

    def says(self) -> str:
        """In the words of the plan's notes.

        >>> Replacement(because="ten classes", options={"temperature": 2}).says()
        'has temperature = 2'
        """
        if self.by is not None:
            return f"is replaced by {self.by}"
        return "has " + ", ".join(f"{name} = {value}" for name, value in self.options.items())

    def of(self, use: Use) -> Use:
        """What a row's trick is at this size."""
        if self.by is not None:
            return Use(self.by)
        return Use(use.name, tuple({**dict(use.options), **self.options}.items()))


ALL = "all"  # the only size of a study that names none


class Size(Closed):
    """The scale at which the tables are run. harness/study/sizes.py has the rules."""

    data: Use = key(parse_use)
    resolution: int = key(PIXELS)  # side of the square input of the study's baseline, in pixels
    epochs: float = key(POSITIVE)  # length of the baseline; every other time scales with it
    batch_scale: Fraction = key(_fraction, Fraction(1))  # factor on every batch size
    rate_scale: Fraction = key(_fraction, Fraction(1))  # factor on every learning rate
    # model name -> constructor arguments at this size
    models: dict[str, dict[str, Any]] = key(map_of(any_text, map_of(any_text, anything)), {})
    resolutions: dict[int, int] = key(map_of(PIXELS, PIXELS), {})  # other pixels that a row asks for -> here
    datasets: dict[str, Use] = key(
        map_of(any_text, parse_use), {}
    )  # another data set of a row -> the one here
    train_images: int | None = key(COUNT, None)  # None: all
    test_images: int | None = key(COUNT, None)
    set: Changes = key(Changes.read, Changes())  # changes to the baseline at this size
    # named arm -> changes to its own `set` at this size
    arms: dict[str, Changes] = key(map_of(one_line, Changes.read), {})
    replace: dict[str, Replacement] = key(map_of(any_text, Replacement.read), {})  # trick -> its stand-in
    metric: str | None = key(one_line, None)  # in place of the study's
    smallest_effect: float | None = key(POSITIVE, None)  # percentage points, in place of the study's
    seeds: Seeds | None = key(Seeds.read, None)  # in place of the study's


class NamedArm(Closed):
    """A starting point that tables and teachers refer to by name."""

    start: str = key(one_line, "baseline", named="from")  # another named arm
    recipe: str | None = key(
        one_line, None
    )  # a name in harness/study/catalogue.py, in place of all numbers so far
    model: Use | None = key(parse_use, None)
    set: Changes = key(Changes.read, Changes())
    add: tuple[Use, ...] = key(parse_uses, ())


class Column(Closed):
    """One column of a table: every row of the table once more, on another model or with other numbers."""

    start_from: str | None = key(one_line, None)  # in place of the table's
    model: Use | None = key(parse_use, None)
    set: Changes = key(Changes.read, Changes())


class RowEntry(Closed):
    """One row of the designs `rows` and `stack`."""

    label: str = key(one_line)
    add: tuple[Use, ...] = key(parse_uses, ())
    set: Changes = key(Changes.read, Changes())
    start_from: str | None = key(one_line, None)  # a named arm, in place of the table's
    on: str | None = key(one_line, None)  # design `stack`: an earlier row, in place of the one above
    versus: str | None = key(one_line, None)  # the row this one is compared with
    paper: dict[str, Any] = key(map_of(any_text, anything), {})  # printed values; with columns, one map each
    paper_versus: str | None = key(
        one_line, None
    )  # where the paper's own effect is measured from another row
    columns: tuple[str, ...] | None = key(list_of(any_text), None)  # in which this row exists; None: all
    cite: bool = key(switch, False)  # a number quoted from elsewhere: nothing is trained
    may_fail: bool = key(switch, False)  # it failed in the paper too: its printed value says so
    note: str | None = key(text, None)


class TargetEntry(Closed):
    """The accuracy of which `steps_to_target` asks when it is first reached: a row's own, or a number."""

    row: str | None = key(one_line, None)
    top1: float | None = key(positive(at_most=100), None)  # percent

    def _check(self) -> None:
        if (self.row is None) == (self.top1 is None):
            raise ValueError("must be {row: LABEL} or {top1: PERCENT}")


class ControlEntry(Closed):
    """A comparison of a table that is known to matter: a table that does not see it sees nothing."""

    row: str = key(one_line)
    versus: str | None = key(one_line, None)  # None: the row that it is compared with


class ClaimEntry(Closed):
    """A sentence of the paper, as a comparison of two cells of a table."""

    says: str = key(text)
    source: str = key(text)  # section, table or figure
    table: str = key(one_line)
    row: str = key(one_line)
    versus: str = key(one_line)
    column: str | None = key(one_line, None)
    versus_column: str | None = key(one_line, None)  # None: the same column
    measure: str | None = key(
        word(*MEASURES), None
    )  # the words of `plan.Claim`; None: the metric of the size
    expect: str = key(word("higher", "lower"))


class Table(Closed):
    """Rows, and how they are made (harness/study/designs.py)."""

    title: str = key(one_line)
    design: str = key(one_line)
    start_from: str = key(one_line, "baseline")
    columns: dict[str, Column] = key(map_of(one_line, Column.read), {})
    target: TargetEntry | None = key(TargetEntry.read, None)
    control: ControlEntry | None = key(ControlEntry.read, None)
    note: str | None = key(text, None)
    rows: tuple[RowEntry, ...] = key(list_of(RowEntry.read), ())  # rows, stack
    # add_one_in, leave_one_out, both_ends, both_ways, factorial, fractional
    tricks: tuple[Use, ...] = key(parse_uses, ())
    # grid: field, trick or trick.option -> its levels
    factors: dict[str, tuple[Any, ...]] = key(map_of(any_text, list_of(anything)), {})
    # grid: combinations that are left out
    exclude: tuple[dict[str, Any], ...] = key(list_of(map_of(any_text, anything)), ())
    resolution: int | None = key(whole(at_least=3, at_most=8), None)  # fractional
    # generated label -> printed values
    paper: dict[str, dict[str, Any]] = key(map_of(any_text, map_of(any_text, anything)), {})


def _expectation(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and all(isinstance(part, str) for item in value.items() for part in item):
        return value
    raise ValueError("must be a text, or a map of trick to text")


class StudyFile(Closed):
    """One question, answered by one or more tables."""

    study: str = key(study_name)
    paper: str | None = key(one_line, None)  # key in docs/references.bib
    question: str = key(text)
    expect: Any = key(_expectation, "")
    unknown: tuple[str, ...] = key(list_of(text), ())  # what the paper leaves out
    plugins: tuple[str, ...] = key(list_of(one_line), ())  # files with code of the user's own (names.py)
    metric: str = key(one_line, "top1")  # what every table is read by
    metrics: tuple[str, ...] = key(list_of(one_line), ())  # measured beside top1, top5 and loss
    smallest_effect: float = key(POSITIVE, 0.2)  # percentage points
    seeds: Seeds = key(Seeds.read, Seeds())
    baseline: Baseline = key(Baseline.read)
    sizes: dict[str, Size] = key(map_of(file_name, Size.read), {})  # none: the baseline's own numbers
    arms: dict[str, NamedArm] = key(map_of(one_line, NamedArm.read), {})
    claims: tuple[ClaimEntry, ...] = key(list_of(ClaimEntry.read), ())
    tables: dict[str, Table] = key(map_of(file_name, Table.read))
    priority: tuple[str, ...] = key(list_of(one_line), ())  # tables that a budget is spent on first

    @property
    def replaced_options(self) -> frozenset[tuple[str, str]]:
        """(trick, option) that have another value at some size."""
        replaced = (found for size in self.sizes.values() for found in size.replace.items())
        return frozenset((trick, option) for trick, stand_in in replaced for option in stand_in.options)


# What does not fit, as problems with lines.


Read = TypeVar("Read", bound=Closed)
_PLACEHOLDERS = {"study": "unnamed", "question": "?"}  # needed, but no other check depends on them


def parse_study(data: Any, problems: ProblemList) -> StudyFile | None:
    """The typed file; see `parse_as`."""
    return parse_as(StudyFile, data, problems)


def parse_as(kind: type[Read], data: Any, problems: ProblemList) -> Read | None:
    """The typed file, with every mistake of form added to `problems`.

    What is wrong is left out (with the row, size or table around it where that cannot be without it) and the
    rest is read again, so that mistakes of other kinds are found too. None where what is left is no study.
    """
    reported = False
    while isinstance(data, Mapping):
        try:
            return kind.read(data)
        except Misfit as error:
            if not reported:
                add_problems(error, (), problems)
            reported = True
            smaller = {**_PLACEHOLDERS, **_without(data, [_to_leave_out(each) for each in error.mistakes])}
            if smaller == data:
                return None
            data = smaller
    if not reported:
        needed = ", ".join(kind._needed)
        problems.add((), f"the file must be a map with the keys {needed}")
    return None


def _to_leave_out(mistake: Mistake) -> Location:
    """What stands at a wrong key and has parts stays: a study without that table would lack a table."""
    if mistake.is_key:
        return (*mistake.at, "")
    return mistake.at[:-1] if mistake.is_missing else mistake.at


def add_problems(error: Misfit, at: Location, problems: ProblemList) -> None:
    """Add each mistake; `at` is where in the file the value that was read is."""
    for each in error.mistakes:
        *above, last = each.at or ("",)
        inside = f" (in {dotted(tuple(above))})" if above else ""
        if each.among:
            message = unknown("key", str(last), each.among) + inside
        elif each.is_missing:
            message = f"missing key '{last}'{inside}"
        else:
            message = f"{dotted(each.at) or 'the file'} {each.says}"
        problems.add((*at, *each.at), message)


def dotted(location: Location) -> str:
    """The place in words.

    >>> dotted(("tables", "table5", "rows", 2, "label"))
    'tables.table5.rows[2].label'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


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
    for at, value in items:
        if at in leave_out:
            continue
        rest = deeper.get(at, [])
        if rest and not isinstance(value, Mapping | list):
            continue
        kept[at] = _without(value, rest) if rest else value
    return kept if isinstance(data, Mapping) else list(kept.values())
