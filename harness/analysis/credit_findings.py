"""How the total of a table splits over its tricks: plain data, in percentage points (or the metric's units).

All intervals are two-sided 95 % intervals over re-training, before Holm's correction, unless named adjusted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """A contrast of arm means; None where there is no value, or no standard error above 0."""

    estimate: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrickCredit:
    """One trick in one column of the table."""

    trick: str
    column: str | None
    n: int  # seeds of the arm with fewest, of those that the credit needs
    first: Amount  # in the first place (alone), or in the given order: `CreditFinding.places`
    last: Amount  # in the last place (given all others), or in the reverse order
    credit: Amount  # Shapley value: the mean over all orders
    half_gap: Amount  # (last - first) / 2; below 0: overlaps with other tricks, above 0: needs them
    forward: Amount | None  # given the tricks before it in the file; None: these arms do not exist
    adjusted_low: float | None  # of the credit, Holm-adjusted
    adjusted_high: float | None
    p: float | None
    p_holm: float | None  # over all credits of the table
    df: float | None
    flagged: bool  # the variance guard gave an arm its own variance
    verdict: str  # a word of `findings`
    qualifier: str
    more_seeds: int | None
    path_dependent: bool  # the interval of `half_gap` excludes 0
    contradiction: (
        bool  # helps as the first and hurts as the last, or the other way round, by the rows' verdicts
    )
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditTotal:
    """One column: what is split, and whether the arms show more than pairwise interactions."""

    column: str | None
    n: int
    none: float | None  # mean of the row without any of the tricks, percent; None: no such row, or no value
    every: float | None  # mean of the row with all of them
    total: Amount  # every minus none: the sum of the credits
    check: (
        Amount | None
    )  # the contrast that strays farthest from 0 among those that are 0 without interactions
    check_p: float | None  # of three and more tricks; its p, Holm-adjusted over them. None: cannot be told
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditFinding:
    """The credits of one table, or of an `add_one_in` and a `leave_one_out` table together."""

    design: str  # both_ends | both_ways | factorial | fractional: how the credits are computed
    tables: tuple[str, ...]  # keys of the tables whose rows were used
    places: tuple[str, str]  # what `TrickCredit.first` and `last` are
    credits: tuple[TrickCredit, ...]  # column by column, in the order of the file
    totals: tuple[CreditTotal, ...]  # one per column
    why_not: str = ""  # why there are no credits, where there are none
