"""How numbers are written: digits from the standard error, a true minus sign, intervals, units, no NaN."""

from __future__ import annotations

import math
from typing import TypeGuard

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
