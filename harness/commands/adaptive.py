"""Block after block: train what is missing, look at the results, plan the next block.

What is settled is the analysis' to say (`harness.analysis.looks`), where a run is trained the scheduler's;
neither knows of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.commands.data_now import look_at_records
from harness.commands.report import settings_of
from harness.commands.states import look
from harness.commands.workspace import Workspace
from harness.scheduling.base import INTERRUPTED as RUN_INTERRUPTED
from harness.study.blocks import Look, write_blocks
from harness.study.grow import grow, runs_at_most
from harness.study.plan import Plan
from harness.study.records import ENDED

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.analysis.findings import CellFinding, Findings

MOST_NAMED = 4  # comparisons in one line

Train = Callable[[Plan], Mapping[str, str]]
"""Executes what is not done of a plan's runs, and says what came of each: run_id -> status."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a study has come in this command."""

    plan: Plan
    statuses: dict[str, str] = field(default_factory=dict)  # run_id -> status, of what was executed
    says: str = ""  # how much the early stops saved; "" for a fixed design


def run_blocks(
    plan: Plan, place: Workspace, train: Train, say: Callable[[str], None], *, submits_only: bool
) -> Progress:
    """Train what is missing; of an adaptive study then look at the results and go on with the next block.

    Returns when every comparison is settled, the budget is spent, or something keeps a block from being
    complete. A run that failed here is not tried again with the next block. Each look is kept in the folder
    of runs before its block starts, so that the same command goes on from there.

    submits_only: come back after the first block that has anything to do; nothing is known of it yet.
    """
    progress = Progress(plan=plan)
    while True:
        block = _to_train(progress)
        if block is not None:
            progress.statuses.update(train(block))
            if submits_only or RUN_INTERRUPTED in progress.statuses.values():
                return progress
        grown = _look_and_grow(progress, place, say) if plan.is_adaptive else None
        if grown is None:
            return progress
        progress.plan = grown


def saved(plan: Plan) -> str:
    """What the early stops of an adaptive study were worth by now."""
    most, needed = runs_at_most(plan), len(plan.runs)
    return (
        f"adaptive seeds: {needed} runs in place of {most} with {plan.looks[-1]} seeds for every arm;"
        f" stopping early saved {most - needed} ({1 - needed / most:.0%})"
    )


def _to_train(progress: Progress) -> Plan | None:
    """The plan without the runs that were tried in this command already; None: nothing is to be trained."""
    runs = [run for run in progress.plan.runs if run.run_id not in progress.statuses or run.done]
    return replace(progress.plan, runs=runs) if any(not run.done for run in runs) else None


def _look_and_grow(progress: Progress, place: Workspace, say: Callable[[str], None]) -> Plan | None:
    """The plan with its next block, after telling what was seen and keeping it; None: there is none."""
    from harness.analysis.looks import next_block

    plan = progress.plan
    records = records_of(plan, place)
    wanted = next_block(plan, records, settings_of(plan))
    grown = grow(plan, wanted) if wanted else None
    waiting = sum(status not in _NO_LONGER_AWAITED for status in records["status"])
    if grown is None and waiting:
        say(f"look {_which(plan)} waits for {_count(waiting, 'run')} without an outcome")
        return None
    seen = _seen(plan, records, grown)
    say(seen.says)
    write_blocks(place.runs_dir, grown or plan, [seen])
    if grown is None:
        progress.says = saved(plan)
        return None
    look_at_records(grown, place.runs_dir, place.data_dir)
    return grown if len(grown.runs) > len(plan.runs) else None


_NO_LONGER_AWAITED = ENDED | {"failed"}


def records_of(plan: Plan, place: Workspace) -> DataFrame:
    """One row per run of the plan, from the run folders: arm_id, seed, status, and the metrics of its end."""
    import pandas as pd

    summaries = look_at_records(plan, place.runs_dir, place.data_dir).summaries
    views = look(plan, place.runs_dir, summaries)
    rows: list[dict[str, Any]] = []
    for run in plan.runs:
        summary = summaries.get(run.run_id, {})
        about = {"run_id": run.run_id, "arm_id": run.arm_id, "seed": run.seed}
        view = views[run.run_id]
        rows.append({**summary.get("metrics", {}), **about, "status": view.state, "reason": view.message})
    return pd.DataFrame(rows)


def _seen(plan: Plan, records: DataFrame, grown: Plan | None) -> Look:
    """What a look showed, in one line."""
    import pandas as pd

    from harness.analysis import analyse

    no_curves = pd.DataFrame(columns=["arm_id", "seed", "step", "epoch", "val_top1"])
    compared = dict(_comparisons(analyse(plan, records, no_curves, settings_of(plan))))
    settled = [
        f"{_name(cell)} {cell.effect.verdict}"
        for cell in compared.values()
        if cell.effect and cell.effect.settled_at
    ]
    seeds, total = len(plan.seeds), len(compared)
    where = f"look {_which(plan)} ({_count(seeds, 'seed')})"
    says = f"{where}: {len(settled)} of {_count(total, 'comparison')} settled"
    if settled:
        says += f" ({'; '.join(settled[:MOST_NAMED])}{_and_more(len(settled) - MOST_NAMED)})"
    if len(settled) < total:
        says += f"; {_what_follows(total - len(settled), plan, grown)}"
    return Look(seeds=seeds, settled=len(settled), comparisons=total, says=says)


def _what_follows(left: int, plan: Plan, grown: Plan | None) -> str:
    """For the comparisons that are not settled."""
    if grown is not None:
        further = _count(len(grown.runs) - len(plan.runs), "further run")
        return f"{left} {'goes' if left == 1 else 'go'} on to {len(grown.seeds)} seeds: {further}"
    if plan.look == len(plan.looks):
        return f"{left} undecided, the budget is spent"
    return f"{left} cannot be evaluated"


def _comparisons(findings: Findings) -> Iterator[tuple[tuple[str, str, str], CellFinding]]:
    """(table, arm, arm that it is compared with) -> the first cell that shows it."""
    for table in findings.tables:
        arms = {(cell.column, cell.row): cell.arm_id for cell in table.cells}
        seen = set()
        for cell in table.cells:
            versus = arms.get((cell.column, cell.effect.versus)) if cell.effect else None
            if cell.arm_id is None or versus is None or versus == cell.arm_id:
                continue
            key = (table.key, cell.arm_id, versus)
            if key not in seen:
                seen.add(key)
                yield key, cell


def _name(cell: CellFinding) -> str:
    return f"{cell.row} / {cell.column}" if cell.column else cell.row


def _which(plan: Plan) -> str:
    return f"{plan.look} of {len(plan.looks)}"


def _and_more(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
