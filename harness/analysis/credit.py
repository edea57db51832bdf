"""Order-free credit: what each trick of a table deserves of the total, and whether the order matters.

The weights over arms follow from the design (`credit_weights`), the standard errors from the guarded block
fit (`combinations`), the words from the same rules as those of rows. One Holm family: the credits of the
table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType

from harness.analysis.credit_column import Column, Roots, Sources, Tested, p_of
from harness.analysis.credit_findings import CreditFinding, TrickCredit
from harness.analysis.credit_weights import FIRST_AND_LAST, METHODS
from harness.analysis.findings import Settings, TableFinding
from harness.analysis.intervals import holm
from harness.study.plan import PlanTable

HALVES = {"add_one_in": "leave_one_out", "leave_one_out": "add_one_in"}
ONE_TRICK = "one trick has nothing to share with others: its effect is that of its row"
CONFOUNDED = "its rows cannot tell pairs of tricks apart; a resolution of at least 5 can"
MISSING_ROWS = "rows that its formula needs are missing"


def with_credit(
    tables: Sequence[PlanTable],
    found: Sequence[TableFinding],
    settings: Settings,
    roots: Roots = MappingProxyType({}),
) -> tuple[TableFinding, ...]:
    """The findings on the same tables with `credit` filled in where the design gives it.

    An `add_one_in` and a `leave_one_out` table of the same tricks and starting points are one design of both
    ends; the second of the two carries the credit. `roots`: as for `decide_table`.
    """
    pairs = list(zip(tables, found, strict=True))
    return tuple(
        dataclasses.replace(finding, credit=_credit(_sources(pairs, k), settings, roots))
        for k, (_, finding) in enumerate(pairs)
    )


def _sources(pairs: Sequence[tuple[PlanTable, TableFinding]], k: int) -> Sources | None:
    table, finding = pairs[k]
    if table.design in METHODS:
        return Sources(design=table.design, plans=(table,), found=(finding,))
    if not table.ground:
        return None
    for other, of_other in reversed(pairs[:k]):
        if other.ground == table.ground and other.design == HALVES.get(table.design):
            return Sources(design="both_ends", plans=(other, table), found=(of_other, finding))
    return None


def _credit(sources: Sources | None, settings: Settings, roots: Roots) -> CreditFinding | None:
    if sources is None or not sources.tricks:
        return None
    finding = CreditFinding(
        design=sources.design,
        tables=tuple(plan.key for plan in sources.plans),
        places=FIRST_AND_LAST,
        credits=(),
        totals=(),
    )
    if len(sources.tricks) == 1:
        return dataclasses.replace(finding, why_not=ONE_TRICK)
    columns = [Column.of(sources, name, roots) for name in sources.plans[-1].columns]
    ready = [column for column in columns if column is not None]
    if len(ready) < len(columns):
        why = CONFOUNDED if sources.design == "fractional" else MISSING_ROWS
        return dataclasses.replace(finding, why_not=why)
    return dataclasses.replace(
        finding,
        places=ready[0].weights.places,
        credits=tuple(_credits(ready, settings)),
        totals=tuple(column.total(settings) for column in ready),
    )


def _credits(columns: Iterable[Column], settings: Settings) -> Iterator[TrickCredit]:
    of = [(column, trick) for column in columns for trick in range(len(column.tricks))]
    combined = [column.combine(column.weights.credit[trick]) for column, trick in of]
    family = holm([p_of(each) for each in combined], settings.alpha)
    for k, (column, trick) in enumerate(of):
        tested = Tested(combined=combined[k], level=float(family.level[k]), p_holm=float(family.p[k]))
        yield column.credit_of(trick, tested, settings)
