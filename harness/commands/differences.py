"""Where two versions of a report differ, in words; and where only in the last digits, as two CPUs do.

Sums come in another order on another CPU, so a number that was computed may differ in its last digits. The
report's own number is taken in its place if both agree within `RELATIVE`; then every byte is compared.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from harness.reporting.numbers import count

NUMBER = re.compile(rb"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])")
TEXTS = (".md", ".csv", ".tex", ".jsonl", ".html", ".svg")
MOST = 5  # of one file

RELATIVE = 1e-9  # by which a computed number may differ
# A difference of two means carries their rounding error, some 1e-14 of their size, whatever is left of it: a
# difference that is 0 comes out as 8e-14 here and as -9e-14 there. So much of the metric's scale is no
# difference: 1e-10 percentage points, where the reports print two decimals.
FLOOR = 1e-12
PERCENT = 100.0
CHANCES = ("p", "p_holm", "check_p")  # tiny values mean something: no floor

PRINTED = re.compile(r"[-+\u2212]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
SIGNS = str.maketrans("", "", "-+\u2212,")
SIGNIFICANT = (2, 3, 4)  # digits that sentences use where they do not count decimals


def numbers_in(name: str, content: bytes) -> int:
    """How many numbers a text has; 0 for pictures and PDF, which are compared as a whole."""
    return len(NUMBER.findall(content)) if name.endswith((".json", ".csv", ".jsonl", ".md", ".tex")) else 0


def differences(name: str, was: bytes, now: bytes) -> list[str]:
    """Up to `MOST` differences between what the report has and what was computed."""
    if name.endswith(".json"):
        found = _in_json(was, now)
    elif name.endswith(TEXTS):
        found = _in_text(was, now)
    else:
        found = iter(())
    listed = [text for text, _ in zip(found, range(MOST + 1), strict=False)]
    if len(listed) > MOST:
        listed[MOST] = "and more"
    return listed or ["its bytes are others"]


def _in_text(was: bytes, now: bytes) -> Iterator[str]:
    before, after = (content.decode("utf-8", "replace").splitlines() for content in (was, now))
    for number, (old, new) in enumerate(zip(before, after, strict=False), start=1):
        if old != new:
            at = next(
                (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
            )
            start = max(0, at - 12)
            yield f"line {number} has {old[start : at + 12]!r}, computed: {new[start : at + 12]!r}"
    if len(before) != len(after):
        yield f"has {len(before)} lines, computed: {len(after)}"


def _in_json(was: bytes, now: bytes) -> Iterator[str]:
    try:
        yield from _in_value("", json.loads(was), json.loads(now))
    except ValueError as error:
        yield f"is not JSON: {error}"


def _in_value(path: str, was: Any, now: Any) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            if key not in was or key not in now:
                yield f"{path}.{key}".lstrip(".") + (" is missing" if key in now else " is not computed")
            else:
                yield from _in_value(f"{path}.{key}", was[key], now[key])
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (old, new) in enumerate(zip(was, now, strict=True)):
            yield from _in_value(f"{path}[{index}]", old, new)
    elif was != now or type(was) is not type(now):
        yield f"{path.lstrip('.')} is {_short(was)}, computed: {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(slots=True)
class LastDigits:
    """What another CPU computed otherwise, in the last digits only."""

    pairs: list[tuple[float, float]] = field(default_factory=list)  # (the report's, computed here)
    texts: int = 0  # sentences in which one of the pairs is rounded the other way

    def __str__(self) -> str:
        most = max((abs(a - b) / max(abs(a), abs(b)) for a, b in self.pairs), default=0.0)
        size = f"by at most {most:.0e} of their size"
        if most > RELATIVE:
            size = f"within {RELATIVE:g} of their size, or both 0 but for rounding"
        numbers = count(len(self.pairs), "computed number")
        rounded = f"; rounded the other way in {count(self.texts, 'sentence')}" if self.texts else ""
        return f"differs in the last digits only (another CPU): {numbers}, {size}{rounded}"


def with_own_numbers(computed: Any, own: Mapping[str, Any], scale: float) -> tuple[Any, LastDigits]:
    """What was computed, each number that agrees with the report's own within `RELATIVE` replaced by that.

    computed: dataclasses, mappings, tuples and lists of numbers and texts, such as `Findings`.
    own: the same as read from report.json.
    scale: of the metric (100: percent); smaller differences than `FLOOR` of it are none.

    A text that differs from the report's only where a number rounds the other way is the report's, too.
    Nothing else is replaced: whatever differs beyond that still differs afterwards.
    """
    found = LastDigits()

    def closer(value: Any, other: Any, name: str) -> Any:
        is_number = isinstance(value, float) and isinstance(other, float)
        if is_number and value != other and agree(value, other, 0.0 if name in CHANCES else scale):
            found.pairs.append((other, float(value)))
            return other
        return value

    def retold(value: Any, other: Any, _: str) -> Any:
        are_texts = isinstance(value, str) and isinstance(other, str)
        if are_texts and value != other and _rounded_apart(other, value, found.pairs):
            found.texts += 1
            return other
        return value

    numbers = _walk(computed, own, closer)
    return _walk(numbers, own, retold), found


def agree(one: float, other: float, scale: float = 0.0) -> bool:
    """Whether two CPUs may have computed one for the other.

    >>> agree(0.5769878681566913, 0.5769878681566971), agree(8.5e-14, -8.5e-14, 100.0), agree(1.0, 1.0001)
    (True, True, False)
    """
    return abs(one - other) <= max(RELATIVE * max(abs(one), abs(other)), FLOOR * scale)


def _walk(value: Any, own: Any, edit: Any, name: str = "") -> Any:
    """The value with `edit(leaf, own leaf, name of its field)` in place of each leaf that `own` has, too."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and isinstance(own, Mapping):
        names = [each.name for each in dataclasses.fields(value) if each.name in own]
        return dataclasses.replace(
            value, **{name: _walk(getattr(value, name), own[name], edit, name) for name in names}
        )
    if isinstance(value, Mapping) and isinstance(own, Mapping):
        return {
            key: _walk(item, own[str(key)], edit, str(key)) if str(key) in own else item
            for key, item in value.items()
        }
    if isinstance(value, list | tuple) and isinstance(own, list) and len(own) == len(value):
        return type(value)(_walk(item, other, edit, name) for item, other in zip(value, own, strict=True))
    return edit(value, own, name)


def _rounded_apart(own: str, computed: str, pairs: list[tuple[float, float]]) -> bool:
    """Whether each number in which two texts differ is one of the pairs, rounded the other way."""
    if PRINTED.sub("#", own) != PRINTED.sub("#", computed):
        return False
    printed = zip(PRINTED.findall(own), PRINTED.findall(computed), strict=True)
    return all(a == b or any(_rounds_to(a, b, pair) for pair in pairs) for a, b in printed)


def _rounds_to(own: str, computed: str, pair: tuple[float, float]) -> bool:
    a, b = own.translate(SIGNS), computed.translate(SIGNS)
    if a == b:  # only the sign differs: a zero
        return float(a) == 0 and pair[0] * pair[1] <= 0
    decimals = len(a.partition(".")[2])
    forms = [f".{decimals}f", *(f".{digits}g" for digits in SIGNIFICANT)]
    return any(
        format(abs(pair[0]) * times, form) == a and format(abs(pair[1]) * times, form) == b
        for times, form in product((1.0, PERCENT), forms)
    )
