"""Plain YAML scalars as YAML 1.2's core schema reads them: `no` and `on` are words, 010 is ten."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml
from yaml.nodes import Node

_TAG = "tag:yaml.org,2002:"
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
LARGEST = 2**63 - 1  # a whole number beyond this is a mistake, and takes long to write
_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where PyYAML was built with it


def _by_first_letter() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, letters in _PLAIN:
        for letter in letters:
            found.setdefault(letter.strip("\0"), []).append((_TAG + name, pattern))
    return found


class CoreLoader(_Fast):
    """Composes nodes and tags plain scalars by the core schema instead of PyYAML's YAML 1.1."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = _by_first_letter()


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
