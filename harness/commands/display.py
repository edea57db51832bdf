"""What a person reads in a terminal: plans, listings, live progress. Labels are never taken for markup."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from harness.errors import counted, visible
from harness.spec import ACCURACIES, DIVERGED, FAILED, FINISHED

if TYPE_CHECKING:
    from harness.commands.machine import Finding
    from harness.data.entry import Look
    from harness.runs.folder import RunFolder
    from harness.scheduling.base import Progress
    from harness.study.plan import Cell, Plan, PlannedRun, PlanTable, Union

# What a person reads in a terminal: plans, states, listings. Labels are never taken for markup.


MEMORY_MARK = "†"
MEMORY_FOOTNOTE = f"{MEMORY_MARK} from memory: no available source showed it (docs/references.md)"
NARROWEST = 72  # columns; below it the terminal breaks lines, rather than whole columns of a table vanish
ALSO_PRINTED = {  # further printed numbers of a row -> heading
    "top1_std": "std",
    "params_m": "params M",
    "gflops": "GMACs",
    "cost": "cost",
    "cost_bn_ops": "Bn ops",
    "epoch_minutes": "min/epoch",
    "steps_to_target_m": "M steps",
}
MOST_CLASSES_SHOWN = 20
LISTED = {  # listing -> the columns a person sees; `--json` has everything
    "tricks": ("name", "what", "paper"),
    "models": ("name", "params", "macs", "paper"),
    "data": ("name", "classes", "train_images", "test_images", "missing"),
    "studies": ("file", "study", "question", "runs", "error"),
}


class HouseConsole(Console):
    """A console whose texts, whoever wrote them, cannot command the terminal: only its own styles do."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: a label such as `[3, 4, 6]` is not markup."""
    return HouseConsole(stderr=stderr, markup=False, emoji=False, highlight=False)


def listing_console() -> Console:
    console = plain_console()
    console.width = max(console.width, NARROWEST)
    return console


def show_plan(plan: Plan, data: Look) -> None:
    """Every row with its paper cells, then the runs, what is shared and the cost."""
    console = listing_console()
    for table in plan.tables:
        console.print(f"{table.key}: {table.title}", style="bold")
        console.print(Padding(_rows(table), (0, 0, 1, 1)))
    printed = (value for table in plan.tables for cell in table.cells for value in cell.paper.values())
    if any(value.status != "verified" for value in printed):
        console.print(f"{MEMORY_FOOTNOTE}\n")
    for note in plan.notes:
        console.print(f"note: {note}")
    _show_data(console, data)
    console.print(plan_line(plan))


def _show_data(console: Console, data: Look) -> None:
    for text in data.notes:
        console.print(f"data: {text}")
    for text in data.problems:
        console.print(f"missing data: {text}")


def _rows(table: PlanTable) -> Table:
    has_columns = any(cell.column for cell in table.cells)
    view = Table(box=None, header_style="bold", pad_edge=False)
    view.add_column("row")
    if has_columns:
        view.add_column("column")
    view.add_column("arm", no_wrap=True)
    view.add_column("compared with")
    printed = {name for cell in table.cells for name in cell.paper}
    shown = {"top1": "paper top-1", "top5": "paper top-5"}
    shown |= {name: heading for name, heading in ALSO_PRINTED.items() if name in printed}
    for heading in shown.values():
        view.add_column(heading, justify="right", no_wrap=True)
    for cell in table.cells:
        arm = cell.arm_id[:8] if cell.arm_id else "quoted"
        column = [cell.column or ""] if has_columns else []
        view.add_row(cell.row, *column, arm, cell.versus or "", *(_paper(cell, name) for name in shown))
    return view


def _paper(cell: Cell, metric: str) -> str:
    printed = cell.paper.get(metric)
    if printed is None:
        return ""
    digits = f"{printed.value:.2f}" if metric in ACCURACIES else f"{printed.value:g}"
    return digits + (" " if printed.status == "verified" else MEMORY_MARK)


def plan_line(plan: Plan, *, hint: bool = True) -> str:
    """One line: how many rows, arms and runs, what is done, what the rest costs.

    hint: say when seconds will be known, where they are not.
    """
    cells = [cell for table in plan.tables for cell in table.cells if cell.arm_id]
    todo = [run for run in plan.runs if not run.done]
    further = len(plan.runs) - sum(len(plan.seeds_of(arm_id)) for arm_id in plan.arms)
    line = (
        f"{plan.study} ({plan.size}): {len(cells)} rows, {len(plan.arms)} arms x {_seeds(plan)}"
        + (f" + {further} further members of ensembles" if further else "")
        + f" = {len(plan.runs)} runs, {len(plan.runs) - len(todo)} done"
    )
    if not todo:
        return line + "; nothing to train"
    times = [run.time_s for run in todo if run.time_s is not None]
    time_s = sum(times) if len(times) == len(todo) else None
    return line + f"; to train: {_work(len(todo), sum(run.macs for run in todo), time_s, hint=hint)}"


def _seeds(plan: Plan) -> str:
    """How many, and of an adaptive study at which look."""
    from harness.study.plan import runs_at_most

    if not plan.is_adaptive:
        return f"{len(plan.seeds)} seeds"
    fewest = min(plan.arm_seeds.values(), default=len(plan.seeds))
    span = f"{fewest} to {len(plan.seeds)}" if fewest < len(plan.seeds) else f"{fewest}"
    most = f"at most {plan.looks[-1]}, {runs_at_most(plan)} runs"
    return f"{span} seeds at look {plan.look} of {len(plan.looks)} ({most})"


def _work(runs: int, macs: float, time_s: float | None, *, hint: bool = True) -> str:
    text = f"{counted(runs, 'run')}, {macs:.2e} multiply-adds"
    if time_s is None:
        return text + (" (seconds are known once a run has finished here)" if hint else "")
    return text + f", about {duration(time_s)} of one worker"


def show_plans(plans: Sequence[Plan], together: Union, data: Look) -> None:
    """One line per study, then what they share and need together."""
    console = listing_console()
    for plan in plans:
        console.print(plan_line(plan, hint=False))
    console.print()
    _show_data(console, data)
    todo = together.runs - together.done
    console.print(
        f"together: {together.runs} runs, {together.shared} of them shared by more than one study,"
        f" {together.done} done; "
        + (f"to train: {_work(todo, together.macs, together.time_s)}" if todo else "nothing to train")
    )
    for studies, count in together.sharing:
        console.print(f"shared by {', '.join(studies)}: {counted(count, 'run')}")


def in_words(counts: Mapping[str, int]) -> str:
    """How many are in each state.

    >>> in_words({"finished": 5, "failed": 1})
    '5 finished, 1 failed'
    """
    return ", ".join(f"{count} {state}" for state, count in counts.items())


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


def show_shortfalls(failures: Iterable[str], notes: Iterable[str]) -> None:
    """A line for every format of a report that could not be written, and for what shows a replacement."""
    for text in (*failures, *notes):
        print(text, file=sys.stderr)


def show_listing(kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per entry, without the columns that nothing fills; the JSON form has everything."""
    columns = [name for name in LISTED[kind] if any(row.get(name) is not None for row in rows)]
    if not columns:
        listing_console().print(f"no {kind}")
        return
    view = Table(box=None, header_style="bold")
    for name in columns:
        is_number = all(isinstance(row.get(name), int | None) for row in rows)
        first = name == columns[0]
        view.add_column(name, justify="right" if is_number else "left", no_wrap=is_number or first)
    for row in rows:
        view.add_row(*(_cell(row.get(name)) for name in columns))
    listing_console().print(view)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


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


def show_folder(found: Mapping[str, Any]) -> None:
    """A folder of images as `harness.data.contents.examine` describes it."""
    console = plain_console()
    for name, part in found["parts"].items():
        per_class, counts = part["images_per_class"], part["classes"]
        spread = f" ({_between(per_class)} in a class)" if per_class else ""
        lines = [f"{name}: {part['images']:,} images in {len(counts)} classes{spread}"]
        lines.append(f"  decoded: {part['decoded']:,}")
        if part["width"]:
            lines.append(f"  pixels: width {_between(part['width'])}, height {_between(part['height'])}")
        for key in ("formats", "modes"):
            if part[key]:
                lines.append(
                    f"  {key}: {', '.join(f'{mode} {count:,}' for mode, count in part[key].items())}"
                )
        some = [key for key in ("turned_by_exif", "several_frames") if part[key]]
        lines += [f"  {key.replace('_', ' ')}: {part[key]:,}" for key in some]
        for reason, files in part["left_out"].items():
            lines.append(f"  left out: {files['files']:,} {reason}, for example {files['example']}")
        lines += [f"  cannot be read: {text}" for text in part["unreadable"]["examples"]]
        shown = [f"{label} {count:,}" for label, count in counts.items()][:MOST_CLASSES_SHOWN]
        more = f" and {len(counts) - len(shown):,} more" if len(counts) > len(shown) else ""
        lines.append(f"  classes: {', '.join(shown)}{more}")
        console.print("\n".join(lines), soft_wrap=True)
    for kind in ("notes", "problems"):
        for text in found[kind]:
            console.print(f"{kind.removesuffix('s')}: {text}", soft_wrap=True)
    if not found["problems"]:
        console.print("a study can train on it")


def _between(spread: Mapping[str, float]) -> str:
    """For example "20..64, median 32"; one number where all are the same."""
    if spread["least"] == spread["most"]:
        return f"{spread['least']:,}"
    return f"{spread['least']:,}..{spread['most']:,}, median {spread['median']:,g}"


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
        if self._finished_macs:
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
        for note in progress.note.splitlines():
            if note not in self._reasons:
                self._say(note)
        if self._status:
            named = _names([self._labels.get(run_id, run_id) for run_id in progress.running])
            self._status.update(Text(f"{self.line(progress)}\n  {named}"))
        elif now_s - self._last_line_s >= PLAIN_LINE_EVERY_S:
            self._last_line_s = now_s
            self._say(self.line(progress))

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
        return "; ".join([*parts, self._cost()])

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
        reasons = [event.get("message", "") for event in folder.read_events() if event["kind"] == FAILED]
        gone = "its folder was deleted while it was trained" if not folder.path.exists() else ""
        reason = reasons[-1] if reasons else gone or "no reason recorded"
        labels = self._reasons.setdefault(reason, [])
        labels.append(self._labels.get(run_id, run_id))
        if len(labels) == 1:
            self._say(f"failed: {labels[0]}: {reason}\n  {folder.events}")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, emoji=False, highlight=False)


def _names(labels: Sequence[str]) -> str:
    more = len(labels) - MOST_NAMED
    return "; ".join(labels[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
