"""The parts of a campaign. Each returns one row of the table."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.checks import Undisturbed, violations
from tests.chaos.place import CHECKPOINT_EVERY_S, Place
from tests.chaos.regimes import Faults, WritePoints, at_random, every_card
from tests.chaos.trial import Outcome, Trial, undisturbed
from tests.chaos.victims import kill_all
from tests.end_to_end.workplace import ROOT

MOST_PER_STUDY = 60  # disturbances, after which a study is left in peace
SAVES_HANG_S = 3600
KINDS = ("lost", "duplicated", "wrong", "journal", "leftover", "orphan", "mirror", "hang", "traceback")


@dataclass(frozen=True, slots=True)
class Row:
    """What one part of a campaign did and found."""

    what: str
    done: str
    faults: list[str]
    note: str = ""


@dataclass(slots=True)
class Campaign:
    """Everything below one folder, which keeps what went wrong."""

    base: Path
    rng: random.Random
    rows: list[Row] = field(default_factory=list)
    _undisturbed: Undisturbed | None = None
    _places: int = 0

    @property
    def undisturbed(self) -> Undisturbed:
        """The study without disturbance; run when it is first asked for."""
        if self._undisturbed is None:
            place = Place(self.base / "undisturbed").prepare()
            self._undisturbed = undisturbed(place)
            faults = violations(place, self._undisturbed)
            if faults:
                raise RuntimeError(f"the checks find fault with an undisturbed study: {faults}")
        return self._undisturbed

    def place(self, *arguments: str) -> Place:
        self._places += 1
        return Place(self.base / f"study{self._places}", arguments).prepare()

    def random_kills(self, count: int) -> Row:
        outcome = self._studies(lambda: at_random, count)
        victims = {name.removeprefix("random: "): kills for name, kills in outcome.kills.items()}
        return Row(
            "kill -9 at any time",
            f"{outcome.count} kills ({_listed(victims)})",
            outcome.faults,
            _lost(outcome),
        )

    def write_points(self, count: int) -> Row:
        regime = WritePoints(sorted(self.undisturbed.points), self.rng)
        outcome = self._studies(lambda: regime, count)
        of = len(every_card(regime.points))
        note = (
            f"{len(regime.hit)} of {of} write points x (before, half of the bytes, after); {_lost(outcome)}"
        )
        return Row("kill -9 at write points", f"{outcome.count} kills", outcome.faults, note)

    def faults(self, count: int) -> Row:
        outcome = self._studies(lambda: Faults(self.rng), count)
        names = {name.removeprefix("fault: "): times for name, times in outcome.kills.items()}
        return Row(
            "writes that fail or are late",
            f"{outcome.count} ({_listed(names)})",
            outcome.faults,
            _lost(outcome),
        )

    def saves(self, count: int) -> Row:
        said = _python(
            "tests.chaos.saves", str(self.base / "saves"), str(count), str(self.rng.randrange(10**6))
        )
        note = f"{said['saves']} saves; tensors and steps compared"
        faults = [f"checkpoint: {text}" for text in said["unreadable"]]
        return Row("kill -9 while a checkpoint is saved", f"{said['kills']} kills", faults, note)

    def crowd(self, what: str, count: int) -> Row:
        """`count` processes begin at once: `stores`, `claims` or `controllers`."""
        place = self.place()
        shutil.rmtree(place.runs_dir, ignore_errors=True)
        said = _python("tests.chaos.crowd", what, str(place.base), str(count))
        failed = {code: times for code, times in said["codes"].items() if code != "0"}
        faults = [f"lost: {times} of {count} processes ended with {code}" for code, times in failed.items()]
        faults += [f"duplicated: {said['wrong']} are not there exactly once"] * bool(said["wrong"])
        if what == "controllers":
            faults += violations(place, self.undisturbed)
        titles = {
            "stores": "processes that open an MLflow store that is not there",
            "claims": "processes that claim 64 runs",
            "controllers": "`harness run` of one study",
        }
        self.keep(place, faults)
        succeeded = said["codes"].get("0", 0)
        return Row(f"{count} {titles[what]} at once", f"{succeeded} succeed", faults)

    def two_controllers(self, kills: int) -> Row:
        """Two `harness run` of one study with workers of their own, each repeated whenever it was killed."""
        place = self.place("--workers", "2")
        second = place.start()
        trial = Trial(place, self.undisturbed, self.rng)
        codes: Counter[int] = Counter()

        def disturb(trial: Trial) -> None:
            nonlocal second
            at_random(trial)
            if (code := second.poll()) is not None and not trial.has_ended():
                codes[code] += 1
                second = place.start()

        outcome = trial.run(disturb, kills)
        trial.wait(second)
        self.keep(place, outcome.faults)
        return Row(
            "two `harness run` of one study at once", f"{outcome.count} kills", outcome.faults, _lost(outcome)
        )

    def _studies(self, regime: Callable[[], Callable[[Trial], None]], count: int) -> Outcome:
        """As many studies, one after another, as it takes to disturb them so often."""
        total = Outcome(starts=0)
        while total.count < count:
            place = self.place()
            most = min(MOST_PER_STUDY, count - total.count)
            outcome = Trial(place, self.undisturbed, self.rng).run(regime(), most)
            total.add(outcome)
            self.keep(place, outcome.faults)
            say(f"  {total.count} of {count}; {len(total.faults)} faults; study: {outcome.time_s:.0f} s")
        return total

    def keep(self, place: Place, faults: list[str]) -> None:
        """A study that went wrong stays to be looked at."""
        kill_all(place.control.path)
        if faults:
            say(f"  see {place.base}: " + "; ".join(faults[:5]))
        else:
            shutil.rmtree(place.base)


def markdown(rows: list[Row]) -> str:
    """The table for docs/reliability.md."""
    lines = [
        "| what | done | " + " | ".join(KINDS[:3]) + " | other faults | note |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kinds = Counter(fault.split(":")[0] for fault in row.faults)
        numbers = [str(kinds[kind]) for kind in KINDS[:3]]
        others = _listed({kind: kinds[kind] for kind in kinds if kind not in KINDS[:3]}) or "0"
        lines.append(f"| {row.what} | {row.done} | {' | '.join(numbers)} | {others} | {row.note} |")
    return "\n".join(lines)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _lost(outcome: Outcome) -> str:
    """The work that was done again, and how often the command was given."""
    worst = max(outcome.lost, key=lambda each: each.time_s, default=None)
    text = f"command given {outcome.starts} times, then {outcome.repeats} in peace"
    if worst is None:
        return text
    steps = max(each.steps for each in outcome.lost)
    return (
        f"{text}; work done again after a kill at most {worst.time_s:.2f} s, {steps} steps"
        f" (interval {CHECKPOINT_EVERY_S} s)"
    )


def _python(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        timeout=SAVES_HANG_S,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
