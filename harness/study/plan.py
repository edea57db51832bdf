"""The runs a study needs: unique, ordered by need, priced, and which table cells share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.study.spec import Arm, RunSpec

MEASURES = ("top1", "top5", "loss", "train_loss", "steps_to_target")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperValue:
    """One printed number. `status` is `verified` or `memory` (see docs/references.md)."""

    value: float
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row of one table, in one column: the arm that answers it and what the paper printed."""

    row: str
    column: str | None
    arm_id: str | None  # None: a number quoted from elsewhere, nothing is trained
    tricks: tuple[str, ...]  # the tricks that are on, in order, recipe-only ones too
    versus: str | None  # label of the row (same table, same column) this one is compared with
    paper: Mapping[str, PaperValue] = field(default_factory=dict)  # metric, or another name of study.paper
    paper_versus: str | None = None  # the row the paper's own effect is measured from, where it differs
    note: str | None = None
    switched_on: tuple[str, ...] | None = None  # which of the table's `switches`; None: it has none


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTable:
    """One table of a study, its cells in reading order."""

    key: str
    title: str
    design: str
    columns: tuple[str | None, ...]
    cells: tuple[Cell, ...]
    note: str | None = None
    target: Mapping[str, Any] | None = None  # accuracy for steps_to_target: {"row": label} or {"top1": 72.2}
    switches: tuple[str, ...] = ()  # the tricks that the design switches on and off, as the file orders them
    ground: str = ""  # the same text in tables that switch the same tricks on the same starting points


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence of the paper that two trained rows of a table can answer."""

    says: str
    source: str
    table: str
    row: str
    versus: str
    column: str | None = None  # None: the table has no columns
    versus_column: str | None = None  # None: the same column
    measure: str = "top1"  # one of MEASURES
    expect: str = "higher"  # higher | lower


@dataclass(slots=True, kw_only=True)
class PlannedRun:
    """One run, what must be finished before it, and what it will cost."""

    run_id: str
    arm_id: str
    seed: int
    needs: tuple[str, ...]  # run_ids: teacher, source and observed runs
    macs: float  # multiply-adds of a training, 3 x forward x images x epochs, or of an evaluation
    time_s: float | None = None  # of one worker: measured where done, else estimated; None: not known
    rough: bool = False  # estimated from runs of other networks, by multiply-adds alone
    done: bool = False


@dataclass(slots=True, kw_only=True)
class Plan:
    """A study at one size, expanded. Runs are in submission order: seed-major, needs first.

    Beside every arm at each of its seeds there are the further members of ensembles, with seeds of their own.
    An adaptive plan holds the runs that are planned by now; `harness.study.grow` adds the next block.
    """

    study: str
    size: str
    seeds: tuple[int, ...]  # of the arm that has most by now
    header: Mapping[str, Any]  # paper, question, metric, smallest_effect, ... as the study says them
    tables: tuple[PlanTable, ...]
    arms: Mapping[str, Arm]  # arm_id -> arm
    arm_labels: Mapping[str, str]  # arm_id -> the first "table / row / column" that shows it
    runs: list[PlannedRun]
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()  # substitutions and everything else a reader of this size must know
    looks: tuple[int, ...] = ()  # seeds per arm at each look at the results; () or one entry: a fixed design
    arm_seeds: Mapping[str, int] = field(default_factory=dict)  # arm_id -> how many of `seeds`; absent: all

    @property
    def is_adaptive(self) -> bool:
        """Whether the results decide which arms get more seeds."""
        return len(self.looks) > 1

    @property
    def look(self) -> int:
        """The look for which the runs are planned by now, counted from 1; 0 for a fixed design."""
        return sum(seeds <= len(self.seeds) for seeds in self.looks)

    def seeds_of(self, arm_id: str) -> tuple[int, ...]:
        """The seeds with which an arm is planned by now."""
        return self.seeds[: self.arm_seeds.get(arm_id, len(self.seeds))]

    def spec(self, run: PlannedRun) -> RunSpec:
        """The full spec of a planned run."""
        return RunSpec(arm=self.arms[run.arm_id], seed=run.seed)
