"""The file of a study with a script, key by key; flags that rows edit; how results are read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from harness.errors import nearest, unknown
from harness.study import kinds
from harness.study.kinds import Closed, key
from harness.study.schema import ClaimEntry, ControlEntry, Seeds, file_name, study_name

# Where a command writes a result: `FILE: COLUMN`, `FILE: a.b.c` of JSON, `FILE: /REGEX/ last`; `* 100`
# behind it turns a fraction into percent.


WHICH = ("last", "first", "max", "min", "only")  # of the matches of a regular expression
_SCALE = re.compile(r"\s\*\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*\Z")
_MATCH = re.compile(r"/(.+)/\s*([a-z]*)\Z", re.DOTALL)
JSON_FILES = (".json", ".jsonl")


@dataclass(frozen=True, slots=True)
class ReadAs:
    """How a result is read from the files of a run."""

    file: str  # a pattern below the run's own folder
    kind: str  # csv | json | match
    what: str  # a column, a path of keys, a regular expression with one group
    which: str = "last"
    scale: float = 1.0


def read_as(said: str) -> ReadAs:
    """What `results:` says of one metric.

    >>> read_as("out/log.txt: /acc=([0-9.]+)/ max * 100")
    ReadAs(file='out/log.txt', kind='match', what='acc=([0-9.]+)', which='max', scale=100.0)

    Raises:
        ValueError: in words that follow the place in the study.
    """
    file, colon, what = said.partition(":")
    file, what, scale = file.strip(), what.strip(), 1.0
    if not colon or not file or not what:
        raise ValueError(f"must be 'FILE: COLUMN', 'FILE: a.b.c' or 'FILE: /REGEX/ last', got {said!r}")
    path = PurePosixPath(file.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or file.startswith("~"):
        raise ValueError(f"must name a file below the run's own folder, got '{file}'")
    if found := _SCALE.search(what):
        what, scale = what[: found.start()].strip(), float(found[1])
    if not what.startswith("/"):
        return ReadAs(file, "json" if file.endswith(JSON_FILES) else "csv", what, "last", scale)
    match = _MATCH.match(what)
    if match is None:
        raise ValueError(f"must have a regular expression between two /, got {what!r}")
    if match[2] and match[2] not in WHICH:
        raise ValueError(f"{unknown('choice of a match', match[2], WHICH)}")
    return ReadAs(file, "match", one_group(match[1]), match[2] or "last", scale)


def one_group(pattern: str) -> str:
    """
    Raises:
        ValueError: it is no regular expression with one group.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"'{pattern}' is no regular expression ({error})") from None
    if groups != 1:
        raise ValueError(f"must have one group, such as acc=([0-9.]+), got {groups} in '{pattern}'")
    return pattern


def _place_of_result(value: Any) -> str:
    read_as(kinds.text(value))
    return str(value)


def _results(value: Any) -> dict[str, str]:
    found: dict[str, str] = kinds.map_of(kinds.one_line, _place_of_result)(value)
    if not found:
        raise ValueError("must name at least one result, such as {top1: 'summary.csv: eval_top1'}")
    return found


# The study file.


def _words(value: Any) -> str:
    """Text that splits into arguments as a shell would split it, and is read by none."""
    try:
        shlex.split(kinds.any_text(value))
    except ValueError as error:
        raise ValueError(f"{str(error).lower()} in {value!r}") from None
    return str(value)


_REPLACED = kinds.map_of(kinds.any_text, kinds.anything)


class ScriptEntry(Closed):
    """The command of every run, and where its results are."""

    run: str = key(_words)
    results: dict[str, str] = key(_results)
    resume: str | None = key(_words, None)
    progress: str | None = key(lambda value: one_group(kinds.text(value)), None)
    grace: float = key(kinds.number(at_least=0, at_most=86_400), 60.0)
    data: str | None = key(kinds.text, None)  # the folder that {data} stands for


class ScriptSize(Closed):
    """The same rows with other data or further flags."""

    data: str | None = key(kinds.text, None)
    flags: str = key(_words, "")
    smallest_effect: float | None = key(kinds.positive(), None)
    seeds: Seeds | None = key(Seeds.read, None)


class ScriptColumn(Closed):
    """Every row of a table once more, with these flags."""

    flags: str = key(_words, "")
    replace: dict[str, Any] = key(_REPLACED, {})


class ScriptRow(Closed):
    """A row of the designs `rows` and `stack`; else what the design switches on and off."""

    label: str = key(kinds.one_line)
    flags: str = key(_words, "")
    replace: dict[str, Any] = key(_REPLACED, {})
    versus: str | None = key(kinds.one_line, None)
    on: str | None = key(kinds.one_line, None)
    paper: dict[str, Any] = key(kinds.map_of(kinds.any_text, kinds.anything), {})
    columns: tuple[str, ...] | None = key(kinds.list_of(kinds.any_text), None)
    note: str | None = key(kinds.text, None)


class ScriptTable(Closed):
    """Rows, and how they are made (harness/study/designs.py)."""

    title: str | None = key(kinds.one_line, None)
    design: str = key(kinds.one_line)
    baseline: str = key(_words, "")  # flags of every row
    rows: tuple[ScriptRow, ...] = key(kinds.list_of(ScriptRow.read), ())
    columns: dict[str, ScriptColumn] = key(kinds.map_of(kinds.one_line, ScriptColumn.read), {})
    factors: dict[str, tuple[Any, ...]] = key(
        kinds.map_of(kinds.any_text, kinds.list_of(kinds.anything)), {}
    )  # flag -> its values
    exclude: tuple[dict[str, Any], ...] = key(kinds.list_of(kinds.map_of(kinds.any_text, kinds.anything)), ())
    resolution: int | None = key(kinds.whole(at_least=3, at_most=8), None)
    control: ControlEntry | None = key(ControlEntry.read, None)
    paper: dict[str, dict[str, Any]] = key(
        kinds.map_of(kinds.any_text, kinds.map_of(kinds.any_text, kinds.anything)), {}
    )
    note: str | None = key(kinds.text, None)


class ScriptStudy(Closed):
    """One question, answered by runs of one command."""

    study: str = key(study_name)
    question: str = key(kinds.text)
    paper: str | None = key(kinds.one_line, None)
    expect: str = key(kinds.any_text, "")
    metric: str | None = key(kinds.one_line, None)  # None: the first of the results
    lower_is_better: bool = key(kinds.true_or_false, False)
    smallest_effect: float | None = key(kinds.positive(), None)  # None: 0.2 points of an accuracy
    seeds: Seeds = key(Seeds.read, Seeds())
    script: ScriptEntry = key(ScriptEntry.read)
    sizes: dict[str, ScriptSize] = key(kinds.map_of(file_name, ScriptSize.read), {})
    tables: dict[str, ScriptTable] = key(kinds.map_of(file_name, ScriptTable.read))
    claims: tuple[ClaimEntry, ...] = key(kinds.list_of(ClaimEntry.read), ())
    priority: tuple[str, ...] = key(kinds.list_of(kinds.one_line), ())

    @property
    def metric_name(self) -> str:
        return self.metric or next(iter(self.script.results))


# Command lines: arguments in groups, one per flag with its values.


PLACEHOLDERS = ("seed", "data", "folder", "flags")
FLAGS = "{flags}"
IN_BRACES = re.compile(r"\{([A-Za-z_]+)\}")
_NUMBER = re.compile(r"-[0-9.]+(?:[eE][-+]?[0-9]+)?\Z")


class FlagGroup(NamedTuple):
    """A flag with its values; a flag of "" holds arguments that belong to none."""

    flag: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)


def groups_of(words: Iterable[str]) -> list[FlagGroup]:
    """
    >>> [each.words for each in groups_of(["a.py", "--lr=0.1", "--betas", "0.9", "-1", "-v"])]
    [('a.py',), ('--lr=0.1',), ('--betas', '0.9', '-1'), ('-v',)]
    """
    found: list[FlagGroup] = []
    for word in words:
        starts = word.startswith("-") and len(word) > 1 and not _NUMBER.match(word)
        if starts or word == FLAGS:
            found.append(FlagGroup(word.partition("=")[0], (word,)))
        elif not found or found[-1].flag == FLAGS or "=" in found[-1].words[0]:
            found.append(FlagGroup("", (word,)))
        else:
            found[-1] = FlagGroup(found[-1].flag, (*found[-1].words, word))
    return found


class FlagChange(NamedTuple):
    """What a row, a column or a level of a factor does to the command."""

    label: str
    flags: tuple[str, ...] = ()
    replace: Mapping[str, Any] = {}
    either: bool = False  # replace what is there, else append: a factor's level


@dataclass(slots=True)
class Line:
    """A command under construction: what is before and after {flags}, and what stands there."""

    groups: list[FlagGroup]
    known: frozenset[str] = frozenset()  # flags that the script's own text has
    of: dict[str, str] = field(default_factory=dict)  # flag -> the change that set it

    def apply(self, change: FlagChange, *, in_order: bool) -> None:
        """
        in_order: a later change may replace what an earlier one set; else changes are on in any combination.

        Raises:
            ValueError: a flag that is there twice, is not there, or is set by another change.
        """
        for flag, value in change.replace.items():
            self._replace(flag, value, change, in_order=in_order)
        new = groups_of(change.flags)
        self._require_place(new)
        for group in new:
            if group.flag and (there := self._find(group.flag)) is not None:
                by = self.of.get(group.flag)
                where = f"set by '{by}'" if by else "there"
                mend = "they cannot be on together" if by and not in_order else self._mend(group)
                text = f"the flags of '{change.label}' clash: {group.flag} is {where} already"
                raise ValueError(f"{text} ({self.groups[there]}); {mend}")
        self._insert(new)
        self.of.update((group.flag, change.label) for group in new)

    @staticmethod
    def _mend(group: FlagGroup) -> str:
        value = group.words[0].partition("=")[2] if "=" in group.words[0] else " ".join(group.words[1:])
        return f"say replace: {{{group.flag}: {value or 'null'}}}"

    def _find(self, flag: str) -> int | None:
        places = [place for place, group in enumerate(self.groups) if group.flag == flag]
        return places[-1] if places else None

    def _require_place(self, new: Sequence[FlagGroup]) -> None:
        if new and not any(group.flag == FLAGS for group in self.groups):
            raise ValueError("'run' has no {flags}, and so no place for the flags of a row")

    def _insert(self, new: Sequence[FlagGroup]) -> None:
        at = next((place for place, group in enumerate(self.groups) if group.flag == FLAGS), len(self.groups))
        self.groups[at:at] = new

    def _replace(self, flag: str, value: Any, change: FlagChange, *, in_order: bool) -> None:
        place, by = self._find(flag), self.of.get(flag)
        if by is not None and not in_order:
            raise ValueError(f"'{by}' and '{change.label}' both set {flag}: they cannot be on together")
        words = value_words(flag, value)
        added = [FlagGroup(flag, (flag, *words))] if words is not None else []
        if place is None and change.either:
            self._insert(added)
        elif place is None and added and flag in self.known:
            self._require_place(added)
            self._insert(added)
        elif place is None:
            raise ValueError(self._not_there(flag, words, change))
        elif any(IN_BRACES.search(word) for word in self.groups[place].words):
            raise ValueError(f"'{change.label}' replaces {self.groups[place]}, which the harness fills in")
        elif words is None:
            del self.groups[place]
        elif "=" in self.groups[place].words[0] and len(words) == 1:
            self.groups[place] = FlagGroup(flag, (f"{flag}={words[0]}",))
        else:
            self.groups[place] = FlagGroup(flag, (flag, *words))
        self.of[flag] = change.label

    def _not_there(self, flag: str, words: Sequence[str] | None, change: FlagChange) -> str:
        there = [group.flag for group in self.groups if group.flag not in ("", FLAGS)]
        if (near := nearest(flag, sorted(self.known))) is not None:
            there.append(near)
        text = f"'{change.label}' replaces a flag that is not there: {unknown('flag', flag, there)}"
        if words is None:
            return text
        return f"{text}; where the script takes it all the same, say flags: {shlex.join((flag, *words))}"

    def words(self) -> tuple[str, ...]:
        return tuple(word for group in self.groups if group.flag != FLAGS for word in group.words)


def value_words(flag: str, value: Any) -> tuple[str, ...] | None:
    """The arguments after a flag; None: the flag is left out.

    >>> value_words("--lr", 0.1), value_words("--amp", True), value_words("--amp", None)
    (('0.1',), (), None)
    """
    if value is None or value is True:
        return None if value is None else ()
    if value is False or isinstance(value, Mapping):
        raise ValueError(f"{flag}: say null to take a flag out, true for one without a value, or its value")
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(str(each) for each in values)
