"""One study, disturbed until it has ended or has had enough, then left in peace until it is done."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.checks import Lost, Undisturbed, lost_work, results, violations
from tests.chaos.place import Place
from tests.chaos.victims import kill_all

HANGS_S = 600.0  # a limit against hanging: no command left in peace takes so long
MOST_REPEATS = 3  # commands left in peace until all runs have ended


@dataclass(slots=True)
class Outcome:
    """What was done to a study, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)  # what was hit -> how often
    starts: int = 1  # commands while it was disturbed
    repeats: int = 0  # commands in peace until every run had ended
    faults: list[str] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    time_s: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.kills.values())

    def add(self, other: Outcome) -> None:
        self.kills += other.kills
        self.starts += other.starts
        self.repeats = max(self.repeats, other.repeats)
        self.faults += other.faults
        self.lost += other.lost
        self.time_s += other.time_s


@dataclass(slots=True)
class Trial:
    """A study under way."""

    place: Place
    undisturbed: Undisturbed
    rng: random.Random
    hangs_s: float = HANGS_S
    store: bool = True  # the MLflow store is beside the runs
    process: subprocess.Popen[bytes] | None = None
    outcome: Outcome = field(default_factory=Outcome)

    def run(self, disturb: Callable[[Trial], None], most: int) -> Outcome:
        """Call `disturb` again and again, repeating the command whenever it has ended, until every run has
        ended or `most` disturbances were counted; then see what is left."""
        start_s = time.monotonic()
        self.process = self.place.start()
        while self.outcome.count < most:
            disturb(self)
            if self.process.poll() is not None:
                if self.has_ended():
                    break
                self.process = self.place.start()
                self.outcome.starts += 1
        self.place.control.withdraw()
        self.finish()
        self.outcome.faults += violations(self.place, self.undisturbed, store=self.store)
        self.outcome.lost += lost_work(self.place)
        self.outcome.time_s = time.monotonic() - start_s
        return self.outcome

    def has_ended(self) -> bool:
        return all((self.place.runs_dir / run / "summary.json").exists() for run in self.undisturbed.runs)

    def finish(self) -> None:
        """In peace: the command that is under way, then the same again until it ends well."""
        if self.process is not None:
            self.wait(self.process)
        for self.outcome.repeats in range(1, MOST_REPEATS + 1):
            code = self.wait(self.place.start())
            if code == 0:
                self.wait(self.place.start("sync", "chaos.yaml")) if self.store else None
                return
        self.outcome.faults.append(
            f"lost: after {MOST_REPEATS} repetitions the command still ends with {code}"
        )

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(self.hangs_s)
        except subprocess.TimeoutExpired:
            self.outcome.faults.append(f"hang: the command did not end within {self.hangs_s:.0f} s")
            kill_all(self.place.control.path)
            return process.wait()


def undisturbed(place: Place) -> Undisturbed:
    """Run the study to its end, and note what it writes."""
    code = place.start().wait(HANGS_S)
    if code != 0:
        raise RuntimeError(f"the undisturbed study ended with {code}: {place.errors()[-2000:]}")
    from tests.chaos.injector import name_of

    watch = f"{place.work.resolve()}/"
    points = Counter(
        f"{entry['op']} {name_of(watch + entry['path'], watch)}" for entry in place.control.audit()
    )
    runs = {folder.run_id: results(folder) for folder in place.folders()}
    if set(runs) != set(place.planned()):
        raise RuntimeError("the undisturbed study did not do what was planned")
    return Undisturbed(runs, points)
