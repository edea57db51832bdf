"""What becomes of runs whose agents have gone, carried out: recorded in their folders, said to the user."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.scheduling.attempt import record, record_refused
from harness.scheduling.base import INTERRUPTED
from harness.scheduling.sbatch import NoAnswer, Refused
from harness.scheduling.slurm_asking import Asker
from harness.scheduling.slurm_policy import MOST_IN_VAIN, Decision, decide
from harness.scheduling.slurm_queue import Accounting, Ended
from harness.scheduling.slurm_stand import Stand
from harness.scheduling.slurm_submit import Submitter, nameless, unanswered
from harness.study.records import CANCELLED, ENDED, FAILED, RUNNING, run_state

if TYPE_CHECKING:
    from harness.scheduling.slurm_session import Session


class Recovery:
    """Looks after the stands of a session that have runs but no agents."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def round(self, asker: Asker[list[Ended] | None], accounting: Accounting) -> None:
        """Ask sacct about those that have been gone for a while, all at once; act on its answer."""
        for ended in asker.fetch():
            for stand in self._gone():
                self._recover(stand, ended)
        gone = self._gone()
        if gone and asker.is_idle and accounting.may_ask():
            arrays: dict[str, list[str]] = {}
            for stand in gone:
                for cluster, ids in stand.arrays_by_cluster().items():
                    arrays.setdefault(cluster, []).extend(ids)
            asker.ask(lambda: accounting.ask(arrays))

    def close_what_has_gone(self) -> None:
        """Close submissions of which nothing is left: no agent, no run. What no queue showed stays open: the
        next command asks for it once more before it submits."""
        queue = self._session.queue
        by_token: dict[str, list[Stand]] = {}
        for stand in self._session.stands:
            by_token.setdefault(stand.submission.token, []).append(stand)
        for stands in by_token.values():
            submission = stands[0].submission
            idle = not any(stand.run_ids or stand.has_agents(queue) for stand in stands)
            names = {submission.job_name(name) for name in submission.groups}
            in_queue = queue is None or any(task.name in names for task in queue.tasks)
            unknown = unanswered(submission) or nameless(submission)
            if idle and not in_queue and not unknown and not submission.is_closed:
                submission.close()

    def _gone(self) -> list[Stand]:
        """Those known to be without agents for long enough; longer, where they were never seen."""
        settings, now_s = self._session.settings, time.monotonic()
        return [
            stand
            for stand in self._session.stands
            if stand.run_ids and stand.gone_s is not None
            if now_s - stand.gone_s >= (settings.unseen_s if stand.is_unseen() else settings.settle_s)
        ]

    def _recover(self, stand: Stand, ended: Sequence[Ended] | None) -> None:
        left = [run_id for run_id in list(stand.run_ids) if self._is_left(run_id, stand)]
        left = [run_id for run_id in left if self._can_go_on(run_id)]
        needed = [each for each in self._session.stands if each.run_ids and stand.waits_for(each)]
        if not left or any(each.gone_s is not None for each in needed):
            return  # over, or alive elsewhere and looked at again, or not before others are recovered
        if not stand.was_submitted():
            decision = Decision(again=left, reason="they had not been submitted")
        elif needed and stand.evidence(ended).is_seen:
            decision = Decision(again=left, reason="the runs they need had not ended")
        else:
            stand.lose()
            decision = decide(left, stand.evidence(ended))
        self._carry_out(stand, decision)

    def _is_left(self, run_id: str, stand: Stand) -> bool:
        """Whether nobody has the run. What has ended meanwhile gets its status."""
        session = self._session
        state = run_state(session.folder(run_id))
        if state in ENDED:
            session.end(run_id, state)
        elif state == FAILED and session.has_failed(run_id, stand.submission.created_s):
            session.end(run_id, FAILED)
        elif state == CANCELLED:
            session.interrupt([run_id], "cancelled")
        else:
            return state != RUNNING
        return False

    def _can_go_on(self, run_id: str) -> bool:
        """Whether nothing has become of the runs it needs that ends it too."""
        session = self._session
        needs = {session.statuses.get(need): need for need in session.jobs[run_id].needs}
        if FAILED in needs:
            why = f"not started: {needs[FAILED]}, which it needs, failed"
            record_refused(session.runs_dir, run_id, why)
            session.end(run_id, FAILED)
        elif INTERRUPTED in needs:
            session.interrupt([run_id], f"it needs {needs[INTERRUPTED]}, which was left too")
        return FAILED not in needs and INTERRUPTED not in needs

    def _carry_out(self, stand: Stand, decision: Decision) -> None:
        session = self._session
        for run_id, why in decision.failed.items():
            record_refused(session.runs_dir, run_id, why)
            session.end(run_id, FAILED)
        by_reason: dict[str, list[str]] = {}
        for run_id, why in decision.interrupted.items():
            self._note(run_id, "interrupted", why)
            by_reason.setdefault(why, []).append(run_id)
        for why, run_ids in by_reason.items():
            session.interrupt(run_ids, why)
        if decision.again:
            self._submit_again(stand, decision)

    def _submit_again(self, stand: Stand, decision: Decision) -> None:
        session, again = self._session, decision.again
        width = math.ceil(len(again) / stand.group.resources.runs_side_by_side)
        group = dataclasses.replace(stand.group, width=min(stand.group.width, width))
        with session.lock():
            if stand.has_agents(session.queue):  # another controller was quicker
                stand.mark()
                return
            stand.submit_again()
            try:
                needed = (each for each in session.stands if each.run_ids and stand.waits_for(each))
                after = [job_id for each in needed for job_id in each.arrays()]
                ids = ", ".join(Submitter(stand.submission).submit(group, after))
            except NoAnswer as silence:
                session.notes.append(f"not submitted again yet: Slurm does not answer ({silence})")
                return
            except Refused as refusal:
                session.interrupt(again, f"not submitted again: {refusal}")
                return
        for run_id in again:
            self._note(run_id, "resubmitted", decision.reason, job=ids)
        count = f"{len(again)} run{'s' if len(again) > 1 else ''} lost their agents"
        tries = f", {stand.in_vain} of {MOST_IN_VAIN} times in vain" if stand.in_vain else ""
        session.notes.append(f"{count} ({decision.reason}{tries}); submitted again as job {ids}")

    def _note(self, run_id: str, kind: str, why: str, **values: str) -> None:
        """An event of a run that has begun; what has not needs no record."""
        if self._session.folder(run_id).events.exists():
            record(self._session.runs_dir, run_id, kind, message=why, **values)
