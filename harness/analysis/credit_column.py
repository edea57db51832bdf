"""One column of a credit table: its arms, which tricks are on in each, and what their weights give."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.analysis.combinations import Arms, Combined
from harness.analysis.credit_findings import Amount, CreditTotal, TrickCredit
from harness.analysis.credit_sentences import total_sentence, trick_sentence
from harness.analysis.credit_weights import FIRST_AND_LAST, Coalition, Weights, weights_for
from harness.analysis.findings import (
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    UNDECIDED,
    CellFinding,
    Level,
    Settings,
    TableFinding,
)
from harness.analysis.intervals import Floats, half_width, holm, p_value
from harness.analysis.levels import why_no_value, why_too_few
from harness.analysis.sentences import SAME_RUN
from harness.analysis.sharing import roots_where_shared
from harness.analysis.verdicts import FEWEST_SEEDS, Verdict, judge, not_evaluable
from harness.study.plan import PlanTable

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
class Tested:
    """One credit and what Holm's rule says of it."""

    combined: Combined
    level: float  # the alpha that is left to it
    p_holm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
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
    def of(sources: Sources, column: str | None, roots: Roots) -> Column | None:
        """None where its rows do not give a credit (see `weights_for`)."""
        cells, verdicts = _read(sources, column)
        weights = weights_for(sources.design, list(cells), len(sources.tricks))
        if weights is None:
            return None
        ids = list(dict.fromkeys(cell.arm_id or "" for cell in cells.values()))
        spread = np.array([[float(cell.arm_id == arm) for arm in ids] for cell in cells.values()])
        shared = roots_where_shared(ids, roots) is not None
        return Column(
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

    def credit_of(self, trick: int, tested: Tested, settings: Settings) -> TrickCredit:
        """Everything about one trick (its position)."""
        weights, combined = self.weights, tested.combined
        verdict = self._verdict(weights.credit[trick], tested, settings)
        gap = _amount(self.combine(weights.half_gap[trick]))
        finding = TrickCredit(
            trick=self.tricks[trick],
            column=self.name,
            n=combined.seeds,
            first=_amount(self.combine(weights.first[trick])),
            last=_amount(self.combine(weights.last[trick])),
            half_gap=gap,
            forward=None if weights.forward is None else _amount(self.combine(weights.forward[trick])),
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
            check, p = _amount(checks[int(adjusted.argmin())]), float(adjusted.min())
        finding = CreditTotal(
            column=self.name, n=combined.seeds, none=none, every=every, total=_amount(combined),
            check=check, check_p=p, sentence="",
        )  # fmt: skip
        sentence = total_sentence(finding, self.design, len(self.tricks), settings)
        return dataclasses.replace(finding, sentence=sentence)

    def _mean(self, coalition: Coalition) -> float | None:
        level = self.cells[coalition].level if coalition in self.cells else None
        return None if level is None else level.mean

    def _verdict(self, weights: Floats, tested: Tested, settings: Settings) -> Verdict:
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


def _numbers(tested: Tested) -> dict[str, Any]:
    combined, estimate = tested.combined, tested.combined.estimate
    numbers: dict[str, Any] = {"credit": _amount(combined)}
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


def _amount(combined: Combined) -> Amount:
    if combined.estimate is None or combined.value is None:
        return Amount(estimate=combined.value)
    width = float(half_width(combined.estimate, 0.05))
    return Amount(estimate=combined.value, low=combined.value - width, high=combined.value + width)


def p_of(combined: Combined) -> float:
    """Two-sided p of "it is 0"; 1 where nothing can be tested."""
    return 1.0 if combined.estimate is None else float(p_value(combined.estimate))


def _excludes_0(amount: Amount) -> bool:
    return amount.low is not None and amount.high is not None and (amount.low > 0 or amount.high < 0)
