"""Where runs stand on Slurm: which group of which submission has them, and what became of its agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.scheduling.claimed import last_step
from harness.scheduling.slurm_policy import Evidence, says_out_of_memory
from harness.scheduling.slurm_queue import Ended, Queue, Task
from harness.scheduling.slurm_submit import group_of, unanswered
from harness.scheduling.slurm_watch import GONE, Agent, Agents, log_of, logs_of
from harness.scheduling.submission import Group, Submission
from harness.study.records import RunFolder

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
    _earlier: frozenset[str] = frozenset()  # arrays before the last submission
    _ended: int = 0
    _progress: tuple[int, int] = (-1, -1)  # at the last submission: runs that had ended, steps of the others

    def end(self, run_id: str) -> None:
        """One of its runs has ended."""
        if run_id in self.run_ids:
            del self.run_ids[run_id]
            self._ended += 1

    def arrays(self) -> list[str]:
        """The arrays of its last submission."""
        ids = self.submission.job_ids()
        mine = [job_id for chunk, job_id in ids.items() if group_of(chunk) == self.group.name]
        return [job_id for job_id in mine if job_id not in self._earlier]

    def tasks(self, queue: Queue) -> list[Task]:
        """Its agents that are in the queue."""
        return queue.of_name(self.submission.job_name(self.group.name))

    def has_agents(self, queue: Queue | None) -> bool:
        """Whether an agent that could do its runs is or may be in the queue. Unknown counts as yes."""
        if queue is None or self.tasks(queue):
            return True
        if any(group_of(chunk) == self.group.name for chunk in unanswered(self.submission)):
            return True
        submitted_s = [
            said["submitted_s"]
            for chunk, said in self.submission.chunks().items()
            if group_of(chunk) == self.group.name
        ]
        return queue.asked_s < max(submitted_s, default=0.0) + ANSWER_LAG_S

    def waits_for(self, other: Stand) -> bool:
        """Whether its runs may need those of the other."""
        return other.submission.token == self.submission.token and other.group.name in self.group.after

    def submit_again(self) -> None:
        """It is about to be submitted once more: what comes after this is progress."""
        self._earlier |= set(self.arrays())
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
        return Evidence(
            ended=None if ended is None else [each for each in ended if each.array_id in arrays],
            began=len(agents),
            training={agent.job_id: frozenset(agent.training) for agent in agents},
            said=[agent.reason for agent in agents],
            log=log_of(self.submission, arrays),
            memory_killed=frozenset(self._killed_for_memory(agents)),
            in_vain=self.in_vain,
            unbegun=self.unbegun,
            memory_hint=f"{hint} in {self.submission.cluster_file}",
        )

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
