"""What needs rich: colours, and the live progress of a run. Labels are never taken for markup."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.text import Text

from harness.commands.display import duration, in_words
from harness.errors import counted, visible
from harness.spec import DIVERGED, FAILED, FINISHED

if TYPE_CHECKING:
    from harness.commands.machine import Finding
    from harness.runs.folder import RunFolder
    from harness.scheduling.base import Progress
    from harness.study.plan import Plan, PlannedRun, PlanTable


class HouseConsole(Console):
    """A console whose texts, whoever wrote them, cannot command the terminal: only its own styles do."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: a label such as `[3, 4, 6]` is not markup."""
    return HouseConsole(stderr=stderr, markup=False, emoji=False, highlight=False)


def show_findings(findings: Iterable[Finding], levels: Mapping[str, str]) -> list[Finding]:
    """One line per finding, as it comes; then how many of each level. Returns the findings.

    levels: level -> the style of its word, from the best to the worst. The best needs no mend here.
    """
    best = next(iter(levels))
    console = plain_console()
    found = []
    for finding in findings:
        found.append(finding)
        console.print(f"{finding.level:<5}", style=levels[finding.level], end="")
        mend = f" -> {finding.mend}" if finding.mend and finding.level != best else ""
        console.print(f"{finding.name}: {finding.says}{mend}", soft_wrap=True)
    console.print(in_words({level: sum(each.level == level for each in found) for level in levels}))
    return found


# Live progress of one `harness run` on stderr: a status on a terminal, plain lines elsewhere.


PLAIN_LINE_EVERY_S = 15.0
REFRESH_PER_S = 4.0  # a spinner at rich's 12.5 takes time from the runs on a small machine
RECENT_RUNS = 10
MOST_NAMED = 4  # labels in one line

FolderOf = Callable[[str], "RunFolder"]  # run_id -> its folder


class Tally:
    """What this session has done, from what the scheduler tells and the records of the runs that ended."""

    def __init__(self, todo: Sequence[PlannedRun], folder_of: FolderOf, *, gpus: int, now_s: float) -> None:
        self._macs = {run.run_id: run.macs for run in todo}
        self._planned_s = {run.run_id: run.time_s for run in todo}
        self._folder_of = folder_of
        self._gpus = gpus
        self._started_s: dict[str, float] = {}
        self._now_s = now_s
        self._finished_macs = self._finished_s = 0.0
        self._speeds: deque[float] = deque(maxlen=RECENT_RUNS)
        self._most_running = 1
        self.busy_s = 0.0  # by the clock: of workers that had a run, or of GPUs
        self.running: tuple[str, ...] = ()
        self.ended: dict[
            str, str
        ] = {}  # run_id -> finished, diverged or failed; interrupted runs go on later

    @property
    def total(self) -> int:
        return len(self._macs)

    def update(self, progress: Progress, now_s: float) -> list[str]:
        """Take note of what the scheduler says at `now_s`; the runs that have ended since the last call."""
        busy = len(self.running)
        self.busy_s += (now_s - self._now_s) * (min(busy, self._gpus) if self._gpus else busy)
        self._now_s = now_s
        self.running = progress.running
        self._most_running = max(self._most_running, len(self.running))
        for run_id in self.running:
            self._started_s.setdefault(run_id, now_s)
        outcomes = (FINISHED, DIVERGED, FAILED)
        new = [key for key, status in progress.ended.items() if status in outcomes and key not in self.ended]
        for run_id in new:
            self.ended[run_id] = progress.ended[run_id]
            if progress.ended[run_id] == FINISHED:
                self._learn(run_id)
        return new

    @property
    def images_per_s(self) -> float | None:
        """Training images per second now: runs under way x the median speed of those that finished last."""
        from statistics import median

        return len(self.running) * median(self._speeds) if self._speeds and self.running else None

    @property
    def left_s(self) -> float | None:
        """Time until all runs have ended, if the rest is as fast per multiply-add as what has finished here.
        None while nothing is trained here: what others hold, and may have left, takes as long as it takes.

        Until a run has finished in this session: by the plan's estimate, or None where it has none.
        """
        left = [run_id for run_id in self._macs if run_id not in self.ended]
        times = [self._time_s(run_id) for run_id in left]
        known = [time_s for time_s in times if time_s is not None]
        if not left or not self.running or len(known) < len(times):
            return None
        return max(max(known), sum(known) / self._most_running)

    def _time_s(self, run_id: str) -> float | None:
        """What is left of one run."""
        whole_s = self._planned_s[run_id]
        if self._finished_macs and self._macs[run_id]:
            whole_s = self._macs[run_id] * self._finished_s / self._finished_macs
        if whole_s is None or run_id not in self.running:
            return whole_s
        return max(0.0, whole_s - (self._now_s - self._started_s[run_id]))

    def _learn(self, run_id: str) -> None:
        if run_id in self._started_s and run_id in self._macs:
            self._finished_macs += self._macs[run_id]
            self._finished_s += self._now_s - self._started_s[run_id]
        summary = self._folder_of(run_id).read_summary() or {}
        if summary.get("images_per_s"):
            self._speeds.append(summary["images_per_s"])


class RowsSoFar:
    """Of each table that this session trains for: how many rows are complete, and their effects so far.

    An effect is the mean difference over the seeds that both rows have: no interval, no verdict, provisional.
    """

    def __init__(self, plan: Plan, folder_of: FolderOf) -> None:
        self._plan, self._folder_of = plan, folder_of
        self._runs = {run.run_id: run for run in plan.runs if run.seed in plan.seeds}
        self._left: dict[str, set[str]] = {run.arm_id: set() for run in self._runs.values()}
        for run in self._runs.values():
            if not run.done:
                self._left[run.arm_id].add(run.run_id)
        self._values: dict[str, float | None] = {}  # run_id -> the metric, once it was read
        self._news: set[str] = set()  # arms that are complete and were not told
        to_do = {arm_id for arm_id, left in self._left.items() if left}
        self._tables = [
            table for table in plan.tables if not to_do.isdisjoint(cell.arm_id for cell in table.cells)
        ]

    def end(self, run_id: str) -> None:
        """A run has ended."""
        if run_id in self._runs:
            arm_id = self._runs[run_id].arm_id
            self._left[arm_id].discard(run_id)
            if not self._left[arm_id]:
                self._news.add(arm_id)

    def lines(self, *, only_news: bool = False) -> list[str]:
        """A line per table with a complete row; or only of those with one that was not told yet."""
        news, self._news = self._news, set()
        told = [
            table
            for table in self._tables
            if not only_news or not news.isdisjoint(cell.arm_id for cell in table.cells)
        ]
        return [line for table in told if (line := self._line(table))]

    def _line(self, table: PlanTable) -> str:
        cells = [cell for cell in table.cells if cell.arm_id in self._left]
        complete = [cell for cell in cells if not self._left[cell.arm_id or ""]]
        if not complete:
            return ""
        arms = {(cell.row, cell.column): cell.arm_id for cell in table.cells}
        effects = []
        for cell in complete:
            found = self._effect(cell.arm_id, arms.get((cell.versus or "", cell.column)))
            if found is not None:
                name = f"{cell.row} ({cell.column})" if cell.column else cell.row
                effects.append(f"{name} {found:+.2f}")
        text = f"{table.key}: {len(complete)} of {counted(len(cells), 'row')} complete"
        return f"{text}; provisional effects: {_names(effects)}" if effects else text

    def _effect(self, arm_id: str | None, versus: str | None) -> float | None:
        if not versus or versus == arm_id or self._left.get(versus, {""}):
            return None
        own, other = self._of_arm(arm_id), self._of_arm(versus)
        found = [own[seed] - other[seed] for seed in own.keys() & other.keys()]
        return sum(found) / len(found) if found else None

    def _of_arm(self, arm_id: str | None) -> dict[int, float]:
        """seed -> the metric."""
        found = {}
        for run_id, run in self._runs.items():
            if run.arm_id == arm_id and (value := self._value(run_id)) is not None:
                found[run.seed] = value
        return found

    def _value(self, run_id: str) -> float | None:
        if run_id not in self._values:
            summary = self._folder_of(run_id).read_summary() or {}
            value = summary.get("metrics", {}).get(self._plan.header["metric"])
            self._values[run_id] = float(value) if isinstance(value, int | float) else None
        return self._values[run_id]


class ProgressDisplay:
    """Runs done, running and waiting, images per second, time left, cost so far, and why a run failed."""

    def __init__(
        self,
        plan: Plan,
        folder_of: FolderOf,
        *,
        gpus: int = 0,
        workers: str = "workers",
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._labels = {run.run_id: f"{plan.arm_labels[run.arm_id]}, seed {run.seed}" for run in plan.runs}
        self._folder_of = folder_of
        self._unit = "GPU" if gpus else "worker"
        self._clock = clock
        self._start_s = self._last_line_s = clock()
        todo = [run for run in plan.runs if not run.done]
        self._tally = Tally(todo, folder_of, gpus=gpus, now_s=self._start_s)
        self._rows = RowsSoFar(plan, folder_of)
        self.more: Callable[[], str] = str  # what else a line says, for example of a budget
        self._reasons: dict[str, list[str]] = {}  # why runs failed -> their labels
        self._console = console or plain_console(stderr=True)
        animated = self._console.is_terminal and not self._console.is_dumb_terminal
        self._start = start = f"starting {workers} for {counted(self._tally.total, 'run')}"
        self._status = (
            self._console.status(Text(start), refresh_per_second=REFRESH_PER_S) if animated else None
        )

    def __enter__(self) -> ProgressDisplay:
        if self._status:
            self._status.start()
        else:
            every = duration(PLAIN_LINE_EVERY_S)
            self._say(f"{self._start}; a line follows every {every}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()
        for reason, labels in self._reasons.items():
            if len(labels) > 1:
                first_line = reason.partition("\n")[0]
                self._say(f"failed for the same reason ({first_line}): {_names(labels[1:])}")
        self._say(self.last_line())

    def watch(self, progress: Progress) -> None:
        """Show what changed. Called by the scheduler between two hand-outs."""
        now_s = self._clock()
        for run_id in self._tally.update(progress, now_s):
            if self._tally.ended[run_id] == FAILED:
                self._say_why(run_id)
            else:
                self._rows.end(run_id)
        for note in progress.note.splitlines():
            if note not in self._reasons:
                self._say(note)
        if self._status:
            named = _names([self._labels.get(run_id, run_id) for run_id in progress.running])
            rows = [Text(f"\n{line}", no_wrap=True, overflow="ellipsis") for line in self._rows.lines()]
            self._status.update(Text.assemble(f"{self.line(progress)}\n  {named}", *rows))
        elif now_s - self._last_line_s >= PLAIN_LINE_EVERY_S:
            self._last_line_s = now_s
            for line in (*self._rows.lines(only_news=True), self.line(progress)):
                self._say(line)

    @property
    def left_s(self) -> float | None:
        """Seconds until all runs have ended, as far as is known."""
        return self._tally.left_s

    def line(self, progress: Progress) -> str:
        """The state of the session in one line."""
        tally = self._tally
        parts = [f"{len(tally.ended)} of {counted(tally.total, 'run')} ended{self._bad()}"]
        parts.append(f"{len(progress.running)} running, {progress.waiting} waiting")
        if progress.queue:
            parts.append(progress.queue)
        if tally.images_per_s is not None:
            parts.append(f"{tally.images_per_s:,.0f} img/s")
        if tally.left_s is not None:
            parts.append(f"about {duration(tally.left_s)} left")
        return "; ".join(filter(None, [*parts, self.more(), self._cost()]))

    def last_line(self) -> str:
        """What came of the session."""
        tally = self._tally
        outcomes = in_words(Counter(tally.ended.values())) or "0 ended"
        left = tally.total - len(tally.ended)
        more = f", {left} to go on with" if left else ""
        return f"{counted(tally.total, 'run')}: {outcomes}{more}; {self._cost()}"

    def _cost(self) -> str:
        spent_s = self._clock() - self._start_s
        return f"{duration(spent_s)} so far, {duration(self._tally.busy_s)} of {self._unit} time"

    def _bad(self) -> str:
        counts = Counter(status for status in self._tally.ended.values() if status != FINISHED)
        return f" ({in_words(counts)})" if counts else ""

    def _say_why(self, run_id: str) -> None:
        """Each reason is printed once, with the first run it ended and where the details are."""
        folder = self._folder_of(run_id)
        events = [event for event in folder.read_events() if event["kind"] == FAILED]
        gone = "its folder was deleted while it was trained" if not folder.path.exists() else ""
        told = events[-1].get("message", "") if events else gone or "no reason recorded"
        # Of a command that failed, not its last words, in which each run has numbers of its own.
        reason = events[-1].get("reason", told) if events else told
        labels = self._reasons.setdefault(reason, [])
        labels.append(self._labels.get(run_id, run_id))
        if len(labels) == 1:
            self._say(f"failed: {labels[0]}: {told}\n  {folder.events}")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, emoji=False, highlight=False)


def _names(labels: Sequence[str]) -> str:
    more = len(labels) - MOST_NAMED
    return "; ".join(labels[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
