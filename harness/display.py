"""What a person sees in a terminal: plans, states, listings, live progress; plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.scheduling.base import Progress
from harness.study.plan import Cell, Plan
from harness.study.records import FAILED, RunFolder

PLAIN_LINE_EVERY_S = 15.0


def show_plan(plan: Plan, missing: Sequence[str]) -> None:
    """Every row with its paper cells, then the runs, what is shared and the cost."""
    console = Console()
    for table in plan.tables:
        view = Table(title=f"{table.key}: {table.title}", title_justify="left", box=None, header_style="bold")
        for heading in ("row", "column", "arm", "compared with", "paper top-1", "paper top-5"):
            view.add_column(heading, no_wrap=heading in ("column", "arm"))
        for cell in table.cells:
            view.add_row(
                cell.row,
                cell.column or "",
                cell.arm_id[:8] if cell.arm_id else "quoted",
                cell.versus or "",
                _paper(cell, "top1"),
                _paper(cell, "top5"),
            )
        console.print(view, "")
    for note in plan.notes:
        console.print(f"note: {note}", highlight=False)
    for text in missing:
        console.print(f"missing data: {text}", highlight=False)
    console.print(plan_line(plan), highlight=False)


def _paper(cell: Cell, metric: str) -> str:
    printed = cell.paper.get(metric)
    if printed is None:
        return ""
    return f"{printed.value:g}" + ("" if printed.status == "verified" else " (memory)")


def plan_line(plan: Plan) -> str:
    """One line: how many rows, arms and runs, what is done, what the rest costs."""
    cells = [cell for table in plan.tables for cell in table.cells if cell.arm_id]
    todo = [run for run in plan.runs if not run.done]
    line = (
        f"{plan.study} ({plan.size}): {len(cells)} rows, {len(plan.arms)} arms x {len(plan.seeds)} seeds = "
        f"{len(plan.runs)} runs, {len(plan.runs) - len(todo)} done"
    )
    if not todo:
        return line + "; nothing to train"
    line += f"; to train: {len(todo)} runs, {sum(run.macs for run in todo):.2e} multiply-adds"
    times = [run.time_s for run in todo]
    if all(time_s is not None for time_s in times):
        return line + f", about {duration(sum(filter(None, times)))} of one worker"
    return line + " (seconds are known once a run has finished here)"


def show_status(plan: Plan, states: Mapping[str, str], counts: Mapping[str, int]) -> None:
    """One line per arm, one word per seed."""
    console = Console()
    view = Table(box=None, header_style="bold")
    view.add_column("arm")
    for seed in plan.seeds:
        view.add_column(f"seed {seed}")
    by_arm: dict[str, dict[int, str]] = {}
    for run in plan.runs:
        by_arm.setdefault(run.arm_id, {})[run.seed] = states[run.run_id]
    for arm_id, seeds in by_arm.items():
        view.add_row(plan.arm_labels[arm_id], *(seeds.get(seed, "") for seed in plan.seeds))
    console.print(view)
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()), highlight=False)


def show_listing(kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with one line per entry; the JSON form has everything."""
    columns = {
        "tricks": ("name", "what", "paper"),
        "models": ("name", "params", "macs", "paper"),
        "data": ("name", "classes", "train_images", "test_images", "missing"),
        "studies": ("file", "study", "question", "runs", "error"),
    }[kind]
    view = Table(box=None, header_style="bold")
    for column in columns:
        view.add_column(column)
    for row in rows:
        view.add_row(*("" if row.get(column) is None else str(row[column]) for column in columns))
    Console().print(view)


def duration(time_s: float) -> str:
    """Seconds in the words a person uses.

    >>> duration(42), duration(90), duration(5400)
    ('42 s', '1 min 30 s', '1 h 30 min')
    """
    seconds = round(time_s)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


class ProgressDisplay:
    """Live progress of one `harness run`: a status line on a terminal, else a plain line now and then."""

    def __init__(self, plan: Plan) -> None:
        self._labels = {run.run_id: f"{plan.arm_labels[run.arm_id]}, seed {run.seed}" for run in plan.runs}
        self._macs = {run.run_id: run.macs for run in plan.runs if not run.done}
        self._start_s = self._last_line_s = time.monotonic()
        self._ended: dict[str, str] = {}
        self._console = Console(stderr=True)
        self._status = self._console.status("starting workers") if self._console.is_terminal else None

    def __enter__(self) -> ProgressDisplay:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()
        print(self._line(len(self._macs) - len(self._ended), ()), file=sys.stderr)

    def watch(self, progress: Progress) -> None:
        """Show what changed."""
        if progress.note:
            self._console.print(progress.note, highlight=False, markup=False)
        self._ended = dict(progress.ended)
        line = self._line(progress.waiting, progress.running)
        if self._status:
            running = "; ".join(self._labels.get(run_id, run_id) for run_id in progress.running)
            self._status.update(f"{line}\n  {running}")
        elif time.monotonic() - self._last_line_s >= PLAIN_LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            print(line, file=sys.stderr, flush=True)

    def _line(self, waiting: int, running: Sequence[str]) -> str:
        spent_s = time.monotonic() - self._start_s
        done_macs = sum(self._macs.get(run_id, 0) for run_id in self._ended)
        left_macs = sum(self._macs.values()) - done_macs
        eta = f", about {duration(spent_s / done_macs * left_macs)} left" if done_macs and left_macs else ""
        return (
            f"{len(self._ended)} of {len(self._macs)} runs ended, {len(running)} running, {waiting} waiting, "
            f"{duration(spent_s)} so far{eta}"
        )

    def summarise_failures(self, folder_of: Callable[[str], RunFolder]) -> None:
        """Say for each failed run what happened and where the details are."""
        for run_id, status in self._ended.items():
            if status != FAILED:
                continue
            folder = folder_of(run_id)
            reasons = [event.get("message", "") for event in folder.read_events() if event["kind"] == FAILED]
            reason = reasons[-1] if reasons else "no reason recorded"
            print(f"failed: {self._labels.get(run_id, run_id)}: {reason}\n  {folder.events}", file=sys.stderr)
