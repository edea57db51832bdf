"""A budget of a `harness run`: how it is said, when it is spent, and what is left to do then."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.display import duration
from harness.commands.workspace import Workspace, workspace
from harness.errors import Problem, StudyError, counted, shortened, unknown
from harness.study.part import by_priority
from harness.study.plan import Plan

if TYPE_CHECKING:
    from harness.scheduling.base import Job, Progress, Watch

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
GPU_HOURS = ("gpu-hours", "gpu-hour")
EXAMPLES = "10min, 2h, or 8gpu-hours on Slurm"
LEAST_S = 3.0
MOST_S = 365 * 86400.0
MOST_GPU_S = 1e6 * 3600.0
MOST_NAMED = 4  # rows of a table that are named
_AMOUNT = re.compile(r"([-+]?[0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([A-Za-z-]*)")


HasBegun = Callable[[str], bool]  # run_id -> whether it was begun, or taken up, by this command


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may be spent: seconds by the clock, or seconds of GPUs."""

    most_s: float
    of_gpus: bool
    says: str  # as the user said it


def parse_budget(text: str) -> Limit:
    """What `--budget` says.

    >>> parse_budget("10min").most_s, parse_budget("1.5h").most_s, parse_budget("8gpu-hours").of_gpus
    (600.0, 5400.0, True)

    Raises:
        ValueError: it is no amount with a unit, not above 0, or more than anybody waits for.
    """
    said = shortened(text.strip())
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"must be a number with a unit, such as {EXAMPLES}, got '{said}'")
    amount, unit = float(found[1]), found[2]
    if not unit:
        raise ValueError(f"needs a unit, such as {EXAMPLES}, got '{said}'")
    if unit not in UNITS and unit not in GPU_HOURS:
        raise ValueError(unknown("unit", unit, (*UNITS, GPU_HOURS[0])))
    if amount <= 0:
        raise ValueError(f"must be above 0, got '{said}'")
    if unit in GPU_HOURS:
        if amount * 3600.0 > MOST_GPU_S:
            raise ValueError(f"must be at most {MOST_GPU_S / 3600:,.0f} GPU-hours, got '{said}'")
        return Limit(amount * 3600.0, True, said)
    if amount * UNITS[unit] > MOST_S:
        raise ValueError(f"must be at most a year (365d), got '{said}'")
    return Limit(amount * UNITS[unit], False, said)


class Budget:
    """What is spent of a limit, from the moment it is made. Without a limit it is never spent.

    What runs come to plays no part. However small it is, a run is at work for `least_s` before it is spent,
    so that every command brings one further.
    """

    def __init__(
        self,
        limit: Limit | None,
        *,
        least_s: float = LEAST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit, self._least_s, self._clock = limit, least_s, clock
        self._start_s = self._seen_s = clock()
        self._gpu_s = 0.0
        self._running_gpus = 0.0
        self._at_work_s: float | None = None  # since when
        self._waits = False  # for runs that others hold, or have queued

    def watch(self, progress: Progress, gpus_of: Mapping[str, float], has_begun: HasBegun) -> None:
        """Take note of what runs now, of how many GPUs each run holds, and whether one has come further."""
        now_s = self._clock()
        self._gpu_s += (now_s - self._seen_s) * self._running_gpus
        self._seen_s = now_s
        self._running_gpus = sum(gpus_of.get(run_id, 0.0) for run_id in progress.running)
        self._waits = not progress.running
        if self._at_work_s is None and any(map(has_begun, progress.running)):
            self._at_work_s = now_s
        if progress.ended:
            self._least_s = 0.0

    def is_spent(self) -> bool:
        if self.limit is None or self.left_s > 0:
            return False
        at_work_s = 0.0 if self._at_work_s is None else self._clock() - self._at_work_s
        return self._waits or at_work_s >= self._least_s

    @property
    def left_s(self) -> float:
        """By the clock, or of GPUs, as the limit is."""
        if self.limit is None:
            return float("inf")
        now_s = self._clock()
        spent_s = now_s - self._start_s
        if self.limit.of_gpus:
            spent_s = self._gpu_s + (now_s - self._seen_s) * self._running_gpus
        return self.limit.most_s - spent_s

    def line(self) -> str:
        """What is left, for people; "" without a limit."""
        if self.limit is None:
            return ""
        what = "GPU time" if self.limit.of_gpus else "budget"
        return f"{duration(max(0.0, self.left_s))} of {self.limit.says} {what} left"


def short_of_seeds(plan: Plan) -> Iterator[str]:
    """A line per table that lacks runs: how many rows are complete, which need how many more seeds, and how
    long, of one worker. In the order in which a budget is spent."""
    left: dict[str, list[float | None]] = {}
    for run in plan.runs:
        if not run.done and run.seed in plan.seeds:
            left.setdefault(run.arm_id, []).append(run.time_s)
    for table in by_priority(plan):
        names: dict[str, str] = {}
        for cell in table.cells:
            if cell.arm_id is not None:
                names.setdefault(cell.arm_id, f"{cell.row} / {cell.column}" if cell.column else cell.row)
        short = [arm_id for arm_id in names if arm_id in left]
        if not short:
            continue
        times = [time_s for arm_id in short for time_s in left[arm_id]]
        known = [time_s for time_s in times if time_s is not None]
        how_long = f", about {duration(sum(known))} of one worker" if len(known) == len(times) else ""
        named = [f"{names[arm_id]} {counted(len(left[arm_id]), 'seed')}" for arm_id in short[:MOST_NAMED]]
        more = f"; and {len(short) - MOST_NAMED} more" if len(short) > MOST_NAMED else ""
        yield (
            f"{table.key}: {len(names) - len(short)} of {counted(len(names), 'row')} complete; "
            f"to come{how_long}: {'; '.join(named)}{more}"
        )


def within_budget(budget: Budget, args: argparse.Namespace, jobs: Sequence[Job], watch: Watch) -> Watch:
    """The watcher, which counts what is spent too. Agents of Slurm do not see this command's clock: when the
    budget is spent, what is left of theirs is cancelled.

    Raises:
        StudyError: GPU-hours are to be counted, and the cluster file asks for no GPUs.
    """
    if budget.limit is None:
        return watch
    place, since_s = workspace(args), time.time()
    gpus_of = _gpus_of(budget.limit, args.cluster, jobs) if args.on == "slurm" else {}
    is_cancelled = args.on != "slurm"

    def has_begun(run_id: str) -> bool:
        events = place.folder(run_id).events
        return events.exists() and events.stat().st_mtime >= since_s

    def watched(progress: Progress) -> None:
        nonlocal is_cancelled
        budget.watch(progress, gpus_of, has_begun)
        if budget.is_spent() and not is_cancelled:
            is_cancelled = True
            note = "\n".join(filter(None, (progress.note, _cancel_the_rest(args, place))))
            progress = replace(progress, note=note)
        watch(progress)

    return watched


def _gpus_of(limit: Limit, cluster_file: Path | None, jobs: Sequence[Job]) -> dict[str, float]:
    """run_id -> GPUs of Slurm that it holds: those of an agent are shared by what it trains at a time."""
    from harness.slurm.cluster import find_cluster

    cluster = find_cluster(cluster_file)
    found = {}
    for job in jobs:
        asked = cluster.resources_of(job.spec)
        found[job.run_id] = asked.nodes * asked.gpus / asked.least_beside
    if limit.of_gpus and not any(found.values()):
        text = "the cluster file asks for no GPUs; say a time such as 2h"
        raise StudyError([Problem("--budget", 0, text)])
    return found


def _cancel_the_rest(args: argparse.Namespace, place: Workspace) -> str:
    """Ask every run that has not ended to write a checkpoint and stop. Returns: what was done, in words."""
    from harness.commands.overview import look_at_study
    from harness.commands.runs import cancel, in_words

    overview = look_at_study(args, only_part=True)
    done = cancel(overview, overview.plan.runs, place, only_queued=False)
    return "\n".join(["the budget is spent", *in_words(done, str(args.study))])
