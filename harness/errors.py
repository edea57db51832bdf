"""What all import: errors that teach (where, what, nearest name), variables of the environment, what may be
shown, code, frozen data."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Set
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import islice
from typing import Any, NamedTuple, Self, TextIO, TypeVar, cast, dataclass_transform
from urllib.parse import unquote, unquote_plus

# Errors that teach: where, what is wrong, the nearest valid name, the valid ones.


# Exit codes of the command line.
DONE, SOME_FAILED, USAGE_ERROR, INTERRUPTED = 0, 1, 2, 3

Location = tuple[
    str | int, ...
]  # keys and list indices from the top of the file, e.g. ("tables", "t1", "rows", 0)

MOST_PROBLEMS = 500  # of one file; a file with more was not meant to be a study
MOST_NAMES = 1_000  # that are looked through for the nearest one
LONGEST_NAME = 100  # characters of a name, and
LONGEST_MESSAGE = 2_000  # of a whole sentence, that are shown
# Controls of a terminal, line ends, changes of direction, halves of characters, what no text may hold, tags
_NEVER = (
    "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufdd0-\ufdef\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f"
)
# Patterns as texts: `re` compiles one when it is first used (and keeps it); most commands need none.
UNPRINTABLE = f"[\x00-\x1f{_NEVER}]"
_COMMANDS = f"[\x00-\x08\x0b-\x1f{_NEVER}]"  # lines and tabs are none


class _Said(NamedTuple):
    path: str
    line: int
    message: str


class Problem(_Said):
    """One mistake in a study, in the words a user sees."""

    __slots__ = ()

    def __new__(cls, path: str, line: int, message: str) -> Self:
        return super().__new__(cls, path, line, printable(message))

    def __str__(self) -> str:
        path = printable(self.path)
        where = f"{path}:{self.line}" if self.line else path
        return f"{where}: {self.message}"


class StudyError(Exception):
    """Every mistake found in a study, not only the first. The CLI prints them and exits with 2."""

    consequence = "nothing was started"  # what they mean for what the user asked for

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


class DeviceLostError(Exception):
    """A GPU that this process can no longer use, in words: what it tries there next fails as well. Another
    process may have no trouble with it."""


class DeviceUnusableError(DeviceLostError):
    """A GPU on which nothing can be begun, in words: found before a run was looked at, and not its fault."""


def printable(text: str) -> str:
    """The text on one line and cut to a length that a person reads; a file's own words may be anything.

    >>> printable("a\\x1b[31m\\nb")
    'a\\\\x1b[31m\\\\nb'
    """
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE // 2]} ... {text[-LONGEST_MESSAGE // 2 :]}"
    if text.isprintable():  # nothing of the pattern is; asked first because that is faster
        return text
    return re.sub(UNPRINTABLE, lambda found: found[0].encode("unicode_escape").decode(), text)


def visible(text: str) -> str:
    """Lines of a terminal without what would move its cursor, colour it, or change the order of letters.

    >>> visible("a\\x1b[31m\\n\\tb")
    'a\\\\x1b[31m\\n\\tb'
    """
    if text.isprintable() or text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return re.sub(_COMMANDS, lambda found: found[0].encode("unicode_escape").decode(), text)


def shortened(name: str) -> str:
    """A name as it is shown in a sentence."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


# Variables of the environment that are no paths, which the harness reads where it needs them, often in a
# process far from the command: `wrong_variables` says at its start what is wrong with one.


SHARED_MEMORY, MEASURE, GRAPHS = "HARNESS_SHARED_MEMORY", "HARNESS_MEASURE", "HARNESS_GRAPHS"
SHARE_OF_MEMORY = 0.25  # of what is free when a data set is opened, for all sets together


def share_of_memory() -> float:
    """How much of the free memory decoded images may take.

    Raises:
        ValueError: `HARNESS_SHARED_MEMORY` is no share.
    """
    said = os.environ.get(SHARED_MEMORY) or str(SHARE_OF_MEMORY)
    with suppress(ValueError):
        if 0 <= float(said) <= 1:
            return float(said)
    raise ValueError(f"{SHARED_MEMORY} must be a share of the memory from 0 to 1 (0: none), not '{said}'")


def is_switched_off(name: str) -> bool:
    """Whether this variable is 0.

    Raises:
        ValueError: it is set to something else than 0 or 1.
    """
    said = os.environ.get(name) or "1"
    if said not in ("0", "1"):
        raise ValueError(f"{name} must be 0 (off) or 1 (on, as where it is not set), not '{said}'")
    return said == "0"


READERS: Mapping[str, Callable[[], object]] = {
    SHARED_MEMORY: share_of_memory,
    MEASURE: partial(is_switched_off, MEASURE),
    GRAPHS: partial(is_switched_off, GRAPHS),
}


def wrong_variables() -> dict[str, str]:
    """What is wrong with the value of a variable of the environment, in a sentence, by its name."""
    wrong = {}
    for name, read in READERS.items():
        try:
            read()
        except ValueError as error:
            wrong[name] = str(error)
    return wrong


told: list[Callable[[str], None]] = []  # where `decided` goes: nowhere, unless the command line has --verbose


def decided(text: str) -> None:
    """Say which file, cache or worker was chosen, where somebody asked for that (`--verbose`)."""
    for tell in told:
        tell(text)


def nearest(name: str, valid: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The valid name that is most like this one, first of all one that differs in capital letters only; None
    where none is like it."""
    # Imported when something is wrong: each command pays for what it imports at its start.
    from difflib import get_close_matches

    names = list(valid)
    alike = [each for each in names if each.casefold() == name.casefold()]
    found = alike or get_close_matches(name, names, cutoff=cutoff)
    # Of short names, two letters that changed places leave too little alike: rl for lr.
    found = found or [each for each in names if len(name) > 1 and edits(name, each) <= min(2, len(name) // 2)]
    return min(found, key=lambda each: edits(name, each), default=None)


def edits(one: str, other: str) -> int:
    """Letters to change, add, take out or swap with their neighbour until one text is the other.

    >>> edits("rl", "lr"), edits("mixpu", "mixup"), edits("cosin", "cosine"), edits("", "ab")
    (1, 1, 1, 2)
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        before, last, row = row, before, [i + 1]
        for j, its in enumerate(other):
            row.append(min(before[j] + (letter != its), before[j + 1] + 1, row[j] + 1))
            if i and j and letter == other[j - 1] and its == one[i - 1]:
                row[-1] = min(row[-1], last[j - 1] + 1)
    return row[-1]


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Say that `name` is not a known `kind`, suggest the nearest one and list them all.

    >>> unknown("trick", "mixupp", ["mixup", "cosine"])
    "unknown trick 'mixupp'; did you mean 'mixup'? Valid: cosine, mixup"
    """
    names = sorted(islice(valid, MOST_NAMES))
    name = shortened(name)
    near = nearest(name, map(shortened, names))
    hint = f"; did you mean '{near}'?" if near is not None else "."
    return f"unknown {kind} '{name}'{hint} Valid: {', '.join(map(shortened, names)) or 'none'}"


def counted(count: int, what: str) -> str:
    """How many there are.

    >>> counted(1, "run"), counted(2, "run")
    ('1 run', '2 runs')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class ProblemList:
    """Mistakes found so far. The same mistake in several rows or at several sizes is said once."""

    def __init__(self, path: str, line_of: Callable[[Location], int]) -> None:
        self._path = path
        self._line_of = line_of
        self._found: dict[tuple[int, str], tuple[dict[str, None], dict[str, None]]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, location: Location, message: str, *, row: str = "", size: str = "") -> None:
        """Note a mistake at a place in the file; `row` and `size` say where it shows.

        Raises:
            StudyError: there are too many to go on.
        """
        if len(self._found) >= MOST_PROBLEMS:
            message = f"more than {MOST_PROBLEMS} mistakes; what follows was not read"
            raise StudyError([*self.problems(), Problem(self._path, self._line_of(location), message)])
        rows, sizes = self._found.setdefault((self._line_of(location), message), ({}, {}))
        if row:
            rows[row] = None
        if size:
            sizes[size] = None

    def problems(self) -> list[Problem]:
        """What was found, one `Problem` per line and message."""
        return [
            Problem(self._path, line, message + _shown_in(list(rows), list(sizes)))
            for (line, message), (rows, sizes) in self._found.items()
        ]

    def raise_if_any(self) -> None:
        """Raises:
        StudyError: something was found.
        """
        if self._found:
            raise StudyError(self.problems())


def _shown_in(rows: list[str], sizes: list[str]) -> str:
    parts = []
    if rows:
        more = len(rows) - 1
        parts.append(rows[0] + (f" and {counted(more, 'more row')}" if more else ""))
    if sizes:
        parts.append(f"size{'s' if len(sizes) > 1 else ''} {', '.join(sizes)}")
    return f" ({'; '.join(parts)})" if parts else ""


# Addresses as they may be shown and logged: the one place that takes passwords and tokens out of a text.


HIDDEN = "***"
SHORTEST = 3  # characters of a password that is looked for in a text; shorter ones are parts of words
LONGEST = 10_000  # characters of a text that are looked through; no message is longer

# Whoever stands before an @ may be a password, a token, or a name; none is needed to find the server.
_USER = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:/{2})(?P<user>[^\s/'\"<>][^\s'\"<>]*)@"
# Of a query, of libpq's keyword form, of ODBC, of JSON; quoted values may have spaces.
_KEY_VALUE = (
    r"""(?P<key>[\w%.+-]{1,200}["']?[ ]?(?:=|:(?!//))[ ]?)"""
    r"""(?P<value>'(?:[^'\\]|\\.){0,2000}'|"(?:[^"\\]|\\.){0,2000}"|\{[^}]{0,2000}\}|[^\s&;,'"]{1,4000})"""
)
_HIDDEN_KEYS = (  # in whatever case
    r"pass(word|wd|phrase)|pwd|token|secret|api[-_.]?key|a(ccess|ccount|uth)[-_.]?key|private[-_.]?key|"
    r"credential|signature|(^|[-_.])(pass|sig|sas|auth|authorization)$"
)
# Tokens that say themselves what they are: of Databricks, GitHub, AWS; of HTTP headers.
_BARE = (
    r"\bdapi[0-9a-f]{8,}(?:-\d+)?\b|\bgh[opsur]_\w{8,}|\bAKIA[0-9A-Z]{12,}\b"
    r"|(?<=\bBearer )\S+|(?<=\bBasic )\S+"
)


def masked(text: str, uri: str = "") -> str:
    """The text with *** in place of every secret that an address in it holds, and of those of `uri`.

    >>> masked("postgresql://me:secret@db/x and http://127.0.0.1:5000")
    'postgresql://***@db/x and http://127.0.0.1:5000'
    >>> masked("host=db password='s p' user=me"), masked("http://h/?a=1&Token=x")
    ("host=db password='***' user=me", 'http://h/?a=1&Token=***')
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    for secret in sorted(set(_secrets(uri)), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = re.sub(_USER, rf"\g<scheme>{HIDDEN}@", re.sub(_BARE, HIDDEN, text))
    return re.sub(_KEY_VALUE, _without_value, text)


def has_secret(uri: str) -> bool:
    """Whether the address must not be shown as it is."""
    return masked(uri) != uri


def _without_value(found: re.Match[str]) -> str:
    """The pair without its value where the key is one of a secret, or the value holds such a pair itself."""
    key, value = found["key"], found["value"]
    word = unquote_plus(key.rstrip(" =:\"'"))
    inner = unquote_plus(value)
    if re.search(_HIDDEN_KEYS, word, re.IGNORECASE) or (inner != value and masked(inner) != inner):
        quote = value[0] if value[0] in "'\"" else ""
        return f"{key}{quote}{HIDDEN}{quote}"
    holds_pairs = re.search("[=:]", value) is not None  # as in `MLFLOW_TRACKING_URI=http://h?token=x`
    return f"{key}{masked(value)}" if holds_pairs else found[0]


def _secrets(uri: str) -> Iterator[str]:
    """The secrets of an address as written and with its %-signs resolved, as drivers say them."""
    found = re.match(_USER, uri)
    parts = found["user"].partition(":")[2] or found["user"] if found else ""
    values = [
        parts,
        *(pair["value"].strip("'\"") for pair in re.finditer(_KEY_VALUE, uri) if _is_secret(pair)),
    ]
    for value in values:
        for each in {value, unquote(value), unquote_plus(value)}:
            if len(each) >= SHORTEST:
                yield each


def _is_secret(pair: re.Match[str]) -> bool:
    word = unquote_plus(pair["key"].rstrip(" =:\"'"))
    return re.search(_HIDDEN_KEYS, word, re.IGNORECASE) is not None


class Visible:
    """The one way to the terminal: what others wrote is shown there, and commands it nothing.

    Names of files, hosts, answers of servers and words of exceptions may hold escape sequences and changes of
    direction. `rich` writes its own sequences to the stream inside (by `rich_proxied_file`), and cleans its
    texts itself (`progress.HouseConsole`).
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        stream = self.rich_proxied_file
        shown = visible(text)
        try:
            stream.write(shown)
        except UnicodeEncodeError:  # a terminal of another encoding
            encoding = stream.encoding or "ascii"
            stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


# Tables of code.


Thing = TypeVar("Thing")


class CodeTable(MutableMapping[str, Thing]):
    """Name -> entry. Its module is imported when the entry is asked for: a study uses few of them."""

    def __init__(self, package: str, places: Mapping[str, str]) -> None:
        """places: name -> "module.attribute", in `package`: the entry, or a mapping that has it."""
        self._package = package
        self._places = dict(places)
        self._entries: dict[str, Thing | None] = dict.fromkeys(places)

    def __getitem__(self, name: str) -> Thing:
        found = self._entries[name]
        if found is None:
            module, _, attribute = self._places[name].partition(".")
            held = getattr(import_module(f"{self._package}.{module}"), attribute)
            found = self._entries[name] = held[name] if isinstance(held, Mapping) else held
        return found

    def __setitem__(self, name: str, entry: Thing) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries


# Frozen data classes whose methods are written once, and not compiled anew for each of them.


_Class = TypeVar("_Class")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def frozen(cls: type[_Class], *, slots: bool = True) -> type[_Class]:
    """`dataclass(frozen=True, slots=True, kw_only=True)`, made in a fifth of the time: a plan makes fifty.

    >>> @frozen
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> Point(x=1), Point(x=1) == Point(x=1, y=0), len({Point(x=1), Point(x=1), Point(x=2)}), Point(x=1) == 1
    (Point(x=1, y=0), True, 2, False)
    """
    from dataclasses import dataclass, fields  # with what they import 6 ms, which `--help` does without

    made: Any = dataclass(slots=slots, kw_only=True, init=False, eq=False, repr=False)(cls)
    made.__dataclass_params__.frozen = True
    made.__init__ = _init(made, fields(made), slots)
    made.__setattr__ = made.__delattr__ = _refuse
    made.__eq__, made.__hash__, made.__repr__ = _is_equal, _hash, _shown
    made.__signature__ = _Signature()
    if slots:
        made.__setstate__ = _unpickle
    return cast(type[_Class], made)


@dataclass_transform(kw_only_default=True)
def mutable(cls: type[_Class]) -> type[_Class]:
    """`dataclass(slots=True, kw_only=True)` that compares and shows as `frozen` does, made quicker."""
    from dataclasses import dataclass

    made: Any = dataclass(slots=True, kw_only=True, eq=False, repr=False)(cls)
    made.__eq__, made.__hash__, made.__repr__ = _is_equal, None, _shown
    return cast(type[_Class], made)


def _init(made: Any, fields: Sequence[Any], slots: bool) -> Callable[..., None]:
    from dataclasses import MISSING

    # What sets a field, past `__setattr__` and three times as quick as that of `object`.
    setters = {each.name: vars(made)[each.name].__set__ for each in fields} if slots else {}
    names, is_checked = {each.name for each in fields}, hasattr(made, "__post_init__")
    defaults = {each.name: each.default for each in fields if each.default is not MISSING}
    makers = {each.name: each.default_factory for each in fields if each.default_factory is not MISSING}

    def __init__(self: Any, **given: Any) -> None:
        values = {**defaults, **given}
        for name, make in makers.items():
            if name not in given:
                values[name] = make()
        if values.keys() != names:
            raise TypeError(_wrong_arguments(type(self).__name__, values.keys(), names))
        if not slots:
            vars(self).update(values)
        else:
            for name, value in values.items():
                setters[name](self, value)
        if is_checked:
            self.__post_init__()

    return __init__


class _Signature:
    """What `inspect`, `help` and editors show of such a class: its fields, looked at when they ask."""

    def __get__(self, one: object, made: Any) -> Any:
        from dataclasses import MISSING, fields
        from inspect import Parameter, Signature

        def parameter(each: Any) -> Parameter:
            found = (way for way in (each.default, each.default_factory) if way is not MISSING)
            default = next(found, Parameter.empty)
            return Parameter(each.name, Parameter.KEYWORD_ONLY, default=default, annotation=each.type)

        return Signature([parameter(each) for each in fields(made)])


def _wrong_arguments(name: str, given: Set[str], wanted: Set[str]) -> str:
    lacking, unexpected = sorted(wanted - given), sorted(given - wanted)
    what = f"got an unexpected keyword argument '{unexpected[0]}'" if unexpected else ""
    return f"{name} {what or f'lacks the keyword argument {lacking[0]!r}'}"


def _refuse(one: Any, name: str, *value: Any) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")


def _unpickle(one: Any, state: tuple[None, Mapping[str, Any]]) -> None:
    for name, value in state[1].items():
        object.__setattr__(one, name, value)


def _is_equal(one: Any, other: object) -> bool:
    return _compared(one) == _compared(other) if type(one) is type(other) else NotImplemented


def _hash(one: Any) -> int:
    return hash(_compared(one))


def _compared(one: Any) -> tuple[Any, ...]:
    from dataclasses import fields

    return tuple(getattr(one, each.name) for each in fields(one) if each.compare)


def _shown(one: Any) -> str:
    from dataclasses import fields

    said = (f"{each.name}={getattr(one, each.name)!r}" for each in fields(one) if each.repr)
    return f"{type(one).__qualname__}({', '.join(said)})"
