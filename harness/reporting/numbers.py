"""How numbers are written: digits from the standard error, a true minus sign, intervals, units, no NaN.

And whether two of them are the same but for the last digits, in which two CPUs differ.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeGuard

MINUS = "\u2212"
DASH = "\u2014"
MOST_DIGITS = 2  # of a percentage

Digits = int | None  # decimals; None: four significant digits, for metrics of any unit


def digits_for(standard_error: float | None) -> int:
    """Decimals that a value with this standard error deserves: ceil(-log10 SE) + 1, from 0 to 2.

    >>> [digits_for(se) for se in (0.02, 0.4, 1.2, 15.0, 0.0, None)]
    [2, 2, 1, 0, 2, 2]
    """
    if not standard_error:
        return MOST_DIGITS
    return min(max(math.ceil(-math.log10(standard_error)) + 1, 0), MOST_DIGITS)


def number(value: float, digits: Digits = MOST_DIGITS) -> str:
    """A number with a fixed count of decimals; zero never carries a sign.

    >>> number(-1.234), number(-0.001), number(86.4), number(0.123456, None)
    ('−1.23', '0.00', '86.40', '0.1235')
    """
    text = f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float, digits: Digits = MOST_DIGITS) -> str:
    """A difference: always with its sign.

    >>> signed(0.5), signed(-0.5), signed(0.0)
    ('+0.50', '−0.50', '0.00')
    """
    text = number(value, digits)
    return f"+{text}" if value > 0 and float(text.replace(MINUS, "-")) != 0 else text


def interval(low: float | None, high: float | None, digits: Digits = MOST_DIGITS) -> str:
    """The two ends of an interval in square brackets, or nothing where there is none.

    >>> interval(-0.25, 1.0, 1), interval(None, None)
    ('[−0.2, 1.0]', '')
    """
    if low is None or high is None:
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def probability(value: float) -> str:
    """A p value or a probability.

    >>> probability(0.0002), probability(0.034), probability(0.9999)
    ('< 0.001', '0.034', '> 0.999')
    """
    if value < 0.001:
        return "< 0.001"
    return "> 0.999" if value > 0.999 else f"{value:.3f}"


def missing(reason: str) -> str:
    """A cell that has no value says why.

    >>> missing("not measured")
    '— (not measured)'
    """
    return f"{DASH} ({reason})"


def duration(time_s: float) -> str:
    """A time in the unit that a reader would choose.

    >>> duration(0.4), duration(42), duration(150), duration(9000)
    ('0.4 s', '42 s', '2.5 min', '2.5 h')
    """
    if time_s < 10:
        return f"{time_s:.1f} s"
    if time_s < 90:
        return f"{time_s:.0f} s"
    if time_s < 5400:
        return f"{time_s / 60:.1f} min"
    return f"{time_s / 3600:.1f} h"


def count(n: int, noun: str) -> str:
    """A count with its noun in the right number.

    >>> count(1, "seed"), count(3, "seed"), count(2, "study")
    ('1 seed', '3 seeds', '2 studies')
    """
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun[:-1]}ies" if noun.endswith("y") else f"{n:,} {noun}s"


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value read from a frame is a number that can be shown (not None, not NaN)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# Whether a number that was computed on another CPU is the same, but for its last digits.
#
# Sums come in another order on another CPU, so a number that was computed may differ in its last digits.
# A report's own number is taken in its place if both agree within `RELATIVE`; then every byte is compared.


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
