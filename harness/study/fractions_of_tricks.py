"""Regular two-level fractional factorial designs of a wanted resolution.

pyDOE3 builds the design from its generators. The generators are chosen here, because pyDOE3's own choice
(`fracfact_by_res`) does not reach the resolution it is asked for: for 7 factors at resolution 5 it returns
generators abcd and abce, whose product is the word `de` with the two new letters, of length 4.
"""

from __future__ import annotations

import itertools
import string

MOST_FACTORS = 20  # the search goes through 2 to the power of the further ones
MOST_BASE = 17  # 131,072 rows


def fraction(factors: int, resolution: int) -> list[list[bool]]:
    """Which factors are on in each run, (runs, factors), in order: the smallest fraction the search finds.

    A design has resolution R when no effect of fewer than R letters is confounded with the mean, so that at 5
    main effects and pairs are all apart (Box, Hunter and Hunter, Statistics for Experimenters, ch. 6).

    Raises:
        ValueError: no proper fraction exists; the message says what to use instead.
    """
    if factors > MOST_FACTORS:
        raise ValueError(f"a fraction is made of at most {MOST_FACTORS} tricks, here are {factors}")
    words = generators(factors, resolution)
    if words is None:
        raise ValueError(
            f"no fraction of {factors} factors has resolution {resolution}; use the design 'factorial',"
            " or a lower resolution"
        )
    import pyDOE3  # imports scipy: only where it is used

    base = factors - len(words)
    if base > MOST_BASE:
        raise ValueError(f"the fraction of {factors} factors with resolution {resolution} has {2**base} rows")
    letters = string.ascii_lowercase[:base]
    extra = ["".join(letters[i] for i in range(base) if word >> i & 1) for word in words]
    design = pyDOE3.fracfact(" ".join([*letters, *extra]))
    return sorted([value > 0 for value in row] for row in design.tolist())


def generators(factors: int, resolution: int) -> list[int] | None:
    """Words over the base factors (bit i: factor i), one per further factor; None where there are none.

    The number of base factors grows until a greedy choice of words, long ones last, keeps every product of
    defining words at least `resolution` letters long.

    >>> [f"{word:b}" for word in generators(5, 5)]
    ['1111']
    """
    for base in range(min(resolution - 1, factors), factors):
        chosen = _greedy(base, factors - base, resolution)
        if chosen is not None:
            return chosen
    return None


def _greedy(base: int, wanted: int, resolution: int) -> list[int] | None:
    chosen: list[int] = []
    products = [0]  # of defining words chosen so far; each new factor has a bit of its own above `base`
    for size in range(resolution - 1, base + 1):
        for letters in itertools.combinations(range(base), size):
            word = sum(1 << letter for letter in letters)
            defining = word | 1 << (base + len(chosen))
            made = [product ^ defining for product in products]
            if all(product.bit_count() >= resolution for product in made):
                chosen.append(word)
                products += made
                if len(chosen) == wanted:
                    return chosen
    return None
