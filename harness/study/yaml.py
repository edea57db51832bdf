"""A YAML file as plain data: scalars as YAML 1.2 reads them, and the line of every key and list item."""

from __future__ import annotations

import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.error import MarkedYAMLError, YAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from harness.errors import UNPRINTABLE, Location, Problem, ProblemList, StudyError, shortened, unknown

# Plain YAML scalars as YAML 1.2's core schema reads them: `no` and `on` are words, 010 is ten.


_TAG = "tag:yaml.org,2002:"
STUDIES = "studies"  # the folder in which a bare name is looked for
_PLAIN = (  # YAML 1.2.2, Sec. 10.3.2
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), "~nN\0"),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), "tTfF"),
    ("int", re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), "-+0123456789"),
    (
        "float",
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        "-+.0123456789",
    ),
)
DEEPEST = 50  # levels of lists and maps; a study needs about 8
LARGEST = 2**63 - 1  # a whole number beyond this is a mistake, and takes long to write
_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where PyYAML was built with it


def _by_first_letter() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, letters in _PLAIN:
        for letter in letters:
            found.setdefault(letter.strip("\0"), []).append((_TAG + name, pattern))
    return found


class TooDeepError(ValueError):
    """Lists and maps lie in more than `DEEPEST` others."""


class CoreLoader(_Fast):
    """Composes nodes and tags plain scalars by the core schema instead of PyYAML's YAML 1.1.

    libyaml's composer calls itself for every level, and would overflow the C stack: it ends before.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = _by_first_letter()
    _level = -1  # of the node that is composed; the root has 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """The tag of a node without one of its own; `implicit`: whether it stands (plain, in quotes)."""
        if kind is ScalarNode:
            for tag, pattern in self.yaml_implicit_resolvers.get(value[:1], ()) if implicit[0] else ():
                if pattern.match(value):
                    return tag
            return _TAG + "str"
        return _TAG + ("seq" if kind is SequenceNode else "map")

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        """Called before every node."""
        self._level += 1
        if self._level > DEEPEST:
            raise TooDeepError("is nested too deeply")

    def ascend_resolver(self) -> None:
        """Called after every node."""
        self._level -= 1


def scalar(node: Node) -> str | int | float | bool | None:
    """The value of a scalar node.

    Raises:
        ValueError: an explicit tag that its text does not fit.
    """
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            if text.lower() not in ("true", "false"):
                raise ValueError(f"'{text}' is neither true nor false")
            return text.lower() == "true"
        case "int":
            return _whole(text)
        case "float":
            return float(re.sub(r"\.(?=[iInN])", "", text))  # .inf and .nan are inf and nan to Python
        case "str":
            return text
    raise ValueError(f"the tag {node.tag} is not part of the study format")


def _whole(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    number = LARGEST + 1 if len(text) > 100 else int(text, base)
    if abs(number) > LARGEST:
        raise ValueError("a whole number this large is none that a study needs")
    return number


# A YAML file as plain data, with the line of every key and list item.


PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
MOST_BYTES = 1_000_000  # the largest shipped study has 14,000


class YamlFile:
    """What was read from a file. Lines count from 1."""

    def __init__(self, path: str, data: Any = None) -> None:
        self.path, self.data = path, data
        self.lines: dict[Location, int] = {}

    def line(self, location: Location) -> int:
        """The line of a place in the file, or of the nearest place around it that the file has."""
        while location not in self.lines:
            if not location:
                return 1
            location = location[:-1]
        return self.lines[location]

    def problem_list(self) -> ProblemList:
        """An empty list of mistakes in this file."""
        return ProblemList(self.path, self.line)


def read_source(path: Path, problems: list[Problem]) -> YamlFile:
    """Read one YAML 1.2 document with plain values: no tags, anchors or aliases.

    Duplicate keys, tags and aliases are appended to `problems`, and reading goes on.

    Raises:
        StudyError: the file is not there, is not text, or is not YAML.
    """
    text = read_text(path)
    try:
        root = yaml.compose(text, Loader=CoreLoader)
    except TooDeepError:
        raise _error(path, 0, "nested too deeply to be a study") from None
    except MarkedYAMLError as error:
        mark, begin = error.problem_mark or error.context_mark, error.context_mark
        since = f"that begins on line {begin.line + 1}" if mark and begin and begin.line < mark.line else ""
        why = " ".join(str(part) for part in (error.context, since, error.problem) if part)
        at = f" (column {mark.column + 1})" if mark else ""
        raise _error(path, mark.line + 1 if mark else 0, f"not valid YAML: {why}{at}") from None
    except YAMLError as error:
        raise _error(path, 0, f"not valid YAML: {str(error).splitlines()[0]}") from None
    if root is None:
        raise _error(path, 0, "the file is empty; a study has at least study, question, baseline, tables")
    source = YamlFile(str(path))
    reader = _Reader(source, problems)
    source.data = reader.value(root, ())
    return source


def read_value(text: str) -> Any:
    """One value, as a study file has it.

    >>> read_value("0.1"), read_value("[1, no]"), read_value("{imagefolder: {folder: photos}}")
    (0.1, [1, 'no'], {'imagefolder': {'folder': 'photos'}})

    Raises:
        ValueError: it is no value of a study file.
    """
    problems: list[Problem] = []
    try:
        root = yaml.compose(text, Loader=CoreLoader)
    except YAMLError:
        raise ValueError("is not valid YAML") from None
    value = None if root is None else _Reader(YamlFile(""), problems).value(root, ())
    if problems:
        raise ValueError(problems[0].message)
    return value


def is_script_study(path: Path) -> bool:
    """Whether a study file has the key `script`.

    Raises:
        StudyError: it cannot be read.
    """
    return re.search(r"^script\s*:", read_text(path), re.MULTILINE) is not None


def read_text(path: Path) -> str:
    """The text of a study file.

    Raises:
        StudyError: it is not there, is not a plain file of a few kilobytes, or is not text.
    """
    try:
        about = path.stat()
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            raise _error(path, 0, "cannot be read: not a plain file")
        if about.st_size > MOST_BYTES:
            raise _error(path, 0, f"larger than {MOST_BYTES:,} bytes; a study has a few thousand")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _error(path, 0, _not_there(path)) from None
    except UnicodeDecodeError as error:
        raise _error(
            path, 0, f"not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        ) from None
    except OSError as error:
        raise _error(path, 0, f"cannot be read: {error.strerror}") from None


def shipped_studies() -> Path:
    """The folder of the shipped studies: in the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    within = package / "shipped"
    return within if within.is_dir() else package.parent / STUDIES


def study_file(name: Path) -> Path:
    """The file that a study's name stands for: NAME, NAME.yaml; of a bare name then studies/NAME(.yaml), and
    then the same among the studies that ship with the harness. The name itself where there is none of these.
    """
    folders = [Path()] if len(name.parts) > 1 else [Path(), Path(STUDIES), shipped_studies()]
    files = [
        folder / name.with_name(name.name + end) for folder in folders for end in ("", ".yaml") if name.name
    ]
    bare = [file for file in files if file.is_file() or (file.exists() and file == name)]
    return next(iter(bare), name)


def _not_there(path: Path) -> str:
    """Where a study was looked for, the nearest name and the valid ones."""
    if len(path.parts) > 1:
        folders, where = [path.parent], ""
    else:
        folders = [Path(), Path(STUDIES), shipped_studies()]
        where = ", here, in studies/ or among the shipped studies"
    names = {file.stem: None for folder in folders for file in folder.glob("*.yaml")}
    return f"no such file{where}; {unknown('study', path.name.removesuffix('.yaml'), names)}"


def _error(path: Path, line: int, message: str) -> StudyError:
    return StudyError([Problem(str(path), line, message)])


class _Reader:
    """Turns YAML nodes into plain values and remembers lines."""

    def __init__(self, source: YamlFile, problems: list[Problem]) -> None:
        self._source = source
        self._problems = problems
        self._seen: set[int] = set()

    def value(self, node: Node, location: Location) -> Any:
        if id(node) in self._seen:
            # Aliases also allow a few lines to expand into billions of values. The node's own mark is where
            # the value was first written.
            self._say(
                self._source.line(location),
                "aliases (*name) are not part of the study format; write the value again",
            )
            return None
        self._seen.add(id(node))
        self._source.lines.setdefault(location, node.start_mark.line + 1)
        if not isinstance(node, ScalarNode) and node.tag not in PLAIN_TAGS:
            self._say(node.start_mark.line + 1, f"the tag {node.tag} is not part of the study format")
        if isinstance(node, MappingNode):
            return self._mapping(node, location)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: MappingNode, location: Location) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self._say(line, "a key must be a plain word, not a list or a map")
                continue
            key = self._scalar(key_node)
            if isinstance(key, str) and "\n" in key:
                self._say(line, f"a key must be one line, got '{key}'")
            here = (*location, key)
            if key in found:
                self._say(line, f"duplicate key '{key}', first on line {self._source.lines[here]}")
                here = (*location, f"{key} (again)")
                self.value(value_node, here)
                continue
            self._source.lines[here] = line
            found[key] = self.value(value_node, here)
        return found

    def _scalar(self, node: Node) -> Any:
        if node.tag is not None and not str(node.tag).startswith("tag:yaml.org,2002:"):
            self._say(node.start_mark.line + 1, f"the tag {node.tag} is not part of the study format")
            return None
        try:
            value = scalar(node)
        except ValueError as error:
            shown = shortened(node.value)
            self._say(node.start_mark.line + 1, f"cannot read '{shown}': {str(error).splitlines()[0]}")
            return None
        return self._printable(value, node) if isinstance(value, str) else value

    def _printable(self, text: str, node: Node) -> str:
        """The text without what must reach no terminal and no report; lines and tabs stay."""
        if text.isprintable():
            return text
        wrong = sorted(set(re.findall(UNPRINTABLE, text)) - {"\n", "\t"})
        if wrong:
            named = ", ".join(f"U+{ord(each):04X}" for each in wrong)
            self._say(node.start_mark.line + 1, f"a text has characters that cannot be printed: {named}")
            text = re.sub(UNPRINTABLE, lambda found: found[0] if found[0] in "\n\t" else "", text)
        return text

    def _say(self, line: int, message: str) -> None:
        self._problems.append(Problem(self._source.path, line, message))
