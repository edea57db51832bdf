"""One line of the validation table: a measured rate, its Monte-Carlo error, and its target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

STANDARD_ERRORS = 2.0  # of Monte-Carlo error that a rate may be beyond its target


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A quantity in one setting. Without low and high: shown for comparison, no target."""

    quantity: str
    setting: str
    value: float
    repetitions: int = 0  # 0: no Monte-Carlo error is known
    se: float | None = None  # where the value is no share of the repetitions
    low: float | None = None
    high: float | None = None
    group: str = ""  # rows of one quantity and group are shown as one, the worst; "": a row of its own

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of the value."""
        return _share_error(self.value, self.repetitions) if self.se is None else self.se

    @property
    def met(self) -> bool:
        """Whether the value is within its target, or no more than 2 Monte-Carlo standard errors beyond."""
        return not (self._beyond(self.low, -1.0) or self._beyond(self.high, 1.0))

    @property
    def has_target(self) -> bool:
        return self.low is not None or self.high is not None

    @property
    def target(self) -> str:
        """In words."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f">= {self.low:g}"
        return f"<= {self.high:g}" if self.high is not None else ""

    def _beyond(self, limit: float | None, side: float) -> bool:
        if limit is None:
            return False
        error = _share_error(limit, self.repetitions) if self.se is None else self.se
        return side * (self.value - limit) > STANDARD_ERRORS * error


@dataclass(frozen=True, slots=True)
class Known:
    """A miss that is explained, up to a limit."""

    why: str
    limit: float  # beyond it (on the target's side) it is a new miss


Misses = Mapping[tuple[str, str], Known]  # (quantity, beginning of the setting or group) -> explanation


def explained(row: Measured, misses: Misses) -> bool:
    """Whether a missed target is a known one, and no further off than is known."""
    for (quantity, start), known in misses.items():
        if row.quantity == quantity and (row.group or row.setting).startswith(start):
            side = 1.0 if row.high is not None and row.value > row.high else -1.0
            return side * (row.value - known.limit) <= STANDARD_ERRORS * row.error
    return False


def worst_of_each_group(rows: Sequence[Measured]) -> list[Measured]:
    """In the order of their first rows; the setting of a group names the worst and how many there are."""
    groups: dict[tuple[str, ...], list[Measured]] = {}
    for row in rows:
        key = (row.quantity, row.group) if row.group else (row.quantity, "", row.setting)
        groups.setdefault(key, []).append(row)
    return [members[0] if len(members) == 1 else _worst(members) for members in groups.values()]


def print_table(rows: Sequence[Measured], misses: Misses) -> None:
    """As Markdown, so that it can be pasted into docs/statistics.md."""
    print("| quantity | setting | target | measured | |\n|---|---|---|--:|---|")
    for row in rows:
        verdict = "" if not row.has_target else "met" if row.met else "**missed**"
        if not row.met and explained(row, misses):
            verdict = "missed, known"
        error = f" ± {row.error:.4f}" if row.error else ""
        print(f"| {row.quantity} | {row.setting} | {row.target} | {row.value:.4f}{error} | {verdict} |")


def _worst(rows: Sequence[Measured]) -> Measured:
    row = max(rows, key=_excess)
    return replace(row, setting=f"{row.group}; worst of {len(rows)}: {row.setting}")


def _excess(row: Measured) -> float:
    over = [row.value - row.high] if row.high is not None else []
    under = [row.low - row.value] if row.low is not None else []
    return max(over + under)


def _share_error(share: float, repetitions: int) -> float:
    share = min(max(share, 0.0), 1.0)
    return math.sqrt(share * (1.0 - share) / repetitions) if repetitions else 0.0
