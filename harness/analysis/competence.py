"""Which comparisons can be tested at all: the conditions of `study.conditions`, on what the runs show.

Applied to findings that are complete: numbers stay, words and sentences of comparisons that cannot be tested
are replaced. A comparison whose conditions hold keeps its word, but for "no detectable difference", which
needs a control that was detected in its table, or a minimum detectable effect of at most the smallest effect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis import intervals
from harness.analysis.findings import (
    CANNOT_TEST,
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    UNDECIDED,
    ArmCompetence,
    CellFinding,
    Competence,
    ControlFinding,
    CreditFinding,
    Effect,
    FloorFinding,
    Outcomes,
    Settings,
    TableFinding,
)
from harness.analysis.intervals import Estimate
from harness.analysis.verdicts import FEWEST_SEEDS, SAME_RUN, metric_name, sentence_for
from harness.errors import counted
from harness.spec import ACCURACIES, DIVERGED, FINISHED, Arm, DataSpec
from harness.study import conditions
from harness.study.conditions import Dose, Floor
from harness.study.plan import Cell, Plan, PlanTable

if TYPE_CHECKING:
    import pandas as pd

ONE_SIDED = 0.10  # two-sided level whose lower limit is the one-sided 95 % limit
OTHER_DATA = "it was measured on other data than the runs saw"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFacts:
    """What is known of one arm, whatever it is compared with."""

    arm: Arm
    top1: Mapping[int, float]  # seed -> percent
    diverged: int
    ended: int
    floor: Floor | None
    dose: Dose | None
    may_fail: bool

    @property
    def mean(self) -> float | None:
        return float(np.mean(list(self.top1.values()))) if self.top1 else None

    @property
    def lower(self) -> float | None:
        """The one-sided 95 % limit of the mean; None for fewer seeds than a verdict needs."""
        if len(self.top1) < FEWEST_SEEDS:
            return None
        found = intervals.mean(list(self.top1.values()))
        return float(found.value) - float(intervals.half_width(found, ONE_SIDED))

    def is_below(self) -> bool:
        """Whether its floor is not clearly below it."""
        if self.floor is None or self.mean is None or self.may_fail:
            return False
        lower = self.lower
        return (self.mean if lower is None else lower) < self.floor.value

    def fault(self, name: str) -> str:
        """Why no comparison with it can be tested; "": nothing of its own stands against it."""
        text = "" if self.may_fail else conditions.diverged(name, self.diverged, self.ended)
        return text or self._below(name) or conditions.too_few_updates(name, self.dose)

    def _below(self, name: str) -> str:
        """Below the floor, or a single training that collapsed, which is said first."""
        if self.may_fail or self.floor is None or self.mean is None:
            return ""
        text = conditions.collapsed(name, self.top1, self.floor)
        if text and max(self.top1.values()) >= self.floor.collapsed_below:
            return text
        if self.is_below():
            lower = self.mean if self.lower is None else self.lower
            return conditions.below_floor(name, self.mean, lower, self.floor)
        return text


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The conditions, asked of the arms of one plan."""

    plan: Plan
    outcomes: Outcomes
    settings: Settings
    floors: Mapping[str, Any]  # as `ReportInput.floors`
    steps: Mapping[str, float]  # arm_id -> optimizer steps of one training
    fingerprints: Mapping[str, frozenset[str]]  # arm_id -> of the data that its runs saw

    @staticmethod
    def of(
        plan: Plan, records: pd.DataFrame, outcomes: Outcomes, settings: Settings, floors: Mapping[str, Any]
    ) -> Judge:
        """Reads `steps` and `data_fingerprint` of the records, where there are any."""
        steps: dict[str, float] = {}
        seen: dict[str, set[str]] = {}
        names = [name for name in ("steps", "data_fingerprint") if name in records]
        for row in records[["arm_id", "status", *names]].to_dict("records"):
            arm_id, made = str(row["arm_id"]), row.get("steps")
            if row["status"] == FINISHED and made is not None and made == made and made > 0:
                steps[arm_id] = max(steps.get(arm_id, 0.0), float(made))
            if isinstance(row.get("data_fingerprint"), str):
                seen.setdefault(arm_id, set()).add(row["data_fingerprint"])
        fingerprints = {arm_id: frozenset(found) for arm_id, found in seen.items()}
        return Judge(
            plan=plan, outcomes=outcomes, settings=settings, floors=floors, steps=steps,
            fingerprints=fingerprints,
        )  # fmt: skip

    @cached_property
    def may_fail(self) -> frozenset[str]:
        cells = (cell for table in self.plan.tables for cell in table.cells)
        return frozenset(cell.arm_id for cell in cells if cell.may_fail and cell.arm_id is not None)

    @cached_property
    def entries(self) -> Mapping[str, Mapping[str, Any]]:
        """Data setting -> its floor's entry."""
        return {entry["setting"]: entry for entry in self.floors["floors"]}

    @cached_property
    def facts(self) -> Mapping[str, ArmFacts]:
        """arm_id -> what is known, of every arm of the tables."""
        cells = (cell for table in self.plan.tables for cell in table.cells)
        return {arm_id: self._facts(arm_id) for arm_id in dict.fromkeys(c.arm_id for c in cells) if arm_id}

    def _facts(self, arm_id: str) -> ArmFacts:
        arm, runs = self.plan.arms[arm_id], self.outcomes.get(arm_id, {})
        mine = [runs[seed] for seed in self.plan.seeds_of(arm_id) if seed in runs]
        top1 = {
            seed: runs[seed].metrics["top1"]
            for seed in self.plan.seeds_of(arm_id)
            if seed in runs and runs[seed].status == FINISHED and "top1" in runs[seed].metrics
        }
        diverged = sum(run.status == DIVERGED for run in mine)
        entry = self.entry_of(arm_id)
        return ArmFacts(
            arm=arm,
            top1=top1,
            diverged=diverged,
            ended=diverged + sum(run.status == FINISHED for run in mine),
            floor=conditions.floor_of(entry),
            dose=self._dose(arm_id),
            may_fail=arm_id in self.may_fail,
        )

    def entry_of(self, arm_id: str) -> Mapping[str, Any] | None:
        """The floor's entry of an arm; with another `problem` where its runs saw other data."""
        arm = self.plan.arms[arm_id]
        if arm.recipe.trainer != "harness":
            return None
        entry = self.entries.get(conditions.setting_of(arm.recipe.data))
        seen = self.fingerprints.get(arm_id, frozenset())
        if entry is None or entry["problem"] is not None or not seen or seen == {entry["fingerprint"]}:
            return entry
        return {**entry, "problem": OTHER_DATA}

    def _dose(self, arm_id: str) -> Dose | None:
        """Of what the arm trains, or of the least trained network that it evaluates."""
        arm = self.plan.arms[arm_id]
        if arm.observes:
            found = [self._dose(member.arm) for member in arm.observes if member.arm in self.plan.arms]
            known = [dose for dose in found if dose is not None]
            return min(known, key=lambda dose: dose.updates, default=None)
        made = self.steps.get(arm_id)
        if made is None or arm.recipe.trainer != "harness" or arm.recipe.epochs <= 0:
            return None
        dose = conditions.dose_of(arm.recipe, made / arm.recipe.epochs)
        before = self._dose(arm.source) if arm.source and arm.source in self.plan.arms else None
        return dose if before is None else dose._replace(updates=dose.updates + before.updates)

    def of_pair(self, row: Cell, versus: Cell, measure: str) -> str:
        """Why the two cannot be compared by what the arms are; "": nothing stands against it."""
        if row.arm_id is None or versus.arm_id is None:
            return ""
        if row.arm_id == versus.arm_id:
            return conditions.same_arm(versus.row)
        one, other = self.facts[row.arm_id], self.facts[versus.arm_id]
        names = _names(row, versus)
        if measure == "train_loss" and (text := conditions.other_loss(row.tricks, versus.tricks)):
            return text
        return (
            _both_below(one, other)
            or one.fault(names[0])
            or other.fault(names[1])
            or conditions.too_short_warmup(names, (one.dose, other.dose))
        )

    def of_numbers(
        self, row: Cell, versus: Cell, measure: str, ours: float | None, paper: float | None
    ) -> str:
        """Why what was measured cannot be read; `ours` and `paper`: the difference, in percentage points."""
        if measure not in ACCURACIES:
            return ""
        if ours is not None and (text := conditions.other_regime(_names(row, versus), ours, paper)):
            return text
        levels = [self._level(cell.arm_id, measure) for cell in (row, versus)]
        known = [level for level in levels if level is not None]
        if not known:
            return ""
        return conditions.no_headroom(metric_name(measure), min(known), self.settings.smallest_effect_pp)

    def _level(self, arm_id: str | None, measure: str) -> float | None:
        runs = self.outcomes.get(arm_id or "", {})
        found = [
            runs[seed].metrics[measure]
            for seed in self.plan.seeds_of(arm_id or "")
            if seed in runs and runs[seed].status == FINISHED and measure in runs[seed].metrics
        ]
        return float(np.mean(found)) if found else None


def _names(row: Cell, versus: Cell) -> tuple[str, str]:
    if row.row == versus.row:
        return f"{row.row} ({row.column})", f"{versus.row} ({versus.column})"
    return row.row, versus.row


def _both_below(one: ArmFacts, other: ArmFacts) -> str:
    """In one phrase where both are below the same floor."""
    if not one.is_below() or not other.is_below() or one.floor != other.floor or one.floor is None:
        return ""
    means = one.mean, other.mean
    if means[0] is None or means[1] is None or max(means[0], means[1]) >= one.floor.value:
        return ""
    return conditions.both_below_floor((means[0], means[1]), one.floor)


# The findings with the conditions applied.


def with_competence(tables: Sequence[TableFinding], judge: Judge) -> tuple[TableFinding, ...]:
    """The tables in which what cannot be tested is said to be so."""
    return tuple(
        _table(planned, found, judge) for planned, found in zip(judge.plan.tables, tables, strict=True)
    )


def _table(planned: PlanTable, found: TableFinding, judge: Judge) -> TableFinding:
    cells = {(cell.column, cell.row): cell for cell in planned.cells}
    pairs = list(zip(planned.cells, found.cells, strict=True))
    reasons = {
        (cell.column, cell.row): _reason(cell, cells.get((cell.column, cell.versus or "")), own.effect, judge)
        for cell, own in pairs
    }
    controls = {each.column: each for each in _controls(planned, found, reasons)}
    judged = tuple(
        _cell(cell, own, reasons[cell.column, cell.row], controls, judge.settings) for cell, own in pairs
    )
    return dataclasses.replace(found, cells=judged, credit=_credit(found.credit, judge))


def _reason(cell: Cell, versus: Cell | None, effect: Effect | None, judge: Judge) -> str:
    if effect is None or versus is None or (effect.verdict == NOT_EVALUABLE and effect.n < 2):
        return ""  # two seeds that came to the same have no spread, and may have learnt nothing
    metric = judge.settings.metric
    paper = None if cell.paper_versus not in (None, cell.versus) else effect.paper
    return judge.of_pair(cell, versus, metric) or judge.of_numbers(
        cell, versus, metric, effect.estimate, paper
    )


def controls_of(planned: PlanTable, found: TableFinding) -> Iterator[ControlFinding]:
    """What came of a table's control, from words that the conditions were applied to."""
    yield from _controls(planned, found, {})


def _controls(
    planned: PlanTable, found: TableFinding, reasons: Mapping[tuple[str | None, str], str]
) -> Iterator[ControlFinding]:
    if planned.control is None:
        return
    row, versus = planned.control
    for cell in found.cells:
        if cell.row != row or cell.effect is None:
            continue
        reason = reasons.get((cell.column, row), "")
        detected = not reason and cell.effect.verdict in (HELPS, HURTS)
        name = f"{row} against {versus}" + (f" ({cell.column})" if cell.column else "")
        says = f"the control, {name}, was {'detected' if detected else 'not detected'}"
        yield ControlFinding(
            table=planned.key, column=cell.column, row=row, versus=versus, detected=detected, says=says
        )


def _cell(
    planned: Cell,
    found: CellFinding,
    reason: str,
    controls: Mapping[str | None, ControlFinding],
    settings: Settings,
) -> CellFinding:
    if found.effect is None:
        return found
    effect = found.effect
    if reason:
        effect = dataclasses.replace(
            effect, verdict=CANNOT_TEST, qualifier=reason, more_seeds=None, fragile=False, agreement=None
        )
    elif effect.verdict == NO_DIFFERENCE and effect.settled_at is None:
        effect = _if_sensitive(effect, controls, planned.column, settings)
    if effect is found.effect:
        return found
    sentence = sentence_for(planned, found.level, effect, settings)
    return dataclasses.replace(found, effect=effect, sentence=sentence)


def _if_sensitive(
    effect: Effect, controls: Mapping[str | None, ControlFinding], column: str | None, settings: Settings
) -> Effect:
    """The effect, undecided where its table could have missed an effect that matters."""
    here = [controls[column]] if column in controls else list(controls.values())
    if effect.qualifier == SAME_RUN or any(each.detected for each in here):
        return effect
    unit = " pp" if settings.in_percent else ""
    said = here[0].says if here else ""
    estimate = _estimate(effect)
    seen = None if estimate is None else intervals.detectable_effect(estimate, settings.alpha)
    why = conditions.not_sensitive(seen, settings.smallest_effect_pp, said, unit)
    if not why:
        return effect
    more = None if estimate is None else _more_seeds(estimate, effect.n, settings)
    if more is not None:
        why += f"; about {counted(more, 'more seed')} would settle it"
    return dataclasses.replace(effect, verdict=UNDECIDED, qualifier=why, more_seeds=more, fragile=False)


def _estimate(effect: Effect) -> Estimate | None:
    """The contrast from its unadjusted 95 % interval."""
    if effect.low is None or effect.high is None or effect.df is None:
        return None
    value, width = (effect.low + effect.high) / 2.0, (effect.high - effect.low) / 2.0
    se = width / float(intervals.quantile(0.975, effect.df))
    return Estimate(value=np.asarray(value), se=np.asarray(se), df=np.asarray(effect.df))


def _more_seeds(estimate: Estimate, seeds: int, settings: Settings) -> int | None:
    """Per arm, until an effect of the smallest size would be found with 80 % power.

    At the level of one test, as the equivalence test is: Holm's rule leaves rows without an effect a level
    that depends on how many others have one.
    """
    wanted = intervals.seeds_to_resolve(estimate, seeds, settings.smallest_effect_pp, settings.alpha)
    return None if wanted is None else max(wanted - seeds, 1)


def _credit(credit: CreditFinding | None, judge: Judge) -> CreditFinding | None:
    """No trick of a column gets a verdict where an arm that its credit rests on cannot stand in one."""
    if credit is None:
        return None
    tables = [table for table in judge.plan.tables if table.key in credit.tables]
    credits = []
    for each in credit.credits:
        cells = [c for t in tables for c in t.cells if c.column == each.column and c.arm_id is not None]
        faults = (judge.facts[cell.arm_id or ""].fault(cell.row) for cell in cells)
        fault = next((text for text in faults if text), "")
        if fault and each.verdict != NOT_EVALUABLE:
            sentence = f"{each.trick} {CANNOT_TEST}: {fault}."
            each = dataclasses.replace(
                each, verdict=CANNOT_TEST, qualifier=fault, more_seeds=None, sentence=sentence
            )
        credits.append(each)
    return dataclasses.replace(credit, credits=tuple(credits))


def competence_of(tables: Sequence[TableFinding], judge: Judge) -> Competence:
    """What the verdicts rest on, for a report. `tables`: with the conditions applied."""
    arms = tuple(_arm(arm_id, judge) for arm_id in judge.facts)
    controls = [
        control
        for planned, found in zip(judge.plan.tables, tables, strict=True)
        for control in controls_of(planned, found)
    ]
    return Competence(
        no_floor=judge.floors["why"] or _why_none(judge),
        floors=tuple(_floors(judge)),
        arms=arms,
        controls=tuple(controls),
    )


def _why_none(judge: Judge) -> str:
    own = sum(facts.arm.recipe.trainer != "harness" for facts in judge.facts.values())
    return "its rows are trained by a plugin's own function" if own and own == len(judge.facts) else ""


def _arm(arm_id: str, judge: Judge) -> ArmCompetence:
    facts = judge.facts[arm_id]
    return ArmCompetence(
        arm_id=arm_id,
        top1=facts.mean,
        lower=facts.lower,
        floor=None if facts.floor is None else facts.floor.value,
        updates=None if facts.dose is None else facts.dose.updates,
        may_fail=facts.may_fail,
        fault=facts.fault(_label(judge.plan, arm_id)),
    )


def _label(plan: Plan, arm_id: str) -> str:
    cells = (cell for table in plan.tables for cell in table.cells if cell.arm_id == arm_id)
    return next(cell.row for cell in cells)


def _floors(judge: Judge) -> Iterator[FloorFinding]:
    specs: dict[str, DataSpec] = {}
    arms: dict[tuple[str, str | None], list[str]] = {}
    for arm_id, facts in judge.facts.items():
        entry = judge.entry_of(arm_id)
        if entry is not None:
            specs[entry["setting"]] = facts.arm.recipe.data
            arms.setdefault((entry["setting"], entry["problem"]), []).append(arm_id)
    for (setting, problem), arm_ids in arms.items():
        entry = {**judge.entries[setting], "problem": problem}
        found = conditions.floor_of(entry)
        yield FloorFinding(
            data=entry["data"],
            resolution=specs[setting].resolution,
            train_images=entry["train_images"],
            **{name: getattr(found, name, None) for name in (*conditions.PERCENTAGES, "value")},
            problem=problem,
            arms=tuple(arm_ids),
        )
