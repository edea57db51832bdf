"""The beginning of a session on Slurm: what is in the queue already is taken over, the rest is submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.scheduling.sbatch import NoAnswer, Refused
from harness.scheduling.slurm_queue import ask_queue
from harness.scheduling.slurm_stand import Stand
from harness.scheduling.slurm_submit import Submitter, adopt, nameless, unanswered
from harness.scheduling.submission import Submission, submissions

if TYPE_CHECKING:
    from harness.scheduling.slurm_session import Session


class Start:
    """Puts every wanted run into a group of a submission."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def take_over(self) -> None:
        """Find the wanted runs that agents of earlier submissions will do or are doing."""
        session = self._session
        found = [each for each in submissions(session.runs_dir) if each.is_ours and not each.is_closed]
        if not found:
            return
        clusters = {cluster for each in found for cluster in each.clusters()}
        # An answer from before is not enough to give up what may have been submitted.
        unknown = any(nameless(each) or unanswered(each) for each in found)
        every_s = 0.0 if unknown else session.settings.queue_every_s
        session.queue = ask_queue(session.runs_dir, every_s, clusters)
        if session.queue is None:
            session.on_silence()
        for submission in reversed(found):  # the newest has the newest code
            self._take_over_one(submission)
        if session.stand_of:
            jobs = ", ".join(job_id for stand in session.stands for job_id in stand.arrays())
            session.notes.append(f"{runs_in_words(len(session.stand_of))} in the queue already (job {jobs})")

    def _take_over_one(self, submission: Submission) -> None:
        session = self._session
        if session.queue is not None:
            session.notes += adopt(submission, session.queue, alone=True)
        stands = {name: session.new_stand(submission, name) for name in submission.groups}
        for each in stands.values():
            each.look_for_agents(session.queue)
        living = {name: stand for name, stand in stands.items() if stand.has_agents(session.queue)}
        if not living:
            submission.close()
            return
        for run_id in submission.run_ids():
            stand = living.get(submission.group_of(run_id) or "")
            wanted = run_id in session.jobs and run_id not in session.stand_of
            # Agents do not try again what failed since they were submitted.
            if stand and wanted and not session.has_failed(run_id, submission.created_s):
                session.put(run_id, stand)
        session.stands += [stand for stand in living.values() if stand.run_ids]
        for stand in living.values():
            stand.mark()

    def submit_rest(self) -> None:
        """Submit the runs that nobody has, group by group. What sbatch refuses is left for the user to mend.

        Raises:
            StudyError: it refuses all, or does not answer where nobody would ask it again.
        """
        session = self._session
        rest = {run_id: session.jobs[run_id] for run_id in session.open() if run_id not in session.stand_of}
        if not rest:
            return
        submission = session.slurm.write(rest, self._elsewhere)
        stands = {name: session.new_stand(submission, name) for name in submission.groups}
        session.stands += stands.values()
        for run_id in rest:
            session.put(run_id, stands[submission.group_of(run_id) or ""])
        try:
            refused = self._submit(submission, list(stands.values()))
        except NoAnswer as silence:
            if session.settings.detach and not silence.maybe:
                raise session.slurm.problem(f"Slurm does not answer ({silence}); try again later") from None
            what = "it is not known whether it was submitted" if silence.maybe else "Slurm does not answer"
            then = "the same command asks again" if session.settings.detach else "it is asked every 30 s"
            session.notes.append(f"{what} ({silence}); {then}")
            return
        if refused and not submission.job_ids():
            submission.close()
            raise session.slurm.problem(f"not accepted: {next(iter(refused.values()))}")
        for name, why in refused.items():
            session.interrupt(list(stands[name].run_ids), f"{why} ({session.settings.cluster.path})")

    def _submit(self, submission: Submission, stands: list[Stand]) -> dict[str, str]:
        """Returns the groups that were refused, and why.

        Raises:
            NoAnswer: Slurm does not answer; the groups that are left are recovered when it does.
        """
        session, refused = self._session, dict[str, str]()
        submitter = Submitter(submission)
        for stand in stands:
            stand.mark()
            group = stand.group
            if session.interrupts.count:
                break
            if refused.keys() & set(group.after):
                refused[group.name] = "not submitted, because runs that they need were refused"
                continue
            try:
                before = [each for each in stands if stand.waits_for(each)]
                after = [job_id for each in before for job_id in each.arrays()]
                ids = submitter.submit(group, [*group.after_jobs, *after])
            except (Refused, ValueError) as refusal:
                refused[group.name] = str(refusal)
            else:
                session.notes.append(f"submitted {runs_in_words(len(stand.run_ids))} as job {', '.join(ids)}")
        return refused

    def _elsewhere(self, need: str) -> list[str]:
        stand = self._session.stand_of.get(need)
        by_cluster = stand.arrays_by_cluster() if stand else {}
        return [f"{each};{cluster}".rstrip(";") for cluster, ids in by_cluster.items() for each in ids]


def runs_in_words(count: int) -> str:
    """
    >>> runs_in_words(1), runs_in_words(2)
    ('1 run', '2 runs')
    """
    return f"{count} run" if count == 1 else f"{count} runs"
