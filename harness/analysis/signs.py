"""The exact sign test, for differences of which only the direction is known."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def sign_test(signs: Sequence[int]) -> float:
    """Two-sided exact p of "either direction is equally likely"; zeros do not count. 1 without any sign.

    >>> sign_test([1, 1, 1]), sign_test([-1] * 6), sign_test([])
    (0.25, 0.03125, 1.0)
    """
    up, down = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
    n = up + down
    return min(1.0, 2.0 * sum(comb(n, k) for k in range(min(up, down) + 1)) / 2**n)


def fewest_for(alpha: float) -> int:
    """How many equal signs the test needs at least to stay below `alpha`.

    >>> fewest_for(0.05)
    6
    """
    n = 1
    while 2.0 / 2**n > alpha:
        n += 1
    return n
