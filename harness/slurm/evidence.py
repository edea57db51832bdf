"""What became of runs whose agents have gone: the evidence, and a decision for each way to end."""

from __future__ import annotations

import os
import pwd
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.runs.folder import RunFolder
from harness.scheduling.queue import last_step
from harness.slurm.queue import GONE, Agent, Agents, Ended, Queue, Task, has_logs, log_of, logs_of
from harness.slurm.sbatch import group_of, unanswered
from harness.slurm.setup import failures
from harness.slurm.submission import Group, Submission

# What to do about runs whose agents have gone: plain data in, a decision out. Each way to end is told
# apart.
#
# | the agents ended                                | their unfinished runs
# | |-------------------------------------------------|-----------------------------------------------------
# -----| | COMPLETED, TIMEOUT, NODE_FAIL, PREEMPTED, crash | are submitted again; fail after 3 times without
# progress | | unknown: sacct is absent, or does not answer    | likewise
# | | before they began (no file in agents/)          | are submitted again once, then fail; are interrupted
# | |                                                 | where neither sacct nor a log says that they ended
# | | never seen: no queue, sacct, agent or log       | are interrupted: a job may be where nobody can look
# | | CANCELLED                                       | are interrupted: whoever cancelled them meant it
# | | OUT_OF_MEMORY                                   | those it was training fail; the others as above
# |


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
    setup: Sequence[str] = ()  # how lines of `setup:` failed
    log: str = ""  # the end of the newest log
    memory_killed: frozenset[str] = frozenset()  # agents whose log says that they used too much memory
    in_vain: int = 1  # submissions in a row without progress, this one included
    unbegun: int = 0  # likewise of which no agent began
    memory_hint: str = "raise memory_gb"

    @property
    def has_words(self) -> bool:
        """Whether anything says that the agents ended, and not only that they are not in the queue."""
        return bool(self.ended or self.began or self.log or self.setup)

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
    left_alone = _why_left_alone(evidence)
    for run_id in left:
        if not evidence.is_seen:
            why = f"Slurm shows no {evidence.jobs}, so it is not known what became of it"
            decision.interrupted[run_id] = f"{why}; {LOOK}"
        elif run_id in too_large:
            why = "Slurm ended its job because it used more memory than it had asked for"
            decision.failed[run_id] = f"{why}; {evidence.memory_hint}"
        elif left_alone:
            decision.interrupted[run_id] = left_alone
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


def _why_left_alone(evidence: Evidence) -> str:
    """Why nothing is submitted again, and no run is to blame; "": that does not hold."""
    cancelled = next((each for each in evidence.ended or () if each.state == CANCELLED), None)
    if cancelled is not None:
        return f"its job was cancelled by {_who(cancelled.by)}"
    if evidence.setup and not evidence.began:
        return f"{'; '.join(evidence.setup)}; no run was started"
    return ""


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
    said = [each for each in dict.fromkeys([*evidence.setup, *evidence.said]) if each]
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


# Where runs stand on Slurm: which group of which submission has them, and what became of its agents.


ANSWER_LAG_S = 3.0  # the queue may not have what was submitted so shortly before it was asked


@dataclass(slots=True)
class Stand:
    """The wanted runs of one group of one submission. They are `covered` while it may have agents."""

    submission: Submission
    group: Group
    agents: Agents
    run_ids: dict[str, None] = field(default_factory=dict)  # that have not ended, in the order of the plan
    gone_s: float | None = None  # since when the queue is known to be without its agents, by time.monotonic
    in_vain: int = 0  # submissions in a row that ended without progress
    unbegun: int = 0  # likewise of which no agent began
    seen: bool = False  # whether an agent of its last submission was in the queue
    _earlier: frozenset[str] = frozenset()  # chunks before the last submission
    _ended: int = 0
    _progress: tuple[int, int] = (-1, -1)  # at the last submission: runs that had ended, steps of the others

    def end(self, run_id: str) -> None:
        """One of its runs has ended."""
        if run_id in self.run_ids:
            del self.run_ids[run_id]
            self._ended += 1

    def arrays(self) -> list[str]:
        """The arrays of its last submission."""
        return [said["job_id"] for said in self._chunks().values() if said["job_id"]]

    def arrays_by_cluster(self) -> dict[str, list[str]]:
        """The same, by the cluster that has them."""
        found: dict[str, list[str]] = {}
        for said in self._chunks().values():
            if said["job_id"]:
                found.setdefault(said.get("cluster", ""), []).append(said["job_id"])
        return found

    def was_submitted(self) -> bool:
        """Whether it was, or may have been."""
        return bool(self._chunks())

    def is_unseen(self) -> bool:
        """Whether nothing, neither the queue nor an agent nor a log, has shown its last submission."""
        arrays = self.arrays()
        return self.was_submitted() and not (self.seen or self._began() or has_logs(self.submission, arrays))

    def look_for_agents(self, queue: Queue | None) -> None:
        """Remember that the queue has shown its agents."""
        self.seen = self.seen or bool(queue and self.tasks(queue))

    def tasks(self, queue: Queue) -> list[Task]:
        """Its agents that are in the queue."""
        return queue.of_name(self.submission.job_name(self.group.name))

    def has_agents(self, queue: Queue | None) -> bool:
        """Whether an agent that could do its runs is or may be in the queue. Unknown counts as yes."""
        if queue is None or self.tasks(queue):
            return True
        if any(group_of(chunk) == self.group.name for chunk in unanswered(self.submission)):
            return True
        submitted_s = [said["submitted_s"] for said in self._all_chunks().values()]
        return queue.asked_s < max(submitted_s, default=0.0) + ANSWER_LAG_S

    def waits_for(self, other: Stand) -> bool:
        """Whether its runs may need those of the other."""
        return other.submission.token == self.submission.token and other.group.name in self.group.after

    def submit_again(self) -> None:
        """It is about to be submitted once more: what comes after this is progress."""
        self._earlier |= set(self._chunks())
        self.seen = False
        self.mark()

    def mark(self) -> None:
        """Remember how far its runs have come."""
        self.gone_s = None
        self._progress = self._now()

    def lose(self) -> None:
        """All agents of its last submission have gone."""
        self.in_vain = 0 if self._now() > self._progress else self.in_vain + 1
        self.unbegun = 0 if self._began() else self.unbegun + 1

    def evidence(self, ended: Sequence[Ended] | None) -> Evidence:
        """What is known about how the agents of its last submission ended."""
        arrays = self.arrays()
        agents = self._began()
        asked_gb = self.group.resources.memory_gb
        hint = "set memory_gb" if asked_gb is None else f"raise memory_gb (now {asked_gb:g})"
        name = self.submission.job_name(self.group.name)
        mine = [each for each in ended or () if each.array_id in arrays and each.name == name]
        return Evidence(
            ended=None if ended is None else mine,
            seen=self.seen,
            jobs=self._in_words(),
            began=len(agents),
            training={agent.job_id: frozenset(agent.training) for agent in agents},
            said=[agent.reason for agent in agents],
            setup=failures(self.group.resources.setup, self.submission.folder, arrays),
            log=log_of(self.submission, arrays),
            memory_killed=frozenset(self._killed_for_memory(agents)),
            in_vain=self.in_vain,
            unbegun=self.unbegun,
            memory_hint=f"{hint} in {self.submission.cluster_file}",
        )

    def _in_words(self) -> str:
        """The jobs of its last submission, such as `job 4101 (harness-0123456789ab-g1) on cluster alpha`."""
        name = self.submission.job_name(self.group.name)
        arrays, cluster = ", ".join(self.arrays()), self.submission.cluster
        return f"job {f'{arrays} ({name})' if arrays else name}{f' on cluster {cluster}' if cluster else ''}"

    def _all_chunks(self) -> dict[str, dict[str, Any]]:
        chunks = self.submission.chunks()
        return {chunk: said for chunk, said in chunks.items() if group_of(chunk) == self.group.name}

    def _chunks(self) -> dict[str, dict[str, Any]]:
        """Of its last submission."""
        return {chunk: said for chunk, said in self._all_chunks().items() if chunk not in self._earlier}

    def _began(self) -> list[Agent]:
        arrays = self.arrays()
        return [agent for agent in self.agents.by_job.values() if agent.array_id in arrays]

    def _killed_for_memory(self, agents: Sequence[Agent]) -> list[str]:
        """Without cgroups Slurm's log alone tells."""
        return [
            agent.job_id
            for agent in agents
            if agent.last not in GONE
            and any(says_out_of_memory(text) for text in logs_of(self.submission, agent.array_id, agent.task))
        ]

    def _now(self) -> tuple[int, int]:
        folders = (RunFolder(self.submission.runs_dir / run_id) for run_id in self.run_ids)
        return self._ended, sum(last_step(folder.read_events()) for folder in folders)
