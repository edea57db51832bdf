"""The processes of a study under test, found by the control folder in their environment."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.orders import ENVIRONMENT

CONTROLLER, SERVER, WORKER, TRACKER, AGENT = "controller", "fork server", "worker", "tracker", "agent"
WEIGHTS = {WORKER: 24, AGENT: 8, CONTROLLER: 4, SERVER: 2, TRACKER: 1}


@dataclass(frozen=True, slots=True)
class Victim:
    """A living process and its part in the study."""

    pid: int
    role: str


def living(control: Path) -> list[Victim]:
    """Every process of the study, orphans included."""
    marker = f"{ENVIRONMENT}={control}".encode()
    found: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if marker not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if state != "Z":
            found[int(entry.name)] = (int(parent), command)
    return [Victim(pid, _role(parent, command, found)) for pid, (parent, command) in found.items()]


def _role(parent: int, command: str, all_processes: dict[int, tuple[int, str]]) -> str:
    if "resource_tracker" in command:
        return TRACKER
    if "forkserver" not in command:
        return AGENT if "\0agent\0" in command else CONTROLLER
    above = all_processes.get(parent, (0, ""))[1]
    return WORKER if "forkserver" in above or not above else SERVER


def kill_one(control: Path, rng: random.Random, weights: dict[str, int] | None = None) -> Victim | None:
    """Kill one process with SIGKILL; None where there is none."""
    weights = WEIGHTS if weights is None else weights
    victims = [each for each in living(control) if weights.get(each.role)]
    if not victims:
        return None
    shares = {role: sum(each.role == role for each in victims) for role in weights}
    [victim] = rng.choices(victims, [weights[each.role] / shares[each.role] for each in victims])
    with suppress(ProcessLookupError):
        os.kill(victim.pid, signal.SIGKILL)
        return victim
    return None


def kill_all(control: Path) -> int:
    """End whatever is left of a study, and say how many processes that were."""
    victims = living(control)
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
    return len(victims)
