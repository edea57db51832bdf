"""How often every arm is trained: a fixed number of seeds, or more at each look at the results.

Looks are numbers of seeds per arm, rising: (3,) is a fixed design, (3, 5, 8, 10) an adaptive one that trains
every arm with 3 seeds and those that are not settled then with 5, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from harness.spec import MEMBER_STRIDE

MOST_SEEDS = MEMBER_STRIDE  # of an arm
START = 3  # where a study does not say
GROWTH = 1.5  # seeds at a look over those at the one before, at least
LAST_STEP = 1.25  # the last look has at least so many times the seeds of the one before it
_WANTED = re.compile(r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?")


def default_looks(start: int, at_most: int) -> tuple[int, ...]:
    """Looks from `start` to `at_most` seeds, each about 1.6 times the one before.

    >>> default_looks(3, 20), default_looks(3, 10), default_looks(5, 5)
    ((3, 5, 8, 12, 20), (3, 5, 8, 10), (5,))
    """
    looks = [start]
    while (step := -int(-GROWTH * looks[-1] // 1)) * LAST_STEP <= at_most:
        looks.append(step)
    return tuple(looks) if looks[-1] == at_most else (*looks, at_most)


def check_looks(looks: Sequence[int]) -> None:
    """
    Raises:
        ValueError: they do not rise, or are out of range.
    """
    if not all(earlier < later for earlier, later in pairwise(looks)):
        raise ValueError(f"looks must rise, such as [3, 5, 8, 10], got {list(looks)}")
    for count in (looks[0], looks[-1]):
        check_count(count)


def check_count(count: int) -> None:
    """
    Raises:
        ValueError: no arm can have so many seeds.
    """
    if count < 1:
        raise ValueError(f"the number of seeds must be at least 1, got {count}")
    if count > MOST_SEEDS:
        raise ValueError(f"the number of seeds must be at most {MOST_SEEDS}, got {count}")


def parse_seeds(text: str) -> tuple[int, ...]:
    """The looks that `--seeds` asks for.

    >>> parse_seeds("5"), parse_seeds("3..10")
    ((5,), (3, 5, 8, 10))

    Raises:
        ValueError: it is neither a number nor START..AT_MOST, or out of range.
    """
    found = _WANTED.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"must be a number of seeds (5), or START..AT_MOST (3..10), got {text!r}")
    start = int(found[1])
    at_most = int(found[2] or start)
    for count in (start, at_most):
        check_count(count)
    if at_most < start:
        raise ValueError(f"must not end ({at_most}) below its start ({start}), got {text!r}")
    return default_looks(start, at_most)
