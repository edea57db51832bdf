"""Ways to disturb a study: each is called again and again while the study runs (see `trial.Trial.run`)."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.orders import BROKEN_DISK, CUT, DELAY, KILL, NO_SPACE, PHASES, SHORT, Order
from tests.chaos.trial import Trial
from tests.chaos.victims import CONTROLLER, WORKER, kill_one, living

PATIENCE_S = 4.0  # how long orders stay in force before others take their place
AT_ONCE = 6  # orders in force together; one of them is obeyed
LONGEST_PAUSE_S = 1.2
STARTS_S = 600.0  # a limit: the time until there is a worker
FAULTS = {NO_SPACE: 3, BROKEN_DISK: 2, SHORT: 2, DELAY: 2, KILL: 1}  # how often each, in proportion
WHILE_TRAINING = 0.85  # the share of random kills that wait until there is a worker


def at_random(trial: Trial) -> None:
    """Kill a worker, the controller or the fork server, some time within the next second."""
    assert trial.process is not None
    if trial.rng.random() < WHILE_TRAINING:
        control = trial.place.control.path
        wait_for(lambda: any(each.role == WORKER for each in living(control)), trial, STARTS_S)
    time.sleep(trial.rng.uniform(0.02, LONGEST_PAUSE_S))
    victim = kill_one(trial.place.control.path, trial.rng)
    if victim is not None:
        trial.outcome.kills[f"random: {victim.role}"] += 1
        if victim.role == CONTROLLER and victim.pid == trial.process.pid:
            trial.process.wait()


@dataclass(slots=True)
class WritePoints:
    """Kill at every write point in turn: before the call, in the middle of the bytes, and after it."""

    points: Sequence[str]
    rng: random.Random
    nths: Sequence[int] = (1, 1, 1, 2, 3, 5, 12)  # which of such calls of a process: mostly the next one
    patience_s: float = PATIENCE_S
    hit: Counter[tuple[str, str]] = field(default_factory=Counter)  # (point, phase) -> kills
    _deck: list[tuple[str, str]] = field(default_factory=list)
    _number: int = 0

    def __call__(self, trial: Trial) -> None:
        self._number += 1
        cards = [self._draw() for _ in range(AT_ONCE)]
        control = trial.place.control
        control.give(self._number, [self._order(*card) for card in cards])
        fired = wait_for(lambda: control.fired(self._number), trial, self.patience_s)
        control.withdraw()
        for said in fired or control.fired(self._number):
            card = (said["point"], said["phase"])
            self.hit[card] += 1
            cards.remove(card)
            trial.outcome.kills[f"write point: {said['point'].split()[0]}"] += 1
        self._deck = self._deck + cards  # drawn again, before the next round

    def _draw(self) -> tuple[str, str]:
        if not self._deck:
            self._deck = every_card(self.points)
            self.rng.shuffle(self._deck)
        return self._deck.pop(0)

    def _order(self, point: str, phase: str) -> Order:
        nth, share = self.rng.choice(self.nths), self.rng.random()
        return Order(point=point, phase=phase, nth=nth, share=share)


def every_card(points: Sequence[str]) -> list[tuple[str, str]]:
    """(write point, phase). Only bytes have a middle; after a statement of SQL is before the next."""
    cards = []
    for point in points:
        operation = point.split()[0]
        left_out = {"write": ()}.get(operation, ("half", "after") if operation == "sql" else ("half",))
        cards += [(point, phase) for phase in PHASES if phase not in left_out]
    return cards


@dataclass(slots=True)
class Faults:
    """Let writes fail: no space for a while, a broken disk, delays; a part may have been written."""

    rng: random.Random
    kinds: Mapping[str, int] = field(default_factory=lambda: dict(FAULTS))
    _number: int = 0

    def __call__(self, trial: Trial) -> None:
        self._number += 1
        [kind] = self.rng.choices(list(self.kinds), list(self.kinds.values()))
        times = 1 if kind in (KILL, CUT) else self.rng.choice((1, 1, 2, 5, 10))
        phase = self.rng.choice(("before", "half"))
        order = Order(point="", phase=phase, do=kind, nth=self.rng.randint(1, 40), share=self.rng.random())
        control = trial.place.control
        control.give(self._number, [order], times=times)
        wait_for(lambda: len(control.fired(self._number)) == times, trial)
        control.withdraw()
        trial.outcome.kills[f"fault: {kind}"] += len(control.fired(self._number))


def wait_for(condition: Callable[[], Any], trial: Trial, patience_s: float = PATIENCE_S) -> Any:
    """Until it is true, the command has ended, or patience has."""
    assert trial.process is not None
    deadline_s = time.monotonic() + patience_s
    while not (value := condition()) and trial.process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return value
