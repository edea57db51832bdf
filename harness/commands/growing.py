"""The report of a study that is under way: a process of its own writes it when another row is complete."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.commands.budget import short_of_seeds
from harness.commands.display import duration
from harness.commands.workspace import asked_part, load_plan, report_folder, workspace
from harness.errors import counted
from harness.scheduling.base import Progress
from harness.spec import ENDED
from harness.study.plan import Plan

SOONEST_S = 60.0  # between the beginnings of two writings, and before the first
SHARE = 50  # the time between two writings over what the last one cost: 2 %
STOPS_S = 2.0  # the time a writing has to clear up behind itself
PRIORITY = 10
NAMED = [
    "study",
    "size",
    "seeds",
    "smoke",
    "set",
    "runs",
    "data",
    "tracking_uri",
    "table",
    "row",
    "column",
    "out",
]
WRITE = "from harness.commands.growing import write; write()"
TERMINALS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")  # without any, a browser would take this terminal

Start = Callable[[Mapping[str, Any]], "subprocess.Popen[str]"]


class GrowingReport:
    """Told what the scheduler says; to be closed before the last report is written.

    A writing costs what it costs: the next one begins `SHARE` times as long after it, and not before another
    row is complete.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        plan: Plan,
        *,
        clock: Callable[[], float] = time.monotonic,
        start: Start | None = None,
    ) -> None:
        self._args, self._clock, self._start = args, clock, start or start_writing
        self._out_dir = report_folder(args, plan)
        self._left: dict[str, set[str]] = {}  # arm -> runs that have not ended
        for run in plan.runs:
            if not run.done:
                self._left.setdefault(run.arm_id, set()).add(run.run_id)
        self._arm_of = {run.run_id: run.arm_id for run in plan.runs}
        self._told: set[str] = set()
        self._has_news = self.is_open = False
        self._process: subprocess.Popen[str] | None = None
        self._next_s = clock() + SOONEST_S
        self._began_s = self._spent_s = 0.0

    def watch(self, progress: Progress, left_s: float | None) -> None:
        """Called by the scheduler between two hand-outs. left_s: until all have ended; None: not known."""
        for run_id in progress.ended.keys() - self._told:
            if progress.ended[run_id] in ENDED and run_id in self._arm_of:
                left = self._left.get(self._arm_of[run_id], set())
                left.discard(run_id)
                self._has_news = self._has_news or not left
        self._told |= progress.ended.keys()
        self._look()
        if self._has_news and self._process is None and self._clock() >= self._next_s:
            self._has_news = False
            self._began_s, self._spent_s = self._clock(), _children_s()
            self._process = self._start(options_of(self._args, left_s))

    def close(self) -> None:
        """Stop a writing that is under way: a whole report follows."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOPS_S)
            self._process.kill()
            self._process.wait()
            self._process = None

    def _look(self) -> None:
        if self._process is None or self._process.poll() is None:
            return
        is_written = self._process.returncode == 0
        self._process = None
        cost_s = _children_s() - self._spent_s
        self._next_s = max(self._began_s + SOONEST_S, self._clock() + SHARE * cost_s)
        if is_written and self._args.open and not self.is_open:
            self.is_open = True
            open_report(self._out_dir)


def options_of(args: argparse.Namespace, left_s: float | None) -> dict[str, Any]:
    """What the process that writes is told, as JSON."""
    named = {name: getattr(args, name, None) for name in NAMED}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in named.items()}
    return plain | {"left_s": left_s}


def start_writing(options: Mapping[str, Any]) -> subprocess.Popen[str]:
    """A process in a session of its own: a Ctrl-C in the terminal is for who started it."""
    process = subprocess.Popen(  # noqa: S603  this interpreter, and a fixed text
        [sys.executable, "-c", WRITE],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(dict(options)))
        process.stdin.close()
    return process


def write() -> None:
    """Write the report of what is mirrored by now. The process that trains mirrors it, and no other may."""
    from harness.commands.report import collected_input
    from harness.reporting import render

    with suppress(OSError):
        os.nice(PRIORITY)
    options = json.load(sys.stdin)
    args = argparse.Namespace(**options)
    for name in ("study", "runs", "data", "out"):
        setattr(args, name, Path(options[name]) if options[name] else None)
    args.seeds = tuple(options["seeds"]) if options["seeds"] else None
    place = workspace(args)
    plan = load_plan(args, place)
    part = asked_part(args, plan)
    mine = part.plan if part else plan
    says = under_way(mine, options["left_s"])
    render(collected_input(plan, place, part, says), report_folder(args, plan))


def under_way(plan: Plan, left_s: float | None) -> str:
    """What the first line of a report says of what is still to come."""
    ended = sum(run.done for run in plan.runs)
    text = f"Under way: {ended} of {counted(len(plan.runs), 'run')} have ended"
    if left_s is not None:
        text += f", about {duration(left_s)} left"
    to_come = " ".join(f"{line}." for line in short_of_seeds(plan))
    return f"{text}. {to_come}".strip()


def _children_s() -> float:
    """CPU time of the processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def open_report(out_dir: Path) -> None:
    """In a browser, or where there is none say where it is."""
    page = (out_dir / "report.html").resolve()
    has_screen = sys.platform == "darwin" or any(os.environ.get(name) for name in TERMINALS)
    if not has_screen or not webbrowser.open(page.as_uri()):
        print(f"no browser was found here; the report is {page}", file=sys.stderr)
