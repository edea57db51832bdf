"""Slurm: submit what nobody has submitted, then watch. The jobs do not need this process, nor it them.

`harness run --on slurm` may be closed, killed or started twice: what is submitted goes on, and the next one
finds it in the folder of runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.scheduling import snapshot
from harness.scheduling.base import Job, RunOne, Watch
from harness.scheduling.cluster import Cluster
from harness.scheduling.groups import JobsOf, make_groups
from harness.scheduling.slurm_queue import EVERY_S
from harness.scheduling.submission import FOLDER, Submission, new_token
from harness.scheduling.submission_writer import Order, by_run_id, draft, write_submission
from harness.study.problems import Problem, StudyError
from harness.study.provenance import changes, code_version

UNSEEN_S = 60.0  # for a queue to show what sbatch said it had submitted
SETTLE_S = 6.0  # between leaving the queue and being asked for in sacct, which lags behind


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSettings:
    """What is submitted, and how it is watched."""

    runs_dir: Path
    data_dir: Path
    cluster: Cluster
    study: str
    size: str
    exact: bool = True
    at_most: int | None = None  # agents at once; None: as the cluster file says
    detach: bool = False  # do not watch
    queue_every_s: float = EVERY_S
    settle_s: float = SETTLE_S
    unseen_s: float = UNSEEN_S

    @property
    def agents(self) -> int:
        """The most agents at once."""
        return self.at_most or self.cluster.at_most


class Slurm:
    """Executes jobs as agents in Slurm arrays. `run_one` is theirs: they run what the snapshot has."""

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings = settings

    def execute(self, jobs: Sequence[Job], run_one: RunOne, watch: Watch) -> dict[str, str]:
        """run_id -> status; INTERRUPTED is what goes on without this process, or was cancelled.

        Ctrl-C ends the watching, not the jobs.

        Raises:
            StudyError: Slurm accepts none of it; nothing was submitted.
        """
        from harness.scheduling.slurm_session import Session

        return Session(self, by_run_id(jobs), watch).run()

    def scripts(self, jobs: Sequence[Job]) -> str:
        """The sbatch scripts of all these jobs. Submits and writes nothing."""
        from harness.scheduling.slurm_submit import scripts

        named = by_run_id(jobs)
        groups, group_of = make_groups(named, self.settings.cluster, self.settings.agents)
        source = snapshot.package()
        path = snapshot.snapshot_path(self.settings.runs_dir, source)
        folder = self.settings.runs_dir / FOLDER / new_token()
        submission = Submission(folder, draft(folder, self._order(path, source), groups))
        names = list(group_of.values())
        try:
            return scripts(submission, {name: names.count(name) for name in submission.groups})
        except ValueError as error:
            raise self.problem(str(error)) from None

    def write(self, jobs: dict[str, Job], elsewhere: JobsOf) -> Submission:
        """Write a new submission of these jobs; `elsewhere` says which Slurm jobs do the runs they need.

        Raises:
            StudyError: the folder of runs cannot be written.
        """
        settings, source = self.settings, snapshot.package()
        groups, group_of = make_groups(jobs, settings.cluster, settings.agents, elsewhere)
        folder = settings.runs_dir / FOLDER / new_token()
        try:
            order = self._order(snapshot.take_snapshot(settings.runs_dir, source), source)
            diff = changes(source.parent) if order.dirty else ""
            return write_submission(draft(folder, order, groups), folder, jobs, group_of, diff)
        except OSError as error:
            raise StudyError([Problem(str(settings.runs_dir), 0, f"cannot be written: {error}")]) from None

    def problem(self, message: str) -> StudyError:
        """An error that names the cluster file."""
        return StudyError([Problem(self.settings.cluster.path, 0, message)])

    def _order(self, path: Path, source: Path) -> Order:
        settings = self.settings
        return Order(
            study=settings.study,
            size=settings.size,
            data_dir=str(settings.data_dir),
            exact=settings.exact,
            python=sys.executable,
            snapshot=str(path),
            cluster_file=settings.cluster.path,
            **code_version(source.parent),
        )
