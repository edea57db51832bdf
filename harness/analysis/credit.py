"""Order-free credit: what each trick of a table deserves of the total, and whether the order matters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from harness.analysis.contrasts import (
    FIRST_AND_LAST,
    METHODS,
    Arms,
    Coalition,
    Combined,
    Weights,
    weights_for,
)
from harness.analysis.findings import (
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    UNDECIDED,
    Amount,
    CellFinding,
    CreditFinding,
    CreditTotal,
    Level,
    Settings,
    TableFinding,
    TrickCredit,
)
from harness.analysis.fit import roots_where_shared
from harness.analysis.intervals import Floats, half_width, holm, p_value
from harness.analysis.verdicts import (
    FEWEST_SEEDS,
    SAME_RUN,
    Verdict,
    effect_text,
    interval_text,
    judge,
    level_text,
    not_evaluable,
    verb,
    why_no_value,
    why_too_few,
)
from harness.errors import counted
from harness.study.plan import PlanTable

# What a credit means, in one or two plain sentences.


def trick_sentence(credit: TrickCredit, places: tuple[str, str], settings: Settings) -> str:
    """The verdict on one trick, its places, and whether the order matters."""
    name = credit.trick if credit.column is None else f"{credit.trick} ({credit.column})"
    if credit.verdict == NOT_EVALUABLE:
        seen = ""
        if credit.credit.estimate is not None:
            seen = f"; observed {effect_text(credit.credit.estimate, settings)}, {counted(credit.n, 'seed')}"
        return f"{name}: the credit is not evaluable: {credit.qualifier}{seen}."
    if credit.qualifier == SAME_RUN:
        return f"{name} changes no run at this size: its credit is 0 by construction."
    numbers = f"{_amount_text(credit.credit, settings)} of the total, {counted(credit.n, 'seed')}"
    claim = f"{verb(name, credit)}: {numbers} ({_places(credit, places, settings)})"
    if credit.verdict not in (HELPS, HURTS) and credit.qualifier:
        claim += f"; {credit.qualifier}"
    return f"{claim}.{_order(credit, places, settings)}"


def total_sentence(total: CreditTotal, design: str, tricks: int, settings: Settings) -> str:
    """What is split, and whether the credits can be trusted to be the Shapley values."""
    where = "" if total.column is None else f" ({total.column})"
    if total.total.estimate is None:
        return f"Total{where}: no value, because a row that it needs has none."
    levels = ""
    if total.none is not None and total.every is not None:
        levels = f", from {level_text(total.none, settings)} to {level_text(total.every, settings)}"
    fitted = ", as fitted" if design == "fractional" else ""
    text = (
        f"All {tricks} tricks together{where}: {_amount_text(total.total, settings)}{levels}{fitted}, "
        f"{counted(total.n, 'seed')}. The credits add up to exactly this."
    )
    return f"{text}{_higher_order(total, design, tricks, settings)}"


def _places(credit: TrickCredit, places: tuple[str, str], settings: Settings) -> str:
    words = ("alone", "given all others")
    if places != FIRST_AND_LAST:
        words = ("in the given order", "in the reverse order")
    shown = (
        "no value" if amount.estimate is None else effect_text(amount.estimate, settings)
        for amount in (credit.first, credit.last)
    )
    return ", ".join(f"{value} {word}" for value, word in zip(shown, words, strict=True))


def _order(credit: TrickCredit, places: tuple[str, str], settings: Settings) -> str:
    gap = credit.half_gap
    text = ""
    if credit.path_dependent and gap.estimate is not None:
        why = "its value depends on the order"
        if places == FIRST_AND_LAST:
            why = "it overlaps with the others" if gap.estimate < 0 else "it needs the others"
        text = f" Path-dependent: {why}, half-gap {_amount_text(gap, settings)}."
    if credit.contradiction:
        text += " Path-dependent: alone and given all others, its verdicts contradict each other."
    return text


def _higher_order(total: CreditTotal, design: str, tricks: int, settings: Settings) -> str:
    if total.check is None or total.check_p is None:
        return ""
    amount = _amount_text(total.check, settings)
    more = f"three or more tricks interact (p {total.check_p:.2g})"
    if total.check_p >= settings.alpha:
        more = "there is no sign that three or more tricks interact"
    if design == "both_ends":
        each = effect_text((total.check.estimate or 0.0) / tricks, settings)
        return f" The means of first and last miss it by {amount}, shared equally ({each} each); {more}."
    return f" The designs with fewer rows would differ by up to {amount}; {more}."


def _amount_text(amount: Amount, settings: Settings) -> str:
    """For example "+0.31 pp [0.12, 0.50]"."""
    if amount.estimate is None:
        return "no value"
    text = effect_text(amount.estimate, settings)
    if amount.low is None or amount.high is None:
        return text
    return f"{text} {interval_text(amount.low, amount.high, settings)}"


# One column of a credit table: its arms, which tricks are on in each, and what their weights give.


Roots = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The tables whose rows a credit is computed from; the one that carries it comes last."""

    design: str
    plans: tuple[PlanTable, ...]
    found: tuple[TableFinding, ...]

    @property
    def tricks(self) -> tuple[str, ...]:
        return self.plans[-1].switches


@dataclass(frozen=True, slots=True, kw_only=True)
class TestedCredit:
    """One credit and what Holm's rule says of it."""

    combined: Combined
    level: float  # the alpha that is left to it
    p_holm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditColumn:
    """The arms of one column, which tricks are on in each, and their weights."""

    name: str | None
    design: str
    tricks: tuple[str, ...]
    cells: Mapping[Coalition, CellFinding]
    verdicts: Mapping[tuple[Coalition, Coalition], str]  # (row, the row it is compared with) -> word
    arms: Arms
    spread: Floats  # (coalitions, arms) which arm answers each
    weights: Weights  # over coalitions

    @staticmethod
    def of(sources: Sources, column: str | None, roots: Roots) -> CreditColumn | None:
        """None where its rows do not give a credit (see `weights_for`)."""
        cells, verdicts = _read(sources, column)
        weights = weights_for(sources.design, list(cells), len(sources.tricks))
        if weights is None:
            return None
        ids = list(dict.fromkeys(cell.arm_id or "" for cell in cells.values()))
        spread = np.array([[float(cell.arm_id == arm) for arm in ids] for cell in cells.values()])
        shared = roots_where_shared(ids, roots) is not None
        return CreditColumn(
            name=column,
            design=sources.design,
            tricks=sources.tricks,
            cells=cells,
            verdicts=verdicts,
            arms=Arms.of(_values(cells, ids), weights.credit @ spread, shared),
            spread=spread,
            weights=weights,
        )

    def combine(self, weights: Floats) -> Combined:
        """A contrast with weights over coalitions."""
        return self.arms.combine(weights @ self.spread)

    def credit_of(self, trick: int, tested: TestedCredit, settings: Settings) -> TrickCredit:
        """Everything about one trick (its position)."""
        weights, combined = self.weights, tested.combined
        verdict = self._verdict(weights.credit[trick], tested, settings)
        gap = _amount_of(self.combine(weights.half_gap[trick]))
        finding = TrickCredit(
            trick=self.tricks[trick],
            column=self.name,
            n=combined.seeds,
            first=_amount_of(self.combine(weights.first[trick])),
            last=_amount_of(self.combine(weights.last[trick])),
            half_gap=gap,
            forward=None if weights.forward is None else _amount_of(self.combine(weights.forward[trick])),
            **_numbers(tested),
            flagged=combined.flagged,
            verdict=verdict.word,
            qualifier=verdict.qualifier,
            more_seeds=verdict.more_seeds,
            path_dependent=combined.seeds >= FEWEST_SEEDS and _excludes_0(gap),
            contradiction=weights.places == FIRST_AND_LAST and self._contradicts(trick),
            sentence="",
        )
        sentence = trick_sentence(finding, weights.places, settings)
        return dataclasses.replace(finding, sentence=sentence)

    def total(self, settings: Settings) -> CreditTotal:
        """What the credits add up to, and the test for interactions of three and more."""
        combined = self.combine(self.weights.total)
        none, every = (self._mean(side) for side in (frozenset(), frozenset(range(len(self.tricks)))))
        checks = [self.combine(weights) for weights in self.weights.checks]
        check, p = None, None
        if any(each.estimate is not None for each in checks):
            adjusted = holm([p_of(each) for each in checks], settings.alpha).p
            check, p = _amount_of(checks[int(adjusted.argmin())]), float(adjusted.min())
        finding = CreditTotal(
            column=self.name, n=combined.seeds, none=none, every=every, total=_amount_of(combined),
            check=check, check_p=p, sentence="",
        )  # fmt: skip
        sentence = total_sentence(finding, self.design, len(self.tricks), settings)
        return dataclasses.replace(finding, sentence=sentence)

    def _mean(self, coalition: Coalition) -> float | None:
        level = self.cells[coalition].level if coalition in self.cells else None
        return None if level is None else level.mean

    def _verdict(self, weights: Floats, tested: TestedCredit, settings: Settings) -> Verdict:
        combined = tested.combined
        used = [cell for cell, weight in zip(self.cells.values(), weights, strict=True) if abs(weight) > 0]
        for cell in used:
            if reason := _why_unusable(cell.level, settings.metric):
                return not_evaluable(f"row {cell.row}: {reason}")
        if not np.any(np.abs(weights @ self.spread) > 0):
            return Verdict(NO_DIFFERENCE, SAME_RUN)
        if combined.seeds < 2:
            return not_evaluable(
                "1 seed: no verdict possible" if combined.seeds else "no seed has all its rows"
            )
        if combined.estimate is None:
            return not_evaluable("every seed gave the same value: the spread between seeds is unknown")
        verdict = judge(combined.estimate, tested.level, combined.seeds, settings)
        if verdict.word == UNDECIDED and p_of(combined) < settings.alpha:
            note = "0 is excluded only before Holm's correction"
            return Verdict(verdict.word, f"{verdict.qualifier}; {note}", verdict.more_seeds)
        return verdict

    def _contradicts(self, trick: int) -> bool:
        every, one = frozenset(range(len(self.tricks))), frozenset({trick})
        as_first = self.verdicts.get((one, frozenset()))
        left_out = self.verdicts.get((every - one, every))
        return (as_first, left_out) in ((HELPS, HELPS), (HURTS, HURTS))


def _numbers(tested: TestedCredit) -> dict[str, Any]:
    combined, estimate = tested.combined, tested.combined.estimate
    numbers: dict[str, Any] = {"credit": _amount_of(combined)}
    if estimate is None or combined.value is None:
        return numbers | dict.fromkeys(("adjusted_low", "adjusted_high", "p", "p_holm", "df"))
    width = float(half_width(estimate, tested.level))
    return numbers | {
        "adjusted_low": combined.value - width,
        "adjusted_high": combined.value + width,
        "p": p_of(combined),
        "p_holm": tested.p_holm,
        "df": float(estimate.df),
    }


def _read(
    sources: Sources, column: str | None
) -> tuple[dict[Coalition, CellFinding], dict[tuple[Coalition, Coalition], str]]:
    """The cells of one column by coalition, and the verdicts of its rows."""
    place = {trick: k for k, trick in enumerate(sources.tricks)}
    cells: dict[Coalition, CellFinding] = {}
    verdicts = {}
    for plan, found in zip(sources.plans, sources.found, strict=True):
        mine = [
            (frozenset(place[trick] for trick in planned.switched_on or ()), cell)
            for planned, cell in zip(plan.cells, found.cells, strict=True)
            if cell.column == column and cell.arm_id is not None
        ]
        rows = {cell.row: coalition for coalition, cell in mine}
        for coalition, cell in mine:
            cells.setdefault(coalition, cell)
            if cell.effect is not None and cell.effect.versus in rows:
                verdicts[coalition, rows[cell.effect.versus]] = cell.effect.verdict
    return cells, verdicts


def _values(cells: Mapping[Coalition, CellFinding], ids: Sequence[str]) -> Floats:
    """(arms, seeds) in percent, NaN where a run has no value."""
    levels = {cell.arm_id: cell.level for cell in cells.values()}
    found = [level.values if (level := levels[arm]) else {} for arm in ids]
    seeds = sorted({seed for values in found for seed in values})
    return np.array([[values.get(seed, np.nan) for seed in seeds] for values in found]).reshape(len(ids), -1)


def _why_unusable(level: Level | None, metric: str) -> str:
    if level is None:
        return "a quoted number"
    return why_too_few(level, metric) or (why_no_value(level) if level.n == 0 else "")


def _amount_of(combined: Combined) -> Amount:
    if combined.estimate is None or combined.value is None:
        return Amount(estimate=combined.value)
    width = float(half_width(combined.estimate, 0.05))
    return Amount(estimate=combined.value, low=combined.value - width, high=combined.value + width)


def p_of(combined: Combined) -> float:
    """Two-sided p of "it is 0"; 1 where nothing can be tested."""
    return 1.0 if combined.estimate is None else float(p_value(combined.estimate))


def _excludes_0(amount: Amount) -> bool:
    return amount.low is not None and amount.high is not None and (amount.low > 0 or amount.high < 0)


# Order-free credit: what each trick of a table deserves of the total, and whether the order matters.
#
# The weights over arms follow from the design (`credit_weights`), the standard errors from the guarded
# block fit (`combinations`), the words from the same rules as those of rows. One Holm family: the credits
# of the table.


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
    columns = [CreditColumn.of(sources, name, roots) for name in sources.plans[-1].columns]
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


def _credits(columns: Iterable[CreditColumn], settings: Settings) -> Iterator[TrickCredit]:
    of = [(column, trick) for column in columns for trick in range(len(column.tricks))]
    combined = [column.combine(column.weights.credit[trick]) for column, trick in of]
    family = holm([p_of(each) for each in combined], settings.alpha)
    for k, (column, trick) in enumerate(of):
        tested = TestedCredit(combined=combined[k], level=float(family.level[k]), p_holm=float(family.p[k]))
        yield column.credit_of(trick, tested, settings)
