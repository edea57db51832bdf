"""What to do about runs whose agents have gone: plain data in, a decision out. Each way to end is told apart.

| the agents ended                                | their unfinished runs                                    |
|-------------------------------------------------|----------------------------------------------------------|
| COMPLETED, TIMEOUT, NODE_FAIL, PREEMPTED, crash | are submitted again; fail after 3 times without progress |
| unknown: sacct is absent, or does not answer    | likewise                                                 |
| before they began (no file in agents/)          | are submitted again once, then fail; are interrupted     |
|                                                 | where neither sacct nor a log says that they ended       |
| never seen: no queue, sacct, agent or log       | are interrupted: a job may be where nobody can look      |
| CANCELLED                                       | are interrupted: whoever cancelled them meant it         |
| OUT_OF_MEMORY                                   | those it was training fail; the others as above          |
"""

from __future__ import annotations

import os
import pwd
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.scheduling.slurm_queue import Ended

MOST_IN_VAIN = 3  # submissions in a row in which no run of the group came further
MOST_UNBEGUN = 2  # submissions in a row of which no agent began
OUT_OF_MEMORY, CANCELLED = "OUT_OF_ME", "CANCELLED"  # the first as short as sacct may cut it
LOOK = "look for it with squeue or sacct"
MEMORY_WORDS = re.compile(r"oom[-_ ]?kill|exceeded (?:\w+ )?memory limit", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known about the newest arrays of a group, of which nothing is in the queue."""

    ended: Sequence[Ended] | None = None  # as sacct says; None: unknown
    seen: bool = True  # whether any of its agents was in the queue
    jobs: str = "its job"  # as they are named to the user
    began: int = 0  # agents that began
    training: Mapping[str, frozenset[str]] = field(default_factory=dict)  # agent's job id -> runs it had
    said: Sequence[str] = ()  # why agents left, in their own words
    log: str = ""  # the end of the newest log
    memory_killed: frozenset[str] = frozenset()  # agents whose log says that they used too much memory
    in_vain: int = 1  # submissions in a row without progress, this one included
    unbegun: int = 0  # likewise of which no agent began
    memory_hint: str = "raise memory_gb"

    @property
    def has_words(self) -> bool:
        """Whether anything says that the agents ended, and not only that they are not in the queue."""
        return bool(self.ended or self.began or self.log)

    @property
    def is_seen(self) -> bool:
        """Whether anything shows that there were agents at all."""
        return self.seen or self.has_words


@dataclass(slots=True)
class Decision:
    """What becomes of the runs that are left."""

    failed: dict[str, str] = field(default_factory=dict)  # run_id -> why
    interrupted: dict[str, str] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)
    reason: str = ""  # why they are submitted again


def decide(left: Iterable[str], evidence: Evidence) -> Decision:
    """What becomes of the runs `left` unfinished."""
    decision = Decision(reason=_how_it_ended(evidence))
    killed = {each.job_id for each in evidence.ended or () if each.state.startswith(OUT_OF_MEMORY)}
    left, too_large = list(left), set[str]()
    for job_id in killed | evidence.memory_killed:
        too_large |= evidence.training.get(job_id, frozenset())
    if (killed or evidence.memory_killed) and not too_large and evidence.in_vain:
        too_large |= set(left)  # too little to begin with any
    cancelled = next((each for each in evidence.ended or () if each.state == CANCELLED), None)
    for run_id in left:
        if not evidence.is_seen:
            why = f"Slurm shows no {evidence.jobs}, so it is not known what became of it"
            decision.interrupted[run_id] = f"{why}; {LOOK}"
        elif run_id in too_large:
            why = "Slurm ended its job because it used more memory than it had asked for"
            decision.failed[run_id] = f"{why}; {evidence.memory_hint}"
        elif cancelled is not None:
            decision.interrupted[run_id] = f"its job was cancelled by {_who(cancelled.by)}"
        elif not evidence.began and evidence.unbegun >= MOST_UNBEGUN and not evidence.has_words:
            why = f"{evidence.jobs} left the queue and Slurm does not say how, {evidence.unbegun} times"
            decision.interrupted[run_id] = f"{why}; {LOOK}"
        elif not evidence.began and evidence.unbegun >= MOST_UNBEGUN:
            why = f"its agents ended before they began, {evidence.unbegun} times"
            decision.failed[run_id] = _with_log(f"{why} ({decision.reason})", evidence.log)
        elif evidence.in_vain >= MOST_IN_VAIN:
            why = f"submitted {evidence.in_vain} times without coming further"
            decision.failed[run_id] = _with_log(f"{why} ({decision.reason})", evidence.log)
        else:
            decision.again.append(run_id)
    return decision


def says_out_of_memory(log: str) -> bool:
    """Whether the end of a log has Slurm's own words for it; without cgroups the state is only FAILED."""
    return bool(MEMORY_WORDS.search(log))


def _how_it_ended(evidence: Evidence) -> str:
    """
    >>> _how_it_ended(Evidence(ended=[Ended("7", "7", "TIMEOUT"), Ended("7", "8", "NODE_FAIL")]))
    'Slurm says NODE_FAIL, TIMEOUT'
    """
    if evidence.ended is None:
        text = "Slurm does not say how its jobs ended"
    else:
        states = Counter(_state(each) for each in evidence.ended)
        text = f"Slurm says {', '.join(sorted(states))}" if states else "Slurm knows no such job"
    said = [each for each in dict.fromkeys(evidence.said) if each]
    return "; ".join([text, *said[:3]])


def _state(ended: Ended) -> str:
    code = "" if ended.exit_code in ("", "0:0") else f" {ended.exit_code}"
    return f"{ended.state}{code}"


def _who(number: str) -> str:
    if not number.isdecimal():
        return "somebody"
    if int(number) == os.getuid():
        return "you"
    try:
        return pwd.getpwuid(int(number)).pw_name
    except KeyError:
        return f"user {number}"


def _with_log(text: str, log: str) -> str:
    return f"{text}; its log ends with:\n{log}" if log else text
