"""The credits of a table as CSV: full precision, plain minus signs, one line per trick and column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from harness.analysis.credit_findings import Amount, CreditFinding, TrickCredit
from harness.reporting.csv_tables import csv_text

_AMOUNTS = ("first", "last", "credit", "half_gap", "forward")
_PLAIN = tuple(f.name for f in fields(TrickCredit) if f.name not in ("trick", "column", "n", *_AMOUNTS))
_PARTS = tuple(f.name for f in fields(Amount))


def credit_to_csv(credit: CreditFinding) -> str:
    """Every number of the finding; an absent one is an empty field.

    Columns: trick, column, design, n, then estimate, low and high of first, last, credit, half_gap and
    forward, then the other fields of `TrickCredit`. The total of a column is a line with the trick "all
    tricks".
    """
    head = ["trick", "column", "design", "n"]
    head += [f"{name}_{part}" for name in _AMOUNTS for part in _PARTS]
    return csv_text([*head, *_PLAIN], _lines(credit))


def _lines(credit: CreditFinding) -> Iterator[list[object]]:
    for each in credit.credits:
        amounts = [_parts(getattr(each, name)) for name in _AMOUNTS]
        plain = [getattr(each, name) for name in _PLAIN]
        yield [each.trick, each.column, credit.design, each.n, *(part for a in amounts for part in a), *plain]
    for total in credit.totals:
        amounts = [_parts(total.total if name == "credit" else None) for name in _AMOUNTS]
        plain = [total.sentence if name == "sentence" else None for name in _PLAIN]
        yield ["all tricks", total.column, credit.design, total.n, *(p for a in amounts for p in a), *plain]


def _parts(amount: Amount | None) -> list[float | None]:
    return [None if amount is None else getattr(amount, name) for name in _PARTS]
