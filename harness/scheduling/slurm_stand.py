"""Where runs stand on Slurm: which group of which submission has them, and what became of its agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.scheduling.claimed import last_step
from harness.scheduling.slurm_policy import Evidence, says_out_of_memory
from harness.scheduling.slurm_queue import Ended, Queue, Task
from harness.scheduling.slurm_submit import group_of, unanswered
from harness.scheduling.slurm_watch import GONE, Agent, Agents, has_logs, log_of, logs_of
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
